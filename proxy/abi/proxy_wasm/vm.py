"""One VM: a store with a filter's instances, entered through the core's `enter`. It dies of its first fault."""

import struct
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

import wasmtime

from proxy.abi.memory import StreamMemory
from proxy.abi.proxy_wasm.link import link
from proxy.wasm import capi
from proxy.wasm.capi import lib
from proxy.wasm.fault import GuestFault
from proxy.wasm.module import Module
from proxy.wasm.store import Store

ON_CONTEXT_CREATE: Final = 0
ON_VM_START: Final = 1
ON_CONFIGURE: Final = 2
ON_REQUEST_HEADERS: Final = 3
ON_REQUEST_BODY: Final = 4
ON_REQUEST_TRAILERS: Final = 5
ON_RESPONSE_HEADERS: Final = 6
ON_RESPONSE_BODY: Final = 7
ON_RESPONSE_TRAILERS: Final = 8
ON_DONE: Final = 9
ON_LOG: Final = 10
ON_DELETE: Final = 11
ON_TICK: Final = 12
ON_HTTP_CALL_RESPONSE: Final = 13
ON_GRPC_INITIAL: Final = 14
ON_GRPC_RECEIVE: Final = 15
ON_GRPC_TRAILING: Final = 16
ON_GRPC_CLOSE: Final = 17
ON_QUEUE_READY: Final = 18
FINISH: Final = 20

DONE: Final = 1 << 29
MOST_CONTEXTS: Final = DONE - 1
LONG_LIVED_CONTEXTS: Final = 1 << 20
"""Where ids go on after MOST_CONTEXTS: below it lie those of root contexts."""

CREATE: Final = 1 << 8
END_STREAM: Final = 1 << 9
READABLE_SHIFT: Final = 10
WRITABLE_SHIFT: Final = 18
BUFFERS_SET: Final = 1 << 26
LOG_PHASE: Final = 1 << 27

CALL_BODY: Final = 4
GRPC_MESSAGE: Final = 5
VM_CONFIGURATION: Final = 6
PLUGIN_CONFIGURATION: Final = 7
BUFFERS: Final = 9
EXPOSED: Final = tuple(struct.Struct(f"<{16 * i}x4I{16 * (BUFFERS - 1 - i)}x") for i in range(BUFFERS))
"""The call block's records of its buffers, all of them empty but one: address, size, capacity, what may be done with it."""
ARGUMENTS: Final = tuple(struct.Struct(f"<{n}I") for n in range(5))

VALUES: Final = capi.ffi.new("uint32_t[]", 4 * capi.VALUE_WORDS)
"""Arguments and result of `enter`, of whichever VM runs."""
VALUES_BUFFER: Final = capi.ffi.buffer(VALUES)
set_values: Final = struct.Struct("<" + "I12x" * 4).pack_into
"""All four arguments at once: a third of the price of four items."""
call_unchecked = lib.wasmtime_func_call_unchecked


class Compiled:
    """What a filter's file became: the modules of its VM."""

    def __init__(
        self,
        outline: Module,
        guest: wasmtime.Module,
        bridge: wasmtime.Module,
        link_module: wasmtime.Module,
        stubs: wasmtime.Module | None,
        memory_export: str,
        start_export: str | None,
        denied: tuple[str, ...] = (),
    ) -> None:
        self.outline = outline
        self.guest = guest
        self.bridge = bridge
        self.link_module = link_module
        self.stubs = stubs
        self.memory_export = memory_export
        self.start_export = start_export
        self.denied = denied
        """The functions that it imports and may not call; position = number in `stubs`."""
        self.exports = {export.name for export in outline.exports if export.kind == "function"}


