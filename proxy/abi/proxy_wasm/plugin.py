"""A proxy-wasm filter in one worker: its callbacks, its limits, what it logs and counts."""

import struct
import time
from typing import Any, Final

import structlog

from proxy.abi.filter import Callbacks, StreamHost
from proxy.abi.memory import StreamMemory
from proxy.abi.proxy_wasm.context import NAMES, Root, StreamContext
from proxy.abi.proxy_wasm.link import CALLBACKS, exported_callbacks
from proxy.abi.proxy_wasm.metrics import GuestMetrics
from proxy.abi.proxy_wasm.services import Grpc, Http
from proxy.abi.proxy_wasm.settings import BODY_GROWTH, LEVEL_NUMBERS, LEVELS, Allowance, Settings
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
from proxy.telemetry.instruments import FilterInstruments

log = structlog.get_logger("filter")

ABI_NUMBERS: Final = {"0.1.0": 0x000100, "0.2.0": 0x000200, "0.2.1": 0x000201}


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
        self.metrics = slot.metrics or GuestMetrics(memory, instruments, settings.metrics)
        slot.metrics = self.metrics
        exported = exported_callbacks(slot.compiled.outline, abi, settings.host_functions)
        self.mask = sum(1 << i for i, name in enumerate(CALLBACKS) if name in exported)
        self.callbacks = Callbacks(
            request_headers=self.has(ON_REQUEST_HEADERS),
            request_body=self.has(ON_REQUEST_BODY),
            response_headers=self.has(ON_RESPONSE_HEADERS),
            response_body=self.has(ON_RESPONSE_BODY),
            finish=self.has(ON_LOG) or self.has(ON_DONE) or self.has(ON_DELETE),
        )
        self.tracks_contexts = any(item.name == "proxy_set_effective_context" for item in slot.compiled.outline.imports)
        """Its callbacks may act on streams by their ids, so ids must be found."""
        self.record = self.write_record(abi, log_level)
        self.root = Root(self, settings.configuration)
        slot.roots.append(self.root)
        self.lines = Allowance(settings.log_lines)
        self.http: Http | None = None
        """How it calls other services; None: not at all."""
        self.grpc: Grpc | None = None
        """The same by gRPC; None: not at all, or not installed."""
        self.last_lines: list[str] = []
        self.fuel = settings.fuel
        self.fuel_used = instruments.fuel
        self.fuel_counts = [0] * 64
        """Calls by the bit length of the fuel that they took."""
        self.seconds = instruments.seconds
        self.calls = {
            operation: instruments.calls(name)
            for operation, name in NAMES.items()
            if self.has(operation) or (operation == FINISH and self.callbacks.finish) or operation == ON_CONTEXT_CREATE
        }
        self.has_request_headers = self.callbacks.request_headers
        self.has_response_headers = self.callbacks.response_headers
        self.has_request_trailers = self.has(ON_REQUEST_TRAILERS)
        self.has_response_trailers = self.has(ON_RESPONSE_TRAILERS)
        self.errors: dict[tuple[str, str], Any] = {}

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

    def open(self, stream: StreamHost) -> "StreamContext | None":
        return self.open_under(self.root, stream)

    def open_under(self, root: Root, stream: StreamHost) -> "StreamContext | None":
        vm = self.slot.vm or self.slot.live()
        if vm is None and self.settings.fail_open:
            return None
        return StreamContext(self, root, vm, stream)

    def state(self) -> dict[str, Any]:
        """For /ready: ready; failed, with the reason and the seconds until its VM is built again; or quarantined."""
        slot = self.slot
        if slot.vm is not None:
            return {"state": "ready", "memory_bytes": slot.vm.store.guest_memory()}
        policy = "open" if self.settings.fail_open else "closed"
        if slot.out and slot.quarantine is not None:
            since, reason = slot.quarantine.reason(slot.out)
            return {
                "state": "quarantined", "reason": reason, "since": since, "resume": f"POST /filters/{slot.out}/resume",
                "on_failure": policy,
            }  # fmt: skip
        return {
            "state": "failed",
            "reason": slot.last_fault,
            "rebuilt_in_seconds": round(max(slot.rebuild_at - time.monotonic(), 0.0), 1),
            "on_failure": policy,
        }

    def refresh(self) -> None:
        """Before a snapshot of the metrics: what is counted elsewhere."""
        self.metrics.refresh()
        histogram = self.instruments.call_fuel
        first = int(histogram.bounds[0]).bit_length()
        last = first + len(histogram.bounds)
        counts = self.fuel_counts
        histogram.counts = [sum(counts[: first + 1]), *counts[first + 1 : last], sum(counts[last:])]
        histogram.sum = self.fuel_used.value

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

    def count_error(self, function: str, status: str) -> None:
        counter = self.errors.get((function, status))
        if counter is None:
            counter = self.errors[function, status] = self.instruments.host_call_errors(function, status)
        counter.value += 1

    def failed(self, callback: str, reason: str, message: str, stream: StreamHost | None, fuel: int) -> None:
        """Log and count what ended a call."""
        self.instruments.failures(reason).value += 1
        slot = self.slot
        slot.last_fault = f"{callback}: {reason}: {message}"
        slot.failing = self.settings
        if slot.quarantine is not None:
            slot.quarantine.note(self.name, callback, reason, message)
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
