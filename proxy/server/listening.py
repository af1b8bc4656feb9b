"""A gateway's listening sockets, as the supervisor holds them: one for each listener and worker, and the admin port's."""

import socket
from contextlib import ExitStack

from proxy.config.model import Config
from proxy.server.handover import Takeover, give
from proxy.server.sockets import bound_address, open_sockets


class Listening:
    """Opened now, or taken over. Raises ListenError; what was opened is left with `stack`."""

    def __init__(self, config: Config, slots: int, taken: Takeover | None, stack: ExitStack) -> None:
        self.config = config
        self.listeners: list[list[socket.socket]] = []
        """For each listener in the config's order, the workers' sockets."""
        self.admin: socket.socket | None = None
        stack.callback(self.close)
        for listener in config.listeners:
            address = str(listener.address)
            sockets = [] if taken is None else taken.take(address)
            beside = sockets[0] if sockets else None
            self.listeners.append(sockets)
            sockets += open_sockets(address, slots - len(sockets), beside)
        if config.admin is not None:
            address = str(config.admin.address)
            there = None if taken is None else taken.admin.pop(address, None)
            self.admin = there or open_sockets(address, 1)[0]

    def of(self, slot: int) -> list[socket.socket]:
        """A worker's."""
        return [sockets[slot] for sockets in self.listeners]

    def keep(self, slot: int | None, admin: bool) -> None:
        """In a child: close the others'. A forgotten copy of a socket would keep it listening."""
        for sockets in self.listeners:
            for number, sock in enumerate(sockets):
                if number != slot:
                    sock.close()
        if self.admin is not None and not admin:
            self.admin.close()

    def hand_over(self, sock: socket.socket) -> None:
        """To another gateway (handover.py). Raises OSError."""
        listeners = {
            str(listener.address): sockets for listener, sockets in zip(self.config.listeners, self.listeners, strict=True)
        }
        admin = self.config.admin
        give(sock, listeners, None if admin is None or self.admin is None else (str(admin.address), self.admin))

    def urls(self) -> list[str]:
        """Where clients are served."""
        return [
            f"{'https' if listener.tls else 'http'}://{bound_address(sockets[0])}"
            for listener, sockets in zip(self.config.listeners, self.listeners, strict=True)
        ]

    def ready_line(self) -> str:
        text = f"serving on {', '.join(self.urls())}"
        return text if self.admin is None else f"{text}; admin on http://{bound_address(self.admin)}"

    def close(self) -> None:
        for sockets in self.listeners:
            for sock in sockets:
                sock.close()
        if self.admin is not None:
            self.admin.close()
