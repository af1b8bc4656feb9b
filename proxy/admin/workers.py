"""The admin process's view of the workers: asked every second, and afresh when someone looks."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from proxy.admin.aggregate import Aggregate, WorkerKey
from proxy.admin.figures import Figures
from proxy.server import reload_status
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
        self.details: dict[WorkerKey, dict[str, Any]] = {}
        self.asking: dict[bool, asyncio.Task[None]] = {}
        """What is under way: with details, and without."""
        self.tap: TapWish | None = None
        """What the operator wants to see of streams; a worker that starts meanwhile is told too."""
        self.adopts = True
        """This process has just started: what its predecessor has told the workers holds."""

    async def poll(self) -> None:
        """Ask all workers again and again, for ever."""
        while True:
            try:
                await self.ask_all(detailed=self.adopts or self.tap is not None)
                self.adopts = False
            except Exception:
                if not limited("admin poll", 0.1):
                    log.exception("asking the workers failed")
            await asyncio.sleep(POLL_SECONDS)

    async def refresh(self, detailed: bool = False) -> None:
        """Have every worker asked now, at most 500 ms long. Whoever looks meanwhile waits for the same answers. `detailed`:
        about filters, clusters and routes too."""
        task = self.asking.get(detailed)
        if task is None or task.done():
            task = self.asking[detailed] = asyncio.create_task(self.ask_all(detailed))
        await asyncio.wait([task], timeout=ASK_SECONDS + 0.1)

    async def ask_all(self, detailed: bool = False) -> None:
        records = self.scoreboard.workers()
        living = {record.key for record in records if record.pid}
        self.aggregate.follow(living)
        for known in (self.states, self.heard, self.details):
            for key in known.keys() - living:
                del known[key]
        await asyncio.gather(*(self.ask(record, detailed) for record in self.answering()))

    def answering(self) -> list[WorkerRecord]:
        """The workers that can be asked."""
        return [one for one in self.scoreboard.workers() if one.state in (WorkerState.SERVING, WorkerState.DRAINING)]

    def session(self, record: WorkerRecord) -> aiohttp.ClientSession:
        path = control_path(self.directory, record.slot, record.pid)
        connector = aiohttp.UnixConnector(str(path), force_close=False)
        return aiohttp.ClientSession("http://worker", connector=connector, timeout=aiohttp.ClientTimeout(total=ASK_SECONDS))

    async def ask(self, record: WorkerRecord, detailed: bool) -> None:
        """Take the worker's snapshot and state, if it answers within 500 ms."""
        try:
            async with self.session(record) as session:
                async with session.get("/snapshot") as response:
                    self.aggregate.update(record.key, await response.json())
                async with session.get("/state") as response:
                    self.states[record.key] = await response.json()
                if detailed:
                    async with session.get("/detail") as response:
                        if response.status == 200:
                            self.details[record.key] = await response.json()
                            await self.tell_tap(record, session)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if record.state is WorkerState.SERVING and not limited(("worker silent", record.slot), 0.1):
                log.warning("worker does not answer", slot=record.slot, pid=record.pid, error=repr(error))
            return
        self.heard[record.key] = time.monotonic()

    async def call(self, slot: int, method: str, path: str, body: object = None) -> Any:
        """What one worker answers; None if it does not, or knows nothing of it."""
        for record in self.answering():
            if record.slot == slot:
                try:
                    async with self.session(record) as session, session.request(method, path, json=body) as response:
                        return await response.json() if response.status == 200 else None
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                    return None
        return None

    async def call_all(self, method: str, path: str, body: object = None) -> dict[int, Any]:
        """What each worker that can be asked answers, by slot."""
        slots = [record.slot for record in self.answering()]
        answers = await asyncio.gather(*(self.call(slot, method, path, body) for slot in slots))
        return {slot: answer for slot, answer in zip(slots, answers, strict=True) if answer is not None}

    # The tap

    async def set_tap(self, seconds: float, sample: float, bodies: bool) -> None:
        """Have all workers keep streams for so long; 0: stop."""
        self.adopts = False
        self.tap = TapWish(time.monotonic() + seconds, sample, bodies) if seconds else None
        if self.tap is None:
            await self.call_all("DELETE", "/tap")
        else:
            await self.call_all("PUT", "/tap", self.tap.body())

    async def tell_tap(self, record: WorkerRecord, session: aiohttp.ClientSession) -> None:
        """Tell a worker that does not know it yet."""
        there = self.details[record.key]["tap"]
        if self.adopts and there["on"]:
            self.tap = TapWish(time.monotonic() + there["seconds_left"], there["sample"], there["bodies"])
        if self.tap is not None and self.tap.left() <= 0:
            self.tap = None
        if self.tap is not None and not self.details[record.key]["tap"]["on"]:
            async with session.put("/tap", json=self.tap.body()) as response:
                self.details[record.key]["tap"] = await response.json()

    def snapshot(self) -> Snapshot:
        """The workers' sums and what the supervisor counts."""
        registry = Registry()
        instruments = ProcessInstruments(registry)
        for record in self.scoreboard.workers():
            instruments.worker_restarts.child(()).inc(record.restarts)
            instruments.workers.child((self.word(record),)).inc()
        for name in self.quarantine.names:
            instruments.quarantined.child((name,)).set(float(self.quarantine.is_out(name)))
        reloads = reload_status.read(self.directory)
        instruments.generation.child(()).set(reloads["generation"])
        for result, number in reloads["counts"].items():
            instruments.reloads.child((result,)).inc(number)
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
        if self.scoreboard.draining or self.scoreboard.unready:
            status = "draining"
        elif not serving:
            status = "not serving"
        elif serving < len(workers) or any(state["degraded_workers"] for state in filters.values()):
            status = "degraded"
        else:
            status = "ready"
        reloads = reload_status.read(self.directory)
        body = {
            "status": status,
            "serving": serving,
            "generation": reloads["generation"],
            "reload": reloads["last"],
            "workers": workers,
            "filters": filters,
        }
        return status in ("ready", "degraded"), body

    def filter_states(self) -> list[Mapping[str, Any]]:
        """What each worker says of its filters."""
        return [state.get("filters", {}) for state in self.states.values()]

    def filters(self) -> dict[str, Any]:
        """For /filters: each filter's state, why it is in quarantine, and its last faults in all workers, newest first."""
        records = self.scoreboard.workers()
        states = summary({record.slot: self.states.get(record.key, {}).get("filters", {}) for record in records})
        facts = {one["name"]: one for detail in self.details.values() for one in detail["filters"]}
        figures = Figures(self.snapshot())
        found = {}
        for name in self.quarantine.names:
            quarantined = self.quarantine.quarantined(name)
            found[name] = {
                **facts.get(name, {"name": name}),
                **states.get(name, {"state": "unknown", "degraded_workers": []}),
                "figures": figures.of_filter(name),
                "quarantine": None if quarantined is None else quarantined._asdict(),
                "traps": [{"worker": worker, **trap._asdict()} for worker, trap in self.quarantine.traps(name)],
            }
        return found

    def clusters(self) -> list[dict[str, Any]]:
        """Each cluster with its endpoints; connections are sums, an endpoint is down if a worker could not reach it last."""
        found: dict[str, dict[str, Any]] = {}
        for detail in self.details.values():
            for cluster in detail["clusters"]:
                known = found.setdefault(cluster["name"], {**cluster, "connections": 0, "pending": 0, "endpoints": {}})
                known["connections"] += cluster["connections"]
                known["pending"] += cluster["pending"]
                for endpoint in cluster["endpoints"]:
                    before = known["endpoints"].get(endpoint["address"])
                    known["endpoints"][endpoint["address"]] = endpoint if before is None else joined(before, endpoint)
        return [{**cluster, "endpoints": list(cluster["endpoints"].values())} for cluster in found.values()]

    def routes(self) -> list[dict[str, Any]]:
        """The routes in order, as the worker has them that answered last."""
        return next((detail["routes"] for detail in reversed(self.details.values())), [])

    async def take_out(self, name: str, reason: str) -> bool:
        """Put a filter in quarantine, in all workers: one of them writes it down, the others follow. False if none did."""
        for record in self.answering():
            if await self.call(record.slot, "POST", "/quarantine", {"filter": name, "reason": reason}) is not None:
                return True
        return False

    def resume(self, name: str) -> bool | None:
        """Let a filter in again, in all workers; False if it was not in quarantine, None if there is none of that name."""
        if name not in self.quarantine.names:
            return None
        was = self.quarantine.resume(name)
        log.warning("filter_resumed", filter=name, was_quarantined=was)
        return was


class TapWish(NamedTuple):
    """Until when (time.monotonic()) streams shall be kept, and which."""

    ends: float
    sample: float
    bodies: bool

    def left(self) -> float:
        return self.ends - time.monotonic()

    def body(self) -> dict[str, Any]:
        return {"seconds": max(self.left(), 0.1), "sample": self.sample, "bodies": self.bodies}


ORDER = ("unknown", "up", "down")


def joined(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """One endpoint as two workers see it."""
    worse = max(left, right, key=lambda one: ORDER.index(one["state"]))
    sums = {name: left[name] + right[name] for name in ("idle_connections", "failures")}
    return {**worse, **sums}


def summary(workers: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The filters' states in all workers as one for each: `workers` is slot -> filter -> state."""
    filters: dict[str, dict[str, Any]] = {}
    for slot, states in workers.items():
        for name, state in states.items():
            shown = filters.setdefault(name, {"state": "ready", "degraded_workers": []})
            for more in ("canary", "shadow", "probe"):
                if more in state:
                    shown.setdefault(more, state[more])
            if state.get("state") != "ready":
                if shown["state"] != "quarantined":
                    shown.update(state)
                shown["degraded_workers"].append(slot)
    return filters
