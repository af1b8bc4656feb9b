"""The connections of one endpoint: idle ones used last in, first out, so that the surplus gets old and is closed."""

import asyncio
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING, Protocol

from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.failure import Failure

if TYPE_CHECKING:
    from proxy.upstream.cluster import Cluster


class Waiter(Protocol):
    """Who needs a connection. Exactly one of the two is called, unless the dial is cancelled."""

    def on_connected(self, connection: UpstreamConnection) -> None: ...

    def on_connect_failed(self, pool: "Pool", failure: Failure, error: str) -> None: ...


class Dial:
    """A connection being made, or waited for, on behalf of one waiter."""

    __slots__ = ("begun", "pool", "task", "waiter")

    def __init__(self, pool: "Pool", waiter: Waiter) -> None:
        self.pool = pool
        self.waiter: Waiter | None = waiter
        self.task: asyncio.Task[None] | None = None
        self.begun = False

    def start(self) -> None:
        """Connect now."""
        cluster = self.pool.cluster
        cluster.connections += 1
        cluster.instruments.connections.value += 1
        self.task = cluster.loop.create_task(self.run())

    async def run(self) -> None:
        self.begun = True
        pool = self.pool
        cluster = pool.cluster
        connection = UpstreamConnection(pool, pool.address, cluster.writes, cluster.trailers)
        # Once there is a transport, the count goes down in Pool.closed.
        failure, error = Failure.CONNECT, ""
        try:
            for address in await cluster.resolver.addresses(pool.host):
                try:
                    await cluster.loop.create_connection(
                        lambda: connection,
                        address,
                        pool.port,
                        ssl=cluster.tls,
                        server_hostname=(cluster.server_name or pool.host) if cluster.tls is not None else None,
                    )
                    break
                except (OSError, ssl.CertificateError) as caught:
                    error = reason_of(caught)
            # A TLS handshake that fails has had a transport, and lost it.
        except OSError as caught:
            error = reason_of(caught)
        except asyncio.CancelledError:
            # Only cancel() and expire() do this, and they have told the waiter already.
            connection.abort()
            raise
        finally:
            if connection.transport is None and not connection.lost:
                pool.not_connected()
        if self.waiter is None:
            connection.abort()
        elif connection.transport is not None:
            self.connected(connection)
        else:
            self.fail(failure, error)

    def connected(self, connection: UpstreamConnection) -> None:
        """Hand the connection over."""
        waiter, self.waiter = self.waiter, None
        self.pool.cluster.connect_deadlines.stop(self)
        self.pool.noted("up", "")
        if waiter is not None:
            waiter.on_connected(connection)

    def fail(self, failure: Failure, error: str) -> None:
        """Tell the waiter."""
        waiter, self.waiter = self.waiter, None
        self.pool.cluster.connect_deadlines.stop(self)
        if failure is not Failure.OVERFLOW:
            self.pool.noted("down", error)
        if waiter is not None:
            waiter.on_connect_failed(self.pool, failure, error)

    def expire(self) -> None:
        """connect_timeout is over."""
        if self.task is None:
            self.pool.cluster.pending.remove(self)
            self.fail(Failure.OVERFLOW, "no connection became free")
        else:
            self.stop(self.task)
            self.fail(Failure.CONNECT_TIMEOUT, "connect timeout")

    def cancel(self) -> None:
        """The waiter has gone."""
        if self.waiter is None:
            return
        self.waiter = None
        self.pool.cluster.connect_deadlines.stop(self)
        if self.task is None:
            self.pool.cluster.pending.remove(self)
        else:
            self.stop(self.task)

    def stop(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step never runs, not even its `finally`."""
        task.cancel()
        if not self.begun:
            self.pool.not_connected()


class Pool:
    """One endpoint's connections, in one worker."""

    __slots__ = (
        "address", "closing", "cluster", "error", "failures", "host", "idle", "port", "since", "state", "sweeping",
    )  # fmt: skip

    def __init__(self, cluster: "Cluster", host: str, port: int, address: str) -> None:
        self.cluster = cluster
        self.host = host
        self.port = port
        self.address = address
        self.idle: list[UpstreamConnection] = []
        self.closing = False
        self.sweeping = False
        self.state = "unknown"
        """What the last attempt to connect came to: up, down; unknown before the first."""
        self.since = 0.0
        """When `state` became so, in seconds since 1970."""
        self.error = ""
        self.failures = 0
        """Attempts that failed."""

    def noted(self, state: str, error: str) -> None:
        """An attempt to connect has ended."""
        self.failures += state == "down"
        self.error = error
        if state != self.state:
            self.state, self.since = state, round(time.time(), 3)

    def take(self) -> UpstreamConnection | None:
        """The connection used last, if any is idle."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            transport = connection.transport
            if transport is not None and not transport.is_closing():
                return connection
        return None

    def give_back(self, connection: UpstreamConnection) -> None:
        """A connection whose response is complete and which may serve another."""
        cluster = self.cluster
        if self.closing:
            connection.close()
        elif not cluster.pending or not cluster.freed(connection):
            # Last in, first out: those at the front have been idle longest, so a sweep need only look there.
            connection.idle_since = cluster.clock()
            self.idle.append(connection)
            if not self.sweeping:
                self.sweeping = True
                cluster.sweeps.start(self)

    def sweep(self) -> None:
        """Close what has been idle for idle_timeout; up to a quarter late."""
        idle = self.idle
        limit = self.cluster.clock() - self.cluster.idle_timeout
        while idle and idle[0].idle_since <= limit:
            idle.pop(0).close()
        self.sweeping = bool(idle)
        if idle:
            self.cluster.sweeps.start(self)

    def closed(self, connection: UpstreamConnection) -> None:
        """A connection is gone, whatever it was doing."""
        if connection in self.idle:
            self.idle.remove(connection)
        self.not_connected()

    def not_connected(self) -> None:
        """One connection less, or an attempt over."""
        cluster = self.cluster
        cluster.connections -= 1
        cluster.instruments.connections.value -= 1
        if cluster.pending:
            cluster.freed(None)

    def close(self) -> None:
        """Close what is idle, and from now on whatever comes back."""
        self.closing = True
        for connection in list(self.idle):
            connection.close()


def reason_of(error: Exception) -> str:
    """For the log: what the system says, without the address (which is logged apart)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.reason}: {error.verify_message}"
    if isinstance(error, socket.gaierror):
        return error.strerror or type(error).__name__
    if isinstance(error, ssl.SSLError):
        return error.reason or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
