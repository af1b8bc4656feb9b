"""What the processes of a gateway are given, and what the supervisor knows of each."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy.config.model import Config
from proxy.server.gateway_type import GatewayFactory
from proxy.server.scoreboard import Scoreboard
from proxy.sharing.quarantine import QuarantineBoard

EXIT_OK = 0
EXIT_CANNOT_SERVE = 1
EXIT_WRONG_CONFIG = 2


@dataclass(frozen=True)
class WorkerContext:
    """What a worker is given. `sockets`: one per listener, in the config's order. `ready()`: call once it serves;
    `beat()`: call every second from then on. `channel`: where the supervisor tells of reloads (staging.py).

    `revision`: what it begins with after a reload, instead of `config` (revision.py); -1 before the first.
    """

    slot: int
    config: Config
    gateway: GatewayFactory
    sockets: Sequence[socket.socket]
    control_directory: Path
    ready: Callable[[], None]
    beat: Callable[[], None]
    quarantine: QuarantineBoard
    channel: socket.socket
    revision: int = -1


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
    reload: str = "proxy.server.preparer:prepare_reload"
    fingerprint: str = "proxy.server.preparer:fingerprint_of"
    watcher: str = "proxy.server.watcher:run"


@dataclass
class Child:
    """One process and its successors. `slot` is None for what is not a worker."""

    name: str
    body: Callable[[Callable[[], None], socket.socket], int]
    """Runs in the child: (ready, its end of the channel) -> exit status."""
    slot: int | None = None
    wanted: Callable[[], bool] = lambda: True
    """Whether there should be such a process now."""
    pid: int = 0
    started: float = 0.0
    serving: bool = False
    restarts: int = 0
    quick_deaths: int = 0
    restart_at: float | None = None
    ready_fd: int = -1
    kill_silent_at: float | None = None
    """It has been silent for too long: killed then, unless it is heard before."""
    channel: socket.socket | None = None
    """The supervisor's end: what a worker says of reloads, what the watcher has seen."""
    said: bytearray = field(default_factory=bytearray)
    """Of a line on the channel, what has come."""
    replace_at: float | None = None
    replaced: bool = False
    """Its end is wanted: a successor with another config follows at once."""
