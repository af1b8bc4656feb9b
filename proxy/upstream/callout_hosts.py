"""Clusters made on the way, for the hosts that a filter calls: the same pools and connections as any cluster's, behind a
resolver that lets through only addresses that were checked.

A host is resolved once for each connection, all of its addresses are checked, and one of those is dialled: a name server
that answers otherwise a moment later has no say. A kept connection goes to the address that was checked for it. Filters share
no connections: each has its own entries.
"""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from proxy.capabilities.addresses import OwnAddresses
from proxy.capabilities.allowed_hosts import AllowedHosts, DeniedError, Target
from proxy.config.cluster import Cluster as ClusterConfig
from proxy.config.cluster import ClusterTls
from proxy.telemetry.instruments import ClusterInstruments
from proxy.upstream.cluster import Cluster, Deadlines, Item, Queue, tls_context
from proxy.upstream.resolver import Resolver
from proxy.upstream.write_batch import WriteBatch

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""A host's IP addresses. Raises OSError."""

MAX_HOSTS = 32
"""Hosts of one filter whose connections are kept. Behind a wildcard there are as many as the filter likes."""
LOOKUP_THREADS = 4


class AddressDeniedError(OSError):
    """A host leads to where the filter must not go."""


class SystemLookup:
    """getaddrinfo in threads of its own: a filter that asks for slow names must not hold up the clusters' names.

    Nothing is kept: how many names a filter asks for is up to the filter.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.threads = ThreadPoolExecutor(LOOKUP_THREADS, "callout-lookup")

    async def __call__(self, host: str) -> Sequence[str]:
        found = await self.loop.run_in_executor(self.threads, resolve, host)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        """Ask no more; what is being asked ends by itself."""
        self.threads.shutdown(wait=False, cancel_futures=True)


def resolve(host: str) -> list[Any]:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)


class CheckedResolver(Resolver):
    """A target's addresses, all of them allowed."""

    def __init__(
        self, target: Target, allowed: AllowedHosts, own: OwnAddresses, lookup: Lookup, denied: Callable[[DeniedError], object]
    ) -> None:
        self.target = target
        self.allowed = allowed
        self.own = own
        self.lookup = lookup
        self.denied = denied

    async def addresses(self, host: str) -> list[str]:
        """The IP addresses to dial, in order. Raises OSError."""
        try:
            found = [host] if self.target.address is not None else list(await self.lookup(host))
        except UnicodeError as error:  # getaddrinfo has its own idea of long labels
            raise OSError("the name cannot be resolved") from error
        try:
            self.allowed.check(self.target, found, self.own)
        except DeniedError as error:
            self.denied(error)
            raise AddressDeniedError("address denied") from error
        return found


class SharedDeadlines:
    """One queue per length and purpose, however many clusters come and go."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self.queues: dict[tuple[float, Callable[..., object]], Queue] = {}

    def queue(self, seconds: float, expire: Callable[[Item], object]) -> Queue:
        """The queue of all who ask for the same."""
        key = seconds, expire
        queue = self.queues.get(key)
        if queue is None:
            queue = self.queues[key] = self.deadlines.queue(seconds, expire)
        return queue


class HostClusters:
    """The hosts that one filter has called lately."""

    def __init__(self, dialling: "Dialling", allowed: AllowedHosts, max_connections: int, name: str) -> None:
        self.dialling = dialling
        self.allowed = allowed
        self.max_connections = max_connections
        self.instruments = dialling.instruments(f"filter:{name}")
        self.clusters: OrderedDict[Target, Cluster] = OrderedDict()

    def cluster(self, target: Target, denied: Callable[[DeniedError], object]) -> Cluster:
        """The target's cluster."""
        cluster = self.clusters.get(target)
        if cluster is not None:
            self.clusters.move_to_end(target)
            return cluster
        dialling = self.dialling
        config = ClusterConfig(
            name="callout",
            endpoints=(target.endpoint,),  # type: ignore[arg-type]  # the model makes an Address of it
            connect_timeout=dialling.connect_timeout,
            idle_timeout=dialling.idle_timeout,
            max_connections=self.max_connections,
        )
        resolver = CheckedResolver(target, self.allowed, dialling.own, dialling.lookup, denied)
        cluster = Cluster(config, dialling.writes, dialling.deadlines, resolver, self.instruments)
        if target.scheme == "https":
            cluster.tls = dialling.tls()
        if len(self.clusters) >= MAX_HOSTS:
            # What is in use goes on, and closes instead of coming back.
            self.clusters.popitem(last=False)[1].close()
        self.clusters[target] = cluster
        return cluster

    def close(self) -> None:
        """Close what is idle."""
        for cluster in self.clusters.values():
            cluster.close()
        self.clusters.clear()


class Dialling:
    """What all hosts' clusters of a worker share."""

    def __init__(
        self,
        writes: WriteBatch,
        deadlines: Deadlines,
        instruments: Callable[[str], ClusterInstruments],
        own: OwnAddresses,
        lookup: Lookup | None,
        context: ssl.SSLContext | None,
        connect_timeout: float,
        idle_timeout: float,
    ) -> None:
        self.writes = writes
        self.deadlines = SharedDeadlines(deadlines)
        self.instruments = instruments
        self.own = own
        self.system = SystemLookup(writes.loop) if lookup is None else None
        self.lookup: Lookup = lookup or self.system  # type: ignore[assignment]
        self.context = context
        self.connect_timeout = connect_timeout
        self.idle_timeout = idle_timeout

    def tls(self) -> ssl.SSLContext:
        """The system's authorities; the host's name is checked."""
        if self.context is None:
            self.context = tls_context(ClusterTls())
        return self.context

    def close(self) -> None:
        """Resolve no more."""
        if self.system is not None:
            self.system.close()
