"""A gateway that takes the place of the one that runs: it is given the listening sockets, and not one connection is refused.

The descriptors themselves are passed on (SCM_RIGHTS, unix(7)), so that what waits in a socket's queue is served by whichever
process accepts it; a socket of one's own on the same port (SO_REUSEPORT) would lose the old one's queue when that closes.

    new: {"do": "handover"}  -> {"listeners": {address: number of sockets}, "admin": address or null}, then the descriptors
    new serves; then {"do": "leave"}  -> the old one drains as after SIGTERM, and lets go of the admin address at once
"""

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy.config.model import Config
from proxy.config.problem import Problem
from proxy.server.asking import SOCKET, NotRunningError, ask, directories, find

CHUNK = 200
"""Descriptors in one message; the kernel takes 253."""
TIMEOUT = 10.0


def give(
    sock: socket.socket, listeners: Mapping[str, Sequence[socket.socket]], admin: tuple[str, socket.socket] | None
) -> None:
    """The old one's side. Raises OSError."""
    sock.settimeout(TIMEOUT)
    counts = {address: len(sockets) for address, sockets in listeners.items()}
    sock.sendall(json.dumps({"listeners": counts, "admin": None if admin is None else admin[0]}).encode() + b"\n")
    all_of_them = [one.fileno() for sockets in listeners.values() for one in sockets]
    if admin is not None:
        all_of_them.append(admin[1].fileno())
    for start in range(0, len(all_of_them), CHUNK):
        socket.send_fds(sock, [b"."], all_of_them[start : start + CHUNK])


class Takeover:
    """The new one's side: the sockets of the gateway whose private directory this is."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError, NotRunningError."""
        self.directory = directory
        self.listeners: dict[str, list[socket.socket]] = {}
        self.admin: dict[str, socket.socket] = {}
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect(str(directory / SOCKET))
            sock.sendall(b'{"do": "handover"}\n')
            line = b""
            fds: list[int] = []
            told: dict[str, Any] | None = None
            while told is None or len(fds) < sum(told["listeners"].values()) + (told["admin"] is not None):
                data, some, _, _ = socket.recv_fds(sock, 65536, CHUNK)
                if not data:
                    raise NotRunningError("the gateway ended before it handed over its sockets")
                fds += some
                line += data
                if told is None and b"\n" in line:
                    told = json.loads(line.partition(b"\n")[0])
        sockets = [socket.socket(fileno=fd) for fd in fds]
        for address, count in told["listeners"].items():
            self.listeners[address], sockets = sockets[:count], sockets[count:]
        if told["admin"] is not None:
            self.admin[told["admin"]] = sockets.pop()

    def problems(self, config: Config, slots: int) -> list[Problem]:
        """What the config must not ask for, in order that no connection waits in a queue that nobody serves."""
        return [
            config.problem(
                ("workers",),
                f"{slots} workers cannot serve the {len(sockets)} sockets of the gateway that runs",
                f"write {len(sockets)} or more, or stop that gateway first",
            )
            for sockets in self.listeners.values()
            if len(sockets) > slots
        ][:1]

    def take(self, address: str) -> list[socket.socket]:
        """The sockets of a listener; none if the old gateway has no such one."""
        return self.listeners.pop(address, [])

    def close(self) -> None:
        """What was not taken, the old gateway alone has, and closes."""
        for sock in [*(one for sockets in self.listeners.values() for one in sockets), *self.admin.values()]:
            sock.close()

    def leave(self) -> None:
        """The new gateway serves: the old one may go. Raises OSError, NotRunningError."""
        ask(self.directory, {"do": "leave"}, TIMEOUT)


def takeover(config_path: Path) -> Takeover | None:
    """Of the gateway that runs with this config, if one does. Raises OSError, NotRunningError if there are several."""
    if not any(directories(config_path)):
        return None
    return Takeover(find(config_path, None))
