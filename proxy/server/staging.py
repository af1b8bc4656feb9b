"""A worker's part in a reload: it starts the next generation beside the one that serves, and puts it in its place when the
supervisor says that all workers could.

Lines of JSON on the socket between the two. From the supervisor: `{"do": "stage" | "commit" | "drop", "number": N}`, with
"stage" the descriptor of the revision and `spaces`, all that is shared. From the worker: `{"staged": N}`,
`{"failed": N, "problem": TEXT}`, `{"committed": N}`.
"""

import asyncio
import gc
import json
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from proxy.chain.chains import FilterStartError
from proxy.config.model import Config
from proxy.server.assembly import start_problem
from proxy.server.generation import Generation
from proxy.server.process import EXIT_CRASH
from proxy.server.revision import Revision, load, load_filters
from proxy.sharing.limits import Limits
from proxy.telemetry import logging as logs

log = logs.get_logger("reload")


class Staging:
    """Listens to the supervisor. `gateway` is proxy.server.gateway.Gateway; `committed(config)` is called at each swap."""

    def __init__(self, channel: socket.socket, gateway: Any, config: Config, committed: Callable[[Config], object]) -> None:
        self.channel = channel
        self.gateway = gateway
        self.config = config
        self.committed = committed
        self.received = bytearray()
        self.descriptors: list[int] = []
        self.staged: tuple[int, Generation] | None = None
        """The reload's number, and what was started for it."""
        self.running: asyncio.Task[None] | None = None
        gateway.on_closed = tidy

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.channel.setblocking(False)
        loop.add_reader(self.channel.fileno(), self.on_readable)

    def stop(self) -> None:
        """Hear no more: the worker drains."""
        self.loop.remove_reader(self.channel.fileno())

    def on_readable(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self.channel, 65536, 4)
        except BlockingIOError:
            return
        if not data:
            self.stop()
            return
        self.received += data
        self.descriptors += fds
        while b"\n" in self.received:
            line, _, rest = self.received.partition(b"\n")
            self.received = rest
            message = json.loads(line)
            # In order: a drop may come while the generation still starts.
            memory = self.descriptors.pop(0) if message["do"] == "stage" else -1
            self.running = self.loop.create_task(self.obey(message, memory, self.running))

    async def obey(self, message: dict[str, Any], memory: int, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait([before])
        do, number = message["do"], message["number"]
        if do == "stage":
            spaces = {bytes.fromhex(space): Limits(data, items) for space, data, items in message["spaces"]}
            try:
                await self.stage(number, memory, spaces)
            finally:
                os.close(memory)
        elif do == "commit":
            self.commit(number)
        else:
            await self.drop()

    async def stage(self, number: int, memory: int, spaces: Mapping[bytes, Limits]) -> None:
        await self.drop()
        revision: Revision | None = None
        try:
            revision = load(memory)
            gateway = self.gateway
            gateway.joint.extend(spaces)
            chains = gateway.joint.chains(revision.config, load_filters(memory), True)
            self.staged = number, await gateway.stage(revision.config, chains, revision.number)
        except FilterStartError as error:
            assert revision is not None
            self.say({"failed": number, "problem": str(start_problem(revision.config, error))})
        except Exception as error:
            log.exception("the next generation does not start")
            self.say({"failed": number, "problem": f"worker {os.getpid()}: {type(error).__name__}: {error}"})
        else:
            self.say({"staged": number})

    def commit(self, number: int) -> None:
        if self.staged is None or self.staged[0] != number:
            return  # it was not staged here: this worker began with it
        generation = self.staged[1]
        self.staged = None
        config, before = generation.config, self.config
        try:
            level = logs.level_name()
            self.gateway.swap(generation)
            if (config.log.level, config.log.format) != (before.log.level, before.log.format):
                logs.configure(config.log.level, config.log.format)
            elif level != config.log.level:
                # The operator has set another level at run time; it holds for the new filters too.
                for plugin in generation.chains.plugins:  # type: ignore[attr-defined]
                    plugin.set_log_level(level)
            self.config = config
            self.committed(config)
        except Exception:
            # Half of it may be in place: a successor begins with the whole.
            log.critical("a reload failed at its last step: the worker starts again", exc_info=True)
            logs.output.writer.attach(None)
            os._exit(EXIT_CRASH)
        self.say({"committed": number})
        log.info("generation serves", generation=generation.number)

    async def drop(self) -> None:
        staged, self.staged = self.staged, None
        if staged is not None:
            await self.gateway.drop(staged[1])
            tidy()

    def say(self, message: dict[str, Any]) -> None:
        self.channel.sendall(json.dumps(message).encode() + b"\n")


def tidy() -> None:
    """A generation is gone: what was frozen of it is garbage now, and what serves is not (see worker.py)."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
