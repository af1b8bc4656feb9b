"""The process that `penstock run` starts: it opens the sockets, forks the others, and starts again what dies.

It is single-threaded and synchronous, and never makes a Wasm engine: threads and engines do not survive a fork. Each
worker slot has its own listening sockets, which stay open here: connections that arrive while a slot has no worker wait
in its queue for the successor.

Signals may come to the whole process group (a terminal, `timeout`, a service manager): a worker takes SIGTERM as often as it
comes for the same thing, and only the supervisor tells it to end now, by another signal (process.STOP_NOW).

SIGHUP, a changed file and `penstock reload` make it reload (reloading.py).

Exit status: 0 after SIGTERM or SIGINT (also a second one, and also when the grace ran out), 1 if it could not serve (an
address in use, workers that can not start), 2 if the config or a filter is wrong.
"""

import gc
import json
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from proxy.config.filter import with_versions
from proxy.config.model import Config
from proxy.server.asking import ABOUT, Asked, NotRunningError
from proxy.server.children import children_of
from proxy.server.contexts import EXIT_CANNOT_SERVE, EXIT_OK, EXIT_WRONG_CONFIG, Child, Parts
from proxy.server.handover import Takeover
from proxy.server.handover import takeover as take_over
from proxy.server.listening import Listening
from proxy.server.overload import take_files
from proxy.server.private_directory import make_private_directory
from proxy.server.process import EXIT_START_FAILED, STOP_NOW, has_terminal
from proxy.server.processes import Processes
from proxy.server.reloading import SPARE_SPACES, Reloading, answering
from proxy.server.scoreboard import Scoreboard, WorkerRecord, WorkerState
from proxy.server.silence import Silence
from proxy.server.sockets import ListenError, check_free, split_address
from proxy.sharing.quarantine import QuarantineBoard
from proxy.sharing.store import SharedStore
from proxy.telemetry import logging as logs

log = logs.get_logger("supervisor")

HINT = "curl -i {url}/"
"""What to try in demo mode."""

QUICK_DEATH_SECONDS = 10.0
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0
START_ATTEMPTS = 3
"""Workers that die before the gateway has ever served, all slots together, until it gives up."""

GRACE_MARGIN_SECONDS = 2.0
"""A worker ends its streams itself when the grace is over; one that has not by then is killed."""

SECOND_SIGNAL_SECONDS = 0.5
SAME_SIGNAL_SECONDS = 0.1
"""`timeout` signals its child and then its whole group: what comes so soon after the first signal is that one again."""

HELPERS_STOP_SECONDS = 1.0

REPLACE_SECONDS = 0.3
"""After a reload, until the admin process is replaced: it may be answering whoever asked for that."""

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def run(
    config: Config,
    config_path: Path | str,
    demo: bool = False,
    hint: str | None = None,
    parts: Parts | None = None,
    takeover: bool = False,
) -> int:
    """Serve `config` until told to stop; gives the exit status. Call from a process's only thread. `takeover`: in the place of
    the gateway that runs with this config, if one does."""
    parts = parts or Parts()
    logs.configure(config.log.level, config.log.format)
    try:
        problems = list(map(str, pkgutil.resolve_name(parts.prepare)(config) or ()))
    except KeyboardInterrupt:
        return EXIT_OK
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return EXIT_WRONG_CONFIG
    take_files()
    with ExitStack() as stack:
        try:
            taken = take_over(Path(config_path)) if takeover else None
            if taken is not None:
                stack.callback(taken.close)
                if problems := list(map(str, taken.problems(config, config.worker_count()))):
                    print("\n".join(problems), file=sys.stderr)
                    return EXIT_WRONG_CONFIG
            supervisor = Supervisor(config, config_path, demo, parts, stack, taken)
            supervisor.hint = hint or HINT
        except (ListenError, NotRunningError, OSError) as error:
            print(f"penstock: {error}", file=sys.stderr)
            return EXIT_CANNOT_SERVE
        return supervisor.run()


