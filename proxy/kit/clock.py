"""Time that passes only when it is told to: filters' timers, ticks and calls run in its order."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class Timer:
    """One thing to come."""

    __slots__ = ("arguments", "due", "function", "idle", "over")

    def __init__(self, due: float, function: Callable[..., Any], arguments: tuple[Any, ...], idle: bool) -> None:
        self.due = due
        self.function = function
        self.arguments = arguments
        self.idle = idle
        self.over = False

    def cancel(self) -> None:
        self.over = True


class Clock:
    """Starts at `now`, in seconds since the epoch."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.queue: list[tuple[float, int, Timer]] = []
        self.numbers = count()

    def nanoseconds(self) -> int:
        return round(self.now * 1e6) * 1000

    def later(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Timer:
        """The face of loop.call_later."""
        return self.add(seconds, function, arguments, idle=False)

    def add(self, seconds: float, function: Callable[..., Any], arguments: tuple[Any, ...] = (), idle: bool = True) -> Timer:
        """`idle`: nobody waits for it; a run that waits for the last thing to come does not wait for this."""
        timer = Timer(self.now + max(seconds, 0.0), function, arguments, idle)
        heapq.heappush(self.queue, (timer.due, next(self.numbers), timer))
        return timer

    def step(self, until: float | None = None) -> bool:
        """Go to the next thing that is due, at the latest at `until`, and do it. False: there is none."""
        while self.queue:
            due, _, timer = self.queue[0]
            if timer.over:
                heapq.heappop(self.queue)
                continue
            if until is not None and due > until:
                return False
            heapq.heappop(self.queue)
            self.now = max(self.now, due)
            timer.over = True
            timer.function(*timer.arguments)
            return True
        return False

    def pass_time(self, seconds: float, each: Callable[[], object] = lambda: None) -> None:
        """Let `seconds` pass; `each` is called after everything that is done."""
        until = self.now + seconds
        while self.step(until):
            each()
        self.now = until
