"""The process that `penstock run` starts: it opens the sockets, forks the others, and starts again what dies.

It is single-threaded and synchronous, and never makes a Wasm engine: threads and engines do not survive a fork. Each
worker slot has its own listening sockets, which stay open here: connections that arrive while a slot has no worker wait
in its queue for the successor.

Signals may come to the whole process group (a terminal, `timeout`, a service manager): a worker takes SIGTERM as often as it
comes for the same thing, and only the supervisor tells it to end now, by another signal (process.STOP_NOW).

Exit status: 0 after SIGTERM or SIGINT (also a second one, and also when the grace ran out), 1 if it could not serve (an
address in use, workers that can not start), 2 if the config or a filter is wrong.
"""

import gc
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from proxy.config.model import Config
from proxy.server.gateway_type import GatewayFactory
from proxy.server.overload import take_files
from proxy.server.process import EXIT_START_FAILED, STOP_NOW, fork
from proxy.server.scoreboard import Scoreboard, WorkerRecord, WorkerState
from proxy.server.sockets import ListenError, bound_address, check_free, open_sockets, split_address
from proxy.sharing.quarantine import QuarantineBoard
from proxy.sharing.store import SharedStore
from proxy.telemetry import logging as logs

log = logs.get_logger("supervisor")

HINT = "curl -i {url}/"
"""What to try in demo mode."""

EXIT_OK = 0
EXIT_CANNOT_SERVE = 1
EXIT_WRONG_CONFIG = 2

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

SILENT_SECONDS = 10.0
"""A serving worker whose event loop has not turned for so long is killed."""
LONGEST_START_CALLS = 5
"""... or for as long as a filter may run this many of its longest calls: a VM that is built anew makes that many."""
SECOND_LOOK_SECONDS = 1.0
"""Between noticing and killing: after a stop of the whole machine the worker must have had a turn as the supervisor did."""

HELPERS_STOP_SECONDS = 1.0


@dataclass(frozen=True)
class WorkerContext:
    """What a worker is given. `sockets`: one per listener, in the config's order. `ready()`: call once it serves;
    `beat()`: call every second from then on."""

    slot: int
    config: Config
    gateway: GatewayFactory
    sockets: Sequence[socket.socket]
    control_directory: Path
    ready: Callable[[], None]
    beat: Callable[[], None]
    quarantine: QuarantineBoard


@dataclass(frozen=True)
class AdminContext:
    """What the admin process is given."""

    config: Config
    socket: socket.socket
    scoreboard: Scoreboard
    control_directory: Path
    ready: Callable[[], None]
    quarantine: QuarantineBoard


@dataclass(frozen=True)
class Parts:
    """The code that runs in the processes, named `module:function` and imported before the first fork.

    Named rather than imported above, because the admin side and the demo stand to the left of this package; and loaded
    before forking, so that a successor is there at once instead of importing for half a second.
    """

    worker: str = "proxy.server.worker:main"
    gateway: str = "proxy.server.assembly:make_gateway"
    admin: str = "proxy.admin.process:main"
    demo: str = "proxy.demo:run"
    prepare: str = "proxy.server.check:prepare"
    sharing: str = "proxy.server.assembly:open_sharing"


@dataclass
class Child:
    """One process and its successors. `slot` is None for what is not a worker."""

    name: str
    body: Callable[[Callable[[], None]], int]
    slot: int | None = None
    pid: int = 0
    started: float = 0.0
    serving: bool = False
    restarts: int = 0
    quick_deaths: int = 0
    restart_at: float | None = None
    ready_fd: int = -1
    kill_silent_at: float | None = None
    """It has been silent for too long: killed then, unless it is heard before."""


def run(
    config: Config, config_path: Path | str, demo: bool = False, hint: str | None = None, parts: Parts | None = None
) -> int:
    """Serve `config` until told to stop; gives the exit status. Call from a process's only thread."""
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
            supervisor = Supervisor(config, config_path, demo, parts, stack)
            supervisor.hint = hint or HINT
        except ListenError as error:
            print(f"penstock: {error}", file=sys.stderr)
            return EXIT_CANNOT_SERVE
        return supervisor.run()


def backoff(quick_deaths: int) -> float:
    """Seconds to wait before the next start, after this many deaths in a row each soon after a start."""
    if quick_deaths == 0:
        return 0.0
    return min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(quick_deaths - 1, 16))


