"""Edge cases of the ABI digest that need shared data, parked roots, or several functions at once."""

from types import SimpleNamespace

import pytest

from proxy.abi.proxy_wasm.load import LoadError
from proxy.abi.proxy_wasm.signatures import HOST_FUNCTIONS, WASI_FUNCTIONS, WASI_VARIANTS
from proxy.abi.services import Services
from proxy.sharing.limits import Limits
from proxy.sharing.store import SharedStore
from proxy.upstream.callout import CalloutResult
from tests.abi.guest import MEMORY, OUT, Script
from tests.abi.proxy_wasm.test_foreign import field
from tests.abi.proxy_wasm.test_pointers import CALLS

HEADERS = "proxy_on_request_headers"
TICK = "proxy_on_tick"
VM = {"vm_id": "vm"}


@pytest.fixture
def share(load_filters, tmp_path):
    """`share(filter, ...)`: a started worker whose filters have the vm_id `vm` and share its data and queues."""
    made = []

    def start(*filters):
        folder = tmp_path / "shared"
        folder.mkdir(exist_ok=True)
        store = SharedStore(1, {b"vm": Limits()}, [folder])
        sharing = store.attach(0)
        worker = load_filters(*[(one, VM) for one in filters])
        for slot in worker.slots:
            slot.services = Services(worker.later, sharing.space)
        made.append((worker, sharing, store))
        return worker.start()

    yield start
    for worker, sharing, store in made:
        for slot in worker.slots:
            slot.close()
        sharing.close()
        store.close()


def get_shared(key=b"k"):
    return ("proxy_get_shared_data", key, OUT, OUT, OUT)


def set_shared(value, cas, key=b"k"):
    return ("proxy_set_shared_data", key, value, cas)


# ---- Imports ----


@pytest.mark.parametrize(("name", "signature"), [*WASI_VARIANTS.items(), *[(n, WASI_FUNCTIONS[n]) for n in WASI_VARIANTS]])
def test_imports_under_either_type(start_filters, name, signature):
    """Edge case 4: proxy-wasm-cpp-host's path_link and path_symlink lack length parameters; correct imports load as well."""
    arguments = " ".join(f"({one}.const 0)" for one in signature.params)
    worker = start_filters(f"""(module
      (import "wasi_snapshot_preview1" "{name}" (func $f (param {" ".join(signature.params)}) (result i32)))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "{HEADERS}") (param i32 i32 i32) (result i32) (call $f {arguments})))""")
    assert worker.open().call(HEADERS) & 0xFF == 58


@pytest.mark.parametrize(
    "function",
    ['"env" "proxy_log" (func (param i32 i32) (result i32))', '"env" "proxy_done" (func (result i64))',
     '"wasi_unstable" "fd_write" (func (param i32 i32 i64 i32) (result i32))'],
)  # fmt: skip
def test_imports_of_another_type(load_filters, function):
    """Edge case 4: what cannot be linked is refused when it is loaded, with the type that it should have."""
    with pytest.raises(LoadError, match="type"):
        load_filters(f"""(module (import {function}) (memory (export "memory") 1)
          (func (export "proxy_abi_version_0_2_1")) (func (export "malloc") (param i32) (result i32) (i32.const 8)))""")


# ---- Shared data and queues ----


def test_a_cas_for_what_is_not_there(share):
    """Edge case 19: a CAS value other than 0, and no such key: set."""
    script = Script({HEADERS: [set_shared(b"v", 12345), get_shared(), set_shared(b"w", 12345), get_shared(b"none")]})
    one, two, three, four = share(script).open().runs(HEADERS)
    assert (one.status, two.status, two.value) == (0, 0, b"v")
    assert (three.status, four.status) == (8, 1)
    assert two.u32(2) != 0


def test_what_is_set_to_nothing_stays(share):
    """Edge case 20: Rust's `remove` sets an empty value; the key is there, with a CAS value."""
    script = Script({HEADERS: [set_shared(b"v", 0), set_shared(b"", 0), get_shared()]})
    *_, last = share(script).open().runs(HEADERS)
    assert (last.status, last.u32(0), last.u32(1)) == (0, 0, 0)
    assert last.u32(2) > 1


@pytest.mark.parametrize("allocator", ["bump", "none"])
def test_an_item_that_cannot_be_handed_over_is_lost(share, allocator):
    """Edge case 41: dequeue with a bad output address, or without room for the item, answers 6, and the item is gone."""
    out = MEMORY if allocator == "bump" else OUT
    rows = [
        ("proxy_register_shared_queue", b"q", OUT),
        ("proxy_enqueue_shared_queue", 1, b"item"),
        ("proxy_dequeue_shared_queue", 1, out, OUT),
        ("proxy_dequeue_shared_queue", 1, OUT, OUT),
    ]
    found = share(Script({HEADERS: rows}, allocator=allocator)).open().runs(HEADERS)
    assert [one.status for one in found] == [0, 0, 6, 7]


# ---- Roots that are not done ----


