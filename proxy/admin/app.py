"""The admin address put together: who may ask (guard.py), the API (api.py), the page (page.py)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from proxy.admin.api import Api
from proxy.admin.canary import add_canaries
from proxy.admin.guard import Guard, set_headers
from proxy.admin.page import add_page
from proxy.admin.record import add_record
from proxy.admin.reload import add_reload
from proxy.admin.workers import Workers
from proxy.chain.recording import WishFile
from proxy.sharing.canaries import state_directory

MOST_BODY = 64 * 1024
"""Bytes of a request's body: what is sent here is small."""


def make_app(workers: Workers, config: dict[str, Any], guard: Guard, stop: Callable[[], object]) -> web.Application:
    """`config` is redacted already; `stop` drains the gateway and ends it."""
    app = web.Application(middlewares=guard.middlewares(), client_max_size=MOST_BODY)
    api = Api(workers, config, stop)
    api.add_to(app)
    add_canaries(app, workers.filter_states, workers.refresh)
    directory = config.get("state_directory")
    files = WishFile(state_directory(Path(directory) if directory is not None else None))
    add_record(app, files, (config.get("admin") or {}).get("redact", []))
    add_reload(app, workers.directory)
    add_page(app)
    app.on_response_prepare.append(set_headers)
    return app
