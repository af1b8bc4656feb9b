"""What the supervisor knows of its workers, in memory that the admin process shares.

Written by the supervisor alone, so a worker that hangs, or has died, is still shown as it is.
"""

import mmap
import struct
import time
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("<QQ")
RECORD = struct.Struct("<QQQd")


class WorkerState(IntEnum):
    """A worker slot's state."""

    DEAD = 0
    STARTING = 1
    SERVING = 2
    DRAINING = 3


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One slot. `started` is time.monotonic() of the machine; `restarts` counts successors since the start."""

    slot: int
    pid: int
    state: WorkerState
    restarts: int
    started: float

    @property
    def key(self) -> tuple[int, float]:
        """Tells a worker from a later one with the same pid."""
        return self.pid, self.started

    @property
    def uptime(self) -> float:
        return time.monotonic() - self.started if self.pid else 0.0


class Scoreboard:
    """Create before forking."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.memory = mmap.mmap(-1, HEADER.size + slots * RECORD.size)

    def write(self, record: WorkerRecord) -> None:
        at = HEADER.size + record.slot * RECORD.size
        RECORD.pack_into(self.memory, at, record.pid, record.state, record.restarts, record.started)

    def worker(self, slot: int) -> WorkerRecord:
        pid, state, restarts, started = RECORD.unpack_from(self.memory, HEADER.size + slot * RECORD.size)
        return WorkerRecord(slot, pid, WorkerState(state), restarts, started)

    def workers(self) -> list[WorkerRecord]:
        return [self.worker(slot) for slot in range(self.slots)]

    @property
    def draining(self) -> bool:
        return bool(HEADER.unpack_from(self.memory)[0])

    @draining.setter
    def draining(self, value: bool) -> None:
        HEADER.pack_into(self.memory, 0, int(value), 0)
