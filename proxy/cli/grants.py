"""`penstock filter list` and `accept`: what a config's filters are, and the yes to what they ask for."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.filter_kit import PATH, fail

if TYPE_CHECKING:
    from proxy.config.filter import Capabilities, Filter
    from proxy.config.model import Config
    from proxy.sources.policy import Examined

EXIT_FAILED = 1
ASK_SECONDS = 1.0
DIGITS = 12
"""Of a digest, as it is shown to people."""
COLUMNS = ("name", "version", "sha256", "source", "signer", "grants", "state")


@click.command(name="list")
@click.argument("config_path", metavar="CONFIG", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def list_filters(config_path: Path, as_json: bool) -> None:
    """List the filters of CONFIG.

    Name, version, digest, source, signer, grants, and the state in the gateway that runs with it, if its admin port answers.
    Nothing is fetched: of a remote filter it shows what is kept.

    \b
    Example:
      penstock filter list gateway.yaml
    """
    from proxy.cli.main import load_config
    from proxy.config.filter import with_versions
    from proxy.sources.grants_lock import LockError
    from proxy.sources.news import at_hand

    config = load_config(config_path)
    try:
        found = at_hand(config)
    except LockError as error:
        fail([str(error)])
    states = admin_filters(config)
    rows = []
    for filter_, got in zip(with_versions(config.filters), found, strict=True):
        row = described(filter_, None if isinstance(got, list) else got)
        row["state"] = str(states.get(filter_.name, {}).get("state", "unknown")) if states is not None else "not running"
        row["problems"] = list(map(str, got if isinstance(got, list) else got.problems))
        rows.append(row)
    if as_json:
        click.echo(json.dumps({"filters": rows}, indent=2))
        return
    click.echo(table([{**row, "sha256": row["sha256"][:DIGITS]} for row in rows]), nl=False)
    for row in rows:
        for problem in row["problems"]:
            click.echo(f"{row['name']}: {problem}")


def described(filter_: "Filter", found: "Examined | None") -> dict[str, Any]:
    from proxy.config.remote import Remote

    return {
        "name": filter_.name,
        "version": found.version if found is not None else "",
        "sha256": found.digest if found is not None else "",
        "source": filter_.wasm.shown if isinstance(filter_.wasm, Remote) else str(filter_.wasm),
        "signer": found.signer if found is not None else "",
        "grants": granted(filter_.capabilities),
    }


def granted(capabilities: "Capabilities") -> str:
    functions = capabilities.host_functions
    parts = [*capabilities.allowed_hosts]
    if functions is not None:
        parts.append(f"{len(functions)} host functions")
    if capabilities.env:
        parts.append(f"env {' '.join(sorted(capabilities.env))}")
    return ", ".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    """Columns as wide as what is in them; - for nothing."""
    lines = [[column.upper() for column in COLUMNS], *([str(row[column]) or "-" for column in COLUMNS] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(COLUMNS))]
    texts = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(texts) + "\n"


def admin_filters(config: "Config") -> dict[str, Any] | None:
    """/filters of the gateway's admin port: nothing of any filter if it does not tell us, None if nobody answers there."""
    import http.client

    if config.admin is None or config.admin.address.port == 0:
        return None
    connection = http.client.HTTPConnection(config.admin.address.host, config.admin.address.port, timeout=ASK_SECONDS)
    headers = {} if config.admin.token is None else {"authorization": f"Bearer {config.admin.token}"}
    try:
        connection.request("GET", "/filters", headers=headers)
        response = connection.getresponse()
        found = json.loads(response.read(1 << 22)) if response.status == 200 else {}
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None


@click.command()
@click.argument("config_path", metavar="CONFIG", type=PATH)
@click.option("--yes", is_flag=True, help="Say yes to all, after looking at the differences.")
@click.option("--show", is_flag=True, help="Only print the differences: exit status 1 if there are any.")
def accept(config_path: Path, yes: bool, show: bool) -> None:
    """Say yes to what the filters of CONFIG ask for.

    Fetches them, prints what each asks for beyond what was accepted before, or is otherwise, and asks. What is accepted goes
    into the file beside CONFIG whose name ends in .lock. While that is there, a gateway loads no filter that asks for more.

    \b
    Examples:
      penstock filter accept gateway.yaml
      penstock filter accept gateway.yaml --show
    """
    from proxy.cli.main import load_config
    from proxy.config.filter import with_versions
    from proxy.sources import grants_lock
    from proxy.sources.news import news

    config = load_config(config_path)
    path = grants_lock.path_of(config_path)
    try:
        before = grants_lock.load(path)
    except grants_lock.LockError as error:
        fail([str(error)])
    known, problems, agreed, different = before or {}, [], {}, False
    for filter_, now in zip(with_versions(config.filters), news(config), strict=True):
        if isinstance(now, list):
            problems += [f"{filter_.name}: {problem}" for problem in now]
            continue
        agreed[filter_.name] = now
        lines = grants_lock.differences(known.get(filter_.name), now)
        fewer = grants_lock.less(known[filter_.name].asks, now.asks) if filter_.name in known else []
        if not lines and not fewer:
            continue
        click.echo(f"{filter_.name} {now.version}".rstrip() + (f", signed by {now.signer}" if now.signer else ", not signed"))
        click.echo("".join(f"  + {line}\n" for line in lines) + "".join(f"  - {line}\n" for line in fewer), nl=False)
        if lines:
            different = True
            if not show and not yes and not click.confirm("Accept it?", default=False):
                fail([f"{filter_.name} is not accepted; {path} is as it was"])
    if problems:
        fail(problems)
    if show:
        sys.exit(EXIT_FAILED if different else 0)
    try:
        grants_lock.save(path, agreed)
    except OSError as error:
        fail([f"{path}: can not be written: {error.strerror}"])
    click.echo(f"{path}: {len(agreed)} filters accepted")


COMMANDS = (list_filters, accept)
"""What main.py adds to `penstock filter`."""
