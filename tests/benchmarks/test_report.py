"""The comparison's arithmetic."""

from __future__ import annotations

import pytest

from benchmarks.load import Sample
from benchmarks.report import Key, Summary, doubts, slope, slope_range, spread, summarize, table


def sample(cpu_us: float = 50.0, rps: float = 1000.0, busy: float = 1.0, stolen: float = 0.0) -> Sample:
    """A run that used one CPU."""
    return Sample(rps, cpu_us, 100.0, 200.0, busy, 0.1, 0.6, stolen)


def summaries(figures: dict[Key, float]) -> dict[Key, Summary]:
    """One run each, by CPU per request."""
    return {key: summarize([sample(cpu)]) for key, cpu in figures.items()}


def test_each_figure_has_its_own_median() -> None:
    found = summarize([sample(40, 1000), sample(50, 3000), sample(90, 2000)])
    assert (found.median.cpu_us, found.median.rps, found.runs) == (50, 2000, 3)
    assert (found.spread, found.rps_spread) == (1.0, 1.0)


def test_spread_of_nothing_used_is_nothing() -> None:
    assert spread([0.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({("envoy", 3): 50.0, ("envoy", 10): 99.0}, 7.0),
        ({("envoy", 3): 50.0}, None),
        ({("envoy", 10): 50.0}, None),
        ({("penstock", 3): 50.0, ("penstock", 10): 99.0}, None),
    ],
)
def test_slope_is_per_filter_and_system(figures: dict[Key, float], expected: float | None) -> None:
    assert slope(summaries(figures), "envoy", 3, 10) == expected


@pytest.mark.parametrize(("counts", "expected"), [((0, 1, 3, 10), (3, 10)), ((10, 0), (0, 10)), ((5,), (5, 5))])
def test_slope_range(counts: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert slope_range(counts) == expected


def test_table_compares_with_the_rival_only_where_both_were_measured() -> None:
    figures = {
        ("envoy", 3): 50.0,
        ("envoy", 10): 100.0,
        ("penstock", 3): 75.0,
        ("penstock", 10): 110.0,
        ("penstock", 0): 9.0,
    }
    rows = table(summaries(figures), (0, 3, 10), "penstock", "envoy")
    assert [row.split()[:2] for row in rows[1:6]] == [
        ["0", "penstock"],
        ["3", "envoy"],
        ["3", "penstock"],
        ["10", "envoy"],
        ["10", "penstock"],
    ]
    assert rows[1].count("x") == 0
    assert "1.50x" in rows[3]
    assert "1.10x" in rows[5]
    assert rows[6:] == [
        "each filter from 3 to 10: envoy 7.14 us CPU per request",
        "each filter from 3 to 10: penstock 5.00 us CPU per request 0.70x",
    ]


def test_doubts_name_idle_noisy_and_stolen_runs() -> None:
    said = doubts(
        {
            ("envoy", 0): summarize([sample(busy=0.5)]),
            ("envoy", 1): summarize([sample(50), sample(80)]),
            ("envoy", 3): summarize([sample(stolen=0.1)]),
            ("envoy", 10): summarize([sample()]),
        }
    )
    assert [line.split()[2] for line in said] == ["0", "1", "3"]
