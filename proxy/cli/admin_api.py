"""A running gateway's admin API, for commands."""

import json
import sys
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import click

SECONDS = 10.0
EXIT_NOT_REACHED = 1
EXIT_REFUSED = 2
UNAUTHORIZED = 401
WRITE_TOKEN = "write --token with admin.token of its config, or set PENSTOCK_ADMIN_TOKEN"


def admin_options(command: Any) -> Any:
    """The options that say which gateway, and prove who asks."""
    command = click.option(
        "--token", envvar="PENSTOCK_ADMIN_TOKEN", metavar="TOKEN", help="admin.token of its config; or $PENSTOCK_ADMIN_TOKEN."
    )(command)
    return click.option(
        "--admin", default="http://127.0.0.1:9901", show_default=True, envvar="PENSTOCK_ADMIN", metavar="URL",
        help="Its admin address; or $PENSTOCK_ADMIN.",
    )(command)  # fmt: skip


def ask(admin: str, token: str | None, method: str, path: str, body: object = None) -> Any:
    """The JSON that it answers; ends the process with what went wrong."""
    url = (admin if "://" in admin else f"http://{admin}").rstrip("/") + path
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        # No proxy of the environment: the port is the machine's own.
        with build_opener(ProxyHandler({})).open(Request(url, data, headers, method=method), timeout=SECONDS) as response:
            return json.load(response)
    except HTTPError as error:
        text = error.read().decode("utf-8", "replace")
        try:
            text = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            text = text.strip() or str(error.reason)
        if error.code == UNAUTHORIZED:
            stop(f"{admin} {'takes another token' if token else 'wants a token'}; {WRITE_TOKEN}", EXIT_REFUSED)
        stop(f"{admin} answers {error.code}: {text}", EXIT_REFUSED)
    except (ValueError, HTTPException):
        stop(f"{admin} is no admin address of Penstock: what it answers is not JSON; write another --admin")
    except OSError as error:
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or cause
        stop(f"{admin} can not be asked: {reason}; is the gateway running, with this admin address?")


def stop(problem: str, status: int = EXIT_NOT_REACHED) -> NoReturn:
    click.echo(f"penstock: {problem}", err=True)
    sys.exit(status)
