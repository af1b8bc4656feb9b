"""Checks a config as far as it can be checked without serving."""

from proxy.config.model import Config
from proxy.config.problem import Problem
from proxy.server.assembly import prepare_filters, start_filters


def prepare(config: Config) -> list[Problem]:
    """Check and compile the filters; for the supervisor, before it forks."""
    return prepare_filters(config)


def check(config: Config) -> list[str]:
    """Compile and start every filter. One line for each problem."""
    problems = prepare_filters(config) or start_filters(config)
    return [str(problem) for problem in problems]
