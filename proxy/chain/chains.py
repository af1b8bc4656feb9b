"""A worker's filters: started once, opened for each stream by its route."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from proxy.abi.component.load import PreparedComponent, checked, interface_of
from proxy.abi.component.plugin import ComponentPlugin
from proxy.abi.component.slot import ComponentSlot
from proxy.abi.component.worlds import WorldError
from proxy.abi.filter import FilterFactory, StreamFilter
from proxy.abi.memory import HeadOptions, Region, StreamMemory
from proxy.abi.proxy_wasm.grpc import installed
from proxy.abi.proxy_wasm.load import Loader, Prepared, PreparedFilter, calls_grpc
from proxy.abi.proxy_wasm.plugin import Plugin
from proxy.abi.proxy_wasm.slot import VmSlot
from proxy.abi.quarantine import Quarantine, alone
from proxy.abi.recovery import StartError
from proxy.abi.services import ALONE, Answer, Call, CallRefusedError, Http, Pairs, Services
from proxy.abi.settings import Settings
from proxy.capabilities.allowed_hosts import AllowedHosts
from proxy.chain.chain import Chain, Parts
from proxy.chain.empty import EmptyChain
from proxy.chain.grpc import GrpcOf
from proxy.chain.recording import Recorder, WishFile
from proxy.chain.versions import Single, Versioned, Versions, open_versions
from proxy.config.filter import Filter, with_versions
from proxy.config.model import Config
from proxy.config.operation import Admin
from proxy.config.route import Route
from proxy.sharing.canaries import state_directory
from proxy.sharing.quarantine import QuarantineBoard
from proxy.sharing.store import Sharing
from proxy.telemetry.telemetry import Telemetry
from proxy.upstream.callout import CalloutError, CalloutPolicy, Callouts
from proxy.upstream.grpc_callout import GrpcCallouts
from proxy.wasm.engine import Process

WATCH_SECONDS = 0.25
"""How soon a worker follows a quarantine, or its end."""


class FilterStartError(Exception):
    """A filter did not start. `filter` is its place in the config, `lines` are the last that it logged; `cause` is the
    fault's reason, "" if it refused its configuration; `configuration` is the one that it was given, if it came to that."""

    configuration: bytes | None = None

    def __init__(self, filter_: int, name: str, reason: str, lines: Sequence[str], cause: str = "") -> None:
        said = f"; it logged: {' | '.join(lines)}" if lines else ""
        super().__init__(f"filter {name} did not start: {reason}{said}")
        self.filter = filter_
        self.reason = reason
        self.lines = lines
        self.cause = cause


class Opens(Protocol):
    """A filter under one configuration."""

    def open(self, stream: Chain) -> StreamFilter | None: ...


class Plan:
    """The filters of one route, in order, with what the walk wants to know of them."""

    def __init__(self, factories: Sequence[FilterFactory]) -> None:
        self.factories: Sequence[Any] = factories
        self.opens = [factory.open for factory in factories]
        self.parts = Parts([factory.callbacks for factory in factories])

    def open(self, chain: Chain) -> None:
        filters = [open_filter(chain) for open_filter in self.opens]
        if all(filters):
            chain.take_part(filters, self.parts)  # type: ignore[arg-type]  # cast() would be called for each stream
            return
        # A filter is down and fails open: the stream goes without it.
        pairs = zip(filters, self.factories, strict=True)
        chain.take_members([(filter_, factory.callbacks) for filter_, factory in pairs if filter_ is not None])


class VersionedPlan(Plan):
    """... of a route on which some filter has another version: what each stream meets is chosen when it begins."""

    def __init__(self, factories: Sequence[FilterFactory | Versioned], recorder: Recorder | None = None) -> None:
        self.recorder = recorder
        self.versioned = [Single(one) if not isinstance(one, Versioned) else one for one in factories]
        super().__init__(())
        self.factories = self.versioned

    def open(self, chain: Chain) -> None:
        open_versions(chain, self.versioned, self.recorder)


