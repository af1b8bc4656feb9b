"""Metrics kept in plain attributes, and their text for Prometheus.

A family has one child per set of label values. Children are bound when the config is loaded, so that a request pays one
attribute add or one bisect. Every process keeps its own `Registry`; its `snapshot()` is JSON, snapshots are added up by
`merge()`, and `render()` writes the sum through prometheus_client. Units are base units (seconds, bytes).
"""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

type_order = ("counter", "gauge", "histogram")
Snapshot = dict[str, Any]
"""`{"families": [{name, kind, help, labels: [str], bounds: [float], series: [[[label value], number | histogram]]}]}`;
a histogram is `{"counts": [int], "sum": float}` with one count per bound and one for what lies above them all."""

DEFAULT_MAX_CHILDREN = 2000
OTHER = "_other"
MAX_NAME = 200
unfit_in_name = re.compile(r"[^a-zA-Z0-9_]+")


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)
    kind = "counter"

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dump(self) -> float:
        return self.value


class Gauge:
    """A number that goes both ways; over several workers the sum is shown."""

    __slots__ = ("value",)
    kind = "gauge"

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        self.value -= amount

    def set(self, value: float) -> None:
        self.value = value

    def dump(self) -> float:
        return self.value


class Histogram:
    """Counts per bucket: `counts[i]` holds what is at most `bounds[i]` and above the bound before it."""

    __slots__ = ("bounds", "counts", "sum")
    kind = "histogram"

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def dump(self) -> dict[str, Any]:
        return {"counts": list(self.counts), "sum": self.sum}


Child = TypeVar("Child", Counter, Gauge, Histogram)


class Family(Generic[Child]):
    """One metric and its children. Past `max_children`, new label values share one child, labelled `_other`."""

    def __init__(
        self,
        name: str,
        help_text: str,
        label_names: Sequence[str],
        make: Callable[[], Child],
        kind: str,
        bounds: Sequence[float] = (),
        max_children: int = DEFAULT_MAX_CHILDREN,
    ) -> None:
        self.name = name
        self.help = help_text
        self.label_names = tuple(label_names)
        self.kind = kind
        self.bounds = tuple(bounds)
        self.max_children = max_children
        self.make: Callable[[], Child] = make
        self.children: dict[tuple[str, ...], Child] = {}
        if not self.label_names:
            self.children[()] = make()

    def labels(self, **values: str) -> Child:
        """The child for these label values; made on first use. Raises ValueError for another set of label names."""
        if values.keys() != set(self.label_names):
            raise ValueError(f"{self.name} has the labels {self.label_names}, not {tuple(values)}")
        return self.child(tuple(values[name] for name in self.label_names))

    def child(self, key: tuple[str, ...]) -> Child:
        """As `labels`, by position."""
        found = self.children.get(key)
        if found is None:
            if len(key) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}")
            if len(self.children) >= self.max_children:
                key = (OTHER,) * len(self.label_names)
            found = self.children.setdefault(key, self.make())
        return found

    def remove(self, **values: str) -> None:
        """Forget children whose labels include these values (a cluster or filter that is no longer configured)."""
        at = [(self.label_names.index(name), value) for name, value in values.items()]
        gone = [key for key in self.children if all(key[index] == value for index, value in at)]
        for key in gone:
            del self.children[key]

    def dump(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "help": self.help,
            "labels": list(self.label_names),
            "bounds": list(self.bounds),
            "series": [[list(key), child.dump()] for key, child in self.children.items()],
        }


