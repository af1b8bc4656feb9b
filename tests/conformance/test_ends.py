"""Edge case 42: what roots are told when the process ends, on both sides. Envoy is sent SIGTERM and its log read afterwards."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.case import PROBE
from tests.conformance.client import fetch, request
from tests.conformance.envoy import Envoy, EnvoyFilter
from tests.conformance.penstock import Penstock
from tests.conformance.upstream import Upstream

SHOW = "prop plugin_name; get 0 :path; buf 7 0 9; proxy_done"
CASES = {
    "told in turn": "rootdone: say 2 done\nrootdelete: say 2 delete",
    "what can be asked": f"rootdone: {SHOW}\nrootdelete: prop plugin_name; shget none",
    "a trap": "rootdone: trap\nrootdelete: say 2 delete",
}


def roots_lines(messages: list[str]) -> list[str]:
    """What came after the stream."""
    last = max(index for index, message in enumerate(messages) if " delete c=" in message)
    return messages[last + 1 :]


async def on_envoy(filters: list[EnvoyFilter]) -> list[str]:
    async with Upstream() as upstream:
        envoy = Envoy(filters, {"service": upstream.port})
        await asyncio.to_thread(envoy.start)
        try:
            assert envoy.process is not None
            main = envoy.process.pid
            await fetch(envoy.port, request("GET", "/"))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(envoy.stop)
            return roots_lines([line.message for line in envoy.log_lines() if line.thread != main])
        finally:
            await asyncio.to_thread(envoy.close)


async def on_penstock(filters: list[EnvoyFilter]) -> list[str]:
    async with Upstream() as upstream:
        async with Penstock(filters, {"service": upstream.port}) as side:
            await fetch(side.port, request("GET", "/"))
            await asyncio.sleep(0.1)
        return roots_lines([line.message for line in side.lines])


def probe(script: str) -> list[EnvoyFilter]:
    return [EnvoyFilter(PROBE, f"name A\n{script}\n".encode(), name="A")]


@pytest.mark.envoy
@pytest.mark.parametrize("name", CASES)
async def test_roots_are_told_of_the_end(name: str) -> None:
    chain = probe(CASES[name])
    theirs, ours = await on_envoy(chain), await on_penstock(chain)
    assert ours == theirs
    assert theirs


@pytest.mark.envoy
async def test_only_penstock_waits_for_a_root_that_has_work_left() -> None:
    """Waiver `parked-root`: Envoy leaves at once, Penstock gives the root its grace."""
    chain = probe("rootdone: ret 0; period 20\ntick: proxy_done; proxy_done\nrootdelete: say 2 delete")
    theirs, ours = await on_envoy(chain), await on_penstock(chain)
    assert theirs == ["A   period 20 = 0"]
    assert ours == [*theirs, "A   proxy_done  = 0", "A   proxy_done  = 1", "delete", "A   say 2 delete = 0"]
