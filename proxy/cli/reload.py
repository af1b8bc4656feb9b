"""`penstock reload` and `penstock diff`: both ask the supervisor of a gateway that runs on this machine, as this user."""

import sys
from pathlib import Path
from typing import Any

import click

EXIT_OK = 0
EXIT_REFUSED = 1

TIMEOUT = 1200.0
"""Seconds: a config with large filters takes minutes to compile."""

CONFIG = click.argument("config_path", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
PID = click.option("--pid", type=int, help="The gateway's process; needed if more than one runs.")


@click.command()
@CONFIG
@PID
def reload(config_path: Path | None, pid: int | None) -> None:
    """Have the running gateway take its config anew.

    It checks all of the config, starts the filters, and swaps at once, without closing a connection; if anything is wrong,
    what served before goes on. Says what came of it. Exit status: 0, or 1 if it was refused or no gateway was found.

    \b
    Examples:
      penstock reload gateway.yaml
      penstock reload
    """
    found = ask(config_path, pid, {"do": "reload"})
    if found["result"] == "refused":
        click.echo("\n".join(found["problems"]), err=True)
        click.echo(f"penstock: not reloaded; generation {found['generation']} goes on serving", err=True)
        sys.exit(EXIT_REFUSED)
    for change in found["changes"]:
        click.echo(change)
    click.echo(f"generation {found['generation']} serves, after {found['seconds']:.1f} s")


@click.command()
@CONFIG
@PID
def diff(config_path: Path | None, pid: int | None) -> None:
    """Show what a reload would change.

    Checks CONFIG as a reload would, and changes nothing. With --pid, CONFIG may be another file than the gateway's own. Exit
    status: 0, or 1 if a reload would be refused.

    \b
    Examples:
      penstock diff gateway.yaml
      penstock diff candidate.yaml --pid 4711
    """
    question: dict[str, Any] = {"do": "diff"}
    if config_path is not None:
        question["config"] = str(config_path.absolute())
    found = ask(None if pid is not None else config_path, pid, question)
    if found["result"] == "refused":
        click.echo("\n".join(found["problems"]), err=True)
        click.echo("penstock: a reload would be refused", err=True)
        sys.exit(EXIT_REFUSED)
    click.echo("\n".join(found["changes"]) or "nothing would change")


def ask(config_path: Path | None, pid: int | None, question: dict[str, Any]) -> dict[str, Any]:
    from proxy.server.asking import NotRunningError, find
    from proxy.server.asking import ask as ask_supervisor

    try:
        return ask_supervisor(find(config_path, pid), question, TIMEOUT)
    except NotRunningError as error:
        click.echo(f"penstock: {error}", err=True)
    except OSError as error:
        click.echo(f"penstock: the gateway does not answer: {error.strerror or error}", err=True)
    sys.exit(EXIT_REFUSED)
