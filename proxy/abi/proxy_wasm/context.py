"""Contexts: what host functions act on. A root is one configuration of a filter, a stream context its part in one stream."""

import re
import struct
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, Protocol

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
    SWITCHED,
    TRAILERS,
    LocalReply,
    StreamHost,
)
from proxy.abi.memory import REQUEST_HEADERS, REQUEST_TRAILERS, RESPONSE_HEADERS, RESPONSE_TRAILERS, StreamMemory, decode_pairs
from proxy.abi.part import StreamPart
from proxy.abi.proxy_wasm.vm import (
    CREATE,
    DONE,
    END_STREAM,
    FINISH,
    LOG_PHASE,
    ON_CONFIGURE,
    ON_CONTEXT_CREATE,
    ON_DELETE,
    ON_DONE,
    ON_GRPC_CLOSE,
    ON_GRPC_INITIAL,
    ON_GRPC_RECEIVE,
    ON_GRPC_TRAILING,
    ON_HTTP_CALL_RESPONSE,
    ON_QUEUE_READY,
    ON_REQUEST_BODY,
    ON_REQUEST_HEADERS,
    ON_REQUEST_TRAILERS,
    ON_RESPONSE_BODY,
    ON_RESPONSE_HEADERS,
    ON_RESPONSE_TRAILERS,
    ON_TICK,
    ON_VM_START,
    READABLE_SHIFT,
    VALUES_BUFFER,
    WRITABLE_SHIFT,
    Vm,
    call_unchecked,
    set_values,
)
from proxy.wasm.fault import GuestFault

if TYPE_CHECKING:
    from proxy.abi.proxy_wasm.plugin import Plugin

OPEN: Final = (1 << READABLE_SHIFT) | (1 << WRITABLE_SHIFT)
OPEN_REQUEST: Final = OPEN << REQUEST_HEADERS
OPEN_REQUEST_TRAILERS: Final = OPEN << REQUEST_TRAILERS
OPEN_RESPONSE: Final = OPEN << RESPONSE_HEADERS
OPEN_RESPONSE_TRAILERS: Final = OPEN << RESPONSE_TRAILERS
OPEN_MAPS: Final = OPEN_REQUEST | OPEN_RESPONSE | OPEN_RESPONSE_TRAILERS
LOG_MAPS: Final = (1 << REQUEST_HEADERS | 1 << RESPONSE_HEADERS | 1 << RESPONSE_TRAILERS) << READABLE_SHIFT
END_REQUEST: Final = ON_REQUEST_HEADERS | END_STREAM
END_RESPONSE: Final = ON_RESPONSE_HEADERS | END_STREAM

STAYS_OPEN: Final = ACTION | LOCAL_REPLY
"""The headers' callback has not let them go: it paused, or it answered."""

REPLY: Final = struct.Struct("<8I")

NAMES: Final = {  # FINISH stands for log, done and delete, which are one crossing
    ON_CONTEXT_CREATE: "proxy_on_context_create",
    ON_REQUEST_HEADERS: "proxy_on_request_headers",
    ON_REQUEST_BODY: "proxy_on_request_body",
    ON_REQUEST_TRAILERS: "proxy_on_request_trailers",
    ON_RESPONSE_HEADERS: "proxy_on_response_headers",
    ON_RESPONSE_BODY: "proxy_on_response_body",
    ON_RESPONSE_TRAILERS: "proxy_on_response_trailers",
    FINISH: "proxy_on_log, _done, _delete",
    ON_VM_START: "proxy_on_vm_start",
    ON_CONFIGURE: "proxy_on_configure",
    ON_TICK: "proxy_on_tick",
    ON_HTTP_CALL_RESPONSE: "proxy_on_http_call_response",
    ON_GRPC_INITIAL: "proxy_on_grpc_receive_initial_metadata",
    ON_GRPC_RECEIVE: "proxy_on_grpc_receive",
    ON_GRPC_TRAILING: "proxy_on_grpc_receive_trailing_metadata",
    ON_GRPC_CLOSE: "proxy_on_grpc_close",
    ON_QUEUE_READY: "proxy_on_queue_ready",
    ON_DONE: "proxy_on_done",
    ON_DELETE: "proxy_on_delete",
}


