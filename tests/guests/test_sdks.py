"""The guest of sdk_guests.md on each SDK, asked the same through the real Envoy and through Penstock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest
from aiohttp import web

from tests import requires
from tests.conformance.envoy import Envoy, EnvoyFilter
from tests.guests import build
from tests.integration.gateway import Gateway, filter_of

CONFIGURATION = "the guest"
SHARES = ("rust", "gcore", "go")
"""SDKs with shared data, and with bodies that can be set."""


@dataclass
class Echo:
    """A service: answers with the request's body, in headers what it was asked; `/ask?STATUS` with that status."""

    port: int = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.path == "/ask":
            return web.Response(status=int(request.query_string), headers={"x-user": "ada"})
        seen = [(f"seen-{name}", value) for name, value in request.headers.items() if name.startswith("x-")]
        return web.Response(body=await request.read(), headers=seen)


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    runner = web.ServerRunner(web.Server(Echo().answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


class Side(Protocol):
    """What runs the guest."""

    port: int

    async def said(self, start: str) -> list[str]: ...
    async def counted(self) -> dict[str, float]: ...


class EnvoySide:
    def __init__(self, envoy: Envoy) -> None:
        self.envoy = envoy
        self.port = envoy.port

    async def said(self, start: str) -> list[str]:
        return [line.message for line in self.envoy.worker_lines() if line.message.startswith(start)]

    async def counted(self) -> dict[str, float]:
        found = await asyncio.to_thread(self.envoy.metrics)
        return {name: found[name] for name in ("sdk_requests", "sdk_open")}


class PenstockSide:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.port = gateway.port

    async def said(self, start: str) -> list[str]:
        return self.gateway.said("guest", start)

    async def counted(self) -> dict[str, float]:
        found = await self.gateway.metrics()
        samples, total = (found[f'penstock_guest_sdk_sizes_{part}{{filter="guest"}}'] for part in ("count", "sum"))
        assert total == 7 * samples
        return {
            "sdk_requests": found['penstock_guest_sdk_requests_total{filter="guest"}'],
            "sdk_open": found['penstock_guest_sdk_open{filter="guest"}'],
        }


@asynccontextmanager
async def running(side: str, wasm: Path) -> AsyncIterator[Side]:
    """The guest under defaults, with the one grant that it needs."""
    async with echo() as port:
        if side == "envoy":
            requires.envoy()
            filters = [EnvoyFilter(wasm, CONFIGURATION.encode(), "guest", root_id="guest")]
            async with Envoy(filters, {"service": port}) as envoy:
                yield EnvoySide(envoy)
        else:
            capabilities = {"allowed_hosts": ["cluster:service"]}
            entry = filter_of(wasm, "guest", CONFIGURATION, root_id="guest", capabilities=capabilities)
            async with Gateway([entry], {"service": port}) as gateway:
                yield PenstockSide(gateway)
                assert gateway.events("filter_failed") == []


def filter_on(sdk: str) -> Path:
    with requires.toolchain():
        return build.SDK_FILTERS[sdk]()


async def pieces() -> AsyncIterator[bytes]:
    """A request's body in chunks that arrive apart."""
    for _ in range(3):
        yield b"abc" * 1_000
        await asyncio.sleep(0.01)


async def until(side: Side, start: str) -> Sequence[str]:
    """What the guest said, once it has."""
    for _ in range(100):
        if found := await side.said(start):
            return found
        await asyncio.sleep(0.05)
    return []


@pytest.mark.envoy
@pytest.mark.timeout(120)
@pytest.mark.parametrize("side", ["envoy", "penstock"])
@pytest.mark.parametrize("sdk", build.SDK_FILTERS)
async def test_guest(sdk: str, side: str) -> None:
    """Every feature that the SDK has."""
    wasm = filter_on(sdk)
    async with running(side, wasm) as guest, aiohttp.ClientSession(f"http://127.0.0.1:{guest.port}") as client:
        requests = 0

        async def ask(path: str, body: AsyncIterator[bytes] | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
            nonlocal requests
            requests += 1
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            async with client.request("POST" if body else "GET", path, data=body, headers=named) as response:
                seen = {name.lower(): value for name, value in response.headers.items()}
                return response.status, seen, await response.text()

        status, headers, body = await ask("/any")
        assert (status, headers["x-hello"], body) == (200, CONFIGURATION, "")

        status, headers, body = await ask("/headers", x_remove="1", x_replace="old")
        assert (status, headers["seen-x-replace"], "seen-x-remove" in headers) == (200, "new", False)
        assert int(headers["seen-x-count"]) > 5

        status, headers, body = await ask("/auth", x_ask="/ask?200")
        assert (status, headers["seen-x-user"]) == (200, "ada")
        status, headers, body = await ask("/auth", x_ask="/ask?401")
        assert (status, headers["x-hello"], body) == (403, CONFIGURATION, "no: 401")
        assert headers["content-type"] == "text/plain"

        if sdk in SHARES:
            counts = [(await ask("/counter"))[1]["seen-x-shared"] for _ in range(3)]
            assert counts == ["1", "2", "3"]
            assert (await ask("/body", pieces()))[2] == f"[{'ABC' * 3_000}]"
            assert (await ask("/any", pieces()))[2] == "abc" * 3_000

        prefix = "[INFO]: " if sdk == "gcore" else ""  # it writes to standard output
        for line in (f"configured: {CONFIGURATION}", "third tick"):
            assert await until(guest, prefix + line) == [prefix + line]
        assert await guest.counted() == {"sdk_requests": requests, "sdk_open": 2 * requests}


@pytest.mark.parametrize("sdk", build.SDK_FILTERS)
async def test_guest_ends_with_the_gateway(sdk: str) -> None:
    """On SIGTERM; G-Core's SDK is known to trap when its root is asked to be done, which holds nobody up."""
    async with running("penstock", filter_on(sdk)) as guest:
        assert isinstance(guest, PenstockSide)
        async with aiohttp.ClientSession() as client:
            await (await client.get(f"http://127.0.0.1:{guest.port}/any")).read()
        assert await guest.gateway.stop() == 0
        failures = [line["callback"] for line in guest.gateway.events("filter_failed")]
        assert failures == (["proxy_on_done"] if sdk == "gcore" else [])
        guest.gateway.lines.clear()
