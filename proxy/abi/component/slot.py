"""The place of a component's instances: starts them, and starts them anew after a fault, with back-off."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from proxy.abi.component.host import Host
from proxy.abi.component.instance import Instance, Linked
from proxy.abi.component.worlds import World
from proxy.abi.proxy_wasm.quarantine import Quarantine
from proxy.abi.proxy_wasm.services import ALONE, Services
from proxy.abi.proxy_wasm.settings import BODY_GROWTH, Settings
from proxy.abi.proxy_wasm.slot import BACKOFF_FIRST, BACKOFF_MOST, FIRST_REBUILD_SECONDS, HEALTHY_AFTER, StartError, nothing
from proxy.sharing.space import Space
from proxy.wasm.engine import Engine
from proxy.wasm.fault import GuestFault

if TYPE_CHECKING:
    from proxy.abi.component.plugin import Configured
    from proxy.abi.component.stream import ComponentStream

log = structlog.get_logger("filter")


class ComponentSlot:
    """One filter's instances: one for each configuration, or (isolation: request) one for each stream. A fault in one of the
    former takes all of them down, as it does with proxy-wasm's roots, which share a VM."""

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
        self.settings = settings
        self.services = services
        self.memories = memories
        self.host = Host(world)
        self.linked = Linked(
            engine, loaded, world.imports, interface, world.exports[world.filter], self.host.functions,
            max(BODY_GROWTH * settings.body_buffer, 1 << 16),
        )  # fmt: skip
        self.roots: list[Configured] = []
        self.ready = False
        self.shares = False
        """It imports shared data."""
        self.space: Space | None = None
        self.streams: set[ComponentStream] = set()
        """Those with calls in flight."""
        self.next_call = 1
        self.closing = False
        self.changed: Callable[[], object] = nothing
        self.rebuild_at = 0.0
        self.backoff = 0.0
        self.built_at = 0.0
        self.last_fault = ""
        self.quarantine: Quarantine | None = None
        """None where nothing is kept of faults (a check)."""
        self.out = ""
        """The filter, while it is in quarantine."""

    @property
    def running(self) -> Any:
        """What was entered last, for whoever reports a failed start."""
        return self.host.running

    # ---- Starting ----

    def enter(self, root: "Configured", callback: str) -> None:
        host = self.host
        host.running, host.stream, host.instance, host.callback = root, None, None, callback

    def instantiate(self) -> Instance:
        """An instance, before its configuration. Raises GuestFault."""
        settings = self.settings
        return Instance(
            self.linked,
            memory_limit=settings.memory,
            memories=self.memories,
            deadline=settings.start_deadline,
            fuel=settings.start_fuel,
        )

    def build(self, root: "Configured") -> Instance:
        """An instance with its configuration. Raises StartError."""
        plugin = root.plugin
        stream, self.host.stream = self.host.stream, None
        self.enter(root, "instantiate")
        instance = None
        try:
            instance = self.instantiate()
            self.enter(root, "configure")
            self.host.instance = instance
            accepted, reason = instance.call("configure", (root.configuration,), plugin.settings.start_fuel)
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
        instance.store.deadline = plugin.settings.deadline
        return instance

    def start(self) -> None:
        """Build the instance of every configuration, in order. Raises StartError."""
        if self.services.space is not None and self.shares and self.space is None:
            self.space = self.services.space(self.settings.space)
        self.built_at = time.monotonic()
        try:
            for root in self.roots:
                if not root.plugin.described:
                    root.plugin.describe()
                instance = self.build(root)
                if root.plugin.isolated:
                    instance.close()
                else:
                    root.instance = instance
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
            self.services.later(0, abandon, orphans)
        self.changed()

    def died(self) -> None:
        """An instance had a fault: throw all away, and say when they may be built again."""
        now = time.monotonic()
        self.bury()
        if now - self.built_at >= HEALTHY_AFTER:
            self.backoff = 0.0
        self.rebuild_at = now + self.backoff * random.uniform(0.8, 1.2)
        self.backoff = min(2 * self.backoff, BACKOFF_MOST) or BACKOFF_FIRST
        if not self.noted() and self.services.later is not None:
            self.services.later(max(self.rebuild_at - now, FIRST_REBUILD_SECONDS), self.live)

    def noted(self) -> bool:
        """Count a fault towards the quarantine. True: this one was too many."""
        if self.quarantine is None:
            return False
        reason = self.quarantine.fault(self.settings, time.monotonic(), self.last_fault)
        if not reason:
            return False
        self.take_out(self.settings.name)
        log.error("filter_quarantined", filter=self.out, reason=reason, resume=f"POST /filters/{self.out}/resume")
        return True

    def live(self) -> None:
        """Build the instances anew if it is time."""
        if self.ready or time.monotonic() < self.rebuild_at or self.closing or self.out:
            return
        plugin = self.roots[0].plugin
        plugin.instruments.vm_rebuilds.value += 1
        try:
            self.start()
        except StartError as error:
            plugin.failed("start", "start", error.reason, None, 0)
            self.died()

    # ---- Quarantine ----

    def take_out(self, name: str) -> None:
        """No instance from now on, until the filter is resumed."""
        self.out = name
        self.bury()

    def look(self) -> None:
        """Follow what another worker, or the operator, has decided."""
        if self.quarantine is None:
            return
        name = self.quarantine.who()
        if name == self.out:
            return
        if name:
            log.warning("filter_quarantined", filter=name, reason="another worker has taken it out")
            self.take_out(name)
            return
        log.info("filter_resumed", filter=self.out)
        self.out = ""
        self.rebuild_at = self.backoff = 0.0
        self.live()

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


def abandon(streams: "list[ComponentStream]") -> None:
    """The instance of these died while they waited for it."""
    for stream in streams:
        stream.abandon()