class Context(Protocol):
    """What host functions act on: a stream context or a root."""

    plugin: "Plugin"
    id: int
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
        self.tick_seconds = 0.0
        """0: no ticks."""
        self.timer: Any = None
        self.parked = False
        """on_done said that there is work left; proxy_done will say when it is over."""
        self.status = (0, b"")
        """What proxy_get_status tells: the code and text of the last call's outcome."""

    def stop_ticks(self) -> None:
        self.tick_seconds = 0.0
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class StreamContext(StreamPart):
    """A stream context: this filter's part in one stream.

    `window`: the flags of the next call: which maps are open to the filter (edit windows), and CREATE until its context is
    created.
    """

    __slots__ = ("body", "id", "local_reply", "plugin", "root", "stream", "vm", "window")

    plugin: "Plugin"
    body: bytes
    local_reply: LocalReply | None

    def __init__(self, plugin: "Plugin", root: Root, vm: Vm | None, stream: StreamHost) -> None:
        self.plugin = plugin
        self.root = root
        self.vm = vm
        self.stream = stream
        self.id = vm.new_context() if vm is not None else 0
        self.window = CREATE
        if plugin.tracks_contexts:
            plugin.slot.contexts[self.id] = self

    @property
    def name(self) -> str:
        return self.plugin.name

    @property
    def down(self) -> bool:
        return self.vm is None or self.vm.dead

    def idle(self) -> int:
        """Instead of a callback that the filter does not have."""
        return FAILED if self.down and not self.plugin.settings.fail_open else 0

    def request_headers(self, end_stream: bool) -> int:
        if not self.plugin.has_request_headers:
            return self.idle()
        self.window |= OPEN_REQUEST
        result = self.call(END_REQUEST if end_stream else ON_REQUEST_HEADERS, 0)
        if not result & STAYS_OPEN:
            self.window &= ~OPEN_REQUEST
        return result

    def response_headers(self, end_stream: bool) -> int:
        if not self.plugin.has_response_headers:
            return self.idle()
        self.window |= OPEN_RESPONSE
        result = self.call(END_RESPONSE if end_stream else ON_RESPONSE_HEADERS, 0)
        if not result & STAYS_OPEN:
            self.window &= ~OPEN_RESPONSE
        return result

    def request_body(self, data: bytes, end_stream: bool) -> int:
        return self.call_body(ON_REQUEST_BODY, data, end_stream, REQUEST_TRAILERS)

    def response_body(self, data: bytes, end_stream: bool) -> int:
        return self.call_body(ON_RESPONSE_BODY, data, end_stream, RESPONSE_TRAILERS)

    def call_body(self, operation: int, data: bytes, end_stream: bool, trailers: int) -> int:
        if self.window & CREATE:
            self.call(ON_CONTEXT_CREATE, 0)
        if data:
            self.plugin.memory.write_scratch(data)
        if not end_stream:
            result = self.call(operation, len(data))
        else:
            self.window |= 1 << trailers << WRITABLE_SHIFT
            result = self.call(operation | END_STREAM, len(data))
            if result & TRAILERS:
                self.window |= OPEN << trailers
            else:
                self.window &= ~(OPEN << trailers)
        if result & BODY:
            self.read_body(operation != ON_REQUEST_BODY)
        return result

    def read_body(self, buffer: int) -> None:
        memory = self.plugin.memory
        address, size = memory.words_at(memory.at.buffers + 16 * buffer, 2)
        self.body = memory.bytes_at(address, size)

    def request_trailers(self, held: bytes | None) -> int:
        if not self.plugin.has_request_trailers:
            return self.idle()
        return self.call_trailers(ON_REQUEST_TRAILERS, held, OPEN_REQUEST_TRAILERS)

    def response_trailers(self, held: bytes | None) -> int:
        if not self.plugin.has_response_trailers:
            return self.idle()
        return self.call_trailers(ON_RESPONSE_TRAILERS, held, OPEN_RESPONSE_TRAILERS)

    def call_trailers(self, operation: int, held: bytes | None, trailers: int) -> int:
        flags = operation
        if held is not None:
            self.plugin.memory.write_scratch(held)
            flags |= END_STREAM
        self.window |= trailers
        result = self.call(flags, len(held or b""))
        if not result & STAYS_OPEN:
            self.window &= ~trailers
        if result & BODY:
            self.read_body(operation != ON_REQUEST_TRAILERS)
        return result

    def continued(self) -> None:
        self.window &= ~(OPEN_REQUEST | OPEN_REQUEST_TRAILERS)

    def call(self, flags: int, argument: int) -> int:
        """Enter the VM; the action and flags. A fault is this filter's alone: it becomes FAILED, or nothing (fail open)."""
        vm = self.vm
        plugin = self.plugin
        if vm is None or vm.dead:
            return 0 if plugin.settings.fail_open else FAILED
        window = self.window
        if window & CREATE:
            self.window = window & ~CREATE
            argument = self.root.id
        plugin.slot.running = self
        plugin.calls[flags & ACTION].value += 1
        # From here on Vm.enter, written out: with filters this is where every request spends its time.
        values, store_context, function, trap, cell, watch = vm.hot
        fuel = plugin.fuel
        set_values(VALUES_BUFFER, 0, self.id, flags | window, argument, plugin.record)
        cell[0] = -fuel
        started = perf_counter_ns()
        watch.sequence += 1
        error = call_unchecked(store_context, function, values, 4, trap)
        watch.sequence += 1
        elapsed = perf_counter_ns() - started
        used = fuel + cell[0]
        plugin.fuel_used.value += used
        plugin.fuel_counts[used.bit_length()] += 1
        plugin.time_counts[elapsed.bit_length()] += 1
        seconds = elapsed * 1e-9
        plugin.seconds.value += seconds
        self.stream.info.filter_seconds += seconds
        result: int = values[0] - DONE
        if result < 0:  # it is still the context's id
            return self.fell(flags, vm.died(error), used, seconds)
        if result > ACTION:
            return self.attend(result, flags)
        return result

    def fell(self, flags: int, fault: GuestFault, used: int, seconds: float) -> int:
        plugin = self.plugin
        callback = NAMES[flags & ACTION]
        plugin.drain_logs(self.stream, callback)
        plugin.failed(callback, fault.reason, fault.message, self.stream, used, seconds)
        plugin.slot.died()
        plugin.slot.abandon()
        plugin.memory.attach(self.stream.region)  # the callback may have acted on another stream
        return 0 if plugin.settings.fail_open else FAILED

    def attend(self, result: int, flags: int) -> int:
        """What a callback left beside its action; the result, less what was asked of other contexts."""
        plugin = self.plugin
        if result & SWITCHED:
            result = plugin.slot.sort_out(self, result)
        if result & LOGS:
            plugin.drain_logs(self.stream, NAMES[flags & 0xFF])
        if result & LOCAL_REPLY and not result & SWITCHED:
            self.local_reply = read_reply(plugin.memory)
        if result & (CONTINUE_REQUEST | CONTINUE_RESPONSE):
            self.continued()
        if result & (CLOSE_REQUEST | CLOSE_RESPONSE):
            self.window &= CREATE
        return result

    def finish(self) -> None:
        plugin = self.plugin
        vm = self.vm
        if vm is None or vm.dead or not plugin.callbacks.finish:
            if plugin.tracks_contexts:
                plugin.slot.contexts.pop(self.id, None)
            return
        # A window that was never closed (the stream was answered, or ended in a pause) is open to on_log as well.
        self.window = self.window & (CREATE | OPEN_MAPS) | LOG_MAPS | LOG_PHASE
        self.call(FINISH, 0)
        if plugin.tracks_contexts:
            plugin.slot.contexts.pop(self.id, None)


def read_reply(memory: StreamMemory) -> LocalReply:
    """The local reply that the last callback left."""
    status, grpc, details, details_size, body, body_size, headers, headers_size = REPLY.unpack_from(
        memory.buffer, memory.at.reply
    )
    text = memory.bytes_at(details, details_size).decode("utf-8", "backslashreplace")
    return LocalReply(
        status,
        re.sub(r"\s", "_", text),
        memory.bytes_at(body, body_size),
        tuple(decode_pairs(memory.bytes_at(headers, headers_size)) or ()),
        grpc if 0 <= grpc <= 16 else None,
    )
