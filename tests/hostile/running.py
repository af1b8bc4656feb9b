"""Filters that serve, and fail, burn or lie while they do."""

from __future__ import annotations

from functools import partial

from tests.hostile import giants, wat
from tests.hostile.case import GET, RESET, Ask, Case
from tests.hostile.wat import FOREVER, HEADERS, LOOP, call, callback, data, guest, repeat

FUEL, DEADLINE, TRAP, MEMORY = (frozenset({reason}) for reason in ("fuel", "deadline", "trap", "memory"))
OK, DOWN = frozenset({200}), frozenset({503})
BODIES = (Ask("POST", body=1000, answer=1000), GET)
AMPLE = {"fuel": 10**15}
"""Fuel for years: only the deadline ends it."""
PROBATION = ('penstock_filter_limited_total{limit="probation"}',)
STREAM = "(if (i32.ne (local.get 1) (i32.const 0)) (then {body}))"
"""In proxy_on_context_create: only for streams, which have a parent."""
SET_TICK = call("proxy_set_tick_period_milliseconds", 1)
QUEUE = data(64, b"hostile")


LOOPS = [
    Case("loop-request-headers", "run", "an endless loop in proxy_on_request_headers", guest(FOREVER), reasons=FUEL),
    Case("loop-request-body", "run", "... in proxy_on_request_body", guest(FOREVER, on="proxy_on_request_body"), reasons=FUEL,
         asks=(Ask("POST", body=1000),)),
    Case("loop-response-headers", "run", "... in proxy_on_response_headers", guest(FOREVER, on="proxy_on_response_headers"), reasons=FUEL),
    Case("loop-response-body", "run", "... in proxy_on_response_body", guest(FOREVER, on="proxy_on_response_body"), reasons=FUEL,
         asks=(Ask(answer=1000),), answers=frozenset({RESET})),
    *(
        Case(f"loop-{name.removeprefix('proxy_on_').replace('_', '-')}", "run", f"... in {name}", guest(FOREVER, on=name), reasons=FUEL, answers=frozenset({200, 503}),
             asks=(GET,), holds="200; reason `fuel`: the response was out")
        for name in ("proxy_on_log", "proxy_on_done", "proxy_on_delete")
    ),
    Case("loop-context-create", "run", "... in proxy_on_context_create of a stream",
         guest(STREAM.format(body=FOREVER), callback(HEADERS, "(drop (i32.const 1))"), on="proxy_on_context_create"), reasons=FUEL),
    Case("loop-tick", "run", "... in proxy_on_tick", guest(FOREVER, callback(HEADERS, SET_TICK), on="proxy_on_tick"), reasons=FUEL,
         answers=frozenset({200, 503}), linger=0.3),
    Case("loop-queue-ready", "run", "... in proxy_on_queue_ready",
         guest(FOREVER, QUEUE,
               callback("proxy_on_configure", call("proxy_register_shared_queue", 64, 7, 1024)),
               callback(HEADERS, "(drop (call $proxy_enqueue_shared_queue (i32.load (i32.const 1024)) (i32.const 64) (i32.const 7)))"),
               on="proxy_on_queue_ready"), reasons=FUEL, answers=frozenset({200, 503}), linger=0.3),
    Case("loop-call-response", "run", "... in proxy_on_http_call_response",
         guest(FOREVER, wat.data(64, b"service"), wat.pairs(256, wat.CALL_HEAD),
               callback(HEADERS, call("proxy_http_call", 64, 7, 256, wat.pairs_size(wat.CALL_HEAD), 0, 0, 0, 0, 1000, 1024), answer=1),
               on="proxy_on_http_call_response"), {"capabilities": {"allowed_hosts": ["cluster:service"]}, "limits": {"pause": "500ms"}},
         reasons=frozenset({"fuel", "pause"}), linger=0.3, asks=(GET,)),
    Case("loop-open", "run", "an endless loop, of a filter that fails open", guest(FOREVER), {"on_failure": "open"}, reasons=FUEL, answers=OK),
    Case("loop-deadline", "run", "an endless loop with fuel for years", guest(FOREVER), AMPLE, reasons=FUEL | DEADLINE, counted=PROBATION,
         logged=("filter_on_probation",), holds="503; reason `deadline`, then `fuel`: the next calls get less of it"),
    Case("loop-tail-calls", "run", "functions that tail-call each other for ever",
         guest("(call $a)", "(func $a (return_call $b)) (func $b (return_call $a))"), AMPLE, reasons=FUEL | DEADLINE, counted=PROBATION,
         logged=("filter_on_probation",), holds="503; reason `deadline`, then `fuel`: the next calls get less of it"),
    Case("loop-divisions", "run", "instructions that take longer than others: 64-bit divisions",
         guest("(loop $l (local.set $n (i64.div_u (i64.const -1) (i64.or (local.get $n) (i64.const 1)))) (br $l))", locals_="(local $n i64)"),
         reasons=FUEL | DEADLINE, holds="503; reason `fuel` or `deadline`"),
    Case("loop-square-roots", "run", "the same: square roots of vectors",
         guest("(loop $l (local.set $v (f64x2.sqrt (f64x2.div (local.get $v) (local.get $v)))) (br $l))", locals_="(local $v v128)"),
         reasons=FUEL | DEADLINE, holds="503; reason `fuel` or `deadline`"),
    Case("loop-growth", "run", "memory.grow by nothing, for ever", guest("(loop $l (drop (memory.grow (i32.const 0))) (br $l))"), reasons=FUEL | DEADLINE,
         holds="503; reason `fuel` or `deadline`"),
    Case("slow-together", "run", "ten clients at once, each of whose calls burns all of its fuel", guest(FOREVER), reasons=FUEL, together=10),
]  # fmt: skip

