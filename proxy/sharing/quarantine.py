"""Which filters are in quarantine, and every filter's last faults: a table in memory that all processes of a gateway share.

It outlives workers and the admin process, so neither a worker that crashes nor its successor lets a filter back in.

Each word and each record has one writer: a worker writes its own row, the admin process the words that resume. A filter is in
quarantine while some worker took it out later than it was last resumed; no lock is needed. Records carry a checksum: a worker
killed inside a write leaves one that nobody reads.
"""

import json
import mmap
import struct
import time
import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

TRAPS: Final = 8
"""Faults kept for each filter and worker."""
RECORD: Final = 512
"""Bytes of a record: its checksum, its size, JSON."""
PREFIX: Final = struct.Struct("<II")
MOST_TEXT: Final = 320
"""Bytes of a fault's message that are kept."""


class Trap(NamedTuple):
    """One fault. `time`: seconds since 1970; `reason`: a word, as in the metrics; `message`: cut if it is long."""

    time: float
    callback: str
    reason: str
    message: str


class Quarantined(NamedTuple):
    """Why a filter is out: since when (seconds since 1970), who took it out (a worker's slot), and the text of the reason."""

    since: float
    worker: int
    reason: str


class QuarantineBoard:
    """Create before forking; `filters` are the names of the config's filters, in order."""

    def __init__(self, filters: Sequence[str], slots: int) -> None:
        self.names = list(filters)
        self.slots = slots
        rows = slots * len(self.names)
        # Words: served; resumed, for each filter; then for each row when it was taken out, and how many traps it has had.
        words = 1 + len(self.names) + 2 * rows
        self.records_at = 8 * words
        self.memory = mmap.mmap(-1, self.records_at + rows * (1 + TRAPS) * RECORD)
        # Native words are written at once, never half.
        view = memoryview(self.memory)[: self.records_at]
        self.times = view.cast("d")
        self.counts = view.cast("Q")
        self.traps_at = 1 + len(self.names) + rows

    @property
    def served(self) -> bool:
        """The gateway has served: all its filters have started once."""
        return bool(self.times[0])

    @served.setter
    def served(self, value: bool) -> None:
        self.times[0] = float(value)

    # A worker's side

    def note(self, slot: int, name: str, trap: Trap) -> None:
        """Keep a fault, instead of the oldest one."""
        row = self.row(slot, name)
        count = self.counts[self.traps_at + row]
        text = trap.message.encode("utf-8", "backslashreplace")[:MOST_TEXT].decode("utf-8", "ignore")
        self.write(row, 1 + count % TRAPS, [trap.time, trap.callback, trap.reason, text])
        self.counts[self.traps_at + row] = count + 1

    def take_out(self, slot: int, name: str, reason: str) -> None:
        """Put the filter in quarantine."""
        row = self.row(slot, name)
        self.write(row, 0, [time.time(), reason])
        self.times[1 + len(self.names) + row] = time.monotonic()

    def is_out(self, name: str) -> bool:
        """Is the filter in quarantine?"""
        index = self.names.index(name)
        return self.latest(index)[0] > self.times[1 + index]

    # The admin process's

    def resume(self, name: str) -> bool:
        """End the filter's quarantine; False if it was not in one. Raises ValueError for a name that is no filter's."""
        was = self.is_out(name)
        self.times[1 + self.names.index(name)] = time.monotonic()
        return was

    def quarantined(self, name: str) -> Quarantined | None:
        """Why the filter is out; None if it is not. Raises ValueError for a name that is no filter's."""
        if not self.is_out(name):
            return None
        _, slot = self.latest(self.names.index(name))
        found = self.read(self.row(slot, name), 0)
        return Quarantined(found[0], slot, found[1]) if found else Quarantined(0.0, slot, "")

    def traps(self, name: str) -> list[tuple[int, Trap]]:
        """The filter's last faults in all workers, with the worker's slot, the newest first."""
        rows = ((slot, self.row(slot, name)) for slot in range(self.slots))
        found = [(slot, self.read(row, place)) for slot, row in rows for place in range(1, 1 + TRAPS)]
        return sorted(((slot, Trap(*trap)) for slot, trap in found if trap), key=lambda each: -each[1].time)

    # The table

    def row(self, slot: int, name: str) -> int:
        return slot * len(self.names) + self.names.index(name)

    def latest(self, index: int) -> tuple[float, int]:
        """When and by which slot the filter was last taken out; 0.0 for never."""
        first = 1 + len(self.names)
        return max((self.times[first + slot * len(self.names) + index], slot) for slot in range(self.slots))

    def write(self, row: int, place: int, fields: list[Any]) -> None:
        data = json.dumps(fields, ensure_ascii=False).encode()
        while len(data) > RECORD - PREFIX.size:
            # Escapes made it longer than a record.
            fields = [*fields[:-1], fields[-1][: len(fields[-1]) // 2]]
            data = json.dumps(fields, ensure_ascii=False).encode()
        at = self.records_at + (row * (1 + TRAPS) + place) * RECORD
        self.memory[at : at + PREFIX.size + len(data)] = PREFIX.pack(zlib.crc32(data), len(data)) + data

    def read(self, row: int, place: int) -> list[Any] | None:
        """A record; None if there is none, or half a one."""
        at = self.records_at + (row * (1 + TRAPS) + place) * RECORD
        checksum, size = PREFIX.unpack_from(self.memory, at)
        data = self.memory[at + PREFIX.size : at + PREFIX.size + size]
        if not size or zlib.crc32(data) != checksum:
            return None
        fields: list[Any] = json.loads(data)
        return fields
