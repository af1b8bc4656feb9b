"""An instance of a component in its store: calls its exports within the budgets, answers what it imports.

After any fault the instance is dead (wasmtime: "cannot enter component instance") and is thrown away with its store.
"""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final

import structlog
from wasmtime import component

from proxy.abi.component.codec import Arena, Codec, Coder, LiftError
from proxy.abi.component.types import Function, Interfaces
from proxy.abi.component.worlds import function_name
from proxy.telemetry.logging import limited
from proxy.wasm import capi
from proxy.wasm.capi import VAL_SIZE, ffi, lib
from proxy.wasm.engine import Engine
from proxy.wasm.fault import GuestFault
from proxy.wasm.linear_memory import mapped, memories
from proxy.wasm.store import DEADLINE, Store, StoreLimits

log = structlog.get_logger("filter")

ARENA: Final = 128 << 10
"""Bytes for the structures of one call; what is more gets memory of its own."""
MOST_PARAMETERS: Final = 4
COPIED: Final = 512 << 10
"""Bytes that a call may copy out of a guest beside its one long text: some 4,000 edits of a head."""
INSTANCES: Final = 64
"""Core instances in one component instance: QuickJS has 16, Python's 25."""
TABLES: Final = 64
MOST_MEMORIES: Final = 4

HostFunction = Callable[..., Any]


class DeniedError(Exception):
    """The filter may not call this function, and it has no other way to say so than a trap."""


class Import:
    """A function that Python answers."""

    def __init__(self, name: str, function: HostFunction, coder: Coder, arena: Arena) -> None:
        self.name = name
        self.answer = function
        self.function = function
        self.lift = coder.lift
        self.lower = coder.lower_result
        self.arena = arena


IMPORTS: Final[dict[int, Import]] = {}
"""What C knows by a number."""


@ffi.callback("component_callback", error=ffi.NULL)  # type: ignore[untyped-decorator]
def on_import(number: int, context: Any, type_: Any, args: int, n: int, results: int, m: int) -> Any:
    """A guest's call. Whatever is raised must stay on this side: through Wasm's frames it ends the process."""
    called = IMPORTS.get(number)
    if called is None:
        return lib.wasmtime_error_new(b"the filter is closed")
    try:
        lift = called.lift
        if n == 2:
            value = called.function(lift[0](args), lift[1](args + VAL_SIZE))
        elif n == 1:
            value = called.function(lift[0](args))
        else:
            value = called.function(*[lift[i](args + VAL_SIZE * i) for i in range(n)])
        lower = called.lower
        if lower is not None:
            arena = called.arena
            arena.reset()
            at = arena.take(VAL_SIZE)
            lower(value, at)
            lib.wasmtime_component_val_clone(at, results)
        return ffi.NULL
    except LiftError as error:
        return lib.wasmtime_error_new(f"{REFUSED}{called.name}: {error}".encode())
    except DeniedError as error:
        return lib.wasmtime_error_new(str(error).encode())
    except Exception:
        if not limited("host_function_failed", 1):  # a guest decides how often it calls
            log.exception("host_function_failed", function=called.name)
        return lib.wasmtime_error_new(f"{called.name} failed".encode())
    except BaseException as error:
        escaped.append(error)
        return lib.wasmtime_error_new(b"the process ends")


REFUSED: Final = "penstock refused: "
escaped: Final[list[BaseException]] = []
"""What ended a host function and is no error (KeyboardInterrupt): raised again on the other side of the guest."""


class Linked:
    """A component with its imports answered, to be instantiated any number of times. Close it after its instances."""

    def __init__(
        self,
        engine: Engine,
        loaded: component.Component,
        imports: Interfaces,
        interface: str,
        exports: Mapping[str, Function],
        functions: Mapping[tuple[str, str], HostFunction],
        longest: int,
    ) -> None:
        """`functions` by (interface, name) answer `imports`; `interface`: the one that it exports, with `exports`; `longest`:
        bytes of a text that the guest may give."""
        self.engine = engine
        self.component = loaded
        self.pointer = capi.pointer(loaded)
        self.arena = Arena(ARENA)
        self.interface = interface
        self.longest = longest
        codec = self.codec = Codec(self.arena, longest)
        self.coders = {name: codec.coder(function) for name, function in exports.items()}
        answers = self.answers = Codec(Arena(ARENA), longest)
        self.numbers: list[int] = []
        self.linker = lib.wasmtime_component_linker_new(engine.pointer)
        root = lib.wasmtime_component_linker_root(self.linker)
        try:
            for name, found in imports.items():
                self.define(root, name, found, functions, answers)
        finally:
            lib.wasmtime_component_linker_instance_delete(root)

    def define(
        self,
        root: Any,
        interface: str,
        found: Mapping[str, Function],
        functions: Mapping[tuple[str, str], HostFunction],
        codec: Codec,
    ) -> None:
        place = ffi.new("void **")
        text = interface.encode()
        check(lib.wasmtime_component_linker_instance_add_instance(root, text, len(text), place))
        try:
            for name, function in found.items():
                number = next_number()
                answer = functions[interface, name]
                IMPORTS[number] = Import(function_name(interface, name), answer, codec.coder(function), codec.arena)
                self.numbers.append(number)
                text = name.encode()
                check(lib.wasmtime_component_linker_instance_add_func(place[0], text, len(text), on_import, number, ffi.NULL))
        finally:
            lib.wasmtime_component_linker_instance_delete(place[0])

    def replace(self, make: Callable[[str, HostFunction], HostFunction]) -> None:
        """Let others answer: what `make` gives for each function's name, such as `kv.get`, and the one that answers it."""
        for number in self.numbers:
            one = IMPORTS[number]
            one.function = make(one.name, one.answer)

    def restore(self) -> None:
        """As it was before any `replace`."""
        self.replace(lambda name, answer: answer)

    def close(self) -> None:
        for number in self.numbers:
            IMPORTS.pop(number, None)
        self.numbers.clear()
        if self.linker:
            lib.wasmtime_component_linker_delete(self.linker)
            self.linker = ffi.NULL


