"""Generations in one process: what a reload leaves behind, and what it must not."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.abi.proxy_wasm import load
from proxy.chain.chains import FilterStartError
from proxy.config.model import Config
from proxy.server import assembly
from proxy.server.gateway import MOST_RETIRED, Gateway
from proxy.server.overload import resident_bytes
from proxy.server.staging import tidy
from proxy.telemetry.telemetry import Telemetry
from tests.abi.component.conftest import compiled as components_compiled
from tests.server.fakes import Client

ROOT = Path(__file__).parents[2]
GENERATIONS = int(os.environ.get("PENSTOCK_GENERATIONS", "40"))
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@pytest.fixture
def compiled_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "load_or_compile", components_compiled)


def rewrite(value: str, name: str = "rewrite") -> dict[str, Any]:
    wasm = str(ROOT / "filters/header-rewrite/header-rewrite.wasm")
    return {"name": name, "wasm": wasm, "config": {"response": {"set": {"x-generation": value}}}}


def config_of(port: int, filters: Sequence[dict[str, Any]], **sections: Any) -> Config:
    config = Config.model_validate(
        {
            "listeners": [{"address": "127.0.0.1:0"}],
            "clusters": [{"name": "service", "endpoints": [f"127.0.0.1:{port}"]}],
            "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
            "filters": list(filters),
            **sections,
        }
    )
    assert not assembly.prepare_filters(config)
    return config


async def started(config: Config) -> tuple[Gateway, int]:
    gateway = assembly.make_gateway(config, Telemetry(access=False), 0)
    gateway.on_closed = tidy
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    await gateway.start([sock])
    return gateway, sock.getsockname()[1]


async def reload(gateway: Gateway, config: Config) -> None:
    assert gateway.joint is not None
    prepared = assembly.prepared.pop(id(config))
    generation = await gateway.stage(config, gateway.joint.chains(config, prepared, True), gateway.generation.number + 1)
    gateway.swap(generation)


async def retired_are_gone(gateway: Gateway) -> None:
    async with asyncio.timeout(10):
        while gateway.retired:
            await asyncio.sleep(0.001)


def vms(gateway: Gateway) -> float:
    gateway.telemetry.registry.snapshot()
    return gateway.telemetry.instruments.vms.child(()).value


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HELLO)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def test_nothing_grows(compiled_here: None) -> None:
    """VMs, memory, descriptors, mappings, objects and metrics over many generations, with a connection that is used in each."""
    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]

    def config(number: int) -> Config:
        chain = [rewrite(str(number)), {**rewrite("", f"other-{number % 7}"), "config": {"request": {"remove": ["x"]}}}]
        return config_of(upstream, chain)

    gateway, port = await started(config(0))
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    seen = []
    for number in range(1, GENERATIONS + 1):
        await reload(gateway, config(number))
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        head, body = await client.response()
        assert b"x-generation: %d\r\n" % number in head
        assert body == b"hello"
        await retired_are_gone(gateway)
        if number % 10 == 0:
            maps = len(Path("/proc/self/maps").read_bytes().splitlines())
            families = gateway.telemetry.registry.families.values()
            series = sum(len(family.children) for family in families)
            files = len(os.listdir("/proc/self/fd"))
            objects = len(gc.get_objects()) + gc.get_freeze_count()
            seen.append((vms(gateway), files, series, len(gateway.deadlines.queues), maps, objects, resident_bytes() >> 20))
    first, last = seen[1], seen[-1]
    print(f"{GENERATIONS} generations; VMs, files, series, queues, mappings, objects, MiB: {first} -> {last}")
    assert first[:4] == last[:4]
    assert last[0] == 2
    assert last[4] < first[4] + 40
    assert last[5] < first[5] + 2000
    assert last[6] < first[6] + 20
    calls = gateway.telemetry.instruments.filter_calls.child(("rewrite", "proxy_on_response_headers")).value
    assert calls == GENERATIONS, "the counts of one filter go on"
    client.close()
    await gateway.drain(1)
    server.close()


async def test_a_generation_that_does_not_start_leaves_nothing(compiled_here: None) -> None:
    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    gateway, port = await started(config_of(upstream, [rewrite("one")]))
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        wrong = config_of(upstream, [rewrite("two"), {**rewrite("", "wrong"), "config": {"nonsense": 1}}])
        with pytest.raises(FilterStartError, match="filter wrong did not start"):
            await reload(gateway, wrong)
    assert (vms(gateway), len(os.listdir("/proc/self/fd")), gateway.generation.number) == (1, files, 1)
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"x-generation: one\r\n" in (await client.response())[0]
    client.close()
    await gateway.drain(1)
    server.close()


async def test_streams_that_outlast_many_generations(compiled_here: None) -> None:
    """Each holds a generation's VMs; of the oldest these are closed, and its stream ends as on_failure says."""
    answer = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer.wait()
        writer.write(HELLO)

    server = await asyncio.start_server(waits, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    gateway, port = await started(config_of(upstream, [rewrite("0")]))
    clients = []
    for number in range(1, MOST_RETIRED + 4):
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        clients.append(client)
        async with asyncio.timeout(5):
            while gateway.overload.streams < number:
                await asyncio.sleep(0.001)
        await reload(gateway, config_of(upstream, [rewrite(str(number))]))
    assert vms(gateway) == MOST_RETIRED + 1
    assert [one.streams for one in gateway.retired] == [1] * (MOST_RETIRED + 3)
    answer.set()
    heads = [(await client.response())[0] for client in clients]
    assert [head.split(b" ")[1] for head in heads] == [b"503"] * 3 + [b"200"] * MOST_RETIRED
    assert [b"x-generation: %d\r\n" % number in head for number, head in enumerate(heads)][3:] == [True] * MOST_RETIRED
    await retired_are_gone(gateway)
    assert (vms(gateway), gateway.overload.streams) == (1, 0)
    for client in clients:
        client.close()
    await gateway.drain(1)
    server.close()


async def test_listeners_and_clusters_follow_the_config(compiled_here: None) -> None:
    """Timeouts, limits and head options of a listener; a cluster that stays keeps its connections, and one that goes closes."""
    accepted = []

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await hello(reader, writer)

    server = await asyncio.start_server(counted, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    gateway, port = await started(config_of(upstream, []))
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    ask = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    await client.send(ask)
    assert b"via: 1.1 penstock\r\n" in (await client.response())[0]
    listener = {"address": "127.0.0.1:0", "via": "a-longer-name", "keepalive_timeout": "2500ms", "limits": {"body": 1}}
    await reload(gateway, config_of(upstream, [], listeners=[listener]))
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"via: 1.1 a-longer-name\r\n" in (await client.response())[0]
    assert len(accepted) == 1, "the connection to the service has not been kept"
    other = {"name": "service", "endpoints": [f"127.0.0.1:{upstream}"], "idle_timeout": "7s"}
    await reload(gateway, config_of(upstream, [], listeners=[listener], clusters=[other]))
    await retired_are_gone(gateway)
    await client.send(ask)
    assert (await client.response())[0].startswith(b"HTTP/1.1 413 ")
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.response())[0].startswith(b"HTTP/1.1 200 ")
    assert len(accepted) == 2
    async with asyncio.timeout(15):
        assert await client.reader.read() == b"", "an idle connection outlives its new timeout"
    await gateway.drain(1)
    server.close()


async def test_a_stream_that_a_filter_holds_goes_on_with_its_own_chain(compiled_here: None) -> None:
    """ext-auth has asked a service and waits; meanwhile two reloads. The answer reaches the old VM, and the stream goes on
    there, although the cluster is configured no more."""
    answer = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    judge = await asyncio.start_server(waits, "127.0.0.1", 0)
    clusters = [
        {"name": "service", "endpoints": [f"127.0.0.1:{upstream}"]},
        {"name": "auth", "endpoints": [f"127.0.0.1:{judge.sockets[0].getsockname()[1]}"]},
    ]
    asks = {
        "name": "ext-auth",
        "wasm": str(ROOT / "filters/ext-auth/ext-auth.wasm"),
        "config": {"cluster": "auth", "path": "/check"},
        "capabilities": {"allowed_hosts": ["cluster:auth"]},
    }
    gateway, port = await started(config_of(upstream, [asks, rewrite("old")], clusters=clusters))
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(5):
        while not gateway.overload.streams:
            await asyncio.sleep(0.001)
    for value in ("between", "new"):
        await reload(gateway, config_of(upstream, [rewrite(value)]))
    assert (vms(gateway), [one.streams for one in gateway.retired]) in ((3, [1]), (4, [1, 0]))
    answer.set()
    head, body = await client.response()
    assert b"x-generation: old\r\n" in head
    assert body == b"hello"
    await retired_are_gone(gateway)
    assert vms(gateway) == 1
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"x-generation: new\r\n" in (await client.response())[0]
    names = {key[0] for key in gateway.telemetry.instruments.filter_calls.children}
    assert names == {"rewrite"}, "metrics of what is gone"
    client.close()
    await gateway.drain(1)
    server.close()
    judge.close()
