"""What happens after a filter's fault: it is built anew, with back-off, or taken out by its quarantine."""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from proxy.abi.filter import FAIL_STREAM, LocalReply, StreamFilter, StreamHost
from proxy.abi.probation import Probation
from proxy.abi.quarantine import Quarantine
from proxy.abi.services import Services
from proxy.abi.settings import Settings
from proxy.telemetry.metrics import Counter
from proxy.wasm.engine import TICK

if TYPE_CHECKING:
    from proxy.abi.reporting import Reporting

log = structlog.get_logger("filter")

BACKOFF_FIRST: Final = 1.0
BACKOFF_MOST: Final = 60.0
"""Seconds until what keeps failing is built again; doubled each time, with jitter."""
FIRST_REBUILD_SECONDS: Final = 0.05
HEALTHY_AFTER: Final = 10.0
"""What lived this long starts a new series. The first fault of a series is followed by a rebuild at once."""

LONG_START_SECONDS: Final = 0.05
REBUILD_FUEL: Final = 5_000_000
REBUILD_MARGIN: Final = 4
"""A callback of a later start may take so many times what the costliest one of the first took, and at least REBUILD_FUEL."""
PROBATION_STEP: Final = 0.5
"""Seconds until a filter on probation gets more fuel."""
START_REST: Final = 20
"""A start holds the worker: one that took longer is not repeated before so many times its seconds have passed."""


