"""The `penstock` command. Everything heavy is imported inside the commands, so that --help and --version are quick.

Exit status: 0 when all went well, 1 when the gateway could not serve, 2 for wrong use, a wrong config or a wrong file.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from proxy.cli import canary, explain, filter_kit, grants, record, reload, signing, standard_streams

if TYPE_CHECKING:
    from proxy.config.model import Config

EXIT_CANNOT_SERVE = 1
EXIT_WRONG = 2

CONFIG_ARGUMENT = click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))


def print_version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("penstock")
    except PackageNotFoundError:
        number = "(not installed: run from its source)"
    click.echo(f"penstock {number}")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """A reverse proxy that runs an ordered chain of proxy-wasm filters it does not trust.

    \b
    Start with a filter of your own, which comes with a gateway.yaml:
      penstock filter new my-filter --lang c
      penstock filter build my-filter
      penstock run --demo my-filter/gateway.yaml
    """
    standard_streams.complete()


@main.command()
@CONFIG_ARGUMENT
@click.option("--demo", is_flag=True, help="Also serve a demo service on the first cluster's first endpoint.")
@click.option("--hint", metavar="COMMAND", help="With --demo: the command to print as one to try; {url} is the gateway's.")
@click.option("--learn", "learning", is_flag=True, help="At the end, print the least capabilities: block of each filter.")
@click.option("--takeover", is_flag=True, help="Take the place of the gateway that runs with CONFIG, if one does.")
def run(config_path: Path, demo: bool, hint: str | None, learning: bool, takeover: bool) -> None:
    """Serve what CONFIG says until SIGTERM.

    The first SIGTERM or Ctrl-C stops accepting and lets running streams finish within shutdown_grace; a second one ends
    them at once.

    With --learn what a filter is denied stays denied, and is told at the end as what to write.

    \b
    Examples:
      penstock run gateway.yaml --demo
      penstock run gateway.yaml --learn
      penstock run gateway.yaml --takeover
    """
    config = load_config(config_path)
    if demo and not config.clusters:
        fail([str(config.problem(("clusters",), "is empty: --demo has nothing to stand for", "add a cluster"))])
    from proxy.server import supervisor

    if learning:
        from proxy.cli import learn

        sys.exit(learn.run(config, lambda logged: supervisor.run(logged, config_path, demo, hint, takeover=takeover)))
    sys.exit(supervisor.run(config, config_path, demo, hint, takeover=takeover))


@main.command()
@CONFIG_ARGUMENT
def check(config_path: Path) -> None:
    """Load CONFIG and its filters, and serve nothing.

    Prints a summary, or everything that is wrong as `file:line: path: problem; what to write`, with exit status 2.

    \b
    Example:
      penstock check gateway.yaml
    """
    config = load_config(config_path)
    from proxy.server.check import check as check_filters

    if problems := list(map(str, check_filters(config))):
        fail(problems)
    sections = ("listener", "cluster", "route", "filter")
    counts = [count(len(getattr(config, f"{section}s")), section) for section in sections]
    click.echo(f"{config_path}: all is well: {', '.join(counts)}")


@main.group(name="filter")
def filter_group() -> None:
    """Write, test and look at filters.

    \b
    Examples:
      penstock filter inspect filters/basic-auth/basic-auth.wasm
      penstock filter test filters/basic-auth
    """


@filter_group.command()
@click.argument("file", metavar="FILE.wasm", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def inspect(file: Path, as_json: bool) -> None:
    """Say what a filter's file is, without running it.

    ABI version, language and SDK, imports and callbacks, callbacks that no host will ever call, memory, the grants it
    will need, and what would keep it from loading under the default limits: exit status 2 if anything would.

    \b
    Example:
      penstock filter inspect filters/basic-auth/basic-auth.wasm --json
    """
    from proxy.abi.proxy_wasm import inspect as inspection
    from proxy.wasm.module import ModuleError

    try:
        found = inspection.inspect(file)
    except OSError as error:
        fail([f"{file}: can not be read: {error.strerror}; write the path of a .wasm file"])
    except ModuleError as error:
        mend = "" if ";" in str(error) else "; write the path of a .wasm file"
        fail([f"{file}: {error}{mend}"])
    from proxy.cli.inspect_report import refusals, report

    if as_json:
        import json

        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        click.echo(report(str(file), found), nl=False)
    if refusals(found):
        sys.exit(EXIT_WRONG)


for command in (*filter_kit.COMMANDS, *signing.COMMANDS, *grants.COMMANDS):
    filter_group.add_command(command)
main.add_command(explain.explain)
main.add_command(reload.reload)
main.add_command(reload.diff)
main.add_command(canary.canary)
main.add_command(record.record)
main.add_command(record.replay)


@main.command()
@click.option("--address", default="127.0.0.1:9000", show_default=True, help="host:port to serve on.")
def demo(address: str) -> None:
    """Serve the demo service alone.

    It answers every request with a page that shows what reached it.

    \b
    Example:
      penstock demo --address 127.0.0.1:9000
    """
    from proxy.config.fields import parse_address
    from proxy.config.problem import WrongValueError

    try:
        parsed = parse_address(address)
    except WrongValueError as error:
        raise click.BadParameter(f"{error.problem}; {error.mend}", param_hint="--address") from None
    from proxy.demo import run

    click.echo(f"Demo service on http://{parsed}, until Ctrl-C")
    try:
        run(parsed)
    except OSError as error:
        click.echo(f"penstock: can not serve on {parsed}: {error.strerror}; write --address with a free port", err=True)
        sys.exit(EXIT_CANNOT_SERVE)


@main.command()
@CONFIG_ARGUMENT
@click.option("--rate", type=click.FloatRange(min=1), metavar="N", help="Requests per second; without it, the most it answers.")
@click.option("--duration", default="10s", show_default=True, help="How long, in whole seconds.")
@click.option("--connections", type=click.IntRange(1, 4096), default=32, show_default=True, help="Connections kept open.")
@click.option("--path", "target", default="/", show_default=True, help="What to ask for; with its query, if any.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A request header; may be repeated.")
@click.option("--url", metavar="URL", help="Load the gateway that already runs there with CONFIG, instead of starting one.")
@click.option("--demo", is_flag=True, help="As in `penstock run`. The service is slow: for a try, not for figures.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def bench(
    config_path: Path,
    rate: float | None,
    duration: str,
    connections: int,
    target: str,
    headers: tuple[str, ...],
    url: str | None,
    demo: bool,
    as_json: bool,
) -> None:
    """Load-test the gateway of CONFIG, filter by filter.

    It starts the gateway, sends GETs to its first listener, and reads the admin port's metrics before and after. It prints
    requests/s, latencies, errors, and where the time went. The load is wrk's, which sends the next request when the last was
    answered; with --rate h2load's, which sends at that rate whether answers come or not, as clients do. The generator runs on
    the same machine: leave it a CPU.

    \b
    Examples:
      penstock bench gateway.yaml --duration 10s --connections 64
      penstock bench gateway.yaml --rate 2000 --path /search?q=x --header 'authorization: Basic YTpi'
      penstock bench gateway.yaml --url http://127.0.0.1:8080
    """
    config = load_config(config_path)
    seconds = whole_seconds(duration)
    fields = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not (name.strip() and colon):
            raise click.BadParameter(f"{header!r} is not a header; write it as 'name: value'", param_hint="--header")
        fields.append((name.strip(), value.strip()))
    if not target.startswith("/"):
        raise click.BadParameter(f"{target!r} does not begin with /", param_hint="--path")
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} is not a URL; write one such as http://127.0.0.1:8080", param_hint="--url")
    if url is not None and demo:
        raise click.UsageError("--demo needs a gateway that is started here: leave out --url")
    from proxy.cli import bench_load

    if missing := bench_load.missing(rate):
        click.echo("\n".join(f"penstock: not installed: {line}" for line in missing), err=True)
        sys.exit(EXIT_CANNOT_SERVE)
    from proxy.cli.bench import bench as run_bench

    sys.exit(
        run_bench(
            config,
            config_path,
            url=url,
            demo=demo,
            target=target,
            headers=fields,
            rate=rate,
            seconds=seconds,
            connections=connections,
            as_json=as_json,
        )
    )


def whole_seconds(text: str) -> int:
    from proxy.config.problem import WrongValueError
    from proxy.config.units import parse_duration

    try:
        seconds = parse_duration(text)
    except WrongValueError as error:
        raise click.BadParameter(f"{error.problem}; {error.mend}", param_hint="--duration") from None
    if seconds < 1 or seconds != int(seconds):
        raise click.BadParameter(f"{text} is not a whole number of seconds; write one such as 10s", param_hint="--duration")
    return int(seconds)


def load_config(path: Path) -> "Config":
    """The config; ends the process with status 2 if it is wrong."""
    from proxy.config.load import load
    from proxy.config.problem import ConfigErrors

    try:
        return load(path)
    except ConfigErrors as errors:
        fail([str(problem) for problem in errors.problems])


def fail(problems: list[str]) -> NoReturn:
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(EXIT_WRONG)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
