"""A raw HTTP/1.1 client for conformance tests: it sends the bytes it is given in the pieces it is given and reads the
response strictly."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.conformance.wire import Message, Recorder, WireError, read_body

STATUS_LINE = re.compile(rb"^HTTP/1\.[01] ([1-9]\d\d) ([\x20-\x7e\t\x80-\xff]*)$")


@dataclass(slots=True)
class Response(Message):
    """A response as it stood on the wire; `interim` are the 1xx heads before it."""

    status: int = 0
    reason: bytes = b""
    interim: list[Response] = field(default_factory=list)
    error: str = ""


def request(method: str, target: str, fields: Sequence[tuple[str, str]] = (), body: bytes = b"", host: str = "test") -> bytes:
    """The bytes of a request; a body gets a content-length."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in fields)]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked_request(
    method: str,
    target: str,
    chunks: Sequence[bytes],
    fields: Sequence[tuple[str, str]] = (),
    trailers: Sequence[tuple[str, str]] = (),
    host: str = "test",
) -> list[bytes]:
    """The pieces of a chunked request: head, each chunk, the end."""
    end = b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers).encode() + b"\r\n"
    pieces = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return [request(method, target, [*fields, ("transfer-encoding", "chunked")], host=host), *pieces, end]


class Client:
    """One downstream connection to 127.0.0.1:`port`."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def send(self, pieces: bytes | Sequence[bytes], delay: float = 0.0) -> None:
        """Writes the pieces, `delay` seconds apart."""
        for index, piece in enumerate([pieces] if isinstance(pieces, bytes) else pieces):
            if index:
                await asyncio.sleep(delay)
            self.writer.write(piece)
            await self.writer.drain()

    async def receive(self, method: str = "GET", seconds: float = 5.0) -> Response:
        """The next response to a `method` request. Raises WireError, TimeoutError, ConnectionError."""
        async with asyncio.timeout(seconds):
            source = Recorder(self.reader)
            interim: list[Response] = []
            while True:
                response = await self.head(source)
                if response.status >= 200 or response.status == 101:
                    break
                interim.append(response)
            response.interim = interim
            try:
                if method == "HEAD" or response.status in (101, 204, 304):
                    response.complete = True
                else:
                    await read_body(source, response, ends_by_close=True)
            except (WireError, ConnectionError) as error:
                response.error = str(error)
            response.raw = bytes(source.taken)
            return response

    async def head(self, source: Recorder) -> Response:
        """A status line and its header fields."""
        line = await source.line()
        match = STATUS_LINE.match(line)
        if match is None:
            raise WireError(f"status line {line[:200]!r}")
        return Response(line, await source.fields(), status=int(match[1]), reason=match[2])

    async def is_closed(self, seconds: float = 1.0) -> bool:
        """Whether the peer closes the connection within `seconds` without sending more."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True


async def fetch(port: int, pieces: bytes | Sequence[bytes], delay: float = 0.0, seconds: float = 5.0) -> Response:
    """Sends one request on a fresh connection and reads the response, whose method is the first piece's."""
    first = pieces if isinstance(pieces, bytes) else pieces[0]
    async with Client(port) as client:
        sending = asyncio.create_task(client.send(pieces, delay))
        try:
            return await client.receive(first.split(b" ", 1)[0].decode(), seconds)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
