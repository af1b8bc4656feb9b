"""Filters built from guests/*.c, and a service behind the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from tests import requires
from tests.guests import build

GUESTS = Path(__file__).with_name("guests")


@pytest.fixture(scope="session")
def guest() -> Callable[[str], Path]:
    """The filter of guests/NAME.c."""

    def built(name: str) -> Path:
        with requires.toolchain():
            return build.c_filter(GUESTS / f"{name}.c")

    return built


@dataclass
class Service:
    """A server on 127.0.0.1:`port` that answers 200 with `ok`; `requests` are what it got.

    The query may ask for more: `delay` (seconds before the answer), `status`, `user` (an x-user in the answer), `cut` (the
    connection is closed in the middle of the answer).
    """

    port: int = 0
    requests: list[web.BaseRequest] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        await asyncio.sleep(float(request.query.get("delay", 0)))
        headers = {"x-user": request.query["user"]} if "user" in request.query else {}
        if "cut" in request.query:
            response = web.StreamResponse(headers={"content-length": "10"})
            await response.prepare(request)
            await response.write(b"half")
            assert request.transport is not None
            request.transport.close()
            return response
        return web.Response(text="ok", status=int(request.query.get("status", 200)), headers=headers)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A running service."""
    found = Service()
    server = web.Server(found.answer)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()
