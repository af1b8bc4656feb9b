"""Filters that never serve: refused when they are read, compiled, linked or started."""

from __future__ import annotations

from functools import partial

from tests.hostile import giants, wat
from tests.hostile.case import Case
from tests.hostile.wat import FOREVER, call, guest, module

SHORT = {"limits": {"compile_time": "800ms", "compile_memory": "1GiB"}}
"""A child that is stopped sooner than by default, so that the tests are."""
TIME_OR_MEMORY = r"compiling takes more than limits\.compile_(time 800ms|memory 1GiB).*write limits: \{compile_"

COMPILE = [
    Case("block-nest", "compile", "100,000 nested blocks that copy a local", giants.blocks, SHORT, TIME_OR_MEMORY),
    Case("block-chain", "compile", "100,000 blocks in a row, each with a branch over 64 live locals", giants.chain, SHORT, TIME_OR_MEMORY),
    Case("functions-200k", "compile", "200,000 empty functions", giants.functions, {},
         r"200003 functions, more than limits\.functions 100000; write limits: \{functions: 200003\}"),
    Case("functions-admitted", "compile", "the same, admitted by its limit: the compiler's limits hold", giants.functions,
         {"limits": {"functions": 300_000, "compile_time": "500ms", "compile_memory": "1GiB"}},
         r"compiling takes more than limits\.compile_(time 500ms|memory 1GiB)"),
    Case("giant-body", "compile", "a function of 7 MB", partial(giants.giant_body, 7 << 20), {},
         r"largest function's body is 7340033 bytes, more than limits\.function_body 2MiB; write limits: \{function_body: "),
    Case("giant-body-admitted", "compile", "the same, admitted by its limit: the compiler's limits hold", partial(giants.giant_body, 7 << 20),
         {"limits": {"function_body": "8MiB", "compile_time": "1s", "compile_memory": "512MiB"}},
         r"compiling takes more than limits\.compile_(time 1s|memory 512MiB)"),
    Case("deep-operands", "compile", "600,000 operands on the stack at once", giants.deep_expression, SHORT, TIME_OR_MEMORY),
    Case("locals", "compile", "2,000 functions of 50,000 locals each", giants.locals_of_a_function,
         {"limits": {"compile_time": "500ms", "compile_memory": "1GiB"}},
         r"compiling takes more than limits\.compile_(time 500ms|memory 1GiB)"),
    Case("locals-4g", "compile", "a function that declares 4,294,967,295 locals", giants.too_many_locals, {}, r"not a valid module: .*too many locals"),
    Case("call-web", "compile", "90,000 functions that call each other",
         giants.calls, {"limits": {"compile_time": "500ms"}}, r"compiling takes more than limits\.compile_time 500ms"),
    Case("module-33m", "compile", "a module of 33 MiB", partial(giants.custom_sections, 33, 1 << 20), {},
         r"more than limits\.module .*; write limits: \{module: 34MiB\}"),
    Case("types-1m", "compile", "1,000,001 types", giants.many_types, {}, r"1000001 types, more than the 1000000"),
    Case("wide-type", "compile", "a type of 1,001 parameters", partial(giants.wide_type, 1001), {}, r"1001 parameters or results, more than the 1000"),
    Case("imports-200k", "compile", "200,000 imports", partial(giants.many_imports, 200_000), {}, r"200000 imports, more than the 1000 that are taken"),
    Case("imports-90k", "compile", "90,000 imports of one host function: linked again after every fault", partial(giants.many_imports, 90_000), {},
         r"90000 imports, more than the 1000 that are taken"),
    Case("imports-unknown", "compile", "1,000 imports of functions that do not exist", partial(giants.unknown_imports, 1000), {},
         r"imports that no proxy-wasm host offers: .* and \d+ more"),
    Case("exports-200k", "compile", "200,000 exports", partial(giants.many_exports, 200_000, "e"), {}, r"exports, more than the 100000"),
    Case("exports-near", "compile", "20,000 exports with almost the name of a callback, each of which a suggestion would be sought for",
         partial(giants.many_exports, 20_000, "proxy_on_request_headers_"), {"limits": {"functions": 1}}, r"3 functions, more than limits\.functions 1"),
    Case("tables-200k", "compile", "200,000 tables", partial(giants.many_tables, 200_000), {}, r"200000 tables, more than the 100000"),
    Case("memories-200k", "compile", "200,000 memories", partial(giants.many_memories, 200_000), {}, r"200000 memories, more than the 100000"),
    Case("memories-2", "compile", "two memories", partial(giants.many_memories, 2), {}, r"2 memories are declared; build the filter with one"),
    Case("custom-1001", "compile", "1,001 custom sections", partial(giants.custom_sections, 1001, 1), {}, r"more than 1000 custom sections"),
    Case("export-name", "compile", "an export with a name of 200,000 bytes", partial(giants.long_name, 200_000), {}, r"a name of 200000 bytes"),
    Case("memory-4g", "compile", "a memory that starts with 4 GiB", partial(giants.memory, 65536), {},
         r"starts with 4096 MiB of memory, more than memory 16MiB; write memory: "),
    Case("memory-64", "compile", "a 64-bit memory", partial(giants.memory, 1, None, 4), {}, r"a 64-bit memory is declared"),
    Case("memory-shared", "compile", "a shared memory, on which an atomic wait would never end", partial(giants.memory, 1, 1, 2), {},
         r"a shared memory is declared or imported, and is never allowed"),
    Case("memory-imported", "compile", "a memory from outside: the gateway's own, perhaps",
         '(module (import "core" "memory" (memory 1 65536 shared)) (func (export "proxy_abi_version_0_2_1")))', {}, r"only functions can be imported"),
    Case("table-imported", "compile", "a table from outside",
         '(module (import "link" "table" (table 25 funcref)) (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))'
         f" {wat.MALLOC})", {}, r"only functions can be imported, not table"),
    Case("core-function", "compile", "a function of the gateway's own core",
         '(module (import "env" "enter" (func (param i32 i32 i32 i32) (result i32))) (memory (export "memory") 1)'
         f' (func (export "proxy_abi_version_0_2_1")) {wat.MALLOC})', {}, r"imports that no proxy-wasm host offers: env\.enter"),
]  # fmt: skip

