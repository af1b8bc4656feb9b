"""What calls of one VM that fail may burn: a deadline's worth at once, then a small share of the worker's time.

A failed call has held up everybody for as long as it took. What keeps failing is built again, at first at once, and would burn
as much each time. So what failed calls take is counted, and once it is more than one deadline, the next calls get only the fuel
for which the time that is left will do. Time alone gives it back. Nothing is done per call: all of it is done when one fails.
"""

from typing import Final

SHARE: Final = 0.005
"""Of the time that passes: so much of it may be burned by failed calls. Five seconds give 25 ms back."""
LEAST_SECONDS: Final = 0.001
"""What a call may burn at least, by the dearest fuel that was seen."""
LEAST_FUEL: Final = 1_000_000
"""A call is never given less, unless its limit is less."""


class Probation:
    """The time that failed calls of one VM have left. `now` is in seconds of one clock."""

    def __init__(self, burst: float) -> None:
        """`burst`: seconds that they may take at once; a callback's deadline."""
        self.burst = burst
        self.tokens = burst
        self.filled_at = 0.0
        self.rate = 0.0
        """Fuel a second, of the call whose fuel was dearest since all was well; 0: not known."""

    def left(self, now: float) -> float:
        """Seconds that are left, at least LEAST_SECONDS."""
        self.tokens = min(self.burst, self.tokens + SHARE * max(now - self.filled_at, 0.0))
        self.filled_at = now
        if self.tokens >= self.burst:
            self.rate = 0.0
        return max(self.tokens, LEAST_SECONDS)

    def fault(self, now: float, fuel: int, seconds: float) -> None:
        """A call failed that took so much."""
        self.left(now)
        self.tokens = max(self.tokens - seconds, 0.0)
        if seconds >= LEAST_SECONDS:
            rate = fuel / seconds
            self.rate = min(self.rate, rate) if self.rate else rate

    def fuel(self, now: float, limit: int, usual: int) -> int:
        """What a call may take now, at most `limit`; what calls that ended well have taken, `usual`, it always may."""
        left = self.left(now)
        if not self.rate:
            return limit
        return min(limit, max(int(self.rate * left), usual, LEAST_FUEL))
