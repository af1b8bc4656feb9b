"""The report's plots as SVG that needs nothing from outside (pygal, without its script)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.figures import host_call
from benchmarks.scenarios import HOST_CALLS

try:
    import pygal
    from pygal.style import Style
except ImportError:
    pygal = None

Record = Mapping[str, Any]
Series = Mapping[str, Sequence[tuple[float, float]]]

COLOURS = {"penstock": "#0b6e4f", "envoy": "#c1440e", "nginx": "#4f6d7a", "caddy": "#8e7dbe", "aiohttp": "#b08d00"}
PERCENTILES = ((50, "p50_us"), (75, "p75_us"), (90, "p90_us"), (95, "p95_us"), (99, "p99_us"), (99.9, "p999_us"))


SCRIPT = re.compile(r"<script.*?</script>", re.DOTALL)


def available() -> bool:
    """Whether there can be plots: pip install pygal."""
    return pygal is not None


def plots(record: Record) -> Iterator[tuple[str, str]]:
    """Title and SVG of each plot that there are figures for."""
    scenarios = record["scenarios"]
    if "chain" in scenarios:
        rows = scenarios["chain"]["rows"]
        for load in sorted({row["load"] for row in rows}, key=int):
            here = [row for row in rows if row["load"] == load]
            yield f"Requests per second by chain length, {load} connections", lines(here, "rps", "filters", "requests/s")
            yield f"CPU per request by chain length, {load} connections", lines(here, "cpu_us", "filters", "us")
        memory = [row for row in rows if row["load"] == "32" and row["system"] in ("penstock", "envoy")]
        yield "Resident memory of a worker by chain length", lines(memory, "rss", "filters", "MB", 1e-6)
    if "latency" in scenarios:
        for variant in sorted({row["variant"] for row in scenarios["latency"]["rows"]}, key=int):
            here = [row for row in scenarios["latency"]["rows"] if row["variant"] == variant]
            yield f"Latency at 70 % of each one's own peak, {variant} filters", distribution(here)
    if "host-calls" in scenarios:
        rows = scenarios["host-calls"]["rows"]
        costs = {name: [host_call(rows, name, call) for call in HOST_CALLS] for name in ("penstock", "envoy")}
        yield "CPU of one host call", bars(HOST_CALLS, costs, "ns, logarithmic")
    for name, axis in (("growth-headers", "request headers beside the usual four"), ("growth-body", "body bytes")):
        if name in scenarios:
            yield f"CPU per request by {axis}", lines(scenarios[name]["rows"], "cpu_us", axis, "us")


def lines(rows: Sequence[Record], figure: str, x_title: str, y_title: str, scale: float = 1.0) -> str:
    """A line for each system, over the rows' x."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        value = row.get(figure, row.get("median", {}).get(figure))
        if value is not None:
            found.setdefault(row["system"], []).append((row["x"], value * scale))
    return xy({name: sorted(points) for name, points in found.items()}, x_title, y_title)


def distribution(rows: Sequence[Record]) -> str:
    """Milliseconds by percentile, the percentiles spread as their distance from 100 shrinks."""
    found = {
        row["system"]: [(-math.log10(1 - percent / 100), row["median"][name] / 1000) for percent, name in PERCENTILES]
        for row in rows
    }
    labels = [{"value": -math.log10(1 - percent / 100), "label": f"p{percent}"} for percent, _ in PERCENTILES]
    return xy(found, "", "ms", x_labels=labels)


def xy(series: Series, x_title: str, y_title: str, x_labels: Sequence[Mapping[str, Any]] = ()) -> str:
    chart = pygal.XY(**looks(list(series)), x_title=x_title, y_title=y_title, include_x_axis=True, dots_size=3)
    if x_labels:
        chart.x_labels = x_labels
    for name, points in series.items():
        chart.add(name, points)
    return rendered(chart)


def bars(labels: Sequence[str], series: Mapping[str, Sequence[float | None]], y_title: str) -> str:
    """Groups of bars on a logarithmic scale; what is not above 0 is left out."""
    shown = [value for values in series.values() for value in values if value is not None and value > 0]
    limits = {"range": (min(shown) / 2, max(shown))} if shown else {}
    chart = pygal.Bar(**looks(list(series)), y_title=y_title, logarithmic=True, **limits)
    chart.x_labels = labels
    for name, values in series.items():
        chart.add(name, [value if value is not None and value > 0 else None for value in values])
    return rendered(chart)


def looks(names: Sequence[str]) -> dict[str, Any]:
    style = Style(
        background="white",
        plot_background="white",
        font_family="system-ui, sans-serif",
        colors=tuple(COLOURS.get(name, "#333333") for name in names),
        label_font_size=13,
        major_label_font_size=13,
        legend_font_size=14,
        title_font_size=14,
    )
    return {"style": style, "js": [], "width": 720, "height": 360, "legend_at_bottom": True, "explicit_size": False}


def rendered(chart: Any) -> str:
    text: str = chart.render(is_unicode=True, disable_xml_declaration=True)
    # Its settings for the tooltips' script, which is left out.
    return SCRIPT.sub("", text)
