"""Figures out of samples: medians, ratios, the CPU that one more filter costs; as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from benchmarks.load import Sample

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians of several samples of one server with one number of filters; `spread` is (max - min) / median of the
    CPU per request, the noise of the figure that counts."""

    median: Sample
    spread: float
    rps_spread: float
    runs: int


def summarize(samples: Sequence[Sample]) -> Summary:
    """The median of each figure by itself."""
    median = Sample(**{one.name: statistics.median(getattr(sample, one.name) for sample in samples) for one in fields(Sample)})
    return Summary(median, spread([one.cpu_us for one in samples]), spread([one.rps for one in samples]), len(samples))


def spread(values: Sequence[float]) -> float:
    """(max - min) / median; 0 for a median of 0."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def slope(summaries: Mapping[Key, Summary], system: str, low: int, high: int) -> float | None:
    """CPU microseconds per request that each filter from `low` to `high` adds; None if either was not measured."""
    first, last = summaries.get((system, low)), summaries.get((system, high))
    if first is None or last is None or low >= high:
        return None
    return (last.median.cpu_us - first.median.cpu_us) / (high - low)


def ratio(mine: float | None, theirs: float | None) -> float | None:
    """mine / theirs, None where either is missing or theirs is 0."""
    return mine / theirs if mine is not None and theirs else None


def slope_range(counts: Sequence[int]) -> tuple[int, int]:
    """From 3 to the most filters, or from the fewest where 3 was not measured."""
    used = sorted(counts)
    return (3 if 3 in used else used[0]), used[-1]


def table(summaries: Mapping[Key, Summary], counts: Sequence[int], mine: str, theirs: str) -> list[str]:
    """Lines: a row per system and number of filters, with `mine / theirs` where both were measured, then the slopes."""
    out = [
        f"{'filters':>7}  {'server':<9} {'req/s':>8} {'ratio':>6}  {'CPU us/req':>10} {'ratio':>6} {'noise':>6}  "
        f"{'p50 us':>7} {'ratio':>6}  {'p99 us':>7} {'ratio':>6}  {'busy':>5}"
    ]
    for count in counts:
        for system in (theirs, mine):
            found = summaries.get((system, count))
            if found is None:
                continue
            row, other = found.median, (summaries.get((theirs, count)) if system == mine else None)
            base = other.median if other else None
            out.append(
                f"{count:>7}  {system:<9} {row.rps:>8.0f} {cell(ratio(row.rps, base.rps if base else None))}  "
                f"{row.cpu_us:>10.1f} {cell(ratio(row.cpu_us, base.cpu_us if base else None))} {found.spread:>6.0%}  "
                f"{row.p50_us:>7.0f} {cell(ratio(row.p50_us, base.p50_us if base else None))}  "
                f"{row.p99_us:>7.0f} {cell(ratio(row.p99_us, base.p99_us if base else None))}  {row.server_busy:>5.0%}"
            )
    low, high = slope_range(counts)
    for system in (theirs, mine):
        per_filter = slope(summaries, system, low, high)
        if per_filter is not None:
            against = cell(ratio(per_filter, slope(summaries, theirs, low, high)) if system == mine else None).strip()
            out.append(f"each filter from {low} to {high}: {system} {per_filter:.2f} us CPU per request {against}".rstrip())
    return out


def cell(value: float | None) -> str:
    """A ratio, or blanks."""
    return f"{value:>5.2f}x" if value is not None else " " * 6


def doubts(summaries: Mapping[Key, Summary]) -> list[str]:
    """What a reader should hold against the figures."""
    said = []
    for (system, count), found in summaries.items():
        name = f"{system} with {count} filters"
        if system != "direct" and found.median.server_busy < 0.85:
            said.append(f"{name} used only {found.median.server_busy:.0%} of its CPU: something else set its req/s")
        if found.spread > 0.15:
            said.append(f"{name}: CPU per request varied by {found.spread:.0%} over {found.runs} runs")
        if found.median.stolen > 0.02:
            said.append(f"{name}: the hypervisor took {found.median.stolen:.0%} of the machine's time")
    return said


def as_json(summaries: Mapping[Key, Summary]) -> list[dict[str, object]]:
    """The medians as records."""
    return [{"server": system, "filters": count, **asdict(found)} for (system, count), found in summaries.items()]
