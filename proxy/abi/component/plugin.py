"""A component filter in one worker: what it wants, its limits, what it logs and counts."""

from typing import Final

from proxy.abi.component.host import keys_of
from proxy.abi.component.instance import Instance
from proxy.abi.component.slot import ComponentSlot
from proxy.abi.component.stream import ComponentStream
from proxy.abi.component.world import PHASES
from proxy.abi.filter import Callbacks, StreamHost
from proxy.abi.memory import StreamMemory
from proxy.abi.recovery import StartError
from proxy.abi.reporting import Reporting
from proxy.abi.settings import Settings
from proxy.telemetry.instruments import FilterInstruments
from proxy.wasm.fault import GuestFault

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
        ends=True,
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
            plugin.slot.revive()
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


class ComponentPlugin(Reporting, Configured):
    """One configured filter; `open` gives its part in a stream."""

    def __init__(
        self, memory: StreamMemory, slot: ComponentSlot, settings: Settings, instruments: FilterInstruments, isolated: bool
    ) -> None:
        Reporting.__init__(self, settings, instruments)
        self.memory = memory
        self.slot: ComponentSlot = slot
        self.isolated: bool = isolated
        Configured.__init__(self, self, settings.configuration)
        slot.roots.append(self)
        self.calls = {name: instruments.calls(name) for name in FUNCTIONS}
        self.streams = 0
        self.wanted = ALL_PHASES
        self.described = False
        self.version = ""

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

    def memory_bytes(self) -> int:
        """Of the instances that serve all streams; those of one stream each are gone with it."""
        return sum(root.instance.memory() for root in self.slot.roots if root.instance is not None)

    def next_stream(self) -> int:
        self.streams += 1
        return self.streams

    def route(self, configuration: bytes) -> Configured:
        """The same filter under a route's own configuration. Call before the slot is started."""
        own = Configured(self, configuration)
        self.slot.roots.append(own)
        return own

    def refuse_edit(self, reason: str) -> None:
        self.slot.host.refused("header-edit", "BadArgument", reason)
