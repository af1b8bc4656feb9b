"""Compiles modules in child processes under limits: compiling is an attack surface that the engine does not defend.

A module of 1 MB can cost minutes of CPU or gigabytes of memory, and neither counts as a defect of the engine. So each
module gets its own process with a CPU and an address space limit; this process never compiles, and starts its children
without running Python between fork and exec. Pipes are not used for the bytes, so nothing here can block on one.
"""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from proxy.config.units import format_duration, format_size
from proxy.wasm import compiler

WALL_FACTOR = 4  # times the CPU limit; only for a child that hangs without computing
WALL_GRACE = 30.0  # seconds
LONGEST_SELECT = 60.0  # seconds; the system call takes no longer ones than days
LONGEST_REASON = 300  # characters
LONGEST_REPORT = 64 << 10  # bytes kept of a child's standard error
# What the engine's allocator, the system and the interpreter say; the last is a thread without room for its stack.
OUT_OF_MEMORY_SIGNS = ("memory allocation of", "cannot allocate memory", "memoryerror", "threadpoolbuilderror")


@dataclass(frozen=True, slots=True)
class Request:
    """A core module to compile, within `seconds` of CPU and `memory` bytes of address space."""

    wasm: bytes = field(repr=False)
    seconds: float = 60.0
    memory: int = 4 << 30


class CompileError(Exception):
    """A module could not be compiled: the reason, and what to do about it."""

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(reason, mend)
        self.reason = reason
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.reason}; {self.mend}"


def compile_module(request: Request) -> bytes:
    """The module's serialised code, for an engine with `settings.engine_config`. Raises CompileError."""
    (outcome,) = compile_all([request])
    if isinstance(outcome, CompileError):
        raise outcome
    return outcome


def compile_all(requests: Sequence[Request]) -> list[bytes | CompileError]:
    """Compiles as many at once as there are cores; the outcomes in the order of the requests. Blocks until all are
    done; on an exception (such as KeyboardInterrupt) no child is left behind."""
    cores = len(os.sched_getaffinity(0))
    together = min(cores, len(requests))
    waiting = deque(enumerate(requests))
    outcomes: dict[int, bytes | CompileError] = {}
    running: dict[int, Child] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < together:
                    index, request = waiting.popleft()
                    running[index] = child = Child(request, max(1, cores // together))
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
    return [outcomes[index] for index in range(len(requests))]


class Child:
    """One running compiler. Its standard error is a pipe whose end tells that the child has gone."""

    def __init__(self, request: Request, threads: int) -> None:
        self.request = request
        self.deadline = time.monotonic() + request.seconds * WALL_FACTOR + WALL_GRACE
        self.timed_out = False
        self.text = b""
        self.output: IO[bytes] = anonymous_file()
        with anonymous_file() as module:
            module.write(request.wasm)
            module.seek(0)  # flushes, too
            command = [sys.executable, "-P", "-m", compiler.__name__]
            command += [repr(request.seconds), str(request.memory), str(threads)]
            self.process = subprocess.Popen(
                command, stdin=module, stdout=self.output, stderr=subprocess.PIPE, cwd="/", env=environment(threads)
            )
        assert self.process.stderr is not None
        self.report: IO[bytes] = self.process.stderr

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

    def abandon(self) -> None:
        self.process.kill()
        self.process.wait()
        self.report.close()
        self.output.close()

    def finish(self) -> bytes | CompileError:
        status = self.process.wait()
        try:
            if status == 0:
                self.output.seek(0)
                return self.output.read()
            return self.explain(status)
        finally:
            self.report.close()
            self.output.close()

    def explain(self, status: int) -> CompileError:
        """The error for a child that failed: `status` is an exit code, or minus a signal's number."""
        text = self.text.decode(errors="replace")
        if self.timed_out or -status in (signal.SIGPROF, signal.SIGXCPU):
            return CompileError(
                f"compiling takes more than limits.compile_time {format_duration(self.request.seconds)} of CPU",
                f"write limits: {{compile_time: {format_duration(self.request.seconds * 4)}}} if you trust the module",
            )
        if status == compiler.OUT_OF_MEMORY or -status == signal.SIGKILL or ran_out(text):
            return CompileError(
                f"compiling takes more than limits.compile_memory {format_size(self.request.memory)}",
                f"write limits: {{compile_memory: {format_size(self.request.memory * 2)}}} if you trust the module",
            )
        if status == compiler.INVALID:
            return CompileError(f"not a valid module: {shorten(text)}", "rebuild the filter")
        if status == compiler.OUTPUT_TOO_LARGE:
            return CompileError(f"its code can't be stored ({shorten(text)})", "make room for it, or build it smaller")
        if status < 0:
            return CompileError(
                f"the compiler crashed on it ({signal.Signals(-status).name}): {shorten(text)}",
                "do not use this module",
            )
        return CompileError(f"the compiler failed: {shorten(text)}", "check the installation: pip install penstock")


def ran_out(text: str) -> bool:
    """Whether the child's last words were of memory."""
    lowered = text.lower()
    return any(sign in lowered for sign in OUT_OF_MEMORY_SIGNS)


def shorten(message: str) -> str:
    """An engine message on one line: the innermost cause, without its number."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if "Caused by:" in lines:
        lines = lines[lines.index("Caused by:") + 1 :]
    line = lines[-1] if lines else "no reason is given"
    line = "".join(character if character.isprintable() else "?" for character in line)
    number, _, rest = line.partition(": ")
    return (rest if number.isdigit() else line)[:LONGEST_REASON]


def environment(threads: int) -> dict[str, str]:
    """All that the child gets of the environment: where modules are found, and no secrets."""
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    # Each of the allocator's arenas reserves 64 MiB of the address space that is limited.
    return {"PYTHONPATH": path, "RAYON_NUM_THREADS": str(threads), "MALLOC_ARENA_MAX": "2"}


def anonymous_file() -> IO[bytes]:
    """A file without a name: in memory on Linux, else in the folder for temporary files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("penstock", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()
