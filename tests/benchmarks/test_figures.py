"""The suite's arithmetic, and the report on it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from benchmarks import page, plots, suite
from benchmarks.figures import Figure, curvature, figures
from benchmarks.scenarios import HOST_CALLS

COSTS = {"envoy": (40.0, 10.0), "penstock": (50.0, 5.0)}
"""CPU microseconds of a request without filters, and of one more filter."""


def row(system: str, variant: str, x: float, cpu: float, load: str = "32", **more: Any) -> dict[str, Any]:
    median = dict.fromkeys(("p50_us", "p75_us", "p90_us", "p95_us", "p99_us", "p999_us", "max_us"), cpu * 20) | {
        "rps": 1e6 / cpu,
        "cpu_us": cpu,
        "mb_per_s": 1e4 / cpu,
        "server_busy": 1.0,
        "reached": 1.0,
    }
    return {"system": system, "variant": variant, "load": load, "x": x, "median": median, "spread": 0.01, **more}


def made_record() -> dict[str, Any]:
    """What a run leaves, with figures as COSTS would make them."""
    chain = [
        row(system, str(count), count, base + each * count, load, rss=int(1e8 + 1e6 * count))
        for system, (base, each) in COSTS.items()
        for count in (0, 1, 3, 5, 10)
        for load in ("32", "256")
    ]
    chain += [row("aiohttp", "0", 0, 200.0)]
    calls = [row(system, "none", 0, 50.0) for system in COSTS]
    calls += [row(system, call, 200, 50.0 + 20 * (1 + (system == "envoy"))) for system in COSTS for call in HOST_CALLS]
    late = row("envoy", "3", 3, 60.0)
    late["median"]["reached"] = 0.5
    rows = {"chain": chain, "latency": [late, row("penstock", "3", 3, 70.0)], "host-calls": calls}
    scenarios = {name: {"title": name, "axis": "filters", "kind": "load", "rows": found} for name, found in rows.items()}
    scenarios["cold-start"] = {
        "title": "cold start",
        "axis": "",
        "kind": "start",
        "rows": [{"system": one, "variant": "10", "load": "32", "x": 10, "seconds": 1.0, "spread": 0.5} for one in COSTS],
    }
    scenarios["workers"] = {
        "title": "workers",
        "axis": "workers",
        "kind": "load",
        "rows": [row("penstock", "1", 1, 50.0), row("penstock", "2", 2, 26.0)],
    }
    record: dict[str, Any] = {
        "started": "2026-01-01T00-00-00",
        "mode": "full",
        "machine": {"cpu": "a <fast> CPU", "cpus": 2, "kernel": "6"},
        "versions": {"penstock": "1"},
        "launchers": {"load_and_upstream": [], "server": []},
        "noise": {"unsteadiness_before": 0.5, "unsteadiness_after": 0.1, "stolen": 0.1},
        "scenarios": scenarios,
        "metering": {"sha256": {"neither": {"us": 100.0, "ratio": 1.0}, "fuel": {"us": 110.0, "ratio": 1.1}}},
        "doubts": [],
    }
    record["doubts"] = suite.doubts(record)
    record["figures"] = [one.as_json() for one in figures(record)]
    return record


def found(group: str, name: str) -> Figure:
    return next(one for one in figures(made_record()) if (one.group, one.name) == (group, name))


@pytest.mark.parametrize(
    ("group", "name", "value", "met"),
    [
        ("requests/s", "10 filters, 32 connections", 1.4, True),  # 140 us there, 100 us here
        ("requests/s", "0 filters, 256 connections", 0.8, False),
        ("CPU per request", "10 filters, 32 connections", 1.4, True),
        ("CPU per request", "one more filter, 1 to 10, 32 connections", 0.5, True),
        ("requests/s", "against plain aiohttp", 200 / 65, True),
        ("memory", "one more filter", 1.0, True),
        ("host calls", "get", 0.5, None),
        ("start", "cold start, 10 filters", 1.0, True),
        ("growth", "filters", 1.0, True),
        ("growth", "workers", 50 / 26, None),
        ("latency", "p99 at 70 % of peak, 3 filters", 200.0, True),
    ],
)
def test_figures(group: str, name: str, value: float, met: bool | None) -> None:
    figure = found(group, name)
    assert figure.value == pytest.approx(value)
    assert figure.met is met


def test_a_host_call_is_told_in_nanoseconds() -> None:
    assert (found("host calls", "get").mine, found("host calls", "get").theirs) == (pytest.approx(100), pytest.approx(200))


def test_what_was_not_measured_is_left_out() -> None:
    record = made_record()
    del record["scenarios"]["chain"]
    assert {one.group for one in figures(record)} == {"latency", "host calls", "start", "growth"}
    record["scenarios"] = {}
    assert figures(record) == []


def test_a_slope_says_where_it_begins() -> None:
    record = made_record()
    rows = record["scenarios"]["chain"]["rows"]
    record["scenarios"]["chain"]["rows"] = [one for one in rows if one["variant"] != "1"]
    names = [one.name for one in figures(record)]
    assert "one more filter, 0 to 10, 32 connections" in names


@pytest.mark.parametrize(
    ("points", "bend"),
    [
        ([(0, 1), (1, 2), (2, 3)], 1.0),
        ([(2, 5), (0, 1), (1, 2)], 1.5),
        ([(0, 1), (1, 1), (2, 1)], None),
        ([(0, 1), (1, 2)], None),
    ],
)
def test_curvature(points: list[tuple[float, float]], bend: float | None) -> None:
    assert curvature(points) == bend


def test_doubts_name_what_disturbed_the_run() -> None:
    said = made_record()["doubts"]
    assert len(said) == 5
    for words in ("up to 50% longer", "took 10%", "no CPU of its own", "latency: 1 of 2 did not reach", "times of 2 of 2"):
        assert any(words in line for line in said), words


def test_the_page_needs_nothing_from_outside_and_begins_with_the_figures() -> None:
    text = page.report(made_record())
    assert not re.search(r"<script|<link|@import|(?:src|href)\s*=\s*[\"']?https?:|url\(\s*[\"']?https?:", text)
    assert "a &lt;fast&gt; CPU" in text
    assert text.index("<h2>Figures</h2>") < text.index("<h2>All medians</h2>")
    assert text.count("missed") > 0
    if plots.available():
        assert text.index("<h2>Figures</h2>") < text.index("<h2>Plots</h2>")
        assert text.count("<svg") == 7


def test_the_summary_says_what_was_reached() -> None:
    lines = suite.summary(made_record())
    assert any("cold start" in line and line.endswith("reached") for line in lines)
    assert any("0 filters, 32" in line and line.endswith("MISSED") for line in lines)
    assert sum(line.startswith("doubt: ") for line in lines) == 5


def test_preflight_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    monkeypatch.setattr(suite, "compiler", lambda: None)
    needed, optional, installed = suite.preflight(())
    assert [line.split(",")[0] for line in needed[:2]] == ["wrk", "h2load"]
    assert needed[2].startswith("a C compiler")
    assert "nginx: apt install nginx-light" in optional
    assert installed[0] == "penstock"
    needed, optional, installed = suite.preflight(("nginx",))
    assert needed[-1] == "nginx: apt install nginx-light"
    assert installed == ("penstock",)
