"""A scripted HTTP/1.1 upstream on loopback: it records what a proxy sends, byte for byte, and answers as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.conformance.wire import Message, Recorder, WireError, read_body

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Close:
    """A step of an answer: close the connection (or, with `abort`, reset it)."""

    abort: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """A step of an answer: wait for the whole request body first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send, in steps: bytes are written as they are, a float is a pause in seconds, `Body` waits for the
    request body, `Close` ends the connection. The first step runs once the request's head is there."""

    steps: Sequence[bytes | float | Body | Close]


def head(status: int, fields: Fields = ()) -> bytes:
    """A response head."""
    return b"HTTP/1.1 %d X\r\n%s\r\n" % (status, lines(fields))


def lines(fields: Fields) -> bytes:
    """Field lines."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")


def sized(body: bytes = b"ok", status: int = 200, fields: Fields = ()) -> Answer:
    """A response with content-length, sent after the request's body."""
    return Answer([Body(), head(status, [*fields, ("content-length", str(len(body)))]) + body])


def chunked(
    chunks: Sequence[bytes], status: int = 200, fields: Fields = (), delay: float = 0.0, trailers: Fields = ()
) -> Answer:
    """A chunked response: each chunk is written for itself, `delay` seconds apart."""
    steps: list[bytes | float | Body | Close] = [Body(), head(status, [*fields, ("transfer-encoding", "chunked")])]
    for chunk in chunks:
        steps += [delay, b"%x\r\n%s\r\n" % (len(chunk), chunk)]
    steps += [delay, b"0\r\n" + lines(trailers) + b"\r\n"]
    return Answer(steps)


@dataclass(slots=True)
class Received(Message):
    """A request as it arrived. `connection` counts connections from 0, `error` says what was wrong with it."""

    connection: int = 0
    error: str = ""

    @property
    def method(self) -> bytes:
        """The request's method."""
        return self.start_line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        """The request target as written."""
        return self.start_line.split(b" ")[1]


@dataclass(slots=True)
class Upstream:
    """The server; `answers` are used in turn, the last one again and again. Every request ends up in `requests` as soon
    as its head is there, its body filling up as it arrives."""

    answers: Sequence[Answer] = field(default_factory=lambda: [sized()])
    requests: list[Received] = field(default_factory=list)
    port: int = 0
    connections: int = 0
    lost: int = 0
    server: asyncio.Server | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.server is not None:
            self.server.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        try:
            while not reader.at_eof():
                if not await self.exchange(Recorder(reader), writer, number):
                    break
        except (ConnectionError, asyncio.CancelledError):
            self.lost += 1
        finally:
            self.tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def exchange(self, source: Recorder, writer: asyncio.StreamWriter, connection: int) -> bool:
        """One request and its answer; False when the connection is over."""
        try:
            line = await source.line()
        except WireError:
            return False
        request = Received(line, [], connection=connection)
        number = len(self.requests)
        self.requests.append(request)
        try:
            request.headers = await source.fields()
        except WireError as error:
            request.error, request.raw = str(error), bytes(source.taken)
            return False
        answer = self.choose(request, number)
        body = asyncio.create_task(self.body(source, request))
        try:
            for step in answer.steps:
                match step:
                    case bytes():
                        writer.write(step)
                        await writer.drain()
                    case float() | int():
                        await asyncio.sleep(step)
                    case Body():
                        await body
                    case Close(abort=abort):
                        if abort:
                            writer.transport.abort()
                        return False
            await body
        finally:
            body.cancel()
        return not request.error

    def choose(self, request: Received, number: int) -> Answer:
        """The answer to the request with this number, whose head is there."""
        return self.answers[min(number, len(self.answers) - 1)]

    async def body(self, source: Recorder, request: Received) -> None:
        """Reads the request's body; a framing error ends up in `request.error`."""
        try:
            await read_body(source, request, ends_by_close=False)
        except (WireError, ConnectionError) as error:
            request.error = str(error)
        finally:
            request.raw = bytes(source.taken)