numbers_used = 0


def next_number() -> int:
    global numbers_used
    numbers_used += 1
    return numbers_used


def check(error: Any) -> None:
    if error:
        raise RuntimeError(capi.take_error(error))


class Instance:
    """`memory_limit`: bytes of each of its linear memories, of which there may be `memories`; `deadline`: seconds of CPU for
    each call; `copied`: bytes that a call may copy out of it. Raises GuestFault if it cannot be made within `fuel`."""

    def __init__(
        self, linked: Linked, *, memory_limit: int, memories: int, deadline: float, fuel: int, copied: int | None = None
    ) -> None:
        self.linked = linked
        engine = linked.engine
        self.watch = engine.watch
        limits = StoreLimits(instances=INSTANCES, tables=TABLES, memories=min(memories, MOST_MEMORIES))
        self.store = Store(engine, memory_limit=memory_limit, deadline=deadline, host=refuse, limits=limits)
        capi.limit_copied(self.store.context, engine.copied_offset, linked.longest + COPIED if copied is None else copied)
        self.cell = self.store.fuel_cell
        self.dead = False
        self.used = 0
        """Fuel of the last call."""
        self.elapsed = 0.0
        """Seconds of the last call."""
        self.places: Sequence[tuple[int, int]] = ()
        """What has come into the address space with it, if somebody looked; for `memory`."""
        self.instance = ffi.new("component_instance_t *")
        self.functions: dict[str, tuple[Any, Coder]] = {}
        self.store.set_fuel(fuel)
        self.watch.sequence += 1
        error = lib.wasmtime_component_linker_instantiate(linked.linker, self.store.context, linked.pointer, self.instance)
        self.watch.sequence += 1
        if error:
            fault = self.fault(error)
            self.close()
            raise fault
        for name, coder in linked.coders.items():
            self.functions[name] = self.find(name), coder

    def find(self, name: str) -> Any:
        """An exported function. The component's type has been checked, so it is there."""
        context = self.store.context
        text = self.linked.interface.encode()
        outer = lib.wasmtime_component_instance_get_export_index(self.instance, context, ffi.NULL, text, len(text))
        text = name.encode()
        inner = lib.wasmtime_component_instance_get_export_index(self.instance, context, outer, text, len(text))
        function = ffi.new("component_func_t *")
        found = lib.wasmtime_component_instance_get_func(self.instance, context, inner, function)
        for index in (outer, inner):
            if index:
                lib.wasmtime_component_export_index_delete(index)
        if not found:
            raise GuestFault("start", f"{self.linked.interface} has no function {name}")
        return function

    def call(self, name: str, arguments: Sequence[Any], fuel: int) -> Any:
        """The function's result. Raises GuestFault, after which the instance is dead."""
        function, coder = self.functions[name]
        arena = self.linked.arena
        arena.reset()
        at = arena.take(VAL_SIZE * MOST_PARAMETERS)
        result = arena.take(VAL_SIZE)
        place = at
        for lower, argument in zip(coder.lower, arguments, strict=True):
            lower(argument, place)
            place += VAL_SIZE
        lift = coder.lift_result
        store, watch, cell = self.store, self.watch, self.cell
        cell[0] = -fuel
        started = perf_counter()
        watch.sequence += 1
        error = lib.wasmtime_component_func_call(function, store.context, at, len(arguments), result, 0 if lift is None else 1)
        watch.sequence += 1
        self.used = fuel + cell[0]
        if error:
            self.elapsed = perf_counter() - started
            self.dead = True
            raise self.fault(error)
        if lift is None:
            self.elapsed = perf_counter() - started
            return None
        try:
            return lift(result)
        except (LiftError, UnicodeError) as problem:
            self.dead = True
            raise GuestFault("result", str(problem)) from None
        finally:
            lib.wasmtime_component_val_delete(result)
            self.elapsed = perf_counter() - started

    def fault(self, error: Any) -> GuestFault:
        """What an unsuccessful call says of itself. Above "Caused by:" is a backtrace, whose names are the guest's."""
        if escaped:
            raise escaped.pop()
        text = capi.take_error(error)
        where, _, cause = text.rpartition("Caused by:")
        cause = cause.strip().removeprefix("wasm trap: ")
        if cause.startswith("all fuel consumed"):
            return GuestFault("fuel", "all fuel consumed")
        if cause.startswith("too much data is being copied"):
            return GuestFault("result", "a result or arguments of more bytes than there may be")
        if cause == DEADLINE:
            return GuestFault("deadline", f"ran longer than {self.store.deadline * 1000:g} ms")
        if cause.startswith(REFUSED):
            return GuestFault("result", cause.removeprefix(REFUSED))
        frame = next((line.strip() for line in where.splitlines() if line.strip().startswith("0:")), None)
        return GuestFault("trap", f"{cause} at {frame}" if frame else cause)

    def memory(self) -> int:
        """Bytes of its linear memories together."""
        return sum(memories(self.places, mapped())) if self.places else 0

    def close(self) -> None:
        self.dead = True
        self.store.close()


def refuse(operation: int) -> int:
    raise AssertionError("a component does not call the core")
