"""`penstock bench`: load on a user's own gateway, and where its time goes."""

import contextlib
import json
from pathlib import Path

import click

from proxy.cli import bench_gateway, bench_load, bench_report
from proxy.cli.bench_gateway import GatewayError
from proxy.cli.bench_load import Figures, LoadError
from proxy.config.model import Config

WARM_UP_SECONDS = 1


def bench(
    config: Config,
    path: Path,
    *,
    url: str | None,
    demo: bool,
    target: str,
    headers: list[tuple[str, str]],
    rate: float | None,
    seconds: int,
    connections: int,
    as_json: bool,
) -> int:
    """Runs it and prints the report. The exit status: 0, or 1 if the gateway or the load failed."""
    with contextlib.ExitStack() as stack:
        try:
            if url is None:
                click.echo(f"starting {path} ...", err=True)
                url, admin = stack.enter_context(bench_gateway.started(path, demo))
            else:
                admin = f"http://{config.admin.address}" if config.admin else None
            url = url.rstrip("/") + target
            figures, found = measure(config, url, admin, headers, rate, seconds, connections)
        except (GatewayError, LoadError) as error:
            click.echo(f"penstock: {error}", err=True)
            return 1
    report = (url, connections, figures, found)
    if as_json:
        click.echo(json.dumps(bench_report.as_json(*report), indent=2))
    else:
        click.echo("\n".join(bench_report.lines(*report)))
        if found is None:
            click.echo("\nno figures by filter: the config has `admin: null`; give it an address")
    return 0


def measure(
    config: Config,
    url: str,
    admin: str | None,
    headers: list[tuple[str, str]],
    rate: float | None,
    seconds: int,
    connections: int,
) -> tuple[Figures, bench_report.Found | None]:
    """A short warm-up, then the run between two looks at the metrics. Raises LoadError, GatewayError."""
    click.echo(f"loading {url} for {seconds} s ...", err=True)
    run_load(url, headers, rate, WARM_UP_SECONDS, connections)
    before = (bench_gateway.metrics(admin), bench_gateway.worker_cpu(admin)) if admin else None
    figures = run_load(url, headers, rate, seconds, connections)
    if admin is None or before is None:
        return figures, None
    samples = bench_report.difference(before[0], bench_gateway.metrics(admin))
    cpu = bench_gateway.worker_cpu(admin)
    used = cpu - before[1] if cpu is not None and before[1] is not None else None
    return figures, bench_report.breakdown(samples, [one.name for one in config.filters], used)


def run_load(url: str, headers: list[tuple[str, str]], rate: float | None, seconds: int, connections: int) -> Figures:
    if rate is None:
        return bench_load.fast(url, connections, seconds, headers)
    return bench_load.paced(url, connections, seconds, rate, headers)
