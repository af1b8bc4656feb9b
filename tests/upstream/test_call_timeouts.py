"""Timeouts of calls: never early, each once, in the order of their times, whatever the calls do meanwhile."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from proxy.upstream.call_timeouts import MOST_QUEUES, CallTimeouts, OneTimeout

Late = list[tuple[str, float]]


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_each_is_told_when_its_time_has_come(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def run() -> tuple[Late, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        told: Late = []
        timeouts = CallTimeouts(loop, lambda call: told.append((call, loop.time() - began)))
        timeouts.queue(0.05).start("a")
        timeouts.queue(0.2).start("d")
        timeouts.queue(0.05).start("gone")
        timeouts.queue(0.05).stop("gone")
        await asyncio.sleep(0.02)
        second = loop.time() - began
        timeouts.queue(0.05).start("b")
        while len(told) < 3:
            await asyncio.sleep(0.01)
        assert not timeouts.queues, "nothing is kept of timeouts that nobody has"
        timeouts.queue(0.05).stop("a")
        return told, second

    with asyncio.Runner(loop_factory=factory) as runner:
        told, second = runner.run(run())
    assert [call for call, _ in told] == ["a", "b", "d"]
    for (_, after), least in zip(told, (0.05, second + 0.05, 0.2), strict=True):
        assert after >= least - 0.003


async def test_a_call_that_is_made_when_another_is_too_late_has_its_own_time() -> None:
    loop = asyncio.get_running_loop()
    told: list[int] = []

    def late(call: int) -> None:
        told.append(call)
        if call < 3:
            timeouts.queue(0.02).start(call + 1)
            raise ValueError("what a broken callback does")

    errors: list[str] = []
    loop.set_exception_handler(lambda _, context: errors.append(context["message"]))
    timeouts = CallTimeouts(loop, late)
    timeouts.queue(0.02).start(1)
    began = loop.time()
    await asyncio.sleep(0.01)
    timeouts.queue(0.02).start(10)
    while len(told) < 4:
        await asyncio.sleep(0.005)
    assert sorted(told) == [1, 2, 3, 10]
    assert told.index(1) < told.index(2) < told.index(3)
    assert loop.time() - began >= 0.055
    assert errors == ["call's timeout failed"] * 2


async def test_a_filter_s_choice_of_timeouts_costs_no_memory() -> None:
    told: list[int] = []
    timeouts = CallTimeouts(asyncio.get_running_loop(), told.append)
    queues = [timeouts.queue(0.03 + i / 1000) for i in range(2 * MOST_QUEUES)]
    for i, queue in enumerate(queues):
        queue.start(i)
    assert len(timeouts.queues) == MOST_QUEUES
    alone = [queue for queue in queues if isinstance(queue, OneTimeout)]
    assert len(alone) == MOST_QUEUES
    alone[0].stop(MOST_QUEUES)
    assert alone[0].timer is None
    while len(told) < 2 * MOST_QUEUES - 1:
        await asyncio.sleep(0.01)
    assert sorted(told) == [i for i in range(2 * MOST_QUEUES) if i != MOST_QUEUES]
    assert not timeouts.queues
    timeouts.queue(0.01).start(99)
    timeouts.close()
    await asyncio.sleep(0.03)
    assert 99 not in told
