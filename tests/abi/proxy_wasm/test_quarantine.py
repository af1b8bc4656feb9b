"""A VM that keeps failing is taken out, everywhere, until it is resumed."""

import pytest

from proxy.abi import recovery
from proxy.abi.filter import FAILED
from proxy.abi.quarantine import Quarantine
from proxy.sharing.quarantine import QuarantineBoard
from tests.abi.guest import Lines

HEADERS = "proxy_on_request_headers"
FAILS = """(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"""


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(recovery.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(recovery.random, "uniform", lambda low, high: 1.0)
    return now


@pytest.fixture
def said(monkeypatch):
    kept = Lines()
    monkeypatch.setattr(recovery, "log", kept)
    return kept


def watched(worker, board, number=0):
    """Give the worker's VMs their quarantine, as Chains does."""
    for slot in worker.slots:
        slot.quarantine = Quarantine(board, number)
        slot.quarantine.names += [root.plugin.name for root in slot.roots]
    return worker


def fail(worker, clock, times, every=0.0):
    """Faults one after another, as soon as the VM is back, `every` seconds later."""
    for _ in range(times):
        assert worker.slots[0].live() is not None
        worker.open().call(HEADERS)
        clock[0] = max(worker.slots[0].rebuild_at, clock[0]) + every


@pytest.mark.parametrize("policy", ["closed", "open"])
def test_ten_faults_within_five_minutes(start_filters, clock, said, policy):
    board = QuarantineBoard(["f0"], 2)
    worker = watched(start_filters((FAILS, {"on_failure": policy})), board)
    place, plugin = worker.slots[0], worker.plugins[0]
    fail(worker, clock, 9)
    assert not board.is_out("f0")
    fail(worker, clock, 1)
    assert place.out == "f0"
    assert board.is_out("f0")
    (line,) = said.of("filter_quarantined")
    assert line["filter"] == "f0"
    assert line["reason"].startswith("10 faults within 300 s, the last: proxy_on_request_headers: trap: ")
    # However long it takes: no VM is built, streams meet the policy at once.
    clock[0] += 100_000
    rebuilds = worker.instruments.vm_rebuilds.child(("f0",)).value
    opened = plugin.open(worker.open_stream())
    if policy == "open":
        assert opened is None
    else:
        assert opened.request_headers(True) == FAILED
    assert place.live() is None
    assert worker.instruments.vm_rebuilds.child(("f0",)).value == rebuilds
    state = plugin.state()
    assert (state["state"], state["on_failure"], state["resume"]) == ("quarantined", policy, "POST /filters/f0/resume")
    assert state["reason"] == line["reason"]
    assert [trap.reason for _, trap in board.traps("f0")] == ["trap"] * 8


def test_resumed(start_filters, clock, said):
    board = QuarantineBoard(["f0"], 1)
    worker = watched(start_filters((FAILS, {"quarantine": {"faults": 3, "window": "1m"}})), board)
    place = worker.slots[0]
    fail(worker, clock, 3)
    place.look()
    assert place.vm is None
    assert board.resume("f0")
    place.look()
    assert place.vm is not None
    assert place.out == ""
    assert worker.plugins[0].state()["state"] == "ready"
    assert [line["filter"] for line in said.of("filter_resumed")] == ["f0"]
    # The count and the back-off begin again.
    fail(worker, clock, 2)
    assert not board.is_out("f0")
    fail(worker, clock, 1)
    assert board.is_out("f0")


@pytest.mark.parametrize(
    ("settings", "faults", "every"),
    [({"quarantine": None}, 60, 0.0), ({}, 60, 60.0), ({"quarantine": {"faults": 5, "window": "10s"}}, 40, 11.0)],
    ids=["switched off", "rare faults", "a short window"],
)
def test_not_taken_out(start_filters, clock, settings, faults, every):
    board = QuarantineBoard(["f0"], 1)
    worker = watched(start_filters((FAILS, settings)), board)
    fail(worker, clock, faults, every)
    assert not board.is_out("f0")
    assert len(worker.slots[0].quarantine.faults) <= 60


def test_other_workers_follow(start_filters, clock, said):
    """A healthy VM of the same filter goes too; one with another name stays; a worker that starts later does not start it."""
    board = QuarantineBoard(["f0", "f1"], 2)
    here, there = (watched(start_filters(FAILS, FAILS.replace("unreachable", "(i32.const 0)")), board, n) for n in (0, 1))
    fail(here, clock, 10)
    held = there.open()
    there.slots[0].look()
    there.slots[1].look()
    assert there.slots[0].vm is None
    assert held.context.down
    assert there.open(1).call(HEADERS) == 0
    assert there.plugins[0].state()["state"] == "quarantined"
    assert there.plugins[0].state()["reason"] == here.plugins[0].state()["reason"]
    board.resume("f0")
    for worker in (here, there):
        worker.slots[0].look()
        assert worker.slots[0].vm is not None
    assert len(said.of("filter_quarantined")) == 2


def test_filters_of_one_vm_are_out_together(start_filters, clock, said):
    board = QuarantineBoard(["f0", "f1"], 1)
    worker = watched(start_filters((FAILS, {"vm_id": "one"}), (FAILS, {"vm_id": "one"})), board)
    fail(worker, clock, 10)
    assert (board.is_out("f0"), board.is_out("f1")) == (True, False)
    assert [plugin.state()["resume"] for plugin in worker.plugins] == ["POST /filters/f0/resume"] * 2
    board.resume("f0")
    worker.slots[0].look()
    assert [plugin.state()["state"] for plugin in worker.plugins] == ["ready"] * 2
