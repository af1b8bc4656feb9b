"""A worker's control server: what the admin process asks it, over a unix socket in a private directory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from proxy.telemetry.telemetry import Telemetry


def control_path(directory: Path, slot: int, pid: int) -> Path:
    """Where the worker with this slot and pid listens."""
    return directory / f"worker-{slot}-{pid}.sock"


class ControlServer:
    """GET /snapshot: the worker's metrics as `Registry.snapshot` gives them. GET /state: its state and its filters'."""

    def __init__(self, path: Path, telemetry: Telemetry, state: Callable[[], dict[str, Any]]) -> None:
        self.path = path
        self.telemetry = telemetry
        self.state = state
        app = self.app = web.Application()
        app.router.add_get("/snapshot", self.get_snapshot)
        app.router.add_get("/state", self.get_state)
        self.runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)

    async def start(self) -> None:
        await self.runner.setup()
        await web.UnixSite(self.runner, str(self.path)).start()

    async def stop(self) -> None:
        await self.runner.cleanup()
        self.path.unlink(missing_ok=True)

    async def get_snapshot(self, request: web.Request) -> web.Response:
        return json_response(self.telemetry.registry.snapshot())

    async def get_state(self, request: web.Request) -> web.Response:
        return json_response(self.state())


def json_response(body: object) -> web.Response:
    return web.Response(body=json.dumps(body, separators=(",", ":")).encode(), content_type="application/json")
