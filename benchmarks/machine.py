"""The machine under the benchmark: what it is, how busy it is, and the CPU time that a process tree has used."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that matter here; times in seconds."""

    parent: int
    user: float
    system: float


def stat(pid: int) -> Stat | None:
    """The process's figures, None once it has gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rsplit(")", 1)[1].split()
    return Stat(int(fields[1]), int(fields[11]) * TICK, int(fields[12]) * TICK)


def tree(root: int) -> list[int]:
    """The process and its living descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := stat(int(entry.name))):
            parents[int(entry.name)] = found.parent
    members = [root]
    for member in members:
        members += [pid for pid, parent in parents.items() if parent == member]
    return members


def cpu_seconds(root: int) -> float:
    """User and system time of the process tree in seconds; granularity 10 ms. Those that have ended don't count."""
    return sum(found.user + found.system for pid in tree(root) if (found := stat(pid)))


def memory_bytes(pid: int) -> int:
    """Resident memory of one process (VmRSS), 0 once it has gone. What it shares with others counts in full."""
    found = [line.split()[1] for line in lines(f"/proc/{pid}/status") if line.startswith("VmRSS:")]
    return int(found[0]) * 1024 if found else 0


def workers(root: int) -> list[int]:
    """Of a proxy's processes those that serve: the children that used the most CPU, or the one process there is."""
    used = {pid: found.user + found.system for pid in tree(root)[1:] or [root] if (found := stat(pid))}
    most = max(used.values(), default=0.0)
    return [pid for pid, seconds in used.items() if seconds >= most / 2]


def unsteadiness(rounds: int = 40) -> float:
    """How uneven the machine is now: the same 5 ms of work again and again, its 90th percentile over its shortest, minus 1."""
    block, took = bytes(1 << 20), []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(5):
            hashlib.sha256(block).digest()
        took.append(time.perf_counter() - started)
    took.sort()
    return took[int(rounds * 0.9)] / took[0] - 1


def machine_seconds() -> dict[str, float]:
    """Busy, idle and stolen time of the whole machine since boot, in seconds over all CPUs."""
    values = [int(word) * TICK for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = values[3] + values[4]
    return {"busy": sum(values) - idle, "idle": idle, "stolen": values[7]}


def describe() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    cpu = next((line.split(":", 1)[1].strip() for line in lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return {
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def lines(path: str) -> list[str]:
    """The file's lines, none if it can't be read."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
