"""A worker's filters without the worker: the gateway's own chains under the kit's clock, in one process, without sockets."""

import dataclasses
import random
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from proxy.abi.component.plugin import ComponentPlugin
from proxy.abi.memory import HeadOptions
from proxy.abi.proxy_wasm.load import LoadError, Prepared, prepare, shares
from proxy.abi.proxy_wasm.plugin import Plugin
from proxy.chain.chains import Chains, FilterStartError, space_of
from proxy.config.filter import Filter
from proxy.config.model import Config
from proxy.kit.calls import ScriptedCalls
from proxy.kit.clock import Clock
from proxy.kit.component import KitComponentHost, Trace
from proxy.kit.host import KitHost, Listener
from proxy.kit.meter import Meter
from proxy.sharing.limits import limits_by_space
from proxy.sharing.store import SharedStore
from proxy.telemetry.metrics import Histogram
from proxy.telemetry.telemetry import Telemetry

LOCAL = HeadOptions(forwarded="off", request_id="off", via=None, trailers=True, underscores="keep")
"""Heads without anything that a gateway adds."""

MOST_QUEUE_TURNS = 1000


class SetupError(Exception):
    """A filter's settings are wrong, or it does not load; one text for each problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class RefusedError(Exception):
    """A filter did not start. `lines` are what it logged; `cause` is the fault's reason, "" if it refused its configuration."""

    def __init__(self, error: FilterStartError) -> None:
        super().__init__(str(error))
        self.name = str(error)
        self.error = error
        self.lines = list(error.lines)
        self.cause = error.cause


def config_of(filters: list[dict[str, Any]], log_level: str = "debug") -> Config:
    """A gateway's config with these filters and one cluster for everything. Raises SetupError."""
    try:
        return Config.model_validate({
            "listeners": [{"address": "127.0.0.1:0"}],
            "clusters": [{"name": "service", "endpoints": ["127.0.0.1:9"]}],
            "routes": [{"name": "service", "match": {"prefix": "/"}, "cluster": "service"}],
            "filters": filters,
            "admin": None,
            "log": {"level": log_level},
        })  # fmt: skip
    except ValueError as error:  # pydantic's: a line for each problem, with two lines of its own at most
        raise SetupError([f"filter settings: {error}"]) from None


def prepared_of(config: Config) -> Prepared:
    """The config's filters, checked and compiled. Raises SetupError."""
    try:
        return prepare(config.filters, config if config.file is not None else None)
    except LoadError as error:
        raise SetupError([f"{one.key}: {one.problem}; {one.mend}" for one in error.problems]) from None


def configured(prepared: Prepared, configuration: bytes) -> Prepared:
    """The same with the first filter under another configuration; nothing is compiled anew."""
    first, *rest = prepared.filters
    text = configuration.decode() if configuration else None
    own = dataclasses.replace(first, filter=first.filter.model_copy(update={"config": text}))
    return dataclasses.replace(prepared, filters=(own, *rest))


class Runtime:
    """Filters that have been started; close it, or use `with`. Raises RefusedError.

    `listener` hears what tracing modules tell (tracing.py), and `trace` what components' tell; `heads`: what is
    done to heads that come in.
    """

    def __init__(
        self,
        config: Config,
        prepared: Prepared,
        clock: Clock,
        seed: int = 1,
        listener: Listener | None = None,
        heads: HeadOptions = LOCAL,
        calls: ScriptedCalls | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.clock = clock
        self.config = config
        self.meter = Meter()
        self.calls = calls or ScriptedCalls(clock)
        source = random.Random(seed)
        filters: list[Filter] = [one.filter for one in prepared.filters]
        sharing = [one.filter for one in prepared.filters if shares(one)]
        self.store = SharedStore(1, limits_by_space(sharing, space_of)) if sharing else None
        self.sharing = self.store.attach(0) if self.store is not None else None
        # What a filter reads as its configuration is the filter's of `prepared`: a test changes it without a new config.
        whole = config.model_copy(update={"filters": tuple(filters)})
        self.chains = Chains(whole, Telemetry(access=False), prepared, self.sharing)
        chains: Any = self.chains
        chains.callouts = self.calls
        chains.services = self.chains.services._replace(
            later=clock.later,
            host=lambda slot: KitHost(slot, clock, source, listener),
            component_host=lambda world: KitComponentHost(world, clock, source, trace),
        )
        try:
            self.chains.load()
            self.memory = self.chains.memory
            self.memory.set_date(clock.now)
            self.options = self.memory.options(heads)
        except FilterStartError as error:
            self.close()
            raise RefusedError(error) from None
        except BaseException:
            self.close()
            raise
        for plugin in self.plugins:
            self.meter.watch(plugin)

    @property
    def plugins(self) -> list[Plugin | ComponentPlugin]:
        """The filters, in the config's order."""
        return self.chains.plugins

    def settle(self) -> None:
        """Deliver what has been put into queues."""
        if self.sharing is None:
            return
        notifier = self.sharing.notifier
        for _ in range(MOST_QUEUE_TURNS):
            before = len(self.meter.callbacks)
            notifier.tell()
            if len(self.meter.callbacks) == before:
                return

    def metrics(self) -> Mapping[str, int]:
        """The filters' counters and gauges, by the names that they gave; histograms by their number of samples."""
        found: dict[str, int] = {}
        for plugin in self.plugins:
            if isinstance(plugin, ComponentPlugin):
                for (_, name), metric in plugin.slot.host.metrics.items():
                    found[name] = sum(metric.counts) if isinstance(metric, Histogram) else int(metric.value)
                continue
            metrics = plugin.metrics
            metrics.refresh()
            for (_, name), cell in metrics.defined.items():
                shown = metrics.shown.get(cell)
                found[name] = int(shown.value) if shown is not None else sum(metrics.histograms[cell].counts)
        return found

    def used_memory(self) -> int:
        """Bytes of the filters' linear memories; of a component, of its largest instance."""
        vms = [plugin.slot.vm for plugin in self.plugins if isinstance(plugin, Plugin)]
        hosts = [plugin.slot.host for plugin in self.plugins if isinstance(plugin, ComponentPlugin)]
        components = sum(host.memory() for host in hosts if isinstance(host, KitComponentHost))
        return sum(vm.store.guest_memory() for vm in vms if vm is not None) + components

    def finish(self) -> None:
        """The end of the filters' life: proxy_on_done and proxy_on_delete of the roots."""
        for slot in self.chains.slots.values():
            slot.finish()
        for slot in self.chains.slots.values():
            slot.give_up()

    def close(self) -> None:
        self.chains.close()
        if self.store is not None:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
