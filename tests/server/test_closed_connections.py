"""What a closed connection leaves behind: nothing that waits for the collector."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable

from tests.server.fakes import Bench

CLOSED = 20
REQUEST = b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n"
"""Answered with 400, and the connection closed."""


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(REQUEST)
        data = b""
        while more := connection.recv(65536):
            data += more
        return data


def transports() -> int:
    """Transports of asyncio's own loop whose connection is closed."""
    return sum(isinstance(one, asyncio.Transport) and one.is_closing() for one in gc.get_objects())


async def test_a_closed_connection_is_freed_at_once(bench: Callable[..., Awaitable[Bench]]) -> None:
    gateway = await bench("127.0.0.1:9")
    gc.collect()
    gc.disable()
    try:
        before = transports()
        for _ in range(CLOSED):
            assert (await asyncio.to_thread(ask, gateway.port)).startswith(b"HTTP/1.1 400 ")
        await asyncio.sleep(0.05)
        assert transports() - before < CLOSED / 2
    finally:
        gc.enable()
