"""Ticks: their period, what they do to streams, and that they outlive a trap."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration.conftest import Service
from tests.integration.gateway import Gateway, filter_of

Guest = Callable[[str], Path]


def ticks(gateway: Gateway) -> list[tuple[int, float]]:
    """Number and time (seconds) of each tick that the filter logged."""
    found = (re.fullmatch(r"tick (\d+) at (\d+)", line) for line in gateway.said("tick", "tick "))
    return [(int(one[1]), int(one[2]) / 1e9) for one in found if one]


@pytest.mark.parametrize(("asked", "least", "period"), [("60", "10ms", 0.06), ("1", "40ms", 0.04)])
async def test_the_period_is_the_filters_unless_it_is_too_short(guest: Guest, asked: str, least: str, period: float) -> None:
    async with Gateway([filter_of(guest("tick"), "tick", asked, {"tick": least})]) as gateway:
        await gateway.until(lambda: len(ticks(gateway)) >= 8)
    found = ticks(gateway)
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert min(later - earlier for (_, earlier), (_, later) in pairwise(found)) >= period * 0.95
    assert (found[7][1] - found[0][1]) / 7 < 4 * period  # the machine may be busy


async def test_a_tick_resumes_streams_that_wait(guest: Guest, service: Service) -> None:
    async with Gateway([filter_of(guest("tick"), "tick", "150")], {"service": service.port}) as gateway:
        start = time.monotonic()
        status, _, body = await gateway.get("/")
        assert (status, body) == (200, "ok")
        answers = await asyncio.gather(*(gateway.get("/wait") for _ in range(20)))
        assert {(status, body) for status, _, body in answers} == {(200, "ok")}
        assert time.monotonic() - start < 5
        resumed = [request.headers.get("x-resumed") for request in service.requests]
        assert resumed == [None] + ["by-tick"] * 20
        await gateway.get("/stop")
        count = len(ticks(gateway))
        await asyncio.sleep(0.4)
        assert len(ticks(gateway)) <= count + 1  # one may have been under way


async def test_ticks_outlive_a_trap_without_any_stream(guest: Guest, service: Service) -> None:
    async with Gateway([filter_of(guest("tick"), "tick", "50")], {"service": service.port}) as gateway:
        await gateway.get("/trap")
        await gateway.until(lambda: gateway.events("filter_failed"))
        (failure,) = gateway.events("filter_failed")
        assert (failure["callback"], failure["reason"]) == ("proxy_on_tick", "trap")
        await gateway.until(lambda: len(gateway.said("tick", "started")) == 2)
        started = [line["message"] for line in gateway.events("filter_log")].count("started")
        before = len(ticks(gateway))
        await gateway.until(lambda: len(ticks(gateway)) >= before + 3)
        assert started == 2
        assert ticks(gateway)[-3][0] < before + 1, "a new VM counts from 1"
        assert (await gateway.get("/wait"))[0] == 200
