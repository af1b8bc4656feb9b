"""What the supervisor knows of its workers, in memory that its children share.

The records are written by the supervisor alone, so a worker that hangs, or has died, is still shown as it is. The
heartbeats are the workers': one word for each slot, which its worker writes and the supervisor reads.
"""

import mmap
import struct
import time
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("<QQ")
FLAG = struct.Struct("<I")
"""The header's words: draining, unready, the log level's place in LOG_LEVELS; each has one writer."""
RECORD = struct.Struct("<QQQd")
HEARTBEAT = struct.Struct("<d")

LOG_LEVELS = ("", "debug", "info", "warning", "error")


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
        self.memory = mmap.mmap(-1, HEADER.size + slots * (RECORD.size + HEARTBEAT.size))

    def write(self, record: WorkerRecord) -> None:
        at = HEADER.size + record.slot * RECORD.size
        RECORD.pack_into(self.memory, at, record.pid, record.state, record.restarts, record.started)

    def worker(self, slot: int) -> WorkerRecord:
        pid, state, restarts, started = RECORD.unpack_from(self.memory, HEADER.size + slot * RECORD.size)
        return WorkerRecord(slot, pid, WorkerState(state), restarts, started)

    def workers(self) -> list[WorkerRecord]:
        return [self.worker(slot) for slot in range(self.slots)]

    def beat(self, slot: int) -> None:
        """The slot's worker is alive now."""
        HEARTBEAT.pack_into(self.memory, self.heartbeat_at(slot), time.monotonic())

    def heartbeat(self, slot: int) -> float:
        """When the slot's worker was last known to be alive: time.monotonic() of the machine, 0.0 for never."""
        at: float = HEARTBEAT.unpack_from(self.memory, self.heartbeat_at(slot))[0]
        return at

    def heartbeat_at(self, slot: int) -> int:
        return HEADER.size + self.slots * RECORD.size + slot * HEARTBEAT.size

    @property
    def draining(self) -> bool:
        return bool(FLAG.unpack_from(self.memory, 0)[0])

    @draining.setter
    def draining(self, value: bool) -> None:
        FLAG.pack_into(self.memory, 0, int(value))

    @property
    def unready(self) -> bool:
        """The operator wants no new traffic: /ready says so, and all goes on."""
        return bool(FLAG.unpack_from(self.memory, 4)[0])

    @unready.setter
    def unready(self, value: bool) -> None:
        FLAG.pack_into(self.memory, 4, int(value))

    @property
    def log_level(self) -> str:
        """The log level that the operator has set at run time; "" if the config's holds."""
        number = FLAG.unpack_from(self.memory, FLAG.size * 2)[0]
        return LOG_LEVELS[number]

    @log_level.setter
    def log_level(self, level: str) -> None:
        FLAG.pack_into(self.memory, FLAG.size * 2, LOG_LEVELS.index(level))
