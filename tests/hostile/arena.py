"""A running gateway with an innocent route, and a route for each of some hostile filters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import wasmtime

from tests.hostile.case import RESET, Ask, Case
from tests.hostile.wat import callback, data, guest
from tests.integration.gateway import ROOT, Gateway, GatewayError
from tests.ports import free_port

INNOCENT = guest(
    "(drop (call $proxy_add_header_map_value (i32.const 2) (i32.const 64) (i32.const 10) (i32.const 80) (i32.const 3)))",
    data(64, b"x-innocent"),
    data(80, b"yes"),
    callback("proxy_on_request_headers", ""),
    on="proxy_on_response_headers",
)
HANG = 8.0
"""Seconds after which a client that has no answer hangs."""
SETTLING = 0.08
"""Seconds for the log to arrive, and for the innocent client to meet what is left of an attack."""
ROUND_PAUSE = 0.02
"""Seconds between two rounds of a client that goes on."""
FEWEST = 5
"""Requests of the innocent client that a case waits for."""
RSS = re.compile(r"VmRSS:\s+(\d+) kB")


def wasm(case: Case) -> bytes:
    """The case's module."""
    return case.module() if callable(case.module) else bytes(wasmtime.wat2wasm(case.module))


@dataclass
class Figures:
    """What an attack did to others: seconds of the innocent client, MiB of the worker."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    p99: float = 0.0
    longest: float = 0.0
    p99_cpu: float = 0.0
    """The same of the worker's CPU seconds while the client waited."""
    longest_cpu: float = 0.0
    growth: float = 0.0


