"""Writes log lines to a file descriptor without waiting for its reader.

A worker whose stderr is a pipe that nobody empties must go on serving. Setting O_NONBLOCK on the inherited descriptor
would change it for every process that shares it (the operator's shell too), so a pipe or terminal is opened anew
through /proc, and a socket is written with MSG_DONTWAIT. A regular file is written as it is: a second open file
description would have its own offset.

Once attached to an event loop, lines are gathered for a moment and written together, in pieces of whole lines of at
most PIPE_BUF bytes: writes of that size to a pipe are atomic (POSIX write), so lines of several workers do not mix.
"""

import asyncio
import os
import socket
import stat
from collections import deque
from collections.abc import Callable

PIPE_BUF = 4096
MAX_WAITING_BYTES = 1 << 20
GATHER_SECONDS = 0.05
GATHER_LINES = 512


class Writer:
    """Lines in, bytes out. Not thread-safe: one per process, used by its only thread."""

    def __init__(self, fd: int = 2) -> None:
        self.fd = fd
        self.inherited = fd
        self.lines: list[str] = []
        self.waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.dropped = 0
        """Lines lost since the start because the reader was too slow."""
        self.unreported = 0
        self.report: Callable[[int], None] | None = None
        """Told, once lines pass again, how many were lost; writes a line about it."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.socket: socket.socket | None = None
        self.opened = False

    def open(self) -> None:
        """Find the way to write that does not wait; on failure fall back to plain writes."""
        self.opened = True
        try:
            mode = os.fstat(self.inherited).st_mode
            if stat.S_ISSOCK(mode):
                self.socket = socket.socket(fileno=os.dup(self.inherited))
            elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
                self.fd = os.open(f"/proc/self/fd/{self.inherited}", flags)
        except OSError:
            self.fd = self.inherited

    def attach(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Gather lines with this loop's timers; None: write each line at once again."""
        self.flush()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.loop = loop

    def write(self, line: str) -> None:
        """Take one line, without its newline."""
        self.lines.append(line)
        if self.loop is None or len(self.lines) >= GATHER_LINES:
            self.flush()
        elif self.timer is None:
            self.timer = self.loop.call_later(GATHER_SECONDS, self.on_timer)

    def on_timer(self) -> None:
        self.timer = None
        self.flush()
        if self.waiting and self.loop is not None and self.timer is None:
            self.timer = self.loop.call_later(GATHER_SECONDS, self.on_timer)

    def flush(self) -> None:
        """Write what can be written now."""
        self.gather()
        while self.waiting:
            piece = self.waiting[0]
            count = self.send(piece)
            self.waiting_bytes -= count
            if count < len(piece):
                self.waiting[0] = piece[count:]
                return
            self.waiting.popleft()
        if self.unreported and self.report is not None:
            count, self.unreported = self.unreported, 0
            self.report(count)

    def gather(self) -> None:
        """Move lines into pieces; drop them while too much waits."""
        if not self.lines:
            return
        lines, self.lines = self.lines, []
        piece: list[bytes] = []
        size = 0
        for text in lines:
            line = text.encode("utf-8", "backslashreplace") + b"\n"
            if self.waiting_bytes + size + len(line) > MAX_WAITING_BYTES:
                self.dropped += 1
                self.unreported += 1
                continue
            if piece and size + len(line) > PIPE_BUF:
                self.queue(piece, size)
                piece, size = [], 0
            piece.append(line)
            size += len(line)
        if piece:
            self.queue(piece, size)

    def queue(self, piece: list[bytes], size: int) -> None:
        self.waiting.append(b"".join(piece))
        self.waiting_bytes += size

    def forget(self) -> None:
        """After a fork, in the child: what waits is the parent's to write."""
        self.lines.clear()
        self.waiting.clear()
        self.waiting_bytes = self.dropped = self.unreported = 0

    def send(self, piece: bytes) -> int:
        """Bytes taken: 0 if the reader is behind. A reader that has gone takes everything: nobody can be told."""
        if not self.opened:
            self.open()
        try:
            if self.socket is not None:
                return self.socket.send(piece, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return os.write(self.fd, piece)
        except BlockingIOError:
            return 0
        except OSError:
            return len(piece)
