"""Both kinds in one chain, an instance for each request, and what instances share."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway import Gateway, filter_of
from tests.server.fakes import replies

Guest = Callable[[str, str], Path]
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nhost: a\r\nx-do: %b\r\n\r\n"


@pytest.fixture
def filter_(guest: Guest) -> Callable[..., dict[str, Any]]:
    return lambda name, kind, **settings: {"name": name, "wasm": str(guest("contract", kind)), **settings}


@pytest.mark.usefixtures("compiled_here")
@pytest.mark.parametrize("kinds", [("component", "proxy_wasm"), ("proxy_wasm", "component"), ("component", "component")])
async def test_both_kinds_in_any_order(bench: Any, endpoint: Any, filter_: Any, kinds: tuple[str, str]) -> None:
    """Each adds to what the one before left; the response goes the other way."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, filters=[filter_(f"f{i}", kind) for i, kind in enumerate(kinds)])
    client = await gateway.client()
    await client.send(GET % b"nothing")
    head, _ = await client.response()
    assert server.heads[-1].count(b"x-guest: yes\r\n") == 1, "the second sets what the first has set"
    assert head.count(b"x-seen: 200\r\n") == 2
    await client.send(b"POST / HTTP/1.1\r\nhost: a\r\nx-do: stream\r\ncontent-length: 3\r\n\r\nabc")
    _, body = await client.response()
    assert body == b"HELLO!!"


@pytest.mark.usefixtures("compiled_here")
async def test_a_fault_of_one_kind_leaves_the_other_alone(bench: Any, endpoint: Any, filter_: Any) -> None:
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, filters=[filter_("a", "component", on_failure="open"), filter_("b", "proxy_wasm")])
    client = await gateway.client()
    routes = gateway.gateway.generation.chains
    await client.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-do: nothing\r\n\r\n")
    await client.response()
    first = routes.plugins[0].instance
    first.dead = True  # as after a fault
    await client.send(GET % b"nothing")
    head, _ = await client.response()
    assert head.count(b"x-seen: 200\r\n") == 1


@pytest.mark.usefixtures("compiled_here")
async def test_an_instance_for_each_request(bench: Any, endpoint: Any, filter_: Any) -> None:
    """It is made at the stream's first callback and gone with it; a fault is one request's."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, filters=[filter_("f", "component", isolation="request")])
    client = await gateway.client()
    plugin = gateway.gateway.generation.chains.plugins[0]
    made: list[Any] = []
    build = plugin.slot.build
    plugin.slot.build = lambda root: made.append(build(root)) or made[-1]
    for do, status in ((b"nothing", b"200"), (b"trap", b"503"), (b"on-log", b"200"), (b"loop", b"503"), (b"nothing", b"200")):
        await client.send(GET % do)
        head, _ = await client.response()
        assert head[9:12] == status
    await asyncio.sleep(0)
    assert len(made) == 5
    assert all(instance.dead for instance in made)
    assert plugin.state() == {"state": "ready"}
    assert plugin.instruments.vm_rebuilds.value == 0


@pytest.mark.usefixtures("compiled_here")
async def test_isolation_keeps_requests_apart_that_are_open_together(bench: Any, endpoint: Any, filter_: Any) -> None:
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, filters=[filter_("f", "component", isolation="request")])
    held, other = await gateway.client(), await gateway.client()
    await held.send(b"POST / HTTP/1.1\r\nhost: a\r\nx-do: buffer\r\ncontent-length: 6\r\n\r\nabc")
    await asyncio.sleep(0.05)
    await other.send(GET % b"trap")
    assert (await other.response())[0].startswith(b"HTTP/1.1 503")
    await held.send(b"def")
    assert (await held.response())[0].startswith(b"HTTP/1.1 200")


def test_isolation_is_for_components(guest: Guest, compiled_here: None) -> None:
    from proxy.abi.proxy_wasm.load import LoadError, prepare
    from proxy.config.filter import Filter

    wasm = str(guest("contract", "proxy_wasm"))
    with pytest.raises(LoadError, match="a proxy-wasm module keeps one VM for all streams; leave isolation out"):
        prepare([Filter.model_validate({"name": "f", "wasm": wasm, "isolation": "request"})])


async def test_what_is_shared_is_shared_by_both_kinds_and_all_workers(guest: Guest, service: Any) -> None:
    """Compare-and-set by two kinds in two workers at once: no count is lost. Another vm_id has its own."""
    filters = [
        filter_of(guest("contract", "component"), "a", vm_id="shared"),
        filter_of(guest("contract", "proxy_wasm"), "b", vm_id="shared"),
    ]
    async with Gateway(filters, {"service": service.port}, workers=2) as gateway:
        for _ in range(4):
            assert (await gateway.get("/", x_do="count"))[0] == 200
        counts = [request.headers.getall("x-count") for request in service.requests]
        assert counts == [["1", "2"], ["3", "4"], ["5", "6"], ["7", "8"]]


async def test_logs_carry_the_filter_and_the_request(guest: Guest, service: Any) -> None:
    filters = [filter_of(guest("contract", "component"), "f", limits={"log_lines": 5})]
    async with Gateway(filters, {"service": service.port}) as gateway:
        await gateway.get("/", x_do="log")
        await gateway.get("/", x_do="on-log")
        await gateway.until(lambda: len(gateway.said("f")) == 2)
        assert gateway.said("f") == ["said by the guest", "status 200"]
        line = next(line for line in gateway.lines if line.get("event") == "filter_log")
        assert (line["filter"], line["callback"], line["level"]) == ("f", "on-request-headers", "warning")
        assert line["request_id"]