class Vm:
    """`host(operation)` answers the core; `records` are the addresses of vm records in the stream memory (plugin.py)."""

    def __init__(
        self, memory: StreamMemory, compiled: Compiled, *, memory_limit: int, deadline: float, host: Callable[[int], int]
    ) -> None:
        self.memory = memory
        self.compiled = compiled
        self.store = Store(memory.engine, memory_limit=memory_limit, deadline=deadline, host=host)
        self.watch = memory.engine.watch
        self.dead = False
        self.exited: int | None = None
        self.next_context = 1
        self.used = 0
        """Fuel of the last call."""
        self.elapsed = 0.0
        """Seconds of the last call."""
        self.hot: tuple[Any, ...] = ()

    def start(self, record: int, fuel: int, deadline: float) -> None:
        """Instantiate, and run the module's own start; `used` is then what the costliest part took. Raises GuestFault."""
        store = self.store
        serving, store.deadline = store.deadline, deadline
        store.set_fuel(fuel)
        prepare = self.memory.functions["prepare"]
        self.memory.store.call(prepare, record)
        compiled = self.compiled
        linked = link(
            store, self.memory, compiled.link_module, compiled.guest, compiled.bridge, compiled.stubs, compiled.memory_export
        )
        self.used = fuel - store.fuel()
        self.enter_function = store.function(linked.core, "enter", 4)
        self.hot = (VALUES, store.context, self.enter_function, store.trap, store.fuel_cell, self.watch)
        names = [compiled.start_export] if compiled.start_export else []
        if compiled.start_export == "_initialize":  # proxy-wasm-cpp-host src/wasm.cc: then main, if there is one
            names += [name for name in ("main", "__main_void") if name in compiled.exports][:1]
        for name in names:
            store.set_fuel(fuel)
            self.memory.store.call(prepare, record)
            try:
                arguments = (0, 0) if name == "main" else ()
                store.call(store.function(linked.guest, name, len(arguments)), *arguments)
            except GuestFault:
                if self.exited != 0:  # proc_exit(0) is how _start ends; what runs behind it is the toolchain's trap
                    raise
            self.used = max(self.used, fuel - store.fuel())
        store.deadline = serving

    def new_context(self) -> int:
        """An id for a context; they count up and come round again only after half a thousand million streams."""
        context = self.next_context
        self.next_context = context + 1 if context < MOST_CONTEXTS else LONG_LIVED_CONTEXTS
        return context

    def enter(self, record: int, context: int, flags: int, argument: int, fuel: int) -> int:
        """Run callbacks (core/abi.c, `enter`) on at most `fuel`; the action and RESULT bits. Raises GuestFault, after which
        the VM is dead. StreamContext.call has this written out."""
        values, store_context, function, trap, cell, watch = self.hot
        set_values(VALUES_BUFFER, 0, context, flags, argument, record)
        cell[0] = -fuel
        started = perf_counter()
        watch.sequence += 1
        error = call_unchecked(store_context, function, values, 4, trap)
        watch.sequence += 1
        self.elapsed = perf_counter() - started
        self.used = fuel + cell[0]
        result: int = values[0]
        if result < DONE:  # then it is still the context's id
            raise self.died(error)
        return result - DONE

    def died(self, error: Any) -> GuestFault:
        """What ended a call before its end, and this VM with it."""
        self.dead = True
        self.memory.mend()
        return self.store.fault(error)

    def expose(self, buffer: int, address: int, size: int) -> None:
        """Let the next call with BUFFERS_SET read `size` bytes at `address` as `buffer`, and no other buffer."""
        EXPOSED[buffer].pack_into(self.memory.buffer, self.memory.at_buffers, address, size, 0, 1)

    def arguments(self, *words: int) -> None:
        """Arguments for a callback that `enter` takes from the call block."""
        memory = self.memory
        try:
            ARGUMENTS[len(words)].pack_into(memory.buffer, memory.at_arguments, *words)
        except struct.error:  # one is negative
            ARGUMENTS[len(words)].pack_into(memory.buffer, memory.at_arguments, *(word & 0xFFFFFFFF for word in words))

    def close(self) -> None:
        self.dead = True
        self.store.close()