def test_a_parked_root_is_called_until_it_is_done(share):
    """Edge case 42: ticks, queues and answers reach a root whose on_done said false, which lasts until it is deleted."""
    called = []

    def http(upstream, headers, body, trailers, seconds, done):
        called.append(done)
        return SimpleNamespace(cancel=lambda: None)

    head = b"\1\0\0\0\5\0\0\0\1\0\0\0:path\0/\0"
    call = ("proxy_http_call", b"service", head, b"", b"", 1000, OUT)
    script = Script(
        {
            "proxy_on_configure": [("proxy_set_tick_period_milliseconds", 1000), ("proxy_register_shared_queue", b"q", OUT)],
            TICK: [("proxy_set_effective_context", 1), call, ("proxy_enqueue_shared_queue", 1, b"x")],
            "proxy_on_queue_ready": [("proxy_dequeue_shared_queue", 1, OUT, OUT)],
            "proxy_on_http_call_response": [("proxy_get_header_map_value", 6, b":status", OUT, OUT), ("proxy_done",)],
            "proxy_on_done": [("proxy_get_property", b"plugin_name", OUT, OUT)],
            "proxy_on_delete": [("proxy_get_property", b"plugin_name", OUT, OUT)],
        },
        actions={"proxy_on_done": 0},
    )
    worker = share(script)
    (slot,) = worker.slots
    worker.plugins[0].http = http
    root = worker.plugins[0].root
    assert not slot.finish()
    assert root.parked
    worker.blank()
    worker.timers[0].fire()
    assert [one.status for one in worker.runs(TICK)] == [0, 0, 0]
    slot.queue_ready(root, 1)
    assert worker.runs("proxy_on_queue_ready")[0].value == b"x"
    called[0](CalloutResult(200, [(b":status", b"200")], b""))
    answer, done = worker.runs("proxy_on_http_call_response")
    assert (answer.value, done.status) == (b"200", 0)
    assert root.id == 1  # until the callback has returned, and what waits for that has run
    assert not slot.over
    worker.timers[-1].fire()
    assert [one.status for one in worker.runs("proxy_on_delete")] == [0]
    assert (root.id, slot.over) == (0, True)
    assert root.timer is None
    slot.queue_ready(root, 1)
    assert int(worker.plugins[0].calls[18].value) == 1


# ---- Statuses ----

RUST = {
    "proxy_get_buffer_bytes": {0, 1},
    "proxy_get_header_map_value": {0, 1},
    "proxy_get_property": {0, 1, 3, 10},
    "proxy_get_shared_data": {0, 1},
    "proxy_resolve_shared_queue": {0, 1},
    "proxy_enqueue_shared_queue": {0, 1},
    "proxy_grpc_cancel": {0, 1},
    "proxy_grpc_close": {0, 1},
    "proxy_set_shared_data": {0, 8},
    "proxy_dequeue_shared_queue": {0, 1, 7},
    "proxy_http_call": {0, 2, 10},
    "proxy_grpc_call": {0, 4, 10},
    "proxy_grpc_stream": {0, 4, 10},
    "proxy_grpc_send": {0, 1, 2},
    "proxy_get_metric": {0, 1, 2},
    "proxy_increment_metric": {0, 1, 2},
    "proxy_record_metric": {0, 1},
    "proxy_set_effective_context": {0, 2},
    "proxy_call_foreign_function": {0, 1, 2, 3, 10},
}
"""Statuses that the Rust SDK takes (digest, section 2); of others it is only known that they must be in its enum."""

ALSO = (
    ("proxy_grpc_cancel", 5), ("proxy_grpc_close", 5), ("proxy_increment_metric", 4, 1), ("proxy_record_metric", 4, 1),
    ("proxy_increment_metric", 9, 1), ("proxy_set_effective_context", 99), ("proxy_continue_stream", 0), ("proxy_done",),
    ("proxy_dequeue_shared_queue", 9, OUT, OUT), ("proxy_get_property", b"none", OUT, OUT),
    ("proxy_get_property", b"", OUT, OUT),
    ("proxy_call_foreign_function", b"uncompress", b"no", OUT, OUT), ("proxy_set_tick_period_milliseconds", 0),
)  # fmt: skip


def test_statuses_that_no_sdk_knows(share):
    """Edge case 43: 5, 9, 11 and 12 are not in Rust's enum: with sound pointers they are never given, nor is 6.

    12 (Unimplemented) is for an upstream TCP stream (edge case 28) and for gRPC without its extra."""
    rows = [*CALLS, *ALSO]
    worker = share(Script({"proxy_on_request_body": rows}))
    found = worker.open().runs("proxy_on_request_body", b"body", True)
    assert {row[0] for row in rows} >= RUST.keys()
    for row, one in zip(rows, found, strict=True):
        assert one.status in RUST.get(row[0], {0, 1, 2, 3, 4, 7, 8, 10}), row


def test_the_call_list_knows_every_function():
    """Edge case 43: no function is left out above but those that need a stream of their own."""
    assert HOST_FUNCTIONS.keys() - {row[0] for row in (*CALLS, *ALSO)} <= {
        "proxy_close_stream", "proxy_continue_request", "proxy_continue_response", "proxy_clear_route_cache",
    }  # fmt: skip


# ---- Foreign functions and the effective context ----


def test_whose_state_a_foreign_function_sets(start_filters):
    """Edge case 44: in Envoy 1.40 set_envoy_filter_state acts on the effective context (before: on the calling one)."""
    value = field(1, b"envoy.string") + field(2, b"v")
    state = ("proxy_call_foreign_function", b"set_envoy_filter_state", value, 0, 0)
    script = Script({HEADERS: [], TICK: [state, ("proxy_set_effective_context", 2), state]}, actions={HEADERS: 1})
    worker = start_filters(script)
    opened = worker.open()
    opened.call(HEADERS)
    worker.slots[0].tick(worker.plugins[0].root)
    assert [one.status for one in worker.runs(TICK)] == [1, 0, 0]
    assert list(opened.stream.properties.values()) == [b"v"]
