"""Puts a worker's gateway together. What was prepared before the workers were forked is theirs by inheritance."""

import asyncio
from collections.abc import Mapping

from proxy.abi.proxy_wasm.load import LoadError, Prepared, prepare, shares
from proxy.chain.chains import Chains, FilterStartError, space_of
from proxy.config.model import Config
from proxy.config.problem import Problem
from proxy.server.gateway import Gateway
from proxy.server.revision import Revision
from proxy.sharing.limits import Limits, limits_by_space
from proxy.sharing.quarantine import QuarantineBoard
from proxy.sharing.store import SharedStore, Sharing
from proxy.telemetry.telemetry import Telemetry
from proxy.wasm.engine import Process

prepared: dict[int, Prepared] = {}
stores: dict[int, SharedStore | None] = {}
numbers: dict[int, int] = {}
"""By id of the config: set once in the supervisor, read in its children."""

NOTHING = Prepared(b"", b"", b"", ())


def prepare_filters(config: Config) -> list[Problem]:
    """Check and compile the config's filters for the workers that will be forked. Leaves no threads behind."""
    try:
        prepared[id(config)] = prepare(config.filters, config)
    except LoadError as error:
        return [config.problem(("filters", found.filter, found.key), found.problem, found.mend) for found in error.problems]
    return []


def spaces_of(config: Config) -> dict[bytes, Limits]:
    """Where the config's filters share, and how much."""
    return limits_by_space([one.filter for one in prepared.get(id(config), NOTHING).filters if shares(one)], space_of)


def open_sharing(config: Config, slots: int, spare: int = 0) -> SharedStore | None:
    """What the filters of all workers share, with room for `spare` more spaces; None if there is none. For the supervisor,
    before it forks."""
    spaces = spaces_of(config)
    store = stores[id(config)] = SharedStore(slots, spaces, spare=spare) if spaces or spare else None
    return store


def adopt(before: Config, revision: Revision, filters: Prepared) -> None:
    """In a worker that starts after a reload: begin with this revision, with what was shared already."""
    prepared[id(revision.config)] = filters
    stores[id(revision.config)] = stores.get(id(before))
    numbers[id(revision.config)] = revision.number


class Joint:
    """What the filters of all generations of a worker have in common: the engine, shared data and queues, the quarantine."""

    def __init__(self, telemetry: Telemetry, slot: int, quarantine: QuarantineBoard | None, sharing: Sharing | None) -> None:
        self.telemetry = telemetry
        self.slot = slot
        self.quarantine = quarantine
        self.sharing = sharing
        self.process = Process()

    def chains(self, config: Config, prepared: Prepared, strict: bool = False) -> Chains:
        """The filters of a generation. `strict`: one that does not start is an error."""
        return Chains(config, self.telemetry, prepared, self.sharing, self.quarantine, self.slot, self.process, strict)

    def extend(self, spaces: Mapping[bytes, Limits]) -> None:
        """Filters of the next generation share in some of these: all that the supervisor has. Raises OSError, lmdb.Error."""
        if self.sharing is not None:
            self.sharing.extend(spaces)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver what queues tell."""
        if self.sharing is not None:
            self.sharing.start(loop)

    def close(self) -> None:
        """After all generations."""
        if self.sharing is not None:
            self.sharing.close()
        self.process.close()


def make_gateway(config: Config, telemetry: Telemetry, slot: int, quarantine: QuarantineBoard | None = None) -> Gateway:
    """A worker's gateway, to be started in its event loop."""
    store = stores.get(id(config))
    joint = Joint(telemetry, slot, quarantine, None if store is None else store.attach(slot))
    return Gateway(config, telemetry, joint.chains(config, prepared[id(config)]), joint, numbers.get(id(config), 1))


def start_filters(config: Config) -> list[Problem]:
    """Start every filter once, as a worker would, and stop it again."""
    store = open_sharing(config, 1)
    sharing = None if store is None else store.attach(0)
    chains = Chains(config, Telemetry(access=False), prepared[id(config)], sharing)
    try:
        chains.load()
    except FilterStartError as error:
        return [start_problem(config, error)]
    finally:
        chains.close()
        if store is not None:
            store.close()
    return []


def start_problem(config: Config, error: FilterStartError) -> Problem:
    """Where and why a filter did not start."""
    match error.cause:
        case "":
            mend = "mend the filter's config"
        case "fuel" | "deadline" as budget:
            mend = f"mend the filter or its config, or raise limits.start_{budget}"
        case _:
            mend = "mend the filter or its config"
    return config.problem(place_of(config, error), str(error), mend)


def place_of(config: Config, error: FilterStartError) -> tuple[str | int, ...]:
    """Of the filter, or of the configuration that a route gives it."""
    filter_ = config.filters[error.filter]
    if error.configuration not in (None, filter_.config_bytes()):
        for i, route in enumerate(config.routes):
            own = route.filters.get(filter_.name)
            if own is not None and own.config_bytes() == error.configuration:
                return "routes", i, "filters", filter_.name
    return "filters", error.filter
