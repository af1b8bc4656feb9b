"""Puts a worker's gateway together. What was prepared before the workers were forked is theirs by inheritance."""

from proxy.abi.proxy_wasm.load import LoadError, Prepared, prepare, shares
from proxy.chain.chains import Chains, FilterStartError, space_of
from proxy.config.model import Config
from proxy.config.problem import Problem
from proxy.server.gateway import Gateway
from proxy.sharing.limits import limits_by_space
from proxy.sharing.quarantine import QuarantineBoard
from proxy.sharing.store import SharedStore
from proxy.telemetry.telemetry import Telemetry

prepared: dict[int, Prepared] = {}
stores: dict[int, SharedStore | None] = {}
"""By id of the config: set once in the supervisor, read in its children."""

NOTHING = Prepared(b"", b"", b"", ())


def prepare_filters(config: Config) -> list[Problem]:
    """Check and compile the config's filters for the workers that will be forked. Leaves no threads behind."""
    try:
        prepared[id(config)] = prepare(config.filters)
    except LoadError as error:
        return [config.problem(("filters", found.filter, found.key), found.problem, found.mend) for found in error.problems]
    return []


def open_sharing(config: Config, slots: int) -> SharedStore | None:
    """What the filters of all workers share; None if none of them shares anything. For the supervisor, before it forks."""
    sharing = [one.filter for one in prepared.get(id(config), NOTHING).filters if shares(one)]
    store = SharedStore(slots, limits_by_space(sharing, space_of)) if sharing else None
    stores[id(config)] = store
    return store


def make_gateway(config: Config, telemetry: Telemetry, slot: int, quarantine: QuarantineBoard | None = None) -> Gateway:
    """A worker's gateway, to be started in its event loop."""
    store = stores.get(id(config))
    sharing = None if store is None else store.attach(slot)
    return Gateway(config, telemetry, Chains(config, telemetry, prepared[id(config)], sharing, quarantine, slot))


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
    return config.problem(("filters", error.filter), str(error), mend)
