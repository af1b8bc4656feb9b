"""Links a filter with the ABI core: the modules that are generated for it, and the order of their instances.

A filter imports functions of the core, and the core calls the filter: a cycle. `LINK`, instantiated first, breaks it with a
table; the filter's own `bridge`, instantiated last, fills the table. The bridge is also the only code that sees two memories,
the filter's and the stream memory: it checks every address, and it gives all callbacks one type.

    link <- core (imports link, the stream memory) <- filter (imports core) <- bridge (imports link's table, both memories)
"""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import wasmtime

from proxy.abi.memory import StreamMemory
from proxy.abi.proxy_wasm.signatures import CALLBACKS_BY_VERSION, WASI_MODULES, WASI_VARIANTS, Signature
from proxy.wasm.fault import GuestFault
from proxy.wasm.module import Module
from proxy.wasm.store import Store

CALLBACKS: Final = (
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_body",
    "proxy_on_response_trailers",
    "proxy_on_done",
    "proxy_on_log",
    "proxy_on_delete",
    "proxy_on_tick",
    "proxy_on_http_call_response",
    "proxy_on_grpc_receive_initial_metadata",
    "proxy_on_grpc_receive",
    "proxy_on_grpc_receive_trailing_metadata",
    "proxy_on_grpc_close",
    "proxy_on_queue_ready",
    "proxy_on_foreign_function",
)
"""Position = number in core/abi.c."""

ACCEPTED: Final = frozenset({"proxy_on_vm_start", "proxy_on_configure", "proxy_on_done"})
"""Callbacks whose answer is 1 when they have no result."""

STATUS_DENIED: Final = 10
ERRNO_DENIED: Final = 76
ERRNO_UNSUPPORTED: Final = 58
"""Envoy's answers of a function that the capability restriction leaves out (InternalFailure, ENOTCAPABLE)."""

READ, WRITE, STORE, CHECK, ALLOCATE = range(20, 25)

LINK: Final = f"""
(module
  (type $t2 (func (param i32 i32) (result i32)))
  (type $t3 (func (param i32 i32 i32) (result i32)))
  (type $t1 (func (param i32) (result i32)))
  (type $t5 (func (param i32 i32 i32 i32 i32) (result i32)))
  (table $slots (export "table") 25 funcref)
  (func (export "read") (param i32 i32 i32) (result i32)
    (call_indirect (type $t3) (local.get 0) (local.get 1) (local.get 2) (i32.const {READ})))
  (func (export "write") (param i32 i32 i32) (result i32)
    (call_indirect (type $t3) (local.get 0) (local.get 1) (local.get 2) (i32.const {WRITE})))
  (func (export "store") (param i32 i32) (result i32)
    (call_indirect (type $t2) (local.get 0) (local.get 1) (i32.const {STORE})))
  (func (export "check") (param i32 i32) (result i32)
    (call_indirect (type $t2) (local.get 0) (local.get 1) (i32.const {CHECK})))
  (func (export "allocate") (param i32) (result i32)
    (call_indirect (type $t1) (local.get 0) (i32.const {ALLOCATE})))
  (func (export "callback") (param i32 i32 i32 i32 i32 i32) (result i32)
    (call_indirect (type $t5) (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5))))
"""


def exported_callbacks(outline: Module, abi: str, allowed: Iterable[str] | None) -> dict[str, Signature]:
    """The callbacks that a module exports with the type its ABI version gives them, less those that are not allowed."""
    types = CALLBACKS_BY_VERSION[abi]
    found = {}
    if allowed is not None and not any(permitted(name, allowed) for name in CALLBACKS):
        allowed = None  # the list is about host functions only
    for export in outline.exports:
        if export.kind != "function" or export.function is None or export.name not in CALLBACKS:
            continue
        exported = Signature(export.function.params, export.function.results)
        wanted = types.get(export.name)
        if wanted is None or exported.params != wanted.params or not permitted(export.name, allowed):
            continue
        if not does_nothing(outline, export.index, export.name):
            found[export.name] = exported
    return found


def does_nothing(outline: Module, index: int, name: str) -> bool:
    """Is the callback's body empty but for the answer that its absence would mean? Then nothing is lost by not calling it:
    toolchains and templates leave many of these."""
    nothing = object()
    answer = outline.constants.get(index, nothing)
    return answer is None or answer == int(name in ACCEPTED)


def permitted(name: str, allowed: Iterable[str] | None) -> bool:
    """Is a host function or callback on the allow-list? No list allows all (capability restriction, wasm.proto)."""
    return allowed is None or any(fnmatchcase(name, pattern) for pattern in allowed)


def quoted(name: str) -> str:
    """A name as the text format writes it, whatever it holds."""
    return "".join(f"\\{byte:02x}" for byte in name.encode())


