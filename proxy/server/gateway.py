"""One worker's gateway: listeners, and the generation of routes, clusters and filters that serves what begins."""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

from aiohttp import web

from proxy.chain.watching import watching_of
from proxy.config.model import Config
from proxy.server.deadlines import Deadlines
from proxy.server.generation import Generation
from proxy.server.inspection import Inspection, set_log_level
from proxy.server.listener import Listener, require_c_parser
from proxy.server.overload import Overload, connections_each
from proxy.server.request_ids import request_ids
from proxy.server.stream_interface import Chains, Joint
from proxy.telemetry.access import AccessLog
from proxy.telemetry.logging import get_logger, level_name
from proxy.telemetry.telemetry import Telemetry
from proxy.upstream.callout_hosts import SharedDeadlines
from proxy.upstream.resolver import Resolver
from proxy.upstream.write_batch import WriteBatch

log = get_logger("gateway")

DATE_SECONDS = 1.0
CUT_SECONDS = 0.05
"""After connections were cut: connection_lost runs in the loop's next turns."""

MOST_RETIRED = 8
"""Generations that may wait for their last streams. Of one more, the oldest loses its VMs: its streams go on as their filters'
on_failure says, and tunnels as they are."""


class Gateway:
    """What a worker serves with. Make it, `start` it inside the event loop, `drain` it.

    A reload makes the next generation with `stage`, beside the one that serves, and then puts it in its place with `swap`, or
    throws it away with `drop`.
    """

    deadlines: Deadlines
    clock: Callable[[], float]
    writes: WriteBatch
    generation: Generation
    """Of the streams that begin now."""

    def __init__(
        self, config: Config, telemetry: Telemetry, chains: Chains, joint: Joint | None = None, number: int = 1
    ) -> None:
        """`joint`: what the filters of all generations have in common; `number`: of the first generation."""
        require_c_parser()
        self.config = config
        self.telemetry = telemetry
        self.first = chains, number
        self.joint = joint
        self.listeners: list[Listener] = []
        self.date_timer: asyncio.TimerHandle | None = None
        self.request_ids = request_ids()
        self.connection_ids = count(1)
        self.overload = Overload(config.overload, telemetry.instruments)
        self.retired: list[Generation] = []
        self.closing: set[asyncio.Task[None]] = set()
        self.on_closed: Callable[[], object] = int
        """Called when a retired generation is gone."""

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Load the filters, then serve; `sockets` one per listener. Raises if it cannot; then nothing is left of it, the joint
        included, but for the sockets of listeners that were not started."""
        async with AsyncExitStack() as undo:
            await self.open(sockets, undo)
            undo.pop_all()

    async def open(self, sockets: Sequence[socket.socket], undo: AsyncExitStack) -> None:
        """`start`, with all that closes what it has opened put on `undo`."""
        loop = asyncio.get_running_loop()
        self.clock = time.monotonic
        self.deadlines = Deadlines(loop)
        undo.callback(self.deadlines.close)
        self.cluster_deadlines = SharedDeadlines(self.deadlines)
        self.writes = WriteBatch(loop)
        self.resolver = Resolver(loop)
        self.own = [sock.getsockname()[:2] for sock in sockets]
        if self.joint is not None:
            undo.callback(self.joint.close)
            self.joint.start(loop)
        generation = Generation(self, self.config, *self.first)
        undo.push_async_callback(generation.close, 0.0)
        handles = await generation.start(self.own)
        del self.first  # it goes when it is retired
        self.generation = generation
        found: Any = generation.chains
        self.watching = watching_of(self.config, found)
        undo.push_async_callback(self.watching.close)
        self.keep_date(loop)
        undo.callback(self.stop_timers)
        self.overload.start(loop)
        most = connections_each(self.config.listeners, self.config.clusters)
        for listener, sock, connections, handle in zip(self.config.listeners, sockets, most, handles, strict=True):
            serving = Listener(self, listener, loop, connections, handle)
            await serving.start(sock)
            undo.push_async_callback(self.close_listener, serving)
            self.listeners.append(serving)

    async def close_listener(self, listener: Listener) -> None:
        """Close its socket, and at once whatever was accepted."""
        listener.stop_accepting()
        if listener.open:
            listener.cut()
            await asyncio.sleep(CUT_SECONDS)

    def stop_timers(self) -> None:
        if self.date_timer is not None:
            self.date_timer.cancel()
        self.overload.stop()

    def add_pages(self, app: web.Application) -> None:
        """What the admin process may ask of this worker. Call after `start`."""
        level = level_name()
        if level != self.config.log.level:  # the operator has set it, and this worker is a successor
            set_log_level(self, level)
        Inspection(lambda: self, self.watching).add_to(app)

    # ---- Reloads ----

    async def stage(self, config: Config, chains: Chains, number: int) -> Generation:
        """The next generation, started, but serving nothing yet. Raises if it cannot serve; then nothing is left of it."""
        generation = Generation(self, config, chains, number)
        try:
            for listener, new in zip(self.listeners, config.listeners, strict=True):
                listener.check(new)
            handles = await generation.start(self.own, self.generation)
            assert handles == [listener.head_options for listener in self.listeners], "head options are not where they were"
        except BaseException:
            await self.drop(generation)
            raise
        return generation

    def swap(self, generation: Generation) -> None:
        """From now on streams begin on this generation; those that run end on theirs."""
        before = self.generation
        config = generation.config
        generation.memory.set_date(time.time())
        self.generation = generation
        found: Any = generation.chains
        self.watching.follow(found)
        self.config = config
        self.retired.append(before)
        before.retire(self.overload.streams - sum(one.streams for one in self.retired))
        for old in [one for one in self.retired if one.streams][:-MOST_RETIRED]:
            if not old.buried:
                log.warning("streams outlast too many reloads: their filters end", generation=old.number, streams=old.streams)
                old.buried = True
                old.chains.bury()
        if config.log.access != before.config.log.access:
            self.telemetry.access = AccessLog(config.log.access)
        self.overload.configure(config.overload)
        most = connections_each(config.listeners, config.clusters)
        for listener, new, connections in zip(self.listeners, config.listeners, most, strict=True):
            listener.configure(new, connections)

    async def drop(self, generation: Generation) -> None:
        """This generation, which was staged, is not wanted."""
        await generation.close(0.0, [self.generation, *self.retired])
        self.forget(generation)

    def emptied(self, generation: Generation) -> None:
        """A retired generation's last stream is over."""
        task = asyncio.get_running_loop().create_task(self.close_retired(generation))
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)

    async def close_retired(self, generation: Generation) -> None:
        try:
            kept = [self.generation, *(one for one in self.retired if one is not generation)]
            await generation.close(self.config.shutdown_grace, kept)
        except Exception:
            log.exception("closing a generation failed", generation=generation.number)
        self.retired.remove(generation)
        self.forget(generation)
        log.info("generation closed", generation=generation.number)
        self.on_closed()

    def forget(self, gone: Generation) -> None:
        """Drop the metrics of what no generation has any more."""
        names = gone.names()
        for generation in (self.generation, *self.retired):
            names -= generation.names()
        for label, value in names:
            self.telemetry.forget(label, value)

    # ---- The end ----

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
            await asyncio.sleep(CUT_SECONDS)
        # They may still call other services.
        await self.generation.close(max(end - loop.time(), 0.0))
        while self.closing:
            await asyncio.wait(self.closing)
        self.stop_timers()
        await self.watching.close()
        self.deadlines.close()
        if self.joint is not None:
            self.joint.close()

    def state(self) -> dict[str, Any]:
        """For /ready: the filters' states, the generation, and those whose streams are not over."""
        retired = [{"generation": one.number, "streams": one.streams} for one in self.retired]
        return {"filters": self.generation.state(), "generation": self.generation.number, "retired": retired}

    def keep_date(self, loop: asyncio.AbstractEventLoop) -> None:
        """The Date of responses that have none, renewed every second."""
        for generation in (self.generation, *(one for one in self.retired if one.streams)):
            generation.memory.set_date(time.time())
        self.date_timer = loop.call_later(DATE_SECONDS, self.keep_date, loop)
