"""Reloads, as the supervisor runs them: one at a time, all or nothing, without blocking and without touching Wasm.

    trigger -> a child prepares and checks a revision (preparer.py)
            -> every worker starts it beside what serves (staging.py); if one cannot, all drop it
            -> every worker swaps; a worker that starts from here on begins with it

A trigger that comes while a reload runs waits for the next one, with all others that came meanwhile. Workers are not started
between the two steps, so that there is none that knows of only one.
"""

import json
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.config.filter import with_versions
from proxy.config.model import Config
from proxy.server import reload_status
from proxy.server.contexts import Child
from proxy.server.process import fork
from proxy.server.reload_status import Outcome
from proxy.server.revision import Revision, load, new_memory
from proxy.server.watched_files import Signature, signature, watched_files
from proxy.telemetry import logging as logs

if TYPE_CHECKING:
    from proxy.server.supervisor import Supervisor

log = logs.get_logger("reload")

PREPARE_SECONDS = 900.0
"""For reading, compiling (each filter has its limits.compile_time) and a first start."""
STAGE_SECONDS = 60.0
"""For starting it in the workers, beside what the filters' own deadlines allow."""
COMMIT_SECONDS = 10.0
REPEAT_SECONDS = 60.0
"""A refusal that says the same as the one before is logged this seldom."""
SPARE_SPACES = 32
"""Spaces of shared data for filters that only a reload brings."""

Reply = Callable[[dict[str, Any]], None]


@dataclass
class Run:
    """A reload under way. `number`: no other has had it; `step`: prepare, stage, commit."""

    number: int
    trigger: str
    replies: list[Reply]
    must_differ: bool
    deadline: float
    begun: float = field(default_factory=time.monotonic)
    step: str = "prepare"
    pid: int = 0
    pipe: int = -1
    said: bytearray = field(default_factory=bytearray)
    changes: list[str] = field(default_factory=list)
    revision: Revision | None = None
    memory: int = -1
    """Where the revision is."""
    waiting: list[Child] = field(default_factory=list)


