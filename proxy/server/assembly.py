"""Puts a worker's gateway together. What was prepared before the workers were forked is theirs by inheritance."""

from proxy.abi.proxy_wasm.load import LoadError, Prepared, prepare
from proxy.chain.chains import Chains, FilterStartError
from proxy.config.model import Config
from proxy.config.problem import Problem
from proxy.server.gateway import Gateway
from proxy.telemetry.telemetry import Telemetry

prepared: dict[int, Prepared] = {}
"""By id of the config: set once in the supervisor, read in its children."""


def prepare_filters(config: Config) -> list[Problem]:
    """Check and compile the config's filters for the workers that will be forked. Leaves no threads behind."""
    try:
        prepared[id(config)] = prepare(config.filters)
    except LoadError as error:
        return [config.problem(("filters", found.filter, found.key), found.problem, found.mend) for found in error.problems]
    return []


def make_gateway(config: Config, telemetry: Telemetry) -> Gateway:
    """A worker's gateway, to be started in its event loop."""
    return Gateway(config, telemetry, Chains(config, telemetry, prepared[id(config)]))


def start_filters(config: Config) -> list[Problem]:
    """Start every filter once, as a worker would, and stop it again."""
    chains = Chains(config, Telemetry(access=False), prepared[id(config)])
    try:
        chains.load()
    except FilterStartError as error:
        return [start_problem(config, error)]
    finally:
        chains.close()
    return []


def start_problem(config: Config, error: FilterStartError) -> Problem:
    """Where and why a filter did not start."""
    return config.problem(
        ("filters", error.filter), str(error), "mend the filter or its config; limits.start_fuel and start_deadline bound the start"
    )
