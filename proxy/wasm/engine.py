"""One wasmtime engine for each worker, with the stream memory and the clock that ends calls which take too long."""

import threading
import time
from typing import Any, Final

import wasmtime
from wasmtime.component import Component

from proxy.wasm import capi
from proxy.wasm.capi import ffi, lib
from proxy.wasm.settings import engine_config

TICK: Final = 0.005
"""Seconds between two looks of the watch at the running call."""


class Watch:
    """Ends calls that have burned their deadline (design: an epoch is the backstop, fuel is the budget).

    A thread looks every TICK. Only when it finds the same call running twice does it raise the engine's epoch; the guest then
    calls `late`, which compares the CPU time that this thread has spent since with the deadline. So a call that was merely
    not scheduled goes on, and calls that are short never see an epoch. `sequence` is odd while a call runs.
    """

    def __init__(self, engine: Any) -> None:
        self.sequence = 0
        self.engine = engine
        self.raised_for = -1
        self.watched = -1
        self.burned_from = 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, name="wasm-watch", daemon=True)
        self.thread.start()

    def run(self) -> None:
        last = 0
        while not self.stopped.wait(TICK):
            now = self.sequence
            if now & 1 and now == last:
                self.raised_for = now
                lib.wasmtime_engine_increment_epoch(self.engine)
            last = now

    def late(self, deadline: float) -> bool:
        """Called by the guest's thread at an epoch: has this call burned `deadline` seconds?"""
        if self.raised_for != self.sequence:
            return False  # an epoch of another call, which this store meets only now
        cpu = time.thread_time()
        if self.watched != self.sequence:
            self.watched, self.burned_from = self.sequence, cpu - 1.5 * TICK
        return cpu - self.burned_from >= deadline

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join()


class Engine:
    """Loads serialised modules and owns the memory that all core instances share. Create it after forking."""

    def __init__(self, memory_type: wasmtime.MemoryType) -> None:
        capi.verify()
        self.wasmtime = wasmtime.Engine(engine_config())
        self.pointer = capi.pointer(self.wasmtime)
        self.shared_memory = wasmtime.SharedMemory(self.wasmtime, memory_type)
        self.memory_pointer = capi.pointer(self.shared_memory)
        self.fuel_offset = capi.fuel_cell_offset(self.pointer)
        self.copied_offset = capi.copied_cell_offset(self.pointer)
        # wasmtime ties a function type to the engine it is first used with.
        self.host_function = wasmtime.FuncType([wasmtime.ValType.i32()], [wasmtime.ValType.i32()])
        self.host_type = capi.pointer(self.host_function)
        self.watch = Watch(self.pointer)

    def load(self, serialised: bytes) -> wasmtime.Module:
        """A module that this engine's settings compiled. Only for bytes of our own making: they are machine code."""
        return wasmtime.Module.deserialize(self.wasmtime, serialised)

    def load_component(self, serialised: bytes) -> Component:
        """As `load`, of a component."""
        return Component.deserialize(self.wasmtime, serialised)

    def memory(self) -> Any:
        """The stream memory as a buffer. Made anew after it has grown; its address stays."""
        data = lib.wasmtime_sharedmemory_data(self.memory_pointer)
        return ffi.buffer(data, lib.wasmtime_sharedmemory_data_size(self.memory_pointer))

    def grow_memory(self, size: int) -> None:
        """Let the stream memory have `size` bytes more."""
        self.shared_memory.grow(-(-size // 65536))

    def close(self) -> None:
        self.watch.stop()
