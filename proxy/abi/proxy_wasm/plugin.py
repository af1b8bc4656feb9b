"""A proxy-wasm filter in one worker: its VM, its root contexts, and its part in each stream."""

import random
import struct
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import structlog

from proxy.abi.filter import (
    ACTION,
    BODY,
    CLOSE_REQUEST,
    CLOSE_RESPONSE,
    CONTINUE_REQUEST,
    CONTINUE_RESPONSE,
    FAILED,
    LOCAL_REPLY,
    LOGS,
    Callbacks,
    LocalReply,
    StreamHost,
)
from proxy.abi.memory import REQUEST_HEADERS, REQUEST_TRAILERS, RESPONSE_HEADERS, RESPONSE_TRAILERS, StreamMemory, decode_pairs
from proxy.abi.proxy_wasm.host import Host
from proxy.abi.proxy_wasm.link import CALLBACKS, exported_callbacks
from proxy.abi.proxy_wasm.metrics import GuestMetrics
from proxy.abi.proxy_wasm.vm import (
    BUFFERS_SET,
    CREATE,
    END_STREAM,
    FINISH,
    LOG_PHASE,
    ON_CONFIGURE,
    ON_CONTEXT_CREATE,
    ON_REQUEST_BODY,
    ON_REQUEST_HEADERS,
    ON_RESPONSE_BODY,
    ON_RESPONSE_HEADERS,
    ON_VM_START,
    PLUGIN_CONFIGURATION,
    READABLE_SHIFT,
    VM_CONFIGURATION,
    WRITABLE_SHIFT,
    Compiled,
    Vm,
)
from proxy.telemetry.instruments import FilterInstruments
from proxy.wasm.fault import GuestFault

log = structlog.get_logger("filter")

LEVELS: Final = ("debug", "debug", "info", "warning", "error", "critical")
LEVEL_NUMBERS: Final = {"debug": 0, "info": 2, "warning": 3, "error": 4}
"""Config log levels as the ABI's: debug shows trace too."""

BACKOFF_FIRST: Final = 1.0
BACKOFF_MOST: Final = 60.0
"""Seconds until a VM that keeps failing is built again; doubled each time, with jitter."""
HEALTHY_AFTER: Final = 10.0
"""A VM that lived this long starts a new series. The first fault of a series is followed by a rebuild at once."""

BODY_GROWTH: Final = 4
"""A body may grow to this many times the filter's body_buffer by edits of one callback."""

OPEN: Final = (1 << READABLE_SHIFT) | (1 << WRITABLE_SHIFT)
OPEN_REQUEST: Final = OPEN << REQUEST_HEADERS
OPEN_REQUEST_TRAILERS: Final = OPEN << REQUEST_TRAILERS
OPEN_RESPONSE: Final = OPEN << RESPONSE_HEADERS
OPEN_RESPONSE_TRAILERS: Final = OPEN << RESPONSE_TRAILERS
LOG_MAPS: Final = (1 << REQUEST_HEADERS | 1 << RESPONSE_HEADERS | 1 << RESPONSE_TRAILERS) << READABLE_SHIFT
END_REQUEST: Final = ON_REQUEST_HEADERS | END_STREAM

REPLY: Final = struct.Struct("<8I")


NAMES: Final = {  # FINISH stands for log, done and delete, which are one crossing
    ON_CONTEXT_CREATE: "proxy_on_context_create",
    ON_REQUEST_HEADERS: "proxy_on_request_headers",
    ON_REQUEST_BODY: "proxy_on_request_body",
    ON_RESPONSE_HEADERS: "proxy_on_response_headers",
    ON_RESPONSE_BODY: "proxy_on_response_body",
    FINISH: "proxy_on_log",
}


