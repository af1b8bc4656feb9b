"""The soak in small: some thousand requests leave nothing behind, on either loop; and its verdict sees what grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.servers import Upstream, build_upstream
from benchmarks.soak import Reading, growth, soak
from tests import requires


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_nothing_is_left_behind(tmp_path: Path, loop: str) -> None:
    requires.load_tools()
    upstream = Upstream.start(build_upstream(tmp_path), [])
    try:
        readings = soak(upstream.port, loop, 4000, 1)
    finally:
        upstream.stop()
    assert readings[-1].requests >= 4000
    # So few requests say nothing of memory: the heap takes longer than that to have its size.
    assert [grown for grown in growth(readings) if not grown.startswith("memory")] == []
    assert {(reading.stores, reading.streams) for reading in readings} == {(3, 0)}


FLAT = Reading(0, 100 << 20, 40, 3, 3, 0)


@pytest.mark.parametrize(
    ("last", "grown"),
    [
        (FLAT, []),
        (Reading(0, 101 << 20, 40, 3, 3, 0), []),
        (Reading(0, 103 << 20, 40, 3, 3, 0), ["memory, by 3072 KiB"]),
        (Reading(0, 90 << 20, 60, 3, 3, 0), ["descriptors, by 20"]),
        (Reading(0, 100 << 20, 40, 9, 4, 1), ["tasks, by 6", "stores, by 1", "streams, by 1"]),
    ],
)
def test_the_verdict(last: Reading, grown: list[str]) -> None:
    counts = (0, 100_000, 500_000, 1_000_000)
    _, *rest = last.__slots__
    readings = [Reading(count, *(getattr(FLAT if count < 1_000_000 else last, name) for name in rest)) for count in counts]
    assert growth(readings) == grown
