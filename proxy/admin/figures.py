"""What the admin pages show of a snapshot of the metrics: sums and percentiles, by filter and in all."""

from collections.abc import Iterator, Sequence
from typing import Any

from proxy.telemetry.metrics import Snapshot, add_values

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Figures:
    """Looks families up by name."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.families = {(family["name"], family["kind"]): family for family in snapshot["families"]}

    def series(self, name: str, kind: str = "counter", **labels: str) -> Iterator[tuple[dict[str, str], Any]]:
        """(labels, value) of each child whose labels include `labels`."""
        family = self.families.get((name, kind))
        if family is None:
            return
        for values, value in family["series"]:
            found = dict(zip(family["labels"], values, strict=True))
            if labels.items() <= found.items():
                yield found, value

    def total(self, name: str, kind: str = "counter", **labels: str) -> float:
        return float(sum(value for _, value in self.series(name, kind, **labels)))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Sums by one label."""
        found: dict[str, float] = {}
        for values, value in self.series(name, **labels):
            found[values[label]] = found.get(values[label], 0) + value
        return found

    def percentiles(self, name: str, **labels: str) -> dict[str, float]:
        """Count, sum and percentiles of a histogram's children together."""
        family = self.families.get((name, "histogram"))
        together: dict[str, Any] = {"counts": [0] * (len(family["bounds"]) + 1) if family else [], "sum": 0.0}
        for _, value in self.series(name, "histogram", **labels):
            together = add_values(together, value)
        bounds = family["bounds"] if family is not None else ()
        found = {key: quantile(bounds, together["counts"], part) for key, part in QUANTILES.items()}
        return {"count": sum(together["counts"]), "sum": together["sum"], **found}

    def of_filter(self, name: str) -> dict[str, Any]:
        """One filter's."""
        errors = [
            {"function": labels["function"], "status": labels["status"], "count": value}
            for labels, value in self.series("penstock_host_call_errors_total", filter=name)
        ]
        return {
            "calls": self.by("callback", "penstock_filter_calls_total", filter=name),
            "seconds": self.percentiles("penstock_filter_call_seconds", filter=name),
            "fuel": self.percentiles("penstock_filter_call_fuel", filter=name),
            "failures": self.by("reason", "penstock_filter_failures_total", filter=name),
            "limited": self.by("limit", "penstock_filter_limited_total", filter=name),
            "host_call_errors": errors,
            "vm_rebuilds": self.total("penstock_vm_rebuilds_total", filter=name),
            "memory_bytes": self.total("penstock_filter_memory_bytes", "gauge", filter=name),
            "log_lines_dropped": self.total("penstock_filter_log_lines_dropped_total", filter=name),
        }

    def overview(self) -> dict[str, Any]:
        """All of the gateway's."""
        return {
            "requests": self.total("penstock_requests_total"),
            "codes": self.by("code", "penstock_requests_total"),
            "duration": self.percentiles("penstock_request_duration_seconds"),
            "own": self.percentiles("penstock_own_duration_seconds"),
            "filters": self.percentiles("penstock_filters_duration_seconds"),
            "upstream": self.percentiles("penstock_upstream_duration_seconds"),
            "streams": self.total("penstock_streams", "gauge"),
            "connections": self.total("penstock_connections", "gauge"),
            "upstream_connections": self.total("penstock_upstream_connections", "gauge"),
            "rejected": self.total("penstock_rejected_requests_total"),
            "memory_bytes": self.total("penstock_worker_memory_bytes", "gauge"),
            "vms": self.total("penstock_vms", "gauge"),
        }


def quantile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float:
    """The value below which `part` of what was observed lies: linear within its bucket, as PromQL's histogram_quantile.

    What lies above all bounds counts as the last bound; 0.0 if nothing was observed.
    """
    rank = part * sum(counts)
    if not rank:
        return 0.0
    below = 0
    for i, count in enumerate(counts[:-1]):
        if below + count >= rank:
            low = bounds[i - 1] if i else 0.0
            return low + (bounds[i] - low) * (rank - below) / count
        below += count
    return bounds[-1] if bounds else 0.0
