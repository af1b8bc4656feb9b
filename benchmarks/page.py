"""The report: one HTML file that needs nothing else. The figures that are judged come first, then plots, then all medians."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks import plots

Record = Mapping[str, Any]
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
.met { color: #0b6e4f } .missed { color: #b3261e; font-weight: 600 } .note { color: #555; text-align: left }
figure { display: inline-block; margin: 0 1rem 1rem 0; width: 34rem; max-width: 100% } figcaption { font-weight: 600 }
.doubt { border-left: 4px solid #b08d00; padding: .2rem .8rem; background: #fdf8e6 }
"""


def report(record: Record) -> str:
    """The page."""
    return "\n".join(parts(record)) + "\n"


def parts(record: Record) -> Iterator[str]:
    title = "Penstock's benchmarks"
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
    machine = record["machine"]
    peers = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    yield f"<p>{text(record['started'])} on {text(machine['cpu'] or 'an unnamed CPU')}, {machine['cpus']} CPUs, Linux "
    yield f"{text(machine['kernel'])}. {text(peers)}. Medians of interleaved runs; {text(record['mode'])} mode.</p>"
    for doubt in record["doubts"]:
        yield f'<p class="doubt">{text(doubt)}</p>'
    yield "<h2>Figures</h2>"
    groups = list(dict.fromkeys(figure["group"] for figure in record["figures"]))
    for group in groups:
        yield f"<h3>{text(group)}</h3>"
        here = [figure for figure in record["figures"] if figure["group"] == group]
        yield table(("", "Penstock", "the other", "compared", "wanted", "", ""), map(figure_row, here))
    if metering := record.get("metering"):
        yield "<h2>What metering costs</h2><p>The filter's own function, without a host around it; Penstock runs with both.</p>"
        modes = list(next(iter(metering.values())))
        rows = (
            [name, *(f"{found[mode]['us']:.0f} us ({found[mode]['ratio']:.2f})" for mode in modes)]
            for name, found in metering.items()
        )
        yield table(("", *modes), rows)
    if plots.available():
        yield "<h2>Plots</h2>"
        for caption, svg in plots.plots(record):
            yield f"<figure><figcaption>{text(caption)}</figcaption>{svg}</figure>"
    yield "<h2>All medians</h2>"
    for name, scenario in record["scenarios"].items():
        yield f"<h3>{text(name)}</h3><p>{text(scenario['title'])}</p>"
        if scenario["kind"] == "start":
            rows = (
                [row["system"], row["variant"], f"{row['seconds']:.2f}", f"{row['spread']:.0%}"] for row in scenario["rows"]
            )
            yield table(("server", "filters", "seconds", "noise"), rows)
        else:
            yield table(
                ("server", "chain", "load", "req/s", "CPU us", "noise", "p50 ms", "p99 ms", "MB/s", "busy", "RSS MB"),
                map(median_row, scenario["rows"]),
            )
    yield "</body></html>"


def figure_row(figure: Record) -> list[str]:
    met = {True: '<span class="met">reached</span>', False: '<span class="missed">missed</span>', None: ""}[figure["met"]]
    wanted = "" if figure["bound"] is None else f"{'at least' if figure['least'] else 'at most'} {number(figure['bound'])}"
    mine, theirs = (with_unit(figure[side], figure["unit"]) for side in ("mine", "theirs"))
    return [text(figure["name"]), mine, theirs, number(figure["value"]), wanted, Markup(met), text(figure["note"])]


def median_row(row: Record) -> list[str]:
    median = row["median"]
    return [
        row["system"],
        row["variant"],
        row["load"],
        f"{median['rps']:,.0f}",
        f"{median['cpu_us']:,.1f}",
        f"{row['spread']:.0%}",
        f"{median['p50_us'] / 1000:.2f}",
        f"{median['p99_us'] / 1000:.2f}",
        f"{median['mb_per_s']:,.1f}",
        f"{median['server_busy']:.0%}",
        f"{row.get('rss', 0) / 1e6:.0f}",
    ]


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{text(cell)}</th>" for cell in head)
    lines = [f"<table><tr>{cells}</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(f"<td>{cell if isinstance(cell, Markup) else text(cell)}</td>" for cell in row) + "</tr>")
    return "\n".join([*lines, "</table>"])


def text(value: object) -> str:
    return Markup(html.escape(html.unescape(str(value)), quote=False))


def number(value: float | None) -> str:
    """Three digits that matter."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "B":
        return f"{value / 1e6:.2f} MB"
    return f"{number(value)}{unit if unit.startswith('/') else f' {unit}'}"
