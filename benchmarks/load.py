"""One run of a load generator against one server, with the CPU time that the server's process tree used for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.machine import cpu_seconds, machine_seconds
from proxy.cli import bench_load
from proxy.cli.bench_load import LoadError

__all__ = ["Load", "LoadError", "Sample", "measure"]

HEADERS = (("user-agent", "penstock-bench/1"), ("accept", "*/*"), ("accept-encoding", "gzip, br"))
"""As a small client sends them."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for: whole seconds, connections, wrk's threads, path, headers beside HEADERS; requests per second if
    at a constant rate (h2load), None for as many as are answered (wrk)."""

    seconds: int = 4
    connections: int = 32
    threads: int = 1
    path: str = "/hello?name=world"
    headers: tuple[tuple[str, str], ...] = ()
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. CPU figures are microseconds per request; `*_busy` are shares of one CPU; `machine_busy` of all; latencies
    are microseconds; `mb_per_s` counts what the client received, heads included; `reached` is the share of the rate."""

    rps: float
    cpu_us: float
    p50_us: float
    p99_us: float
    server_busy: float
    upstream_busy: float
    machine_busy: float
    stolen: float
    p75_us: float = 0.0
    p90_us: float = 0.0
    p95_us: float = 0.0
    p999_us: float = 0.0
    max_us: float = 0.0
    mb_per_s: float = 0.0
    reached: float = 1.0


def measure(port: int, server: int, upstream: int, load: Load, launcher: Sequence[str] = ()) -> Sample:
    """Loads 127.0.0.1:`port`; `server` and `upstream` are root pids. Raises LoadError, also if a request failed."""
    url = f"http://127.0.0.1:{port}{load.path}"
    headers = HEADERS + load.headers
    before = (cpu_seconds(server), cpu_seconds(upstream), machine_seconds(), time.monotonic())
    if load.rate is None:
        found = bench_load.fast(url, load.connections, load.seconds, headers, launcher, load.threads)
    else:
        found = bench_load.paced(url, load.connections, load.seconds, load.rate, headers, launcher)
    after = (cpu_seconds(server), cpu_seconds(upstream), machine_seconds(), time.monotonic())
    if found.failed or not found.requests:
        raise LoadError(f"{url}: {found.requests} requests, errors: {found.failed}")
    elapsed = after[3] - before[3]
    # At a constant rate the requests of the first moments are not counted, but their CPU is.
    requests = found.requests if load.rate is None else load.rate * (load.seconds + bench_load.SETTLING)
    machine = {name: after[2][name] - before[2][name] for name in before[2]}
    total = machine["busy"] + machine["idle"]
    latency = found.latency
    return Sample(
        rps=found.rps,
        cpu_us=(after[0] - before[0]) / requests * 1e6,
        p50_us=latency[50.0],
        p99_us=latency[99.0],
        server_busy=(after[0] - before[0]) / elapsed,
        upstream_busy=(after[1] - before[1]) / elapsed,
        machine_busy=machine["busy"] / total if total else 0.0,
        stolen=machine["stolen"] / total if total else 0.0,
        p75_us=latency[75.0],
        p90_us=latency[90.0],
        p95_us=latency[95.0],
        p999_us=latency[99.9],
        max_us=latency[100.0],
        mb_per_s=found.bytes / found.seconds / 1e6,
        reached=1.0 if load.rate is None else found.rps / load.rate,
    )
