"""Runs one scenario: starts its servers, checks that their filters run, warms up, measures in turn."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.load import Load, LoadError, Sample, measure
from benchmarks.machine import memory_bytes, workers
from benchmarks.peers import PEERS
from benchmarks.report import spread, summarize
from benchmarks.scenarios import BOTH, LoadSpec, Scenario, Variant
from benchmarks.servers import Server, ServerError, Setup, Started, Upstream, fetch

MARKER = "x-probe"
PROBES = 2
"""Loads that a server must fail before it is left out: a machine under load now and then resets a connection."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class Row:
    """One server under one load. `rss`: bytes of a worker after the load; `seconds`: to the first answer, by run."""

    system: str
    variant: Variant
    load: LoadSpec
    samples: list[Sample] = field(default_factory=list)
    rss: int = 0
    seconds: list[float] = field(default_factory=list)
    rate: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The record: labels and axes, the median of each figure, its spread, every sample."""
        found: dict[str, Any] = {
            "system": self.system,
            "variant": self.variant.label,
            "load": self.load.label,
            "x": self.load.x or self.variant.x,
            "connections": self.load.connections,
        }
        if self.samples:
            summary = summarize(self.samples)
            found |= {"median": asdict(summary.median), "spread": summary.spread, "rps_spread": summary.rps_spread}
            found |= {"runs": len(self.samples), "samples": [asdict(one) for one in self.samples]}
        if self.rss:
            found["rss"] = self.rss
        if self.rate:
            found["rate"] = self.rate
        if self.seconds:
            found |= {"seconds": statistics.median(self.seconds), "spread": spread(self.seconds), "all": self.seconds}
        return found


@dataclass(frozen=True, slots=True)
class Place:
    """Where things run: what stands before the commands of load and upstream, and of the server under test."""

    upstream: Upstream
    rest: Sequence[str] = ()
    alone: Sequence[str] = ()


def run(scenario: Scenario, installed: tuple[str, ...], place: Place, tell: Tell) -> dict[str, Any]:
    """The record of a scenario. `tell` is told of progress. Raises LoadError, ServerError."""
    alone = place.alone if scenario.pin else ()
    rest = place.rest if scenario.pin else ()
    if scenario.kind == "start":
        rows = run_starts(scenario, installed, place.upstream, alone, tell)
    else:
        rows = run_loads(scenario, installed, Place(place.upstream, rest, alone), tell)
    return {
        "title": scenario.title,
        "axis": scenario.axis,
        "kind": scenario.kind,
        "pinned": bool(alone),
        "rows": [row.as_json() for row in rows],
    }


def run_starts(
    scenario: Scenario, installed: tuple[str, ...], upstream: Upstream, alone: Sequence[str], tell: Tell
) -> list[Row]:
    """Time from the start of the process to the first answer; the first start, which fills caches, is not counted."""
    rows = []
    for variant in scenario.variants:
        for system in scenario.who(variant, installed):
            row = Row(system, variant, scenario.loads[0])
            for number in range(scenario.runs + 1):
                fresh = started(system, variant, upstream, alone, scenario.loads[0].path)
                try:
                    check(system, variant, fresh.port, scenario.loads[0])
                    if number:
                        row.seconds.append(fresh.seconds)
                finally:
                    fresh.stop()
            rows.append(row)
            tell(f"{system}: {statistics.median(row.seconds):.2f} s")
    return rows


def run_loads(scenario: Scenario, installed: tuple[str, ...], place: Place, tell: Tell) -> list[Row]:
    """Rounds over all servers and loads, each round in the other order, so that what disturbs the machine disturbs all."""
    upstream = place.upstream
    with contextlib.ExitStack() as stack:
        servers: dict[tuple[str, str], Server] = {}
        rows: list[Row] = []
        for variant in scenario.variants:
            for system in scenario.who(variant, installed):
                try:
                    fresh = started(system, variant, upstream, place.alone, scenario.loads[0].path)
                except ServerError as error:
                    if system in BOTH:
                        raise
                    tell(f"left out: {error}")
                    continue
                stack.callback(fresh.stop)
                servers[system, variant.label] = fresh
                check(system, variant, fresh.port, scenario.loads[0])
                rows += [Row(system, variant, load) for load in scenario.loads]
        tell(f"{len(servers)} servers are up")
        warm: set[int] = set()
        for row in rows:
            server = servers[row.system, row.variant.label]
            if server.pid not in warm or row.load.share:
                warm.add(server.pid)
                prepare(row, server, place)
        for number in range(scenario.runs):
            for row in rows if number % 2 == 0 else reversed(rows):
                server = servers[row.system, row.variant.label]
                load = load_of(row.load, scenario.seconds, row.rate)
                row.samples.append(tried(server, upstream, load, place.rest))
            tell(f"round {number + 1} of {scenario.runs}")
        for row in rows:
            row.rss = max(map(memory_bytes, workers(servers[row.system, row.variant.label].pid)), default=0)
    return rows


def prepare(row: Row, server: Server, place: Place) -> None:
    """Warm-up; and the rate, for a load at a share of the peak."""
    warm = tried(server, place.upstream, load_of(row.load, 1, 0.0, warm=True), place.rest)
    if row.load.share:
        peak = tried(server, place.upstream, load_of(row.load, 1, 0.0, warm=True), place.rest)
        row.rate = max(warm.rps, peak.rps) * row.load.share


def tried(server: Server, upstream: Upstream, load: Load, launcher: Sequence[str]) -> Sample:
    """A run, and once more if a request failed. Raises LoadError if that fails as well."""
    for _ in range(PROBES - 1):
        with contextlib.suppress(LoadError):
            return measure(server.port, server.pid, upstream.pid, load, launcher)
    return measure(server.port, server.pid, upstream.pid, load, launcher)


def load_of(spec: LoadSpec, seconds: int, rate: float, warm: bool = False) -> Load:
    """What the generator is told; `warm`: closed loop, `seconds` long."""
    return Load(
        seconds=seconds if warm else spec.seconds or seconds,
        connections=spec.connections,
        path=spec.path,
        headers=spec.headers,
        rate=None if warm or not spec.share else rate,
    )


def started(system: str, variant: Variant, upstream: Upstream, launcher: Sequence[str], path: str) -> Started:
    """Raises ServerError."""
    return PEERS[system].start(Setup(upstream.port, variant.filters, variant.workers, path), launcher)


def check(system: str, variant: Variant, port: int, load: LoadSpec) -> None:
    """That the answer comes through and every filter ran: each adds the marker to the response. Raises LoadError."""
    status, headers, body = fetch(port, load.path, load.headers)
    if status != 200:
        raise LoadError(f"{system} with {variant.label}: {load.path} is answered {status} {body[:100]!r}")
    marked = [name.lower() for name, _ in headers].count(MARKER)
    if marked != len(variant.filters):
        raise LoadError(f"{system} with {variant.label}: {marked} of {len(variant.filters)} filters ran")


def median(rows: Sequence[Mapping[str, Any]], figure: str, **labels: Any) -> float | None:
    """A figure of the record's row with these labels, None if it was not measured."""
    for row in rows:
        if all(row.get(name) == value for name, value in labels.items()):
            found = row.get(figure, row.get("median", {}).get(figure))
            return float(found) if found is not None else None
    return None
