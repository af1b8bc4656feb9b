"""A store: one VM's instances, with its limits. Thrown away after any fault."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import structlog
import wasmtime

from proxy.telemetry.logging import limited
from proxy.wasm import capi
from proxy.wasm.capi import ffi, lib
from proxy.wasm.engine import Engine
from proxy.wasm.fault import GuestFault

log = structlog.get_logger("wasm")

DEADLINE: Final = "deadline"
TABLE_ELEMENTS: Final = 100_000
LONGEST_MESSAGE: Final = 300
"""Characters of what is said of a trap."""


class StoreLimits(NamedTuple):
    """How many of each there may be in one store."""

    instances: int = 8
    tables: int = 16
    memories: int = 4


USUAL: Final = StoreLimits()


@ffi.callback("unchecked_callback", error=ffi.NULL)  # type: ignore[untyped-decorator]
def on_host_call(env: Any, caller: Any, values: Any, n: int) -> Any:
    """A guest's call that Python answers. Nothing may be raised through Wasm frames: a failure is status 10."""
    store: Store = ffi.from_handle(env)
    try:
        values[0] = store.host(values[0])
    except Exception:
        if not limited("host_function_failed", 1):  # a guest decides how often it calls
            log.exception("host_function_failed", operation=values[0])
        values[0] = 10
    return ffi.NULL


@ffi.callback("epoch_callback", error=ffi.NULL)  # type: ignore[untyped-decorator]
def on_epoch(context: Any, data: Any, delta: Any, kind: Any) -> Any:
    store: Store = ffi.from_handle(data)
    if store.engine.watch.late(store.deadline):
        return lib.wasmtime_error_new(DEADLINE.encode())
    delta[0] = 1
    kind[0] = capi.EPOCH_CONTINUE
    return ffi.NULL


