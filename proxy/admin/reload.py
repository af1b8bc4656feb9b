"""Reloads on the admin address: POST /reload starts one and tells what came of it, GET /reload tells of the last."""

import asyncio
from pathlib import Path

from aiohttp import web

from proxy.admin.answers import json_page
from proxy.server import reload_status
from proxy.server.asking import NotRunningError, ask
from proxy.telemetry.logging import get_logger

log = get_logger("admin")

TIMEOUT = 1200.0


def add_reload(app: web.Application, directory: Path) -> None:
    """`directory`: the gateway's private one."""

    async def get_reload(request: web.Request) -> web.Response:
        return json_page(reload_status.read(directory))

    async def post_reload(request: web.Request) -> web.Response:
        log.warning("reload asked for", source=request.remote)
        try:
            found = await asyncio.to_thread(ask, directory, {"do": "reload", "from": "admin"}, TIMEOUT)
        except (OSError, NotRunningError) as error:
            return json_page({"error": f"the supervisor does not answer: {error}"}, 503)
        return json_page(found, 409 if found["result"] == "refused" else 200)

    app.router.add_get("/reload", get_reload)
    app.router.add_post("/reload", post_reload)
