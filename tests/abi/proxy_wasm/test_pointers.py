"""Every pointer of every host function, when it is wrong: status 6 (InvalidMemoryAccess), and the VM lives on."""

import pytest

from proxy.abi.proxy_wasm.signatures import HOST_FUNCTIONS
from tests.abi.guest import MEMORY, OUT, PAGE, Out, Script

CALLBACK = "proxy_on_request_body"
CALLS = (
    ("proxy_log", 2, b"text"),
    ("proxy_get_log_level", OUT),
    ("proxy_get_current_time_nanoseconds", OUT),
    ("proxy_get_configuration", OUT, OUT),
    ("proxy_get_buffer_bytes", 0, 0, 100, OUT, OUT),
    ("proxy_get_buffer_status", 0, OUT, OUT),
    ("proxy_set_buffer_bytes", 0, 0, 0, b"text"),
    ("proxy_get_header_map_size", 1, OUT),
    ("proxy_get_header_map_pairs", 1, OUT, OUT),
    ("proxy_set_header_map_pairs", 1, b"\0\0\0\0"),
    ("proxy_add_header_map_value", 1, b"a", b"b"),
    ("proxy_get_header_map_value", 1, b"a", OUT, OUT),
    ("proxy_replace_header_map_value", 1, b"a", b"b"),
    ("proxy_remove_header_map_value", 1, b"a"),
    ("proxy_send_local_response", 403, b"details", b"body", b"\0\0\0\0", -1),
    ("proxy_http_call", b"cluster", b"\0\0\0\0", b"body", b"\0\0\0\0", 100, OUT),
    ("proxy_grpc_call", b"cluster", b"service", b"method", b"\0\0\0\0", b"message", 100, OUT),
    ("proxy_grpc_stream", b"cluster", b"service", b"method", b"\0\0\0\0", OUT),
    ("proxy_grpc_send", 1, b"message", 0),
    ("proxy_get_status", OUT, OUT, OUT),
    ("proxy_get_shared_data", b"key", OUT, OUT, OUT),
    ("proxy_set_shared_data", b"key", b"value", 0),
    ("proxy_register_shared_queue", b"name", OUT),
    ("proxy_resolve_shared_queue", b"vm", b"name", OUT),
    ("proxy_enqueue_shared_queue", 1, b"value"),
    ("proxy_dequeue_shared_queue", 1, OUT, OUT),
    ("proxy_define_metric", 0, b"name", OUT),
    ("proxy_get_metric", 4, OUT),
    ("proxy_get_property", b"plugin_name", OUT, OUT),
    ("proxy_set_property", b"path", b"value"),
    ("proxy_call_foreign_function", b"name", b"arguments", OUT, OUT),
)
FAILS_FIRST = {  # with these arguments, and writes its answer to nowhere or not at all
    "proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream", "proxy_call_foreign_function", "proxy_get_shared_data",
    "proxy_register_shared_queue", "proxy_resolve_shared_queue", "proxy_dequeue_shared_queue",
}  # fmt: skip
BAD_RANGES = {
    "negative": (-1, 1),
    "one past the end": (MEMORY, 1),
    "over the end": (MEMORY - 1, 2),
    "huge length": (16, 0xFFFF_FFFF),
    "wrapping": (0xFFFF_FFF0, 0x20),
    "far": (0x8000_0000, 1),
    "empty, but outside": (MEMORY + 1, 0),
}
BAD_ADDRESSES = {
    "negative": -1,
    "one past the end": MEMORY,
    "over the end": MEMORY - 3,
    "wrapping": 0xFFFF_FFFC,
    "far": 0x8000_0000,
}


def with_bad_pointers(row):
    """The call with one pointer wrong at a time. A range in two words stands where bytes stood."""
    for i, argument in enumerate(row):
        if isinstance(argument, bytes):
            for bad in BAD_RANGES.values():
                yield (*row[:i], *bad, *row[i + 1 :])
        elif isinstance(argument, Out) and row[0] not in FAILS_FIRST:
            for address in BAD_ADDRESSES.values():
                yield (*row[:i], address, *row[i + 1 :])


def test_every_function_with_pointers_is_here():
    without = {name for name, signature in HOST_FUNCTIONS.items() if len(signature.params) < 2 or "i64" in signature.params}
    assert {row[0] for row in CALLS} >= set(HOST_FUNCTIONS) - without - {"proxy_clear_route_cache"}


