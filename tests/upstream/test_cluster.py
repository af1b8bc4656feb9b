"""Endpoints in turn, connections kept and given up, names resolved, TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.config.cluster import Cluster as ClusterConfig
from proxy.server.deadlines import Deadlines
from proxy.telemetry.telemetry import Telemetry
from proxy.upstream.cluster import Cluster
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.failure import Failure
from proxy.upstream.pool import Pool
from proxy.upstream.resolver import Resolver, is_literal
from proxy.upstream.write_batch import WriteBatch


class Waiter:
    """A future for what comes of a dial."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.done.set_result(connection)

    def on_connect_failed(self, pool: Pool, failure: Failure, error: str) -> None:
        self.done.set_result((failure, error))

    async def result(self) -> Any:
        return await asyncio.wait_for(self.done, 3)


def make(*endpoints: str, **options: Any) -> Cluster:
    loop = asyncio.get_running_loop()
    config = ClusterConfig(name="c", endpoints=endpoints, **options)
    return Cluster(config, WriteBatch(loop), Deadlines(loop), Resolver(loop), Telemetry(False).instruments.cluster("c"))


@pytest.fixture
async def listening() -> AsyncIterator[str]:
    """An endpoint that accepts and says nothing."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    yield f"localhost:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_turns() -> None:
    """Round robin; a second try goes elsewhere and takes nobody's turn."""
    cluster = make("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
    ports = [cluster.next_pool().port for _ in range(4)]  # type: ignore[union-attr]
    assert ports == [1, 2, 3, 1]
    first = cluster.pools[1]
    assert cluster.next_pool(avoid=first) is cluster.pools[2]
    assert cluster.next_pool() is first
    alone = make("127.0.0.1:1")
    assert alone.next_pool(avoid=alone.pools[0]) is None


async def test_keeps_and_closes_idle_connections(listening: str) -> None:
    """The last one used first; idle ones close after idle_timeout."""
    cluster = make(listening, idle_timeout="400ms")
    pool = cluster.pools[0]
    waiters = [Waiter(), Waiter()]
    for waiter in waiters:
        cluster.dial(pool, waiter)
    a, b = [await waiter.result() for waiter in waiters]
    assert cluster.connections == 2
    pool.give_back(a)
    pool.give_back(b)
    assert pool.take() is b
    pool.give_back(b)
    await asyncio.sleep(0.3)
    assert pool.take() is b
    pool.give_back(b)
    await asyncio.sleep(0.35)
    assert pool.idle == [b]
    await asyncio.sleep(0.5)
    assert not pool.idle
    assert cluster.connections == 0
    assert cluster.instruments.connections.value == 0


async def test_connect_timeout() -> None:
    """An address that does not answer: the dial ends in time, and counts no longer."""
    cluster = make("127.0.0.1:1", connect_timeout="200ms")

    async def hang(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(10)

    waiter = Waiter()
    cluster.resolver.addresses = hang  # type: ignore[method-assign]
    cluster.dial(cluster.pools[0], waiter)
    assert (await waiter.result())[0] is Failure.CONNECT_TIMEOUT
    await asyncio.sleep(0.01)
    assert cluster.connections == 0


async def test_cancelled_dial(listening: str) -> None:
    """Nobody waits any more: nothing is called, nothing is left."""
    cluster = make(listening)
    waiter = Waiter()
    dial = cluster.dial(cluster.pools[0], waiter)
    dial.cancel()
    await asyncio.sleep(0.1)
    assert not waiter.done.done()
    assert cluster.connections == 0


async def test_unknown_host() -> None:
    """A name that does not resolve is a failed connection."""
    cluster = make("nowhere.invalid:80")
    waiter = Waiter()
    cluster.dial(cluster.pools[0], waiter)
    assert (await waiter.result())[0] is Failure.CONNECT


async def test_resolver_keeps_answers_for_a_while() -> None:
    """One look-up for many connections; literals need none."""
    loop = asyncio.get_running_loop()
    resolver = Resolver(loop)
    assert await resolver.addresses("::1") == ["::1"]
    first = await resolver.addresses("localhost")
    assert "127.0.0.1" in first or "::1" in first
    assert await resolver.addresses("localhost") is first
    assert is_literal("10.0.0.1")
    assert not is_literal("localhost")


async def test_tls_failure_is_a_failed_connection(listening: str) -> None:
    """An endpoint that does not speak TLS."""
    server = await asyncio.start_server(lambda reader, writer: writer.write(b"not TLS\r\n\r\n"), "127.0.0.1", 0)
    cluster = make(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", tls={"verify": False})
    assert cluster.tls is not None
    assert cluster.tls.verify_mode == ssl.CERT_NONE
    waiter = Waiter()
    cluster.dial(cluster.pools[0], waiter)
    assert (await waiter.result())[0] is Failure.CONNECT
    assert cluster.connections == 0
    server.close()
