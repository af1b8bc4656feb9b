"""`penstock explain`: one request through a config's chain, told callback by callback."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from proxy.cli.filter_kit import fail, text_of

if TYPE_CHECKING:
    from proxy.kit.cases import Sent


@click.command()
@click.argument("config_path", metavar="CONFIG", type=click.Path(path_type=Path))
@click.argument("url", metavar="URL|PATH")
@click.option("--request", "-X", "method", default=None, metavar="METHOD", help="Instead of GET, or POST with --data.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="A request header; may be repeated.")
@click.option("--data", "-d", default="", metavar="TEXT|@FILE", help="The request's body.")
@click.option("--user", "-u", default=None, metavar="USER:PASSWORD", help="Basic authentication.")
@click.option("--status", type=click.IntRange(200, 599), default=200, show_default=True, help="What the service answers.")
@click.option("--answer-header", "answer_headers", multiple=True, metavar="NAME:VALUE", help="A header of its answer.")
@click.option("--answer", default="hello\n", metavar="TEXT|@FILE", help="The body of its answer.")
@click.option("--call", "calls", multiple=True, metavar="CLUSTER=STATUS[:BODY]", help="The answer to filters' calls.")
def explain(
    config_path: Path,
    url: str,
    method: str | None,
    headers: tuple[str, ...],
    data: str,
    user: str | None,
    status: int,
    answer_headers: tuple[str, ...],
    answer: str,
    calls: tuple[str, ...],
) -> None:
    """Tell what the filters of CONFIG do to one request.

    Sends it through the chain: callbacks with their fuel and time, host calls, changes of heads and bodies, pauses, the
    outcome. Nothing is sent anywhere: the service's answer is what the options say, and a filter's call finds nobody unless
    --call answers it.

    \b
    Examples:
      penstock explain gateway.yaml /
      penstock explain gateway.yaml -u ada:lovelace -H 'accept: text/html' /search?q=x
    """
    from proxy.abi.memory import HeadError
    from proxy.cli.main import load_config
    from proxy.kit import explain as kit
    from proxy.kit.cases import Sent
    from proxy.kit.runtime import RefusedError
    from proxy.server import assembly

    parts = urlsplit(url)
    target = url if url.startswith("/") else (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not url.startswith(("/", "http://", "https://")):
        raise click.BadParameter(f"{url!r} is no path or URL; write one such as /search?q=x", param_hint="URL|PATH")
    config = load_config(config_path)
    given = [pair(header, "--header") for header in headers]
    if user is not None:
        import base64

        given.append(("authorization", "Basic " + base64.b64encode(user.encode()).decode()))
    request = Sent(given, text_of(data), None, method or ("POST" if data else "GET"), target)
    response = Sent([pair(header, "--answer-header") for header in answer_headers], text_of(answer), None, status=status)
    host = parts.netloc or str(config.listeners[0].address)
    answers = dict(map(scripted, calls))
    if problems := assembly.prepare_filters(config):
        fail([str(problem) for problem in problems])
    try:
        found = kit.explain(config, assembly.prepared[id(config)], request, response, answers, host)
    except RefusedError as error:
        fail([str(assembly.start_problem(config, error.error))])
    except HeadError as error:
        fail([f"the gateway refuses this request: {error.reason}"])
    click.echo("\n".join(kit.report(found, config)))


def pair(header: str, option: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    if not (name.strip() and colon):
        raise click.BadParameter(f"{header!r} is not a header; write it as 'name: value'", param_hint=option)
    return name.strip(), value.strip()


def scripted(text: str) -> "tuple[str, Sent]":
    """CLUSTER=STATUS[:BODY]."""
    from proxy.kit.cases import Sent

    cluster, _, said = text.partition("=")
    status, _, body = said.partition(":")
    if not (cluster and status.isdecimal()):
        raise click.BadParameter(f"{text!r} is no answer; write one such as auth=200:ok", param_hint="--call")
    return cluster, Sent([], body.encode(), None, status=int(status))