BACK = "(if (i32.eqz (i32.rem_u (global.get $n) (i32.const {n}))) (then unreachable))"
COUNT = "(global $n (mut i32) (i32.const 0))"
NEXT = "(global.set $n (i32.add (global.get $n) (i32.const 1)))"
TRAPS = [
    Case("trap-always", "run", "a trap in every call", guest("unreachable"), reasons=TRAP, asks=(GET,) * 5),
    Case("trap-once", "run", "a trap in the first call, never again", guest(
        "(if (i32.eq (call $proxy_get_shared_data (i32.const 64) (i32.const 7) (i32.const 1024) (i32.const 1028) (i32.const 1032)) (i32.const 1)) (then "
        + call("proxy_set_shared_data", 64, 7, 64, 7, 0) + " unreachable))", QUEUE), reasons=TRAP, asks=(GET,) * 5, answers=frozenset({200, 503}),
        holds="503, then 200; reason `trap`"),
    Case("trap-slow-start", "run", "a trap in every call, of a filter whose start takes 100 times as long as a call may",
         guest("unreachable", f'(func (export "_initialize") {LOOP} ' + repeat(60_000_000, "") + ")"), reasons=TRAP, asks=(GET,) * 10, together=4, linger=1.0,
         holds="503; reason `trap`; the start is repeated, but takes a twentieth of the worker at most"),
    Case("trap-third", "run", "a trap in every third call",
         guest(NEXT + BACK.format(n=3), COUNT), reasons=TRAP, asks=(GET,) * 9, answers=frozenset({200, 503})),
    Case("trap-open", "run", "a trap in every call, of a filter that fails open", guest("unreachable"), {"on_failure": "open"}, reasons=TRAP,
         asks=(GET,) * 5, answers=OK),
    Case("trap-response-body", "run", "a trap in the middle of a response",
         guest("unreachable", on="proxy_on_response_body"), reasons=TRAP, asks=(Ask(answer=300_000),) * 2, answers=frozenset({RESET, 503})),
    Case("trap-response-body-open", "run", "the same, failing open", guest("unreachable", on="proxy_on_response_body"), {"on_failure": "open"},
         reasons=TRAP, asks=(Ask(answer=300_000),) * 2, answers=OK),
    Case("trap-held-streams", "run", "streams that are held by a VM which then traps",
         guest(call("proxy_set_effective_context", 0) + "(if (i32.ge_u (local.get 0) (i32.const 6)) (then unreachable))",
               answer=1), {"limits": {"pause": "2s"}},
         reasons=TRAP | {"pause"}, together=8, asks=(GET,), holds="503 for all of them, at once; reason `trap`"),
    Case("recursion", "run", "a function that calls itself", guest("(call $f)", "(func $f (call $f) (drop (i32.const 0)))"), reasons=TRAP),
    Case("recursion-wide", "run", "a function of 1,000 live locals that calls itself",
         guest("(drop (call $f (i64.const 1)))",
               "(func $f (param i64) (result i64) " + f"(local {'i64 ' * 1000})"
               + "".join(f"(local.set {i} (i64.add (local.get {i - 1}) (local.get 0)))" for i in range(1, 1000))
               + "(call $f (local.get 999))" + "".join(f"(i64.add (local.get {i}))" for i in range(1, 1000)) + ")"),
         reasons=TRAP),
    Case("recursion-indirect", "run", "a table entry that calls itself through the table",
         guest("(call $f)", "(type $t (func)) (table 1 funcref) (elem (i32.const 0) $f) (func $f (call_indirect (type $t) (i32.const 0)) (drop (i32.const 0)))"),
         reasons=TRAP),
    Case("long-name", "run", "a trap in a function whose name has 90,000 bytes, with control characters and forged log lines",
         partial(giants.named_functions, 90_000), reasons=TRAP, holds="503; reason `trap`; the log line is short and escaped"),
    Case("exit", "run", "proc_exit in a callback", guest(call("wasi_proc_exit", 1) + " unreachable"), reasons=TRAP),
    Case("actions", "run", "answers that are no action", guest("", answer=-1), {"limits": {"pause": "300ms"}}, reasons=frozenset({"pause"}),
         answers=frozenset({200, 503}), holds="taken as a pause, which ends"),
    Case("pause-forever", "run", "a pause that never ends", guest("", answer=1), {"limits": {"pause": "300ms"}}, reasons=frozenset({"pause"})),
    Case("pause-forever-open", "run", "the same, failing open", guest("", answer=1), {"limits": {"pause": "300ms"}, "on_failure": "open"},
         reasons=frozenset({"pause"}), answers=OK),
    Case("pause-many", "run", "50 streams held at once", guest("", answer=1), {"limits": {"pause": "300ms"}}, reasons=frozenset({"pause"}), together=50,
         asks=(GET,)),
    Case("pause-body", "run", "a body that is never let go, of any size", guest("", on="proxy_on_request_body", answer=1),
         {"limits": {"body_buffer": "64KiB", "pause": "300ms"}}, asks=(Ask("POST", body=200_000), Ask("POST", body=1000)),
         answers=frozenset({413, 503}), reasons=frozenset({"pause", "body_buffer"})),
    Case("pause-response", "run", "a response that is never let go", guest("", on="proxy_on_response_headers", answer=1),
         {"limits": {"pause": "300ms"}}, asks=(Ask(answer=200_000),), reasons=frozenset({"pause"})),
    Case("pause-response-body", "run", "a response body that is never let go", guest("", on="proxy_on_response_body", answer=1),
         {"limits": {"body_buffer": "64KiB", "pause": "300ms"}}, asks=(Ask(answer=200_000),), answers=frozenset({500, RESET}),
         reasons=frozenset({"body_buffer"})),
]  # fmt: skip

