"""Every callback and every host call of a filter, with arguments and results, as text.

A traced filter is linked with modules of its own in the place of its bridge and its stubs (abi/proxy_wasm/link.py): each
function in them tells what it was called with, word by word, calls the real one, and tells the result. The words come by the
core's `denied`, the one function that takes a number to Python. Nothing is traced by the gateway, so nothing there pays for it;
the fuel of a traced callback is higher than without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import wasmtime

from proxy.abi.proxy_wasm.link import (
    CALLBACKS,
    ERRNO_DENIED,
    ERRNO_UNSUPPORTED,
    STATUS_DENIED,
    bridge_text,
    denied_functions,
    exported_callbacks,
    quoted,
)
from proxy.abi.proxy_wasm.load import Prepared, PreparedFilter
from proxy.abi.proxy_wasm.signatures import WASI_MODULES, WASI_VARIANTS
from proxy.abi.proxy_wasm.slot import VmSlot
from proxy.kit.host import KitHost
from proxy.kit.shown import arguments_text, callback_text, result_text
from proxy.wasm.cache import load_or_compile
from proxy.wasm.compile import Request
from proxy.wasm.module import Import, Module

HOST_CALL: Final = 1 << 20
"""Begins a host call: with its place in the module's imports, then its arguments."""
CALLBACK: Final = 1 << 21
"""Begins a callback: with its slot, then its arguments."""
RETURN: Final = 1 << 22
"""Ends the innermost one: the result follows."""


def traced(prepared: Prepared) -> Prepared:
    """The same filters, linked so that they can be traced. Components stay as they are: what they import is Python's
    (component.py)."""
    filters = []
    for one in prepared.filters:
        filters.append(traced_filter(one) if isinstance(one, PreparedFilter) else one)
    return dataclasses.replace(prepared, filters=tuple(filters))


def traced_filter(prepared: PreparedFilter) -> PreparedFilter:
    outline, allowed = prepared.outline, prepared.filter.capabilities.host_functions
    callbacks = exported_callbacks(outline, prepared.abi, allowed)
    names = {export.name for export in outline.exports}
    allocator = next(name for name in ("proxy_on_memory_allocate", "malloc") if name in names)
    bridge = bridge_text(outline, callbacks, allocator, prepared.memory_export, around_callback)
    stubs = tracing_stubs(outline, denied_functions(outline, allowed))
    limits = prepared.filter.limits
    texts = [bytes(wasmtime.wat2wasm(text)) for text in (bridge, stubs)]
    codes = load_or_compile([Request(text, seconds=limits.compile_time, memory=limits.compile_memory) for text in texts])
    return dataclasses.replace(prepared, bridge=codes[0], stubs=codes[1])


def around_callback(slot: int, parameters: int, call: str) -> str:
    """The body of a bridge's callback that tells of itself."""
    told = " ".join(f"(call $note (local.get {i}))" for i in range(parameters))
    return (
        f"(local $result i32) (call $note (i32.const {CALLBACK | slot})) {told} {call} (local.set $result) "
        f"(call $note (i32.const {RETURN})) (call $note (local.get $result)) (local.get $result)"
    )


def tracing_stubs(outline: Module, denied: Sequence[str]) -> str:
    """A module that stands between the filter and all functions that it imports, in the text format."""
    imports = ['(import "core" "denied" (func $note (param i32)))']
    functions = ['(func (export "note") (param i32) (call $note (local.get 0)))']
    known: set[str] = set()
    for place, item in enumerate(outline.imports):
        name = f"{item.module}.{item.name}"
        if item.function is None or name in known:
            continue
        known.add(name)
        params, results = item.function.params, item.function.results
        answer = constant(item, denied)
        if answer is None:
            core = f"wasi_{item.name}" if item.module in WASI_MODULES else item.name
            typed = f"(param {' '.join(params)}) (result {' '.join(results)})".replace("(result )", "").replace("(param )", "")
            imports.append(f'(import "core" "{quoted(core)}" (func $real_{place} {typed}))')
            passed = " ".join(f"(local.get {i})" for i in range(len(params)))
            answer = f"(call $real_{place} {passed}) {'' if results else '(i32.const 0)'}"
        told = " ".join(telling(i, kind) for i, kind in enumerate(params))
        result = "(result i32)" if results else ""
        typed = f"(param {' '.join(params)})" if params else ""
        functions.append(
            f'(func (export "{quoted(name)}") {typed} {result} (local $result i32) '
            f"(call $note (i32.const {HOST_CALL | place})) {told} {answer} (local.set $result) "
            f"(call $note (i32.const {RETURN})) (call $note (local.get $result)) {'(local.get $result)' if results else ''})"
        )
    return "(module\n  " + "\n  ".join(imports + functions) + ")"


