"""Filters that hand host functions what they should not."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from proxy.abi.proxy_wasm.signatures import HOST_FUNCTIONS, WASI_FUNCTIONS
from tests.hostile.case import GET, RESET, Case
from tests.hostile.wat import call, callback, data, guest

CONTROL = frozenset({
    "proxy_close_stream", "proxy_continue_stream", "proxy_send_local_response", "proxy_continue_request", "proxy_continue_response",
})  # fmt: skip
"""Functions whose smallest arguments are good ones, and end the stream."""
SYSTEM = tuple(f"wasi_{name}" for name in WASI_FUNCTIONS if name != "proc_exit")
FUNCTIONS = (*(name for name in HOST_FUNCTIONS if name not in CONTROL), *SYSTEM)
RICH = {"fuel": 100_000_000, "deadline": "1s"}
"""Enough for hundreds of calls that Python answers."""
ERRORS = "penstock_host_call_errors_total"
LARGEST = 4 << 20
"""No argument may be longer; one of just this length is read by the host."""


def params(name: str) -> tuple[str, ...]:
    table = WASI_FUNCTIONS if name.startswith("wasi_") else HOST_FUNCTIONS
    return table[name.removeprefix("wasi_")].params


def all_alike(value: int, functions: Sequence[str] = FUNCTIONS) -> str:
    """Each function, with every argument of this value."""
    return "".join(call(name, *[value] * len(params(name))) for name in functions)


def one_at_a_time(value: int, functions: Sequence[str] = FUNCTIONS, usual: int = 8) -> str:
    """Each function, with one argument after the other of this value, the rest small."""
    calls = []
    for name in functions:
        width = len(params(name))
        calls += [call(name, *(value if i == at else usual for i in range(width))) for at in range(width)]
    return "".join(calls)


def ranges(at: int, size: int, functions: Sequence[str] = tuple(HOST_FUNCTIONS)) -> str:
    """Each host function, with (address, size) in every two arguments."""
    calls = []
    for name in functions:
        width = len(params(name))
        for first in (0, 1):
            calls.append(call(name, *(((at, size)[(i - first) % 2] if i >= first else 1) for i in range(width))))
    return "".join(calls)


def serves(name: str, tries: str, body: str, *more: str, **fields: object) -> Case:
    """A filter after whose calls the stream goes on."""
    options = {"answers": frozenset({200}), "settings": RICH, "asks": (GET, GET), **fields}
    memory = options.pop("memory", "1")
    return Case(name, "arguments", tries, guest(body, *more, memory=str(memory)), **options)  # type: ignore[arg-type]


VALUES = {
    "negative": (-1, "-1"),
    "smallest": (-(2**31), "-2,147,483,648"),
    "largest": (2**31 - 1, "2,147,483,647"),
    "wrapping": (0xFFFF_FFF0, "an address that wraps around with any size"),
    "end": (65535, "the memory's last byte"),
    "outside": (65536, "the first byte behind the memory"),
    "unaligned": (3, "3: unaligned addresses, overlapping answers"),
    "zero": (0, "0"),
}

LONGEST = "(memory.fill (i32.const 0) (i32.const {byte}) (i32.const 4194304))"
UPSTREAMS = ("proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream")
GRANTED = {**RICH, "capabilities": {"allowed_hosts": ["*.example.com", "cluster:service"]}}


def long_calls() -> str:
    """Each host function with pointers, each of whose ranges is the longest that the core lets through."""
    return ranges(0, LARGEST, [name for name in HOST_FUNCTIONS if len(params(name)) > 1])


def lies() -> dict[str, bytes]:
    """Pair blocks that are not what they say."""
    word = struct.Struct("<I").pack
    return {
        "count": word(0xFFFF_FFFF) + b"a\0b\0",
        "count-1025": word(1025) + bytes(8 * 1025 + 2 * 1025),
        "count-short": word(1024) + bytes(8),
        "lengths": word(1) + word(0xFFFF_FFFF) + word(1) + b"a\0b\0",
        "lengths-wrap": word(2) + word(0xFFFF_FFF0) + word(0x10) + word(0xFFFF_FFFF) + word(1) + b"a\0b\0c\0d\0",
        "unterminated": word(1) + word(1) + word(1) + b"aXbX",
        "left-over": word(1) + word(1) + word(1) + b"a\0b\0more",
        "three-bytes": b"\x01\0\0",
    }


LIES = b"".join(block.ljust(12_000, b"\0") for block in lies().values())


def with_lies(function: str, *before: int, behind: Sequence[int] = ()) -> str:
    """`function`, with each of the lying blocks for its pair block."""
    return "".join(
        call(function, *before, 1024 * 64 + 12_000 * i, len(block), *behind) for i, block in enumerate(lies().values())
    )


def lying(name: str, tries: str, body: str, **fields: object) -> Case:
    return serves(name, tries, body, data(1024 * 64, LIES), memory="4", **fields)


IDS = (-1, 0x7FFF_FFFF, 0x8000_0000, 99, 3, 1 << 29)
EVERY = "".join(
    call(name, *([1] * len(params(name))))
    for name in HOST_FUNCTIONS
    if name not in CONTROL and name != "proxy_set_effective_context"
)
PHASES = (
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_log",
    "proxy_on_done",
    "proxy_on_delete",
)

ARGUMENTS = [
    *(
        serves(f"all-{name}", f"every host function, all arguments {said}", all_alike(value), counted=(ERRORS,))
        for name, (value, said) in VALUES.items() if name != "zero"
    ),
    serves("all-zero", "every host function, all arguments 0", all_alike(0), answers=frozenset({404}), holds="404: the headers are set to none"),
    *(
        serves(f"each-{name}", f"every host function, one argument after the other {VALUES[name][1]}", one_at_a_time(VALUES[name][0]),
               settings={"fuel": 1_000_000_000, "deadline": "2s"}, counted=(ERRORS,))
        for name in ("negative", "largest", "wrapping", "outside")
    ),
    serves("range-over-end", "every host function, ranges that reach one byte over the end", ranges(65530, 7), counted=(ERRORS,), asks=(GET,),
           answers=frozenset({200, 500, RESET}), holds="200 or what the filter answered"),
    serves("range-wrapping", "every host function, ranges that wrap around 4 GiB", ranges(0xFFFF_FF00, 0x200), counted=(ERRORS,)),
    serves("range-4g", "every host function, ranges of 4 GiB less 1", ranges(1, 0xFFFF_FFFF), counted=(ERRORS,)),
    *(
        Case(f"longest-{name}", "arguments", f"every host function, every range 4 MiB of {said}: what the host reads in Python is paid for first",
             guest(LONGEST.format(byte=byte) + f"(loop $l {long_calls()} (br $l))", memory="100"), {**GRANTED, "fuel": 10**15, "deadline": "25ms"},
             asks=(GET,), reasons=frozenset({"deadline"}), growth=128)
        for name, byte, said in (("nul", 0, "NUL"), ("letters", 0x61, "letters"), ("dots", 0x2E, "dots"), ("tags", 0x0A, "protobuf tags"))
    ),
    lying("pairs-set", "proxy_set_header_map_pairs of blocks that lie about count and lengths", with_lies("proxy_set_header_map_pairs", 2),
          answers=frozenset({200, 500, 503}), holds="no map is read past its end"),
    Case("pairs-set-request", "arguments", "the same for the request's headers: they are gone",
         guest(with_lies("proxy_set_header_map_pairs", 0), data(1024 * 64, LIES), memory="4"), RICH,
         answers=frozenset({404}), holds="404: without a path there is no route"),
    lying("pairs-reply", "a local reply whose headers lie", call("proxy_send_local_response", 403, 0, 0, 0, 0, 1024 * 64, 12, -1)
          + with_lies("proxy_send_local_response", 403, 0, 0, 0, 0, behind=(-1,)), answers=frozenset({403}), holds="403 without these headers"),
    lying("pairs-call", "http and gRPC calls whose headers lie", with_lies("proxy_http_call", 64, 7, behind=(0, 0, 0, 0, 1000, 1024))
          + with_lies("proxy_grpc_call", 64, 7, 64, 7, 64, 7, behind=(0, 0, 1000, 1024)), settings=GRANTED, counted=(ERRORS,)),
    serves("contexts", "proxy_set_effective_context of ids that are nobody's", "".join(call("proxy_set_effective_context", one) for one in IDS),
           counted=(ERRORS,)),
    serves("contexts-edit", "... and edits after each of them", "".join(
        call("proxy_set_effective_context", one) + call("proxy_add_header_map_value", 0, 64, 1, 64, 1) for one in (0, *IDS)), data(64, b"x")),
    serves("root-context", "everything, for the root context, from a stream's callback", call("proxy_set_effective_context", 1) + all_alike(1, [
        name for name in HOST_FUNCTIONS if name not in CONTROL and name != "proxy_set_effective_context"]) + "".join(
        call(name, *[1] * len(params(name))) for name in ("proxy_continue_stream", "proxy_close_stream")), counted=(ERRORS,)),
    serves("tokens", "tokens, queues and metrics that are nobody's", "".join(
        call("proxy_grpc_cancel", one) + call("proxy_grpc_close", one) + call("proxy_grpc_send", one, 0, 0, 0) + call("proxy_dequeue_shared_queue", one, 1024, 1028)
        + call("proxy_enqueue_shared_queue", one, 0, 1) + call("proxy_increment_metric", one, 1) + call("proxy_record_metric", one, -1)
        + call("proxy_get_metric", one, 1024) for one in IDS), counted=(ERRORS,)),
    *(
        Case(f"phase-{name.removeprefix('proxy_on_').replace('_', '-')}", "arguments", f"every host function in {name}",
             guest(EVERY, callback("proxy_on_request_headers", "(drop (i32.const 1))"), on=name), {**RICH, "limits": {"start_fuel": 10**9}},
             answers=frozenset({200}), counted=(ERRORS,) if name not in ("proxy_on_vm_start", "proxy_on_configure") else ())
        for name in PHASES
    ),
    Case("phase-tick", "arguments", "every host function in proxy_on_tick",
         guest(EVERY, callback("proxy_on_request_headers", call("proxy_set_tick_period_milliseconds", 10)), on="proxy_on_tick"), RICH,
         answers=frozenset({200}), linger=0.2, counted=(ERRORS,)),
    serves("control-root", "closing, continuing and answering from a tick, where there is no stream", call("proxy_set_tick_period_milliseconds", 10),
           callback("proxy_on_tick", call("proxy_close_stream", 0) + call("proxy_continue_stream", 0) + call("proxy_send_local_response", 200, 0, 0, 0, 0, 0, 0, -1)),
           linger=0.2),
    serves("close-and-go-on", "proxy_close_stream, and edits after it", call("proxy_close_stream", 0) + EVERY, answers=frozenset({RESET}), asks=(GET,)),
    serves("response-early", "edits of the response while the request is read", call("proxy_add_header_map_value", 2, 64, 1, 64, 1)
           + call("proxy_set_buffer_bytes", 1, 0, 0, 64, 1), data(64, b"x"), counted=(ERRORS,)),
    serves("buffers-all", "every buffer there is and is not, at every offset", "".join(
        call("proxy_set_buffer_bytes", one, at, 0xFFFF_FFFF, 64, 100) + call("proxy_get_buffer_bytes", one, at, 0xFFFF_FFFF, 1024, 1028)
        for one in (*range(10), -1) for at in (0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF)), counted=(ERRORS,)),
    serves("maps-all", "every map there is and is not", "".join(
        call("proxy_get_header_map_pairs", one, 1024, 1028) + call("proxy_get_header_map_size", one, 1024) + call("proxy_get_header_map_value", one, 64, 1, 1024, 1028)
        + call("proxy_remove_header_map_value", one, 64, 1) for one in (*range(9), -1)), data(64, b"x"), counted=(ERRORS,)),
]  # fmt: skip

CASES = ARGUMENTS