FULL = "256"
MEMORIES = [
    Case("fill-all", "memory", "memory.fill of all 16 MiB, for ever",
         guest("(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 16777216)) (br $l))", memory=FULL), reasons=FUEL | DEADLINE,
         holds="503; reason `fuel` or `deadline`"),
    Case("copy-all", "memory", "memory.copy of 16 MiB onto itself, for ever",
         guest("(loop $l (memory.copy (i32.const 1) (i32.const 0) (i32.const 16777215)) (br $l))", memory=FULL), reasons=FUEL | DEADLINE,
         holds="503; reason `fuel` or `deadline`"),
    Case("fill-outside", "memory", "memory.fill over the end", guest("(memory.fill (i32.const 65535) (i32.const 1) (i32.const 2))"), reasons=TRAP),
    Case("grow-all", "memory", "memory.grow until there is no more, then a trap",
         guest("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"), reasons=MEMORY),
    Case("grow-4g", "memory", "memory.grow by 65,535 pages, and touching each",
         guest("(drop (memory.grow (i32.const 65535))) (i32.store (i32.const 0x7fffffff) (i32.const 1))"), reasons=TRAP | MEMORY,
         holds="the growth is refused; 503; reason `trap`"),
    Case("touch-all", "memory", "16 MiB, each page written in each call",
         guest("(local.set $i (i32.const 16777216)) (loop $l (local.set $i (i32.sub (local.get $i) (i32.const 4096))) (i32.store (local.get $i) (i32.const 1))"
               " (br_if $l (local.get $i)))", locals_=LOOP, memory=FULL), answers=OK),
    Case("table-grow", "memory", "table.grow until there is no more",
         guest("(loop $l (br_if $l (i32.ne (table.grow (ref.null func) (i32.const 1000)) (i32.const -1))))", "(table 1 funcref)"), answers=OK,
         holds="the growth ends at 100,000 elements; 200"),
    Case("table-fill", "memory", "table.fill of 100,000 elements, for ever",
         guest("(loop $l (table.fill (i32.const 0) (ref.null func) (i32.const 100000)) (br $l))", "(table 100000 funcref)"), reasons=FUEL | DEADLINE,
         holds="503; reason `fuel` or `deadline`"),
    Case("tables-10", "memory", "ten tables of 100,000 elements, each filled", guest(
        "".join(f"(table.fill {i} (i32.const 0) (ref.null func) (i32.const 100000))" for i in range(10)), *["(table 100000 funcref)"] * 10),
        answers=OK),
    Case("atomic-wait", "memory", "an atomic wait of a year on its own memory, which is not shared",
         guest("(drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))"), reasons=TRAP),
    Case("out-of-bounds", "memory", "a load at 4 GiB less 1, with the largest offset", guest("(drop (i32.load offset=0xffffffff (i32.const -1)))"), reasons=TRAP),
    Case("null-call", "memory", "a call through an empty table entry",
         guest("(call_indirect (type $t) (i32.const 0))", "(type $t (func)) (table 1 funcref)"), reasons=TRAP),
    Case("mistyped-call", "memory", "a call through a table entry of another type",
         guest("(call_indirect (type $t) (i32.const 0))", "(type $t (func)) (table 1 funcref) (elem (i32.const 0) $f) (func $f (param i64))"), reasons=TRAP),
]  # fmt: skip

