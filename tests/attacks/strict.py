"""Reads what the gateway sent as the most suspicious of receivers would: one message after the other, or an error.

Written from RFC 9112 and RFC 9110, clause by clause, and stricter than they ask of a recipient: whatever two receivers might
read in two ways is refused, also where the RFCs admit a lenient reading (bare LF, obs-fold, a list of equal lengths, spaces
around a chunk size). Shares no code with the gateway or with aiohttp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")  # RFC 9110 5.5
TARGET = re.compile(rb"/[!\"$-~]*")  # origin-form, visible ASCII, no fragment
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(?::[0-9]{0,5})?")  # RFC 3986 3.2.2 less comma
DIGITS = re.compile(rb"[0-9]{1,18}")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")

NEVER_BETWEEN_HOPS = frozenset({b"keep-alive", b"proxy-connection", b"http2-settings"})
NEVER_TRAILERS = frozenset({
    b"authorization", b"connection", b"content-encoding", b"content-length", b"content-range", b"content-type", b"cookie",
    b"expect", b"host", b"keep-alive", b"max-forwards", b"proxy-authorization", b"proxy-connection", b"set-cookie", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""RFC 9110 6.5.1: framing, routing, authentication, content handling."""


class AmbiguousError(Exception):
    """What came is not one message that everybody reads alike. `clause` is what it offends."""

    def __init__(self, clause: str, problem: str) -> None:
        super().__init__(f"{clause}: {problem}")
        self.clause = clause


class IncompleteError(Exception):
    """The bytes end inside a message whose beginning is sound."""


@dataclass
class Message:
    """A request (`method`, `target`) or a response (`status`); names in lower case."""

    method: bytes = b""
    target: bytes = b""
    status: int = 0
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    head: bytes = b""
    body: bytes = b""
    chunked: bool = False
    until_close: bool = False
    """Only the end of the connection ends the body."""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]

    def tokens(self, name: bytes) -> list[bytes]:
        """The members of a list field, in lower case."""
        return [
            token.strip(b" \t").lower() for value in self.values(name) for token in value.split(b",") if token.strip(b" \t")
        ]

    @property
    def line(self) -> str:
        """`METHOD target`, for comparison."""
        return f"{self.method.decode()} {self.target.decode()}"


