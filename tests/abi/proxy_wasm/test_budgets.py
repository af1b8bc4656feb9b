"""What a filter cannot do to a worker: every way to go wrong is a GuestFault with its reason, in that filter alone."""

import struct
import time

import pytest

from proxy.abi import recovery
from proxy.abi.filter import FAILED, LOGS
from proxy.abi.memory import encode_pairs
from proxy.abi.proxy_wasm.load import LoadError
from proxy.abi.recovery import StartError
from tests.abi.guest import OUT, Script

HEADERS = "proxy_on_request_headers"
PRELUDE = """
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))"""


def filter_text(body, imports="", locals_="", callback=HEADERS, more=""):
    return f"""(module {imports} {PRELUDE} {more}
  (func (export "{callback}") (param i32 i32 i32) (result i32) {locals_}
    {body} (i32.const 0)))"""


LOOP = filter_text("(loop $l (br $l))")
RECURSION = filter_text(
    "(drop (call $deep (i32.const 0)))",
    more="(func $deep (param i32) (result i32) (call $deep (local.get 0)) (i32.add (i32.const 1)))",
)
GROW = filter_text("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable")
LOG = '(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))'
PROPERTY = '(import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))'
CASES = {
    "endless loop": (LOOP, {}, "fuel"),
    "endless memset": (
        filter_text("(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l))"),
        {},
        "fuel",
    ),
    "spin without a fuel limit": (LOOP, {"fuel": 10**15, "deadline": "50ms"}, "deadline"),
    "memory bomb": (GROW, {"memory": "4MiB"}, "memory"),
    "recursion": (RECURSION, {}, "trap"),
    "recursion, much fuel": (RECURSION, {"fuel": 10**12}, "trap"),
    "unreachable": (filter_text("unreachable"), {}, "trap"),
    "out of bounds": (filter_text("(drop (i32.load (i32.const 65536)))"), {}, "trap"),
    "division by zero": (filter_text("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), {}, "trap"),
    "null call": (
        filter_text("(call_indirect (type $t) (i32.const 0))", more="(type $t (func)) (table 1 funcref)"),
        {},
        "trap",
    ),
    "flood of log lines": (
        filter_text("(loop $l (drop (call $log (i32.const 2) (i32.const 0) (i32.const 100))) (br $l))", LOG),
        {},
        "fuel",
    ),
    "flood of host calls": (
        filter_text("(loop $l (drop (call $get (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 12))) (br $l))", PROPERTY),
        {},
        "fuel",
    ),
}


@pytest.mark.parametrize("policy", ["closed", "open"])
@pytest.mark.parametrize("case", CASES)
def test_faults(start_filters, lines, case, policy):
    text, settings, reason = CASES[case]
    innocent = Script({HEADERS: [("proxy_add_header_map_value", 0, b"x-b", b"1")], "proxy_on_log": []})
    worker = start_filters((text, {**settings, "on_failure": policy}), innocent)
    opened = worker.open()
    mate = worker.open(1, stream=opened.stream)
    bystander = worker.open(0)
    started = time.thread_time()
    result = opened.call(HEADERS)
    assert time.thread_time() - started < 1.0
    assert result == (FAILED if policy == "closed" else 0)
    assert opened.context.down
    assert worker.failures(0) == {reason: 1}
    (line,) = lines.of("filter_failed")
    assert (line["filter"], line["callback"], line["reason"], line["on_failure"]) == ("f0", HEADERS, reason, policy)
    assert line["message"]
    assert line.get("setting") == (None if reason == "trap" else f"filters[].{reason}")
    # It is never entered again, by any stream that it had a part in.
    assert opened.call(HEADERS) == bystander.call(HEADERS) == result
    opened.call("proxy_on_log")
    assert worker.failures(0) == {reason: 1}
    # Others in the worker go on, in the same stream too.
    assert mate.call(HEADERS) & 0xFF == 0
    assert worker.memory.get(0, b"x-b") == b"1"
    assert worker.failures(1) == {}
    assert not mate.context.down


def test_a_vm_is_built_anew_and_then_later_and_later(start_filters, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(recovery.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(recovery.random, "uniform", lambda low, high: 1.0)
    worker = start_filters((filter_text("unreachable"), {"on_failure": "open"}))
    place = worker.slots[0]
    waits = []
    for _ in range(9):
        worker.open().call(HEADERS)
        assert place.vm is None
        waits.append(place.rebuild_at - clock[0])
        if waits[-1]:
            assert worker.plugins[0].open(worker.open_stream()) is None
            assert worker.plugins[0].state()["state"] == "failed"
        clock[0] = place.rebuild_at
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert worker.instruments.vm_rebuilds.child(("f0",)).value == 8
    worker.open()
    clock[0] += 10
    worker.plugins[0].slot.died()
    assert place.rebuild_at == clock[0]


def test_a_rebuilt_vm_is_a_new_one(start_filters):
    """Its globals, its memory and its context ids begin again; what was counted stays."""
    worker = start_filters(f"""(module
      (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
      (import "env" "proxy_increment_metric" (func $add (param i32 i64) (result i32)))
      {PRELUDE}
      (data (i32.const 16) "count")
      (global $calls (mut i32) (i32.const 0))
      (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (i32.eqz (call $define (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 8))))
      ;; answers with the id of its context, and fails the second time
      (func (export "{HEADERS}") (param i32 i32 i32) (result i32)
        (drop (call $add (i32.load (i32.const 8)) (i64.const 1)))
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (if (i32.eq (global.get $calls) (i32.const 2)) (then unreachable))
        (local.get 0)))""")
    assert [worker.open().call(HEADERS) for _ in range(4)] == [2, FAILED, 2, FAILED]
    worker.plugins[0].metrics.refresh()
    assert [counter.value for counter in worker.plugins[0].metrics.shown.values()] == [4]


def test_filters_that_share_a_vm_die_together(start_filters):
    """Envoy: one vm_id, one fate."""
    text = Script({HEADERS: []})
    other = filter_text("(if (i32.eq (local.get 0) (i32.const 3)) (then unreachable))")
    worker = start_filters((other, {"vm_id": "one"}), (other, {"vm_id": "one"}), text)
    a, b, c = (worker.open(i) for i in range(3))
    assert (a.context.id, b.context.id) == (3, 4)
    assert a.call(HEADERS) == FAILED
    assert b.context.down
    assert not c.context.down


def test_fuel_is_per_callback_and_counted(start_filters):
    worker = start_filters(
        (
            filter_text(
                "(local.set 0 (i32.const 1000)) (loop $l (br_if $l (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))"
            ),
            {"fuel": 9000},
        )
    )
    used = worker.instruments.filter_fuel.child(("f0",))
    for i in range(1, 5):
        assert worker.open().call(HEADERS) == 0
        assert 4000 * i < used.value < 9000 * i


def test_host_calls_are_charged_for_their_time_and_bytes(start_filters):
    def fuel_of(*rows):
        worker = start_filters((Script({HEADERS: rows}), {"limits": {"header_bytes": "64KiB"}}))
        worker.open(fields=((b"host", b"h"), (b"x", b"v" * 20_000))).call(HEADERS)
        return worker.instruments.filter_fuel.child(("f0",)).value

    nothing = fuel_of()
    assert fuel_of(("proxy_get_property", b"plugin_name", OUT, OUT)) - nothing > 20_000
    assert fuel_of(("proxy_get_property", b"request\0headers", OUT, OUT)) - nothing > 40_000
    assert 20_000 < fuel_of(("proxy_get_property", b"request\0headers\0x", OUT, OUT)) - nothing < 40_000, "without Python"
    assert fuel_of(("proxy_get_header_map_value", 0, b"x", OUT, OUT)) - nothing > 20_000


def test_a_deadline_is_of_cpu_time_and_its_own(start_filters, monkeypatch):
    """An epoch that another call brought about does not end a call that has burned nothing."""
    worker = start_filters((LOOP, {"fuel": 10**15, "deadline": "30ms"}), (Script({HEADERS: []}), {"deadline": "1ms"}))
    innocent = worker.open(1)
    opened = worker.open()
    started = time.thread_time()
    assert opened.call(HEADERS) == FAILED
    assert 0.02 < time.thread_time() - started < 0.5
    assert innocent.call(HEADERS) == 0
    assert worker.failures(1) == {}


def test_a_memory_that_grows_within_its_limit(start_filters):
    text = filter_text("(if (i32.eq (memory.grow (i32.const 15)) (i32.const -1)) (then unreachable))")
    worker = start_filters((text, {"memory": "1MiB"}))
    assert worker.open().call(HEADERS) == 0
    assert len(worker.guest_memory()) == 1 << 20


def test_tables_are_limited(start_filters):
    text = filter_text(
        "(if (i32.ne (table.grow (ref.null func) (i32.const 1000000)) (i32.const -1)) (then unreachable))",
        more="(table 1 funcref)",
    )
    assert start_filters(text).open().call(HEADERS) == 0


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_a_flood_of_log_lines_is_cut(start_filters, lines, size):
    """64 KiB of lines of log_line bytes for each callback, log_lines of them a second; the rest is counted."""
    body = f"""(local.set 3 (i32.const 500)) (loop $l
      (drop (call $log (i32.const 2) (i32.const 0) (i32.const {size})))
      (br_if $l (local.tee 3 (i32.sub (local.get 3) (i32.const 1)))))"""
    settings = {"memory": "4MiB", "limits": {"log_lines": 20, "log_line": "1KiB"}}
    text = filter_text(body, LOG, "(local i32)").replace('"memory") 1', '"memory") 2')
    worker = start_filters((text, settings))
    assert worker.open().call(HEADERS) & LOGS
    assert 20 <= len(lines.said()) <= 22
    assert max(len(message) for _, message in lines.said()) == min(size, 1024)
    dropped = worker.instruments.filter_log_lines_dropped.child(("f0",)).value
    assert dropped + len(lines.said()) == 500


def test_lines_before_a_fault_are_not_lost(start_filters, lines):
    text = filter_text(
        "(drop (call $log (i32.const 3) (i32.const 8) (i32.const 4))) unreachable", LOG, more='(data (i32.const 8) "last")'
    )
    start_filters(text).open().call(HEADERS)
    assert lines.said() == [("warning", "last")]


LYING = {
    "answers what it likes": "(global.set $n (i32.add (global.get $n) (i32.const 7919))) (global.get $n)",
    "the middle of its stack": "(i32.const 1)",
    "the same place": "(i32.const 64)",
    "logs": "(drop (call $log (i32.const 2) (i32.const 0) (i32.const 5))) (i32.const 1024)",
    "grows": "(drop (memory.grow (i32.const 1))) (i32.const 1024)",
}
ALLOCATING = """(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (global $n (mut i32) (i32.const 0))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) {allocate})
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $i i32)
    (loop $l
      (drop (call $pairs (i32.const 0) (i32.const 16) (i32.const 20)))
      (drop (call $get (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 20)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))
    (i32.const 0)))"""


@pytest.mark.parametrize("allocate", LYING)
def test_an_allocator_that_lies_hurts_its_filter_alone(start_filters, allocate):
    worker = start_filters(ALLOCATING.format(allocate=LYING[allocate]))
    opened = worker.open()
    before = worker.memory.pairs(0)
    assert opened.call(HEADERS) & (0xFF | FAILED) == 0
    assert worker.memory.pairs(0) == before


def test_an_allocator_that_makes_host_calls_stops_the_filter(start_filters, lines):
    """As in Envoy: proxy_log alone may be called there."""
    allocate = "(drop (call $add (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1))) (i32.const 1024)"
    worker = start_filters(ALLOCATING.format(allocate=allocate))
    before = worker.memory.pairs(0) if worker.memory.live else None
    opened = worker.open()
    before = worker.memory.pairs(0)
    assert opened.call(HEADERS) == FAILED
    assert worker.failures() == {"trap": 1}
    assert worker.memory.pairs(0) == before
    assert lines.said() == [("critical", "a host function other than proxy_log was called by the allocator")]


def test_an_allocator_that_never_returns(start_filters):
    worker = start_filters(ALLOCATING.format(allocate="(loop $l (br $l)) unreachable"))
    assert worker.open().call(HEADERS) == FAILED
    assert worker.failures() == {"fuel": 1}


def test_what_the_allocator_writes_does_not_change_what_is_being_answered(start_filters):
    """fd_write and random_get in the allocator use the core's scratch; the answer under way lies there too."""
    allocate = """(i32.store (i32.const 40) (i32.const 4096)) (i32.store (i32.const 44) (i32.const 3000))
      (memory.fill (i32.const 4096) (i32.const 90) (i32.const 3000))
      (drop (call $write (i32.const 1) (i32.const 40) (i32.const 1) (i32.const 48)))
      (drop (call $random (i32.const 8192) (i32.const 5000))) (i32.const 32768)"""
    worker = start_filters((ALLOCATING.format(allocate=allocate), {"fuel": 10**9, "deadline": "2s"}))
    opened = worker.open(fields=((b"host", b"h"), (b"x", b"v" * 2000)))
    assert opened.call(HEADERS) & 0xFF == 0
    at, size = struct.unpack_from("<2I", worker.guest_memory(), 16)
    block = encode_pairs(worker.memory.pairs(0))
    assert worker.guest_memory()[at : at + size] in (block, b"")
    assert worker.guest_memory()[32768 : 32768 + len(block)] == block


def test_scratch_does_not_pile_up(start_filters):
    """A host call's room is given back when it is over: the stream memory does not grow with the number of calls."""
    big = [("proxy_add_header_map_value", 0, 0, 60_000, 0, 60_000)]  # refused, after it was copied
    worker = start_filters((Script({HEADERS: big * 200}), {"fuel": 10**10}))
    opened = worker.open()
    before = worker.engine_bytes()
    found = opened.runs(HEADERS)
    assert {run.status for run in found} == {10}
    assert worker.engine_bytes() == before


# ---- The start ----


def starting(body, export="_initialize", signature=""):
    return f"""(module {PRELUDE} (table 1 funcref)
      (func (export "{export}") {signature} {body}))"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (starting("(loop $l (br $l))"), "^_initialize: fuel"),
        (starting("unreachable"), "^_initialize: trap"),
        (starting("unreachable", "_start"), "^_start: trap"),
        (starting("(i32.const 0)", "proxy_on_configure", "(param i32 i32) (result i32)"), "proxy_on_configure returned false"),
        (starting("(i32.const 0)", "proxy_on_vm_start", "(param i32 i32) (result i32)"), "proxy_on_vm_start returned false"),
        (starting("unreachable", "proxy_on_configure", "(param i32 i32) (result i32)"), "^proxy_on_configure: trap"),
        (starting("unreachable", "proxy_on_context_create", "(param i32 i32)"), "^proxy_on_context_create: trap"),
        (f"(module {PRELUDE} (start 2) (func unreachable))", "trap"),
        (f"(module {PRELUDE} (start 2) (func (loop $l (br $l))))", "fuel"),
        (f'(module {PRELUDE} (data (i32.const 65536) "x"))', "trap"),
        (f"(module {PRELUDE} (table 200000 funcref))", "table"),
    ],
)
def test_a_filter_that_does_not_start(load_filters, text, reason):
    worker = load_filters((text, {"limits": {"start_fuel": 100_000}}))
    with pytest.raises(StartError, match=reason):
        worker.start()
    assert worker.slots[0].vm is None


@pytest.mark.parametrize(
    "signature",
    [
        "(param i32)",
        "(param i64 i64) (result i32)",
        "(param i32 i32 i32) (result i32)",
        f"(param {'i64 ' * 60}) (result i32)",
        f"(param i32 i32) (result {'i64 ' * 60})",
        "(param i32 i32) (result i32 i32)",
        "(param f32 f32) (result i32)",
    ],
)
def test_a_main_of_another_type_is_not_called(load_filters, signature):
    """Calls are unchecked: 60 results would go over what is behind the values."""
    for name in ("main", "__main_void"):
        worker = load_filters(f"""(module {PRELUDE}
          (func (export "_initialize"))
          (func (export "{name}") {signature} unreachable))""")
        with pytest.raises(StartError, match=f"the function {name} has another type"):
            worker.start()


def test_shared_memories_are_refused(load_filters):
    with pytest.raises(LoadError, match="shared memory"):
        load_filters('(module (memory (export "memory") 1 1 shared) (func (export "proxy_abi_version_0_2_1")))')


def test_the_core_s_own_functions_cannot_be_imported(load_filters):
    for name in ("enter", "load_request", "layout", "room", "mend", "map_set_pairs", "memory", "wasi_fd_write"):
        with pytest.raises(LoadError, match="no proxy-wasm host offers"):
            load_filters(f'(module (import "env" "{name}" (func)) {PRELUDE})')


WAITS = f"""(module
  (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
  (import "env" "proxy_get_metric" (func $read (param i32 i32) (result i32)))
  {PRELUDE}
  (data (i32.const 64) "starts")
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (drop (call $define (i32.const 0) (i32.const 64) (i32.const 6) (i32.const 128)))
    (drop (call $read (i32.load (i32.const 128)) (i32.const 136)))
    (if (i32.load (i32.const 136)) (then (loop $l (br $l))))
    (drop (call $increment (i32.load (i32.const 128)) (i64.const 1)))
    (i32.const 1))
  (func (export "{HEADERS}") (param i32 i32 i32) (result i32) unreachable))"""


def test_a_vm_that_is_built_anew_gets_what_its_first_start_needed(load_filters):
    """It holds up a worker that serves: a filter that lies in wait does not get the fuel of a first start."""
    worker = load_filters(WAITS).start()
    place = worker.slots[0]
    assert 0 < place.start_fuel < 100_000
    assert place.fuel_for_start(500_000_000) == 5_000_000
    assert place.fuel_for_start(1_000_000) == 1_000_000
    worker.open().call(HEADERS)
    place.rebuild_at = 0.0
    place.revive()
    assert place.vm is None
    assert place.last_fault.startswith("start: start: proxy_on_configure: fuel")
    place.start_fuel = 20_000_000
    assert place.fuel_for_start(500_000_000) == 80_000_000
