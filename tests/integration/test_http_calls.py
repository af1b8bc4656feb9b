"""A filter that asks another service about each request (proxy_http_call), and what may come of that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.integration.conftest import Service
from tests.integration.gateway import Gateway, filter_of

Guest = Callable[[str], Path]


@pytest.fixture
async def gateway(guest: Guest, service: Service) -> AsyncIterator[Gateway]:
    """With a cluster that answers, one where nobody listens, and one that the filter may not call."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refuses connections
        clusters = {"service": service.port, "auth": service.port, "dead": unused.getsockname()[1], "secret": service.port}
        capabilities = {"allowed_hosts": ["cluster:auth", "cluster:dead"]}
        filters = [filter_of(guest("auth"), "auth", limits={"calls": 200}, capabilities=capabilities)]
        async with Gateway(filters, clusters) as running:
            yield running


def calls(service: Service) -> list[str]:
    """Paths asked for by the filter."""
    return [request.path for request in service.requests if request.host == "auth"]


async def test_the_answer_decides(gateway: Gateway, service: Service) -> None:
    """200 lets the request pass with what the answer said; anything else is the client's 403."""
    assert (await gateway.get("/page", x_call="auth", x_ask="/ask?user=ada"))[::2] == (200, "ok")
    ask, page = service.requests
    assert (ask.path, ask.host, page.path, page.headers["x-user"]) == ("/ask", "auth", "/page", "ada")
    service.requests.clear()
    status, headers, body = await gateway.get("/page", x_call="auth", x_ask="/ask?status=401")
    assert (status, body, headers["content-type"]) == (403, "401", "text/plain")
    assert len(service.requests) == 1, "a denied request went upstream"


@pytest.mark.parametrize(
    ("call", "ask", "timeout", "body"),
    [
        ("auth", "/ask?delay=5", "100", "504"),  # too late
        ("dead", "/ask", "2000", "503"),  # no connection
        ("auth", "/ask?cut=1", "2000", "reset"),  # half an answer
        ("nowhere.test", "/ask", "2000", "refused 2"),
    ],
)
async def test_what_went_wrong_is_told(gateway: Gateway, call: str, ask: str, timeout: str, body: str) -> None:
    start = time.monotonic()
    assert (await gateway.get(x_call=call, x_ask=ask, x_timeout=timeout))[::2] == (403, body)
    assert time.monotonic() - start < 2
    if body == "reset":
        await gateway.until(lambda: gateway.said("auth"))
        assert gateway.said("auth") == ["reset: 11 reset"]


async def test_a_call_that_is_not_allowed_logs_what_to_write(gateway: Gateway, service: Service) -> None:
    assert (await gateway.get(x_call="secret", x_ask="/ask"))[::2] == (403, "refused 2")
    await gateway.until(lambda: gateway.events("callout denied"))
    (denied,) = gateway.events("callout denied")
    assert denied["to_allow"] == 'capabilities: {allowed_hosts: ["cluster:secret"]}'
    assert service.requests == []


async def test_an_answer_for_a_stream_that_is_gone_does_no_harm(gateway: Gateway) -> None:
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(0.15):
            await gateway.get(x_call="auth", x_ask="/ask?delay=0.4")
    await gateway.until(lambda: gateway.said("auth"))
    assert gateway.said("auth") == ["answer 200 for a stream that is gone: 2"]
    assert (await gateway.get(x_call="auth", x_ask="/ask"))[0] == 200
    assert gateway.events("filter_failed") == []


async def test_a_hundred_streams_get_each_its_own_answer(gateway: Gateway, service: Service) -> None:
    """Answers come in another order than the calls were made."""

    async def one(number: int) -> int:
        ask = f"/ask?user={number}&delay={(number * 37 % 100) / 500}"
        return (await gateway.get(f"/{number}", x_call="auth", x_ask=ask))[0]

    assert set(await asyncio.gather(*map(one, range(100)))) == {200}
    users = {request.path: request.headers["x-user"] for request in service.requests if request.host != "auth"}
    assert users == {f"/{number}": str(number) for number in range(100)}


async def test_a_call_under_way_at_sigterm_is_answered(gateway: Gateway, service: Service) -> None:
    running = asyncio.create_task(gateway.get("/page", x_call="auth", x_ask="/ask?delay=0.5&user=ada"))
    while not calls(service):
        await asyncio.sleep(0.01)
    assert await gateway.stop() == 0
    assert (await running)[::2] == (200, "ok")
    assert service.requests[1].headers["x-user"] == "ada"


async def test_a_call_that_outlasts_the_grace_holds_nobody_up(guest: Guest, service: Service) -> None:
    filters = [filter_of(guest("auth"), "auth", capabilities={"allowed_hosts": ["cluster:service"]})]
    async with Gateway(filters, {"service": service.port}, shutdown_grace="500ms") as gateway:
        running = asyncio.create_task(gateway.get("/page", x_call="service", x_ask="/ask?delay=10", x_timeout="9000"))
        while not calls(service):
            await asyncio.sleep(0.01)
        start = time.monotonic()
        assert await gateway.stop() == 0
        assert time.monotonic() - start < 2.5
        with pytest.raises(aiohttp.ClientError):
            await running
        assert [line["level"] for line in gateway.lines if line["level"] in ("error", "critical")] == []


@pytest.mark.parametrize(("on_failure", "status"), [("closed", 503), ("open", 200)])
async def test_streams_that_wait_for_a_vm_that_traps_are_answered_at_once(
    guest: Guest, service: Service, on_failure: str, status: int
) -> None:
    """In Envoy they hang until their clients leave."""
    capabilities = {"allowed_hosts": ["cluster:service"]}
    filters = [filter_of(guest("auth"), "auth", on_failure=on_failure, capabilities=capabilities)]
    async with Gateway(filters, {"service": service.port}) as gateway:
        waiting = [asyncio.create_task(gateway.get(f"/{i}", x_call="service", x_ask="/ask?delay=5")) for i in range(5)]
        while len(calls(service)) < 5:
            await asyncio.sleep(0.01)
        start = time.monotonic()
        trapped = await gateway.get("/trap", x_call="service", x_ask="/ask", x_trap="1")
        answers = await asyncio.gather(*waiting)
        assert time.monotonic() - start < 1.5
        assert [answer[0] for answer in (trapped, *answers)] == [status] * 6
        # The VM is there again for the next one, and the old VM's calls trouble nobody.
        assert (await gateway.get("/next", x_call="service", x_ask="/ask"))[0] == 200
        assert len(gateway.events("filter_failed")) == 1
