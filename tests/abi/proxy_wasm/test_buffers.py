"""Body and configuration buffers, as Envoy 1.40 answers."""

import pytest

from proxy.abi.filter import BODY
from tests.abi.guest import OUT, Script

REQUEST_BODY = "proxy_on_request_body"
HUGE = 0xFFFF_FFFF


def get(buffer=0, start=0, size=HUGE):
    return ("proxy_get_buffer_bytes", buffer, start, size, OUT, OUT)


def put(start, size, value, buffer=0):
    return ("proxy_set_buffer_bytes", buffer, start, size, value)


def state(buffer=0):
    return ("proxy_get_buffer_status", buffer, OUT, OUT)


@pytest.mark.parametrize("callback", [REQUEST_BODY, "proxy_on_response_body"])
@pytest.mark.parametrize(
    ("start", "size", "value"),
    [
        (0, 100, b"body"),
        (0, HUGE, b"body"),
        (1, 2, b"od"),
        (3, 100, b"y"),
        (0, 0, b""),
        (4, 1, b""),
        (5, 1, b""),
        (HUGE, HUGE, b""),  # edge case 23
        (1, HUGE, b"ody"),
    ],
)
def test_get(run, callback, start, size, value):
    (one,) = run(callback, get(int("response" in callback), start, size), data=b"body")
    assert (one.status, one.value) == (0, value)


@pytest.mark.parametrize(
    ("start", "size", "value", "status", "left"),
    [
        (0, 0, b"pre", 0, b"preone"),
        (0, 2, b"N", 0, b"Ne"),
        (0, 3, b"N", 0, b"N"),
        (0, 100, b"new", 0, b"new"),
        (0, HUGE, b"R", 0, b"R"),
        (0, HUGE, b"", 0, b""),
        (3, 0, b"app", 0, b"oneapp"),
        (100, 0, b"app", 0, b"oneapp"),
        (100, 5, b"app", 0, b"oneapp"),
        (HUGE, HUGE, b"T", 0, b"oneT"),
        (1, 0, b"x", 2, b"one"),
        (1, HUGE, b"x", 2, b"one"),
        (2, 1, b"x", 2, b"one"),
    ],
)
def test_set(run, start, size, value, status, left):
    one, two = run(REQUEST_BODY, put(start, size, value), get(), data=b"one")
    assert (one.status, two.value) == (status, left)


def test_what_is_set_leaves(start_filters):
    opened = start_filters(Script({REQUEST_BODY: [put(0, 0, b"<"), put(HUGE, 0, b">"), put(0, 2, b"[")]})).open()
    assert opened.call(REQUEST_BODY, b"body") & BODY
    assert opened.context.body == b"[ody>"


def test_what_is_not_set_is_not_taken(start_filters):
    opened = start_filters(Script({REQUEST_BODY: [get(), put(1, 0, b"no")]})).open()
    assert not opened.call(REQUEST_BODY, b"body") & BODY


def test_status(run):
    one, two, three = run(REQUEST_BODY, state(), put(0, 0, b"12"), state(), data=b"body")
    assert (one.status, one.u32(0), one.u32(1)) == (0, 4, 0)
    assert (three.status, three.u32(0), three.u32(1)) == (0, 6, 0)
    assert two.status == 0


@pytest.mark.parametrize(
    "callback",
    [
        "proxy_on_context_create",
        "proxy_on_request_headers",
        "proxy_on_request_body",
        "proxy_on_response_headers",
        "proxy_on_response_body",
        "proxy_on_log",
        "proxy_on_done",
        "proxy_on_delete",
    ],
)
def test_what_each_buffer_answers_in_each_callback(start_filters, callback):
    """Edge case 11 among them: outside of its callback a body reads as empty and cannot be set."""
    rows = [row for n in (*range(10), HUGE) for row in (get(n), state(n), put(0, 0, b"x", n))]
    worker = start_filters(Script({callback: rows, **({"proxy_on_request_headers": []} if "headers" not in callback else {})}))
    opened = worker.open()
    if callback == "proxy_on_context_create":
        opened.call("proxy_on_request_headers")
        found = worker.runs(callback)
    else:
        found = opened.runs(callback, b"body")
    own = {"proxy_on_request_body": 0, "proxy_on_response_body": 1}.get(callback)
    for n in range(11):
        bytes_, status, set_ = found[3 * n : 3 * n + 3]
        if n == own:
            assert (bytes_.status, bytes_.value, status.u32(0), set_.status) == (0, b"body", 4, 0)
        elif n in (4, 7):
            assert (bytes_.status, status.status, set_.status) == (1, 1, 1), n
        elif n < 9:
            assert (bytes_.status, bytes_.value, status.status, status.u32(0), set_.status) == (0, b"", 0, 0, 2), n
        else:
            assert (bytes_.status, status.status, set_.status) == (2, 2, 2), n


@pytest.mark.parametrize("callback", [REQUEST_BODY, "proxy_on_response_body"])
def test_a_body_may_not_grow_without_end(run, callback):
    """Four times body_buffer, by one callback; then 10 (InternalFailure), and the body is as before."""
    buffer = int("response" in callback)
    rows = [put(HUGE, 0, b"x" * 1000, buffer) for _ in range(6)]
    *sets, last = run(callback, *rows, state(buffer), data=b"y" * 1000, settings={"limits": {"body_buffer": "1KiB"}})
    assert [one.status for one in sets] == [0, 0, 0, 10, 10, 10]
    assert last.u32() == 4000


FLOOD = """(module
  (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  ;; appends 32 KiB until it is told no
  (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
    (loop $again (br_if $again (i32.eqz
      (call $set (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 0) (i32.const 32768)))))
    (i32.const 1)))"""


def test_growing_step_by_step_costs_little_more_memory_than_the_body(start_filters):
    worker = start_filters((FLOOD, {"fuel": 10**9}))
    opened = worker.open()
    before = worker.engine_bytes()
    assert opened.call(REQUEST_BODY, b"body") & 0xFF == 1
    assert 4 << 20 >= len(opened.context.body) > (4 << 20) - 32768
    assert worker.engine_bytes() - before <= 16 << 20


def test_an_empty_body_is_a_body(run):
    one, two = run(REQUEST_BODY, get(), put(0, 0, b"tail"), end=True)
    assert (one.status, one.value, two.status) == (0, b"", 0)


def test_a_large_body_reaches_the_filter_whole(start_filters):
    """Larger than what the stream memory had at first: it grows, and the next body is read where it then is."""
    worker = start_filters((Script({REQUEST_BODY: [state(), get(0, (40 << 20) - 4)]}), {"limits": {"body_buffer": "64MiB"}}))
    opened = worker.open()
    data = bytes(40 << 20)[:-4] + b"last"
    one, two = opened.runs(REQUEST_BODY, data)
    assert (one.u32(), two.value) == (40 << 20, b"last")
    one, two = opened.runs(REQUEST_BODY, b"small")
    assert (one.u32(), two.value) == (5, b"")


def test_the_size_and_the_end_reach_the_callback(start_filters):
    worker = start_filters("""(module
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (i32.add (i32.mul (local.get 1) (i32.const 2)) (local.get 2)))
      (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
        (i32.add (i32.mul (local.get 1) (i32.const 2)) (local.get 2))))""")
    for callback in (REQUEST_BODY, "proxy_on_response_body"):
        opened = worker.open()
        assert opened.call(callback, b"12345") & 0xFF == 10
        assert opened.call(callback, b"", True) & 0xFF == 1
