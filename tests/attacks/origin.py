"""An upstream that records every byte and reads strictly: what it cannot read as one message should not have come."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from tests.attacks.strict import AmbiguousError, Cursor, IncompleteError, Message, read_request, read_request_head


@dataclass
class Recording:
    """One connection: what came, read as requests."""

    data: bytes = b""
    """All that came as HTTP."""
    read: int = 0
    """How much of `data` is whole requests."""
    requests: list[Message] = field(default_factory=list)
    error: AmbiguousError | None = None
    tunnel: bytes | None = None
    """What came after a 101; None without."""
    closed: bool = False

    @property
    def rest(self) -> bytes:
        """The beginning of a request that has not been completed."""
        return self.data[self.read :]


class Origin:
    """Answers each request that is whole with 200 and `METHOD target` LF body; the target may ask for something else.

    `/early` is answered when its head is there; `/204`, `/304`, `/chunked`, `/close` (no length), `/interim` (103 first),
    `/continue` (100 first) and `/ws` (101) name what comes back.
    """

    def __init__(self) -> None:
        self.connections: list[Recording] = []
        self.news = asyncio.Event()
        self.transports: set[asyncio.Transport] = set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: OriginConnection(self), "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self.server.close()
        for transport in self.transports:
            transport.abort()
        await asyncio.sleep(0)

    @property
    def requests(self) -> list[Message]:
        """All whole requests, connection by connection."""
        return [message for connection in self.connections for message in connection.requests]

    async def settled(self) -> None:
        """Wait, at most 2 s, until no connection holds part of a request that is not closed."""
        end = time.monotonic() + 2
        while any(recording.rest and not recording.closed for recording in self.connections) and time.monotonic() < end:
            self.news.clear()
            try:
                async with asyncio.timeout(0.1):
                    await self.news.wait()
            except TimeoutError:
                continue

    def forget(self) -> None:
        """Begin anew; connections that are open go on being recorded."""
        self.connections = [recording for recording in self.connections if not recording.closed]
        for recording in self.connections:
            recording.requests.clear()
            recording.data = recording.rest
            recording.read = 0


class OriginConnection(asyncio.Protocol):
    """The protocol of one connection."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.recording = Recording()
        self.answered_early = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.origin.connections.append(self.recording)
        self.origin.transports.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.recording.closed = True
        self.origin.transports.discard(self.transport)
        self.origin.news.set()

    def data_received(self, data: bytes) -> None:
        recording = self.recording
        if recording.tunnel is not None:
            recording.tunnel += data
            return
        recording.data += data
        self.origin.news.set()
        try:
            while recording.read < len(recording.data) and recording.tunnel is None:
                self.read_one(recording)
        except IncompleteError:
            return
        except AmbiguousError as error:
            recording.error = error
            self.transport.close()

    def read_one(self, recording: Recording) -> None:
        if not self.answered_early:
            head = read_request_head(Cursor(recording.data, recording.read))
            if head.target.startswith(b"/early"):
                self.answered_early = True
                self.transport.write(answer_to(head))
        message, recording.read = read_request(recording.data, recording.read)
        recording.requests.append(message)
        if not self.answered_early:
            self.transport.write(answer_to(message))
            if message.target.startswith(b"/close"):
                self.transport.close()
        self.answered_early = False
        if message.target == b"/ws" and b"websocket" in message.tokens(b"upgrade"):
            recording.tunnel = recording.data[recording.read :]
            recording.data = recording.data[: recording.read]


def answer_to(request: Message) -> bytes:
    """What the request's target asks for."""
    path = request.target.split(b"?")[0]
    body = request.line.encode() + b"\n" + request.body
    sized = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(body)
    if request.method == b"HEAD":
        return sized
    if path == b"/ws" and b"websocket" in request.tokens(b"upgrade"):
        return b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    if path == b"/204":
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    if path == b"/304":
        return b'HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\netag: "x"\r\n\r\n'
    if path == b"/chunked":
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    if path == b"/close":
        return b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body
    if path == b"/interim":
        return b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + sized + body
    if path == b"/continue":
        return b"HTTP/1.1 100 Continue\r\n\r\n" + sized + body
    return sized + body
