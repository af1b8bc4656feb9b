"""Mutates the attacks of cases/client.py: `python -m tests.attacks.fuzz --seconds 60 --seed 1`.

They go to a gateway process. Prints what it found and how to see it again: attack number N of seed S is always the same bytes.
What must hold: no ambiguous or foreign bytes at the origin, none at the client, only statuses that say whose fault it is, no
traceback in the log, every log line one line of JSON without control characters, not many of them, and a gateway that serves an
innocent client throughout.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import uvloop

from tests.attacks.cases.client import FAMILIES, Case
from tests.attacks.client import Client
from tests.attacks.origin import Origin
from tests.attacks.strict import AmbiguousError
from tests.integration.gateway import Gateway


def joined(case: Case) -> bytes:
    if isinstance(case.sent, bytes):
        return case.sent
    return b"".join(piece for piece in case.sent if isinstance(piece, bytes))


CASES = [case for cases in FAMILIES.values() for case in cases if len(joined(case)) < 2000]
CORPUS = [joined(case) for case in CASES]
SOUND = [joined(case) for case in CASES if case.reached]
"""Half of the mutations begin with what would be served: else few would get as far as that."""
# fmt: off
WORDS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"1", b"\x0b", b"\xff", b"chunked",
    b"Content-Length: 5\r\n", b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: content-length\r\n", b"Expect: 100-continue\r\n", b"Host: b\r\n", b"HTTP/1.0",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"../", b"%2e", b"%00",
    b"\r\n ", b"-1", b"ffffffffffffffff", b"18446744073709551616", b"\x1b[2J", b"\xe2\x80\xa8", b"HEAD",
    b"TE: trailers\r\n", b"_",
]
# fmt: on
ALLOWED = frozenset({101, 200, 204, 304, 400, 404, 408, 414, 431, 500, 501, 503, 505})
"""500 and 503: a body that broke off, an origin that closed; counted, and rare."""
CANARY = b"GET /canary/%d HTTP/1.1\r\nHost: canary\r\n\r\n"
AT_ONCE = 32
LINES_PER_SECOND = 100
"""Of the log: each kind of line has its own limit of 5."""


@dataclass
class Findings:
    """What a run saw."""

    attacks: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    reached: int = 0
    problems: list[str] = field(default_factory=list)
    lines: int = 0
    seconds: float = 0.0


def attack(seed: int, number: int) -> tuple[bytes, list[int]]:
    """The bytes of an attack, and where they are cut into pieces."""
    rng = random.Random(f"{seed}/{number}")
    data = bytearray(rng.choice(rng.choice((CORPUS, SOUND))))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[at:at] = rng.choice(WORDS)
            case 1:
                data[at : at + rng.randrange(1, 12)] = rng.choice(WORDS)
            case 2:
                del data[at : at + rng.randrange(1, 6)]
            case 3:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 4:
                other = rng.choice(CORPUS)
                data[at:] = other[rng.randrange(len(other)) :]
            case 5:
                data[at:at] = data[at : at + rng.randrange(1, 40)]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2, 5))))
    return bytes(data), cuts


async def play(port: int, data: bytes, cuts: list[int], findings: Findings, label: str) -> None:
    """Send one attack and judge what the client gets. Half-closing the sending side ends what is incomplete."""
    pieces: list[bytes | float] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        pieces += [data[start:end], 0.001]
    async with Client(port) as client:
        await client.send(pieces)
        try:
            while await client.more(0.05):
                continue
        except TimeoutError:
            pass  # it waits for more: so do we not
        # Whether a response to HEAD has a body is not known here: the attack says it.
        if data[:5] == b"HEAD " or b"HEAD" in data or b"101 Switching" in client.data:
            return
        try:
            found, _ = await client.answers([b"GET"] * 100, 0 if not client.data else 1)
        except AmbiguousError as error:
            findings.problems.append(f"{label}: the client got {error}: {client.data[:300]!r}")
            return
        except TimeoutError:
            return
        for message in found:
            findings.statuses[message.status] += 1
            if message.status not in ALLOWED:
                findings.problems.append(f"{label}: status {message.status}")


async def innocent(port: int, findings: Findings, stop: asyncio.Event) -> None:
    """A client that does nothing wrong gets its answers all the while."""
    number = 0
    while not stop.is_set():
        async with Client(port) as client:
            for _ in range(20):
                number += 1
                client.data = b""
                await client.send(CANARY % number)
                try:
                    found, _ = await client.answers([b"GET"])
                except (AmbiguousError, TimeoutError) as error:
                    findings.problems.append(f"an innocent client got {error!r}: {client.data[:300]!r}")
                    return
                if [(message.status, message.body) for message in found] != [(200, b"GET /canary/%d\n" % number)]:
                    findings.problems.append(f"an innocent client got {client.data[:300]!r}")
                    return
                await asyncio.sleep(0.01)


async def run(seconds: float, seed: int, first: int = 0, most: int | None = None) -> Findings:
    """Attack a gateway process for so long, from attack number `first` on."""
    findings = Findings()
    origin = Origin()
    await origin.start()
    listener = {"address": "127.0.0.1:0", "head_timeout": "2s", "body_timeout": "2s"}
    clusters = {"service": int(origin.address.rpartition(":")[2])}
    async with Gateway([], clusters, listeners=[listener]) as gateway:
        stop = asyncio.Event()
        watcher = asyncio.create_task(innocent(gateway.port, findings, stop))
        begun = time.monotonic()
        number = first
        while time.monotonic() - begun < seconds and (most is None or number < first + most) and not findings.problems:
            batch = range(number, number + AT_ONCE)
            await asyncio.gather(
                *(play(gateway.port, *attack(seed, n), findings, f"--seed {seed} --first {n} --most 1") for n in batch)
            )
            number += AT_ONCE
            errors = [recording for recording in origin.connections if recording.error is not None]
            for recording in errors:
                span = f"--seed {seed} --first {batch[0]} --most {AT_ONCE}"
                findings.problems.append(f"{span}: the origin got {recording.error}: {recording.data[-400:]!r}")
            findings.reached += len(origin.requests)
            origin.forget()
        findings.attacks = number - first
        findings.seconds = time.monotonic() - begun
        stop.set()
        await watcher
        await asyncio.sleep(0.1)
        judge_log(gateway, findings)
        if await gateway.stop() != 0:
            findings.problems.append("the gateway did not end well")
    await origin.stop()
    broken = sum(count for status, count in findings.statuses.items() if status >= 500 and status not in (501, 505))
    if broken > max(20, findings.attacks // 10):
        findings.problems.append(f"{broken} answers are the gateway's or the origin's fault")
    return findings


def judge_log(gateway: Gateway, findings: Findings) -> None:
    """Lines are JSON (what is not has no level), without control characters, and bounded in number."""
    findings.lines = len(gateway.lines)
    for line in gateway.lines:
        text = "".join(map(str, line.values()))
        if "level" not in line or "exception" in line or "Traceback" in text:
            findings.problems.append(f"the log has {line}")
        elif any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text):
            findings.problems.append(f"the log has a control character: {text!r}")
    if findings.lines > 200 + findings.seconds * LINES_PER_SECOND:
        findings.problems.append(f"{findings.lines} log lines in {findings.seconds:.1f} s")


def main(arguments: list[str]) -> int:
    """0 if nothing was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.attacks.fuzz", description="Mutated attacks against a gateway process."
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first attack")
    parser.add_argument("--most", type=int, help="number of attacks at most")
    chosen = parser.parse_args(arguments)
    findings = uvloop.run(run(chosen.seconds, chosen.seed, chosen.first, chosen.most))
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(findings.statuses.items()))
    print(f"{findings.attacks} attacks in {findings.seconds:.1f} s, seed {chosen.seed}; answers {statuses}")
    print(f"{findings.reached} requests reached the origin, innocent ones included; {findings.lines} log lines")
    for problem in findings.problems:
        print(problem)
    print("nothing found" if not findings.problems else f"{len(findings.problems)} problems")
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
