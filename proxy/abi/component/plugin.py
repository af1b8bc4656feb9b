"""A component filter in one worker: what it wants, its limits, what it logs and counts."""

import time
from typing import Any, Final

import structlog

from proxy.abi.component.host import keys_of
from proxy.abi.component.instance import Instance
from proxy.abi.component.slot import ComponentSlot
from proxy.abi.component.stream import ComponentStream
from proxy.abi.component.world import PHASES
from proxy.abi.filter import Callbacks, StreamHost
from proxy.abi.memory import StreamMemory
from proxy.abi.proxy_wasm.services import Http
from proxy.abi.proxy_wasm.settings import Allowance, Settings
from proxy.abi.proxy_wasm.slot import StartError
from proxy.telemetry.instruments import FilterInstruments
from proxy.wasm.fault import GuestFault

log = structlog.get_logger("filter")

ALL_PHASES: Final = (1 << len(PHASES)) - 1
FUNCTIONS: Final = (
    "metadata", "configure", *(f"on-{phase}" for phase in PHASES), "on-http-response",
)  # fmt: skip


def callbacks_of(wanted: int) -> Callbacks:
    wants = {phase: bool(wanted >> i & 1) for i, phase in enumerate(PHASES)}
    return Callbacks(
        request_headers=wants["request-headers"],
        request_body=wants["request-body"],
        response_headers=wants["response-headers"],
        response_body=wants["response-body"],
        finish=wants["log"],
    )


ALL_CALLBACKS: Final = callbacks_of(ALL_PHASES)
"""Of a filter that has not been asked yet."""


class Configured:
    """A filter under one configuration: its own, or a route's. Each has an instance of its own."""

    def __init__(self, plugin: "ComponentPlugin", configuration: bytes) -> None:
        self.plugin = plugin
        self.name: str = plugin.settings.name
        self.callbacks: Callbacks = ALL_CALLBACKS if plugin is self else plugin.callbacks
        self.configuration = configuration
        self.keys = keys_of(configuration)
        self.instance: Instance | None = None
        """The one that serves; None: it is down, or each stream has its own."""

    def open(self, stream: StreamHost) -> ComponentStream | None:
        plugin = self.plugin
        if plugin.isolated:
            if plugin.slot.out and plugin.settings.fail_open:
                return None
            return ComponentStream(self, None, stream)
        instance = self.instance
        if instance is None:
            plugin.slot.live()
            instance = self.instance
        if instance is None and plugin.settings.fail_open:
            return None
        return ComponentStream(self, instance, stream)

    def disposable(self, stream: ComponentStream) -> Instance | None:
        """An instance for one stream (isolation: request); None if it did not start."""
        plugin = self.plugin
        if plugin.slot.out:
            return None
        try:
            return plugin.slot.build(self)
        except StartError as error:
            plugin.failed("start", "start", error.reason, stream.stream, 0)
            plugin.slot.noted()
            return None


class ComponentPlugin(Configured):
    """One configured filter; `open` gives its part in a stream."""

    def __init__(
        self, memory: StreamMemory, slot: ComponentSlot, settings: Settings, instruments: FilterInstruments, isolated: bool
    ) -> None:
        self.memory = memory
        self.slot = slot
        self.settings = settings
        self.instruments = instruments
        self.isolated: bool = isolated
        super().__init__(self, settings.configuration)
        slot.roots.append(self)
        self.lines = Allowance(settings.log_lines)
        self.http: Http | None = None
        """How it calls other services; None: not at all."""
        self.last_lines: list[str] = []
        self.fuel = settings.fuel
        self.fuel_used = instruments.fuel
        self.fuel_counts = [0] * 64
        """Calls by the bit length of the fuel that they took."""
        self.seconds = instruments.seconds
        self.calls = {name: instruments.calls(name) for name in FUNCTIONS}
        self.errors: dict[tuple[str, str], Any] = {}
        self.streams = 0
        self.wanted = ALL_PHASES
        self.described = False
        self.version = ""

    def refresh(self) -> None:
        """Its metrics are always up to date: they are no cells in the stream memory."""

    def describe(self) -> None:
        """Ask the filter what it wants. Raises StartError."""
        slot = self.slot
        slot.enter(self, "instantiate")
        instance = None
        try:
            instance = slot.instantiate()
            slot.enter(self, "metadata")
            slot.host.instance = instance
            _, version, wanted = instance.call("metadata", (), self.settings.start_fuel)
        except GuestFault as fault:
            raise StartError(f"{slot.host.callback}: {fault.reason}: {fault.message}", self.last_lines, fault.reason) from None
        finally:
            if instance is not None:
                instance.close()
        self.described = True
        self.wanted = wanted
        self.version = version.decode()
        self.callbacks = callbacks_of(wanted)

    def wants(self, phase: str) -> bool:
        return bool(self.wanted >> PHASES.index(phase) & 1)

    def next_stream(self) -> int:
        self.streams += 1
        return self.streams

    def route(self, configuration: bytes) -> Configured:
        """The same filter under a route's own configuration. Call before the slot is started."""
        own = Configured(self, configuration)
        self.slot.roots.append(own)
        return own

    def state(self) -> dict[str, Any]:
        """For /ready: ready; failed, with the reason and the seconds until it is built again; or quarantined."""
        slot = self.slot
        policy = "open" if self.settings.fail_open else "closed"
        if slot.out and slot.quarantine is not None:
            since, reason = slot.quarantine.reason(slot.out)
            return {
                "state": "quarantined", "reason": reason, "since": since, "resume": f"POST /filters/{slot.out}/resume",
                "on_failure": policy,
            }  # fmt: skip
        if slot.ready:
            return {"state": "ready"}
        return {
            "state": "failed",
            "reason": slot.last_fault,
            "rebuilt_in_seconds": round(max(slot.rebuild_at - time.monotonic(), 0.0), 1),
            "on_failure": policy,
        }

    # ---- What it says ----

    def count_error(self, function: str, status: str) -> None:
        counter = self.errors.get((function, status))
        if counter is None:
            counter = self.errors[function, status] = self.instruments.host_call_errors(function, status)
        counter.value += 1

    def refuse_edit(self, reason: str) -> None:
        self.slot.host.refused("header-edit", "BadArgument", reason)

    def failed(self, callback: str, reason: str, message: str, stream: StreamHost | None, fuel: int) -> None:
        """Log and count what ended a call."""
        self.instruments.failures(reason).value += 1
        slot = self.slot
        slot.last_fault = f"{callback}: {reason}: {message}"
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
