"""The figures that the suite is for, out of its record: each with what it has to reach, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.runner import median
from benchmarks.scenarios import CALLS, HOST_CALLS

Record = Mapping[str, Any]
MINE, THEIRS = "penstock", "envoy"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. `value` is what is compared with `bound`: `least` is the smallest that will do, else the largest; None
    where something was not measured. `unit` is that of mine and theirs."""

    group: str
    name: str
    unit: str
    mine: float | None
    theirs: float | None
    value: float | None
    bound: float | None
    least: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None if there is nothing to judge."""
        if self.value is None or self.bound is None:
            return None
        return self.value >= self.bound if self.least else self.value <= self.bound

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}


def ratio(mine: float | None, theirs: float | None) -> float | None:
    """None where either is missing or theirs is 0."""
    return mine / theirs if mine is not None and theirs else None


def figures(record: Record) -> list[Figure]:
    """Every figure of which something was measured."""
    scenarios: dict[str, Any] = {name: found["rows"] for name, found in record["scenarios"].items()}
    found: list[Figure] = []
    if rows := scenarios.get("chain"):
        found += chain(rows)
    if rows := scenarios.get("latency"):
        found += latency(rows)
    found += bodies(scenarios)
    found += compute(scenarios)
    if rows := scenarios.get("chain"):
        found += memory(rows)
    if rows := scenarios.get("cold-start"):
        mine, theirs = (median(rows, "seconds", system=system) for system in (MINE, THEIRS))
        found.append(Figure("start", "cold start, 10 filters", "s", mine, theirs, mine, 1.5, least=False))
    found += growth(scenarios)
    if rows := scenarios.get("workers"):
        found.append(two_workers(rows, record["machine"]["cpus"]))
    return [one for one in found if one.mine is not None or one.theirs is not None]


CHAIN_BOUNDS = {"0": 0.9, "1": 1.0, "3": 1.1, "5": 1.2, "10": 1.2}


def chain(rows: Sequence[Record]) -> Iterator[Figure]:
    for load in ("32", "256"):
        for count, bound in CHAIN_BOUNDS.items():
            where = {"variant": count, "load": load}
            name = f"{count} filters, {load} connections"
            mine, theirs = (median(rows, "rps", system=system, **where) for system in (MINE, THEIRS))
            yield Figure("requests/s", name, "/s", mine, theirs, ratio(mine, theirs), bound)
            mine, theirs = (median(rows, "cpu_us", system=system, **where) for system in (MINE, THEIRS))
            yield Figure("CPU per request", name, "us", mine, theirs, ratio(theirs, mine), bound, note="theirs / mine")
        mine, theirs = (slope(rows, system, load) for system in (MINE, THEIRS))
        name = f"one more filter, {slope_start(rows, load)} to 10, {load} connections"
        yield Figure("CPU per request", name, "us", mine, theirs, ratio(mine, theirs), 0.6, least=False)
    mine = median(rows, "rps", system=MINE, variant="3", load="32")
    theirs = median(rows, "rps", system="aiohttp", variant="0", load="32")
    note = "Penstock with 3 filters / plain aiohttp proxy with none"
    yield Figure("requests/s", "against plain aiohttp", "/s", mine, theirs, ratio(mine, theirs), 2.0, note=note)


def slope_start(rows: Sequence[Record], load: str) -> str:
    """The chain length from which slopes are taken: 1, or what was measured in its place."""
    there = {row["variant"] for row in rows if row["load"] == load and row["system"] == MINE}
    return next((one for one in ("1", "0", "3") if one in there), "1")


def slope(rows: Sequence[Record], system: str, load: str, figure: str = "cpu_us") -> float | None:
    """What each filter from `slope_start` to 10 adds; None if one of the two was not measured."""
    low = slope_start(rows, load)
    first, last = (median(rows, figure, system=system, variant=count, load=load) for count in (low, "10"))
    return (last - first) / (10 - int(low)) if first is not None and last is not None else None


def latency(rows: Sequence[Record]) -> Iterator[Figure]:
    for count in ("3", "10"):
        mine, theirs = (median(rows, "p99_us", system=system, variant=count) for system in (MINE, THEIRS))
        more = mine - theirs if mine is not None and theirs is not None else None
        reached = [median(rows, "reached", system=system, variant=count) for system in (MINE, THEIRS)]
        late = any(one is not None and one < 0.98 for one in reached)
        note = "mine - theirs" + ("; a rate was not reached: the machine is too busy for this figure" if late else "")
        yield Figure("latency", f"p99 at 70 % of peak, {count} filters", "us", mine, theirs, more, 1000.0, False, note)


def bodies(scenarios: Mapping[str, Sequence[Record]]) -> Iterator[Figure]:
    for name, title in (
        ("stream-100k", "100 kB, streamed and inspected"),
        ("stream-10m", "10 MB, streamed and inspected"),
        ("buffer-100k", "100 kB, buffered"),
    ):
        rows = scenarios.get(name, ())
        mine, theirs = (median(rows, "mb_per_s", system=system) for system in (MINE, THEIRS))
        yield Figure("bodies", title, "MB/s", mine, theirs, ratio(mine, theirs), 0.8)
        size = 10.0 if name == "stream-10m" else 0.1
        mine, theirs = (median(rows, "cpu_us", system=system) for system in (MINE, THEIRS))
        mine, theirs = (one / size if one is not None else None for one in (mine, theirs))
        yield Figure("bodies", f"{title}: CPU per MB", "us", mine, theirs, ratio(mine, theirs), None, least=False)


def compute(scenarios: Mapping[str, Sequence[Record]]) -> Iterator[Figure]:
    for name, title, bound in (
        ("callout", "chain of 3 with an http_call", 1.0),
        ("sha256", "SHA-256 of 64 kB", 0.8),
        ("json", "JSON parse of 63 kB", 0.8),
        ("rs256", "RS256 check", 0.8),
    ):
        rows = scenarios.get(name, ())
        mine, theirs = (median(rows, "rps", system=system) for system in (MINE, THEIRS))
        yield Figure("callout" if name == "callout" else "compute", title, "/s", mine, theirs, ratio(mine, theirs), bound)
    rows = scenarios.get("host-calls", ())
    for call in HOST_CALLS:
        mine, theirs = (host_call(rows, system, call) for system in (MINE, THEIRS))
        yield Figure("host calls", call, "ns", mine, theirs, ratio(mine, theirs), None, least=False)


def host_call(rows: Sequence[Record], system: str, call: str) -> float | None:
    """Nanoseconds of CPU that one host call costs."""
    none, many = (median(rows, "cpu_us", system=system, variant=variant) for variant in ("none", call))
    return (many - none) / CALLS * 1000 if none is not None and many is not None else None


def memory(rows: Sequence[Record]) -> Iterator[Figure]:
    mine, theirs = (median(rows, "rss", system=system, variant="0", load="32") for system in (MINE, THEIRS))
    yield Figure("memory", "worker without filters", "B", mine, theirs, ratio(mine, theirs), 1.0, least=False)
    mine, theirs = (slope(rows, system, "32", "rss") for system in (MINE, THEIRS))
    yield Figure("memory", "one more filter", "B", mine, theirs, ratio(mine, theirs), 1.0, least=False)


GROWTH_BOUND = 1.25


def growth(scenarios: Mapping[str, Sequence[Record]]) -> Iterator[Figure]:
    for name, title in (("chain", "filters"), ("growth-headers", "headers"), ("growth-body", "body bytes")):
        bend = {}
        for system in (MINE, THEIRS):
            rows = [row for row in scenarios.get(name, ()) if row["system"] == system]
            if name == "chain":
                rows = [row for row in rows if row["load"] == "32" and row["variant"] != "0"]
            bend[system] = curvature([(row["x"], row["median"]["cpu_us"]) for row in rows])
        note = "slope of the last piece / slope over all: 1 is a straight line"
        yield Figure("growth", title, "x", bend[MINE], bend[THEIRS], bend[MINE], GROWTH_BOUND, False, note)


def curvature(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope between the last two points over that from the first to the last; None of less than three points."""
    ordered = sorted(points)
    if len(ordered) < 3:
        return None
    (x0, y0), (x1, y1), (x2, y2) = ordered[0], ordered[-2], ordered[-1]
    return ratio((y2 - y1) / (x2 - x1), (y2 - y0) / (x2 - x0))


def two_workers(rows: Sequence[Record], cpus: int) -> Figure:
    one, two = (median(rows, "rps", variant=count) for count in ("1", "2"))
    enough = cpus >= 4
    note = f"2 workers / 1 on {cpus} CPUs" + ("" if enough else "; not judged: load and upstream take a CPU each")
    return Figure("growth", "workers", "/s", two, one, ratio(two, one), 1.8 if enough else None, note=note)
