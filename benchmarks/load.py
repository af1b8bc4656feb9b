"""One wrk run against one server, with the CPU time that the server's process tree used for it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import cpu_seconds, machine_seconds

SCRIPT = Path(__file__).with_name("report.lua")


class LoadError(Exception):
    """The run can't be counted: wrk failed, or requests did."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk does: whole seconds, connections, threads."""

    seconds: int = 4
    connections: int = 32
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. CPU figures are microseconds per request; `*_busy` are shares of one CPU; `machine_busy` of all."""

    rps: float
    cpu_us: float
    p50_us: float
    p99_us: float
    server_busy: float
    upstream_busy: float
    machine_busy: float
    stolen: float


def measure(port: int, server: int, upstream: int, load: Load, launcher: Sequence[str] = ()) -> Sample:
    """Runs wrk against 127.0.0.1:`port`; `server` and `upstream` are root pids. Raises LoadError."""
    command = [*launcher, "wrk", "-t", str(load.threads), "-c", str(load.connections), "-d", f"{load.seconds}s"]
    command += ["--latency", "-s", str(SCRIPT), f"http://127.0.0.1:{port}/hello?name=world"]
    before = (cpu_seconds(server), cpu_seconds(upstream), machine_seconds(), time.monotonic())
    run = subprocess.run(command, capture_output=True, text=True, timeout=load.seconds + 30, check=False)
    after = (cpu_seconds(server), cpu_seconds(upstream), machine_seconds(), time.monotonic())
    found = [line for line in run.stdout.splitlines() if line.startswith("FIGURES ")]
    if run.returncode or not found:
        raise LoadError(f"wrk failed ({run.returncode}): {run.stdout[-400:]}{run.stderr[-400:]}")
    figures = json.loads(found[0].removeprefix("FIGURES "))
    failed = {name: count for name, count in figures["errors"].items() if count}
    if failed or not figures["requests"]:
        raise LoadError(f"{figures['requests']} requests, errors: {failed}")
    elapsed = after[3] - before[3]
    machine = {name: after[2][name] - before[2][name] for name in before[2]}
    total = machine["busy"] + machine["idle"]
    return Sample(
        rps=figures["requests"] / figures["seconds"],
        cpu_us=(after[0] - before[0]) / figures["requests"] * 1e6,
        p50_us=figures["p50_us"],
        p99_us=figures["p99_us"],
        server_busy=(after[0] - before[0]) / elapsed,
        upstream_busy=(after[1] - before[1]) / elapsed,
        machine_busy=machine["busy"] / total if total else 0.0,
        stolen=machine["stolen"] / total if total else 0.0,
    )
