"""A cluster at run time: its endpoints' pools, taken round robin, under one cap of connections per worker."""

import ssl
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

from proxy.config.cluster import Cluster as ClusterConfig
from proxy.config.cluster import ClusterTls
from proxy.telemetry.instruments import ClusterInstruments
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.failure import Failure
from proxy.upstream.pool import Dial, Pool, Waiter
from proxy.upstream.resolver import Resolver
from proxy.upstream.write_batch import WriteBatch

Item = TypeVar("Item", bound=Hashable)


class Queue(Protocol):
    """A queue of deadlines of one length (proxy/server/deadlines.py)."""

    def start(self, item: Any) -> None: ...

    def stop(self, item: Any) -> None: ...


class Deadlines(Protocol):
    """Where queues of deadlines come from."""

    def queue(self, seconds: float, expire: Callable[[Item], object]) -> Queue: ...


class Cluster:
    """One per worker and configured cluster. Use from the event loop's thread only."""

    def __init__(
        self,
        config: ClusterConfig,
        writes: WriteBatch,
        deadlines: Deadlines,
        resolver: Resolver,
        instruments: ClusterInstruments,
    ) -> None:
        self.name = config.name
        self.loop = writes.loop
        self.resolver = resolver
        self.instruments = instruments
        self.writes = writes
        self.max_connections = config.max_connections
        self.max_pending = config.max_pending
        self.trailers = config.trailers
        self.tls = tls_context(config.tls) if config.tls is not None else None
        self.server_name = config.tls.server_name if config.tls is not None else None
        self.connect_deadlines = deadlines.queue(config.connect_timeout, Dial.expire)
        self.connect_timeout = config.connect_timeout
        self.idle_timeout = config.idle_timeout
        self.sweeps = deadlines.queue(config.idle_timeout / 4, Pool.sweep)
        self.clock = time.monotonic
        self.pools = [Pool(self, *split_address(address), address) for address in config.endpoints]
        self.turn = 0
        self.connections = 0
        """Open or being opened."""
        self.pending: deque[Dial] = deque()

    def next_pool(self, avoid: Pool | None = None) -> Pool | None:
        """The endpoint whose turn it is; another than `avoid`, None if there is no other."""
        pools = self.pools
        if avoid is None:
            pool = pools[self.turn]
            self.turn = (self.turn + 1) % len(pools)
            return pool
        # A second try takes nobody's turn: else, of two endpoints, each request would meet the dead one first.
        for i in range(len(pools)):
            pool = pools[(self.turn + i) % len(pools)]
            if pool is not avoid:
                return pool
        return None

    def dial(self, pool: Pool, waiter: Waiter) -> Dial:
        """Start a connection for the waiter, or let it wait for one if all allowed ones are in use."""
        dial = Dial(pool, waiter)
        if self.connections < self.max_connections or self.make_room():
            self.connect_deadlines.start(dial)
            dial.start()
        elif len(self.pending) < self.max_pending:
            self.connect_deadlines.start(dial)
            self.pending.append(dial)
        else:
            dial.fail(Failure.OVERFLOW, "too many requests wait for a connection")
        return dial

    def make_room(self) -> bool:
        """Close an unused connection of whichever endpoint has one."""
        for pool in self.pools:
            if pool.idle:
                # The oldest: it is the likeliest to be closed by the other side soon.
                pool.idle.pop(0).close()
                return True
        return False

    def freed(self, connection: UpstreamConnection | None) -> bool:
        """A connection has become free, or (None) one more may be opened. True if somebody waited for it."""
        if not self.pending:
            return False
        dial = self.pending.popleft()
        if connection is not None:
            dial.connected(connection)
        else:
            dial.start()
        return True

    def close(self) -> None:
        """Close what is idle; connections in use close when their stream ends."""
        for pool in self.pools:
            pool.close()


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`, checked by the config."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def tls_context(config: ClusterTls) -> ssl.SSLContext:
    """The client side of TLS for a cluster. Raises OSError if the CA file cannot be read."""
    context = ssl.create_default_context(cafile=None if config.ca is None else str(config.ca))
    context.set_alpn_protocols(["http/1.1"])
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
