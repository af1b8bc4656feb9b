"""`penstock canary`: versions of filters side by side, in a running gateway."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import click

from proxy.cli.admin_api import admin_options, ask


@click.group()
def canary() -> None:
    """Look at canaries of a running gateway, and decide on them.

    \b
    Examples:
      penstock canary status
      penstock canary set basic-auth 20%
      penstock canary promote basic-auth
    """


@canary.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@admin_options
def status(name: str | None, as_json: bool, admin: str, token: str | None) -> None:
    """Show each canary (or that of filter NAME): its state, who decided it, and the figures of both sides."""
    path = "/canaries" if name is None else f"/canaries/{quote(name, safe='')}"
    found = ask(admin, token, "GET", path)
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
        return
    listed = list(found.values()) if name is None else [found]
    click.echo("\n\n".join("\n".join(report(one)) for one in listed) if listed else "no filter has a canary")


@canary.command(name="set")
@click.argument("name")
@click.argument("weight", metavar="WEIGHT")
@click.option("--by", metavar="NAME", help="Who decides, for the log; your user name without it.")
@admin_options
def set_(name: str, weight: str, by: str | None, admin: str, token: str | None) -> None:
    """Give the canary of filter NAME this share of the clients, such as 20%. A canary that was rolled back begins again."""
    change(admin, token, "PUT", name, "", {"weight": weight, "by": by or user()})


@canary.command()
@click.argument("name")
@click.option("--by", metavar="NAME", help="Who decides, for the log; your user name without it.")
@admin_options
def promote(name: str, by: str | None, admin: str, token: str | None) -> None:
    """Let the canary of filter NAME serve everybody, until the config says so itself. Nothing takes it back then but you."""
    change(admin, token, "POST", name, "/promote", {"by": by or user()})


@canary.command()
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the log and the status.")
@click.option("--by", metavar="NAME", help="Who decides, for the log; your user name without it.")
@admin_options
def rollback(name: str, reason: str, by: str | None, admin: str, token: str | None) -> None:
    """Let nobody meet the canary of filter NAME any more."""
    change(admin, token, "POST", name, "/rollback", {"reason": reason, "by": by or user()})


def change(admin: str, token: str | None, method: str, name: str, action: str, body: dict[str, str]) -> None:
    found = ask(admin, token, method, f"/canaries/{quote(name, safe='')}{action}", body)
    click.echo("\n".join(report(found)))


def report(found: Mapping[str, Any]) -> Iterator[str]:
    """A canary, for people."""
    import time

    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["since"]))
    state = found["state"].replace("_", " ")
    yield f"{found['filter']}: {state}, weight {found['weight'] * 100:g}%, since {when}, by {found['by']}"
    yield f"  canary {found['wasm']}  sha256 {found['sha256']}"
    yield from (f"  evidence: {line}" for line in found["evidence"])
    names = ("streams", "errors_5xx", "traps", "fuel_per_stream", "p50_seconds", "p99_seconds")
    yield "  " + " " * 8 + "".join(f"{name:>17}" for name in names)
    for side in ("live", "canary"):
        if side in found:
            yield f"  {side:<8}" + "".join(f"{found[side][name]:>17}" for name in names)
    if found["next"]:
        yield f"  next: {found['next']}"


def user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        import os

        return f"uid {os.getuid()}"
