"""A soak: many requests through the three shipped filters, on each event loop; is anything left behind?

Prints, after each slice, what the worker holds: memory, descriptors, tasks, VMs and streams. All of it is looked at between
slices, once the client is gone. "flat" means that, from a tenth of the way on (caches are filled, the heap has its size),
memory grew by no more than 2 % and 2 MiB, and nothing else grew at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import click

from benchmarks.gateway import Gateway
from benchmarks.load import LoadError
from benchmarks.servers import Upstream, build_upstream

SCRIPT = Path(__file__).with_name("soak.lua")
CONNECTIONS = 32
SETTLE_SECONDS = 5.0
"""At most so long until the connections of a slice are closed on both sides."""
WARM_SHARE = 0.1
MEMORY_SHARE, MEMORY_BYTES = 0.02, 2 << 20


@dataclass(frozen=True, slots=True)
class Reading:
    """What one worker holds after so many requests. Memory is in bytes; `descriptors` are without the connections kept to the
    upstream, whose number follows the load; `stores` counts VMs, each of which is a store."""

    requests: int
    memory: int
    descriptors: int
    tasks: int
    stores: int
    streams: int


def read(gateway: Gateway, requests: int) -> Reading:
    """A reading, once no client connection is left."""
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        values = gateway.metrics()
        connections = sum(value for name, value in values.items() if name.startswith("penstock_connections{"))
        if not connections or time.monotonic() > end:
            break
        time.sleep(0.05)
    (worker,) = gateway.workers()
    return Reading(
        requests,
        int(values["penstock_worker_memory_bytes"]),
        len(os.listdir(f"/proc/{worker}/fd")) - int(values['penstock_upstream_connections{cluster="service"}']),
        int(values["penstock_tasks"]),
        int(values["penstock_vms"]),
        int(values["penstock_streams"]),
    )


def load(port: int, seconds: int) -> int:
    """One slice; the number of requests. Raises LoadError if one had another answer than it should."""
    command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s", "-s", str(SCRIPT), f"http://127.0.0.1:{port}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    found = [line for line in run.stdout.splitlines() if line.startswith("FIGURES ")]
    if run.returncode or not found:
        raise LoadError(f"wrk failed ({run.returncode}): {run.stdout[-400:]}{run.stderr[-400:]}")
    figures = json.loads(found[0].removeprefix("FIGURES "))
    if figures["wrong"] or figures["connect"] or figures["timeout"]:
        raise LoadError(f"requests went wrong: {figures}")
    requests: int = figures["requests"]
    return requests


def soak(
    upstream: int, event_loop: str, requests: int, seconds: int, show: Callable[[Reading], None] = lambda reading: None
) -> list[Reading]:
    """`requests` or a few more, in slices of `seconds`; the readings. Raises LoadError."""
    with Gateway(upstream, event_loop) as gateway:
        worker = gateway.workers()
        load(gateway.port, 1)  # connections and caches that every run has
        readings = [read(gateway, 0)]
        show(readings[0])
        while readings[-1].requests < requests:
            readings.append(read(gateway, readings[-1].requests + load(gateway.port, seconds)))
            show(readings[-1])
        if gateway.workers() != worker:
            raise LoadError(f"the worker died:\n{gateway.said()}")
    return readings


def growth(readings: Sequence[Reading]) -> list[str]:
    """What has grown; empty: flat."""
    warm = next(reading for reading in readings if reading.requests >= WARM_SHARE * readings[-1].requests)
    last = readings[-1]
    grown = []
    allowed = max(MEMORY_SHARE * warm.memory, MEMORY_BYTES)
    if last.memory > warm.memory + allowed:
        grown.append(f"memory, by {(last.memory - warm.memory) / 1024:.0f} KiB")
    for name in ("descriptors", "tasks", "stores", "streams"):
        more = getattr(last, name) - getattr(warm, name)
        # The admin process's own question may be open at the one moment and not at the other.
        if more > (2 if name in ("descriptors", "tasks") else 0):
            grown.append(f"{name}, by {more}")
    return grown


@click.command(help=__doc__)
@click.option("--requests", type=click.IntRange(1), default=1_000_000, show_default=True, help="For each event loop.")
@click.option("--seconds", type=click.IntRange(1), default=5, show_default=True, help="Length of a slice.")
@click.option("--loop", "loops", multiple=True, type=click.Choice(["uvloop", "asyncio"]), default=("uvloop", "asyncio"))
def main(requests: int, seconds: int, loops: Sequence[str]) -> None:
    flat = True
    with tempfile.TemporaryDirectory(prefix="penstock-upstream-") as folder:
        upstream = Upstream.start(build_upstream(Path(folder)), [])
        try:
            for loop in loops:
                click.echo(f"{loop}: basic-auth, header-rewrite, body-rewrite; {CONNECTIONS} connections")
                click.echo("".join(f"{field.name:>12}" for field in fields(Reading)))
                started = time.monotonic()
                readings = soak(upstream.port, loop, requests, seconds, show)
                grown = growth(readings)
                flat = flat and not grown
                verdict = "flat" if not grown else f"GREW: {'; '.join(grown)}"
                click.echo(f"{loop}: {readings[-1].requests} requests in {time.monotonic() - started:.0f} s: {verdict}\n")
        except LoadError as error:
            raise click.ClickException(str(error)) from None
        finally:
            upstream.stop()
    sys.exit(not flat)


def show(reading: Reading) -> None:
    requests, memory, *rest = astuple(reading)
    click.echo(f"{requests:>12}{memory / (1 << 20):>8.1f} MiB" + "".join(f"{value:>12}" for value in rest))


if __name__ == "__main__":
    main()
