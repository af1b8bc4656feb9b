"""What a filter asks of its stream, and of contexts other than its own."""

import pytest

from proxy.abi.filter import CLOSE_REQUEST, CLOSE_RESPONSE, CONTINUE_REQUEST, CONTINUE_RESPONSE
from tests.abi.guest import OUT, Script

HEADERS = "proxy_on_request_headers"


@pytest.mark.parametrize(
    ("row", "status", "asked"),
    [
        (("proxy_continue_stream", 0), 0, CONTINUE_REQUEST),
        (("proxy_continue_stream", 1), 0, CONTINUE_RESPONSE),
        (("proxy_continue_stream", 2), 0, 0),  # a TCP stream's
        (("proxy_continue_stream", 3), 12, 0),  # edge case 28
        (("proxy_continue_stream", 4), 2, 0),
        (("proxy_continue_stream", -1), 2, 0),
        (("proxy_continue_request",), 0, CONTINUE_REQUEST),
        (("proxy_continue_response",), 0, CONTINUE_RESPONSE),
        (("proxy_close_stream", 0), 0, CLOSE_REQUEST),
        (("proxy_close_stream", 1), 0, CLOSE_RESPONSE),
        (("proxy_close_stream", 2), 0, 0),
        (("proxy_close_stream", 3), 0, 0),
        (("proxy_close_stream", 4), 2, 0),
        (("proxy_clear_route_cache",), 0, 0),
        (("proxy_set_effective_context", 0), 0, None),
        (("proxy_set_effective_context", 1), 0, None),
        (("proxy_set_effective_context", 99), 2, 0),
        (("proxy_done",), 1, 0),  # edge case 14: only a parked root is done
        (("proxy_set_tick_period_milliseconds", 0), 0, 0),
    ],
)
@pytest.mark.parametrize("callback", [HEADERS, "proxy_on_response_body"])
def test_control(start_filters, row, status, asked, callback):
    worker = start_filters(Script({callback: [row]}))
    opened = worker.open()
    assert opened.runs(callback)[0].status == status
    every = CLOSE_REQUEST | CLOSE_RESPONSE | CONTINUE_REQUEST | CONTINUE_RESPONSE
    assert asked is None or opened.result & every == asked


def test_what_was_asked_in_one_callback_is_not_asked_in_the_next(start_filters):
    worker = start_filters(Script({HEADERS: [("proxy_continue_stream", 0)], "proxy_on_request_body": []}))
    opened = worker.open()
    assert opened.call(HEADERS) & CONTINUE_REQUEST
    assert not opened.call("proxy_on_request_body") & CONTINUE_REQUEST


@pytest.mark.parametrize(("answer", "action"), [(0, 0), (1, 1), (2, 2), (4, 4), (255, 255), (256, 255), (-1, 255)])
def test_an_action_is_never_taken_for_a_flag(start_filters, answer, action):
    opened = start_filters(Script({HEADERS: []}, actions={HEADERS: answer})).open()
    assert opened.call(HEADERS) == action


def test_ticks(start_filters, lines):
    """One timer, set anew after each tick; on the root, from whatever context (digest, section 2)."""
    worker = start_filters(
        (
            Script({HEADERS: [("proxy_set_tick_period_milliseconds", 500)], "proxy_on_tick": [("proxy_log", 2, b"tick")]}),
            {"limits": {"tick": "10ms"}},
        )
    )
    worker.open().call(HEADERS)
    (timer,) = worker.timers
    assert timer.seconds == 0.5
    timer.fire()
    worker.timers[1].fire()
    assert lines.said() == [("info", "tick")] * 2
    assert [timer.seconds for timer in worker.timers] == [0.5] * 3
    worker.slots[0].close()
    assert worker.timers[2].cancelled


@pytest.mark.parametrize(("milliseconds", "seconds"), [(1, 0.01), (9, 0.01), (10, 0.01), (0xFFFF_FFFF, 4294967.295)])
def test_the_tick_period_has_a_least(start_filters, milliseconds, seconds):
    worker = start_filters(Script({HEADERS: [("proxy_set_tick_period_milliseconds", milliseconds)], "proxy_on_tick": []}))
    worker.open().call(HEADERS)
    assert worker.timers[0].seconds == seconds