def bridge_text(
    outline: Module,
    callbacks: Mapping[str, Signature],
    allocator: str,
    memory: str,
    around: Callable[[int, int, str], str] | None = None,
) -> str:
    """The bridge of a filter, in the text format. `around(slot, parameters, call)` writes what stands in the place of a
    callback's call; it may tell by `$note`, a function (i32) of the stubs."""
    lines = [
        '(import "link" "table" (table $slots 25 funcref))',
        '(import "core" "memory" (memory $core 1 65536 shared))',
        f'(import "guest" "{quoted(memory)}" (memory $guest 0))',
        f'(import "guest" "{allocator}" (func $allocate (param i32) (result i32)))',
    ]
    if around is not None:
        lines.append('(import "stubs" "note" (func $note (param i32)))')
    adapters = []
    for slot, name in enumerate(CALLBACKS):
        signature = callbacks.get(name)
        if signature is None:
            continue
        params = " ".join(signature.params)
        results = f"(result {' '.join(signature.results)})" if signature.results else ""
        lines.append(f'(import "guest" "{name}" (func $guest_{slot} (param {params}) {results}))')
        arguments = " ".join(f"(local.get {i})" for i in range(len(signature.params)))
        answer = "" if signature.results else f"(i32.const {int(name in ACCEPTED)})"
        call = f"(call $guest_{slot} {arguments}) {answer}"
        if around is not None:
            call = around(slot, len(signature.params), call)
        adapters.append(f"(func $callback_{slot} (param i32 i32 i32 i32 i32) (result i32) {call})")
        adapters.append(f"(elem (table $slots) (i32.const {slot}) func $callback_{slot})")
    inside = """(i64.gt_u (i64.add (i64.extend_i32_u (local.get {at})) (i64.extend_i32_u {size}))
        (i64.shl (i64.extend_i32_u (memory.size $guest)) (i64.const 16)))"""
    refuse = "(if {test} (then (return (i32.const 6))))"
    checks = {
        "read": refuse.format(test=inside.format(at=1, size="(local.get 2)")),
        "write": refuse.format(test=inside.format(at=0, size="(local.get 2)")),
        "store": refuse.format(test=inside.format(at=0, size="(i32.const 4)")),
        "check": refuse.format(test=inside.format(at=0, size="(local.get 1)")),
    }
    lines += adapters
    lines += [
        f"""(func $read (param i32 i32 i32) (result i32) {checks["read"]}
      (memory.copy $core $guest (local.get 0) (local.get 1) (local.get 2)) (i32.const 0))""",
        f"""(func $write (param i32 i32 i32) (result i32) {checks["write"]}
      (memory.copy $guest $core (local.get 0) (local.get 1) (local.get 2)) (i32.const 0))""",
        f"""(func $store (param i32 i32) (result i32) {checks["store"]}
      (i32.store $guest align=1 (local.get 0) (local.get 1)) (i32.const 0))""",
        f"(func $check (param i32 i32) (result i32) {checks['check']} (i32.const 0))",
        f"(elem (table $slots) (i32.const {READ}) func $read $write $store $check $allocate)",
    ]
    return "(module\n  " + "\n  ".join(lines) + ")"


def denied_functions(outline: Module, allowed: Iterable[str] | None) -> tuple[str, ...]:
    """The functions that the filter imports and may not call, by name. Position = number in its stubs."""
    names = (item.name for item in outline.imports if item.function is not None and item.function.results)
    return tuple(sorted({name for name in names if not permitted(name, allowed)}))


def stubs_text(outline: Module, allowed: Iterable[str] | None) -> str | None:
    """A module with constant answers in place of the core's functions: for what the filter imports but may not call, which
    the core is told of, and for WASI functions under the other type that Envoy knows. None if there are none."""
    numbers = {name: number for number, name in enumerate(denied_functions(outline, allowed))}
    stubs: dict[str, str] = {}
    for item in outline.imports:
        if item.function is None or not item.function.results:
            continue
        wasi = item.module in WASI_MODULES
        note = ""
        if item.name in numbers:
            answer = ERRNO_DENIED if wasi else STATUS_DENIED
            note = f"(call $denied (i32.const {numbers[item.name]}))"
        elif wasi and item.name in WASI_VARIANTS and item.function.params == WASI_VARIANTS[item.name].params:
            answer = ERRNO_UNSUPPORTED
        else:
            continue
        params = " ".join(item.function.params)
        name = f"{item.module}.{item.name}"
        stubs[name] = f'(func (export "{name}") (param {params}) (result i32) {note} (i32.const {answer}))'
    if not stubs:
        return None
    return '(module\n  (import "core" "denied" (func $denied (param i32)))\n  ' + "\n  ".join(stubs.values()) + ")"


class Linked:
    """The instances of one VM."""

    def __init__(self, store: Store, core: Any, guest: Any) -> None:
        self.store = store
        self.core = core
        self.guest = guest


def link(
    store: Store,
    memory: StreamMemory,
    link_module: wasmtime.Module,
    guest_module: wasmtime.Module,
    bridge_module: wasmtime.Module,
    stubs_module: wasmtime.Module | None,
    guest_memory: str,
) -> Linked:
    """Instantiate a filter in `store`. Raises GuestFault: its start function failed, or it is over a limit."""
    table = store.instantiate(link_module, [])
    core = store.instantiate(memory.core, memory.core_imports(store, table))
    stubs = None
    if stubs_module is not None:
        stubs = store.instantiate(stubs_module, [store.export(core, item.name or "") for item in stubs_module.imports])
    imports = []
    for item in guest_module.imports:
        found = store.export(stubs, f"{item.module}.{item.name}") if stubs is not None else None
        if found is None:
            found = store.export(core, f"wasi_{item.name}" if item.module in WASI_MODULES else item.name or "")
        if found is None:
            raise GuestFault("start", f"imports {item.module}.{item.name}, which does not exist")
        imports.append(found)
    guest = store.instantiate(guest_module, imports)
    store.memory_extern = store.export(guest, guest_memory)
    sources = {"link": table, "guest": guest, "stubs": stubs}  # a tracing bridge (kit/tracing.py) tells by the stubs
    bridge_imports = [
        store.shared_memory() if item.module == "core" else store.export(sources[item.module], item.name or "")
        for item in bridge_module.imports
    ]
    store.instantiate(bridge_module, bridge_imports)
    return Linked(store, core, guest)
