"""Whether a worker's streams are watched, by whom, and by which chain they are opened then.

Nobody watches: the chains' own `open` serves, and nothing here is called. Somebody does: `open` of this module stands in its
place until nobody does any more.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from proxy.abi.filter import LocalReply
from proxy.abi.memory import Region, StreamMemory
from proxy.chain.chain import Chain
from proxy.chain.chains import Chains
from proxy.chain.tap import Tap
from proxy.chain.tracing import Tracer, tracer_of
from proxy.chain.watched import Call, WatchedChain, Witness
from proxy.config.model import Config
from proxy.config.route import Route
from proxy.telemetry.stream import StreamInfo


class Watcher(Protocol):
    """Who may want to watch."""

    def record(self, info: StreamInfo, memory: StreamMemory) -> Witness | None:
        """The witness of a new stream, its head loaded; None: this one is not watched."""


class Watching:
    """One per worker. `chains`: what opens streams now; after a reload another, see `follow`."""

    def __init__(self, chains: Chains, redact: Sequence[str], tracer: Tracer | None = None) -> None:
        self.tap = Tap(redact)
        self.tracer = tracer
        self.chains = chains
        self.plain = chains.open
        self.tapping: asyncio.TimerHandle | None = None
        self.tap_ends = 0.0
        self.watchers: list[Watcher] = []
        self.choose()

    def follow(self, chains: Chains) -> None:
        """Other chains serve from now on."""
        if chains is not self.chains:
            self.chains, self.plain = chains, chains.open
            self.tap.hide(redacted(chains.config))
            self.choose()

    def choose(self) -> None:
        tap: Sequence[Watcher] = [self.tap] if self.tapping is not None else []
        self.watchers = [*tap, *([self.tracer] if self.tracer is not None else [])]
        own: Any = self.chains
        own.open = self.open if self.watchers else self.plain

    def open(self, route: Route | None, info: StreamInfo, region: Region, wake: Callable[[], None]) -> Chain:
        """In the place of Chains.open."""
        found = [witness for watcher in self.watchers if (witness := watcher.record(info, self.chains.memory)) is not None]
        if not found:
            return self.plain(route, info, region, wake)
        witness = found[0] if len(found) == 1 else Both(found)
        return self.chains.open_as(WatchedChain(self.chains.memory, region, info, wake, witness), route)

    # ---- The tap ----

    def tap_on(self, seconds: float, sample: float, bodies: bool) -> None:
        """Keep streams for so many seconds from now on; while it is on already, for so many from now."""
        loop = asyncio.get_running_loop()
        if self.tapping is not None:
            self.tapping.cancel()
        self.tap.sample, self.tap.bodies = sample, bodies
        self.tap_ends = loop.time() + seconds
        self.tapping = loop.call_later(seconds, self.tap_off)
        self.choose()

    def tap_off(self) -> None:
        """What was kept stays, until the tap is turned on again and newer streams push it out."""
        if self.tapping is not None:
            self.tapping.cancel()
            self.tapping = None
        self.choose()

    async def close(self) -> None:
        """No stream is left."""
        self.tap_off()
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.close)

    def state(self) -> dict[str, Any]:
        left = 0.0 if self.tapping is None else max(self.tap_ends - asyncio.get_running_loop().time(), 0.0)
        return {
            "on": self.tapping is not None,
            "seconds_left": round(left, 1),
            "sample": self.tap.sample,
            "bodies": self.tap.bodies,
        }


def watching_of(config: Config, chains: Chains) -> Watching:
    """As the config has it: what is not to be shown of streams, and whether they are traced."""
    return Watching(chains, redacted(config), tracer_of(config, chains))


def redacted(config: Config) -> Sequence[str]:
    return config.admin.redact if config.admin is not None else ()


class Both:
    """Several witnesses of one stream."""

    def __init__(self, witnesses: Sequence[Witness]) -> None:
        self.witnesses = witnesses

    def opened(self, chain: Chain, filters: Sequence[str]) -> None:
        for one in self.witnesses:
            one.opened(chain, filters)

    def head(self, direction: int) -> None:
        for one in self.witnesses:
            one.head(direction)

    def left(self, direction: int) -> None:
        for one in self.witnesses:
            one.left(direction)

    def called(self, call: Call) -> None:
        for one in self.witnesses:
            one.called(call)

    def continued(self, name: str, direction: int) -> None:
        for one in self.witnesses:
            one.continued(name, direction)

    def overdue(self, name: str) -> None:
        for one in self.witnesses:
            one.overdue(name)

    def answered(self, reply: LocalReply) -> None:
        for one in self.witnesses:
            one.answered(reply)

    def finished(self) -> None:
        for one in self.witnesses:
            one.finished()
