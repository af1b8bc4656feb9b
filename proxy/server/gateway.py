"""One worker's gateway: listeners, routes, clusters and the filters' chains put together from the config."""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from proxy.abi.memory import StreamMemory
from proxy.config.model import Config, Route
from proxy.server.deadlines import DeadlineQueue, Deadlines
from proxy.server.ending import Ending
from proxy.server.listener import Listener, require_c_parser
from proxy.server.overload import Overload, connections_each
from proxy.server.request_ids import request_ids
from proxy.server.router import Router
from proxy.server.stream_interface import Chains
from proxy.server.tunnel import Tunnel
from proxy.telemetry.telemetry import Telemetry
from proxy.upstream.callout import Callouts
from proxy.upstream.cluster import Cluster
from proxy.upstream.grpc_callout import GrpcCallouts
from proxy.upstream.resolver import Resolver
from proxy.upstream.write_batch import WriteBatch

DATE_SECONDS = 1.0


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


class Gateway:
    """What a worker serves with. Make it, `start` it inside the event loop, `drain` it."""

    memory: StreamMemory
    deadlines: Deadlines
    clock: Callable[[], float]
    writes: WriteBatch

    def __init__(self, config: Config, telemetry: Telemetry, chains: Chains) -> None:
        require_c_parser()
        self.config = config
        self.telemetry = telemetry
        self.chains = chains
        self.router = Router(config.routes)
        self.clusters: dict[str, Cluster] = {}
        self.routes: dict[int, RouteState] = {}
        self.listeners: list[Listener] = []
        self.date_timer: asyncio.TimerHandle | None = None
        self.request_ids = request_ids()
        self.connection_ids = count(1)
        self.one_route: RouteState | None = None
        """The route that takes every request, if the first one does."""
        self.pauses: dict[float, DeadlineQueue[Ending]] = {}
        self.overload = Overload(config.overload, telemetry.instruments)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Load the filters, then serve; `sockets` one per listener. Raises if it cannot."""
        loop = asyncio.get_running_loop()
        self.clock = time.monotonic
        self.deadlines = Deadlines(loop)
        self.writes = WriteBatch(loop)
        resolver = Resolver(loop)
        instruments = self.telemetry.instruments
        for cluster in self.config.clusters:
            self.clusters[cluster.name] = Cluster(
                cluster, self.writes, self.deadlines, resolver, instruments.cluster(cluster.name)
            )
        own = [sock.getsockname()[:2] for sock in sockets]
        self.callouts = Callouts(self.clusters, self.writes, self.deadlines, instruments.cluster, own)
        self.grpc = GrpcCallouts(self.callouts)
        await self.chains.start(self.callouts, self.grpc)
        self.memory = self.chains.memory
        for route in self.config.routes:
            self.routes[id(route)] = RouteState(route, self.clusters[route.cluster], self.deadlines)
        if self.router.catch_all is not None:
            self.one_route = self.routes[id(self.router.catch_all)]
        self.keep_date(loop)
        self.overload.start(loop)
        most = connections_each(self.config.listeners, self.config.clusters)
        for listener, sock, connections in zip(self.config.listeners, sockets, most, strict=True):
            serving = Listener(self, listener, loop, connections)
            await serving.start(sock)
            self.listeners.append(serving)

    async def drain(self, grace: float) -> None:
        """Stop accepting at once and close the sockets; return when all streams are over, then the filters' own work, both
        cut after `grace` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        for listener in self.listeners:
            listener.stop_accepting()
        try:
            async with asyncio.timeout(grace):
                for listener in self.listeners:
                    await listener.wait_empty()
        except TimeoutError:
            for listener in self.listeners:
                listener.cut()
            # connection_lost runs in the loop's next turns.
            await asyncio.sleep(0.05)
        # They may still call other services.
        await self.chains.finish(max(end - loop.time(), 0.0))
        for cluster in self.clusters.values():
            cluster.close()
        if self.date_timer is not None:
            self.date_timer.cancel()
        self.overload.stop()
        await self.grpc.close()
        self.callouts.close()
        self.deadlines.close()
        self.chains.close()

    def state(self) -> dict[str, Any]:
        """For /ready: the filters' states."""
        return {"filters": self.chains.state()}

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

    def keep_date(self, loop: asyncio.AbstractEventLoop) -> None:
        """The Date of responses that have none, renewed every second."""
        self.memory.set_date(time.time())
        self.date_timer = loop.call_later(DATE_SECONDS, self.keep_date, loop)