class Store:
    """Instances of one VM.

    `memory_limit`: bytes of the guest's linear memory; `deadline`: seconds of CPU for each call; `host`: answers the core's
    calls to Python (operation -> status).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        memory_limit: int,
        deadline: float,
        host: Callable[[int], int],
        limits: StoreLimits = USUAL,
    ) -> None:
        self.engine = engine
        self.watch = engine.watch
        self.deadline = deadline
        self.host = host
        self.memory_limit = memory_limit
        self.handle = ffi.new_handle(self)
        self.pointer = lib.wasmtime_store_new(engine.pointer, ffi.NULL, ffi.NULL)
        self.context = lib.wasmtime_store_context(self.pointer)
        lib.wasmtime_store_limiter(self.pointer, memory_limit, TABLE_ELEMENTS, *limits)
        lib.wasmtime_store_epoch_deadline_callback(self.pointer, on_epoch, self.handle, ffi.NULL)
        lib.wasmtime_context_set_epoch_deadline(self.context, 1)
        self.fuel_cell = capi.fuel_cell(self.context, engine.fuel_offset) or FuelByCalls(self)
        """`fuel_cell[0]` is minus the fuel that is left, to read and to write."""
        self.trap = ffi.new("void **")
        self.left = ffi.new("uint64_t *")
        self.memory_extern: Any = None

    def close(self) -> None:
        """Free the instances; the store is unusable afterwards."""
        if self.pointer:
            lib.wasmtime_store_delete(self.pointer)
            self.pointer = self.context = ffi.NULL

    def set_fuel(self, fuel: int) -> None:
        lib.wasmtime_context_set_fuel(self.context, fuel)

    def fuel(self) -> int:
        """Fuel that is left."""
        lib.wasmtime_context_get_fuel(self.context, self.left)
        return int(self.left[0])

    def charge(self, fuel: int) -> bool:
        """Take `fuel` from a running call. False: it had less, and the guest stops at its next check."""
        cell = self.fuel_cell  # while Python runs, the guest has put its count there
        left: int = -cell[0]
        cell[0] = fuel - left if left > fuel else 0
        return left > fuel

    def host_function(self) -> Any:
        """`host` as a function of type (i32) -> i32."""
        item = ffi.new("extern_t *")
        item.kind = capi.FUNC
        lib.wasmtime_func_new_unchecked(
            self.context, self.engine.host_type, on_host_call, self.handle, ffi.NULL, ffi.addressof(item.of, "func")
        )
        return item[0]

    def shared_memory(self) -> Any:
        item = ffi.new("extern_t *")
        item.kind = capi.SHARED_MEMORY
        item.of.sharedmemory = self.engine.memory_pointer
        return item[0]

    def instantiate(self, module: wasmtime.Module, imports: list[Any]) -> Any:
        """An instance of `module`. Raises GuestFault if its start function fails or a limit is passed."""
        items = ffi.new("extern_t[]", max(len(imports), 1))
        for i, item in enumerate(imports):
            items[i] = item
        instance = ffi.new("instance_t *")
        self.watch.sequence += 1
        error = lib.wasmtime_instance_new(self.context, capi.pointer(module), items, len(imports), instance, self.trap)
        self.watch.sequence += 1
        if error or self.trap[0]:
            raise self.fault(error)
        return instance

    def export(self, instance: Any, name: str) -> Any | None:
        item = ffi.new("extern_t *")
        text = name.encode()
        if not lib.wasmtime_instance_export_get(self.context, instance, text, len(text), item):
            return None
        return item[0]

    def function(self, instance: Any, name: str, parameters: int = 0) -> Any:
        """A pointer for `call` with `parameters` arguments. Raises GuestFault unless the export is a function of so many i32
        that gives at most one: calls are unchecked, and a guest could read and write beyond their values.
        """
        item = self.export(instance, name)
        if item is None or item.kind != capi.FUNC:
            raise GuestFault("start", f"no function {name} is exported")
        function = ffi.new("func_t *", item.of.func)
        if capi.arity(self.context, function) not in ((parameters, 0), (parameters, 1)):
            raise GuestFault("start", f"the function {name} has another type than {parameters} i32 and at most one i32 back")
        return function

    def call(self, function: Any, *arguments: int) -> int:
        """Call a function of i32 parameters and at most one i32 result. Raises GuestFault."""
        values = ffi.new("uint32_t[]", capi.VALUE_WORDS * max(len(arguments), 1))
        for i, argument in enumerate(arguments):
            values[capi.VALUE_WORDS * i] = argument & 0xFFFFFFFF
        self.watch.sequence += 1
        error = lib.wasmtime_func_call_unchecked(self.context, function, values, max(len(arguments), 1), self.trap)
        self.watch.sequence += 1
        if error or self.trap[0]:
            raise self.fault(error)
        return int(values[0])

    def fault(self, error: Any) -> GuestFault:
        """What an unsuccessful call says of itself."""
        if self.trap[0]:
            code, text = capi.take_trap(self.trap[0])
            self.trap[0] = ffi.NULL
        else:
            code, text = None, capi.take_error(error)
        if code == capi.TRAP_OUT_OF_FUEL or "all fuel consumed" in text:
            return GuestFault("fuel", "all fuel consumed")
        if DEADLINE in text and code is None:
            return GuestFault("deadline", f"ran longer than {self.deadline * 1000:g} ms")
        if code == capi.TRAP_UNREACHABLE and 4 * (used := self.guest_memory()) >= 3 * self.memory_limit:
            # Allocators ask for memory in large steps, and abort when there is no more.
            return GuestFault("memory", f"gave up with {used} of at most {self.memory_limit} bytes of memory")
        return GuestFault("trap", first_line(text))

    def guest_memory(self) -> int:
        """Bytes of the guest's linear memory now; 0 before it is known."""
        if self.memory_extern is None or not self.context:
            return 0
        return int(lib.wasmtime_memory_data_size(self.context, ffi.addressof(self.memory_extern.of, "memory")))

    def peek(self, address: int, size: int) -> bytes | None:
        """Bytes of the guest's memory, for a trace; None if they are not all in it. Serving never looks there."""
        if address + size > self.guest_memory():
            return None
        start = lib.wasmtime_memory_data(self.context, ffi.addressof(self.memory_extern.of, "memory"))
        return bytes(ffi.buffer(start + address, size))


class FuelByCalls:
    """The fuel cell of a wasmtime that does not show its own."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __getitem__(self, index: int) -> int:
        return -self.store.fuel()

    def __setitem__(self, index: int, value: int) -> None:
        self.store.set_fuel(-value)


def first_line(text: str) -> str:
    """A trap's text without its backtrace headings: "wasm trap: ..." and the innermost frame."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cause = next((line.split(": ", 1)[1] for line in lines if ": wasm trap: " in line or "wasm trap:" in line), None)
    frame = next((line for line in lines if line.startswith("0:")), None)
    cause = (cause or (lines[0] if lines else "trap")).removeprefix("wasm trap: ")
    message = f"{cause} at {frame}" if frame else cause
    # A frame's name is the module's own: of any length, with anything in it.
    return "".join(character if character.isprintable() else "?" for character in message[:LONGEST_MESSAGE])
