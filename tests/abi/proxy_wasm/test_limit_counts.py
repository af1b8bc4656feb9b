"""What is cut to a limit is counted; and how much fuel calls take."""

import pytest

from tests.abi.guest import OUT, Script

HEADERS = "proxy_on_request_headers"


@pytest.mark.parametrize(("milliseconds", "period", "cut"), [(1, 0.02, 1), (19, 0.02, 1), (20, 0.02, 0), (1000, 1.0, 0)])
def test_a_tick_that_is_too_fast(start_filters, milliseconds, period, cut):
    script = Script({HEADERS: [("proxy_set_tick_period_milliseconds", milliseconds)]})
    worker = start_filters((script, {"limits": {"tick": "20ms"}}))
    assert worker.open().runs(HEADERS)[0].status == 0
    assert worker.slots[0].roots[0].tick_seconds == period
    assert worker.instruments.filter_limited.child(("f0", "tick")).value == cut


@pytest.mark.parametrize(("size", "cut"), [(255, 0), (257, 1), (5000, 1)])
def test_a_line_that_is_too_long(start_filters, lines, size, cut):
    worker = start_filters((Script({HEADERS: [("proxy_log", 2, b"x" * size)]}), {"limits": {"log_line": "256B"}}))
    worker.open().call(HEADERS)
    assert [len(text) for _, text in lines.said()] == [min(size, 256)]
    assert worker.instruments.filter_limited.child(("f0", "log_line")).value == cut


@pytest.mark.parametrize(
    ("limits", "rows", "function"),
    [
        ({"metrics": 2}, [("proxy_define_metric", 0, name, OUT) for name in (b"a", b"b", b"c")], "proxy_define_metric"),
        ({"headers": 5}, [("proxy_add_header_map_value", 0, b"x", b"y")] * 10, "proxy_add_header_map_value"),
        ({"header_bytes": "1KiB"}, [("proxy_add_header_map_value", 0, b"x", b"y" * 400)] * 3, "proxy_add_header_map_value"),
        ({"header_bytes": "1KiB"}, [("proxy_replace_header_map_value", 0, b"x", b"y" * 999)], "proxy_replace_header_map_value"),
    ],
    ids=["metrics", "headers", "header_bytes", "header_bytes, one"],
)
def test_a_call_over_a_limit_is_refused_and_counted(start_filters, limits, rows, function):
    worker = start_filters((Script({HEADERS: rows}), {"limits": limits}))
    opened = worker.open()
    before = len(worker.memory.pairs(0))
    found = [run.status for run in opened.runs(HEADERS)]
    assert set(found) <= {0, 10}
    assert found[-1] == 10
    refused = worker.instruments.host_call_errors.child(("f0", function, "InternalFailure")).value
    assert refused == found.count(10)
    assert len(worker.memory.pairs(0)) <= before + found.count(0)
    assert worker.failures() == {}


def test_the_fuel_of_calls(start_filters):
    worker = start_filters(
        """(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (local.set 0 (i32.const 10000))
        (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))) (i32.const 0)))"""
    )
    plugin = worker.plugins[0]
    for _ in range(7):
        worker.open().call(HEADERS)
    plugin.refresh()
    histogram = plugin.instruments.call_fuel
    assert len(histogram.counts) == len(histogram.bounds) + 1
    assert sum(histogram.counts) == 7
    each = histogram.sum / 7
    assert 30_000 < each < 100_000
    bucket = histogram.counts.index(7)
    assert histogram.bounds[bucket - 1] < each <= histogram.bounds[bucket]


@pytest.mark.parametrize("fuel", [0, 1, 255, 256, 511, 512, 5_000_000, 2**32 - 1, 2**32, 10**15])
def test_every_amount_of_fuel_has_its_bucket(start_filters, fuel):
    plugin = start_filters(Script({HEADERS: []})).plugins[0]
    plugin.fuel_counts[fuel.bit_length()] += 1
    plugin.refresh()
    histogram = plugin.instruments.call_fuel
    bucket = histogram.counts.index(1)
    assert bucket == len(histogram.bounds) or fuel <= histogram.bounds[bucket]
    assert bucket == 0 or fuel > histogram.bounds[bucket - 1]
