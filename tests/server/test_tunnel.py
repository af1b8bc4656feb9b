"""WebSocket upgrades: tunnelled after the endpoint's 101, and only then."""

import asyncio
from typing import Any

import pytest

from tests.server.fakes import Client, Peer, replies

BOTH_LOOPS = True
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


async def echo(peer: Peer) -> None:
    await peer.head()
    await peer.send(SWITCH)
    while data := await peer.reader.read(65536):
        await peer.send(data)


async def upgraded(gateway: Any) -> Client:
    client: Client = await gateway.client()
    await client.send(UPGRADE)
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"connection: upgrade\r\n" in head
    assert b"upgrade: websocket\r\n" in head
    assert b"sec-websocket-accept: x\r\n" in head
    return client


async def test_echo(bench: Any, endpoint: Any) -> None:
    """Bytes pass as they are, both ways; the head that goes up is upgrade-shaped."""
    server = await endpoint(echo)
    gateway = await bench(server)
    client = await upgraded(gateway)
    for data in (b"\x81\x05hello", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 1000):
        await client.send(data)
        assert await client.read(len(data)) == data
    head = server.heads[0].lower()
    assert b"connection: upgrade\r\n" in head
    assert b"upgrade: websocket\r\n" in head
    assert b"sec-websocket-key: " in head
    assert b"keep-alive" not in head
    assert gateway.chains.opened[0].events == ["request_headers", "response_headers"]
    client.writer.write_eof()
    assert await client.rest() == b""
    info = await gateway.finished()
    assert (info.status, info.details) == (101, "via_upstream")
    assert info.bytes_received == info.bytes_sent == 7 + 18 + 256000


async def test_early_bytes_wait_for_the_101(bench: Any, endpoint: Any) -> None:
    """What the client sends behind the request reaches the endpoint after its 101, not before (CVE-2026-2833)."""
    before = b""

    async def serve(peer: Peer) -> None:
        nonlocal before
        await peer.head()
        await asyncio.sleep(0.1)
        before = bytes(peer.reader._buffer)  # type: ignore[attr-defined]
        await peer.send(SWITCH + b"first")
        await peer.send(await peer.reader.readexactly(10))

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    await client.send(UPGRADE + b"early")
    await asyncio.sleep(0.02)
    await client.send(b"later")
    await client.head()
    assert await client.read(15) == b"firstearlylater"
    assert before == b""


@pytest.mark.parametrize("behind", [b"", b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_declined_upgrade(bench: Any, endpoint: Any, behind: bytes) -> None:
    """Anything but 101 is an ordinary response; what the client sent early goes nowhere, its connection closes."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(server)
    client = await gateway.client()
    await client.send(UPGRADE + behind)
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"connection: close\r\n\r\nhello")
    assert len(server.heads) == 1


async def test_upgrade_refused_by_a_filter(bench: Any, endpoint: Any) -> None:
    """A local reply instead of the upgrade, at either phase."""
    for phase in ("request_headers", "response_headers"):
        server = await endpoint(echo)
        gateway = await bench(server, script={phase: lambda chain, end: chain.local_reply(403, b"no", "denied")})
        client = await gateway.client()
        await client.send(UPGRADE + b"early")
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b"no")


async def test_other_upgrades_are_ordinary_requests(bench: Any, endpoint: Any) -> None:
    """h2c, or WebSocket by POST: the upgrade is not offered to the endpoint."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(server)
    for request in (
        UPGRADE.replace(b"websocket", b"h2c"),
        UPGRADE.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\nab"),
    ):
        head, body = await gateway.ask(request)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b"hello"
        assert b"upgrade" not in server.heads[-1].lower()


@pytest.mark.parametrize("by", ["client", "endpoint"])
async def test_half_close(bench: Any, endpoint: Any, by: str) -> None:
    """One side's end passes on; the other side may go on speaking."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        if by == "client":
            assert await peer.reader.read() == b"question"
            await peer.send(b"answer")
        else:
            peer.writer.write_eof()
            assert await peer.reader.read() == b"question"
            peer.closed.set()

    server = await endpoint(serve)
    gateway = await bench(server)
    client = await upgraded(gateway)
    if by == "client":
        await client.send(b"question")
        client.writer.write_eof()
        assert await client.rest() == b"answer"
    else:
        assert await client.rest() == b""
        await client.send(b"question")
        client.writer.write_eof()
        await asyncio.wait_for(server.peers[0].closed.wait(), 1)
    assert (await gateway.finished()).status == 101


@pytest.mark.parametrize("by", ["client", "endpoint"])
async def test_abrupt_end(bench: Any, endpoint: Any, by: str) -> None:
    """One side lost: the other closes."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        if by == "endpoint":
            await asyncio.sleep(0.05)
            peer.reset()
        else:
            await peer.reader.read()
            peer.closed.set()

    server = await endpoint(serve)
    gateway = await bench(server)
    client = await upgraded(gateway)
    if by == "client":
        client.close()
        await asyncio.wait_for(server.peers[0].closed.wait(), 1)
    else:
        assert await client.rest() == b""
    await gateway.finished()
    await asyncio.wait_for(gateway.gateway.listeners[0].wait_empty(), 1)


async def test_idle_tunnel_ends(bench: Any, endpoint: Any) -> None:
    """The route's idle timeout, restarted by every byte; its timeout does not hold for tunnels."""
    gateway = await bench(await endpoint(echo), route={"timeout": "300ms", "idle_timeout": "300ms"})
    client = await upgraded(gateway)
    for _ in range(5):
        await client.send(b"x")
        await client.read(1)
        await asyncio.sleep(0.15)
    assert await client.rest() == b""


async def test_tunnel_back_pressure(bench: Any, endpoint: Any) -> None:
    """A side that does not read stops the other; nothing piles up in between."""
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.send(SWITCH)
        for _ in range(1000):
            await peer.send(b"x" * 65536)
            sent += 65536

    gateway = await bench(await endpoint(serve))
    client = await upgraded(gateway)
    client.reader._limit = 1024  # type: ignore[attr-defined]
    for _ in range(50):
        before = sent
        await asyncio.sleep(0.1)
        if sent == before:
            break
    assert sent < 30_000_000
    client.reader._limit = 1 << 20  # type: ignore[attr-defined]
    got = 0
    while got < 65_536_000:
        got += len(await asyncio.wait_for(client.reader.read(1 << 20), 5))
    assert got == 65_536_000
