"""Strict reading of HTTP/1.1 messages from a stream, for both ends of the conformance tests: nothing is tolerated that
RFC 9112 does not allow, so that a proxy's framing errors surface as `WireError` and not as a lucky parse."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

FIELD = re.compile(rb"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*$")
HEAD_LIMIT = 1 << 20


class WireError(Exception):
    """The peer sent what is not a well-formed HTTP/1.1 message."""


class Recorder:
    """An asyncio.StreamReader that remembers every byte it handed out."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader
        self.taken = bytearray()

    async def line(self) -> bytes:
        """A line without its CRLF. Raises WireError at the stream's end or without CRLF."""
        try:
            data = await self.reader.readuntil(b"\r\n")
        except asyncio.IncompleteReadError as error:
            self.taken += error.partial
            raise WireError(f"the stream ended inside a line: {error.partial!r}") from None
        self.taken += data
        return data[:-2]

    async def exactly(self, size: int) -> bytes:
        """`size` bytes. Raises WireError if the stream ends before."""
        try:
            data = await self.reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            self.taken += error.partial
            raise WireError(f"the stream ended {size - len(error.partial)} bytes early") from None
        self.taken += data
        return data

    async def rest(self) -> bytes:
        """Everything up to the stream's end."""
        data = await self.reader.read(-1)
        self.taken += data
        return data

    async def fields(self) -> list[tuple[bytes, bytes]]:
        """Header or trailer lines up to the empty one, in order, names as written."""
        found: list[tuple[bytes, bytes]] = []
        size = 0
        while line := await self.line():
            match = FIELD.match(line)
            size += len(line)
            if match is None or size > HEAD_LIMIT:
                raise WireError(f"not a field line: {line[:200]!r}")
            found.append((match[1], match[2]))
        return found


@dataclass(slots=True)
class Message:
    """A request or response as it stood on the wire. `chunks` holds the data chunks of a chunked body."""

    start_line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytearray = field(default_factory=bytearray)
    chunks: list[bytes] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    framing: str = "none"  # none | length | chunked | close
    complete: bool = False
    raw: bytes = b""

    def all(self, name: str) -> list[bytes]:
        """Every value of the header, case-blind."""
        wanted = name.lower().encode()
        return [value for key, value in self.headers if key.lower() == wanted]

    def one(self, name: str) -> bytes | None:
        """The header's value, None without it. Raises WireError if it is repeated."""
        values = self.all(name)
        if len(values) > 1:
            raise WireError(f"{name} is repeated: {values}")
        return values[0] if values else None


async def read_body(source: Recorder, message: Message, ends_by_close: bool) -> None:
    """Reads the body that the head announces into `message`. Without framing a request has none, a response ends with
    its connection (`ends_by_close`). Raises WireError for ambiguous framing or a short body."""
    coding, length = message.one("transfer-encoding"), message.one("content-length")
    if coding is not None and length is not None:
        raise WireError("both transfer-encoding and content-length")
    if coding is not None:
        if coding.lower() != b"chunked":
            raise WireError(f"transfer-encoding {coding!r}")
        message.framing = "chunked"
        while size := await chunk_size(source):
            chunk = await source.exactly(size)
            message.chunks.append(chunk)
            message.body += chunk
            if await source.exactly(2) != b"\r\n":
                raise WireError("a chunk does not end with CRLF")
        message.trailers = await source.fields()
    elif length is not None:
        if not length.isdigit():
            raise WireError(f"content-length {length!r}")
        message.framing = "length"
        message.body += await source.exactly(int(length))
    elif ends_by_close:
        message.framing = "close"
        message.body += await source.rest()
    message.complete = True


async def chunk_size(source: Recorder) -> int:
    """A chunk-size line without extensions."""
    line = await source.line()
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", line):
        raise WireError(f"chunk size {line[:80]!r}")
    return int(line, 16)
