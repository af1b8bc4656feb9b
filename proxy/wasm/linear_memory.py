"""How much memory a component's instance has: wasmtime tells it of no memory that is not exported, so the kernel is asked.

wasmtime reserves 4 GiB of address space for each linear memory and makes accessible what the memory has: in /proc/self/maps,
pages that can be written, at the start of a reservation that can not be touched. What has come into the map while an instance
was made, and looks like that, is its own.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

MAPS: Final = Path("/proc/self/maps")
RESERVED: Final = 1 << 30
"""Bytes behind a linear memory of up to 3 GiB that are certainly reserved; what allocators reserve is less."""


class Mapped(NamedTuple):
    """A part of the address space, `end` not included."""

    start: int
    end: int
    access: str


def mapped() -> list[Mapped]:
    """This process's address space, in order; nothing where the kernel does not tell."""
    found = []
    try:
        lines = MAPS.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        place, access, _ = line.split(" ", 2)
        start, end = place.split("-")
        found.append(Mapped(int(start, 16), int(end, 16), access))
    return found


def come(before: Sequence[Mapped], after: Sequence[Mapped]) -> list[tuple[int, int]]:
    """What is mapped after and was not before."""
    same, new = set(before), []
    for one in after:
        if one in same:
            continue
        start, end = one.start, one.end
        for known in before:
            if known.end <= start:
                continue
            if known.start >= end:
                break
            if known.start > start:
                new.append((start, known.start))
            start = max(start, known.end)
        if start < end:
            new.append((start, end))
    return new


def memories(places: Sequence[tuple[int, int]], now: Sequence[Mapped]) -> Iterator[int]:
    """The sizes of the linear memories in these places, those without a page left out."""
    begin = end = 0
    for one in now:
        if one.access.startswith("rw"):
            if one.start != end:  # a memory may be several pieces: its first contents, and what it has grown by
                begin = one.start
            end = one.end
        elif (
            one.start == end
            and one.access.startswith("-")
            and one.end - one.start >= RESERVED
            and any(start <= begin < stop for start, stop in places)
        ):
            yield end - begin