GETS = "(drop (call $proxy_get_header_map_pairs (i32.const 0) (i32.const 1024) (i32.const 1028)))"


def allocates(name: str, tries: str, allocator: str, **more: object) -> Case:
    """A filter that asks for all headers, with this allocator."""
    parts = [more.pop("part")] if "part" in more else []
    return Case(name, "allocator", tries, guest(GETS, *parts, allocator=allocator), **{"answers": OK, **more})  # type: ignore[arg-type]


def malloc(body: str) -> str:
    return f'(func (export "malloc") (param i32) (result i32) {body})'


INVALID = 'penstock_host_call_errors_total{function="proxy_get_header_map_pairs",status="InvalidMemoryAccess"}'
ALLOCATORS = [
    allocates("allocator-null", "it gives 0", malloc("(i32.const 0)"), counted=(INVALID,)),
    allocates("allocator-negative", "it gives -1", malloc("(i32.const -1)"), counted=(INVALID,)),
    allocates("allocator-end", "it gives the memory's last byte", malloc("(i32.const 65535)"), counted=(INVALID,)),
    allocates("allocator-outside", "it gives the first byte behind the memory", malloc("(i32.const 65536)"), counted=(INVALID,)),
    allocates("allocator-wrapping", "it gives an address that wraps around with the size", malloc("(i32.sub (i32.const 0) (i32.const 8))"), counted=(INVALID,)),
    allocates("allocator-overlapping", "it gives where the answer's own address is to be written", malloc("(i32.const 1024)")),
    allocates("allocator-code", "it gives address 1, over everything", malloc("(i32.const 1)")),
    allocates("allocator-traps", "it traps", malloc("unreachable"), answers=DOWN, reasons=TRAP),
    allocates("allocator-loops", "it never comes back", malloc(f"{FOREVER} (i32.const 8)"), answers=DOWN, reasons=FUEL),
    allocates("allocator-recursion", "it calls itself", '(func $m (export "malloc") (param i32) (result i32) (call $m (local.get 0)) (i32.add (i32.const 1)))',
              answers=DOWN, reasons=TRAP),
    allocates("allocator-grows", "it grows the memory in each call", malloc("(i32.sub (i32.mul (i32.add (memory.grow (i32.const 1)) (i32.const 1)) (i32.const 65536)) (i32.const 60000))"),
              asks=(GET,) * 4),
    allocates("allocator-grows-all", "it takes all of the memory's limit in each call",
              malloc("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (i32.const 8)"), asks=(GET,) * 2),
    allocates("allocator-calls-host", "it calls a host function that allocates",
              malloc("(drop (call $proxy_get_header_map_pairs (i32.const 0) (i32.const 1024) (i32.const 1028))) (i32.const 2048)"),
              answers=DOWN, reasons=TRAP, holds="503; reason `trap`: the core refuses"),
    allocates("allocator-edits", "it edits the map that is being read",
              malloc(call("proxy_set_header_map_pairs", 0, 0, 0) + "(i32.const 2048)"), answers=DOWN, reasons=TRAP, holds="503; reason `trap`: the core refuses"),
    allocates("allocator-logs", "it logs in each call, which it may", malloc(repeat(500, call("proxy_log", 2, 0, 1000)) + "(i32.const 2048)").replace(
        "(result i32)", f"(result i32) {LOOP}", 1), answers=frozenset({200, 503}), reasons=frozenset(), counted=("penstock_filter_log_lines_dropped_total",)),
    allocates("allocator-random", "it asks for randomness over and over, by WASI",
              malloc(repeat(300, call("wasi_random_get", 4096, 60000)) + "(i32.const 2048)").replace("(result i32)", f"(result i32) {LOOP}", 1),
              answers=DOWN, reasons=FUEL),
]  # fmt: skip

CASES = [*LOOPS, *TRAPS, *MEMORIES, *ALLOCATORS]
