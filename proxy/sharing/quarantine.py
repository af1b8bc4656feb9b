"""Which filters are in quarantine, and every filter's last faults: a table in memory that all processes of a gateway share.

It outlives workers and the admin process, so neither a worker that crashes nor its successor lets a filter back in.

Each word and each record has one writer: a worker writes its own row, the admin process the words that resume, the supervisor
which filter has which place. A filter is in quarantine while some worker took it out later than it was last resumed; no lock is
needed. Records carry a checksum: a worker killed inside a write leaves one that nobody reads.

A reload may bring names that were not there when the memory was made: there are SPARE places for them. A name that goes keeps
its place, and its quarantine, until all places are taken; then the name that has been gone longest loses it.
"""

import json
import math
import mmap
import struct
import time
import zlib
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

TRAPS: Final = 8
"""Faults kept for each filter and worker."""
RECORD: Final = 512
"""Bytes of a record: its checksum, its size, JSON."""
PREFIX: Final = struct.Struct("<II")
MOST_TEXT: Final = 320
"""Bytes of a fault's message that are kept."""


SPARE: Final = 256
"""Places for filters that only a reload brings. Memory that nobody writes takes no RAM."""
LONGEST_NAME: Final = 300
"""Bytes of a name that are kept; a longer one is told by its digest."""


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
        self.slots = slots
        self.nowhere = len(filters) + SPARE
        """A place for names that have lost theirs, and still run in a generation that ends: never out."""
        self.width = width = self.nowhere + 1
        rows = slots * width
        # Words: served; for each place when it was last resumed, when it was given to its name, its number in the config (0: it
        # is not there now); for each row when it was taken out, and how many traps it has had.
        self.given_at, self.order_at, self.taken_at = 1 + width, 1 + 2 * width, 1 + 3 * width
        self.traps_at = self.taken_at + rows
        self.records_at = 8 * (self.traps_at + rows)
        self.names_at = self.records_at + rows * (1 + TRAPS) * RECORD
        self.memory = mmap.mmap(-1, self.names_at + width * RECORD)
        # Native words are written at once, never half.
        view = memoryview(self.memory)[: self.records_at]
        self.times = view.cast("d")
        self.counts = view.cast("Q")
        self.times[1 + self.nowhere] = math.inf
        self.known: dict[str, tuple[int, float]] = {}
        """Places that this process has looked up, with when they were given."""
        self.assign(filters)

    @property
    def names(self) -> list[str]:
        """Of the filters that are configured, in order."""
        numbers = self.counts[self.order_at : self.order_at + self.width].tolist()
        found = sorted((number, place) for place, number in enumerate(numbers) if number)
        records = [self.read_at(self.names_at + place * RECORD) for _, place in found]
        return [record[0] for record in records if record]

    def assign(self, filters: Sequence[str]) -> None:
        """The supervisor's: from now on these filters are configured. Raises ValueError if there are not as many places."""
        if len(filters) > self.nowhere:
            raise ValueError(f"{len(filters)} filters, and places for {self.nowhere}")
        places = {}
        for name in filters:
            place = self.search(stored(name))
            if place is not None:
                places[name] = place
        free = [place for place in range(self.nowhere) if place not in places.values()]
        # Those that were never given first, then those whose names have been gone longest.
        free.sort(key=lambda place: (self.times[self.given_at + place], place), reverse=True)
        for place in range(self.nowhere):
            if place not in places.values():
                self.counts[self.order_at + place] = 0
        for number, name in enumerate(filters, 1):
            if name not in places:
                place = places[name] = free.pop()
                now = time.monotonic()
                self.times[1 + place] = now  # whatever the last name here has done
                if self.times[self.given_at + place]:
                    for slot in range(self.slots):
                        for number in range(1, 1 + TRAPS):
                            self.write(slot * self.width + place, number, [])
                self.write_at(self.names_at + place * RECORD, [stored(name), time.time()])
                self.times[self.given_at + place] = now
            self.counts[self.order_at + places[name]] = number

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
        self.times[self.taken_at + row] = time.monotonic()

    def is_out(self, name: str) -> bool:
        """Is the filter in quarantine?"""
        place = self.place(name)
        return self.latest(place)[0] > self.times[1 + place]

    # The admin process's

    def resume(self, name: str) -> bool:
        """End the filter's quarantine; False if it was not in one. Raises ValueError for a name that is no filter's."""
        was = self.is_out(name)
        self.times[1 + self.place(name)] = time.monotonic()
        return was

    def quarantined(self, name: str) -> Quarantined | None:
        """Why the filter is out; None if it is not. Raises ValueError for a name that is no filter's."""
        if not self.is_out(name):
            return None
        _, slot = self.latest(self.place(name))
        found = self.read(self.row(slot, name), 0)
        return Quarantined(found[0], slot, found[1]) if found else Quarantined(0.0, slot, "")

    def traps(self, name: str) -> list[tuple[int, Trap]]:
        """The filter's last faults in all workers, with the worker's slot, the newest first."""
        rows = ((slot, self.row(slot, name)) for slot in range(self.slots))
        found = [(slot, self.read(row, place)) for slot, row in rows for place in range(1, 1 + TRAPS)]
        return sorted(((slot, Trap(*trap)) for slot, trap in found if trap), key=lambda each: -each[1].time)

    # The table

    def place(self, name: str) -> int:
        """The filter's place. Raises ValueError for a name that has never had one."""
        known = self.known.get(name)
        if known is not None and self.times[self.given_at + known[0]] == known[1]:
            return known[0]
        place = self.search(stored(name))
        if place is None:
            if known is None:
                raise ValueError(f"{name} is no filter")
            return self.nowhere
        self.known[name] = place, self.times[self.given_at + place]
        return place

    def search(self, name: str) -> int | None:
        for place in range(self.nowhere):
            if self.times[self.given_at + place]:
                record = self.read_at(self.names_at + place * RECORD)
                if record and record[0] == name:
                    return place
        return None

    def row(self, slot: int, name: str) -> int:
        return slot * self.width + self.place(name)

    def latest(self, place: int) -> tuple[float, int]:
        """When and by which slot the filter was last taken out; 0.0 for never."""
        return max((self.times[self.taken_at + slot * self.width + place], slot) for slot in range(self.slots))

    def write(self, row: int, place: int, fields: list[Any]) -> None:
        self.write_at(self.records_at + (row * (1 + TRAPS) + place) * RECORD, fields)

    def write_at(self, at: int, fields: list[Any]) -> None:
        data = json.dumps(fields, ensure_ascii=False).encode()
        while len(data) > RECORD - PREFIX.size:
            # Escapes made it longer than a record.
            fields = [*fields[:-1], fields[-1][: len(fields[-1]) // 2]]
            data = json.dumps(fields, ensure_ascii=False).encode()
        self.memory[at : at + PREFIX.size + len(data)] = PREFIX.pack(zlib.crc32(data), len(data)) + data

    def read(self, row: int, place: int) -> list[Any] | None:
        """A record; None if there is none, or half a one."""
        return self.read_at(self.records_at + (row * (1 + TRAPS) + place) * RECORD)

    def read_at(self, at: int) -> list[Any] | None:
        checksum, size = PREFIX.unpack_from(self.memory, at)
        data = self.memory[at + PREFIX.size : at + PREFIX.size + size]
        if not size or zlib.crc32(data) != checksum:
            return None
        fields: list[Any] = json.loads(data)
        return fields


def stored(name: str) -> str:
    """A name as the table has it."""
    data = name.encode()
    return name if len(data) <= LONGEST_NAME else f"{name[:100]}~{sha256(data).hexdigest()}"