class Chains:
    """Made in each worker from what `prepare` left; see server/stream_interface.py."""

    memory: StreamMemory

    def __init__(
        self,
        config: Config,
        telemetry: Telemetry,
        prepared: Prepared,
        sharing: Sharing | None = None,
        board: QuarantineBoard | None = None,
        worker: int = 0,
        process: Process | None = None,
        strict: bool = False,
    ) -> None:
        """`process`: the worker's engine; with it, `sharing` is the worker's too, and neither is closed with these chains.
        `strict`: a filter that does not start is an error even in a gateway that has served."""
        self.sharing = sharing
        self.process = process
        self.strict = strict
        self.board = board if board is not None else alone([filter_.name for filter_ in with_versions(config.filters)])
        self.worker = worker
        self.config = config
        self.telemetry = telemetry
        self.prepared = prepared
        self.plugins: list[Plugin | ComponentPlugin] = []
        self.slots: dict[Any, VmSlot | ComponentSlot] = {}
        self.plans: dict[int, Plan] = {}
        self.default = Plan(())
        self.versions = Versions((), {})
        self.members: dict[int, list[FilterFactory | Versioned]] = {}
        self.wishes = WishFile(state_directory(config.state_directory))
        self.recorder: Recorder | None = None
        self.loader: Loader | None = None
        self.services = ALONE if sharing is None else Services(space=sharing.space)
        self.callouts: Callouts | None = None
        self.grpc: GrpcCallouts | None = None
        self.watching: asyncio.TimerHandle | None = None
        self.counted = 0
        """VMs that the gauge knows of."""

    async def start(
        self, callouts: Callouts | None = None, grpc: GrpcCallouts | None = None, heads: Sequence[HeadOptions] = ()
    ) -> list[int]:
        self.callouts = callouts
        self.grpc = grpc
        loop = asyncio.get_running_loop()
        self.services = self.services._replace(later=loop.call_later)
        if self.sharing is not None and self.process is None:
            self.sharing.start(loop)
        loader = self.loader = Loader(self.prepared, self.process)
        handles = loader.memory.options_of(heads)
        for _ in self.loading(loader):
            await asyncio.sleep(0)  # of a worker that serves, others may have their turn
        self.attach_versions()
        if self.slots:
            self.watch_quarantine(loop)
        return handles

    def attach_versions(self) -> None:
        """Canaries follow what is decided of them from now on. Raises FilterStartError."""
        directory = state_directory(self.config.state_directory)
        try:
            self.versions.attach(directory, self.telemetry.registry)
        except OSError as error:
            name = next(iter(self.versions.canaries))
            place = next(i for i, one in enumerate(self.config.filters) if one.name == name)
            reason = f"state_directory {directory} can not be written: {error}"
            raise FilterStartError(place, name, reason, (), "state_directory") from None

    def load(self) -> None:
        """Start every filter with every configuration it has. Raises FilterStartError."""
        loader = self.loader = Loader(self.prepared, self.process)
        for _ in self.loading(loader):
            pass

    def loading(self, loader: Loader) -> Iterator[None]:
        """`load`, in pieces: one for each VM."""
        self.memory = loader.memory
        for prepared in self.prepared.filters:
            if isinstance(prepared, PreparedComponent):
                self.plugins.append(self.component(loader, prepared))
            else:
                self.plugins.append(self.plugin(loader, prepared))
        filters = {one.filter.name: (one.filter, one.digest) for one in self.prepared.filters}
        hidden = self.config.admin.redact if self.config.admin is not None else Admin().redact
        self.versions = Versions(self.plugins, filters, self.memory, self.services.later, hidden)
        self.members = {id(route): self.members_of(route) for route in self.config.routes}
        self.members[id(None)] = self.members_of(None)
        self.plan(None)
        for slot in self.slots.values():
            slot.look()
            if not slot.out:
                self.start_slot(slot)
            yield
        self.telemetry.registry.before_snapshot(self.refresh)

    def start_slot(self, slot: VmSlot | ComponentSlot) -> None:
        """A filter that does not start keeps the gateway from its first start; of a gateway that has served, a worker that
        starts again treats it as it would a filter that fails: the others must not go without their worker."""
        try:
            slot.start()
        except StartError as error:
            failed: Plugin | ComponentPlugin = slot.running.plugin
            if self.strict or not self.board.served:
                place = self.place(failed.name)
                refused = FilterStartError(place, failed.name, error.reason, error.lines, error.cause)
                refused.configuration = getattr(slot.running, "configuration", None)
                raise refused from None
            failed.failed("start", "start", error.reason, None, 0)
            slot.died()

    def place(self, name: str) -> int:
        """Where the config has the filter, or the one whose other version it is."""
        name = name.partition("@")[0]
        return next(i for i, one in enumerate(self.config.filters) if one.name == name)

    def watch_quarantine(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look whether a filter has been taken out elsewhere, or resumed, and again in a moment."""
        for slot in self.slots.values():
            slot.look()
        self.versions.watch()
        self.watch_recording()
        self.watching = loop.call_later(WATCH_SECONDS, self.watch_quarantine, loop)

    def plugin(self, loader: Loader, prepared: PreparedFilter) -> Plugin:
        filter_ = prepared.filter
        # Filters share a VM where vm_id, VM configuration and code agree (Envoy: the VM key); without a vm_id none does.
        version = filter_.name.partition("@")[2]  # another version never shares a VM with the live one
        key: Any = (filter_.vm_id, filter_.vm_config_bytes(), prepared.digest, version) if filter_.vm_id else object()
        settings = settings_of(filter_, self.config.log.level)
        slot = self.slots.get(key)
        assert not isinstance(slot, ComponentSlot)  # their keys are their own
        if slot is None:
            slot = self.slots[key] = VmSlot(loader.memory, loader.compiled(prepared), settings, self.services)
            slot.quarantine = Quarantine(self.board, self.worker)
        assert slot.quarantine is not None
        slot.quarantine.names.append(filter_.name)
        instruments = self.telemetry.instruments.filter(filter_.name)
        plugin = Plugin(loader.memory, slot, settings, instruments, prepared.abi, settings.log_level)
        if self.callouts is not None:
            policy = policy_of(filter_)
            policy.load_plain = loader.memory.load_plain_answer
            plugin.http = http_of(self.callouts, policy)
            if self.grpc is not None and installed() and calls_grpc(prepared):
                self.grpc.load()
                plugin.grpc = GrpcOf(self.grpc, policy)
        return plugin

    def component(self, loader: Loader, prepared: PreparedComponent) -> ComponentPlugin:
        """A component has no VM that others share: its `vm_id` is only where its shared data are."""
        filter_ = prepared.filter
        settings = settings_of(filter_, self.config.log.level)
        engine = loader.engine
        try:
            loaded = checked(engine, prepared)
        except WorldError as error:
            raise FilterStartError(self.place(filter_.name), filter_.name, str(error), (), "type") from None
        outline = prepared.outline
        slot = ComponentSlot(
            engine, loaded, prepared.world, interface_of(outline.exports), outline.memories, settings, self.services
        )
        self.slots[slot] = slot
        slot.shares = prepared.imports("kv")
        slot.quarantine = Quarantine(self.board, self.worker)
        slot.quarantine.names.append(filter_.name)
        instruments = self.telemetry.instruments.filter(filter_.name)
        plugin = ComponentPlugin(loader.memory, slot, settings, instruments, filter_.isolation == "request")
        if self.callouts is not None:
            plugin.http = http_of(self.callouts, policy_of(filter_))
        try:
            plugin.describe()
        except StartError as error:
            if self.strict or not self.board.served:
                raise FilterStartError(self.place(filter_.name), filter_.name, error.reason, error.lines, error.cause) from None
            plugin.failed("start", "start", error.reason, None, 0)
        return plugin

    def plan(self, recorder: Recorder | None) -> None:
        """Say how streams are opened from now on, on every route."""
        for route, members in self.members.items():
            plain = [one for one in members if not isinstance(one, Versioned)]
            versioned = len(plain) < len(members) or (recorder is not None and members)
            self.plans[route] = VersionedPlan(members, recorder) if versioned else Plan(plain)
        self.default = self.plans[id(None)]

    def watch_recording(self) -> None:
        """Begin to keep streams, or end it, as the operator wishes."""
        wish = self.wishes.read()
        recorder = self.recorder
        if wish is not (recorder.wish if recorder is not None else None):
            if recorder is not None:
                recorder.stop(self.slots.values())
            recorder = None
            if wish is not None:
                recorder = Recorder(wish, self.wishes, self.versions.filters, self.config.routes, self.plugins)
            self.recorder = recorder
            self.plan(recorder)
        if recorder is not None:
            recorder.listen(self.slots.values())

    def members_of(self, route: Route | None) -> list[FilterFactory | Versioned]:
        """The chain of a route: without the filters it switches off, with its own configuration for others."""
        factories: list[FilterFactory | Versioned] = []
        for plugin in self.versions.live:
            own = route.filters.get(plugin.name) if route is not None else None
            if own is None or own.enabled:
                factories.append(self.versions.on_route(plugin, own.config_bytes() if own is not None else None))
        return factories

    def open(self, route: Route | None, info: Any, region: Region, wake: Callable[[], None]) -> Chain:
        plan = self.default if route is None else self.plans[id(route)]
        if not plan.factories:
            return EmptyChain(self.memory, region, info, wake)
        chain = Chain(self.memory, region, info, wake)
        plan.open(chain)
        return chain

    def open_as(self, chain: Chain, route: Route | None) -> Chain:
        """The same filters in a chain that the caller has made: one that is watched."""
        (self.default if route is None else self.plans[id(route)]).open(chain)
        return chain

    def refresh(self) -> None:
        """Before a snapshot: what filters count in the stream memory."""
        for plugin in self.plugins:
            plugin.refresh()
        self.count(sum(slot.ready for slot in self.slots.values()))

    def count(self, vms: int) -> None:
        """Of the gauge, what is of these chains: a worker has those of older generations beside them while these end."""
        self.telemetry.instruments.vms.child(()).value += vms - self.counted
        self.counted = vms

    def state(self) -> dict[str, Any]:
        return {plugin.name: self.versions.state(plugin) for plugin in self.plugins}

    async def finish(self, grace: float) -> None:
        """No stream is left: ask every root whether it is done (proxy_on_done). One that has work left may tick and call
        until it says proxy_done, at most `grace` seconds; then it is deleted all the same."""
        slots = self.slots.values()
        changed = asyncio.Event()
        for slot in slots:
            slot.changed = changed.set
            slot.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while not all(slot.over for slot in slots):
                    changed.clear()
                    await changed.wait()
        for slot in slots:
            slot.give_up()

    def bury(self) -> None:
        """Close the VMs; the memory stays, for streams that are not over."""
        if self.watching is not None:
            self.watching.cancel()
            self.watching = None
        self.versions.close()
        if self.recorder is not None:
            self.recorder.stop(self.slots.values())
            self.recorder = None
        for slot in self.slots.values():
            slot.closing = True
            slot.close()

    def close(self) -> None:
        self.bury()
        self.telemetry.registry.forget(self.refresh)
        self.count(0)
        if self.sharing is not None and self.process is None:
            self.sharing.close()
        if self.loader is not None:
            self.loader.close()


def space_of(filter_: Filter) -> bytes:
    """Filters of one vm_id share; one without a vm_id is alone, where Envoy puts all of these together: they need not
    trust each other. No vm_id can begin with NUL."""
    return filter_.vm_id.encode() or b"\0" + filter_.name.encode()


def policy_of(filter_: Filter) -> CalloutPolicy:
    """Where a filter may call, and how much at a time."""
    return CalloutPolicy(filter_.name, AllowedHosts(filter_.capabilities.allowed_hosts), max_calls=filter_.limits.calls)


def http_of(callouts: Callouts, policy: CalloutPolicy) -> Http:
    """How a filter calls other services, within its config."""

    def start(
        upstream: str, headers: Pairs, body: bytes, trailers: Pairs, timeout: float, done: Callable[[Answer], None]
    ) -> Call:
        try:
            return callouts.start(policy, upstream, headers, body, trailers, timeout, done)
        except CalloutError as error:
            raise CallRefusedError(error.status, error.reason) from None

    return start


def settings_of(filter_: Filter, log_level: str) -> Settings:
    """A filter's config as its VM takes it."""
    limits = filter_.limits
    return Settings(
        name=filter_.name,
        root_id=filter_.root_id,
        vm_id=filter_.vm_id,
        space=space_of(filter_),
        configuration=filter_.config_bytes(),
        vm_configuration=filter_.vm_config_bytes(),
        fuel=filter_.fuel,
        start_fuel=limits.start_fuel,
        start_deadline=limits.start_deadline,
        memory=filter_.memory,
        deadline=filter_.deadline,
        fail_open=filter_.on_failure == "open",
        stops_iteration_on_headers=filter_.allow_on_headers_stop_iteration,
        body_buffer=limits.body_buffer,
        log_level=log_level,
        log_lines=limits.log_lines,
        log_line=limits.log_line,
        metrics=limits.metrics,
        headers=limits.headers,
        header_bytes=limits.header_bytes,
        pause=limits.pause,
        tick=limits.tick,
        clock=round((limits.clock or 0) * 1e9) or 1,
        quarantine_faults=filter_.quarantine.faults if filter_.quarantine is not None else 0,
        quarantine_window=filter_.quarantine.window if filter_.quarantine is not None else 0.0,
        environment=dict(filter_.capabilities.env),
        host_functions=filter_.capabilities.host_functions,
    )
