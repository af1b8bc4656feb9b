"""What a config makes of a worker until the next reload: routes, clusters, filters. Streams end on the one they began with."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from proxy.abi.memory import HeadOptions, StreamMemory
from proxy.config.cluster import Cluster as ClusterConfig
from proxy.config.filter import with_versions
from proxy.config.model import Config
from proxy.config.route import Route
from proxy.server.deadlines import DeadlineQueue, Deadlines
from proxy.server.ending import Ending
from proxy.server.router import Router
from proxy.server.stream_interface import Chains
from proxy.server.tunnel import Tunnel
from proxy.upstream.callout import Callouts
from proxy.upstream.cluster import Cluster
from proxy.upstream.grpc_callout import GrpcCallouts

if TYPE_CHECKING:
    from proxy.server.gateway import Gateway


class RouteState:
    """A route at run time: its cluster, and its timeouts as queues."""

    __slots__ = ("bounded", "cluster", "config", "deadlines", "idle_deadlines", "label", "tunnel_deadlines")

    def __init__(self, config: Route, cluster: Cluster, deadlines: Deadlines) -> None:
        self.config = config
        self.label = config.label
        self.cluster = cluster
        self.deadlines: DeadlineQueue[Ending] = deadlines.queue(config.timeout, Ending.on_route_timeout)
        self.idle_deadlines: DeadlineQueue[Ending] = deadlines.queue(config.idle_timeout, Ending.on_idle_timeout)
        self.tunnel_deadlines: DeadlineQueue[Tunnel] = deadlines.queue(config.idle_timeout, Tunnel.on_idle_timeout)
        self.bounded = 0 < config.timeout <= config.idle_timeout
        """Once the request is sent, the timeout ends the stream before the idle timeout could."""


class Generation:
    """Make it, `start` it; it serves the streams that begin while it is `gateway.generation`; then `retire`, `close`."""

    memory: StreamMemory

    def __init__(self, gateway: "Gateway", config: Config, chains: Chains, number: int = 1) -> None:
        self.gateway = gateway
        self.config = config
        self.chains = chains
        self.number = number
        self.router = Router(config.routes)
        self.clusters: dict[str, Cluster] = {}
        self.cluster_configs: dict[str, ClusterConfig] = {one.name: one for one in config.clusters}
        self.routes: dict[int, RouteState] = {}
        self.one_route: RouteState | None = None
        """The route that takes every request, if the first one does."""
        self.pauses: dict[float, DeadlineQueue[Ending]] = {}
        self.deadlines = Deadlines(asyncio.get_running_loop())
        """Its own: a queue is never removed."""
        self.callouts: Callouts | None = None
        self.grpc: GrpcCallouts | None = None
        self.retired = False
        self.buried = False
        """Its VMs are closed, although streams are left."""
        self.streams = 0
        """Streams that are left, once it is retired."""

    async def start(self, own: Sequence[tuple[str, int]], before: "Generation | None" = None) -> list[int]:
        """Load the filters; the handles of the listeners' head options. Raises if a filter cannot serve.

        `own`: where the gateway listens. A cluster that is as it was `before` stays, with its connections.
        """
        gateway = self.gateway
        instruments = gateway.telemetry.instruments
        for name, config in self.cluster_configs.items():
            # With TLS it is made anew: the files that the config names may have changed.
            kept = before is not None and config.tls is None and before.cluster_configs.get(name) == config
            self.clusters[name] = (
                before.clusters[name]
                if before is not None and kept
                else Cluster(config, gateway.writes, gateway.cluster_deadlines, gateway.resolver, instruments.cluster(name))
            )
        callouts = self.callouts = Callouts(self.clusters, gateway.writes, self.deadlines, instruments.cluster, own)
        self.grpc = GrpcCallouts(callouts)
        handles = await self.chains.start(callouts, self.grpc, [head_options(one) for one in self.config.listeners])
        self.memory = self.chains.memory
        for route in self.config.routes:
            self.routes[id(route)] = RouteState(route, self.clusters[route.cluster], self.deadlines)
        if self.router.catch_all is not None:
            self.one_route = self.routes[id(self.router.catch_all)]
        return handles

    def route(self, method: str, authority: str, path: str, header: Callable[[str], str | None]) -> RouteState | None:
        """The route of a request."""
        found = self.router.match(method, authority, path, header)
        return None if found is None else self.routes[id(found)]

    def pause_deadlines(self, seconds: float) -> DeadlineQueue[Ending]:
        """How long filters may hold a stream; one queue for each length that the config has."""
        queue = self.pauses.get(seconds)
        if queue is None:
            queue = self.pauses[seconds] = self.deadlines.queue(seconds, Ending.on_pause_expired)
        return queue

    def retire(self, streams: int) -> None:
        """No stream begins here any more, and so many are left."""
        self.retired = True
        self.streams = streams
        if not streams:
            self.gateway.emptied(self)

    def stream_over(self) -> None:
        """One of those that were left."""
        self.streams -= 1
        if not self.streams:
            self.gateway.emptied(self)

    async def close(self, grace: float, kept: Sequence["Generation"] = ()) -> None:
        """No stream is left: end the filters' own work within `grace` seconds, then everything. Clusters that are `kept`'s too
        stay."""
        await self.chains.finish(grace)
        theirs = [cluster for other in kept for cluster in other.clusters.values()]
        for cluster in self.clusters.values():
            if cluster not in theirs:
                cluster.close()
        if self.grpc is not None:
            await self.grpc.close()
        if self.callouts is not None:
            self.callouts.close()
        self.deadlines.close()
        self.chains.close()

    def names(self) -> set[tuple[str, str]]:
        """The labels of metrics that stand for something of this config."""
        return {
            *(("filter", one.name) for one in with_versions(self.config.filters)),
            *(("cluster", one.name) for one in self.config.clusters),
            *(("route", one.label) for one in self.config.routes),
        }

    def state(self) -> dict[str, Any]:
        """For /ready: the filters' states."""
        return self.chains.state()


def head_options(listener: Any) -> HeadOptions:
    """How the listener of that config wants its heads."""
    scheme = "http" if listener.tls is None else "https"
    return HeadOptions(
        listener.forwarded,
        listener.request_id,
        listener.via,
        scheme,
        listener.trailers,
        listener.underscores,
        listener.limits.headers,
    )