class Allowance:
    """At most `per_second` of something, with a burst of one second's worth."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.tokens = max(per_second, 1.0)
        self.time = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self.tokens = min(max(self.per_second, 1.0), self.tokens + (now - self.time) * self.per_second)
        self.time = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class Settings(NamedTuple):
    """What the config says of a filter, resolved."""

    name: str
    root_id: str
    vm_id: str
    configuration: bytes
    vm_configuration: bytes
    fuel: int
    start_fuel: int
    start_deadline: float
    memory: int
    deadline: float
    fail_open: bool
    stops_iteration_on_headers: bool
    body_buffer: int
    log_level: str
    log_lines: float
    log_line: int
    metrics: int
    headers: int
    header_bytes: int
    pause: float
    environment: dict[str, str]
    host_functions: tuple[str, ...] | None


class Context(Protocol):
    """What host functions act on: a stream context or a root."""

    plugin: "Plugin"
    stream: StreamHost | None
    window: int


class Root:
    """A root context: one plugin configuration in a VM. A route's own configuration for a filter is one more."""

    stream: StreamHost | None = None
    window = 0

    def __init__(self, plugin: "Plugin", configuration: bytes) -> None:
        self.plugin = plugin
        self.configuration = configuration
        self.address = plugin.memory.keep(configuration)
        self.id = 0


