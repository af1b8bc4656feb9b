"""Filters with other versions, in one worker: a canary for some streams, a shadow beside some; and their probes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from proxy.abi.component.plugin import ComponentPlugin
from proxy.abi.filter import Callbacks, FilterFactory, StreamFilter
from proxy.abi.memory import StreamMemory
from proxy.abi.proxy_wasm.plugin import Plugin
from proxy.chain.canary import Canary, SideCounter
from proxy.chain.chain import Chain
from proxy.chain.probe import Probe
from proxy.chain.recording import Recorder
from proxy.chain.shadow import EVERYTHING, Shadow, ShadowStream, Tap
from proxy.config.filter import Filter
from proxy.telemetry.metrics import Registry

Member = tuple[StreamFilter, Callbacks]
"""A part in a stream, and what it looks at."""
AT_THE_END = Callbacks(False, False, False, False, finish=False, ends=True)


class Versioned(ABC):
    """A filter with other versions, on one route."""

    @abstractmethod
    def choose(self, chain: Chain) -> "Around":
        """What takes part. Before any filter of the stream is opened."""


class Around(Protocol):
    """What takes part in one stream for one filter."""

    def members(self, chain: Chain) -> list[Member]: ...


class Split(Versioned):
    """A filter with a canary, on one route: two factories for it."""

    def __init__(self, canary: Canary, live: FilterFactory, other: FilterFactory) -> None:
        self.canary = canary
        self.sides = Single(live), Single(other)

    def choose(self, chain: Chain) -> "Around":
        side = self.canary.choose(chain)
        return Counted(self.canary, side, self.sides[side])


class Counted:
    """The version that a stream meets, and who counts it."""

    def __init__(self, canary: Canary, side: int, inner: Around) -> None:
        self.canary = canary
        self.side = side
        self.inner = inner

    def members(self, chain: Chain) -> list[Member]:
        return [(SideCounter(chain.info, self.canary, self.side), AT_THE_END), *self.inner.members(chain)]


class Shadowed(Versioned):
    """A filter with a shadow, on one route, whatever else it has."""

    def __init__(self, shadow: Shadow, live: Versioned, factory: FilterFactory) -> None:
        self.shadow = shadow
        self.live = live
        self.factory = factory

    def choose(self, chain: Chain) -> "Around":
        chosen = self.live.choose(chain)
        return Followed(self, chosen) if self.shadow.sampled() else chosen


class Followed:
    """A part in a stream that a shadow sees."""

    def __init__(self, shadowed: Shadowed, inner: Around) -> None:
        self.shadowed = shadowed
        self.inner = inner

    def members(self, chain: Chain) -> list[Member]:
        stream = ShadowStream(self.shadowed.shadow, self.shadowed.factory, chain)
        return [(Tap(stream, True), EVERYTHING), *self.inner.members(chain), (Tap(stream, False), EVERYTHING)]


class Single(Versioned):
    """A filter without other versions."""

    def __init__(self, factory: FilterFactory) -> None:
        self.factory = factory

    def choose(self, chain: Chain) -> "Around":
        return self

    def members(self, chain: Chain) -> list[Member]:
        factory = self.factory
        filter_ = factory.open(chain)
        return [] if filter_ is None else [(filter_, factory.callbacks)]


def open_versions(chain: Chain, versioned: Sequence[Versioned], recorder: Recorder | None = None) -> None:
    """Take part in the stream with the versions that it meets."""
    kept = recorder is not None and recorder.wants(chain)
    # All choices first: a filter that is built anew in its opening leaves another stream live in the memory.
    chosen = [one.choose(chain) for one in versioned]
    members: list[Member] = []
    for one in chosen:
        members += one.members(chain)
    if kept and recorder is not None:
        members = recorder.around(chain, members)
    chain.take_members(members)


class Versions:
    """The other versions of a worker's filters. `plugins`: all of them, a filter's other versions called NAME@canary and
    NAME@shadow; `filters`: what the config says of each, by its name, and the SHA-256 of its module."""

    def __init__(
        self,
        plugins: Iterable[Plugin | ComponentPlugin],
        filters: Mapping[str, tuple[Filter, str]],
        memory: StreamMemory | None = None,
        later: Callable[..., Any] | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        """`later` as of Services; `hidden`: headers whose values are not told."""
        self.plugins = {plugin.name: plugin for plugin in plugins}
        self.filters = dict(filters)
        self.live = [plugin for plugin in self.plugins.values() if "@" not in plugin.name]
        self.canaries: dict[str, Canary] = {}
        self.shadows: dict[str, Shadow] = {}
        self.probes: dict[str, Probe] = {}
        for plugin in self.live:
            other = self.plugins.get(f"{plugin.name}@canary")
            config = filters[plugin.name][0].canary
            if other is not None and config is not None:
                filter_, digest = filters[other.name]
                self.canaries[plugin.name] = Canary(config, plugin.name, digest, filter_.config_bytes(), (plugin, other))
            probe = filters[plugin.name][0].probe
            if probe is not None and memory is not None and later is not None:
                self.probes[plugin.name] = Probe(probe, plugin, memory, later)
            shadow = self.plugins.get(f"{plugin.name}@shadow")
            wanted = filters[plugin.name][0].shadow
            if shadow is not None and wanted is not None and memory is not None:
                names = frozenset(name.lower().encode() for name in hidden)
                self.shadows[plugin.name] = Shadow(wanted, plugin.name, shadow, memory, later, names)

    def on_route(self, plugin: Plugin | ComponentPlugin, configuration: bytes | None) -> "FilterFactory | Versioned":
        """The filter on a route, under the route's own configuration for it if there is one."""

        def of(name: str) -> FilterFactory:
            one = self.plugins[name]
            return one if configuration is None else one.route(configuration)

        live = of(plugin.name)
        canary = self.canaries.get(plugin.name)
        shadow = self.shadows.get(plugin.name)
        found = live if canary is None else Split(canary, live, of(f"{plugin.name}@canary"))
        if shadow is None:
            return found
        inner = found if isinstance(found, Versioned) else Single(found)
        return Shadowed(shadow, inner, of(f"{plugin.name}@shadow"))

    def attach(self, directory: Path, registry: Registry) -> None:
        """Begin to serve. Raises OSError if the state directory can not be written."""
        for canary in self.canaries.values():
            canary.attach(directory, registry)
        for shadow in self.shadows.values():
            shadow.attach(registry)
        for probe in self.probes.values():
            probe.attach(registry)

    def watch(self) -> None:
        """A few times a second."""
        for canary in self.canaries.values():
            canary.watch()

    def state(self, plugin: Plugin | ComponentPlugin) -> dict[str, Any]:
        """A filter's state, with what is to be said of its other versions and its probe."""
        name, state = plugin.name, plugin.state()
        canary, shadow, probe = self.canaries.get(name), self.shadows.get(name), self.probes.get(name)
        if probe is not None:
            state = {**state, **probe.state()} if state["state"] == "ready" else {**probe.state(), **state}
        return {
            **state,
            **({"canary": canary.state()} if canary is not None else {}),
            **({"shadow": shadow.state()} if shadow is not None else {}),
        }

    def close(self) -> None:
        for canary in self.canaries.values():
            canary.close()
        for probe in self.probes.values():
            probe.close()
