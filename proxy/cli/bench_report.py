"""What `penstock bench` found: requests, latency, and where the time went, filter by filter; for people or as JSON."""

import math
from collections.abc import Iterator
from typing import Any

from proxy.cli.bench_gateway import Samples
from proxy.cli.bench_load import Figures

Found = dict[str, Any]

NO_ANSWER = {"0": "none sent, the client had left (as at the end of a run)"}


def difference(before: Samples, after: Samples) -> Samples:
    """What was added meanwhile; a series that is new began at 0."""
    return {key: value - before.get(key, 0.0) for key, value in after.items()}


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all series of that name with these labels."""
    wanted = frozenset(labels.items())
    return sum(value for (found, has), value in samples.items() if found == name and wanted <= has)


def values(samples: Samples, name: str, label: str, **labels: str) -> dict[str, float]:
    """The sums by the values of one label, without those of 0."""
    found: dict[str, float] = {}
    wanted = frozenset(labels.items())
    for (one, has), value in samples.items():
        own = dict(has)
        if one == name and value and wanted <= has:
            found[own[label]] = found.get(own[label], 0.0) + value
    return found


def breakdown(samples: Samples, filters: list[str], cpu: float | None) -> Found:
    """Where the time went, from the differences of the metrics over a run; times in microseconds per request.

    `cpu`: seconds that the workers used. Filters come in the chain's order.
    """
    requests = total(samples, "penstock_requests_total")
    each = 1e6 / requests if requests else math.nan
    rows: list[Found] = []
    for name in filters:
        calls = total(samples, "penstock_filter_calls_total", filter=name)
        seconds = total(samples, "penstock_filter_seconds_total", filter=name)
        fuel = total(samples, "penstock_filter_fuel_total", filter=name)
        rows.append(
            {
                "filter": name,
                "calls_per_request": calls / requests if requests else 0.0,
                "us_per_call": seconds * 1e6 / calls if calls else 0.0,
                "us_per_request": seconds * each,
                "fuel_per_request": fuel / requests if requests else 0.0,
                "share_of_cpu": seconds / cpu if cpu else None,
                "failures": values(samples, "penstock_filter_failures_total", "reason", filter=name),
                "host_call_errors": values(samples, "penstock_host_call_errors_total", "function", filter=name),
            }
        )
    in_filters = sum(row["us_per_request"] for row in rows)
    return {
        "requests": requests,
        "statuses": values(samples, "penstock_requests_total", "code"),
        "us_per_request": total(samples, "penstock_request_duration_seconds_sum") * each,
        "upstream_us_per_request": total(samples, "penstock_upstream_duration_seconds_sum") * each,
        "filters_us_per_request": in_filters,
        "cpu_us_per_request": cpu * each if cpu is not None else None,
        "upstream_failures": values(samples, "penstock_upstream_failures_total", "reason"),
        "filters": rows,
    }


def as_json(url: str, connections: int, figures: Figures, found: Found | None) -> Found:
    return {
        "url": url,
        "connections": connections,
        "rate": figures.asked,
        "requests": figures.requests,
        "seconds": figures.seconds,
        "requests_per_second": figures.rps,
        "bytes": figures.bytes,
        "errors": figures.errors,
        "latency_us": {f"p{percent:g}": value for percent, value in figures.latency.items()},
        "gateway": found,
    }


def lines(url: str, connections: int, figures: Figures, found: Found | None) -> Iterator[str]:
    """The report as text."""
    how = "as fast as it answers" if figures.asked is None else f"{figures.asked:,.0f} requests/s asked for"
    yield f"{url}  {figures.seconds:.1f} s, {connections} connections, {how}"
    failed = ", ".join(f"{count:,} {kind}" for kind, count in figures.failed.items())
    yield f"requests   {figures.requests:,}, {figures.rps:,.0f}/s, {figures.bytes / figures.seconds / 1e6:,.1f} MB/s"
    yield f"errors     {failed or 'none'}"
    if figures.asked and figures.rps < 0.98 * figures.asked:
        yield "           the rate was not reached: the latencies leave out what could not be sent in time"
    words = [f"{'longest' if percent == 100 else f'p{percent:g}'} {time(value)}" for percent, value in figures.latency.items()]
    yield f"latency    {'  '.join(words)}"
    if found is None:
        return
    if found["cpu_us_per_request"] is not None:
        yield f"CPU        {time(found['cpu_us_per_request'])} per request, in the workers"
    for title, counts in (("statuses", found["statuses"]), ("upstream", found["upstream_failures"])):
        if counts and (title == "upstream" or set(counts) != {"200"}):
            told = ", ".join(f"{NO_ANSWER.get(what, what)}: {number:,.0f}" for what, number in sorted(counts.items()))
            yield f"{title:<10} {told}"
    yield ""
    yield "where a request's time goes, as the gateway counts it (averages)"
    yield f"  {time(found['us_per_request']):>9}  from its first byte to the end of the response; of that"
    yield f"  {time(found['upstream_us_per_request']):>9}  on the upstream side, its queue in the event loop included"
    yield f"  {time(found['filters_us_per_request']):>9}  inside filters"
    if not found["filters"]:
        return
    yield ""
    width = max(6, *(len(row["filter"]) for row in found["filters"]))
    yield f"{'filter':<{width}}  {'calls/req':>9}  {'per call':>9}  {'per req':>9}  {'of CPU':>6}  {'fuel/req':>10}"
    for row in found["filters"]:
        share = f"{row['share_of_cpu']:.0%}" if row["share_of_cpu"] is not None else "?"
        yield (
            f"{row['filter']:<{width}}  {row['calls_per_request']:>9.1f}  {time(row['us_per_call']):>9}  "
            f"{time(row['us_per_request']):>9}  {share:>6}  {row['fuel_per_request']:>10,.0f}"
        )
        for title in ("failures", "host_call_errors"):
            if row[title]:
                counts = ", ".join(f"{what}: {number:,.0f}" for what, number in row[title].items())
                yield f"{'':<{width}}  {title.replace('_', ' ')}: {counts}"


def time(microseconds: float) -> str:
    """With the unit that suits it."""
    if math.isnan(microseconds):
        return "-"
    if microseconds >= 1e6:
        return f"{microseconds / 1e6:.2f} s"
    if microseconds >= 1e3:
        return f"{microseconds / 1e3:.2f} ms"
    return f"{microseconds:.1f} us"
