"""Coarse timers: thousands of deadlines for the price of one `loop.call_later` per tick.

Every queue holds deadlines of one length, so a dict in order of insertion is in order of expiry too: starting and stopping
one is a dict operation, and a tick looks at the front only. A deadline fires up to `RESOLUTION` late, never early.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

RESOLUTION = 0.1
"""Seconds between two ticks."""

Item = TypeVar("Item", bound=Hashable)


class DeadlineQueue(Generic[Item]):
    """The deadlines of one length and one purpose. At most one per item: starting again moves it."""

    __slots__ = ("deadlines", "due", "expire", "seconds")

    def __init__(self, deadlines: "Deadlines", seconds: float, expire: Callable[[Item], object]) -> None:
        self.deadlines = deadlines
        self.seconds = seconds
        self.expire = expire
        self.due: dict[Item, float] = {}

    def start(self, item: Item) -> None:
        """Call `expire(item)` in `seconds`, unless stopped or started again before."""
        due = self.due
        if item in due:
            del due[item]
        due[item] = self.deadlines.clock() + self.seconds
        if not self.deadlines.ticking:
            self.deadlines.begin()

    def stop(self, item: Item) -> None:
        """Forget the item's deadline; harmless if it has none."""
        self.due.pop(item, None)

    def change(self, seconds: float) -> None:
        """Another length, for those that run too: none is over later than it would be if it had started now."""
        if seconds == self.seconds:
            return
        self.seconds = seconds
        latest = self.deadlines.clock() + seconds
        for item, due in self.due.items():
            self.due[item] = min(due, latest)

    def fire(self, now: float) -> None:
        """Expire what is due. A callback may start and stop any deadline, this queue's too."""
        due = self.due
        while due:
            item = next(iter(due))
            if due[item] > now:
                return
            del due[item]
            try:
                self.expire(item)
            except Exception as error:
                # One broken callback must not keep the others waiting for ever.
                self.deadlines.loop.call_exception_handler({"message": "deadline callback failed", "exception": error})


class NoDeadline(DeadlineQueue[Item]):
    """What a timeout of 0 (switched off) gives."""

    __slots__ = ()

    def start(self, item: Item) -> None:
        """Nothing: it never fires."""


class Deadlines:
    """The queues of one event loop, and the one timer that serves them while any is non-empty."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.clock: Callable[[], float] = loop.time
        self.queues: list[DeadlineQueue[Any]] = []
        self.ticking: asyncio.TimerHandle | None = None

    def queue(self, seconds: float, expire: Callable[[Item], object]) -> DeadlineQueue[Item]:
        """A new queue, made at load time; 0 seconds or less means that it never fires."""
        if seconds <= 0:
            return NoDeadline(self, seconds, expire)
        queue = DeadlineQueue(self, seconds, expire)
        self.queues.append(queue)
        return queue

    def begin(self) -> None:
        """Start ticking."""
        self.ticking = self.loop.call_later(RESOLUTION, self.tick)

    def tick(self) -> None:
        """Fire what is due; go on ticking while anything is left."""
        self.ticking = None
        now = self.clock()
        waiting = False
        for queue in self.queues:
            if queue.due:
                queue.fire(now)
                waiting = waiting or bool(queue.due)
        if waiting and self.ticking is None:
            self.begin()

    def close(self) -> None:
        """Stop the timer; deadlines that are pending never fire."""
        if self.ticking is not None:
            self.ticking.cancel()
            self.ticking = None
        for queue in self.queues:
            queue.due.clear()
