"""Recording on the admin address: which streams are kept, for how long. The workers follow within a moment."""

import asyncio
import time
from typing import Any

from aiohttp import web

from proxy.admin.answers import json_body, json_page, number_of
from proxy.chain.recording import Wish, WishFile
from proxy.telemetry.logging import get_logger

log = get_logger("admin")

LONGEST = 24 * 3600.0
MOST = 10_000
LARGEST_BODY = 16 << 20
KEYS = ("headers", "routes", "errors", "sample", "body", "most", "seconds", "by")


def add_record(app: web.Application, files: WishFile, redact: list[str]) -> None:
    """`redact`: the config's (admin.redact)."""

    async def get(request: web.Request) -> web.Response:
        return json_page(state(files))

    async def put(request: web.Request) -> web.Response:
        wish = wish_of(await json_body(request, *KEYS), redact)
        try:
            await asyncio.to_thread(files.write, wish)
        except OSError as error:
            return json_page({"error": f"the state directory can not be written: {error}"}, 500)
        log.warning(
            "recording_wanted", by=wish.by, remote=request.remote, headers=sorted(wish.headers), routes=wish.routes,
            errors=wish.errors, sample=wish.sample, most=wish.most, seconds=round(wish.until - time.time()),
        )  # fmt: skip
        return json_page(state(files))

    async def delete(request: web.Request) -> web.Response:
        files.remove()
        log.warning("recording_ended", remote=request.remote)
        return json_page(state(files))

    app.router.add_get("/record", get)
    app.router.add_put("/record", put)
    app.router.add_delete("/record", delete)


def wish_of(body: dict[str, Any], redact: list[str]) -> Wish:
    """Raises HTTPBadRequest."""
    headers, routes, errors = body.get("headers", {}), body.get("routes", []), body.get("errors", False)
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise web.HTTPBadRequest(text="headers has to be an object of names and values")
    if not isinstance(routes, list) or not all(isinstance(name, str) for name in routes):
        raise web.HTTPBadRequest(text="routes has to be a list of names")
    if not isinstance(errors, bool):
        raise web.HTTPBadRequest(text="errors has to be true or false")
    return Wish(
        until=time.time() + number_of(body, "seconds", 300.0, 1, LONGEST),
        by=str(body.get("by") or "unnamed")[:200],
        headers=headers,
        routes=routes,
        errors=errors,
        sample=number_of(body, "sample", 1.0, 0, 1),
        body=int(number_of(body, "body", 64 << 10, 0, LARGEST_BODY)),
        most=int(number_of(body, "most", 100, 1, MOST)),
        redact=redact,
    )


def state(files: WishFile) -> dict[str, Any]:
    """What is wanted, and how much there is."""
    wish = files.read()
    return {
        "on": wish is not None,
        "seconds_left": round(max(wish.until - time.time(), 0.0), 1) if wish is not None else 0.0,
        "kept": files.count(),
        "most": wish.most if wish is not None else 0,
        "folder": str(files.folder),
        "by": wish.by if wish is not None else "",
    }
