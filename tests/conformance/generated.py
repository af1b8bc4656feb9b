"""Runs generated programs through both sides, many at a time in one Envoy and one Penstock, and compares.

Each probe takes its script out of a request header (probe/README.md). Lines of streams that run at the same time are told
apart by their context, which a first command in every script ties to its program.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from tests.conformance import normal
from tests.conformance.case import PROBE, Outcome, Part, converse, show_requests
from tests.conformance.envoy import EnvoyError, EnvoyFilter
from tests.conformance.fleet import EnvoyFleet, Lane
from tests.conformance.penstock import Penstock
from tests.conformance.programs import Program
from tests.conformance.sides import crashed
from tests.conformance.upstream import Answer, Received, Upstream, sized
from tests.conformance.verdict import difference

AT_ONCE = 40
DELAY_SECONDS = 0.02
PATIENCE_SECONDS = 4.0
LINGER_SECONDS = 0.6
RETRIES = 2
"""A difference counts when it shows every time: pieces that arrive together are one piece for either side."""

ENTRY = re.compile(r"^([ABC]) (\w+) c=(\d+)(.*)$")
TIE = re.compile(r"^[ABC]   get 0 x-program = 0 \[(\d+)\]$")
REPLIED = re.compile(r"^log: .   reply ")
TAGS = ("strict", "lax")


@dataclass(frozen=True, slots=True)
class Difference:
    """A program that the two sides run differently."""

    number: int
    program: Program
    lines: tuple[str, ...]
    envoy: Outcome
    penstock: Outcome


@dataclass(slots=True)
class Answers(Upstream):
    """Answers each program's request as the program says."""

    programs: Sequence[Program] = ()
    by_program: dict[int, list[Received]] = field(default_factory=dict)

    def choose(self, request: Received, number: int) -> Answer:
        tie = request.one("x-program")
        if tie is None or not tie.isdigit():
            return sized()
        self.by_program.setdefault(int(tie), []).append(request)
        return self.programs[int(tie)].answer


def filters(allow: bool) -> list[EnvoyFilter]:
    tag = TAGS[allow]
    return [
        EnvoyFilter(
            PROBE, f"name {name}\nfrom x-script-{name.lower()}\nconfigure: period 10\n".encode(), name=f"{tag}{name}",
            vm_id=f"{tag}{name}", allow_on_headers_stop_iteration=allow,
        )
        for name in "ABC"
    ]  # fmt: skip


def pieces_of(program: Program, number: int) -> list[bytes]:
    """The request with the program's number and scripts in its head."""
    head, end, rest = program.pieces[0].partition(b"\r\n\r\n")
    fields = [f"x-program: {number}"]
    for name, script in zip("abc", program.scripts, strict=True):
        lines = "!".join(
            ["rqh: get 0 x-program", *script.split("\n"), "log: prop response%00code_details; prop response%00flags"]
        )
        fields.append(f"x-script-{name}: {lines}")
    return [head + "".join(f"\r\n{line}" for line in fields).encode() + end + rest, *program.pieces[1:]]


def by_program(lines: Iterable[tuple[str, str]]) -> dict[int, list[str]]:
    """Log lines (lane, message) of each program, contexts without their ids."""
    owner: dict[tuple[str, str, str], int] = {}
    current: dict[tuple[str, str], str] = {}
    every = list(lines)
    for lane, message in every:
        if entry := ENTRY.match(message):
            current[lane, entry[1]] = entry[3]
        elif tie := TIE.match(message):
            owner[lane, message[0], current[lane, message[0]]] = int(tie[1])
    found: dict[int, list[str]] = {}
    current.clear()
    for lane, message in every:
        entry = ENTRY.match(message)
        if entry:
            current[lane, entry[1]] = entry[3]
            message = f"{entry[1]} {entry[2]} c=0{entry[4]}"
        number = owner.get((lane, message[0], current.get((lane, message[0]), "")))
        if number is not None:
            found.setdefault(number, []).append(f"log: {normal.line(message, {})}")
    return {number: normal.ends(shown) for number, shown in found.items()}


