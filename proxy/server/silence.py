"""Workers whose event loop has stood still for too long."""

import time
from collections.abc import Callable, Sequence

from proxy.config.model import Config
from proxy.server.contexts import Child
from proxy.server.scoreboard import Scoreboard
from proxy.telemetry import logging as logs

log = logs.get_logger("supervisor")

SILENT_SECONDS = 10.0
"""A serving worker whose event loop has not turned for so long is killed."""
LONGEST_START_CALLS = 5
"""... or for as long as a filter may run this many of its longest calls: a VM that is built anew makes that many."""
SECOND_LOOK_SECONDS = 1.0
"""Between noticing and killing: after a stop of the whole machine the worker must have had a turn as the supervisor did."""


def longest_silence(config: Config) -> float:
    """Seconds that a worker's event loop may stand still: filters run in it, within their deadlines."""
    calls = [max(one.deadline, one.limits.start_deadline) for one in config.filters]
    return max(SILENT_SECONDS, LONGEST_START_CALLS * max(calls, default=0.0))


class Silence:
    """Watches `children`; `kill` ends one, and its successor follows as after any death."""

    def __init__(
        self, config: Config, scoreboard: Scoreboard, children: Sequence[Child], kill: Callable[[list[Child]], object]
    ) -> None:
        self.scoreboard = scoreboard
        self.children = children
        self.kill = kill
        self.allow(config)

    def allow(self, *configs: Config) -> None:
        """What filters of these may need."""
        self.seconds = max(map(longest_silence, configs))

    def watched(self) -> list[Child]:
        """The workers that have to be heard: not those that start, whose filters may take their time."""
        return [child for child in self.children if child.slot is not None and child.pid and child.serving]

    def times(self) -> list[float]:
        """When to look at each."""
        return [self.due(child) for child in self.watched()]

    def due(self, child: Child) -> float:
        assert child.slot is not None
        if child.kill_silent_at is not None:
            return child.kill_silent_at
        return self.scoreboard.heartbeat(child.slot) + self.seconds - SECOND_LOOK_SECONDS

    def watch(self) -> None:
        """Kill those that have been silent for too long."""
        now = time.monotonic()
        for child in self.watched():
            assert child.slot is not None
            silence = now - self.scoreboard.heartbeat(child.slot)
            if silence < self.seconds - SECOND_LOOK_SECONDS:
                child.kill_silent_at = None
            elif child.kill_silent_at is None:
                child.kill_silent_at = now + SECOND_LOOK_SECONDS
            elif now >= child.kill_silent_at:
                log.error("worker hangs: killed", process=child.name, pid=child.pid, silent_s=round(silence, 1))
                child.kill_silent_at = now + SECOND_LOOK_SECONDS
                self.kill([child])
