"""Several worker processes on one store: counters, queues, deaths."""

import asyncio
import mmap
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import uvloop

from proxy.sharing.limits import Limits
from proxy.sharing.space import Space
from proxy.sharing.status import SharingError, Status
from proxy.sharing.store import SharedStore, Sharing
from tests.sharing.processes import Process, until

Make = Callable[..., SharedStore]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def words(count: int) -> memoryview:
    """Numbers that processes forked later share."""
    return memoryview(mmap.mmap(-1, 8 * count)).cast("Q")


def ignore(token: int) -> None:
    """No consumer's business."""


def increment(space: Space, key: bytes) -> int:
    """Add one by compare-and-swap; gives how often it had to try."""
    tries = 0
    while True:
        tries += 1
        found = space.get(key)
        assert found is not None
        with suppress(SharingError):  # the lock was not free in time: this machine is busy
            if space.set(key, b"%d" % (int(found[0]) + 1), found[1]) is Status.OK:
                return tries


def in_worker(store: SharedStore, slot: int, body: Callable[[Space], object]) -> Process:
    return Process(lambda: body(store.attach(slot).space(b"vm")))


def consume(
    store: SharedStore, slot: int, names: list[bytes], on_ready: Callable[[Space, int], None], ready: memoryview,
    loop: str = "asyncio",
) -> Process:  # fmt: skip
    """A worker that registers queues and runs until it is killed; sets its word of `ready` when it does."""

    async def serve() -> None:
        sharing = store.attach(slot)
        space = sharing.space(b"vm")
        for name in names:
            space.register(name, lambda token: on_ready(space, token))
        sharing.start(asyncio.get_running_loop())
        ready[slot] += 1
        await asyncio.Event().wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(serve())

    return Process(run)


def test_a_counter_incremented_by_four_processes_is_exact(make_store: Make) -> None:
    store = make_store(4)
    assert in_worker(store, 0, lambda space: space.set(b"n", b"0", 0)).join() == 0

    def count(space: Space) -> None:
        for _ in range(1000):
            increment(space, b"n")

    workers = [in_worker(store, slot, count) for slot in range(4)]
    assert [worker.join() for worker in workers] == [0] * 4
    sharing = store.attach(0)
    assert sharing.space(b"vm").get(b"n") == (b"4000", 4001)
    sharing.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_each_item_is_taken_once_and_told_once(make_store: Make, loop: str) -> None:
    """Two producers, two consumers of a queue each, and a third that takes without being told."""
    count = 300
    store = make_store(5, vm=Limits(1 << 20, 50))
    seen, told, ready = words(4 * count), words(5), words(5)

    def take(space: Space, token: int) -> None:
        item = space.dequeue(token)
        if isinstance(item, bytes):
            seen[int(item)] += 1

    def on_ready(slot: int) -> Callable[[Space, int], None]:
        def call(space: Space, token: int) -> None:
            told[slot] += 1
            take(space, token)

        return call

    consumers = [consume(store, slot, [b"q%d" % slot], on_ready(slot), ready, loop) for slot in (0, 1)]
    until(lambda: list(ready[:2]) == [1, 1])

    def produce(number: int) -> Callable[[Space], None]:
        def body(space: Space) -> None:
            tokens = [space.resolve(b"", name) for name in (b"q0", b"q1")]
            for index in range(2 * count):
                token = tokens[index % 2]
                assert token is not None
                while True:
                    with suppress(SharingError):  # full: wait
                        space.enqueue(token, b"%d" % (2 * count * number + index))
                        break
                    time.sleep(0.0005)

        return body

    def steal(space: Space) -> None:
        token = space.resolve(b"vm", b"q0")
        assert token is not None
        for _ in range(2000):
            take(space, token)

    others = [in_worker(store, 2, produce(0)), in_worker(store, 3, produce(1)), in_worker(store, 4, steal)]
    assert [worker.join() for worker in others] == [0] * 3
    until(lambda: sum(seen) == 4 * count and told[1] == 2 * count)
    time.sleep(0.05)
    assert list(seen) == [1] * (4 * count)
    assert told[1] == 2 * count
    assert told[0] <= 2 * count  # fewer if the third took items faster than they could be told
    for consumer in consumers:
        assert consumer.kill() == -signal.SIGKILL