class Cursor:
    """A place in received bytes."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, size: int) -> bytes:
        if len(self.data) - self.at < size:
            raise IncompleteError
        self.at += size
        return self.data[self.at - size : self.at]

    def text_line(self, clause: str) -> bytes:
        """A line less its CRLF. Control characters offend even before the line is complete."""
        end = self.data.find(b"\r\n", self.at)
        line = self.data[self.at : end] if end >= 0 else self.data[self.at :].removesuffix(b"\r")
        for byte, name in ((b"\0", "NUL"), (b"\n", "bare LF"), (b"\r", "bare CR")):
            if byte in line:
                raise AmbiguousError(clause, name)
        if end < 0:
            raise IncompleteError
        self.at = end + 2
        return line


def read_fields(cursor: Cursor, clause: str) -> list[tuple[bytes, bytes]]:
    """Field lines and the empty line behind them."""
    fields = []
    while line := cursor.text_line(clause):
        if line[:1] in b" \t":
            raise AmbiguousError("RFC 9112 5.2", "obs-fold")
        name, colon, value = line.partition(b":")
        if not colon:
            raise AmbiguousError("RFC 9112 5", "a field line without a colon")
        if not TOKEN.fullmatch(name):
            raise AmbiguousError("RFC 9112 5.1", "a field name that is no token")
        value = value.strip(b" \t")
        if not VALUE.fullmatch(value):
            raise AmbiguousError("RFC 9110 5.5", "a control character in a field value")
        fields.append((name.lower(), value))
    return fields


def content_length(message: Message) -> int | None:
    lengths = message.values(b"content-length")
    if not lengths:
        return None
    if len(lengths) > 1:
        raise AmbiguousError("RFC 9112 6.3", "more than one content-length")
    if not DIGITS.fullmatch(lengths[0]):
        raise AmbiguousError("RFC 9110 8.6", "a content-length that is no number")
    return int(lengths[0])


def check_hops(message: Message) -> None:
    """RFC 9110 7.6.1: what belongs to one hop says so, or is not there."""
    names = {name for name, _ in message.fields}
    if found := names & NEVER_BETWEEN_HOPS:
        raise AmbiguousError("RFC 9110 7.6.1", f"{sorted(found)} was passed on")
    options = message.tokens(b"connection")
    if set(options) - {b"close", b"keep-alive", b"upgrade", b"te"}:
        raise AmbiguousError("RFC 9110 7.6.1", "connection names a field that was sent on")
    if (b"upgrade" in names) != (b"upgrade" in options):
        raise AmbiguousError("RFC 9110 7.8", "upgrade and connection: upgrade, one without the other")
    if message.tokens(b"te") not in ([], [b"trailers"]):
        raise AmbiguousError("RFC 9110 10.1.4", "te was passed on")


def read_chunks(cursor: Cursor, message: Message) -> None:
    message.chunked = True
    while True:
        line = cursor.text_line("RFC 9112 7.1")
        if not CHUNK_SIZE.fullmatch(line):
            raise AmbiguousError("RFC 9112 7.1", "a chunk size that is not hexadecimal digits alone")
        size = int(line, 16)
        if not size:
            break
        message.body += cursor.take(size)
        if cursor.take(2) != b"\r\n":
            raise AmbiguousError("RFC 9112 7.1", "a chunk that is not as long as it says")
    message.trailers = read_fields(cursor, "RFC 9112 7.1.2")
    if found := {name for name, _ in message.trailers} & NEVER_TRAILERS:
        raise AmbiguousError("RFC 9110 6.5.1", f"{sorted(found)} as a trailer")


def is_chunked(message: Message) -> bool:
    codings = message.values(b"transfer-encoding")
    if not codings:
        return False
    if message.values(b"content-length"):
        raise AmbiguousError("RFC 9112 6.3", "transfer-encoding and content-length")
    if codings != [b"chunked"]:
        raise AmbiguousError("RFC 9112 6.1", "a transfer-encoding that is not one `chunked`")
    return True


def read_request_head(cursor: Cursor) -> Message:
    start = cursor.at
    parts = cursor.text_line("RFC 9112 2.2").split(b" ")
    if len(parts) != 3 or parts[2] != b"HTTP/1.1":
        raise AmbiguousError("RFC 9112 3", "a request line that is not `method target HTTP/1.1`")
    message = Message(method=parts[0], target=parts[1])
    if not TOKEN.fullmatch(message.method):
        raise AmbiguousError("RFC 9112 3.1", "a method that is no token")
    if not TARGET.fullmatch(message.target) and (message.target, message.method) != (b"*", b"OPTIONS"):
        raise AmbiguousError("RFC 9112 3.2", "a target that is not in origin-form")
    message.fields = read_fields(cursor, "RFC 9112 2.2")
    message.head = cursor.data[start : cursor.at]
    hosts = message.values(b"host")
    if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
        raise AmbiguousError("RFC 9112 3.2", "not exactly one valid host")
    check_hops(message)
    return message


def read_request(data: bytes, at: int = 0) -> tuple[Message, int]:
    """The request at `at`, and where the next one begins. Raises AmbiguousError, IncompleteError."""
    cursor = Cursor(data, at)
    message = read_request_head(cursor)
    length = content_length(message)
    if is_chunked(message):
        read_chunks(cursor, message)
    elif length:
        message.body = cursor.take(length)
    return message, cursor.at


def read_response(data: bytes, at: int, method: bytes) -> tuple[Message, int]:
    """The final response to a `method` request at `at`, interim ones before it skipped, and where the next one begins.

    A body that only the connection's end completes reaches to the end of `data`. Raises AmbiguousError, IncompleteError.
    """
    cursor = Cursor(data, at)
    while True:
        start = cursor.at
        line = cursor.text_line("RFC 9112 2.2")
        if not re.fullmatch(rb"HTTP/1\.1 [1-9][0-9][0-9] [\t -~\x80-\xff]*", line):
            raise AmbiguousError("RFC 9112 4", "a status line that is not `HTTP/1.1 status reason`")
        message = Message(method=method, status=int(line[9:12]))
        message.fields = read_fields(cursor, "RFC 9112 2.2")
        message.head = data[start : cursor.at]
        check_hops(message)
        length, chunked = content_length(message), is_chunked(message)
        if message.status >= 200 or message.status == 101:
            break
        if chunked or length is not None:
            raise AmbiguousError("RFC 9110 8.6", "an interim response with framing")
    if message.status in (101, 204) and (chunked or length is not None):
        raise AmbiguousError("RFC 9110 8.6", f"{message.status} with framing")
    if message.status in (101, 204, 304) or method == b"HEAD":
        return message, cursor.at
    if chunked:
        read_chunks(cursor, message)
    elif length is not None:
        message.body = cursor.take(length)
    else:
        if b"close" not in message.tokens(b"connection"):
            raise AmbiguousError("RFC 9112 6.3", "a body without a length on a connection that stays")
        message.until_close = True
        message.body = cursor.take(len(data) - cursor.at)
    return message, cursor.at


def read_requests(data: bytes) -> tuple[list[Message], bytes]:
    """All whole requests, and what is left: the sound beginning of one that was cut. Raises AmbiguousError."""
    found, at = [], 0
    while at < len(data):
        try:
            message, at = read_request(data, at)
        except IncompleteError:
            break
        found.append(message)
    return found, data[at:]


def read_responses(data: bytes, methods: list[bytes]) -> tuple[list[Message], bytes]:
    """The whole responses to requests of these methods, and what is left. Raises AmbiguousError for one too many."""
    found, at = [], 0
    for method in methods:
        if at == len(data):
            break
        try:
            message, at = read_response(data, at, method)
        except IncompleteError:
            return found, data[at:]
        found.append(message)
        if b"close" in message.tokens(b"connection"):
            break
    else:
        if at < len(data) and found and found[-1].status != 101:
            raise AmbiguousError("RFC 9112 9.2", "more responses than requests")
    if at < len(data) and found and b"close" in found[-1].tokens(b"connection"):
        raise AmbiguousError("RFC 9112 9.6", "bytes behind a response that closes the connection")
    return found, data[at:]
