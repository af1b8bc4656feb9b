"""Fixtures for the server's tests: gateways and endpoints that are stopped afterwards."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from tests.server.fakes import Bench, Endpoint, Serve, start_bench


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Modules that say BOTH_LOOPS run on each loop that workers may use."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if getattr(item.module, "BOTH_LOOPS", False):  # type: ignore[attr-defined]
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def endpoint() -> AsyncIterator[Callable[[Serve], Awaitable[Endpoint]]]:
    """Starts scripted endpoints."""
    started: list[Endpoint] = []

    async def start(serve: Serve) -> Endpoint:
        server = Endpoint(serve)
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    """Starts gateways."""
    started: list[Bench] = []
    broken: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))

    async def start(*endpoints: Endpoint | str, **options: Any) -> Bench:
        addresses = [server if isinstance(server, str) else server.address for server in endpoints]
        gateway = await start_bench(addresses, **options)
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        await gateway.stop()
        for chain in gateway.chains.opened:
            assert chain.finished == 1, "a chain was not finished exactly once"
        assert gateway.gateway.overload.streams == 0, "streams are not counted up and down alike"
    assert not broken, broken
