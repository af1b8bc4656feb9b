"""The admin process's view of the workers: asked every second, and afresh when someone looks."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from proxy.admin.aggregate import Aggregate, WorkerKey
from proxy.server.control import control_path
from proxy.server.scoreboard import Scoreboard, WorkerRecord, WorkerState
from proxy.sharing.quarantine import QuarantineBoard
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

    def __init__(self, scoreboard: Scoreboard, directory: Path, quarantine: QuarantineBoard) -> None:
        self.scoreboard = scoreboard
        self.quarantine = quarantine
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
        for name in self.quarantine.names:
            instruments.quarantined.child((name,)).set(float(self.quarantine.is_out(name)))
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
        filters = summary({entry["slot"]: entry["filters"] for entry in workers})
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

    def filters(self) -> dict[str, Any]:
        """For /filters: each filter's state, why it is in quarantine, and its last faults in all workers, newest first."""
        records = self.scoreboard.workers()
        states = summary({record.slot: self.states.get(record.key, {}).get("filters", {}) for record in records})
        found = {}
        for name in self.quarantine.names:
            quarantined = self.quarantine.quarantined(name)
            found[name] = {
                **states.get(name, {"state": "unknown", "degraded_workers": []}),
                "quarantine": None if quarantined is None else quarantined._asdict(),
                "traps": [{"worker": worker, **trap._asdict()} for worker, trap in self.quarantine.traps(name)],
            }
        return found

    def resume(self, name: str) -> bool | None:
        """Let a filter in again, in all workers; False if it was not in quarantine, None if there is none of that name."""
        if name not in self.quarantine.names:
            return None
        was = self.quarantine.resume(name)
        log.warning("filter_resumed", filter=name, was_quarantined=was)
        return was


def summary(workers: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The filters' states in all workers as one for each: `workers` is slot -> filter -> state."""
    filters: dict[str, dict[str, Any]] = {}
    for slot, states in workers.items():
        for name, state in states.items():
            shown = filters.setdefault(name, {"state": "ready", "degraded_workers": []})
            if state.get("state") != "ready":
                if shown["state"] != "quarantined":
                    shown.update(state)
                shown["degraded_workers"].append(slot)
    return filters