def longest_silence(config: Config) -> float:
    """Seconds that a worker's event loop may stand still: filters run in it, within their deadlines."""
    calls = [max(one.deadline, one.limits.start_deadline) for one in config.filters]
    return max(SILENT_SECONDS, LONGEST_START_CALLS * max(calls, default=0.0))


class Supervisor:
    """Sockets, children and the loop over their signals. Everything that must be undone is left with `stack`."""

    def __init__(self, config: Config, config_path: Path | str, demo: bool, parts: Parts, stack: ExitStack) -> None:
        self.config = config
        self.config_path = str(config_path)
        self.slots = config.worker_count()
        self.children: list[Child] = []
        self.selector = selectors.DefaultSelector()
        self.draining = False
        self.announced = False
        self.helpers_told = False
        self.failed_starts = 0
        self.exit_status = EXIT_OK
        self.silent_seconds = longest_silence(config)
        self.drained_at = 0.0
        self.kill_at: float | None = None
        self.listener_sockets: list[list[socket.socket]] = []
        self.admin_socket: socket.socket | None = None
        stack.callback(self.close_sockets)
        self.hint = HINT
        self.demo_address = config.clusters[0].endpoints[0] if demo else None
        if self.demo_address is not None:
            check_free(str(self.demo_address))
        for listener in config.listeners:
            self.listener_sockets.append(open_sockets(str(listener.address), self.slots))
        if config.admin is not None:
            self.admin_socket = open_sockets(str(config.admin.address), 1)[0]
        self.scoreboard = Scoreboard(self.slots)
        self.quarantine = QuarantineBoard([filter_.name for filter_ in config.filters], self.slots)
        # mkdtemp makes it 0700; a socket's path must fit in 108 bytes (unix(7)), which a long TMPDIR would break.
        base = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
        remove_left_behind(Path(base))
        self.control_directory = Path(tempfile.mkdtemp(prefix=f"penstock-{os.getpid()}-", dir=base))
        stack.callback(shutil.rmtree, self.control_directory, ignore_errors=True)
        self.sharing: SharedStore | None = pkgutil.resolve_name(parts.sharing)(config, self.slots)
        if self.sharing is not None:
            stack.callback(self.sharing.close)
        self.add_children(parts)
        self.wakeup_read, self.wakeup_write = socket.socketpair()
        for end in (self.wakeup_read, self.wakeup_write):
            end.setblocking(False)
            stack.callback(end.close)
        stack.callback(self.selector.close)

    def add_children(self, parts: Parts) -> None:
        if self.demo_address is not None:
            serve, address = pkgutil.resolve_name(parts.demo), str(self.demo_address)
            self.children.append(Child("demo", lambda ready: serve(address) or 0))
        if self.admin_socket is not None:
            admin_main = pkgutil.resolve_name(parts.admin)
            admin_socket = self.admin_socket
            self.children.append(
                Child(
                    "admin",
                    lambda ready: admin_main(
                        AdminContext(self.config, admin_socket, self.scoreboard, self.control_directory, ready, self.quarantine)
                    ),
                )
            )
        main = pkgutil.resolve_name(parts.worker)
        gateway = pkgutil.resolve_name(parts.gateway)
        for slot in range(self.slots):
            sockets = [of_listener[slot] for of_listener in self.listener_sockets]

            def body(ready: Callable[[], None], slot: int = slot, sockets: list[socket.socket] = sockets) -> int:
                context = WorkerContext(
                    slot, self.config, gateway, sockets, self.control_directory, ready, lambda: self.scoreboard.beat(slot),
                    self.quarantine,
                )  # fmt: skip
                status: int = main(context)
                return status

            self.children.append(Child(f"worker {slot}", body, slot))

    def run(self) -> int:
        """The loop: signals, deaths, readiness, restarts, until every child has ended."""
        # What is loaded by now is never garbage; unfrozen, the collector's marks would unshare its pages in each child.
        gc.collect()
        gc.freeze()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self.wakeup_write.fileno(), warn_on_full_buffer=False)
        self.selector.register(self.wakeup_read, selectors.EVENT_READ)
        try:
            for child in self.children:
                self.start(child)
            while self.children_alive() or not self.draining:
                self.wait()
            return self.exit_status
        finally:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            self.kill(self.children)
            self.reap(block=True)

    def wait(self) -> None:
        """Wait for the next event and do what it asks for."""
        for key, _ in self.selector.select(self.timeout()):
            if key.fileobj is self.wakeup_read:
                for number in self.wakeup_read.recv(4096):
                    if number in (signal.SIGTERM, signal.SIGINT):
                        self.stop()
            else:
                self.became_ready(key.data)
        self.reap()
        now = time.monotonic()
        for child in self.children:
            if child.restart_at is not None and child.restart_at <= now:
                self.start(child)
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = now + 1.0
            alive = [child for child in self.children if child.pid]
            log.warning("killed what did not stop in time", processes=[child.name for child in alive])
            self.kill(alive)
        if self.draining:
            self.stop_helpers()
        else:
            self.watch()
            if not self.announced:
                self.announce()

    def timeout(self) -> float | None:
        times = [child.restart_at for child in self.children if child.restart_at is not None]
        if self.kill_at is not None:
            times.append(self.kill_at)
        if not self.draining:
            times += [self.due(child) for child in self.watched()]
        if not self.announced and not self.draining and self.demo_address is not None:
            times.append(time.monotonic() + 0.02)  # the demo tells nobody that it serves: looked at until it does
        return max(0.0, min(times) - time.monotonic()) if times else None

    # Children

    def start(self, child: Child) -> None:
        child.restart_at = None
        child.serving = False
        child.kill_silent_at = None
        read_end, write_end = os.pipe()

        def ready() -> None:
            with suppress(BrokenPipeError):
                os.write(write_end, b"r")

        def body() -> int:
            os.close(read_end)
            self.leave_supervisor(child)
            if child.slot is None:
                # They outlast the workers, whoever else is sent a signal; blocked, since their loops set handlers of their own.
                signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
            return child.body(ready)

        child.pid = fork(body)
        os.close(write_end)
        child.ready_fd = read_end
        child.started = time.monotonic()
        self.selector.register(read_end, selectors.EVENT_READ, child)
        self.show(child, WorkerState.STARTING)
        log.info("process started", process=child.name, pid=child.pid, restarts=child.restarts)

    def leave_supervisor(self, child: Child) -> None:
        """In the child: close what is another process's. A forgotten copy of a socket would keep it listening."""
        self.selector.close()
        self.wakeup_read.close()
        self.wakeup_write.close()
        for other in self.children:
            if other.ready_fd >= 0 and other is not child:
                os.close(other.ready_fd)
        for of_listener in self.listener_sockets:
            for slot, sock in enumerate(of_listener):
                if slot != child.slot:
                    sock.close()
        if self.admin_socket is not None and child.name != "admin":
            self.admin_socket.close()

    def became_ready(self, child: Child) -> None:
        """The child wrote its byte, or its end of the pipe closed because it died."""
        said = os.read(child.ready_fd, 1)
        self.close_ready(child)
        if said:
            child.serving = True
            if child.slot is not None:
                self.scoreboard.beat(child.slot)
            if not self.draining:
                self.show(child, WorkerState.SERVING)

    def close_ready(self, child: Child) -> None:
        if child.ready_fd >= 0:
            self.selector.unregister(child.ready_fd)
            os.close(child.ready_fd)
            child.ready_fd = -1

    def reap(self, block: bool = False) -> None:
        for child in self.children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, 0 if block else os.WNOHANG)
            if pid:
                self.ended(child, os.waitstatus_to_exitcode(status))

    def ended(self, child: Child, status: int) -> None:
        """A child has died: plan its successor, unless all is to stop."""
        if child.ready_fd >= 0:
            self.close_ready(child)
        lived = time.monotonic() - child.started
        pid, child.pid = child.pid, 0
        served, child.serving = child.serving, False
        self.show(child, WorkerState.DEAD)
        if child.slot is not None and self.sharing is not None:
            self.sharing.worker_ended(child.slot)
        if self.draining:
            return
        if lived >= QUICK_DEATH_SECONDS:
            child.quick_deaths = 0
        delay = backoff(child.quick_deaths)
        child.quick_deaths += 1
        child.restarts += 1
        reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        log.error("process died", process=child.name, pid=pid, reason=reason, lived_s=round(lived, 3), restart_in_s=delay)
        if not self.announced and not served and child.slot is not None:
            self.failed_starts += 1
            if status in (EXIT_START_FAILED, EXIT_WRONG_CONFIG) or self.failed_starts >= START_ATTEMPTS:
                log.critical("workers can not start; giving up", process=child.name)
                self.exit_status = EXIT_WRONG_CONFIG if status == EXIT_WRONG_CONFIG else EXIT_CANNOT_SERVE
                self.stop()
                return
        child.restart_at = time.monotonic() + delay

    def children_alive(self) -> bool:
        return any(child.pid for child in self.children)

    def show(self, child: Child, state: WorkerState) -> None:
        if child.slot is not None:
            self.scoreboard.write(WorkerRecord(child.slot, child.pid, state, child.restarts, child.started))

    # Watching

    def watched(self) -> list[Child]:
        """The workers that have to be heard: not those that start, whose filters may take their time."""
        return [child for child in self.children if child.slot is not None and child.pid and child.serving]

    def due(self, child: Child) -> float:
        """When to look at the worker next."""
        assert child.slot is not None
        if child.kill_silent_at is not None:
            return child.kill_silent_at
        return self.scoreboard.heartbeat(child.slot) + self.silent_seconds - SECOND_LOOK_SECONDS

    def watch(self) -> None:
        """Kill the workers whose event loop has stood still for too long; their successors follow as after any death."""
        now = time.monotonic()
        for child in self.watched():
            assert child.slot is not None
            silence = now - self.scoreboard.heartbeat(child.slot)
            if silence < self.silent_seconds - SECOND_LOOK_SECONDS:
                child.kill_silent_at = None
            elif child.kill_silent_at is None:
                child.kill_silent_at = now + SECOND_LOOK_SECONDS
            elif now >= child.kill_silent_at:
                log.error("worker hangs: killed", process=child.name, pid=child.pid, silent_s=round(silence, 1))
                child.kill_silent_at = now + SECOND_LOOK_SECONDS
                self.kill([child])

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
        self.drained_at = now
        self.scoreboard.draining = True
        self.kill_at = now + self.config.shutdown_grace + GRACE_MARGIN_SECONDS
        self.close_sockets()
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

    def send(self, children: Iterable[Child], number: signal.Signals) -> None:
        for child in children:
            if child.pid:
                os.kill(child.pid, number)  # not reaped yet, so the pid is still the child's

    def kill(self, children: Iterable[Child]) -> None:
        self.send(children, signal.SIGKILL)

    def close_sockets(self) -> None:
        for of_listener in self.listener_sockets:
            for sock in of_listener:
                sock.close()
        if self.admin_socket is not None:
            self.admin_socket.close()

    # Readiness

    def announce(self) -> None:
        """Once everything serves for the first time: one line on standard output."""
        if not all(child.serving or child.name == "demo" for child in self.children):
            return
        if self.demo_address is not None and not answers(*split_address(str(self.demo_address))):
            return
        self.announced = True
        self.quarantine.served = True
        print(self.ready_line(), flush=True)
        log.info("serving", config=self.config_path, workers=self.slots)

    def ready_line(self) -> str:
        urls = []
        for listener, sockets in zip(self.config.listeners, self.listener_sockets, strict=True):
            urls.append(f"{'https' if listener.tls else 'http'}://{bound_address(sockets[0])}")
        text = f"serving on {', '.join(urls)}"
        if self.admin_socket is not None:
            text += f"; admin on http://{bound_address(self.admin_socket)}"
        if self.demo_address is not None:
            text += f"\ntry: {self.hint.format(url=urls[0])}"
        return text


def remove_left_behind(base: Path) -> None:
    """Remove the directories of supervisors of this user that were killed and could not."""
    for path in base.glob("penstock-*-*"):
        pid = path.name.split("-")[1]
        with suppress(OSError):
            mine = path.is_dir() and not path.is_symlink() and path.lstat().st_uid == os.getuid()
            if mine and pid.isdecimal() and not Path("/proc", pid).exists():
                shutil.rmtree(path, ignore_errors=True)


def answers(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.settimeout(0.1)
        return sock.connect_ex((host, port)) == 0
