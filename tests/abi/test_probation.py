"""What failed calls may burn: a deadline's worth, then a small share of the time; a filter's usual calls are let be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.abi import recovery
from proxy.abi.probation import LEAST_FUEL, LEAST_SECONDS, SHARE, Probation
from proxy.abi.quarantine import Quarantine
from proxy.sharing.quarantine import QuarantineBoard
from tests.abi.guest import Lines

AMPLE = 10**15
BURST = 0.025
HEADERS, BODY = "proxy_on_request_headers", "proxy_on_response_headers"
FUEL_RATE = 4_000_000_000
"""Of an endless loop: units a second."""

MOODY = """(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (loop $l (br $l)) unreachable)
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (local $i i32)
    (local.set $i (i32.const 700000)) (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
    (i32.const 0)))"""


@given(st.lists(st.tuples(st.floats(0, 70), st.integers(1, 10**9), st.floats(0, 0.03)), max_size=40))
def test_a_budget_is_a_share_of_the_time(faults):
    """Whatever fails when: what is given beyond the least is never more than the burst and the share of the time."""
    probation, now, burned, began = Probation(BURST), 0.0, 0.0, 0.0
    for pause, fuel, seconds in faults:
        now += pause
        left = probation.left(now)
        assert LEAST_SECONDS <= left <= BURST
        spent = min(seconds, left)
        burned += max(spent - LEAST_SECONDS, 0.0)
        probation.fault(now, fuel, spent)
        assert burned <= BURST + SHARE * (now - began) + 1e-9
        assert probation.fuel(now, AMPLE, 0) >= LEAST_FUEL


def test_the_fuel_is_what_the_time_pays_for():
    probation = Probation(BURST)
    assert probation.fuel(100.0, AMPLE, 0) == AMPLE
    probation.fault(100.0, int(FUEL_RATE * BURST), BURST)
    assert probation.fuel(100.0, AMPLE, 0) == FUEL_RATE * LEAST_SECONDS
    assert probation.fuel(101.0, AMPLE, 0) == pytest.approx(FUEL_RATE * SHARE)
    assert probation.fuel(101.0, 5_000_000, 0) == 5_000_000
    # Dearer fuel: as much time is less of it; cheaper fuel does not undo that, nor does a call that fails at once.
    probation.fault(101.0, FUEL_RATE // 100, 0.1)
    probation.fault(101.0, FUEL_RATE, 0.1)
    probation.fault(101.0, 10, 1e-6)
    assert probation.fuel(103.0, AMPLE, 0) == pytest.approx(FUEL_RATE / 10 * SHARE * 2, rel=1e-3)
    assert probation.fuel(103.0, AMPLE, 10**9) == 10**9, "its usual calls are let be"
    assert probation.fuel(103.0 + BURST / SHARE, AMPLE, 0) == AMPLE


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(recovery.time, "monotonic", lambda: now[0])
    return now


def kept(worker):
    """As Chains does it: faults are kept."""
    for slot in worker.slots:
        slot.quarantine = Quarantine(QuarantineBoard(["f0"], 1), 0)
        slot.quarantine.names += ["f0"]
    return worker


def test_a_filter_that_burns_its_deadline_is_stopped_sooner(start_filters, clock, monkeypatch):
    lines = Lines()
    monkeypatch.setattr(recovery, "log", lines)
    worker = kept(start_filters((MOODY, {"fuel": AMPLE})))
    plugin, place = worker.plugins[0], worker.slots[0]
    worker.open().call(HEADERS)
    assert worker.failures() == {"deadline": 1}
    assert LEAST_FUEL <= plugin.fuel < AMPLE
    (line,) = lines.of("filter_on_probation")
    assert (line["filter"], line["fuel"], line["instead_of"]) == ("f0", plugin.fuel, AMPLE)
    for _ in range(3):
        clock[0] = max(place.rebuild_at, clock[0])
        worker.open().call(HEADERS)
    assert worker.failures() == {"deadline": 1, "fuel": 3}
    assert worker.instruments.filter_limited.child(("f0", "probation")).value == 1
    # One timer gives it back, whatever happened meanwhile.
    (step,) = [timer for timer in worker.timers if timer.function == place.review]
    worker.timers.clear()
    clock[0] += 2 * BURST / SHARE
    step.fire()
    assert plugin.fuel == AMPLE
    assert not worker.timers
    assert lines.of("filter_off_probation")


def test_calls_that_ended_well_before_do_so_on_probation(start_filters, clock):
    worker = kept(start_filters((MOODY, {"fuel": AMPLE})))
    plugin, place = worker.plugins[0], worker.slots[0]
    for _ in range(2):
        worker.open().call(BODY)
    usual = plugin.usual_fuel()
    assert usual > 2 * LEAST_FUEL
    worker.open().call(HEADERS)
    assert usual <= plugin.fuel < AMPLE
    clock[0] = max(place.rebuild_at, clock[0])
    assert place.live() is not None
    for _ in range(2):
        worker.open().call(BODY)
    assert worker.failures() == {"deadline": 1}


def test_cheap_faults_and_others_are_no_reason(start_filters, clock):
    worker = kept(start_filters((MOODY.replace("(loop $l (br $l))", ""), {"fuel": AMPLE})))
    plugin, place = worker.plugins[0], worker.slots[0]
    for _ in range(5):
        worker.open().call(HEADERS)
        clock[0] = max(place.rebuild_at, clock[0])
        assert place.live() is not None
    plugin.failed("pause", "pause", "held a stream for 15 s", None, 0)
    assert plugin.fuel == AMPLE
    assert worker.failures() == {"trap": 5, "pause": 1}