FORMAT = [
    Case("empty", "format", "an empty file", lambda: b"", {}, r"the file is empty"),
    Case("text", "format", "the text format", lambda: b"(module)", {}, r"this is WebAssembly text"),
    Case("other", "format", "another kind of file", lambda: b"#!/bin/sh\n", {}, r"not a WebAssembly file"),
    Case("component", "format", "a component", giants.component, {}, r"component"),
    *(
        Case(f"truncated-{percent}", "format", f"a good module, cut at {percent} %", partial(giants.truncated, percent / 100), {},
             r"unexpected end|header|no proxy-wasm ABI version|declared|announced|left")
        for percent in (1, 5, 10, 25, 50, 75, 90, 99)
    ),
    *(
        Case(f"count-{kind}", "format", f"a {kind} section that announces 4,294,967,295 items", partial(giants.lying_count, kind), {},
             r"4294967295 .*(more than the|are announced)")
        for kind in ("types", "imports", "functions", "tables", "memories", "exports", "code")
    ),
    Case("section-size", "format", "a section longer than the file", giants.lying_size, {}, r"unexpected end"),
    Case("endless-number", "format", "a number of 100,000 bytes", giants.endless_number, {}, r"a number (longer|of more)"),
    Case("bodies-missing", "format", "more functions than bodies", giants.bodies_missing, {}, r"functions are declared, \d+ bodies are given|left over"),
    Case("ill-typed", "format", "bodies that are not well-typed", giants.ill_typed_body, {}, r"not a valid module"),
    Case("unknown-opcode", "format", "an instruction of a proposal that is off", giants.unknown_opcode, {}, r"not a valid module"),
    Case("repeated-section", "format", "a section twice", giants.repeated_section, {}, r"repeated or out of order"),
    Case("start-index", "format", "a start function that is not there", giants.start_at_nothing, {}, r"function 1000000 does not exist"),
    Case("no-marker", "format", "no ABI version", f'(module (memory (export "memory") 1) {wat.MALLOC})', {}, r"no proxy-wasm ABI version is exported"),
    Case("no-allocator", "format", "no allocator", module(allocator=""), {}, r"no allocator is exported"),
    Case("no-memory", "format", "no memory is exported", f'(module (memory 1) (func (export "proxy_abi_version_0_2_1")) {wat.MALLOC})', {},
         r"no memory is exported"),
    Case("mistyped-callback", "format", "a callback with i64 parameters",
         module(f'(func (export "{wat.HEADERS}") (param i64 i64 i64) (result i64) (i64.const 0))'), {},
         r"export proxy_on_request_headers has type .*, the ABI's is"),
    Case("mistyped-allocator", "format", "an allocator that gives two values",
         module(allocator='(func (export "malloc") (param i32) (result i32 i32) (i32.const 8) (i32.const 8))'), {}, r"export malloc has type"),
    Case("mistyped-import", "format", "proxy_log with a parameter too many",
         '(module (import "env" "proxy_log" (func (param i32 i32 i32 i32) (result i32))) (memory (export "memory") 1)'
         f' (func (export "proxy_abi_version_0_2_1")) {wat.MALLOC})', {}, r"import env\.proxy_log has type .*, the ABI's is"),
    Case("exceptions", "format", "a tag of the exceptions proposal", giants.a_tag, {}, r"not a valid module: .*exceptions"),
]  # fmt: skip

