"""How the admin API answers and what it takes: JSON."""

import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aiohttp import web


def json_page(body: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(body, indent=2).encode() + b"\n", content_type="application/json")


async def json_body(request: web.Request, *keys: str) -> dict[str, Any]:
    """The request's JSON object, with no others than `keys`; {} for no body. Raises HTTPBadRequest."""
    data = await request.read()
    if not data:
        return {}
    if request.content_type != "application/json":
        raise web.HTTPBadRequest(text="send JSON, with Content-Type: application/json")
    try:
        body = json.loads(data)
    except ValueError:
        raise web.HTTPBadRequest(text="the body is not JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object")
    if unknown := body.keys() - set(keys):
        raise web.HTTPBadRequest(text=f"unknown key {json.dumps(min(unknown))}; the keys here are {', '.join(keys)}")
    return body


def number_of(body: dict[str, Any], key: str, default: float, low: float, high: float) -> float:
    """A number of the body within bounds. Raises HTTPBadRequest."""
    value = body.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise web.HTTPBadRequest(text=f"{key} has to be a number from {low:g} to {high:g}")
    return value


def program_version() -> str:
    """Penstock's; "unknown" where it runs without being installed."""
    try:
        return version("penstock")
    except PackageNotFoundError:
        return "unknown"
