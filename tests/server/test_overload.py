"""Too many connections, streams, requests that wait, or too little memory: 503 with `connection: close`, counted, and over."""

import asyncio
import resource
from typing import Any

import pytest

from proxy.config.cluster import Cluster
from proxy.config.listener import Listener
from proxy.server import connection as connections
from proxy.server.overload import RESUME_SHARE, connections_each, resident_bytes, take_files
from tests.server.fakes import Bench, Client, Peer, replies

BOTH_LOOPS = True
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def rejected(gateway: Bench) -> dict[str, float]:
    family = gateway.gateway.telemetry.instruments.rejected_requests
    return {reason: child.value for (_, reason), child in family.children.items()}


def shed(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 503 ") and b"connection: close\r\n" in answer


async def waits(peer: Peer) -> None:
    """Answers each request after 300 ms."""
    while True:
        await peer.head()
        await asyncio.sleep(0.3)
        await peer.send(HELLO)


async def ask(client: Client) -> tuple[bytes, bytes]:
    await client.send(GET)
    return await client.response()


async def test_connections(bench: Any, endpoint: Any) -> None:
    gateway = await bench(await endpoint(replies(HELLO, HELLO)), listener={"max_connections": 2})
    one, two = await gateway.client(), await gateway.client()
    assert [(await ask(client))[1] for client in (one, two)] == [b"hello"] * 2
    third = await gateway.client()
    await third.send(GET)
    assert shed(await third.rest())
    assert rejected(gateway) == {"max_connections": 1}
    # The others are as before, and a place that is given up is somebody else's.
    assert (await ask(one))[1] == b"hello"
    two.close()
    third.close()
    async with asyncio.timeout(5):
        while gateway.gateway.listeners[0].open > 1:
            await asyncio.sleep(0.01)
    fourth = await gateway.client()
    assert (await ask(fourth))[1] == b"hello"


async def test_connections_that_only_wait_to_be_told(bench: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer holds its connection for a moment: not for any number of them."""
    monkeypatch.setattr(connections, "TURNED_AWAY", 3)
    gateway = await bench(await endpoint(replies(HELLO)), listener={"max_connections": 1})
    first = await gateway.client()
    assert (await ask(first))[1] == b"hello"
    rest = [await gateway.client() for _ in range(20)]
    async with asyncio.timeout(5):
        while rejected(gateway).get("max_connections", 0) < 20:
            await asyncio.sleep(0.01)
    assert gateway.gateway.listeners[0].open <= 4
    answers = await asyncio.gather(*(client.rest() for client in rest), return_exceptions=True)
    assert sum(isinstance(answer, bytes) and shed(answer) for answer in answers) == 3


async def test_streams(bench: Any, endpoint: Any) -> None:
    gateway = await bench(await endpoint(waits), overload={"streams": 2})
    clients = [await gateway.client() for _ in range(3)]
    running = [asyncio.create_task(ask(client)) for client in clients[:2]]
    while gateway.gateway.overload.streams < 2:
        await asyncio.sleep(0.01)
    await clients[2].send(GET)
    assert shed(await clients[2].rest())
    assert [(await one)[1] for one in running] == [b"hello"] * 2
    assert rejected(gateway) == {"max_streams": 1}
    assert (await ask(clients[0]))[1] == b"hello"


async def test_a_client_that_leaves_gives_its_place_back(bench: Any, endpoint: Any) -> None:
    gateway = await bench(await endpoint(waits), overload={"streams": 1})
    for _ in range(3):
        client = await gateway.client()
        await client.send(GET)
        while not gateway.gateway.overload.streams:
            await asyncio.sleep(0.01)
        client.close()
        async with asyncio.timeout(5):
            while gateway.gateway.overload.streams:
                await asyncio.sleep(0.01)
    assert (await ask(await gateway.client()))[1] == b"hello"
    assert rejected(gateway) == {}


async def test_memory(bench: Any, endpoint: Any) -> None:
    """A cap below what the process has, then one above it."""
    gateway = await bench(await endpoint(replies(HELLO, HELLO)), overload={"memory": "64KiB"})
    client = await gateway.client()
    await client.send(GET)
    assert shed(await client.rest())
    assert rejected(gateway) == {"memory": 1}
    overload = gateway.gateway.overload
    overload.look(int(resident_bytes() / (RESUME_SHARE + 0.03)))  # between the two marks: still too much
    client = await gateway.client()
    await client.send(GET)
    assert shed(await client.rest())
    overload.look(10 * resident_bytes())
    client = await gateway.client()
    assert (await ask(client))[1] == b"hello"
    overload.look(int(resident_bytes() / 0.5))
    assert (await ask(client))[1] == b"hello"
    assert rejected(gateway) == {"memory": 2}


async def test_memory_is_watched(bench: Any, endpoint: Any) -> None:
    gateway = await bench(await endpoint(replies(HELLO)), overload={"memory": "1024GiB"})
    assert (await ask(await gateway.client()))[1] == b"hello"
    gateway.gateway.overload.memory = 1
    async with asyncio.timeout(5):
        while gateway.gateway.overload.limit:
            await asyncio.sleep(0.05)


async def test_requests_that_wait_for_a_connection(bench: Any, endpoint: Any) -> None:
    """One is served, one waits, a third is too many: its connection closes, its stream is logged with UO."""
    gateway = await bench(await endpoint(waits), cluster={"max_connections": 1, "max_pending": 1})
    clients = [await gateway.client() for _ in range(3)]
    running = []
    for client in clients[:2]:
        running.append(asyncio.create_task(ask(client)))
        await asyncio.sleep(0.05)
    await clients[2].send(GET)
    answer = await clients[2].rest()
    assert shed(answer)
    assert answer.endswith(b"reset reason: overflow")
    assert [(await one)[1] for one in running] == [b"hello"] * 2
    finished = next(info for info in gateway.telemetry.finished if info.status == 503)
    assert (finished.flags, finished.details) == ("UO", "upstream_reset_before_response_started{overflow}")
    failures = gateway.gateway.telemetry.instruments.upstream_failures
    assert {reason: child.value for (_, reason), child in failures.children.items()} == {"overflow": 1}


async def test_what_is_in_flight_is_shown(bench: Any, endpoint: Any) -> None:
    gateway = await bench(await endpoint(waits))
    running = asyncio.create_task(ask(await gateway.client()))
    while not gateway.gateway.overload.streams:
        await asyncio.sleep(0.01)
    registry = gateway.gateway.telemetry.registry
    values = {family["name"]: family["series"] for family in registry.snapshot()["families"]}
    assert values["penstock_streams"] == [[[], 1]]
    assert 0.5 < values["penstock_worker_memory_bytes"][0][1] / resident_bytes() < 2
    assert values["penstock_tasks"][0][1] > 1
    await running


def listener(most: int) -> Listener:
    return Listener.model_validate({"address": "127.0.0.1:0", "max_connections": most})


def cluster(most: int) -> Cluster:
    return Cluster.model_validate({"name": "c", "endpoints": ["127.0.0.1:1"], "max_connections": most})


@pytest.mark.parametrize(
    ("files", "wanted", "upstream", "admitted"),
    [
        (20_000, [10_000], 1024, [10_000]),
        (1024, [10_000], 1024, [384]),
        (1024, [300, 100], 100, [300, 100]),
        (1024, [3000, 1000], 168, [450, 150]),
        (64, [10_000], 1024, [24]),
    ],
)
def test_connections_are_files(files: int, wanted: list[int], upstream: int, admitted: list[int]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
    try:
        assert connections_each([listener(most) for most in wanted], [cluster(upstream)]) == admitted
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_files_as_the_process_may_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        take_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
