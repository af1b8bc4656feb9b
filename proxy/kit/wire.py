"""HTTP/1.1 for the kit's own small client and services, which meet the real Envoy on loopback: messages are read strictly, and
sent in the pieces that a case asks for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from proxy.kit.cases import Fields, Sent
from proxy.kit.stream import Message

LARGEST: Final = 64 << 20
"""Bytes of a line or body."""
CHUNK_PAUSE: Final = 0.002
"""Seconds between chunks, so that they stay apart on their way."""


class WireError(Exception):
    """The peer sent what is not a well-formed HTTP/1.1 message."""


async def read_message(reader: asyncio.StreamReader, bodiless: Callable[[Message], bool], ends_by_close: bool) -> Message:
    """A request or response with all of its body. Raises WireError."""
    try:
        message = Message(await line(reader), await fields(reader))
        if bodiless(message):
            message.complete = True
            return message
        await read_body(reader, message, ends_by_close)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise WireError(f"not a whole message: {error}") from None
    return message


async def read_body(reader: asyncio.StreamReader, message: Message, ends_by_close: bool) -> None:
    values = dict(message.headers)
    if values.get(b"transfer-encoding", b"").lower() == b"chunked":
        while size := int((await line(reader)).split(b";")[0], 16):
            message.body += await reader.readexactly(min(size, LARGEST))
            if await reader.readexactly(2) != b"\r\n":
                raise WireError("a chunk does not end with CRLF")
        message.trailers = await fields(reader)
    elif b"content-length" in values:
        message.body += await reader.readexactly(min(int(values[b"content-length"]), LARGEST))
    elif ends_by_close:
        message.body += await reader.read(-1)
    message.complete = True


async def line(reader: asyncio.StreamReader) -> bytes:
    return (await reader.readuntil(b"\r\n"))[:-2]


async def fields(reader: asyncio.StreamReader) -> list[tuple[bytes, bytes]]:
    found = []
    while text := await line(reader):
        name, colon, value = text.partition(b":")
        if not colon:
            raise WireError(f"not a field line: {text[:200]!r}")
        found.append((name.lower(), value.strip()))
    return found


async def send(writer: asyncio.StreamWriter, start_line: str, given: Fields, sent: Sent, body: bool = True) -> None:
    """A message in its pieces."""
    names = {name.lower() for name, _ in given}
    lines = list(given)
    if sent.chunks is not None:
        lines.append(("transfer-encoding", "chunked"))
    elif "content-length" not in names and (sent.body or start_line.startswith("HTTP")) and sent.status not in (204, 304):
        lines.append(("content-length", str(len(sent.body))))
    pieces = [encode(start_line, lines)]
    if body and sent.chunks is None:
        pieces[0] += sent.body
    elif body and sent.chunks is not None:
        pieces += [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in sent.chunks]
        pieces.append(b"0\r\n" + encode("", sent.trailers).removeprefix(b"\r\n"))
    for index, piece in enumerate(pieces):
        if index:
            await asyncio.sleep(CHUNK_PAUSE)
        writer.write(piece)
        await writer.drain()


def encode(start_line: str, given: Fields) -> bytes:
    return "".join([f"{start_line}\r\n", *(f"{name}: {value}\r\n" for name, value in given), "\r\n"]).encode()


async def fetch(port: int, request: Sent, host: str, seconds: float) -> Message:
    """Send a request on a new connection to 127.0.0.1:`port`; its response. Raises WireError, TimeoutError, OSError."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LARGEST)
        given = list(request.headers)
        if "host" not in {name.lower() for name, _ in given}:
            given.insert(0, ("host", host))
        sending = asyncio.create_task(send(writer, f"{request.method} {request.path} HTTP/1.1", given, request))
        try:
            return await read_message(
                reader, lambda message: request.method == "HEAD" or message.status in (204, 304), ends_by_close=True
            )
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class Service:
    """A service on loopback: `answer` is told each request and gives its response; None closes the connection."""

    def __init__(self, answer: Callable[[Message], Awaitable[Sent | None]]) -> None:
        self.answer = answer
        self.server: asyncio.Server | None = None
        self.connections: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=LARGEST)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
        for task in list(self.connections):
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            while True:
                request = await read_message(reader, lambda message: False, ends_by_close=False)
                sent = await self.answer(request)
                if sent is None:
                    break
                await send(writer, f"HTTP/1.1 {sent.status} X", sent.headers, sent, request.method != "HEAD")
        except (WireError, ConnectionError, asyncio.CancelledError):
            pass  # the peer or all is over: the exchange that it belonged to shows what came of it
        finally:
            self.connections.discard(task)
            writer.close()