def test_tokens_are_the_same_in_every_worker(make_store: Make) -> None:
    store = make_store(3)
    tokens = words(3 * 10)

    def register(slot: int) -> Callable[[Space], None]:
        def body(space: Space) -> None:
            names = [b"%d" % number for number in range(10)]
            for name in random.Random(slot).sample(names, 10):
                tokens[slot * 10 + int(name)] = space.register(name, ignore)

        return body

    workers = [in_worker(store, slot, register(slot)) for slot in range(3)]
    assert [worker.join() for worker in workers] == [0] * 3
    assert list(tokens[:10]) == list(tokens[10:20]) == list(tokens[20:])
    assert sorted(tokens[:10]) == list(range(1, 11))


def test_a_dead_consumers_items_go_to_another_that_registered(make_store: Make) -> None:
    store = make_store(3)
    told, ready = words(3), words(3)

    def on_ready(slot: int, takes: bool) -> Callable[[Space, int], None]:
        def call(space: Space, token: int) -> None:
            told[slot] += 1
            if takes:
                space.dequeue(token)

        return call

    workers = []
    for slot in (0, 1):  # 1 registers last: it is the consumer
        workers.append(consume(store, slot, [b"q"], on_ready(slot, takes=slot == 0), ready))
        until(lambda slot=slot: ready[slot] == 1)

    def put(space: Space, items: int) -> None:
        token = space.resolve(b"vm", b"q")
        assert token is not None
        for _ in range(items):
            space.enqueue(token, b"x")

    assert in_worker(store, 2, lambda space: put(space, 3)).join() == 0
    until(lambda: told[1] == 3)
    assert told[0] == 0
    workers[1].kill()  # told of three, has taken none
    store.worker_ended(1)
    until(lambda: told[0] == 3)
    assert in_worker(store, 2, lambda space: put(space, 1)).join() == 0
    until(lambda: told[0] == 4)
    workers[0].kill()
    store.worker_ended(0)
    assert in_worker(store, 2, lambda space: put(space, 2)).join() == 0  # nobody is there to tell
    successor = consume(store, 1, [b"q"], on_ready(1, takes=True), ready)
    until(lambda: told[1] == 3 + 2)
    successor.kill()
    time.sleep(0.02)
    assert list(told) == [4, 5, 0]


def test_a_draining_worker_hands_its_queues_over(make_store: Make) -> None:
    store = make_store(3)
    told, ready, drain = words(3), words(3), words(1)

    def on_ready(slot: int) -> Callable[[Space, int], None]:
        def call(space: Space, token: int) -> None:
            told[slot] += 1
            space.dequeue(token)

        return call

    staying = consume(store, 0, [b"q"], on_ready(0), ready)
    until(lambda: ready[0] == 1)

    async def leaving() -> None:
        sharing = store.attach(1)
        space = sharing.space(b"vm")
        token = space.register(b"q", lambda token: on_ready(1)(space, token))
        sharing.start(asyncio.get_running_loop())
        ready[1] = 1
        while not drain[0]:
            await asyncio.sleep(0.001)
        for _ in range(5):
            space.enqueue(token, b"x")  # for itself, and it stops before its loop turns
        sharing.stop()
        assert space.set(b"k", b"v", 0) is Status.OK  # all else still works
        sharing.close()

    worker = Process(lambda: asyncio.run(leaving()))
    until(lambda: ready[1] == 1)
    drain[0] = 1
    assert worker.join() == 0
    until(lambda: told[0] == 5)
    assert told[1] == 0
    staying.kill()


