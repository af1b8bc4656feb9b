"""Child processes and what they say: started, heard, told, reaped. What follows from it is the supervisor's."""

import json
import os
import selectors
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from proxy.server.contexts import Child
from proxy.server.process import fork
from proxy.telemetry import logging as logs

log = logs.get_logger("supervisor")


class Processes(ABC):
    """The children, and a selector whose data are functions to call."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.selector = selectors.DefaultSelector()

    @abstractmethod
    def leave_supervisor(self, child: Child | None) -> None:
        """In a child: close what is another process's. None: the child is none of `children`."""

    @abstractmethod
    def on_started(self, child: Child) -> None:
        """It has been forked."""

    @abstractmethod
    def on_serving(self, child: Child) -> None:
        """It has said that it serves."""

    @abstractmethod
    def on_line(self, child: Child, line: bytes) -> None:
        """It has said something on its channel."""

    @abstractmethod
    def ended(self, child: Child, status: int) -> None:
        """It has died: an exit status, or minus a signal's number."""

    # Starting and ending

    def start(self, child: Child) -> None:
        child.restart_at = None
        child.serving = False
        child.kill_silent_at = None
        child.replaced = False
        child.replace_at = None
        read_end, write_end = os.pipe()
        channel, theirs = socket.socketpair()

        def ready() -> None:
            with suppress(BrokenPipeError):
                os.write(write_end, b"r")

        def body() -> int:
            os.close(read_end)
            channel.close()
            self.leave_supervisor(child)
            if child.slot is None:
                # They outlast the workers, whoever else is sent a signal; blocked, since their loops set handlers of their own.
                signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
            return child.body(ready, theirs)

        child.pid = fork(body)
        os.close(write_end)
        theirs.close()
        channel.setblocking(False)
        child.channel = channel
        child.said.clear()
        self.selector.register(channel, selectors.EVENT_READ, partial(self.heard, child))
        child.ready_fd = read_end
        child.started = time.monotonic()
        self.selector.register(read_end, selectors.EVENT_READ, partial(self.became_ready, child))
        self.on_started(child)
        log.info("process started", process=child.name, pid=child.pid, restarts=child.restarts)

    def became_ready(self, child: Child) -> None:
        """The child wrote its byte, or its end of the pipe closed because it died."""
        said = os.read(child.ready_fd, 1)
        self.close_ready(child)
        if said:
            child.serving = True
            self.on_serving(child)

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

    def children_alive(self) -> bool:
        return any(child.pid for child in self.children)

    def send(self, children: Iterable[Child], number: signal.Signals) -> None:
        for child in children:
            if child.pid:
                os.kill(child.pid, number)  # not reaped yet, so the pid is still the child's

    def kill(self, children: Iterable[Child]) -> None:
        self.send(children, signal.SIGKILL)

    # What they say

    def heard(self, child: Child) -> None:
        """Lines, whole or in parts."""
        assert child.channel is not None
        try:
            data = child.channel.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close_channel(child)
            return
        child.said += data
        while b"\n" in child.said:
            line, _, rest = child.said.partition(b"\n")
            child.said = rest
            self.on_line(child, bytes(line))

    def tell(self, child: Child, message: dict[str, Any], descriptor: int = -1) -> None:
        if child.channel is not None:
            with suppress(OSError):  # it has died, and that is seen soon
                descriptors = [descriptor] if descriptor >= 0 else []
                socket.send_fds(child.channel, [json.dumps(message).encode() + b"\n"], descriptors)

    def close_channel(self, child: Child) -> None:
        if child.channel is not None:
            self.selector.unregister(child.channel)
            child.channel.close()
            child.channel = None