WRITES = call("proxy_set_header_map_pairs", 0, 0, 0)
START = [
    Case("start-loop", "start", "a start section with an endless loop", module(f"(start $s) (func $s {FOREVER})"), {}, r"did not start: .*fuel"),
    Case("initialize-loop", "start", "an endless loop in _initialize", module(f'(func (export "_initialize") {FOREVER})'), {}, r"_initialize: fuel.*limits\.start_fuel"),
    Case("start-export-loop", "start", "an endless loop in _start", module(f'(func (export "_start") {FOREVER})'), {}, r"_start: fuel"),
    Case("vm-start-loop", "start", "an endless loop in proxy_on_vm_start", guest(FOREVER, on="proxy_on_vm_start"), {}, r"proxy_on_vm_start: fuel"),
    Case("configure-loop", "start", "an endless loop in proxy_on_configure", guest(FOREVER, on="proxy_on_configure"), {}, r"proxy_on_configure: fuel"),
    Case("create-loop", "start", "an endless loop in proxy_on_context_create", guest(FOREVER, on="proxy_on_context_create"), {},
         r"proxy_on_context_create: fuel"),
    Case("start-deadline", "start", "a start that has fuel for years", module(f'(func (export "_initialize") {FOREVER})'),
         {"limits": {"start_fuel": 10**15, "start_deadline": "100ms"}}, r"_initialize: deadline: .*raise limits\.start_deadline"),
    Case("start-trap", "start", "a start section that traps", module("(start $s) (func $s unreachable)"), {}, r"did not start: .*trap"),
    Case("start-recursion", "start", "a start section that calls itself", module("(start $s) (func $s (call $s))"), {}, r"did not start: .*(trap|fuel)"),
    Case("start-host-call", "start", "a host call before the VM has started",
         module(f'(func (export "_initialize") {WRITES})'), {}, r"_initialize: trap"),
    Case("start-exit", "start", "proc_exit(1) in _start", module(f'(func (export "_start") {call("wasi_proc_exit", 1)} unreachable)'), {}, r"_start: trap"),
    Case("refuses", "start", "proxy_on_configure answers no", guest("", on="proxy_on_configure", answer=0), {}, r"proxy_on_configure returned false"),
    Case("data-outside", "start", "a data segment behind the memory's end", module('(data (i32.const 65535) "xx")'), {}, r"did not start: .*(trap|memory)"),
    Case("element-outside", "start", "an element segment behind the table's end",
         module("(table 1 funcref) (func $f) (elem (i32.const 1) $f)"), {}, r"did not start: .*(trap|table)"),
    Case("tables-17", "start", "more tables than a VM may have", partial(giants.many_tables, 17), {}, r"did not start: .*(table|resource)"),
    Case("table-10m", "start", "a table of 10,000,000 elements", partial(giants.many_tables, 1, 10_000_000), {}, r"did not start: .*(table|resource)"),
    Case("memory-at-start", "start", "memory.grow until there is no more, then a trap",
         module('(func (export "_initialize") (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)'), {},
         r"_initialize: memory: gave up with \d+ of at most 16777216 bytes"),
]  # fmt: skip

CASES = [*COMPILE, *FORMAT, *START]
