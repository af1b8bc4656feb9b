"""`penstock record` keeps streams of a running gateway; `penstock replay` runs one of them again, offline."""

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from proxy.cli.admin_api import admin_options, ask
from proxy.cli.canary import user

EXIT_DIFFERENT = 1
EXIT_WRONG = 2


@click.group()
def record() -> None:
    """Keep streams of a running gateway, with all host calls.

    \b
    Examples:
      penstock record start --header x-debug:1 --for 10m
      penstock record start --errors --route api --most 20
      penstock record stop
    """


@record.command()
@click.option(
    "--header", "-H", "headers", multiple=True, metavar="NAME[:VALUE]", help="Requests with this header; may be repeated."
)
@click.option("--route", "routes", multiple=True, metavar="NAME", help="Streams of this route; may be repeated.")
@click.option("--errors", is_flag=True, help="Only streams that end in a 5xx, or broken.")
@click.option("--sample", default="100%", show_default=True, metavar="SHARE", help="This share of them.")
@click.option("--body", default="64KiB", show_default=True, metavar="SIZE", help="Bytes kept of each body.")
@click.option(
    "--most", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Recordings in the folder, in all."
)
@click.option("--for", "duration", default="5m", show_default=True, metavar="DURATION", help="How long; at most 24h.")
@admin_options
def start(
    headers: tuple[str, ...],
    routes: tuple[str, ...],
    errors: bool,
    sample: str,
    body: str,
    most: int,
    duration: str,
    admin: str,
    token: str | None,
) -> None:
    """Keep the streams that fulfil all of these conditions."""
    from proxy.config.fields import read_percent
    from proxy.config.problem import WrongValueError
    from proxy.config.units import parse_duration, parse_size

    wanted = dict(header.partition(":")[::2] for header in headers)
    try:
        wish = {
            "headers": {name.strip(): value.strip() for name, value in wanted.items()},
            "routes": list(routes),
            "errors": errors,
            "sample": read_percent(sample, None),
            "body": parse_size(body),
            "most": most,
            "seconds": parse_duration(duration),
            "by": user(),
        }
    except WrongValueError as error:
        raise click.UsageError(f"{error.problem}; {error.mend}") from None
    show(ask(admin, token, "PUT", "/record", wish))


@record.command()
@admin_options
def stop(admin: str, token: str | None) -> None:
    """Keep no more streams."""
    show(ask(admin, token, "DELETE", "/record"))


@record.command()
@admin_options
def status(admin: str, token: str | None) -> None:
    """Say whether streams are kept, and where they are."""
    show(ask(admin, token, "GET", "/record"))


def show(state: dict[str, Any]) -> None:
    if state["on"]:
        left, most = f"{state['seconds_left']:.0f} s", state["most"]
        click.echo(f"recording for {left} more, {state['kept']} of {most} kept, asked for by {state['by']}")
    else:
        click.echo(f"not recording, {state['kept']} kept")
    click.echo(f"in {state['folder']}")


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--wasm", "module", type=click.Path(path_type=Path), help="Another module, in the place of a filter's.")
@click.option("--filter", "only", metavar="NAME", help="In the place of which filter; the one there is without it.")
@click.option(
    "--config", "config_path", metavar="CONFIG", type=click.Path(path_type=Path), help="For filters' configs with secrets."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def replay(file: Path, module: Path | None, only: str | None, config_path: Path | None, as_json: bool) -> None:
    """Run a recorded stream again, offline, and show differences.

    The filters get the recorded messages, times, random numbers and answers to their calls. Exit status 0: nothing differs;
    1: something does; 2: it can not be run.

    \b
    Examples:
      penstock replay recordings/20260101T120000-1.jsonl
      penstock replay recordings/20260101T120000-1.jsonl --wasm filters/basic-auth-2.wasm
    """
    from proxy.abi.memory import HeadError
    from proxy.chain.record_file import FormatError, read
    from proxy.kit.replay import recording_of
    from proxy.kit.replay import replay as run
    from proxy.kit.runtime import RefusedError, SetupError

    config = None
    if config_path is not None:
        from proxy.cli.main import load_config

        config = load_config(config_path)
    try:
        found = run(recording_of(read(file)), module, only, config)
    except OSError as error:
        fail(f"{file}: can not be read: {error.strerror}")
    except (FormatError, SetupError) as error:
        fail(f"{file}: {error}")
    except RefusedError as error:
        fail(f"{file}: {error.name}")
    except HeadError as error:
        fail(f"{file}: the gateway refuses this message: {error.reason}")
    if as_json:
        import json

        lines = [f"{line.filter}: {line.level}: {line.message}" for line in found.lines]
        click.echo(json.dumps({"differences": found.differences, "notes": found.notes, "log": lines}, indent=2))
    else:
        for title, said in (
            ("differences", found.differences),
            ("notes", found.notes),
            ("log", [f"{line.filter}: {line.level}: {line.message}" for line in found.lines]),
        ):
            if said:
                click.echo(title)
                click.echo("\n".join(f"    {line}" for line in said))
        if not found.differences:
            click.echo("the same as recorded")
    if found.differences:
        sys.exit(EXIT_DIFFERENT)


def fail(problem: str) -> NoReturn:
    click.echo(problem, err=True)
    sys.exit(EXIT_WRONG)
