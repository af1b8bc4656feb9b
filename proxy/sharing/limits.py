"""How much the filters of one vm_id may share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proxy.config.filter import Filter

ENTRY_OVERHEAD = 64
"""Bytes that each key and each queued item counts for beyond its own, so that empty ones are not free."""

LARGEST_VALUE = 1 << 20
"""Bytes of one value or item: writing more would hold up the event loop for over a millisecond."""

LONGEST_NAME = 64 << 10
"""Bytes of a key or a queue's name."""

MOST_QUEUES = 64
"""Queues of one vm_id."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a namespace. `data_bytes` holds for its data and, apart, for what lies in its queues; `items` for the
    items of all its queues together."""

    data_bytes: int = 4 << 20
    items: int = 1024

    @property
    def file_bytes(self) -> int:
        """The most that the namespace's file can take. Pages half full, copies on write and gaps between large values
        took up to five times the bytes in measurements; beyond this, writes fail and the rest of the machine is safe."""
        return 12 * self.data_bytes + (4 << 20)


def limits_by_space(filters: Iterable[Filter], space_of: Callable[[Filter], bytes]) -> dict[bytes, Limits]:
    """The bounds of every space that filters share in. Where filters of one space differ, the larger setting holds: the
    budget is common to them."""
    limits: dict[bytes, Limits] = {}
    for one in filters:
        space = space_of(one)
        known = limits.get(space, Limits(0, 0))
        limits[space] = Limits(max(known.data_bytes, one.limits.shared_data), max(known.items, one.limits.queued_items))
    return limits
