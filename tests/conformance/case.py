"""A conformance case, and what came of it on one side."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance import normal
from tests.conformance.client import Client, Response
from tests.conformance.envoy import AccessLine, EnvoyFilter
from tests.conformance.upstream import Answer, Received, sized
from tests.conformance.wire import Recorder, WireError, read_body

PROBE = Path(__file__).parent / "probe" / "probe.wasm"
PROBES = {
    "0.1.0": PROBE.with_name("probe_0_1_0.wasm"),
    "0.2.0": PROBE.with_name("probe_0_2_0.wasm"),
    "0.2.1": PROBE,
}
"""The probe of each ABI version."""
NAMES = "ABCDEFGH"


@dataclass(frozen=True, slots=True)
class Case:
    """Filters, what the client sends, what the upstream answers.

    `scripts`: of the probes A, B, C..., in the chain's order; `{service}`, `{two}`, `{dead}` are the clusters. `modules`: other
    filters in their place (a path), by index. `pieces` are written `delay` seconds apart, `times` times on new connections;
    the client leaves after `leave` seconds and waits at most `seconds`. `abi`: the probes' version. `edge`: numbers of the digest's edge cases.
    `envoy`: False where Envoy crashes. `waiver`: the entry of docs/conformance.md that explains the difference.
    """

    name: str
    scripts: tuple[str, ...]
    pieces: tuple[bytes, ...]
    answers: tuple[Answer, ...] = (sized(),)
    delay: float = 0.03
    seconds: float = 1.0
    settle: float = 0.0
    times: int = 1
    leave: float | None = None
    keep_alive: bool = False
    routes: tuple[tuple[str, str], ...] = (("/", "service"),)
    allow: bool = False
    vm_id: str = ""
    root_id: str = ""
    vm_configuration: bytes = b""
    fail_policy: str = "closed"
    limit: int | None = None
    timeout: float = 15.0
    trailers: bool = False
    abi: str = "0.2.1"
    modules: dict[int, Path] = field(default_factory=dict)
    edge: tuple[int, ...] = ()
    waiver: str = ""

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def part(self) -> Part:
        return Part(self.pieces, self.delay, self.seconds, self.leave, self.times, self.keep_alive)

    def clusters(self, tag: str) -> dict[str, str]:
        return {role: f"{role}-{tag}" for role in ("service", "two", "dead")}

    def filters(self, tag: str) -> list[EnvoyFilter]:
        """The chain; `tag` makes names unique among the cases of a batch."""
        found = []
        for index, script in enumerate(self.scripts):
            for role, cluster in self.clusters(tag).items():
                script = script.replace("{" + role + "}", cluster)
            found.append(
                EnvoyFilter(
                    self.modules.get(index, PROBES[self.abi]),
                    f"name {NAMES[index]}\n{script}\n".encode() if index not in self.modules else script.encode(),
                    name=f"{tag}{NAMES[index]}",
                    root_id=self.root_id,
                    vm_id=f"{self.vm_id}{tag}" if self.vm_id else f"{tag}{NAMES[index]}",
                    vm_configuration=self.vm_configuration,
                    fail_policy=self.fail_policy,
                    allow_on_headers_stop_iteration=self.allow,
                )
            )
        return found


@dataclass(slots=True)
class Outcome:
    """What came of a case, as lines that are equal where the two sides are."""

    client: list[str] = field(default_factory=list)
    upstream: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    access: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [*self.client, *self.upstream, *self.log, *self.access, *self.metrics]


@dataclass(frozen=True, slots=True)
class Part:
    """What the client does: a case's fields of the same names; it stays `linger` seconds after an answer."""

    pieces: Sequence[bytes]
    delay: float
    seconds: float
    leave: float | None = None
    times: int = 1
    keep_alive: bool = False
    linger: float = 0.0


async def converse(port: int, part: Part) -> list[str]:
    """Plays the client's part; what it got, as lines."""
    try:
        return await connect(port, part)
    except ConnectionRefusedError:
        return ["client: refused"]  # the server has crashed; `sides` says so


async def connect(port: int, part: Part) -> list[str]:
    """One connection, or one for each time."""
    shown: list[str] = []
    if part.keep_alive:
        async with Client(port) as client:
            for _ in range(part.times):
                shown += await exchange(client, part)
        return shown
    for _ in range(part.times):
        async with Client(port) as client:
            shown += await exchange(client, part)
            await asyncio.sleep(part.linger)
    return shown


async def exchange(client: Client, part: Part) -> list[str]:
    """One request."""
    method = part.pieces[0].split(b" ", 1)[0]
    response = Response(b"", [])
    end = "complete"
    sending = asyncio.create_task(client.send(part.pieces, part.delay))
    try:
        async with asyncio.timeout(part.leave if part.leave is not None else part.seconds):
            await receive(client, method, response)
    except TimeoutError:
        end = "left" if part.leave is not None else "nothing more"
    except (WireError, ConnectionError) as error:
        end = "cut" if response.start_line or (isinstance(error, WireError) and not str(error).endswith("b''")) else "closed"
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await sending
    return show_response(response, end, method)


async def receive(client: Client, method: bytes, response: Response) -> None:
    """Fills `response` in as it comes."""
    source = Recorder(client.reader)
    while True:
        head = await client.head(source)
        if head.status >= 200 or head.status == 101:
            break
        response.interim.append(head)
    response.start_line, response.headers, response.status = head.start_line, head.headers, head.status
    if method != b"HEAD" and head.status not in (101, 204, 304):
        await read_body(source, response, ends_by_close=True)


def show_response(response: Response, end: str, method: bytes) -> list[str]:
    bodiless = normal.BODILESS if method == b"HEAD" else ()
    shown = [f"client: interim {one.status}" for one in response.interim]
    if response.start_line:
        shown.append(f"client: {response.start_line.decode('latin-1')}")
        shown += [f"client: | {line}" for line in normal.fields(response.headers) if line not in bodiless]
        if response.framing != "none":
            shown.append(f"client: {response.framing} {bytes(response.body)!r}")
        if response.trailers:
            shown.append(f"client: trailers {normal.fields(response.trailers)}")
    shown.append(f"client: {end}")
    return shown


def show_requests(name: str, requests: Sequence[Received], names: dict[str, str]) -> list[str]:
    """What an upstream got."""
    shown = []
    for number, request in enumerate(requests):
        label = f"{name} {number}:"
        shown.append(f"{label} {request.start_line.decode('latin-1')}")
        shown += [f"{label} | {normal.line(line, names)}" for line in normal.fields(request.headers)]
        if request.framing != "none":
            shown.append(f"{label} {request.framing} {bytes(request.body)!r}")
        if request.trailers:
            shown.append(f"{label} trailers {normal.fields(request.trailers)}")
        if not request.complete:
            shown.append(f"{label} incomplete")
    return shown


def show_access(lines: Sequence[AccessLine], names: dict[str, str]) -> list[str]:
    return [
        normal.line(f"access: {line.status} {line.details} {line.flags or '-'} {line.upstream or '-'}", names) for line in lines
    ]
