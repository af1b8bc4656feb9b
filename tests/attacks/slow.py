"""Slow clients against a gateway process: thousands that send nothing or next to nothing, and some that do not read."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.client import Client
from tests.attacks.origin import Origin
from tests.integration.gateway import Gateway

SILENT, TRICKLING, SILENT_BODY, TRICKLED_BODY, IDLE = KINDS = (
    "silent", "trickled head", "silent body", "trickled body", "idle after a response",
)  # fmt: skip
HEAD = b"GET /slow HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200
BODY = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\nhello"
GET = b"GET /once HTTP/1.1\r\nHost: a\r\n\r\n"
CANARY = b"GET /canary HTTP/1.1\r\nHost: canary\r\n\r\n"
TIMEOUT = 2.0
"""Seconds: head_timeout, body_timeout and keepalive_timeout of the gateway under test."""
LARGE = 64 << 20
"""Bytes of the body that slow readers do not read."""


@dataclass
class Figures:
    """What a run measured."""

    clients: int
    closed: Counter[str]
    """Kind of client -> how many the gateway closed."""
    last_closed: float
    """Seconds from the last connection's start until all were closed."""
    innocent: int
    """Requests of the innocent client meanwhile, all answered."""
    longest: float
    """Seconds that the slowest of them took."""
    idle_bytes: float
    """Resident memory of the gateway's processes for each slow client."""


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit. Raises OSError or ValueError where the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def resident(pid: int) -> int:
    """Bytes of RAM of a process and its descendants that are not shared with others (PSS)."""
    size = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            size = int(line.split()[1]) * 1024
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return size + sum(resident(int(child)) for child in children)


async def slow_clients(count: int) -> Figures:
    """`count` clients of five kinds at once, until the gateway has closed them all."""
    allow_descriptors(2 * count + 1000)
    timeout = f"{TIMEOUT:.0f}s"
    listener = {"address": "127.0.0.1:0", "head_timeout": timeout, "body_timeout": timeout, "keepalive_timeout": timeout}
    origin = Origin()
    await origin.start()
    async with Gateway([], {"service": port_of(origin)}, listeners=[listener]) as gateway:
        stop = asyncio.Event()
        watcher = asyncio.create_task(innocent(gateway.port, stop))
        await asyncio.sleep(0.2)
        before = resident(gateway.process.pid)
        clients = [Client(gateway.port) for _ in range(count)]
        kinds = [KINDS[number % len(KINDS)] for number in range(count)]
        for client, kind in zip(clients, kinds, strict=True):
            await client.__aenter__()
            await client.send({SILENT: b"", TRICKLING: HEAD, SILENT_BODY: BODY, TRICKLED_BODY: BODY, IDLE: GET}[kind])
        started = time.monotonic()
        await asyncio.sleep(0.1)
        idle_bytes = (resident(gateway.process.pid) - before) / count
        closed: Counter[str] = Counter()
        endings = [asyncio.create_task(until_closed(client, kind, closed)) for client, kind in zip(clients, kinds, strict=True)]
        await asyncio.gather(*endings)
        last_closed = time.monotonic() - started
        stop.set()
        requests, longest = await watcher
        for client in clients:
            await client.__aexit__()
    await origin.stop()
    return Figures(count, closed, last_closed, requests, longest, idle_bytes)


async def until_closed(client: Client, kind: str, closed: Counter[str]) -> None:
    """Trickle where the kind does; count it when the gateway has closed."""
    end = time.monotonic() + 20 * TIMEOUT
    while time.monotonic() < end:
        try:
            if not await client.more(0.3):
                closed[kind] += 1
                return
        except TimeoutError:
            if kind in (TRICKLING, TRICKLED_BODY):
                await client.send(b"z")


async def innocent(port: int, stop: asyncio.Event) -> tuple[int, float]:
    """How many requests got their answer, and the longest wait. Raises AssertionError for a wrong one."""
    count, longest = 0, 0.0
    while not stop.is_set():
        async with Client(port) as client:
            begun = time.monotonic()
            await client.send(CANARY)
            found, _ = await client.answers([b"GET"])
            longest = max(longest, time.monotonic() - begun)
            assert [message.body for message in found] == [b"GET /canary\n"], client.data
            count += 1
        await asyncio.sleep(0.02)
    return count, longest


async def slow_readers(count: int) -> float:
    """Bytes of the gateway's memory for each client that asks for LARGE bytes and reads none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
            for _ in range(LARGE >> 16):
                writer.write(bytes(1 << 16))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the gateway has let go

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    async with Gateway([], {"service": port}) as gateway:
        before = resident(gateway.process.pid)
        sockets = []
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", gateway.port))
            await loop.sock_sendall(sock, GET)
            sockets.append(sock)
        size = await settled(lambda: asyncio.sleep(0.2), gateway.process.pid)
        for sock in sockets:
            sock.close()
    server.close()
    return (size - before) / count


async def settled(wait: Callable[[], Awaitable[object]], pid: int) -> int:
    """The memory once it grows no more."""
    size = -1
    for _ in range(20):
        await wait()
        now = resident(pid)
        if now <= size * 1.01:
            return now
        size = now
    return size


def port_of(origin: Origin) -> int:
    return int(origin.address.rpartition(":")[2])