class Registry:
    """All families of one process."""

    def __init__(self) -> None:
        self.families: dict[tuple[str, str], Family[Any]] = {}
        self.refreshers: list[Callable[[], None]] = []

    def counter(
        self, name: str, help_text: str, labels: Sequence[str] = (), max_children: int = DEFAULT_MAX_CHILDREN
    ) -> Family[Counter]:
        return self.add(Family(name, help_text, labels, Counter, "counter", max_children=max_children))

    def gauge(
        self, name: str, help_text: str, labels: Sequence[str] = (), max_children: int = DEFAULT_MAX_CHILDREN
    ) -> Family[Gauge]:
        return self.add(Family(name, help_text, labels, Gauge, "gauge", max_children=max_children))

    def histogram(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        bounds: Sequence[float] = (),
        max_children: int = DEFAULT_MAX_CHILDREN,
    ) -> Family[Histogram]:
        """`bounds` in rising order, without infinity."""
        fixed = tuple(bounds)
        if list(fixed) != sorted(set(fixed)) or not all(math.isfinite(bound) for bound in fixed):
            raise ValueError(f"{name}: bounds must rise and be finite")
        return self.add(Family(name, help_text, labels, lambda: Histogram(fixed), "histogram", fixed, max_children))

    def add(self, family: Family[Child]) -> Family[Child]:
        """The family, or the one of that name and kind that is there already. Raises ValueError for other labels."""
        there = self.families.setdefault((family.name, family.kind), family)
        if there.label_names != family.label_names or there.bounds != family.bounds:
            raise ValueError(f"{family.name} is declared twice, with different labels or bounds")
        return there

    def before_snapshot(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each snapshot: for values that live elsewhere and are copied when someone looks."""
        self.refreshers.append(refresh)

    def forget(self, refresh: Callable[[], None]) -> None:
        """Undo `before_snapshot`; harmless if it was not done."""
        if refresh in self.refreshers:
            self.refreshers.remove(refresh)

    def snapshot(self) -> Snapshot:
        for refresh in self.refreshers:
            refresh()
        return {"families": [family.dump() for family in self.families.values()]}


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Add snapshots up, series by series. Histograms with different bounds do not add: the first one's bounds stay."""
    families: dict[tuple[str, str], dict[str, Any]] = {}
    series: dict[tuple[str, str], dict[tuple[str, ...], Any]] = {}
    for snapshot in snapshots:
        for family in snapshot["families"]:
            key = (family["name"], family["kind"])
            known = families.setdefault(key, {**family, "series": []})
            if known["labels"] != family["labels"] or known["bounds"] != family["bounds"]:
                continue
            sums = series.setdefault(key, {})
            for values, value in family["series"]:
                at = tuple(values)
                sums[at] = add_values(sums[at], value) if at in sums else value
    for key, family in families.items():
        family["series"] = [[list(values), value] for values, value in series.get(key, {}).items()]
    return {"families": list(families.values())}


def add_values(left: Any, right: Any) -> Any:
    if isinstance(left, dict):
        counts = [one + other for one, other in zip(left["counts"], right["counts"], strict=True)]
        return {"counts": counts, "sum": left["sum"] + right["sum"]}
    return left + right


def without_gauges(snapshot: Snapshot) -> Snapshot:
    """What remains true of a process that has ended: its counters and histograms."""
    return {"families": [family for family in snapshot["families"] if family["kind"] != "gauge"]}


def sanitised_name(name: str) -> str:
    """A guest's metric name made fit for Prometheus: `[a-zA-Z0-9_]`, at most 200 characters, never empty."""
    return unfit_in_name.sub("_", name)[:MAX_NAME].strip("_") or "unnamed"


class SnapshotCollector(Collector):
    """Shows one snapshot to prometheus_client."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        taken: set[str] = set()
        families = self.snapshot["families"]
        for family in sorted(families, key=lambda each: (each["name"], type_order.index(each["kind"]))):
            name = family["name"].removesuffix("_total") if family["kind"] == "counter" else family["name"]
            if name in taken:
                # Two guests may define one name with two types; Prometheus knows one type per name.
                name = f"{name}_{family['kind']}"
            if name not in taken:
                taken.add(name)
                yield metric_of(name, family)


def metric_of(name: str, family: dict[str, Any]) -> Metric:
    """One family of a snapshot as prometheus_client's object."""
    labels = family["labels"]
    if family["kind"] == "histogram":
        histogram = HistogramMetricFamily(name, family["help"], labels=labels)
        for values, value in family["series"]:
            histogram.add_metric(values, cumulative(family["bounds"], value["counts"]), value["sum"])
        return histogram
    single = (CounterMetricFamily if family["kind"] == "counter" else GaugeMetricFamily)(name, family["help"], labels=labels)
    for values, value in family["series"]:
        single.add_metric(values, value)
    return single


def cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[Any]:
    """Prometheus' buckets: each counts all that is at most its bound; the last bound is +Inf."""
    buckets = []
    total = 0
    for bound, count in zip([*map(repr, map(float, bounds)), "+Inf"], counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def render(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The text of /metrics and its content type: OpenMetrics 1.0.0 if `accept` names it, else the Prometheus text."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(snapshot))
    if "application/openmetrics-text" in accept.lower():
        text: bytes = openmetrics.generate_latest(registry, version="1.0.0")  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
