"""Child processes that each do one thing that this process must not do itself, within a time.

They start without Python running between fork and exec, and no pipe carries what they are given or give: nothing here can block
on one. What they report goes to their standard error, a pipe whose end tells that the child has gone.
"""

import os
import selectors
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Generic, TypeVar

LONGEST_SELECT = 60.0
"""Seconds; the system call takes no longer ones than days."""
LONGEST_REPORT = 64 << 10
"""Bytes kept of a child's standard error."""

Outcome = TypeVar("Outcome")


class Child(ABC, Generic[Outcome]):
    """One that runs: `python -m module *arguments`, with `given` as its standard input, killed after `seconds`."""

    def __init__(
        self, module: str, arguments: Sequence[str], given: bytes, seconds: float, environment: Mapping[str, str]
    ) -> None:
        self.deadline = time.monotonic() + seconds
        self.timed_out = False
        self.text = b""
        self.output: IO[bytes] = anonymous_file()
        with anonymous_file() as file:
            file.write(given)
            file.seek(0)  # flushes, too
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments],
                stdin=file,
                stdout=self.output,
                stderr=subprocess.PIPE,
                cwd="/",
                env={"PYTHONPATH": python_path(), **environment},
            )
        assert self.process.stderr is not None
        self.report: IO[bytes] = self.process.stderr

    @abstractmethod
    def outcome(self, status: int) -> Outcome:
        """What has come of it: `status` is its exit code, or minus a signal's number; `output` is at its beginning."""

    def read(self) -> bool:
        """Takes what the child reports; False at its end."""
        data = os.read(self.report.fileno(), 65536)
        self.text = (self.text + data)[-LONGEST_REPORT:]
        return bool(data)

    def check_deadline(self) -> None:
        if not self.timed_out and time.monotonic() >= self.deadline:
            self.timed_out = True
            self.deadline = float("inf")
            self.process.kill()

    def finish(self) -> Outcome:
        status = self.process.wait()
        try:
            self.output.seek(0)
            return self.outcome(status)
        finally:
            self.close()

    def abandon(self) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        self.report.close()
        self.output.close()


def run_all(jobs: Sequence[Callable[[], Child[Outcome]]], together: int) -> list[Outcome]:
    """Starts the jobs, so many at a time; the outcomes in their order. Blocks until all are done; on an exception (such as
    KeyboardInterrupt) no child is left behind."""
    waiting = deque(enumerate(jobs))
    running: dict[int, Child[Outcome]] = {}
    outcomes: dict[int, Outcome] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < together:
                    index, job = waiting.popleft()
                    running[index] = child = job()
                    selector.register(child.report, selectors.EVENT_READ, index)
                remaining = min(child.deadline for child in running.values()) - time.monotonic()
                for key, _ in selector.select(max(0.0, min(remaining, LONGEST_SELECT))):
                    child = running[key.data]
                    if child.read():
                        continue
                    selector.unregister(child.report)
                    outcomes[key.data] = child.finish()
                    del running[key.data]
                for child in running.values():
                    child.check_deadline()
        finally:
            for child in running.values():
                child.abandon()
    return [outcomes[index] for index in range(len(jobs))]


def python_path() -> str:
    """Where this process finds its modules."""
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)


def anonymous_file() -> IO[bytes]:
    """A file without a name: in memory on Linux, else in the folder for temporary files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("penstock", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()
