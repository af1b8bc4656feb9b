"""Compiles modules in child processes under limits: compiling is an attack surface that the engine does not defend.

A module of 1 MB can cost minutes of CPU or gigabytes of memory, and neither counts as a defect of the engine. So each
module gets its own process with a CPU and an address space limit; this process never compiles.
"""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from proxy.children import Child, run_all
from proxy.config.units import format_duration, format_size
from proxy.wasm import compiler

WALL_FACTOR = 4  # times the CPU limit; only for a child that hangs without computing
WALL_GRACE = 30.0  # seconds
LONGEST_REASON = 300  # characters
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
    return run_all([partial(Compiling, request, max(1, cores // together)) for request in requests], together)


class Compiling(Child[bytes | CompileError]):
    """One running compiler."""

    def __init__(self, request: Request, threads: int) -> None:
        self.request = request
        super().__init__(
            compiler.__name__,
            [repr(request.seconds), str(request.memory), str(threads)],
            request.wasm,
            request.seconds * WALL_FACTOR + WALL_GRACE,
            environment(threads),
        )

    def outcome(self, status: int) -> bytes | CompileError:
        return self.output.read() if status == 0 else self.explain(status)

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
    """All that the child gets of the environment, beside where modules are found: no secrets."""
    # Each of the allocator's arenas reserves 64 MiB of the address space that is limited.
    return {"RAYON_NUM_THREADS": str(threads), "MALLOC_ARENA_MAX": "2"}
