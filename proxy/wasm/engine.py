"""One wasmtime engine for each process, with the clock that ends calls which take too long; and the stream memories, one for
each generation of filters."""

import threading
import time
from hashlib import sha256
from typing import Any, Final
from weakref import WeakValueDictionary

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


class Process:
    """What a process has one of: the engine of wasmtime, its watch, and what was found out about it. Create it after forking.

    wasmtime ties a function type to the engine that it is first used with, and aborts if it meets another.
    """

    def __init__(self) -> None:
        capi.verify()
        self.wasmtime = wasmtime.Engine(engine_config())
        self.pointer = capi.pointer(self.wasmtime)
        self.fuel_offset = capi.fuel_cell_offset(self.pointer)
        self.copied_offset = capi.copied_cell_offset(self.pointer)
        self.host_function = wasmtime.FuncType([wasmtime.ValType.i32()], [wasmtime.ValType.i32()])
        self.host_type = capi.pointer(self.host_function)
        self.watch = Watch(self.pointer)
        self.modules: WeakValueDictionary[bytes, wasmtime.Module] = WeakValueDictionary()
        """Loaded modules by the digest of their code: a filter that a reload leaves as it is is not loaded again."""
        self.tested = False
        """The codec's self-test has passed."""

    def load(self, serialised: bytes) -> wasmtime.Module:
        digest = sha256(serialised).digest()
        found = self.modules.get(digest)
        if found is None:
            found = self.modules[digest] = wasmtime.Module.deserialize(self.wasmtime, serialised)
        return found

    def close(self) -> None:
        self.watch.stop()


class Engine:
    """Loads serialised modules and owns the memory that all core instances of one generation of filters share.

    Without `process` it has one of its own, and closes it.
    """

    def __init__(self, memory_type: wasmtime.MemoryType, process: Process | None = None) -> None:
        self.owns_process = process is None
        process = self.process = process or Process()
        self.wasmtime = process.wasmtime
        self.pointer = process.pointer
        self.fuel_offset = process.fuel_offset
        self.copied_offset = process.copied_offset
        self.host_type = process.host_type
        self.watch = process.watch
        self.shared_memory = wasmtime.SharedMemory(self.wasmtime, memory_type)
        self.memory_pointer = capi.pointer(self.shared_memory)

    def load(self, serialised: bytes) -> wasmtime.Module:
        """A module that this engine's settings compiled. Only for bytes of our own making: they are machine code."""
        return self.process.load(serialised)

    def load_component(self, serialised: bytes) -> Component:
        """As `load`, of a component."""
        return Component.deserialize(self.wasmtime, serialised)

    def memory(self) -> Any:
        """The stream memory as a buffer. Made anew after it has grown; its address stays. Raises ValueError if closed."""
        self.shared_memory.ptr()
        data = lib.wasmtime_sharedmemory_data(self.memory_pointer)
        return ffi.buffer(data, lib.wasmtime_sharedmemory_data_size(self.memory_pointer))

    def grow_memory(self, size: int) -> None:
        """Let the stream memory have `size` bytes more."""
        self.shared_memory.grow(-(-size // 65536))

    def close(self) -> None:
        """Free the memory, once its stores are closed. Nothing may read or write it afterwards."""
        self.shared_memory.close()
        if self.owns_process:
            self.process.close()