def backoff(quick_deaths: int) -> float:
    """Seconds to wait before the next start, after this many deaths in a row each soon after a start."""
    if quick_deaths == 0:
        return 0.0
    return min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(quick_deaths - 1, 16))


class Supervisor(Processes):
    """Sockets, children and the loop over their signals. Everything that must be undone is left with `stack`."""

    def __init__(
        self,
        config: Config,
        config_path: Path | str,
        demo: bool,
        parts: Parts,
        stack: ExitStack,
        taken: Takeover | None = None,
    ) -> None:
        super().__init__()
        self.config = self.first = config
        self.config_path = str(config_path)
        self.slots = config.worker_count()
        self.draining = False
        self.announced = False
        self.helpers_told = False
        self.failed_starts = 0
        self.exit_status = EXIT_OK
        self.drained_at = 0.0
        self.kill_at: float | None = None
        self.hint = HINT
        self.terminal = has_terminal()
        self.demo_address = config.clusters[0].endpoints[0] if demo else None
        if self.demo_address is not None:
            check_free(str(self.demo_address))
        self.taken = taken
        self.listening = Listening(config, self.slots, taken, stack)
        self.scoreboard = Scoreboard(self.slots)
        self.quarantine = QuarantineBoard([one.name for one in with_versions(config.filters)], self.slots)
        self.control_directory = make_private_directory(Path(config_path))
        stack.callback(shutil.rmtree, self.control_directory, ignore_errors=True)
        self.sharing: SharedStore | None = pkgutil.resolve_name(parts.sharing)(config, self.slots, SPARE_SPACES)
        if self.sharing is not None:
            stack.callback(self.sharing.close)
        self.reloading = Reloading(
            self, pkgutil.resolve_name(parts.reload), pkgutil.resolve_name(parts.fingerprint)(config), Path(config_path)
        )
        self.children = children_of(self, parts)
        self.silence = Silence(config, self.scoreboard, self.children, self.kill)
        self.asked = Asked(self.control_directory, self.selector, answering(self.reloading), self.hand_over)
        stack.callback(self.asked.close)
        self.wakeup_read, self.wakeup_write = socket.socketpair()
        for end in (self.wakeup_read, self.wakeup_write):
            end.setblocking(False)
            stack.callback(end.close)
        stack.callback(self.selector.close)

    def run(self) -> int:
        """The loop: signals, deaths, readiness, restarts, until every child has ended."""
        # What is loaded by now is never garbage; unfrozen, the collector's marks would unshare its pages in each child.
        gc.collect()
        gc.freeze()
        for number in HANDLED:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self.wakeup_write.fileno(), warn_on_full_buffer=False)
        self.selector.register(self.wakeup_read, selectors.EVENT_READ, self.on_signals)
        try:
            for child in self.children:
                if child.wanted():
                    self.start(child)
            while self.children_alive() or not self.draining:
                self.wait()
            return self.exit_status
        finally:
            signal.set_wakeup_fd(-1)
            for number in HANDLED:
                signal.signal(number, signal.SIG_DFL)
            self.kill(self.children)
            self.reap(block=True)

    def wait(self) -> None:
        """Wait for the next event and do what it asks for."""
        for key, _ in self.selector.select(self.timeout()):
            if self.selector.get_map().get(key.fd) is key:  # else what came before in this turn has closed it
                key.data()
        self.follow_log_level()
        self.reap()
        now = time.monotonic()
        if not self.reloading.holds_starts:
            for child in self.children:
                if child.restart_at is not None and child.restart_at <= now:
                    self.start(child)
        self.reloading.tick(now)
        for child in self.children:
            if child.replace_at is not None and child.replace_at <= now:
                child.replace_at = None
                child.replaced = True
                self.send([child], STOP_NOW)
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = now + 1.0
            alive = [child for child in self.children if child.pid]
            log.warning("killed what did not stop in time", processes=[child.name for child in alive])
            self.kill(alive)
        if self.draining:
            self.stop_helpers()
        else:
            self.silence.watch()
            if not self.announced:
                self.announce()

    def on_signals(self) -> None:
        try:
            numbers = self.wakeup_read.recv(4096)
        except BlockingIOError:
            return  # read by now
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self.stop()
            elif number == signal.SIGHUP:
                if self.terminal and not has_terminal():
                    self.stop()  # it was closed, and whoever started this with it
                else:
                    self.reloading.ask("signal")

    def timeout(self) -> float | None:
        times = [child.restart_at for child in self.children if child.restart_at is not None]
        if self.reloading.holds_starts:
            times.clear()
        times += [child.replace_at for child in self.children if child.replace_at is not None]
        if (deadline := self.reloading.deadline()) is not None:
            times.append(deadline)
        if self.kill_at is not None:
            times.append(self.kill_at)
        if not self.draining:
            times += self.silence.times()
        if not self.announced and not self.draining and self.demo_address is not None:
            times.append(time.monotonic() + 0.02)  # the demo tells nobody that it serves: looked at until it does
        return max(0.0, min(times) - time.monotonic()) if times else None

    def follow_log_level(self) -> None:
        """The operator may have set another level; what is forked from here on has it too."""
        level = self.scoreboard.log_level
        if level and level != logs.level_name():
            logs.set_level(level)

    # Children

    def on_started(self, child: Child) -> None:
        self.show(child, WorkerState.STARTING)

    def on_serving(self, child: Child) -> None:
        if child.slot is not None:
            self.scoreboard.beat(child.slot)
        if not self.draining:
            self.show(child, WorkerState.SERVING)

    def leave_supervisor(self, child: Child | None) -> None:
        """In the child: close what is another process's. A forgotten copy of a socket would keep it listening."""
        self.selector.close()
        self.wakeup_read.close()
        self.wakeup_write.close()
        self.asked.close()
        if child is not None:
            self.reloading.left_in(child)
        for other in self.children:
            if other.ready_fd >= 0 and other is not child:
                os.close(other.ready_fd)
            if other.channel is not None:
                other.channel.close()
        self.listening.keep(child.slot if child is not None else None, child is not None and child.name == "admin")

    def ended(self, child: Child, status: int) -> None:
        """A child has died: plan its successor, unless all is to stop."""
        if child.ready_fd >= 0:
            self.close_ready(child)
        self.close_channel(child)
        lived = time.monotonic() - child.started
        pid, child.pid = child.pid, 0
        # The signal that ended the child may have come here too, and not have been read: then it is no death to mourn.
        self.on_signals()
        served, child.serving = child.serving, False
        self.show(child, WorkerState.DEAD)
        if child.slot is not None and self.sharing is not None:
            self.sharing.worker_ended(child.slot)
        reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        if child.slot is not None:
            self.reloading.worker_ended(child, reason)
        if self.draining or not child.wanted():
            return
        if child.replaced:
            self.start(child)
            return
        if lived >= QUICK_DEATH_SECONDS:
            child.quick_deaths = 0
        delay = backoff(child.quick_deaths)
        child.quick_deaths += 1
        child.restarts += 1
        log.error("process died", process=child.name, pid=pid, reason=reason, lived_s=round(lived, 3), restart_in_s=delay)
        if not self.announced and not served and child.slot is not None:
            self.failed_starts += 1
            if status in (EXIT_START_FAILED, EXIT_WRONG_CONFIG) or self.failed_starts >= START_ATTEMPTS:
                log.critical("workers can not start; giving up", process=child.name)
                self.exit_status = EXIT_WRONG_CONFIG if status == EXIT_WRONG_CONFIG else EXIT_CANNOT_SERVE
                self.stop()
                return
        child.restart_at = time.monotonic() + delay

    def on_line(self, child: Child, line: bytes) -> None:
        """A worker of a reload; the watcher, or whoever looks at sources, of a change."""
        if child.slot is None:
            self.reloading.ask("files")
        else:
            self.reloading.heard(child, json.loads(line))

    # Reloads

    def workers(self) -> list[Child]:
        """Those that live."""
        return [child for child in self.children if child.slot is not None and child.pid]

    def config_changed(self) -> None:
        """After a reload: the processes that read the config only at their start begin again, with the new one. Who asks the
        admin process meanwhile waits in its socket's queue."""
        for child in self.children:
            if child.name == "admin" and child.pid and child.replace_at is None:
                child.replace_at = time.monotonic() + REPLACE_SECONDS
            if child.name == "sources" and child.pid and child.wanted():
                child.replaced = True
                self.send([child], STOP_NOW)
            if child.name in ("watcher", "sources") and bool(child.pid) != child.wanted():
                if child.pid:
                    self.send([child], STOP_NOW)
                elif child.restart_at is None:
                    self.start(child)

    def restart_watcher(self) -> None:
        """Other files are to be watched."""
        for child in self.children:
            if child.name == "watcher" and child.pid:
                child.replaced = True
                self.send([child], STOP_NOW)

    def show(self, child: Child, state: WorkerState) -> None:
        if child.slot is not None:
            self.scoreboard.write(WorkerRecord(child.slot, child.pid, state, child.restarts, child.started))

    # Another gateway in this one's place

    def hand_over(self, sock: socket.socket) -> None:
        """Give it the listening sockets. Both serve, until it says `leave`, or dies."""
        if self.draining:
            return
        self.listening.hand_over(sock)
        log.info("listening sockets handed over")

    def leave(self) -> None:
        """The other serves, and answers on the admin address."""
        log.info("another gateway has taken over")
        if not self.draining:
            self.stop()
        self.send([child for child in self.children if child.name == "admin"], STOP_NOW)

    # Stopping

    def stop(self) -> None:
        """First: stop accepting, let streams finish. Again: now."""
        now = time.monotonic()
        workers = [child for child in self.children if child.slot is not None]
        if self.draining:
            if now - self.drained_at < SAME_SIGNAL_SECONDS:
                return
            log.warning("stopping now")
            self.kill_at = now + SECOND_SIGNAL_SECONDS
            self.send(workers, STOP_NOW)
            return
        log.info("draining", grace_s=self.config.shutdown_grace)
        self.draining = True
        self.reloading.abort()
        self.drained_at = now
        (self.control_directory / ABOUT).unlink(missing_ok=True)  # nobody finds it any more
        self.scoreboard.draining = True
        self.kill_at = now + self.config.shutdown_grace + GRACE_MARGIN_SECONDS
        self.listening.close()
        for child in self.children:
            child.restart_at = None
            if child.pid:
                self.show(child, WorkerState.DRAINING)
        self.send(workers, signal.SIGTERM)

    def stop_helpers(self) -> None:
        """The admin process answers, and the demo serves, until the last stream is over."""
        helpers = [child for child in self.children if child.slot is None and child.pid]
        workers_left = any(child.pid for child in self.children if child.slot is not None)
        if helpers and not workers_left and not self.helpers_told:
            self.helpers_told = True
            self.kill_at = time.monotonic() + HELPERS_STOP_SECONDS
            self.send(helpers, STOP_NOW)

    # Readiness

    def announce(self) -> None:
        """Once everything serves for the first time: one line on standard output."""
        if not all(child.serving or child.name in ("demo", "watcher", "sources") for child in self.children):
            return
        if self.demo_address is not None and not answers(*split_address(str(self.demo_address))):
            return
        self.announced = True
        self.quarantine.served = True
        try:
            os.write(1, f"{self.ready_line()}\n".encode())
        except OSError as error:  # a full disk, a reader that has gone: no reason not to serve
            log.warning("standard output does not take the line that it serves", reason=error.strerror)
        log.info("serving", config=self.config_path, workers=self.slots)
        self.reloading.begin()
        if self.taken is not None:
            try:
                self.taken.leave()
            except (OSError, NotRunningError) as error:
                log.warning("the gateway before this one does not answer", reason=str(error))

    def ready_line(self) -> str:
        text = self.listening.ready_line()
        if self.demo_address is not None:
            text += f"\ntry: {self.hint.format(url=self.listening.urls()[0])}"
        return text


def answers(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.settimeout(0.1)
        return sock.connect_ex((host, port)) == 0