@dataclass
class Outcome:
    """What came of a case."""

    answers: list[int | str] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    reasons: dict[str, int] = field(default_factory=dict)
    """Failures counted under the filter's name, by reason."""
    logged: dict[str, int] = field(default_factory=dict)
    """Failures logged under its name, by reason."""
    risen: set[str] = field(default_factory=set)
    """Metrics of the filter that rose, as in `Case.counted`."""
    events: set[str] = field(default_factory=set)
    alive: bool = True
    """The same worker still serves."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """The log lines of this case."""


class Arena:
    """Started and stopped by `async with`."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = {case.name: case for case in cases}
        self.timings: list[tuple[float, float, float, str]] = []
        """Of the innocent client: when it asked, how long it took, the worker's CPU meanwhile, what came."""
        self.quiet = Figures()

    async def __aenter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-hostile-")
        folder = Path(self.folder.name)
        self.upstream, port = await start("tests.hostile.upstream")
        own = free_port()
        filters = [entry(folder, "innocent", bytes(wasmtime.wat2wasm(INNOCENT)), {})]
        filters += [entry(folder, case.name, wasm(case), dict(case.settings)) for case in self.cases.values()]
        names = [one["name"] for one in filters]
        routes = [
            {
                "name": name,
                "match": {"path": f"/{name}"},
                "cluster": "service",
                "filters": {other: {"enabled": False} for other in names if other != name},
            }
            for name in names
        ]
        self.gateway = Gateway(
            filters,
            {"service": int(port), "self": own},
            routes=routes,
            listeners=[{"address": f"127.0.0.1:{own}"}],
        )
        await self.gateway.__aenter__()
        self.worker = await self.worker_pid()
        self.probe, _ = await start("tests.hostile.probe", str(own), str(self.worker), reads=False)
        self.reading = asyncio.create_task(self.read_probe())
        begun = time.monotonic()
        await asyncio.sleep(1.0)
        self.quiet = self.figures(begun + 0.2, time.monotonic())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self.probe, self.upstream):
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()
        await self.reading
        await self.gateway.__aexit__(kind, error, trace)
        self.folder.cleanup()

    async def read_probe(self) -> None:
        assert self.probe.stdout is not None
        async for line in self.probe.stdout:
            sent, took, cpu, outcome = line.decode().rstrip("\n").split(" ", 3)
            self.timings.append((float(sent), float(took), float(cpu), outcome))

    async def page(self, path: str) -> str:
        async with self.gateway.client.get(f"http://127.0.0.1:{self.gateway.admin_port}{path}") as response:
            return await response.text()

    async def worker_pid(self) -> int:
        (worker,) = json.loads(await self.page("/ready"))["workers"]
        return int(worker["pid"])

    def rss(self) -> float:
        """MiB that the worker has in memory."""
        found = RSS.search(Path(f"/proc/{self.worker}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    def figures(self, begun: float, ended: float) -> Figures:
        """The innocent client's in that time."""
        window = [one for one in self.timings if begun <= one[0] + one[1] and one[0] <= ended]
        taken = sorted(one[1] for one in window) or [0.0]
        burned = sorted(one[2] for one in window) or [0.0]
        at = int(0.99 * (len(taken) - 1))
        failures = [one[3] for one in window if one[3] != "200"]
        return Figures(len(window), failures, taken[at], taken[-1], burned[at], burned[-1])

    async def attack(self, name: str, seconds: float = 0.0) -> Outcome:
        """Let a case's clients ask, once or for `seconds`, and look what happened meanwhile."""
        case = self.cases[name]
        outcome = Outcome()
        before, lines, memory = await self.counts(name), len(self.gateway.lines), self.rss()
        await asyncio.sleep(PROBE_DELAY)  # what the page of metrics has cost the innocent client is no attack
        begun = time.monotonic()

        async def client() -> None:
            while True:
                for ask in case.asks:
                    outcome.answers.append(await self.ask(name, ask))
                if time.monotonic() >= begun + seconds:
                    break
                await asyncio.sleep(ROUND_PAUSE)

        await asyncio.gather(*(client() for _ in range(case.together)))
        await asyncio.sleep(case.linger + SETTLING)
        outcome.figures = self.figures(begun, time.monotonic() - PROBE_DELAY)
        while outcome.figures.requests < FEWEST and time.monotonic() < begun + HANG:  # the machine is busy
            await asyncio.sleep(SETTLING)
            outcome.figures = self.figures(begun, time.monotonic() - PROBE_DELAY)
        outcome.alive = await self.worker_pid() == self.worker
        if outcome.alive:
            outcome.figures.growth = self.rss() - memory
        after = await self.counts(name)
        outcome.risen = {key for key, value in after.items() if value > before.get(key, 0.0)}
        prefix = 'penstock_filter_failures_total{reason="'
        for key in outcome.risen:
            if key.startswith(prefix):
                outcome.reasons[key.removeprefix(prefix).partition('"')[0]] = int(after[key] - before.get(key, 0.0))
        with contextlib.suppress(GatewayError):  # a flood of lines takes its time to arrive
            wanted = sum(outcome.reasons.values())
            await self.gateway.until(lambda: self.failures_said(name, lines) >= wanted, 3.0)
            await self.gateway.until(lambda: all(self.said(name, event, lines) for event in case.logged), 3.0)
        outcome.lines = self.gateway.lines[lines:]
        for line in outcome.lines:
            if line.get("filter") == name:
                outcome.events.add(line["event"])
                if line["event"] == "filter_failed":
                    outcome.logged[line["reason"]] = outcome.logged.get(line["reason"], 0) + 1
            elif "filter" not in line:
                outcome.events.add(line["event"])
        return outcome

    def failures_said(self, name: str, since: int) -> int:
        """How many failures of a filter are in the log behind that line."""
        return sum(line["event"] == "filter_failed" and line.get("filter") == name for line in self.gateway.lines[since:])

    def said(self, name: str, event: str, since: int) -> bool:
        """Is that event in the log behind that line, of this filter or of none?"""
        return any(line["event"] == event and line.get("filter", name) == name for line in self.gateway.lines[since:])

    async def ask(self, name: str, ask: Ask) -> int | str:
        """One request to the guilty route: its status, RESET, or "hang"."""
        headers = {"x-answer": str(ask.answer), **ask.headers}
        try:
            async with (
                asyncio.timeout(HANG),
                self.gateway.client.request(
                    ask.method, f"/{name}", headers=headers, data=b"b" * ask.body if ask.body else None
                ) as response,
            ):
                await response.read()
                return response.status
        except TimeoutError:
            return "hang"
        except aiohttp.ClientError:
            return RESET

    async def counts(self, name: str) -> dict[str, float]:
        """The filter's metrics by name and labels, less the filter's."""
        found = {}
        for sample, value in (await self.gateway.metrics()).items():
            if f'filter="{name}"' in sample:
                rest = re.sub(r',?filter="[^"]*",?', lambda match: "," if match[0][0] == match[0][-1] == "," else "", sample)
                found[rest.replace("{}", "")] = value
        return found


PROBE_DELAY = 0.02
"""Seconds that the innocent client's newest line may be late."""


def entry(folder: Path, name: str, module: bytes, settings: dict[str, Any]) -> dict[str, Any]:
    """An entry of `filters`."""
    path = folder / f"{name}.wasm"
    path.write_bytes(module)
    return {"name": name, "wasm": str(path), **settings}


async def start(module: str, *arguments: str, reads: bool = True) -> tuple[asyncio.subprocess.Process, str]:
    """A helper's process, and the first line that it prints if `reads`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    return process, (await process.stdout.readline()).decode().strip() if reads else ""
