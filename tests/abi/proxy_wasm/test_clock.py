"""limits.clock: all times that a filter is told are rounded down; and inside a callback the clock stands still."""

import struct

import pytest

from proxy.abi.proxy_wasm.host import Host
from tests.abi.guest import OUT, Script

HEADERS = "proxy_on_request_headers"
WASI = "wasi_snapshot_preview1."
READS = [
    ("proxy_get_current_time_nanoseconds", OUT),
    (WASI + "clock_time_get", 0, 0, OUT),
    (WASI + "clock_time_get", 1, 0, OUT),
]


@pytest.mark.parametrize(("clock", "step"), [(None, 1), ("1us", 10**3), ("1ms", 10**6), ("100ms", 10**8), ("10s", 10**10)])
def test_all_clocks_go_in_steps(start_filters, monkeypatch, clock, step):
    now = 1_700_000_000_123_456_789
    monkeypatch.setattr(Host, "now", staticmethod(lambda: now))
    rows = [*READS, (WASI + "clock_res_get", 0, OUT), (WASI + "clock_res_get", 1, OUT)]
    worker = start_filters((Script({HEADERS: rows}), {"limits": {"clock": clock}}))
    *times, res, res_monotonic = worker.open().runs(HEADERS)
    assert {run.u64() for run in times} == {now - now % step}
    assert (res.u64(), res_monotonic.u64()) == (step, step)


@pytest.mark.parametrize("path", [b"request\0time", b"request\0duration", b"response\0backend_latency"])
def test_properties_that_are_times(start_filters, path):
    script = Script({"proxy_on_log": [("proxy_get_property", path, OUT, OUT)]})
    worker = start_filters((script, {"limits": {"clock": "10ms"}}), (script, {}))
    found = []
    for number in (0, 1):
        opened = worker.open(number)
        info = opened.stream.info
        info.start, info.start_monotonic, info.upstream_seconds, info.over = 1_700_000_000.123456, 1.0, 0.1234567, True
        (run,) = opened.runs("proxy_on_log")
        found.append(struct.unpack("<q", run.value)[0])
    assert found[0] % 10**7 == 0
    assert found[1] % 10**7 != 0
    assert 0 < found[0] <= found[1]


def test_the_clock_stands_still_in_a_callback(start_filters, monkeypatch):
    """It is read anew after 64 readings, for a guest that waits for time to pass."""
    ticks = iter(range(1000, 2000))
    monkeypatch.setattr(Host, "now", staticmethod(lambda: next(ticks)))
    worker = start_filters(Script({HEADERS: [READS[0], (WASI + "clock_res_get", 0, OUT)] * 30}))
    first = [run.u64() for run in worker.open().runs(HEADERS)[::2]]
    second = [run.u64() for run in worker.open().runs(HEADERS)[::2]]
    assert len(set(first)) == len(set(second)) == 1
    assert second[0] > first[0]
