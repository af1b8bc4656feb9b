"""Notifications within one process: when, how often, to which VM."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace

import pytest
import structlog.testing

from proxy.sharing import notifier
from proxy.sharing.limits import Limits
from proxy.sharing.status import Status
from proxy.sharing.store import SharedStore, Sharing

Make = Callable[..., SharedStore]


@pytest.fixture
def sharing(make_store: Make) -> Iterator[Sharing]:
    made = make_store(a=Limits(4096, 8), b=Limits(4096, 8)).attach(0)
    yield made
    made.close()


async def settled(condition: Callable[[], bool] = lambda: True) -> None:
    """Until it holds, and then long enough for one notification too many."""
    for _ in range(1000):
        if condition():
            break
        await asyncio.sleep(0.001)
    assert condition()
    await asyncio.sleep(0.01)


async def test_one_for_each_item_and_never_inside_the_call(sharing: Sharing) -> None:
    told: list[int] = []
    space = sharing.space(b"a")
    tokens = [space.register(name, told.append) for name in (b"q", b"r")]
    sharing.start(asyncio.get_running_loop())
    for token in (tokens[0], tokens[0], tokens[1]):
        space.enqueue(token, b"x")
    assert told == []
    await settled(lambda: len(told) == 3)
    assert sorted(told) == [tokens[0], tokens[0], tokens[1]]
    space.enqueue(tokens[1], b"y")
    await settled(lambda: len(told) == 4)
    assert told[3:] == [tokens[1]]


async def test_items_put_before_the_loop_runs_are_told_then(sharing: Sharing) -> None:
    told: list[int] = []
    space = sharing.space(b"a")
    token = space.register(b"q", told.append)
    space.enqueue(token, b"x")
    await settled()
    assert told == []
    sharing.start(asyncio.get_running_loop())
    await settled(lambda: told == [token])


async def test_the_vm_that_registered_last_is_told(sharing: Sharing) -> None:
    sharing.start(asyncio.get_running_loop())
    told: list[str] = []
    first, second = sharing.space(b"a"), sharing.space(b"a")
    token = first.register(b"q", lambda token: told.append("first"))
    first.enqueue(token, b"1")
    await settled(lambda: told == ["first"])
    second.register(b"q", lambda token: told.append("second"))
    await settled()
    assert told == ["first"]  # what was told before is not told again while its consumer lives
    first.enqueue(token, b"2")
    await settled(lambda: told == ["first", "second"])
    second.close()
    first.enqueue(token, b"3")
    await settled(lambda: told == ["first", "second", "first"])
    first.register(b"q", lambda token: told.append("again"))
    first.enqueue(token, b"4")
    await settled(lambda: told == ["first", "second", "first", "again"])


async def test_a_vm_of_another_vm_id_tells_the_consumer(sharing: Sharing) -> None:
    sharing.start(asyncio.get_running_loop())
    told: list[int] = []
    token = sharing.space(b"b").register(b"q", told.append)
    producer = sharing.space(b"a")
    assert producer.resolve(b"b", b"q") == token
    assert producer.enqueue(token, b"x") == Status.OK
    await settled(lambda: told == [token])


async def test_a_vm_built_anew_is_told_what_its_predecessor_left(sharing: Sharing) -> None:
    sharing.start(asyncio.get_running_loop())
    told: list[int] = []
    space = sharing.space(b"a")
    token = space.register(b"q", told.append)
    for _ in range(3):
        space.enqueue(token, b"x")
    await settled(lambda: len(told) == 3)
    space.dequeue(token)
    space.close()
    sharing.space(b"a").enqueue(token, b"while nobody consumes")
    await settled()
    assert len(told) == 3
    told.clear()
    sharing.space(b"a").register(b"q", told.append)
    await settled(lambda: len(told) == 3)


async def test_a_flood_is_told_no_more_than_the_queue_may_hold(sharing: Sharing) -> None:
    told: list[int] = []
    space = sharing.space(b"a")
    token = space.register(b"q", told.append)
    for _ in range(100):
        space.enqueue(token, b"x")
        space.dequeue(token)
    sharing.start(asyncio.get_running_loop())
    await settled(lambda: len(told) == 8)


async def test_a_slow_consumer_leaves_the_loop_to_others(sharing: Sharing, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(notifier, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    events: list[str] = []

    def told(name: str) -> Callable[[int], None]:
        def on_ready(token: int) -> None:
            events.append(name)
            clock[0] += notifier.TURN_SECONDS

        return on_ready

    space = sharing.space(b"a")
    tokens = [space.register(name.encode(), told(name)) for name in ("q", "r")]
    for token in tokens * 3:
        space.enqueue(token, b"x")
    loop = asyncio.get_running_loop()

    def between() -> None:
        events.append("-")
        loop.call_soon(between)

    sharing.notifier.loop = loop
    loop.call_soon(between)
    sharing.notifier.on_bell()
    for _ in range(20):
        await asyncio.sleep(0)
    told_in_order = [event for event in events if event != "-"]
    assert sorted(told_in_order) == ["q"] * 3 + ["r"] * 3
    assert all("-" in pair for pair in pairwise(events))  # never two without the loop in between
    assert set(told_in_order[:2]) == {"q", "r"}


@pytest.mark.parametrize("when", ["close", "again"])
async def test_a_callback_may_close_or_register(sharing: Sharing, when: str) -> None:
    sharing.start(asyncio.get_running_loop())
    told: list[str] = []
    space = sharing.space(b"a")

    def on_ready(token: int) -> None:
        told.append("first")
        if when == "close":
            space.close()
        else:
            space.register(b"q", lambda token: told.append("second"))

    token = space.register(b"q", on_ready)
    for _ in range(2):
        space.enqueue(token, b"x")
    await settled()
    assert told == (["first"] if when == "close" else ["first", "second"])


async def test_a_callback_that_raises_is_logged_and_the_next_is_called(sharing: Sharing) -> None:
    sharing.start(asyncio.get_running_loop())
    told: list[int] = []

    def on_ready(token: int) -> None:
        told.append(token)
        raise RuntimeError("no")

    space = sharing.space(b"a")
    token = space.register(b"q", on_ready)
    with structlog.testing.capture_logs() as logged:
        space.enqueue(token, b"x")
        space.enqueue(token, b"x")
        await settled(lambda: told == [token] * 2)
    assert [line["event"] for line in logged] == ["on_queue_ready failed"] * 2


async def test_nothing_is_told_after_stop(sharing: Sharing) -> None:
    sharing.start(asyncio.get_running_loop())
    told: list[int] = []
    space = sharing.space(b"a")
    token = space.register(b"q", told.append)
    await settled()
    sharing.stop()
    assert space.enqueue(token, b"x") == Status.OK
    await settled()
    assert told == []
    assert space.dequeue(token) == b"x"
    space.close()


async def test_an_idle_worker_sleeps(sharing: Sharing, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[None] = []
    tell = sharing.notifier.tell
    monkeypatch.setattr(sharing.notifier, "tell", lambda: (turns.append(None), tell()))
    sharing.start(asyncio.get_running_loop())
    sharing.space(b"a").register(b"q", lambda token: None)
    await asyncio.sleep(0.1)
    assert len(turns) <= 2
