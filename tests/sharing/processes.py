"""Runs code in forked processes, as workers run."""

import os
import signal
import time
import traceback
from collections.abc import Callable
from typing import ClassVar


class Process:
    """A child that runs `body`. It ends with status 0 unless `body` raises."""

    running: ClassVar[list["Process"]] = []

    def __init__(self, body: Callable[[], object]) -> None:
        self.pid = os.fork()
        self.running.append(self)
        if self.pid == 0:
            status = 1
            try:
                body()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)

    def join(self) -> int:
        """Its exit status, negative for a signal."""
        self.running.remove(self)
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def kill(self) -> int:
        os.kill(self.pid, signal.SIGKILL)
        return self.join()

    def stopped(self) -> None:
        """Wait until it has stopped itself."""
        os.waitpid(self.pid, os.WUNTRACED)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition that another process makes true."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "did not happen in time"
        time.sleep(0.001)