def test_a_tick_that_fails_ends_its_vm_and_its_timer(start_filters):
    worker = start_filters("""(module
      (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.eqz (call $tick (i32.const 100))))
      (func (export "proxy_on_tick") (param i32) (loop $l (br $l))))""")
    worker.timers[0].fire()
    assert worker.failures() == {"fuel": 1}
    assert worker.slots[0].vm is None
    worker.timers[1].fire()  # it works without streams, so it does not wait for one to be built anew
    assert worker.slots[0].vm is not None


def get(name, map_=0):
    return ("proxy_get_header_map_value", map_, name, OUT, OUT)


def test_a_tick_acts_on_a_paused_stream_and_on_no_other(start_filters):
    script = Script(
        {
            HEADERS: [],
            "proxy_on_tick": [
                get(b"x-a"), ("proxy_set_effective_context", 2), get(b"x-a"), ("proxy_add_header_map_value", 0, b"x-t", b"1"),
                ("proxy_set_effective_context", 3), get(b"x-a"), ("proxy_set_effective_context", 2),
                ("proxy_continue_stream", 0), get(b"x-a"), ("proxy_set_effective_context", 0), get(b"x-a"),
            ],
        },
        actions={HEADERS: 1},
    )  # fmt: skip
    worker = start_filters(script)
    one = worker.open(fields=((b"host", b"h"), (b"x-a", b"one")))
    one.call(HEADERS)
    two = worker.open(fields=((b"host", b"h"), (b"x-a", b"two")))
    two.call(HEADERS)
    worker.slots[0].tick(worker.plugins[0].root)
    found = worker.runs("proxy_on_tick")
    assert [run.status for run in found] == [2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2]
    assert (found[2].value, found[5].value) == (b"one", b"two")
    assert (one.stream.resumed, two.stream.resumed) == ([0], [])
    worker.memory.attach(one.stream.region)
    assert worker.memory.get(0, b"x-t") == b"1"
    worker.memory.attach(two.stream.region)
    assert worker.memory.get(0, b"x-t") is None


def test_a_fault_while_acting_on_another_stream(start_filters):
    """Neither stream is touched by what the other was: the chain goes on in its own."""
    text = """(module
      (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      ;; the first pauses, the second acts on the first and fails
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (if (i32.eq (local.get 0) (i32.const 2)) (then (return (i32.const 1))))
        (if (call $effective (i32.const 2)) (then (return (i32.const 9))))
        unreachable))"""
    worker = start_filters((text, {"on_failure": "open"}))
    one = worker.open(fields=((b"host", b"one"),))
    one.call(HEADERS)
    two = worker.open(fields=((b"host", b"two"),))
    assert two.call(HEADERS) == 0
    assert worker.memory.live is two.stream.region
    assert worker.memory.get(0, b":authority") == b"two"
    assert worker.slots[0].caller is None


def test_bodies_that_a_context_holds_last_until_the_callback_is_over(start_filters):
    rows = [
        ("proxy_set_effective_context", 2),
        ("proxy_set_property", b"p" * 200, b"v" * 2000),  # needs room in the core
        ("proxy_get_buffer_bytes", 0, 0, 100, OUT, OUT),
        ("proxy_set_buffer_bytes", 0, 0, 4, b"HELD"),
    ]
    worker = start_filters(Script({HEADERS: [], "proxy_on_tick": rows}, actions={HEADERS: 1}))
    opened = worker.open()
    opened.call(HEADERS)
    opened.stream.bodies[0] = b"held body"
    worker.slots[0].tick(worker.plugins[0].root)
    assert [run.status for run in worker.runs("proxy_on_tick")] == [0, 0, 0, 0]
    assert worker.runs("proxy_on_tick")[2].value == b"held body"
    assert opened.stream.bodies[0] == b"HELD body"