class Reloading:
    """The supervisor's part of it."""

    def __init__(
        self, supervisor: "Supervisor", prepare: Callable[..., dict[str, Any]], fingerprint: str, config_path: Path
    ) -> None:
        self.supervisor = supervisor
        self.prepare = prepare
        self.fingerprint = fingerprint
        self.config_path = config_path
        self.number = 1
        """Of the generation that serves."""
        self.tried = 0
        """Reloads that were begun."""
        self.memory = -1
        """Where the revision that serves is; -1 before the first reload."""
        self.run: Run | None = None
        self.wanted: list[tuple[str, Reply | None]] = []
        self.diffs: list[tuple[Path, Reply]] = []
        self.last: Outcome | None = None
        self.counts = {"ok": 0, "unchanged": 0, "refused": 0}
        self.logged: tuple[float, list[str]] = (0.0, [])
        self.watched = watched_files(config_path)
        self.looked: Signature = signature(self.watched)
        """How they looked before they were read last."""

    # ---- Triggers ----

    def ask(self, trigger: str, reply: Reply | None = None) -> None:
        """Reload soon; `reply` hears what became of it."""
        if self.supervisor.draining:
            if reply is not None:
                reply(self.refusal(trigger, ["the gateway is stopping; start it again"]).as_dict())
            return
        self.wanted.append((trigger, reply))
        self.begin()

    def begin(self) -> None:
        """The next reload, if one is wanted and none runs. Not before everything has served once."""
        supervisor = self.supervisor
        if self.run is not None or not supervisor.announced or supervisor.draining:
            return
        if self.wanted:
            wanted, self.wanted = self.wanted, []
            triggers = [trigger for trigger, _ in wanted]
            trigger = next((one for one in triggers if one != "files"), "files")
            self.start(trigger, [reply for _, reply in wanted if reply is not None], self.config_path)
        elif self.diffs:
            path, reply = self.diffs.pop(0)
            self.start("diff", [reply], path)

    def start(self, trigger: str, replies: list[Reply], path: Path) -> None:
        """Have a child prepare it."""
        supervisor = self.supervisor
        self.tried += 1
        run = self.run = Run(self.tried, trigger, replies, trigger in ("files", "diff"), time.monotonic() + PREPARE_SECONDS)
        log.debug("reload begins", trigger=trigger)
        run.memory = new_memory()
        read_end, write_end = os.pipe()

        def body() -> int:
            os.close(read_end)
            supervisor.leave_supervisor(None)
            watched = watched_files(path)
            looked = signature(watched)
            sharing = {} if supervisor.sharing is None else supervisor.sharing.limits
            found = self.prepare(
                path, supervisor.config, self.fingerprint, sharing, run.memory, self.number + 1, run.must_differ
            )
            found |= {"watched": sorted(map(str, watched)), "looked": looked}
            with open(write_end, "wb") as file:
                file.write(json.dumps(found).encode())
            return 0

        run.pid = fork(body)
        os.close(write_end)
        run.pipe = read_end
        supervisor.selector.register(read_end, selectors.EVENT_READ, self.on_prepared)

    # ---- Steps ----

    def on_prepared(self) -> None:
        """The preparer has said more, or all."""
        run = self.run
        assert run is not None
        data = os.read(run.pipe, 1 << 16)
        if data:
            run.said += data
            return
        status = self.end_preparer(run)
        try:
            found = json.loads(run.said)
        except ValueError:
            reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            self.fail([f"the check of the new config ended with {reason}; see the log"])
            return
        if run.trigger == "diff":
            result = "diff" if found["result"] != "refused" else "refused"
            self.finish(Outcome(result, run.trigger, self.number, found["problems"], found["changes"]))
            return
        self.looked = {path: tuple(looks) for path, looks in found["looked"].items()}
        self.watch({Path(path) for path in found["watched"]})
        run.changes = found["changes"]
        if found["result"] == "ok":
            self.stage(run)
        elif found["result"] == "unchanged":
            self.finish(Outcome("unchanged", run.trigger, self.number))
        else:
            self.fail(found["problems"])

    def end_preparer(self, run: Run) -> int:
        """Its exit status, once it has ended."""
        self.supervisor.selector.unregister(run.pipe)
        os.close(run.pipe)
        run.pipe = -1
        _, status = os.waitpid(run.pid, 0)
        run.pid = 0
        return os.waitstatus_to_exitcode(status)

    def stage(self, run: Run) -> None:
        """Have every worker start it."""
        supervisor = self.supervisor
        found = run.revision = load(run.memory)
        try:
            if supervisor.sharing is not None:
                supervisor.sharing.extend(found.spaces)
            # Those that go stay until it is sure that they do.
            supervisor.quarantine.assign(list(dict.fromkeys([*names(supervisor.config), *names(found.config)])))
        except (OSError, ValueError) as error:
            self.fail([f"no room in what the processes share: {error}; restart the gateway"])
            return
        supervisor.silence.allow(supervisor.config, found.config)
        run.step = "stage"
        run.deadline = time.monotonic() + STAGE_SECONDS + 10 * sum(one.limits.start_deadline for one in found.config.filters)
        run.waiting = supervisor.workers()
        made = {} if supervisor.sharing is None else supervisor.sharing.limits
        spaces = [(space.hex(), limits.data_bytes, limits.items) for space, limits in made.items()]
        for child in list(run.waiting):
            supervisor.tell(child, {"do": "stage", "number": run.number, "spaces": spaces}, run.memory)
        if not run.waiting:
            self.commit(run)

    def commit(self, run: Run) -> None:
        """All could: from here on it is what the gateway serves with."""
        supervisor, found = self.supervisor, run.revision
        assert found is not None
        before, config = supervisor.config, found.config
        run.step = "commit"
        run.deadline = time.monotonic() + COMMIT_SECONDS
        supervisor.config = config
        self.number = found.number
        if self.memory >= 0:
            os.close(self.memory)
        self.memory, run.memory = run.memory, -1
        self.fingerprint = found.fingerprint
        supervisor.silence.allow(config)
        supervisor.quarantine.assign(names(config))
        run.waiting = supervisor.workers()
        for child in list(run.waiting):
            supervisor.tell(child, {"do": "commit", "number": run.number})
        if (config.log.level, config.log.format) != (before.log.level, before.log.format):
            supervisor.scoreboard.log_level = ""
            logs.configure(config.log.level, config.log.format)
        if not run.waiting:
            self.committed(run)

    def committed(self, run: Run) -> None:
        outcome = Outcome("ok", run.trigger, self.number, changes=run.changes)
        supervisor, found = self.supervisor, run.revision
        assert found is not None
        self.finish(outcome)
        supervisor.config_changed()

    def fail(self, problems: list[str]) -> None:
        """What served goes on."""
        run, supervisor = self.run, self.supervisor
        assert run is not None
        if run.step == "stage":
            for child in supervisor.workers():
                supervisor.tell(child, {"do": "drop", "number": run.number})
        if run.revision is not None:
            supervisor.quarantine.assign(names(supervisor.config))
            supervisor.silence.allow(supervisor.config)
        self.finish(self.refusal(run.trigger, problems))

    def refusal(self, trigger: str, problems: list[str]) -> Outcome:
        return Outcome("refused", trigger, self.number, problems)

    def finish(self, outcome: Outcome) -> None:
        run, self.run = self.run, None
        assert run is not None
        outcome.seconds = round(time.monotonic() - run.begun, 3)
        if run.memory >= 0:
            os.close(run.memory)
        if run.trigger != "diff":
            self.note(outcome)
        for reply in run.replies:
            reply(outcome.as_dict())
        self.begin()

    def note(self, outcome: Outcome) -> None:
        """For the log, the pages and the metrics."""
        self.counts[outcome.result] += 1
        self.last = outcome
        try:
            reload_status.write(self.supervisor.control_directory, self.number, outcome, self.counts)
        except OSError as error:
            log.error("the outcome of a reload cannot be told to the admin process", reason=str(error))
        self.tell(outcome)

    def tell(self, outcome: Outcome) -> None:
        """On the log."""
        facts = {"trigger": outcome.trigger, "generation": outcome.generation, "seconds": outcome.seconds}
        if outcome.result == "ok":
            log.info("reloaded", changes=outcome.changes, **facts)
        elif outcome.result == "unchanged":
            log.debug("reload: nothing has changed", **facts)
        else:
            now = time.monotonic()
            when, problems = self.logged
            if outcome.trigger == "files" and problems == outcome.problems and now - when < REPEAT_SECONDS:
                return
            self.logged = now, outcome.problems
            log.error("reload refused", problems=outcome.problems, **facts)

    # ---- Workers ----

    def heard(self, child: Child, message: dict[str, Any]) -> None:
        """A worker's answer."""
        run = self.run
        if run is None or child not in run.waiting or run.number not in message.values():
            return  # of a reload that is over
        if "failed" in message:
            self.fail([message["problem"]])
        elif ("staged" in message) == (run.step == "stage"):
            self.done(run, child)

    def done(self, run: Run, child: Child) -> None:
        run.waiting.remove(child)
        if not run.waiting:
            if run.step == "stage":
                self.commit(run)
            else:
                self.committed(run)

    def worker_ended(self, child: Child, reason: str) -> None:
        """It may be the new filters that have killed it."""
        run = self.run
        if run is None or child not in run.waiting:
            return
        if run.step == "stage":
            self.fail([f"{child.name} died as it started the new filters: {reason}; see the log"])
        else:
            self.done(run, child)  # its successor begins with the new generation

    @property
    def holds_starts(self) -> bool:
        """Between the two steps no worker may start."""
        return self.run is not None and self.run.step == "stage"

    def left_in(self, child: Child) -> None:
        """In a child that was forked meanwhile: close what is not for it. A worker needs the revision that serves."""
        if self.run is not None:
            for descriptor in (self.run.pipe, self.run.memory):
                if descriptor >= 0:
                    os.close(descriptor)
        if child.slot is None and self.memory >= 0:
            os.close(self.memory)

    # ---- Time ----

    def deadline(self) -> float | None:
        return None if self.run is None else self.run.deadline

    def tick(self, now: float) -> None:
        """Give up what takes too long."""
        run = self.run
        if run is None or now < run.deadline:
            return
        if run.step == "commit":
            late = [child.name for child in run.waiting]
            log.error("workers do not swap: they start again", workers=late)
            self.supervisor.kill(run.waiting)
            self.committed(run)
            return
        if run.step == "prepare":
            os.kill(run.pid, signal.SIGKILL)
            self.end_preparer(run)
        self.fail([f"the new config was not ready in {round(now - run.begun)} s ({run.step})"])

    def abort(self) -> None:
        """The gateway stops."""
        run = self.run
        if run is not None:
            if run.step == "prepare":
                os.kill(run.pid, signal.SIGKILL)
                self.end_preparer(run)
            if run.step == "commit":
                self.committed(run)
            else:
                self.fail(["the gateway is stopping"])
        for trigger, reply in self.wanted:
            if reply is not None:
                reply(self.refusal(trigger, ["the gateway is stopping"]).as_dict())
        for _, reply in self.diffs:
            reply(self.refusal("diff", ["the gateway is stopping"]).as_dict())
        self.wanted.clear()
        self.diffs.clear()

    # ---- Files ----

    def watch(self, paths: set[Path]) -> None:
        """What the config names has changed: watch that."""
        if paths != self.watched:
            self.watched = paths
            self.supervisor.restart_watcher()


def names(config: Config) -> list[str]:
    return [one.name for one in with_versions(config.filters)]


def told(path: Path, own: Path) -> Path:
    """A config's absolute path, relative to the working directory if the gateway's own is: then what it names is told in the
    same way, and does not count as changed."""
    return path if own.is_absolute() else Path(os.path.relpath(path))


def answer(reloading: Reloading, question: dict[str, Any], reply: Reply) -> None:
    """To whoever asks over the unix socket."""
    if question.get("do") == "reload":
        reloading.ask("admin" if question.get("from") == "admin" else "command", reply)
    elif question.get("do") == "diff":
        path = question.get("config")
        reloading.diffs.append((reloading.config_path if path is None else told(Path(path), reloading.config_path), reply))
        reloading.begin()
    elif question.get("do") == "leave":
        reply({"leaving": True})
        reloading.supervisor.leave()
    else:
        reply({"error": "the question is not known"})


def answering(reloading: Reloading) -> Callable[[dict[str, Any], Reply], None]:
    return partial(answer, reloading)
