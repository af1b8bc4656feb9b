"""Coarse timers, on a clock of the test's own."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.server.deadlines import RESOLUTION, Deadlines


class Loop:
    """Just enough of an event loop: a clock that the test turns, one timer at a time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Any] = []
        self.errors: list[Any] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Any) -> "Loop":
        self.timers.append((self.now + delay, callback))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def call_exception_handler(self, context: Any) -> None:
        self.errors.append(context)

    def turn(self, to: float) -> None:
        while self.timers and self.timers[0][0] <= to:
            self.now, callback = self.timers.pop(0)
            assert not self.timers, "more than one timer"
            callback()
        self.now = to


@given(
    st.lists(
        st.tuples(
            st.floats(0, 5), st.sampled_from([0.1, 0.25, 1.0, 3.0]), st.integers(0, 5), st.sampled_from(["start", "stop"])
        )
    )
)
def test_fires_what_was_not_stopped_and_on_time(steps: list[tuple[float, float, int, str]]) -> None:
    """Never early, at most one resolution late (two, counting the wait for the first tick), once per start."""
    loop = Loop()
    fired: list[tuple[float, float, int]] = []
    deadlines = Deadlines(loop)  # type: ignore[arg-type]
    queues = {
        seconds: deadlines.queue(seconds, lambda item, seconds=seconds: fired.append((loop.now, seconds, item)))  # type: ignore[misc]
        for seconds in (0.1, 0.25, 1.0, 3.0)
    }
    expected: dict[tuple[float, int], float] = {}
    over: list[tuple[float, float, int]] = []
    for at, seconds, item, what in sorted(steps):
        for key, due in list(expected.items()):
            if due + 2 * RESOLUTION < at:
                over.append((due, *key))
                del expected[key]
        loop.turn(at)
        key = (seconds, item)
        if key in expected and any(f[1:] == key and f[0] >= expected[key] for f in fired):
            over.append((expected.pop(key), *key))
        if what == "start":
            queues[seconds].start(item)
            expected[key] = at + seconds
        else:
            queues[seconds].stop(item)
            expected.pop(key, None)
    loop.turn(20.0)
    over += [(due, *key) for key, due in expected.items()]
    assert len(fired) == len(over)
    by_item = [sorted(found, key=lambda entry: (*entry[1:], entry[0])) for found in (fired, over)]
    for (when, *key), (due, *other) in zip(*by_item, strict=True):
        assert key == other
        assert due - 1e-9 <= when <= due + 2 * RESOLUTION
    assert not loop.timers, "ticks go on with nothing to wait for"


def test_zero_is_off() -> None:
    """A timeout of 0 never fires and never ticks."""
    loop = Loop()
    deadlines = Deadlines(loop)  # type: ignore[arg-type]
    queue = deadlines.queue(0, lambda item: loop.errors.append(item))
    queue.start("a")
    queue.stop("a")
    assert not loop.timers
    assert not loop.errors


def test_a_broken_callback_does_not_stop_the_others() -> None:
    """It is reported, and the next ones fire."""
    loop = Loop()
    deadlines = Deadlines(loop)  # type: ignore[arg-type]
    fired: list[str] = []

    def expire(item: str) -> None:
        if item == "bad":
            raise ValueError(item)
        fired.append(item)

    queue = deadlines.queue(1.0, expire)
    for item in ("bad", "good"):
        queue.start(item)
    loop.turn(2.0)
    assert fired == ["good"]
    assert len(loop.errors) == 1


def test_callbacks_may_start_and_stop() -> None:
    """From inside an expiry, in the same queue."""
    loop = Loop()
    deadlines = Deadlines(loop)  # type: ignore[arg-type]
    fired: list[tuple[str, float]] = []

    def expire(item: str) -> None:
        fired.append((item, round(loop.now, 1)))
        queue.stop("b")
        if len(fired) < 3:
            queue.start("a")

    queue = deadlines.queue(1.0, expire)
    queue.start("a")
    queue.start("b")
    loop.turn(10.0)
    assert [item for item, _ in fired] == ["a", "a", "a"]
