"""A proxy-wasm filter in one worker: its callbacks, its limits, what it logs and counts."""

import struct
from typing import Any, Final

import structlog

from proxy.abi.filter import Callbacks, StreamHost
from proxy.abi.memory import StreamMemory
from proxy.abi.proxy_wasm.context import NAMES, Root, StreamContext
from proxy.abi.proxy_wasm.link import CALLBACKS, exported_callbacks
from proxy.abi.proxy_wasm.metrics import GuestMetrics
from proxy.abi.proxy_wasm.slot import VmSlot
from proxy.abi.proxy_wasm.vm import (
    FINISH,
    ON_CONTEXT_CREATE,
    ON_DELETE,
    ON_DONE,
    ON_LOG,
    ON_REQUEST_BODY,
    ON_REQUEST_HEADERS,
    ON_REQUEST_TRAILERS,
    ON_RESPONSE_BODY,
    ON_RESPONSE_HEADERS,
    ON_RESPONSE_TRAILERS,
)
from proxy.abi.reporting import Reporting
from proxy.abi.services import Grpc
from proxy.abi.settings import BODY_GROWTH, LEVEL_NUMBERS, LEVELS, Settings
from proxy.telemetry.instruments import FilterInstruments

log = structlog.get_logger("filter")

LOG_LEVEL_AT: Final = 8
"""Of the level in a vm record, `write_record`."""

ABI_NUMBERS: Final = {"0.1.0": 0x000100, "0.2.0": 0x000200, "0.2.1": 0x000201}


class Plugin(Reporting):
    """One configured filter; `open` gives its part in a stream."""

    def __init__(
        self, memory: StreamMemory, slot: VmSlot, settings: Settings, instruments: FilterInstruments, abi: str, log_level: str
    ) -> None:
        super().__init__(settings, instruments)
        self.memory = memory
        self.slot: VmSlot = slot
        self.metrics = slot.metrics or GuestMetrics(memory, instruments, settings.metrics)
        slot.metrics = self.metrics
        exported = exported_callbacks(slot.compiled.outline, abi, settings.host_functions)
        self.mask = sum(1 << i for i, name in enumerate(CALLBACKS) if name in exported)
        self.tracks_contexts = any(item.name == "proxy_set_effective_context" for item in slot.compiled.outline.imports)
        """Its callbacks may act on streams by their ids, so ids must be found."""
        finish = self.has(ON_LOG) or self.has(ON_DONE) or self.has(ON_DELETE)
        self.callbacks = Callbacks(
            request_headers=self.has(ON_REQUEST_HEADERS),
            request_body=self.has(ON_REQUEST_BODY),
            response_headers=self.has(ON_RESPONSE_HEADERS),
            response_body=self.has(ON_RESPONSE_BODY),
            finish=finish,
            ends=finish or self.tracks_contexts,
        )
        self.record = self.write_record(abi, log_level)
        self.root = Root(self, settings.configuration)
        slot.roots.append(self.root)
        self.grpc: Grpc | None = None
        """How it calls other services by gRPC; None: not at all, or not installed."""
        self.calls = {
            operation: instruments.calls(name)
            for operation, name in NAMES.items()
            if self.has(operation) or (operation == FINISH and self.callbacks.finish) or operation == ON_CONTEXT_CREATE
        }
        self.has_request_headers = self.callbacks.request_headers
        self.has_response_headers = self.callbacks.response_headers
        self.has_request_trailers = self.has(ON_REQUEST_TRAILERS)
        self.has_response_trailers = self.has(ON_RESPONSE_TRAILERS)

    def has(self, operation: int) -> bool:
        return bool(self.mask >> operation & 1)

    def write_record(self, abi: str, log_level: str) -> int:
        """The vm record that core/core.h describes."""
        settings, memory = self.settings, self.memory
        environment = b"".join(f"{name}={value}".encode() + b"\0" for name, value in settings.environment.items())
        words = [
            self.mask,
            ABI_NUMBERS[abi],
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

    def open(self, stream: StreamHost, root: Root | None = None) -> "StreamContext | None":
        slot = self.slot
        vm = slot.vm or slot.live()
        if vm is None and self.settings.fail_open:
            return None
        return StreamContext(self, root or self.root, vm, stream)

    def state(self) -> dict[str, Any]:
        state = super().state()
        return state if self.slot.vm is None else {**state, "memory_bytes": self.memory_bytes()}

    def memory_bytes(self) -> int:
        vm = self.slot.vm
        return 0 if vm is None else vm.store.guest_memory()

    def set_log_level(self, level: str) -> None:
        super().set_log_level(level)
        self.memory.write(self.record + LOG_LEVEL_AT, struct.pack("<I", LEVEL_NUMBERS[level]))

    def refresh(self) -> None:
        self.metrics.refresh()
        super().refresh()

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
            if size >= self.settings.log_line:
                self.instruments.limited("log_line").value += 1
            if not self.lines.take():
                dropped += 1
                continue
            fields = {"filter": self.name, "callback": callback, "message": text}
            if stream is not None:
                fields["request_id"] = stream.info.request_id
            getattr(log, LEVELS[level])("filter_log", **fields)
        if dropped:
            self.instruments.log_lines_dropped.value += dropped


class RoutePlugin:
    """A filter under a route's own configuration."""

    def __init__(self, plugin: Plugin, configuration: bytes) -> None:
        self.plugin = plugin
        self.name = plugin.name
        self.callbacks = plugin.callbacks
        self.root = Root(plugin, configuration)
        plugin.slot.roots.append(self.root)

    def open(self, stream: StreamHost) -> "StreamContext | None":
        return self.plugin.open(stream, self.root)
