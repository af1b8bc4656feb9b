"""All hostile filters: those that never serve, and those that do, by the gateway that they run in."""

from __future__ import annotations

from tests.hostile import arguments, floods, loading, running
from tests.hostile.case import Case

LOADING = loading.CASES
GATEWAYS: dict[str, list[Case]] = {
    "running": [*running.LOOPS, *running.TRAPS],
    "memory": [*running.MEMORIES, *running.ALLOCATORS],
    "arguments": arguments.CASES,
    "floods": floods.CASES,
}
"""The cases of one gateway process."""
SERVING = [case for cases in GATEWAYS.values() for case in cases]
CASES = [*LOADING, *SERVING]
BY_NAME = {case.name: case for case in CASES}
assert len(BY_NAME) == len(CASES), "two cases have one name"
