"""A worker process: one event loop that serves its slot's sockets.

SIGTERM, however often: stop accepting, let streams finish up to the grace, exit 0. STOP_NOW: exit at once. Every second it
tells the scoreboard that its loop turns; a worker that does not is killed by the supervisor.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from proxy.chain.chains import FilterStartError
from proxy.config.model import Config
from proxy.server.assembly import adopt, start_problem
from proxy.server.contexts import EXIT_WRONG_CONFIG, WorkerContext
from proxy.server.control import ControlServer, control_path
from proxy.server.overload import keep_freed
from proxy.server.process import EXIT_START_FAILED, STOP_NOW
from proxy.server.revision import load, load_filters
from proxy.server.staging import Staging
from proxy.telemetry import logging as logs
from proxy.telemetry.telemetry import Telemetry

log = logs.get_logger("worker")

GC_THRESHOLD = 20_000
"""Allocations between collections of the youngest generation. What a stream leaves is freed by reference counts."""

GRACE_MARGIN_SECONDS = 1.0
HEARTBEAT_SECONDS = 1.0


def main(context: WorkerContext) -> int:
    """Serve until told to stop; gives the process's exit status."""
    config = context.config
    if context.revision >= 0:
        revision = load(context.revision)
        adopt(config, revision, load_filters(context.revision))
        os.close(context.revision)
        config = revision.config
    keep_freed()
    with asyncio.Runner(loop_factory=loop_factory(config.event_loop)) as runner:
        return runner.run(Worker(context, config).serve())


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes event loops for `auto`, `uvloop` or `asyncio`. Raises ImportError if uvloop is asked for but absent."""
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop


class Worker:
    """The worker's life: start, serve, drain."""

    def __init__(self, context: WorkerContext, config: Config) -> None:
        self.context = context
        self.config = config
        self.telemetry = Telemetry(config.log.access)
        self.gateway = context.gateway(config, self.telemetry, context.slot, context.quarantine)
        self.stopping = asyncio.Event()

    async def serve(self) -> int:
        loop = asyncio.get_running_loop()
        logs.output.writer.attach(loop)
        control = ControlServer(
            control_path(self.context.control_directory, self.context.slot, os.getpid()), self.telemetry, self.state
        )
        try:
            await self.gateway.start(self.context.sockets)
            self.gateway.add_pages(control.app)
            await control.start()
        except FilterStartError as error:
            print(start_problem(self.config, error), file=sys.stderr, flush=True)
            return EXIT_WRONG_CONFIG
        except Exception:
            log.critical("worker cannot start", slot=self.context.slot, exc_info=True)
            return EXIT_START_FAILED
        loop.add_signal_handler(signal.SIGTERM, self.stopping.set)
        loop.add_signal_handler(STOP_NOW, self.stop_now)
        # What is loaded by now stays, so the collector need not look at it again: a full collection of its 60,000
        # objects stops the loop for 10 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 10, 10)
        log.info("worker serves", slot=self.context.slot, loop=type(loop).__module__.partition(".")[0])
        self.beat(loop)
        self.context.ready()
        staging = Staging(self.context.channel, self.gateway, self.config, self.take)
        staging.start(loop)
        await self.stopping.wait()
        staging.stop()
        grace = self.config.shutdown_grace
        try:
            async with asyncio.timeout(grace + GRACE_MARGIN_SECONDS):
                await self.gateway.drain(grace)
        except TimeoutError:
            log.warning("drain did not end in time", slot=self.context.slot)
        await control.stop()
        log.info("worker stopped", slot=self.context.slot)
        return 0

    def take(self, config: Config) -> None:
        """A reload has put this config in the other's place."""
        self.config = config

    def beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop turns: say so, and again in a second."""
        self.context.beat()
        loop.call_later(HEARTBEAT_SECONDS, self.beat, loop)

    def stop_now(self) -> None:
        log.warning("worker stops now", slot=self.context.slot)
        logs.output.writer.attach(None)
        os._exit(0)

    def state(self) -> dict[str, Any]:
        return {
            "slot": self.context.slot,
            "pid": os.getpid(),
            "state": "draining" if self.stopping.is_set() else "serving",
            **self.gateway.state(),
        }