class StartError(Exception):
    """A filter did not start: it failed, or it refused its configuration.

    `reason` is for people and begins with the callback; `cause` is the fault's reason, "" for a refusal; `lines` are what it
    logged.
    """

    def __init__(self, reason: str, lines: Sequence[str], cause: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.lines = lines
        self.cause = cause


class Configured(Protocol):
    """A filter under one configuration: a root context, or what a component has in its place."""

    @property
    def plugin(self) -> "Reporting": ...


class Slot(ABC):
    """The place of a VM, or of a component's instances."""

    roots: Sequence[Configured]
    """In the order in which they are started; at least one once it serves."""

    def __init__(self, settings: Settings, services: Services) -> None:
        self.settings = settings
        self.services = services
        self.closing = False
        self.changed: Callable[[], object] = nothing
        """Called when `over` may have changed."""
        self.rebuild_at = 0.0
        self.backoff = 0.0
        self.built_at = 0.0
        self.start_seconds = 0.0
        """What the last start took, whatever came of it."""
        self.start_fuel = 0
        """The most that one callback of a start has taken; 0 before the first."""
        self.last_fault = ""
        self.down_since = 0.0
        """When it last stopped serving, in seconds since 1970."""
        self.failing = settings
        """Of the filter that had the last fault."""
        self.quarantine: Quarantine | None = None
        """None where nothing is kept of faults (a check)."""
        self.out = ""
        """The filter for which this place is in quarantine."""
        self.probation = Probation(settings.deadline)
        self.on_probation = False

    @property
    @abstractmethod
    def running(self) -> Any:
        """What was entered last; its `plugin` is whom to blame for a start that failed."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """It serves."""

    @property
    def rebuilds(self) -> Counter:
        """Counts how often it was built anew."""
        return self.roots[0].plugin.instruments.vm_rebuilds

    @property
    def plugins(self) -> "Iterable[Reporting]":
        """The filters in it. One may have several roots: a route's own configuration is one more."""
        return {root.plugin.name: root.plugin for root in self.roots}.values()

    @abstractmethod
    def start(self) -> None:
        """Build it and start every filter in it, in order. Raises StartError."""

    @abstractmethod
    def bury(self) -> None:
        """Throw away what serves, if anything does."""

    def fuel_for_start(self, limit: int) -> int:
        """What a callback of a start may take. A VM that is built anew holds up a worker that serves: it gets what the start
        has been seen to need, with a margin, and not all that it might have taken at first."""
        return limit if not self.start_fuel else min(limit, max(REBUILD_FUEL, REBUILD_MARGIN * self.start_fuel))

    def died(self) -> None:
        """A fault: throw all away, and say when it may be built again."""
        now = time.monotonic()
        if self.ready or not self.down_since:
            self.down_since = time.time()
        self.bury()
        if now - self.built_at >= HEALTHY_AFTER:
            self.backoff = 0.0
        rest = START_REST * self.start_seconds if self.start_seconds > LONG_START_SECONDS else 0.0
        self.rebuild_at = now + max(self.backoff * random.uniform(0.8, 1.2), rest)
        self.backoff = min(2 * self.backoff, BACKOFF_MOST) or BACKOFF_FIRST
        if not self.noted() and self.services.later is not None:
            # Not only when a stream asks for it: it may work without streams, and /ready should not wait for one.
            self.services.later(max(self.rebuild_at - now, FIRST_REBUILD_SECONDS), self.revive)

    # ---- Probation ----

    def burned(self, fuel: int, seconds: float) -> None:
        """A callback failed that took so much: it may be that the next ones get less."""
        if self.quarantine is None or self.services.later is None:
            return
        # What the wall's time says beyond this is a busy machine's: the deadline ends a call that burns more.
        self.probation.fault(time.monotonic(), fuel, min(seconds, self.settings.deadline + 2 * TICK))
        if self.on_probation:
            self.give_fuel()
        else:
            self.review()

    def review(self) -> None:
        """Begin, go on with or end the probation."""
        if self.closing:
            return
        cut = self.give_fuel()
        if self.on_probation and not cut:
            log.info("filter_off_probation", filter=self.failing.name)
        elif cut and not self.on_probation:
            for plugin in cut:
                plugin.instruments.limited("probation").value += 1
                log.warning("filter_on_probation", filter=plugin.name, fuel=plugin.fuel, instead_of=plugin.settings.fuel)
        self.on_probation = bool(cut)
        if cut and self.services.later is not None:
            self.services.later(PROBATION_STEP, self.review)

    def give_fuel(self) -> "list[Reporting]":
        """To each filter what a call may take now; those that get less than their limit."""
        now = time.monotonic()
        for plugin in self.plugins:
            plugin.fuel = self.probation.fuel(now, plugin.settings.fuel, plugin.usual_fuel())
        return [plugin for plugin in self.plugins if plugin.fuel < plugin.settings.fuel]

    # ---- Quarantine ----

    def noted(self) -> bool:
        """Count a fault towards the quarantine. True: this one was too many."""
        if self.quarantine is None:
            return False
        reason = self.quarantine.fault(self.failing, time.monotonic(), self.last_fault)
        if not reason:
            return False
        self.take_out(self.failing.name)
        log.error("filter_quarantined", filter=self.out, reason=reason, resume=f"POST /filters/{self.out}/resume")
        return True

    def revive(self) -> None:
        """Build it anew if it is down, and if it is time."""
        if self.ready or time.monotonic() < self.rebuild_at or self.closing or self.out:
            return
        self.rebuilds.value += 1
        try:
            self.start()
        except StartError as error:
            self.running.plugin.failed("start", "start", error.reason, None, 0)
            self.died()

    def take_out(self, name: str) -> None:
        """Nothing serves from now on, until the filter of that name is resumed."""
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
            if not self.out:
                log.warning("filter_quarantined", filter=name, reason="another worker has taken it out")
            self.take_out(name)
            return
        log.info("filter_resumed", filter=self.out)
        self.out = ""
        self.rebuild_at = self.backoff = 0.0
        self.revive()


class OrphanPart(StreamFilter, Protocol):
    """A filter's part in a stream, whose VM or instance has died."""

    stream: StreamHost


def let_go(orphans: Sequence[OrphanPart]) -> None:
    """What these held of their streams, nobody else will let go of."""
    for part in orphans:
        stream = part.stream
        if not stream.holds(part):
            continue
        if part.fails_open:
            stream.resume(part, 0)
            stream.resume(part, 1)
        else:
            stream.reply(part, LocalReply(503, FAIL_STREAM, b"", (), None))


def nothing() -> None:
    """Nobody waits."""