async def clients(programs: Sequence[Program], chosen: Sequence[int], ports: Sequence[int], slow: bool) -> dict[int, list[str]]:
    gate = asyncio.Semaphore(4 if slow else AT_ONCE)
    delay = DELAY_SECONDS * (2 if slow else 1)

    async def play(number: int) -> tuple[int, list[str]]:
        program = programs[number]
        async with gate:
            pieces = pieces_of(program, number)
            # A filter may hold the end of a response that the client has all of: leaving then would race with its tick.
            holds = any(line.startswith("rsb") and " ret " in line for script in program.scripts for line in script.split("\n"))
            linger = LINGER_SECONDS if holds else 0.0
            return number, await converse(ports[program.allow], Part(pieces, delay, PATIENCE_SECONDS, linger=linger))

    return dict(await asyncio.gather(*(play(number) for number in chosen)))


def outcomes(
    programs: Sequence[Program],
    chosen: Sequence[int],
    shown: dict[int, list[str]],
    upstream: Answers,
    logs: dict[int, list[str]],
    names: dict[str, str],
) -> dict[int, Outcome]:
    # Whether the connection goes on after an answer of a filter depends on how much of the request Envoy's chain has seen.
    return {
        number: Outcome(
            [line for line in shown[number] if line != "client: | connection: close"],
            request_lines(logs.get(number, []), upstream.by_program.get(number, []), names),
            [line for text in logs.get(number, []) for line in [text] if not line.endswith(f"x-program = 0 [{number}]")],
        )
        for number in chosen
    }


def request_lines(log: list[str], requests: list[Received], names: dict[str, str]) -> list[str]:
    """What the upstream got; of a request whose body a local reply cut off, how far it had come is a matter of time."""
    if any(REPLIED.match(line) for line in log):
        return []
    heads = [Received(one.start_line, one.headers, complete=True) if not one.complete else one for one in requests]
    return [line for line in show_requests("service", heads, names) if "transfer-encoding" not in line]


async def on_envoy(programs: Sequence[Program], chosen: Sequence[int], slow: bool = False) -> dict[int, Outcome]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Answers(programs=programs))
        lanes = [Lane(tag, filters(bool(allow)), {tag: upstream.port}, [("/", tag)]) for allow, tag in enumerate(TAGS)]
        fleet = await stack.enter_async_context(EnvoyFleet(lanes=lanes))
        refused: OSError | None = None
        try:
            shown = await clients(programs, chosen, [fleet.ports[tag] for tag in TAGS], slow)
        except OSError as error:  # a connection that Envoy's end has reset
            refused = error
        await asyncio.sleep(0.4)
        if fleet.process is None or fleet.process.poll() is not None:
            raise EnvoyError(crashed(fleet.raw_log()))
        if refused is not None:
            raise refused
        lines = ((line.prefix.split(" ")[0][:-1], line.message) for line in fleet.worker_lines())
        return outcomes(programs, chosen, shown, upstream, by_program(lines), dict.fromkeys(TAGS, "service"))


async def on_penstock(programs: Sequence[Program], chosen: Sequence[int], slow: bool = False) -> dict[int, Outcome]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Answers(programs=programs))
        sides = [
            await stack.enter_async_context(Penstock(filters(bool(allow)), {tag: upstream.port}, [("/", tag)]))
            for allow, tag in enumerate(TAGS)
        ]
        shown = await clients(programs, chosen, [side.port for side in sides], slow)
        await asyncio.sleep(0.2)
        lines = ((TAGS[allow], line.message) for allow, side in enumerate(sides) for line in side.lines)
        return outcomes(programs, chosen, shown, upstream, by_program(lines), dict.fromkeys(TAGS, "service"))


async def from_envoy(programs: Sequence[Program], chosen: Sequence[int], slow: bool) -> dict[int, Outcome]:
    """As `on_envoy`, without the programs that crash it."""
    try:
        return await on_envoy(programs, chosen, slow)
    except EnvoyError:
        if len(chosen) == 1:
            return {}
        middle = len(chosen) // 2
        return {
            **await from_envoy(programs, chosen[:middle], slow),
            **await from_envoy(programs, chosen[middle:], slow),
        }


async def compare(programs: Sequence[Program]) -> list[Difference]:
    """The programs that differ, every time they are run."""
    chosen: list[int] = list(range(len(programs)))
    found: list[Difference] = []
    for attempt in range(1 + RETRIES):
        envoy = await from_envoy(programs, chosen, slow=attempt > 0)
        chosen = sorted(envoy)
        penstock = await on_penstock(programs, chosen, slow=attempt > 0)
        found = [
            Difference(number, programs[number], lines, envoy[number], penstock[number])
            for number in chosen
            if (lines := difference(envoy[number], penstock[number]))
        ]
        chosen = [one.number for one in found]
        if not chosen:
            break
    return found