def test_workers_killed_under_load_neither_corrupt_nor_block(make_store: Make) -> None:
    """Three are killed again and again in whatever they are doing; the fourth must not notice."""
    store = make_store(4, vm=Limits(1 << 20, 100))
    done, longest, resting = words(4), words(1), words(4)
    assert in_worker(store, 0, lambda space: space.set(b"n", b"0", 0)).join() == 0

    def work(slot: int) -> Callable[[Space], None]:
        def body(space: Space) -> None:
            chance = random.Random(os.getpid())
            token = space.register(b"q", ignore)
            while not resting[slot]:
                before = time.monotonic_ns()
                increment(space, b"n")
                done[slot] += 1
                with suppress(SharingError):  # a limit
                    space.set(b"k%d" % chance.randrange(100), bytes(chance.randrange(20_000)), 0)
                    space.enqueue(token, bytes(chance.randrange(3000)))
                with suppress(SharingError):
                    space.dequeue(token)
                if slot == 3:
                    longest[0] = max(longest[0], time.monotonic_ns() - before)

        return body

    workers = [in_worker(store, slot, work(slot)) for slot in range(4)]
    chance = random.Random(1)
    for _ in range(60):
        time.sleep(chance.uniform(0.001, 0.015))
        slot = chance.randrange(3)
        assert workers[slot].kill() == -signal.SIGKILL
        store.worker_ended(slot)
        workers[slot] = in_worker(store, slot, work(slot))
    for slot in range(4):
        resting[slot] = 1
    assert [worker.join() for worker in workers] == [0] * 4
    assert longest[0] < 2e9
    sharing = store.attach(0)
    space, namespace = sharing.space(b"vm"), sharing.namespaces[b"vm"]
    found = space.get(b"n")
    assert found is not None
    # One that was killed between its write and its tally counts in the first only.
    assert 0 <= int(found[0]) - sum(done) <= 60
    assert sum(done) > 100
    check_usage(sharing)
    token = space.resolve(b"", b"q")
    assert token is not None
    while space.dequeue(token) is not Status.EMPTY:
        pass
    assert (namespace.usage().items, namespace.usage().queue_bytes) == (0, 0)
    sharing.close()


def check_usage(sharing: Sharing) -> None:
    """The namespace's own tally is what lies in its file."""
    namespace = sharing.namespaces[b"vm"]
    with namespace.file.begin() as transaction:
        entries = [(bytes(key), bytes(value)) for key, value in transaction.cursor()]
    data = [64 + len(key) - 1 + len(value) - 4 for key, value in entries if key[:1] == b"d"]
    items = [64 + len(value) for key, value in entries if key[:1] == b"i"]
    usage = namespace.usage()
    assert (usage.data_bytes, usage.queue_bytes, usage.items) == (sum(data), sum(items), len(items))


def test_a_worker_stopped_in_a_write_does_not_stop_the_others(make_store: Make) -> None:
    store = make_store(2, vm=Limits(), other=Limits())
    assert in_worker(store, 1, lambda space: space.set(b"k", b"v", 0)).join() == 0

    def stop(space: Space) -> None:
        space.own.write(lambda transaction: os.kill(os.getpid(), signal.SIGSTOP))

    stopped = in_worker(store, 0, stop)
    stopped.stopped()

    def others(space: Space) -> None:
        before = time.monotonic()
        assert space.get(b"k") == (b"v", 1)
        for _ in range(3):
            with pytest.raises(SharingError, match="does not go on"):
                space.set(b"k", b"w", 0)
        assert time.monotonic() - before < 1

    assert in_worker(store, 1, others).join() == 0
    assert Process(lambda: store.attach(1).space(b"other").set(b"k", b"v", 0)).join() == 0
    assert stopped.kill() == -signal.SIGKILL
    assert in_worker(store, 1, lambda space: space.set(b"k", b"w", 1)).join() == 0


def test_workers_that_end_and_come_back_find_what_was_there(make_store: Make) -> None:
    store = make_store(1)

    def put(space: Space) -> None:
        space.set(b"k", b"v", 0)
        space.enqueue(space.register(b"q", ignore), b"1")

    assert in_worker(store, 0, put).join() == 0
    store.worker_ended(0)
    sharing = store.attach(0)
    space = sharing.space(b"vm")
    assert space.get(b"k") == (b"v", 1)
    assert space.resolve(b"", b"q") == 1
    assert space.dequeue(1) == b"1"
    sharing.close()


def test_more_workers_may_die_than_there_are_readers(make_store: Make) -> None:
    """A reader that is killed leaves its slot in LMDB's table; a successor clears it."""
    store = make_store(2)
    keeper = in_worker(store, 1, lambda space: signal.pause())  # with the last process LMDB clears the whole table
    for _ in range(80):
        assert in_worker(store, 0, lambda space: os.kill(os.getpid(), signal.SIGKILL)).join() == -signal.SIGKILL
    assert in_worker(store, 0, lambda space: space.get(b"k")).join() == 0
    keeper.kill()


def test_a_store_for_no_vm_id(tmp_path: object) -> None:
    store = SharedStore(2, {})
    store.worker_ended(1)
    store.attach(0).close()
    store.close()
