"""Filters written in the tests, run by a real Loader, Plugin and stream context, without any server.

A filter is WAT text, or a script: the host calls that each of its callbacks makes, as rows. A scripted filter notes the status
of every call, and `Run` reads from its memory what the host wrote.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cffi
import wasmtime

from proxy.abi.filter import LocalReply, StreamFilter
from proxy.abi.memory import HeadOptions, Region
from proxy.abi.proxy_wasm import load
from proxy.abi.proxy_wasm.context import StreamContext
from proxy.abi.proxy_wasm.plugin import Plugin
from proxy.abi.proxy_wasm.signatures import CALLBACKS_BY_VERSION, HOST_FUNCTIONS, WASI_FUNCTIONS, Signature
from proxy.abi.proxy_wasm.slot import VmSlot
from proxy.abi.services import Services
from proxy.chain.chains import settings_of
from proxy.config.filter import Filter
from proxy.telemetry.instruments import Instruments
from proxy.telemetry.metrics import Registry
from proxy.telemetry.stream import StreamInfo
from proxy.wasm.settings import engine_config

PAGE = 65536
STATUSES = 1024  # for each callback, 1 KiB apart: u32 count, then u32 statuses
SLOTS = 8192  # where the host writes its answers, 8 bytes each
TEXTS = 16384  # what a script passes
HEAP = 49152  # the allocator's
MEMORY = 2 * PAGE
UNTOUCHED = b"\xaa" * 8


class Out:
    """An address for an answer of the host."""


OUT = Out()
Argument = int | bytes | Out
Row = tuple[str | Argument, ...]  # name of the function, arguments; bytes stand for (address, size)


class Run(NamedTuple):
    """What one call of a script came to."""

    status: int
    slots: tuple[bytes, ...]
    memory: bytes

    def u32(self, slot: int = 0) -> int:
        value: int = struct.unpack_from("<I", self.slots[slot])[0]
        return value

    def u64(self, slot: int = 0) -> int:
        value: int = struct.unpack_from("<Q", self.slots[slot])[0]
        return value

    @property
    def value(self) -> bytes | None:
        """The bytes whose pointer and size are in the first two slots; None: the host wrote neither."""
        if self.slots[:2] == (UNTOUCHED, UNTOUCHED):
            return None
        at, size = self.u32(0), self.u32(1)
        assert (at == 0) == (size == 0)
        return self.memory[at : at + size]


class Script:
    """WAT of a filter that makes the calls in `callbacks` and answers with `actions` (default: 0, and 1 where it is a yes)."""

    def __init__(
        self,
        callbacks: Mapping[str, Sequence[Row]],
        *,
        actions: Mapping[str, int] | None = None,
        abi: str = "0.2.1",
        allocator: str = "bump",
    ) -> None:
        self.texts = bytearray()
        self.slots: dict[str, list[int]] = {}
        self.used = 0
        self.imports: dict[str, str] = {}
        body = []
        self.bases = {name: STATUSES * (i + 1) for i, name in enumerate(callbacks)}
        assert len(callbacks) < SLOTS // STATUSES
        for name, rows in callbacks.items():
            signature = START.get(name) or CALLBACKS_BY_VERSION[abi][name]
            action = (actions or {}).get(name, 1 if name in YES else 0)
            calls = "\n    ".join(self.call(name, row) for row in rows)
            answer = f"(i32.const {action})" if signature.results else ""
            body.append(
                f'(func (export "{name}") {types(signature)}\n    (i32.store (i32.const {self.bases[name]}) (i32.const 0))\n'
                f"    {calls}\n    {answer})"
            )
        self.text = f"""(module
  {chr(10).join(self.imports.values())}
  (memory (export "memory") {MEMORY // PAGE})
  (data (i32.const {TEXTS}) "{"".join(f"{chr(92)}{byte:02x}" for byte in self.texts)}")
  (data (i32.const {SLOTS}) "{chr(92)}{"aa" if self.used else "00"}{f"{chr(92)}aa" * (8 * self.used - 1)}")
  (func (export "proxy_abi_version_{abi.replace(".", "_")}"))
  {ALLOCATORS[allocator]}
  (func $note (param $base i32) (param $status i32) (local $n i32)
    (local.set $n (i32.add (i32.load (local.get $base)) (i32.const 1)))
    (i32.store (i32.add (local.get $base) (i32.mul (local.get $n) (i32.const 4))) (local.get $status))
    (i32.store (local.get $base) (local.get $n)))
  {chr(10).join(body)})"""

    def call(self, callback: str, row: Row) -> str:
        name, *arguments = row
        assert isinstance(name, str)
        module, _, function = name.rpartition(".")
        signature = WASI_FUNCTIONS[function] if module else HOST_FUNCTIONS[function]
        self.imports[name] = f'(import "{module or "env"}" "{function}" (func ${name} {types(signature)}))'
        words: list[int] = []
        outs = 0
        for argument in arguments:
            if isinstance(argument, bytes):
                words += [TEXTS + len(self.texts), len(argument)]
                self.texts += argument
            elif isinstance(argument, Out):
                words.append(SLOTS + 8 * (self.used + outs))
                outs += 1
            else:
                assert isinstance(argument, int)
                words.append(argument)
        self.used += outs
        self.slots.setdefault(callback, []).append(outs)
        assert len(words) == len(signature.params), row
        given = " ".join(f"({type_}.const {word})" for type_, word in zip(signature.params, words, strict=True))
        base = f"(i32.const {self.bases[callback]})"
        if signature.results:
            return f"(call $note {base} (call ${name} {given}))"
        return f"(call ${name} {given}) (call $note {base} (i32.const 0))"


YES = frozenset({"proxy_on_vm_start", "proxy_on_configure", "proxy_on_done"})
START = {
    "_initialize": Signature((), ()),
    "_start": Signature((), ()),
    "main": Signature(("i32", "i32"), ("i32",)),
    "__main_void": Signature((), ("i32",)),
}
ALLOCATORS = {
    # Every answer is an address of its own; 0 is never one.
    "bump": f"""(global $top (mut i32) (i32.const {HEAP}))
  (func (export "malloc") (param i32) (result i32) (global.get $top)
    (global.set $top (i32.and (i32.add (i32.add (global.get $top) (local.get 0)) (i32.const 15)) (i32.const -8))))""",
    "none": '(func (export "malloc") (param i32) (result i32) (i32.const 0))',
    "far": '(func (export "malloc") (param i32) (result i32) (i32.const -16))',
    "last byte": f'(func (export "malloc") (param i32) (result i32) (i32.const {MEMORY - 1}))',
    "zero is deadly": f"""(func (export "malloc") (param i32) (result i32)
    (if (i32.eqz (local.get 0)) (then unreachable)) (i32.const {HEAP}))""",
}


def types(signature: Signature) -> str:
    params = f"(param {' '.join(signature.params)})" if signature.params else ""
    results = f"(result {' '.join(signature.results)})" if signature.results else ""
    return f"{params} {results}"


ffi: Any = cffi.FFI()
ffi.cdef("uint8_t *wasmtime_memory_data(void *context, void *memory); size_t wasmtime_memory_data_size(void *, void *);")
lib: Any = ffi.dlopen(str(wasmtime._ffi.filename))


class Stream:
    """A stream with no gateway around it: what a chain would be to its filters."""

    region: Region

    def __init__(self) -> None:
        self.info = StreamInfo()
        self.properties: dict[bytes, bytes] = {}
        self.bodies: dict[int, bytes] = {}
        self.resumed: list[int] = []
        self.replies: list[LocalReply] = []
        self.resets = 0

    def holds(self, filter_: StreamFilter) -> bool:
        return bool(self.bodies)

    def held(self, filter_: StreamFilter, direction: int) -> bytes | None:
        return self.bodies.get(direction)

    def replace_held(self, filter_: StreamFilter, direction: int, data: bytes) -> None:
        self.bodies[direction] = data

    def resume(self, filter_: StreamFilter, direction: int) -> None:
        self.resumed.append(direction)

    def reply_from_outside(self, reply: LocalReply) -> None:
        self.replies.append(reply)

    def close_from_outside(self) -> None:
        self.resets += 1


REQUEST = ((b"Host", b"test"), (b"X-A", b"1"), (b"accept", b"*/*"), (b"X-A", b"2"), (b"x-empty", b""))
RESPONSE = ((b"content-length", b"2"), (b"x-r", b"one"))
OFF = HeadOptions(forwarded="off", request_id="off", via=None)


class Timer:
    """What waits for its time; the tests call `fire`."""

    def __init__(self, seconds: float, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.seconds = seconds
        self.function = function
        self.arguments = arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        if not self.cancelled:
            self.function(*self.arguments)


class Worker:
    """Filters of one worker, loaded from WAT and started."""

    def __init__(self, folder: Path, *filters: "tuple[str | Script, Mapping[str, Any]]", log_level: str = "debug") -> None:
        self.scripts = [text if isinstance(text, Script) else None for text, _ in filters]
        models = []
        for i, (text, settings) in enumerate(filters):
            path = folder / f"f{i}.wasm"
            path.write_bytes(wasmtime.wat2wasm(text.text if isinstance(text, Script) else text))
            models.append(Filter.model_validate({"name": f"f{i}", "wasm": str(path), **settings}))
        self.prepared = load.prepare(models)
        self.loader = load.Loader(self.prepared)
        self.memory = self.loader.memory
        self.instruments = Instruments(Registry())
        self.options = self.memory.options(OFF)
        self.timers: list[Timer] = []
        self.plugins: list[Plugin] = []
        slots: dict[Any, VmSlot] = {}
        for prepared in self.prepared.filters:
            settings = settings_of(prepared.filter, log_level)
            key = prepared.filter.vm_id or object()
            if key not in slots:
                slots[key] = VmSlot(self.memory, self.loader.compiled(prepared), settings, Services(self.later))
            instruments = self.instruments.filter(prepared.filter.name)
            self.plugins.append(Plugin(self.memory, slots[key], settings, instruments, prepared.abi, settings.log_level))
        self.slots = list(slots.values())

    def later(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> "Timer":
        timer = Timer(seconds, function, arguments)
        self.timers.append(timer)
        return timer

    def start(self) -> "Worker":
        for slot in self.slots:
            slot.start()
        return self

    def open_stream(
        self, fields: Iterable[tuple[bytes, bytes]] = REQUEST, method: bytes = b"POST", target: bytes = b"/p?q=1"
    ) -> Stream:
        stream = Stream()
        stream.region = self.memory.begin()
        self.memory.load_request(tuple(fields), method, target, self.options, b"", b"")
        return stream

    def open(
        self,
        number: int = 0,
        *,
        fields: Iterable[tuple[bytes, bytes]] = REQUEST,
        method: bytes = b"POST",
        target: bytes = b"/p?q=1",
        stream: Stream | None = None,
    ) -> "Opened":
        """A new stream with a loaded request, and this filter's context in it. With `stream`, in one that is there."""
        if stream is None:
            stream = self.open_stream(fields, method, target)
        context = self.plugins[number].open(stream)
        assert context is not None
        return Opened(self, number, stream, context)

    def respond(self, stream: Stream, status: int = 200, fields: Iterable[tuple[bytes, bytes]] = RESPONSE) -> None:
        self.memory.attach(stream.region)
        self.memory.load_response(status, tuple(fields))

    def guest_memory(self, number: int = 0) -> Any:
        """A filter's linear memory, to read and to write."""
        vm = self.plugins[number].slot.vm
        assert vm is not None
        memory = capi_address(vm.store.memory_extern)
        context = ffi.cast("void *", int(_address(vm.store.context)))
        size = lib.wasmtime_memory_data_size(context, memory)
        return ffi.buffer(lib.wasmtime_memory_data(context, memory), size)

    def runs(self, callback: str, number: int = 0) -> list[Run]:
        """What the calls of a scripted callback came to when it ran last."""
        script = self.scripts[number]
        assert script is not None
        memory = self.guest_memory(number)[:]
        (count,) = struct.unpack_from("<I", memory, script.bases[callback])
        statuses = struct.unpack_from(f"<{count}I", memory, script.bases[callback] + 4)
        first = 0
        for name, outs in script.slots.items():
            if name == callback:
                break
            first += sum(outs)
        found = []
        for status, n in zip(statuses, script.slots[callback], strict=True):
            slots = tuple(memory[SLOTS + 8 * i : SLOTS + 8 * i + 8] for i in range(first, first + n))
            found.append(Run(status, slots, memory))
            first += n
        return found

    def blank(self, number: int = 0) -> None:
        """Make it visible what the host writes from here on."""
        if self.plugins[number].slot.vm is not None:
            self.guest_memory(number)[SLOTS:TEXTS] = UNTOUCHED * ((TEXTS - SLOTS) // 8)

    def failures(self, number: int = 0) -> dict[str, int]:
        """How often this filter failed, by reason."""
        family = self.instruments.filter_failures
        name = f"f{number}"
        return {
            reason: int(family.child((name, reason)).value)
            for reason in ("trap", "fuel", "deadline", "memory", "start", "pause")
            if family.child((name, reason)).value
        }

    def engine_bytes(self) -> int:
        """Size of the stream memory."""
        return len(self.loader.engine.memory())

    def close(self) -> None:
        for slot in self.slots:
            slot.close()
        self.loader.close()


def _address(pointer: Any) -> int:
    from proxy.wasm.capi import ffi as product_ffi

    return int(product_ffi.cast("uintptr_t", pointer))


def capi_address(extern: Any) -> Any:
    from proxy.wasm.capi import ffi as product_ffi

    return ffi.cast("void *", _address(product_ffi.addressof(extern.of, "memory")))


class Opened:
    """A filter's context in a stream, and its callbacks by name."""

    def __init__(self, worker: Worker, number: int, stream: Stream, context: StreamContext) -> None:
        self.worker = worker
        self.number = number
        self.stream = stream
        self.context = context
        self.result = 0

    def call(self, callback: str, data: bytes = b"", end: bool = False) -> int:
        """Run one of the stream's callbacks; its result. The stream is made the live one."""
        self.worker.memory.attach(self.stream.region)
        self.worker.blank(self.number)
        context = self.context
        steps: dict[str, Callable[[], int]] = {
            "proxy_on_request_headers": lambda: context.request_headers(end),
            "proxy_on_request_body": lambda: context.request_body(data, end),
            "proxy_on_response_headers": lambda: context.response_headers(end),
            "proxy_on_response_body": lambda: context.response_body(data, end),
            "proxy_on_request_trailers": lambda: context.request_trailers(data or None),
            "proxy_on_response_trailers": lambda: context.response_trailers(data or None),
        }
        if callback in ENDING:
            context.finish()
            return 0
        self.result = steps[callback]()
        return self.result

    def runs(self, callback: str, data: bytes = b"", end: bool = False) -> list[Run]:
        self.call(callback, data, end)
        return self.worker.runs(callback, self.number)


ENDING = frozenset({"proxy_on_log", "proxy_on_done", "proxy_on_delete"})


def compiled(requests: Sequence[Any], *args: Any, **kwargs: Any) -> list[bytes]:
    """What `load_or_compile` gives, without its child processes and its folder."""
    engine = wasmtime.Engine(engine_config())
    return [code_of(engine, request.wasm) for request in requests]


codes: dict[bytes, bytes] = {}


def code_of(engine: wasmtime.Engine, wasm: bytes) -> bytes:
    if wasm not in codes:
        codes[wasm] = bytes(wasmtime.Module(engine, wasm).serialize())
    return codes[wasm]


class Lines:
    """A structlog logger that keeps its lines."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.kept.append((level, event, fields))

    def said(self) -> list[tuple[str, str]]:
        """(level, message) of what filters logged."""
        return [(level, fields["message"]) for level, event, fields in self.kept if event == "filter_log"]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.kept if name == event]
