"""The admin process's view of the workers: asked every second, and afresh when someone looks."""

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp

from proxy.admin.aggregate import Aggregate, WorkerKey
from proxy.server.control import control_path
from proxy.server.scoreboard import Scoreboard, WorkerRecord, WorkerState
from proxy.telemetry.instruments import ProcessInstruments
from proxy.telemetry.logging import get_logger, limited
from proxy.telemetry.metrics import Registry, Snapshot, merge

log = get_logger("admin")

POLL_SECONDS = 1.0
ASK_SECONDS = 0.5
SILENT_SECONDS = 3.0
"""A worker that has not answered for so long is shown as unresponsive, whatever the supervisor says."""


class Workers:
    """Asks the workers' control sockets; answers from what it knows when they do not."""

    def __init__(self, scoreboard: Scoreboard, directory: Path) -> None:
        self.scoreboard = scoreboard
        self.directory = directory
        self.aggregate = Aggregate(directory / "base.json")
        self.states: dict[WorkerKey, dict[str, Any]] = {}
        self.heard: dict[WorkerKey, float] = {}
        self.asking: asyncio.Task[None] | None = None

    async def poll(self) -> None:
        """Ask all workers again and again, for ever."""
        while True:
            try:
                await self.ask_all()
            except Exception:
                if not limited("admin poll", 0.1):
                    log.exception("asking the workers failed")
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self) -> None:
        """Have every worker asked now, at most 500 ms long. Whoever looks meanwhile waits for the same answers."""
        if self.asking is None or self.asking.done():
            self.asking = asyncio.create_task(self.ask_all())
        await asyncio.wait([self.asking], timeout=ASK_SECONDS + 0.1)

    async def ask_all(self) -> None:
        records = self.scoreboard.workers()
        living = {record.key for record in records if record.pid}
        self.aggregate.follow(living)
        for known in (self.states, self.heard):
            for key in known.keys() - living:
                del known[key]
        asked = [record for record in records if record.state in (WorkerState.SERVING, WorkerState.DRAINING)]
        await asyncio.gather(*(self.ask(record) for record in asked))

    async def ask(self, record: WorkerRecord) -> None:
        """Take the worker's snapshot and state, if it answers within 500 ms."""
        path = control_path(self.directory, record.slot, record.pid)
        connector = aiohttp.UnixConnector(str(path), force_close=False)
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                async with session.get("http://worker/snapshot") as response:
                    self.aggregate.update(record.key, await response.json())
                async with session.get("http://worker/state") as response:
                    self.states[record.key] = await response.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if record.state is WorkerState.SERVING and not limited(("worker silent", record.slot), 0.1):
                log.warning("worker does not answer", slot=record.slot, pid=record.pid, error=repr(error))
            return
        self.heard[record.key] = time.monotonic()

    def snapshot(self) -> Snapshot:
        """The workers' sums and what the supervisor counts."""
        registry = Registry()
        instruments = ProcessInstruments(registry)
        for record in self.scoreboard.workers():
            instruments.worker_restarts.child(()).inc(record.restarts)
            instruments.workers.child((self.word(record),)).inc()
        return merge([self.aggregate.total(), registry.snapshot()])

    def word(self, record: WorkerRecord) -> str:
        """dead, starting, serving, draining or unresponsive."""
        if record.state is WorkerState.SERVING:
            heard = self.heard.get(record.key, record.started)
            if time.monotonic() - heard > SILENT_SECONDS:
                return "unresponsive"
        return record.state.name.lower()

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether this gateway should get traffic, and why.

        Ready while at least one worker serves and the gateway does not drain. A filter that has failed makes the answer
        "degraded", not unready: it has most likely failed on every machine, and a part's failure would become the
        whole's.
        """
        workers = []
        for record in self.scoreboard.workers():
            entry: dict[str, Any] = {
                "slot": record.slot,
                "pid": record.pid or None,
                "state": self.word(record),
                "restarts": record.restarts,
                "uptime_seconds": round(record.uptime, 3),
                "filters": self.states.get(record.key, {}).get("filters", {}),
            }
            workers.append(entry)
        filters: dict[str, dict[str, Any]] = {}
        for entry in workers:
            for name, state in entry["filters"].items():
                shown = filters.setdefault(name, {"state": "ready", "degraded_workers": []})
                if state.get("state") != "ready":
                    shown.update(state)
                    shown["degraded_workers"].append(entry["slot"])
        serving = sum(entry["state"] == "serving" for entry in workers)
        if self.scoreboard.draining:
            status = "draining"
        elif not serving:
            status = "not serving"
        elif serving < len(workers) or any(state["degraded_workers"] for state in filters.values()):
            status = "degraded"
        else:
            status = "ready"
        body = {"status": status, "serving": serving, "workers": workers, "filters": filters}
        return status in ("ready", "degraded"), body