@pytest.mark.parametrize("row", CALLS, ids=[row[0] for row in CALLS])
def test_bad_pointers(start_filters, row):
    calls = list(with_bad_pointers(row))
    before = [("proxy_define_metric", 0, b"first", OUT), ("proxy_add_header_map_value", 1, b"a", b"b")]
    worker = start_filters(Script({CALLBACK: [*before, *calls]}))
    opened = worker.open()
    statuses = [one.status for one in opened.runs(CALLBACK, b"body", True)]
    assert statuses == [0, 0] + [6] * len(calls)
    assert not opened.context.down
    assert worker.failures() == {}
    # A pointer that was wrong has changed nothing.
    assert worker.memory.pairs(1) == [(b"a", b"b")]
    assert opened.stream.properties == {}
    assert not opened.result & 1 << 9


def test_an_empty_range_at_the_very_end_is_a_range(run):
    (one,) = run("proxy_on_request_headers", ("proxy_log", 2, MEMORY, 0))
    assert one.status == 0


def test_a_range_that_ends_with_the_memory_is_a_range(run, lines):
    (one,) = run("proxy_on_request_headers", ("proxy_log", 2, MEMORY - 4, 4))
    assert one.status == 0
    assert lines.said() == [("info", "\0\0\0\0")]


def test_memory_that_a_filter_has_grown_is_its_memory(start_filters, lines):
    worker = start_filters(f"""(module
      (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 8))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        ;; 6 before the memory has grown, 0 behind it
        (if (i32.ne (call $log (i32.const 2) (i32.const {PAGE}) (i32.const 3)) (i32.const 6)) (then unreachable))
        (drop (memory.grow (i32.const 1)))
        (call $log (i32.const 2) (i32.const {PAGE}) (i32.const 3))))""")
    assert worker.open().call("proxy_on_request_headers") & 0xFF == 0
    assert lines.said() == [("info", "\0\0\0")]


@pytest.mark.parametrize("allocator", ["none", "far", "last byte"])
def test_an_allocator_that_gives_no_room(run, allocator):
    """Edge case 5: the answer is 6, not a trap, and nothing was written."""
    first, second = run(
        "proxy_on_request_headers",
        ("proxy_get_header_map_value", 0, b":authority", OUT, OUT),
        ("proxy_get_header_map_pairs", 0, OUT, OUT),
        allocator=allocator,
    )
    assert (first.status, first.value, second.status, second.value) == (6, None, 6, None)


def test_the_allocator_is_never_asked_for_nothing(run):
    """Edge case 1: Go's allocator panics when asked for 0 bytes. What is empty has address 0 (edge cases 6 and 7)."""
    calls = run(
        "proxy_on_request_headers",
        ("proxy_get_header_map_value", 0, b"x-empty", OUT, OUT),
        ("proxy_get_header_map_pairs", 1, OUT, OUT),
        ("proxy_get_buffer_bytes", 0, 0, 10, OUT, OUT),
        ("proxy_get_property", b"plugin_vm_id", OUT, OUT),
        ("proxy_get_configuration", OUT, OUT),
        allocator="zero is deadly",
    )
    assert [(one.status, one.u32(0), one.u32(1)) for one in calls] == [(0, 0, 0)] * 5


def test_two_answers_have_two_addresses(run):
    """Edge case 2: Rust frees each of them."""
    one, two = run("proxy_on_request_headers", *[("proxy_get_header_map_value", 0, b"x-a", OUT, OUT)] * 2)
    assert one.u32(0) != two.u32(0)
    assert one.value == two.value == b"1"


def test_an_allocator_that_grows_the_memory(start_filters):
    """Edge case 3: the answer goes to where the memory is after it."""
    worker = start_filters("""(module
      (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 100) "x-a")
      (func (export "proxy_abi_version_0_2_1"))
      ;; each allocation is the last byte but three of a page that did not exist before
      (func (export "malloc") (param i32) (result i32)
        (i32.sub (i32.mul (i32.add (memory.grow (i32.const 1)) (i32.const 1)) (i32.const 65536)) (i32.const 4)))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $get (i32.const 0) (i32.const 100) (i32.const 3) (i32.const 8) (i32.const 12)))
        (i32.load8_u (i32.load (i32.const 8)))))""")
    assert worker.open().call("proxy_on_request_headers") & 0xFF == ord("1")


@pytest.mark.parametrize(("size", "status"), [(4 << 20, 10), ((4 << 20) + 1, 6), (8 << 20, 6)])
def test_the_longest_argument(start_filters, size, status):
    """No argument may be longer than 4 MiB, or than a body may be: the stream memory does not shrink again."""
    worker = start_filters(
        (
            f"""(module
      (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 128)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 8))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $set (i32.const 0) (i32.const 1) (i32.const 0) (i32.const {size}))))""",
            {"fuel": 10**8},
        )
    )
    assert worker.open().call("proxy_on_request_headers") & 0xFF == status
