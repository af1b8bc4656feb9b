import mmap
import os
import signal
import time

import pytest

from proxy.sharing.lock import LITTLE_PATIENCE_SECONDS, LOCK_SIZE, PATIENCE_SECONDS, WriteLock
from proxy.sharing.status import SharingError
from tests.sharing.processes import Process


@pytest.fixture
def lock() -> WriteLock:
    return WriteLock(memoryview(mmap.mmap(-1, LOCK_SIZE)))


def test_one_process_at_a_time_has_it(lock: WriteLock) -> None:
    counter = memoryview(mmap.mmap(-1, 8)).cast("Q")

    def count() -> None:
        for _ in range(2000):
            lock.acquire()
            value = counter[0]
            if value % 100 == 0:
                time.sleep(0)
            counter[0] = value + 1
            lock.release()

    children = [Process(count) for _ in range(4)]
    assert [child.join() for child in children] == [0] * 4
    assert counter[0] == 8000


def test_a_dead_holder_does_not_keep_it(lock: WriteLock) -> None:
    def die() -> None:
        lock.acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(3):
        assert Process(die).join() == -signal.SIGKILL
        lock.acquire()
        lock.release()


def test_a_stopped_holder_is_waited_for_only_so_long(lock: WriteLock) -> None:
    def stop() -> None:
        lock.acquire()
        os.kill(os.getpid(), signal.SIGSTOP)
        lock.release()

    child = Process(stop)
    child.stopped()
    times = []
    for _ in range(3):
        before = time.monotonic()
        with pytest.raises(SharingError, match="does not go on"):
            lock.acquire()
        times.append(time.monotonic() - before)
    assert times[0] >= PATIENCE_SECONDS * 0.9
    assert min(times[1:]) < PATIENCE_SECONDS / 2
    assert lock.patience == LITTLE_PATIENCE_SECONDS
    os.kill(child.pid, signal.SIGCONT)
    assert child.join() == 0
    lock.acquire()
    lock.release()
    assert lock.patience == PATIENCE_SECONDS
