"""The place of a component's instances: starts them, and starts them anew after a fault, with back-off."""

import time
from typing import TYPE_CHECKING, Any

from proxy.abi.component.denied import permitted
from proxy.abi.component.host import Host
from proxy.abi.component.instance import Instance, Linked
from proxy.abi.component.worlds import World
from proxy.abi.recovery import Slot, StartError, let_go
from proxy.abi.services import ALONE, Services
from proxy.abi.settings import BODY_GROWTH, Settings
from proxy.sharing.space import Space
from proxy.wasm.engine import Engine
from proxy.wasm.fault import GuestFault
from proxy.wasm.linear_memory import come, mapped

if TYPE_CHECKING:
    from proxy.abi.component.plugin import Configured
    from proxy.abi.component.stream import ComponentStream


class ComponentSlot(Slot):
    """One filter's instances: one for each configuration, or (isolation: request) one for each stream. A fault in one of the
    former takes all of them down, as it does with proxy-wasm's roots, which share a VM."""

    ready = False

    def __init__(
        self,
        engine: Engine,
        loaded: Any,
        world: World,
        interface: str,
        memories: int,
        settings: Settings,
        services: Services = ALONE,
    ) -> None:
        """`interface`: the name under which the component exports the world's; `memories`: how many it may have."""
        super().__init__(settings, services)
        self.memories = memories
        self.host: Host = services.component_host(world) if services.component_host is not None else Host(world)
        self.linked = Linked(
            engine, loaded, world.imports, interface, world.exports[world.filter],
            permitted(self.host, world, settings.host_functions),
            max(BODY_GROWTH * settings.body_buffer, 1 << 16),
        )  # fmt: skip
        self.roots: list[Configured] = []
        self.shares = False
        """It imports shared data."""
        self.space: Space | None = None
        self.streams: set[ComponentStream] = set()
        """Those with calls in flight."""
        self.next_call = 1

    @property
    def running(self) -> Any:
        return self.host.running

    # ---- Starting ----

    def enter(self, root: "Configured", callback: str) -> None:
        host = self.host
        host.running, host.stream, host.instance, host.callback = root, None, None, callback

    def instantiate(self) -> Instance:
        """An instance, before its configuration. Raises GuestFault."""
        settings = self.settings
        return self.host.instance_of(
            self.linked,
            memory_limit=settings.memory,
            memories=self.memories,
            deadline=settings.start_deadline,
            fuel=self.fuel_for_start(settings.start_fuel),
        )

    def build(self, root: "Configured") -> Instance:
        """An instance with its configuration. Raises StartError."""
        plugin = root.plugin
        stream, self.host.stream = self.host.stream, None
        self.enter(root, "instantiate")
        instance = None
        try:
            fuel = self.fuel_for_start(plugin.settings.start_fuel)
            instance = self.instantiate()
            most = fuel - instance.store.fuel()
            self.enter(root, "configure")
            self.host.instance = instance
            accepted, reason = instance.call("configure", (root.configuration,), fuel)
        except (GuestFault, UnicodeDecodeError) as problem:
            if instance is not None:
                instance.close()
            cause = problem.reason if isinstance(problem, GuestFault) else ""
            text = f"{problem.reason}: {problem.message}" if isinstance(problem, GuestFault) else "the config is not UTF-8"
            raise StartError(f"{self.host.callback}: {text}", plugin.last_lines, cause) from None
        finally:
            self.host.stream = stream
        if not accepted:
            instance.close()
            raise StartError(f"configure: {reason.decode()}", plugin.last_lines)
        self.start_fuel = max(self.start_fuel, most, instance.used)
        instance.store.deadline = plugin.settings.deadline
        return instance

    def start(self) -> None:
        if self.services.space is not None and self.shares and self.space is None:
            self.space = self.services.space(self.settings.space)
        self.built_at = time.monotonic()
        try:
            for root in self.roots:
                if not root.plugin.described:
                    root.plugin.describe()
                if root.plugin.isolated:
                    self.build(root).close()
                    continue
                before = mapped()
                instance = root.instance = self.build(root)
                instance.places = come(before, mapped())
        except StartError:
            self.bury()
            raise
        self.ready = True

    def bury(self) -> None:
        self.ready = False
        for root in self.roots:
            if root.instance is not None:
                root.instance.close()
                root.instance = None
        if self.space is not None:
            self.space.close()
            self.space = None
        orphans = [stream for stream in self.streams if stream.calls]
        self.streams.clear()
        for stream in orphans:
            for call in stream.calls.values():
                call.cancel()
            stream.calls.clear()
        if orphans and self.services.later is not None:
            self.services.later(0, let_go, orphans)
        self.changed()

    # ---- The end ----

    def finish(self) -> bool:
        """Nothing is left to do: a component acts for streams alone."""
        self.closing = True
        return True

    @property
    def over(self) -> bool:
        return True

    def give_up(self) -> None:
        """There is nothing to wait for."""

    def close(self) -> None:
        self.closing = True
        self.bury()
        self.linked.close()
