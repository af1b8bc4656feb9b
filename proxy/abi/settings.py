"""What the config says of a filter, as its VM takes it."""

import time
from typing import Final, NamedTuple

LEVELS: Final = ("debug", "debug", "info", "warning", "error", "critical")
"""structlog's level for each of the ABI's."""
LEVEL_NUMBERS: Final = {"debug": 0, "info": 2, "warning": 3, "error": 4}
"""Config log levels as the ABI's: debug shows trace too."""

BODY_GROWTH: Final = 4
"""A body may grow to this many times the filter's body_buffer by edits of one callback."""


class Settings(NamedTuple):
    """What the config says of a filter, resolved."""

    name: str
    root_id: str
    vm_id: str
    space: bytes
    """Where its shared data and queues are: its vm_id, or a space of its own without one."""
    configuration: bytes
    vm_configuration: bytes
    fuel: int
    start_fuel: int
    start_deadline: float
    memory: int
    deadline: float
    fail_open: bool
    stops_iteration_on_headers: bool
    body_buffer: int
    log_level: str
    log_lines: float
    log_line: int
    metrics: int
    headers: int
    header_bytes: int
    pause: float
    tick: float
    clock: int
    """The clock's steps in nanoseconds."""
    quarantine_faults: int
    """So many faults within `quarantine_window` seconds take the filter out; 0: nothing does."""
    quarantine_window: float
    environment: dict[str, str]
    host_functions: tuple[str, ...] | None


class Allowance:
    """At most `per_second` of something, with a burst of one second's worth."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.tokens = max(per_second, 1.0)
        self.time = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self.tokens = min(max(self.per_second, 1.0), self.tokens + (now - self.time) * self.per_second)
        self.time = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
