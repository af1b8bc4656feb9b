"""SIGTERM: streams end first, then the filters' roots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.integration.conftest import Service
from tests.integration.gateway import Gateway, filter_of

Guest = Callable[[str], Path]


@pytest.mark.parametrize(
    ("mode", "said", "least", "most"),
    [
        ("at once", ["done: at once", "delete"], 0.0, 1.9),
        ("later", ["done: later", "answered, proxy_done: 0, again: 1", "delete"], 0.0, 1.9),
        ("never", ["done: never", "delete"], 2.0, 4.5),
    ],
)
async def test_roots_are_told_and_may_end_their_work(
    guest: Guest, service: Service, mode: str, said: list[str], least: float, most: float
) -> None:
    """One that is not done has what is left of the grace; its calls are still made and answered."""
    filters = [filter_of(guest("done"), "done", mode, capabilities={"allowed_hosts": ["cluster:service"]})]
    async with Gateway(filters, {"service": service.port}, shutdown_grace="2s") as gateway:
        assert (await gateway.get())[0] == 200
        await gateway.until(lambda: gateway.said("done"))
        start = time.monotonic()
        assert await gateway.stop() == 0
        assert least <= time.monotonic() - start < most
    assert gateway.said("done") == ["log stream", *said]
    assert [request.path for request in service.requests] == (["/", "/goodbye"] if mode == "later" else ["/"])


async def test_streams_end_before_the_roots(guest: Guest, service: Service) -> None:
    async with Gateway([filter_of(guest("done"), "done", "at once")], {"service": service.port}, 2) as gateway:
        running = asyncio.create_task(gateway.get("/?delay=0.5"))
        while not service.requests:
            await asyncio.sleep(0.01)
        assert await gateway.stop() == 0
        assert (await running)[::2] == (200, "ok")
    said = gateway.said("done")
    assert sorted(said) == ["delete", "delete", "done: at once", "done: at once", "log stream"]
    # One worker had no stream and ended before; the other ended its root after its stream.
    assert said.index("log stream") < 3
    assert said[-1] == "delete"


async def test_a_root_that_fails_at_the_end_holds_nobody_up(guest: Guest, service: Service) -> None:
    """`later` may not call anybody here, and traps."""
    async with Gateway([filter_of(guest("done"), "done", "later")], {"service": service.port}) as gateway:
        start = time.monotonic()
        assert await gateway.stop() == 0
        assert time.monotonic() - start < 1.5
    assert gateway.said("done") == ["done: later"]
    (failure,) = gateway.events("filter_failed")
    assert (failure["callback"], failure["reason"]) == ("proxy_on_done", "trap")


async def test_a_stream_that_outlasts_the_grace_is_not_blamed_on_its_client(service: Service) -> None:
    log = {"format": "json"}
    async with Gateway([], {"service": service.port}, shutdown_grace="300ms", log=log) as gateway:
        running = asyncio.create_task(gateway.get("/?delay=30"))
        while not service.requests:
            await asyncio.sleep(0.01)
        assert await gateway.stop() == 0
        with pytest.raises(aiohttp.ClientError):
            await running
    [line] = gateway.events("request")
    assert (line["details"], line["flags"], line["status"]) == ("shutdown_grace_expired", "", 0)
