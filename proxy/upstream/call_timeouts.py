"""When calls are too late. Exact, and without a timer per call: calls with the same timeout are over in the order in which they
began, so one timer watches the first of them, and looks again at what is then the first. A call that is over in time costs two
dict operations."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

MOST_QUEUES: Final = 16
"""Timeouts of calls are for filters to choose: beyond so many at a time each call has a timer of its own."""
EARLY: Final = 0.001
"""Seconds: loops round times to milliseconds."""


class TimeoutQueue:
    """The calls with one timeout. It leaves the table when its timer finds nothing to watch."""

    __slots__ = ("due", "expire", "loop", "seconds", "table", "timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        expire: Callable[[Any], object],
        table: "dict[float, TimeoutQueue]",
    ) -> None:
        self.loop = loop
        self.seconds = seconds
        self.expire = expire
        self.table = table
        self.due: dict[Any, float] = {}
        self.timer: asyncio.TimerHandle | None = None

    def start(self, call: Any) -> None:
        """Call `expire(call)` in `seconds`, unless stopped before. Once for each call."""
        self.due[call] = self.loop.time() + self.seconds
        if self.timer is None:
            self.timer = self.loop.call_later(self.seconds, self.fire)

    def stop(self, call: Any) -> None:
        """Forget the call; harmless if it has expired."""
        self.due.pop(call, None)

    def fire(self) -> None:
        """Expire what is due. What is called may start and stop any call: meanwhile there is a timer, though it has fired."""
        due = self.due
        now = self.loop.time() + EARLY
        while due:
            call = next(iter(due))
            if due[call] > now:
                self.timer = self.loop.call_at(due[call], self.fire)
                return
            del due[call]
            try:
                self.expire(call)
            except Exception as error:
                # One broken callback must not keep the others waiting for ever.
                self.loop.call_exception_handler({"message": "call's timeout failed", "exception": error})
        self.timer = None
        if self.table.get(self.seconds) is self:
            del self.table[self.seconds]

    def close(self) -> None:
        """Watch no more."""
        self.due.clear()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class OneTimeout(TimeoutQueue):
    """Of one call."""

    __slots__ = ()

    def stop(self, call: Any) -> None:
        self.close()


class CallTimeouts:
    """The queues of a worker's calls. `expire` is told of calls that are too late."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Any], object]) -> None:
        self.loop = loop
        self.expire = expire
        self.queues: dict[float, TimeoutQueue] = {}

    def queue(self, seconds: float) -> TimeoutQueue:
        """Where a call with that timeout starts, at once."""
        queue = self.queues.get(seconds)
        if queue is None:
            if len(self.queues) >= MOST_QUEUES:
                return OneTimeout(self.loop, seconds, self.expire, self.queues)
            queue = self.queues[seconds] = TimeoutQueue(self.loop, seconds, self.expire, self.queues)
        return queue

    def close(self) -> None:
        """End all of them."""
        for queue in self.queues.values():
            queue.close()
        self.queues.clear()
