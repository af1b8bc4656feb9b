"""The benchmark suite: every scenario of scenarios.py, against every peer that is installed.

Writes TIME.json (every sample) and TIME.html (figures, plots, medians; nothing from outside). Takes 8 to 10 minutes; with
--quick under 2. Latencies and times are of this machine: leave it alone meanwhile.

\b
Examples:
  python -m benchmarks.suite --quick
  python -m benchmarks.suite --only chain --only latency --runs 7
  python -m benchmarks.suite --render benchmarks/results/2026-11-21T12-23-01.json
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks import metering, page, plots
from benchmarks.compare import RESULTS, launchers
from benchmarks.figures import Figure, figures
from benchmarks.load import LoadError
from benchmarks.machine import describe, machine_seconds, unsteadiness
from benchmarks.peers import PEERS
from benchmarks.runner import Place, run
from benchmarks.scenarios import BY_NAME, SCENARIOS, Scenario
from benchmarks.servers import ServerError, Upstream, build_upstream, compiler
from proxy.cli.bench_load import INSTALL

METERING_SECONDS = 3.0


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Fewer scenarios, two short runs: whether it works, and about how fast.")
@click.option("--only", multiple=True, type=click.Choice(list(BY_NAME)), help="Only this scenario; may be repeated.")
@click.option("--peer", "peers", multiple=True, type=click.Choice(list(PEERS)), help="Only with this peer; may be repeated.")
@click.option("--runs", type=click.IntRange(1, 50), help="Runs per figure, instead of the scenario's own.")
@click.option("--pin/--no-pin", default=True, show_default=True, help="Give the server under test a CPU of its own.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="File to write without its ending; default: benchmarks/results/TIME"
)
@click.option(
    "--render", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Only make the HTML of a JSON file anew."
)
def main(
    quick: bool,
    only: tuple[str, ...],
    peers: tuple[str, ...],
    runs: int | None,
    pin: bool,
    output: Path | None,
    render: Path | None,
) -> None:
    if render is not None:
        write_html(json.loads(render.read_text()), render.with_suffix(".html"))
        return
    needed, optional, installed = preflight(peers)
    for line in optional:
        click.echo(f"left out: {line}", err=True)
    if needed:
        raise click.ClickException("not everything is here:\n" + "\n".join(f"  {line}" for line in needed))
    chosen = choose(quick, only, runs)
    record = measure(chosen, installed, pin, "quick" if quick else "full")
    target = output or RESULTS / record["started"]
    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.with_name(target.name + ".json")
    written.write_text(json.dumps(record, indent=1) + "\n")
    for line in summary(record):
        click.echo(line)
    click.echo(f"written: {written}")
    write_html(record, target.with_name(target.name + ".html"))


def write_html(record: dict[str, Any], path: Path) -> None:
    path.write_text(page.report(record))
    click.echo(f"written: {path}")


def preflight(wanted: Sequence[str]) -> tuple[list[str], list[str], tuple[str, ...]]:
    """What is missing and stops the run; what is missing and is left out; the peers that join. Each says how to get it."""
    needed = [INSTALL[tool] for tool in ("wrk", "h2load") if shutil.which(tool) is None]
    if compiler() is None:
        needed.append("a C compiler for the upstream: apt install gcc, or pip install ziglang==0.17.0")
    optional: list[str] = []
    installed: list[str] = []
    for peer in PEERS.values():
        if wanted and peer.name not in (*wanted, "penstock"):
            continue
        if peer.version() is not None:
            installed.append(peer.name)
        else:
            (needed if peer.name in wanted else optional).append(f"{peer.name}: {peer.get}")
    if not plots.available():
        optional.append("plots: pip install pygal")
    return needed, optional, tuple(installed)


def choose(quick: bool, only: Sequence[str], runs: int | None) -> list[Scenario]:
    """The scenarios to run, in the order of their list."""
    chosen = [one for one in SCENARIOS if one.name in only or (not only and (one.quick or not quick))]
    if quick:
        chosen = [one.in_quick_mode() for one in chosen]
    return [replace(one, runs=runs) for one in chosen] if runs else chosen


def estimate(scenarios: Sequence[Scenario], installed: tuple[str, ...]) -> float:
    """About how many seconds they take together."""
    return sum(one.estimate(installed) for one in scenarios) + METERING_SECONDS


def measure(scenarios: Sequence[Scenario], installed: tuple[str, ...], pin: bool, mode: str) -> dict[str, Any]:
    """Runs them; the record. A scenario that fails is named among the doubts and the others go on."""
    rest, alone = launchers(pin)
    began, started = time.monotonic(), time.strftime("%Y-%m-%dT%H-%M-%S")
    record: dict[str, Any] = {
        "format": 1,
        "started": started,
        "mode": mode,
        "machine": describe(),
        "versions": versions(installed),
        "launchers": {"load_and_upstream": rest, "server": alone},
        "noise": {"unsteadiness_before": unsteadiness()},
        "scenarios": {},
        "doubts": [],
    }
    click.echo(f"{', '.join(installed)}; about {estimate(scenarios, installed) / 60:.0f} min", err=True)
    busy = machine_seconds()
    with tempfile.TemporaryDirectory(prefix="penstock-suite-") as directory, contextlib.ExitStack() as stack:
        try:
            upstream = Upstream.start(build_upstream(Path(directory)), rest)
        except (ServerError, subprocess.CalledProcessError) as error:
            raise click.ClickException(str(error)) from None
        stack.callback(upstream.stop)
        for number, scenario in enumerate(scenarios):
            left = estimate(scenarios[number:], installed)
            click.echo(f"{scenario.name} ({number + 1} of {len(scenarios)}, about {left / 60:.1f} min left)", err=True)
            try:
                found = run(scenario, installed, Place(upstream, rest, alone), lambda said: click.echo(f"  {said}", err=True))
            except (LoadError, ServerError) as error:
                record["doubts"].append(f"{scenario.name} was not measured: {error}")
                click.echo(f"  not measured: {error}", err=True)
                continue
            record["scenarios"][scenario.name] = found
    click.echo("metering", err=True)
    record["metering"] = metering.measure()
    after = machine_seconds()
    total = after["busy"] + after["idle"] - busy["busy"] - busy["idle"]
    record["noise"] |= {
        "unsteadiness_after": unsteadiness(),
        "stolen": (after["stolen"] - busy["stolen"]) / total if total else 0.0,
        "load_average_after": os.getloadavg(),
    }
    record["seconds"] = time.monotonic() - began
    record["doubts"] += doubts(record)
    record["figures"] = [one.as_json() for one in figures(record)]
    return record


def versions(installed: Sequence[str]) -> dict[str, str]:
    """Of what the figures depend on."""
    found = {"python": platform.python_version()}
    found |= {name: version for name in installed if (version := PEERS[name].version())}
    for name in ("aiohttp", "wasmtime", "uvloop", "cffi"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def doubts(record: dict[str, Any]) -> list[str]:
    """What a reader should hold against the figures."""
    said = []
    noise = record["noise"]
    worst = max(noise["unsteadiness_before"], noise["unsteadiness_after"])
    if worst > 0.25:
        said.append(f"The machine was uneven: the same work took up to {worst:.0%} longer. Trust ratios, not times.")
    if noise["stolen"] > 0.02:
        said.append(f"The hypervisor took {noise['stolen']:.0%} of the machine's time.")
    if not record["launchers"]["server"]:
        said.append("The server under test had no CPU of its own.")
    for name, scenario in record["scenarios"].items():
        noisy = [row for row in scenario["rows"] if row.get("spread", 0) > 0.15]
        if noisy:
            worst = max(row["spread"] for row in noisy)
            what = "times" if scenario["kind"] == "start" else "CPU per request"
            said.append(
                f"{name}: {what} of {len(noisy)} of {len(scenario['rows'])} lines varied by more than 15 %, up to {worst:.0%}."
            )
        late = [row for row in scenario["rows"] if row.get("median", {}).get("reached", 1) < 0.98]
        if late:
            said.append(f"{name}: {len(late)} of {len(scenario['rows'])} did not reach the rate that was asked for.")
    return said


def summary(record: dict[str, Any]) -> list[str]:
    """The figures as text."""
    fields = Figure.__dataclass_fields__
    found = [Figure(**{name: value for name, value in one.items() if name in fields}) for one in record["figures"]]
    out = []
    for one in found:
        word = {True: "reached", False: "MISSED", None: ""}[one.met]
        bound = "" if one.bound is None else f"{'>=' if one.least else '<='} {page.number(one.bound)}"
        mine, theirs = page.with_unit(one.mine, one.unit), page.with_unit(one.theirs, one.unit)
        out.append(
            f"{one.group:<16} {one.name:<34} {mine:>12} {theirs:>12} {page.number(one.value):>8} {bound:>8}  {word}".rstrip()
        )
    out += [f"doubt: {doubt}" for doubt in record["doubts"]]
    return out


if __name__ == "__main__":
    main()