def constant(item: Import, denied: Sequence[str]) -> str | None:
    """What a function that the core does not answer answers; as stubs_text has it. None: the core answers."""
    assert item.function is not None
    wasi = item.module in WASI_MODULES
    if item.name in denied:
        status = ERRNO_DENIED if wasi else STATUS_DENIED
        return f"(call $note (i32.const {denied.index(item.name)})) (i32.const {status})"
    if wasi and item.name in WASI_VARIANTS and item.function.params == WASI_VARIANTS[item.name].params:
        return f"(i32.const {ERRNO_UNSUPPORTED})"
    return None


def telling(parameter: int, kind: str) -> str:
    """Tell one argument: an i64 in two words, the low one first."""
    if kind == "i64":
        low = f"(call $note (i32.wrap_i64 (local.get {parameter})))"
        return low + f" (call $note (i32.wrap_i64 (i64.shr_u (local.get {parameter}) (i64.const 32))))"
    return f"(call $note (local.get {parameter}))"


class Entry(NamedTuple):
    """A callback or host call that has begun. `item` None: a callback."""

    name: str
    item: Import | None
    words: list[int]
    expected: int
    shown: list[str]
    """What its arguments said when it began."""


@dataclass(slots=True)
class Tracer:
    """Puts what it hears into `lines`."""

    lines: list[str]
    entries: list[Entry] = field(default_factory=list)
    returning: bool = False
    called: set[str] = field(default_factory=set)
    """The host functions that were called, all in all."""

    def say(self, line: str) -> None:
        """A line of a component's trace."""
        self.lines.append(line)

    def hear(self, slot: VmSlot, word: int) -> bool:
        """One word of a tracing module; False if it is not one."""
        if self.entries and len(self.entries[-1].words) < self.entries[-1].expected:
            entry = self.entries[-1]
            entry.words.append(word)
            if len(entry.words) == entry.expected:
                self.begun(slot, entry)
            return True
        if self.returning:
            self.returning = False
            self.ended(slot, self.entries.pop(), word)
            return True
        if word & RETURN:
            self.returning = True
        elif word & CALLBACK:
            self.abandon()
            self.enter(slot, callback_entry(slot, word & ~CALLBACK))
        elif word & HOST_CALL:
            self.enter(slot, host_entry(slot, word & ~HOST_CALL))
        else:
            return False
        return True

    def enter(self, slot: VmSlot, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.item is not None:
            self.called.add(entry.name)
        if not entry.expected:
            self.begun(slot, entry)

    def begun(self, slot: VmSlot, entry: Entry) -> None:
        if entry.item is None:
            self.lines.append(f"{entry.name}({callback_text(entry.name, entry.words)})")
        else:
            entry.shown.append(arguments_text(entry.name, entry.words, peek(slot)))

    def ended(self, slot: VmSlot, entry: Entry, result: int) -> None:
        text = result_text(entry.name, entry.words, result, peek(slot), entry.item)
        if entry.item is None:
            if text:
                self.lines.append(f"  -> {text}")
        else:
            self.lines.append(f"  {entry.name}({entry.shown[0]}) -> {text}{refusal(slot) if result else ''}")

    def abandon(self) -> None:
        """A callback begins: what has not returned was ended."""
        for entry in reversed(self.entries):
            self.lines.append(f"  {'' if entry.item is None else entry.name + ' '}-> did not return")
        self.entries.clear()


def refusal(slot: VmSlot) -> str:
    """Why the host function that has just returned refused, in brackets."""
    host = slot.vm.store.host if slot.vm is not None else None
    if not isinstance(host, KitHost) or not host.refusal:
        return ""
    text, host.refusal = f" ({host.refusal})", ""
    return text


def peek(slot: VmSlot) -> Callable[[int, int], bytes | None]:
    vm = slot.vm
    return vm.store.peek if vm is not None else lambda address, size: None


def callback_entry(slot: VmSlot, number: int) -> Entry:
    name = CALLBACKS[number]
    export = next(one for one in slot.compiled.outline.exports if one.name == name and one.function is not None)
    assert export.function is not None
    return Entry(name, None, [], len(export.function.params), [])


def host_entry(slot: VmSlot, place: int) -> Entry:
    item = slot.compiled.outline.imports[place]
    assert item.function is not None
    return Entry(item.name, item, [], sum(1 + (kind == "i64") for kind in item.function.params), [])