class StartError(Exception):
    """A filter did not start: its VM failed, or it refused its configuration. `lines` are what it logged."""

    def __init__(self, reason: str, lines: Sequence[str]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lines = lines


class VmSlot:
    """The place of a VM: builds it, and builds it anew after a fault, with back-off. Filters of one vm_id share a slot."""

    def __init__(self, memory: StreamMemory, compiled: Compiled, settings: Settings) -> None:
        self.memory = memory
        self.compiled = compiled
        self.settings = settings
        self.roots: list[Root] = []
        self.vm: Vm | None = None
        self.running: Any = None
        self.rebuild_at = 0.0
        self.backoff = 0.0
        self.built_at = 0.0
        self.last_fault = ""

    def start(self) -> None:
        """Build the VM and start every root in it, in order. Raises StartError."""
        vm = Vm(
            self.memory,
            self.compiled,
            memory_limit=self.settings.memory,
            deadline=self.settings.deadline,
            host=Host(self),
        )
        self.vm = vm
        self.built_at = time.monotonic()
        first = self.roots[0]
        self.running = first
        region = self.memory.begin_empty()
        try:
            for root in self.roots:
                root.plugin.metrics.forget_ids()
            vm.start(first.plugin.record, self.settings.start_fuel, self.settings.start_deadline)
            first.plugin.drain_logs(None, "start")
            for root in self.roots:
                self.start_root(vm, root)
        except GuestFault as fault:
            self.running.plugin.drain_logs(None, "start")
            self.bury(vm)
            raise StartError(f"{fault.reason}: {fault.message}", self.running.plugin.last_lines) from None
        except StartError:
            self.bury(vm)
            raise
        finally:
            self.memory.release(region)

    def start_root(self, vm: Vm, root: Root) -> None:
        plugin = root.plugin
        settings = plugin.settings
        self.running = root
        root.id = vm.new_context()
        serving, vm.store.deadline = vm.store.deadline, settings.start_deadline
        fuel = settings.start_fuel
        size = len(root.configuration)
        vm.expose(PLUGIN_CONFIGURATION, root.address, size)
        vm.enter(plugin.record, root.id, ON_CONTEXT_CREATE | CREATE | BUFFERS_SET, 0, fuel)
        for operation, name, length in (
            (ON_VM_START, "proxy_on_vm_start", len(settings.vm_configuration)),
            (ON_CONFIGURE, "proxy_on_configure", size),
        ):
            if not plugin.has(operation):
                continue
            if operation == ON_VM_START:
                vm.expose(VM_CONFIGURATION, 0, 0)
            else:
                vm.expose(PLUGIN_CONFIGURATION, root.address, size)
            vm.arguments(length)
            result = vm.enter(plugin.record, root.id, operation | BUFFERS_SET, 0, fuel)
            if result & LOGS:
                plugin.drain_logs(None, name)
            if not result & ACTION:
                raise StartError(f"{name} returned false", plugin.last_lines)
        plugin.drain_logs(None, "proxy_on_configure")
        vm.store.deadline = serving

    def bury(self, vm: Vm) -> None:
        vm.close()
        self.vm = None

    def died(self) -> None:
        """The VM had a fault: throw it away, and say when it may be built again."""
        now = time.monotonic()
        if self.vm is not None:
            self.bury(self.vm)
        if now - self.built_at >= HEALTHY_AFTER:
            self.backoff = 0.0
        self.rebuild_at = now + self.backoff * random.uniform(0.8, 1.2)
        self.backoff = min(2 * self.backoff, BACKOFF_MOST) or BACKOFF_FIRST

    def live(self) -> Vm | None:
        """The VM for a new stream, built anew if it is time; None: it is down."""
        vm = self.vm
        if vm is not None:
            return vm
        if time.monotonic() < self.rebuild_at:
            return None
        plugin = self.roots[0].plugin
        plugin.instruments.vm_rebuilds.value += 1
        try:
            self.start()
        except StartError as error:
            plugin.failed("start", "start", error.reason, None, 0)
            self.died()
        return self.vm

    def close(self) -> None:
        if self.vm is not None:
            self.bury(self.vm)


class Plugin:
    """One configured filter; `open` gives its part in a stream."""

    def __init__(
        self, memory: StreamMemory, slot: VmSlot, settings: Settings, instruments: FilterInstruments, abi: str, log_level: str
    ) -> None:
        self.name = settings.name
        self.memory = memory
        self.slot = slot
        self.settings = settings
        self.instruments = instruments
        self.metrics = GuestMetrics(memory, instruments, settings.metrics)
        exported = exported_callbacks(slot.compiled.outline, abi, settings.host_functions)
        self.mask = sum(1 << i for i, name in enumerate(CALLBACKS) if name in exported)
        self.callbacks = Callbacks(
            *(
                self.has(operation)
                for operation in (
                    ON_REQUEST_HEADERS,
                    ON_REQUEST_BODY,
                    ON_RESPONSE_HEADERS,
                    ON_RESPONSE_BODY,
                )
            ),
            finish=bool(self.mask & 0b111000000000),
        )
        self.record = self.write_record(abi, log_level)
        self.root = Root(self, settings.configuration)
        slot.roots.append(self.root)
        self.lines = Allowance(settings.log_lines)
        self.last_lines: list[str] = []
        self.fuel = settings.fuel
        self.fuel_used = instruments.fuel
        self.seconds = instruments.seconds
        self.calls = {operation: instruments.calls(name) for operation, name in NAMES.items()}
        self.errors: dict[tuple[str, str], Any] = {}

    def has(self, operation: int) -> bool:
        return bool(self.mask >> operation & 1)

    def write_record(self, abi: str, log_level: str) -> int:
        """The vm record that core/core.h describes."""
        settings, memory = self.settings, self.memory
        version = {"0.1.0": 0x000100, "0.2.0": 0x000200, "0.2.1": 0x000201}[abi]
        environment = b"".join(f"{name}={value}".encode() + b"\0" for name, value in settings.environment.items())
        words = [
            self.mask,
            version,
            LEVEL_NUMBERS[log_level],
            settings.log_line,
            settings.headers,
            settings.header_bytes,
            BODY_GROWTH * settings.body_buffer,
            self.metrics.table,
            settings.metrics,
            self.metrics.capacity,
            memory.keep(environment),
            len(settings.environment),
            len(environment),
            memory.keep(settings.vm_configuration),
            len(settings.vm_configuration),
        ]
        return memory.keep(struct.pack(f"<{len(words)}I", *words))

    def route(self, configuration: bytes) -> "RoutePlugin":
        """The same filter under a route's own configuration: a further root in its VM. Call before the VM is started."""
        return RoutePlugin(self, configuration)

    def open(self, stream: StreamHost) -> "StreamContext | None":
        return self.open_under(self.root, stream)

    def open_under(self, root: Root, stream: StreamHost) -> "StreamContext | None":
        vm = self.slot.vm or self.slot.live()
        if vm is None and self.settings.fail_open:
            return None
        return StreamContext(self, root, vm, stream)

    def state(self) -> dict[str, Any]:
        """For /ready: ready, or failed with the reason and the seconds until its VM is built again."""
        slot = self.slot
        if slot.vm is not None:
            return {"state": "ready", "memory_bytes": slot.vm.store.guest_memory()}
        return {
            "state": "failed",
            "reason": slot.last_fault,
            "rebuilt_in_seconds": round(max(slot.rebuild_at - time.monotonic(), 0.0), 1),
            "on_failure": "open" if self.settings.fail_open else "closed",
        }

    # ---- What it says ----

    def drain_logs(self, stream: StreamHost | None, callback: str) -> None:
        """Write out the lines that the core gathered."""
        memory = self.memory
        start = memory.at.logs
        used, dropped = memory.words_at(start, 2)
        if not used and not dropped:
            return
        data = memory.bytes_at(start + 8, used)
        memory.buffer[start : start + 8] = bytes(8)
        at = 0
        while at < used:
            level, size = struct.unpack_from("<2I", data, at)
            text = data[at + 8 : at + 8 + size].decode("utf-8", "backslashreplace")
            at += 8 + (size + 3 & ~3)
            if stream is None:
                self.last_lines = [*self.last_lines[-9:], text]
            if not self.lines.take():
                dropped += 1
                continue
            fields = {"filter": self.name, "callback": callback, "message": text}
            if stream is not None:
                fields["request_id"] = stream.info.request_id
            getattr(log, LEVELS[level])("filter_log", **fields)
        if dropped:
            self.instruments.log_lines_dropped.value += dropped

    def count_error(self, function: str, status: str) -> None:
        counter = self.errors.get((function, status))
        if counter is None:
            counter = self.errors[function, status] = self.instruments.host_call_errors(function, status)
        counter.value += 1

    def failed(self, callback: str, reason: str, message: str, stream: StreamHost | None, fuel: int) -> None:
        """Log and count what ended a call."""
        self.instruments.failures(reason).value += 1
        self.slot.last_fault = f"{callback}: {reason}: {message}"
        log.error(
            "filter_failed",
            filter=self.name,
            callback=callback,
            reason=reason,
            message=message,
            fuel_used=fuel,
            on_failure="open" if self.settings.fail_open else "closed",
            request_id=stream.info.request_id if stream is not None else None,
        )


class RoutePlugin:
    """A filter under a route's own configuration."""

    def __init__(self, plugin: Plugin, configuration: bytes) -> None:
        self.plugin = plugin
        self.name = plugin.name
        self.callbacks = plugin.callbacks
        self.root = Root(plugin, configuration)
        plugin.slot.roots.append(self.root)

    def open(self, stream: StreamHost) -> "StreamContext | None":
        return self.plugin.open_under(self.root, stream)


class StreamContext:
    """A stream context: this filter's part in one stream. `window`: the maps that are open to it (edit windows)."""

    __slots__ = ("body", "created", "id", "local_reply", "plugin", "root", "stream", "vm", "window")

    def __init__(self, plugin: Plugin, root: Root, vm: Vm | None, stream: StreamHost) -> None:
        self.plugin = plugin
        self.root = root
        self.vm = vm
        self.stream = stream
        self.id = vm.new_context() if vm is not None else 0
        self.created = False
        self.window = 0
        self.body = b""
        self.local_reply: LocalReply | None = None

    @property
    def name(self) -> str:
        return self.plugin.name

    @property
    def down(self) -> bool:
        return self.vm is None or self.vm.dead

    @property
    def stops_iteration_on_headers(self) -> bool:
        return self.plugin.settings.stops_iteration_on_headers

    @property
    def body_limit(self) -> int:
        return self.plugin.settings.body_buffer

    @property
    def pause_seconds(self) -> float:
        return self.plugin.settings.pause

    @property
    def fails_open(self) -> bool:
        return self.plugin.settings.fail_open

    def overdue(self) -> None:
        seconds = self.pause_seconds
        self.plugin.failed("pause", "pause", f"held a stream for {seconds:g} s", self.stream, 0)

    def request_headers(self, end_stream: bool) -> int:
        self.window |= OPEN_REQUEST
        result = self.call(END_REQUEST if end_stream else ON_REQUEST_HEADERS, 0)
        if not result & ACTION:
            self.window &= ~OPEN_REQUEST
        return result

    def response_headers(self, end_stream: bool) -> int:
        self.window |= OPEN_RESPONSE
        result = self.call(ON_RESPONSE_HEADERS | END_STREAM if end_stream else ON_RESPONSE_HEADERS, 0)
        if not result & ACTION:
            self.window &= ~OPEN_RESPONSE
        return result

    def request_body(self, data: bytes, end_stream: bool) -> int:
        return self.call_body(ON_REQUEST_BODY, data, end_stream, OPEN_REQUEST_TRAILERS)

    def response_body(self, data: bytes, end_stream: bool) -> int:
        return self.call_body(ON_RESPONSE_BODY, data, end_stream, OPEN_RESPONSE_TRAILERS)

    def call_body(self, operation: int, data: bytes, end_stream: bool, trailers: int) -> int:
        memory = self.plugin.memory
        if not self.created:
            self.call(ON_CONTEXT_CREATE, 0)
        memory.write_scratch(data)
        if end_stream:
            operation |= END_STREAM
            self.window |= trailers
        result = self.call(operation, len(data))
        self.window &= ~trailers
        if result & BODY:
            address, size = memory.words_at(memory.at.buffers + 16 * (operation & 0xFF != ON_REQUEST_BODY), 2)
            self.body = memory.bytes_at(address, size)
        return result

    def continued(self, direction: int) -> None:
        self.window &= ~(OPEN_REQUEST | OPEN_REQUEST_TRAILERS) if direction == 0 else ~OPEN_RESPONSE_TRAILERS

    def call(self, flags: int, argument: int) -> int:
        """Enter the VM; the action and flags. A fault is this filter's alone: it becomes FAILED, or nothing (fail open)."""
        vm = self.vm
        plugin = self.plugin
        if vm is None or vm.dead:
            return 0 if plugin.settings.fail_open else FAILED
        flags |= self.window
        if not self.created:
            self.created = True
            flags |= CREATE
            argument = argument or self.root.id
        plugin.slot.running = self
        plugin.calls[flags & 0xFF].value += 1
        try:
            result = vm.enter(plugin.record, self.id, flags, argument, plugin.fuel)
        except GuestFault as fault:
            return self.fell(vm, flags, fault)
        finally:
            plugin.fuel_used.value += vm.used
            plugin.seconds.value += vm.elapsed
            self.stream.info.filter_seconds += vm.elapsed
        if result > ACTION:
            self.attend(result, flags)
        return result

    def fell(self, vm: Vm, flags: int, fault: GuestFault) -> int:
        plugin = self.plugin
        callback = NAMES[flags & 0xFF]
        plugin.drain_logs(self.stream, callback)
        plugin.failed(callback, fault.reason, fault.message, self.stream, vm.used)
        plugin.slot.died()
        return 0 if plugin.settings.fail_open and not plugin.memory.torn() else FAILED

    def attend(self, result: int, flags: int) -> None:
        """What a callback left beside its action."""
        plugin = self.plugin
        if result & LOGS:
            plugin.drain_logs(self.stream, NAMES[flags & 0xFF])
        if result & LOCAL_REPLY:
            self.local_reply = read_reply(plugin.memory)
        if result & (CONTINUE_REQUEST | CONTINUE_RESPONSE):
            self.continued(0)
        if result & (CLOSE_REQUEST | CLOSE_RESPONSE):
            self.window = 0

    def finish(self) -> None:
        plugin = self.plugin
        vm = self.vm
        if vm is None or vm.dead or not plugin.callbacks.finish:
            return
        self.window = LOG_MAPS | LOG_PHASE
        self.call(FINISH, 0)


def read_reply(memory: StreamMemory) -> LocalReply:
    """The local reply that the last callback left."""
    status, grpc, details, details_size, body, body_size, headers, headers_size = REPLY.unpack_from(
        memory.buffer, memory.at.reply
    )
    text = memory.bytes_at(details, details_size).decode("utf-8", "backslashreplace")
    return LocalReply(
        status,
        "_".join(text.split()),
        memory.bytes_at(body, body_size),
        tuple(decode_pairs(memory.bytes_at(headers, headers_size)) or ()),
        grpc if 0 <= grpc <= 16 else None,
    )
