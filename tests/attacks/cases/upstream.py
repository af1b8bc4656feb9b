"""What upstreams send, as data: pieces of bytes with pauses, how the connection ends, and what the client gets.

`tests/server/test_exchange.py` and `tests/upstream/` have the plain failures (refused, closed, reset, kept connections that die).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CLOSE, RESET, STAY = "close", "reset", "stay"
GET = b"GET /attack HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = GET.replace(b"1.1", b"1.0")
HEAD = GET.replace(b"GET", b"HEAD")
POST = b"POST /attack HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"content-length: 10\r\n\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
WHOLE = OK + b"content-length: 2\r\n\r\nok"
PAUSE = 0.03


@dataclass(frozen=True)
class Case:
    """One attack."""

    name: str
    clause: str
    pieces: Sequence[bytes | float]
    end: str
    answers: tuple[int, ...]
    """The final status; empty: the client's connection is reset before the response is whole."""
    request: bytes = GET
    body: bytes | None = None
    lacks: tuple[bytes, ...] = ()
    sends: int = 1
    """How often the upstream gets the request."""
    settle: float = 0.0
    """Seconds until the next request."""
    warm: bool = False
    """The connection has served another request before."""

    @property
    def slow(self) -> bool:
        """The route's timeout ends it: it gets a short one."""
        return self.clause == "RFC 9110 15.6.5" or self.answers == (504,)


def bad(name: str, clause: str, *pieces: bytes | float, end: str = STAY, status: int = 502, request: bytes = GET) -> Case:
    """No response: 502 in its place."""
    return Case(name, clause, pieces, end, (status,), request)


def cut(name: str, clause: str, *pieces: bytes | float, end: str = STAY, request: bytes = GET) -> Case:
    """A response that began: the client's connection is reset."""
    return Case(name, clause, pieces, end, (), request)


def fine(name: str, clause: str, *pieces: bytes | float, body: bytes, end: str = STAY, request: bytes = GET, status: int = 200,
         lacks: tuple[bytes, ...] = ()) -> Case:  # fmt: skip
    """A response that reaches the client; what is wrong about it does not."""
    return Case(name, clause, pieces, end, (status,), request, body, lacks)


def late(name: str, whole: bytes, surplus: bytes, body: bytes = b"", status: int = 200, request: bytes = GET) -> Case:
    """Bytes behind a response on a connection that is kept: they are no answer to the next request."""
    return Case(name, "RFC 9112 9.2", (whole, PAUSE, surplus), STAY, (status,), request, body, settle=4 * PAUSE)


# fmt: off
HEADS = [
    *(
        bad(name, "RFC 9112 4", line + b"\r\ncontent-length: 2\r\n\r\nok")
        for name, line in {
            "no status line": b"nonsense", "a request": b"GET / HTTP/1.1", "HTTP/0.9": b"<html>", "HTTP/2.0": b"HTTP/2.0 200 OK",
            "HTTP/1.2": b"HTTP/1.2 200 OK", "http in small letters": b"http/1.1 200 OK", "status 99": b"HTTP/1.1 99 OK", "status 0": b"HTTP/1.1 000 OK",
            "status 20": b"HTTP/1.1 20 OK", "status 2000": b"HTTP/1.1 2000 OK", "status -200": b"HTTP/1.1 -200 OK", "status abc": b"HTTP/1.1 abc OK",
            "status 2e2": b"HTTP/1.1 2e2 OK", "no status": b"HTTP/1.1", "a tab for a space": b"HTTP/1.1\t200\tOK",
            "ICY": b"ICY 200 OK", "SIP": b"SIP/2.0 200 OK",
        }.items()
    ),
    *(
        bad(f"a field with {name}", "RFC 9110 5.5", OK + line + b"\r\ncontent-length: 2\r\n\r\nok")
        for name, line in {
            "a NUL (CVE-2026-34520)": b"x: a\0b", "a NUL in its name": b"x\0: a", "a space in its name": b"x y: a", "no colon": b"x", "no name": b": a",
            "BEL": b"x: \x07", "DEL": b"x: \x7f", "a space before the colon": b"x : a", "a bare CR": b"x: a\rb", "parentheses in its name": b"(x): a",
        }.items()
    ),
    fine("a NUL in the reason", "RFC 9112 4", WHOLE.replace(b"OK", b"O\0K"), body=b"ok", lacks=(b"\0",)),
    fine("colours in the reason", "RFC 9112 4", WHOLE.replace(b"OK", b"\x1b[31m"), body=b"ok", lacks=(b"\x1b",)),
    bad("300 fields", "RFC 6585 5", OK + b"x: y\r\n" * 300 + b"\r\n"),
    bad("a field of 100 kB", "RFC 6585 5", OK + b"x: " + b"y" * 100_000 + b"\r\n\r\n"),
    bad("a status line of 100 kB", "RFC 9112 4", b"HTTP/1.1 200 " + b"y" * 100_000 + b"\r\n\r\n"),
    bad("a head that never ends, fast", "RFC 6585 5", *([OK] + [b"x: " + b"y" * 8000 + b"\r\n"] * 40)),
    bad("a head that never ends, slowly", "RFC 9110 15.6.5", *([OK] + [b"x: y\r\n", PAUSE] * 30), status=504),
    bad("silence", "RFC 9110 15.6.5", status=504),
    bad("half a status line", "RFC 9110 15.6.5", b"HTTP/1.1 20", status=504),
    bad("half a head, closed", "RFC 9112 8", OK + b"content-le", end=CLOSE, status=503),
    bad("half a head, reset", "RFC 9112 8", OK + b"content-le", PAUSE, end=RESET, status=503),
    bad("closed at once", "RFC 9112 8", end=CLOSE, status=503),
    bad("closed under a POST", "RFC 9112 8", end=CLOSE, status=503, request=POST),
    bad("reset under a POST", "RFC 9112 8", end=RESET, status=503, request=POST),
    bad("an empty line and no more", "RFC 9112 8", b"\r\n", end=CLOSE, status=503),
]

LENGTHS = [
    *(
        bad(f"length {name}", "RFC 9112 6.3", OK + b"content-length: " + value + b"\r\n\r\nok")
        for name, value in {
            "+2": b"+2", "0x2": b"0x2", "-2": b"-2", "2, 2": b"2, 2", "2, 3": b"2, 3", "two": b"two", "empty": b"", "2.0": b"2.0", "1_0": b"1_0",
            "of 19 digits": b"9" * 19, "of 30 digits": b"9" * 30, "twice": b"2\r\ncontent-length: 2", "2 and 3": b"2\r\ncontent-length: 3",
        }.items()
    ),
    bad("length and coding", "RFC 9112 6.3", OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    bad("coding and length", "RFC 9112 6.3", OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
    *(
        bad(f"coding {value.decode()}", "RFC 9112 6.1", OK + b"transfer-encoding: " + value + b"\r\n\r\n0\r\n\r\n", end=CLOSE)
        for value in (b"gzip, chunked", b"chunked, chunked", b"xchunked", b"identity", b"chunked;a=b", b"gzip")
    ),
    bad("coding in HTTP/1.0", "RFC 9112 6.1", CHUNKED.replace(b"1.1", b"1.0") + b"2\r\nok\r\n0\r\n\r\n", end=CLOSE),
    cut("too little for its length, closed", "RFC 9112 8", SIZED, PAUSE, b"abc", PAUSE, end=CLOSE),
    cut("too little for its length, reset", "RFC 9112 8", SIZED, PAUSE, b"abc", PAUSE, end=RESET),
    cut("too little for its length, silent", "RFC 9110 15.6.5", SIZED, PAUSE, b"abc"),
    cut("nothing of its length, closed", "RFC 9112 8", SIZED, PAUSE, end=CLOSE),
    cut("one byte too little, closed", "RFC 9112 8", SIZED, PAUSE, b"123456789", PAUSE, end=CLOSE),
    cut("too little for its length, HTTP/1.0 client", "RFC 9112 8", SIZED, PAUSE, b"abc", PAUSE, end=CLOSE, request=OLD),
    cut("a body that drips past the timeout", "RFC 9110 15.6.5", SIZED.replace(b"10", b"99"), *([b"x", PAUSE] * 30)),
    cut("a body without a length, reset", "RFC 9112 8", OK + b"\r\n", PAUSE, b"abc", PAUSE, end=RESET),
    cut("a body without a length, reset, HTTP/1.0 client", "RFC 9112 8", OK + b"\r\n", PAUSE, b"abc", PAUSE, end=RESET, request=OLD),
    fine("a body without a length, closed", "RFC 9112 6.3", OK + b"\r\nabc", end=CLOSE, body=b"abc"),
    fine("a length with 204", "RFC 9110 8.6", b"HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n", body=b"", status=204, lacks=(b"content-length",)),
    bad("a body with 204", "RFC 9112 6.3", b"HTTP/1.1 204 No\r\n\r\nevil"),
    bad("a body with 304", "RFC 9112 6.3", b"HTTP/1.1 304 No\r\ncontent-length: 4\r\n\r\nevil"),
    bad("a body to HEAD", "RFC 9112 6.3", OK + b"content-length: 4\r\n\r\nevil", request=HEAD),
    bad("chunks to HEAD", "RFC 9112 6.3", CHUNKED + b"4\r\nevil\r\n0\r\n\r\n", request=HEAD),
    late("a body with 204, later", b"HTTP/1.1 204 No\r\n\r\n", b"evil", status=204),
    late("a body with 304, later", b"HTTP/1.1 304 No\r\ncontent-length: 4\r\n\r\n", b"evil", status=304),
    late("a body to HEAD, later", OK + b"content-length: 4\r\n\r\n", b"evil", request=HEAD),
]

CHUNKS = [
    *(
        cut(f"chunk {name}", "RFC 9112 7.1", CHUNKED, PAUSE, b"2\r\nok\r\n", PAUSE, data + b"\r\n0\r\n\r\n")
        for name, data in {
            "zz": b"zz\r\nab", "-2": b"-2\r\nab", "0x2": b"0x2\r\nab", "+2": b"+2\r\nab", "too long": b"2\r\nabc", "without a size": b"\r\nab",
            "of 17 digits": b"1" * 17 + b"\r\nab", "NUL": b"2\0\r\nab",
        }.items()
    ),
    cut("chunks, closed", "RFC 9112 8", CHUNKED, PAUSE, b"2\r\nok\r\n", PAUSE, end=CLOSE),
    cut("chunks, reset", "RFC 9112 8", CHUNKED, PAUSE, b"2\r\nok\r\n", PAUSE, end=RESET),
    cut("half a chunk, closed", "RFC 9112 8", CHUNKED, PAUSE, b"5\r\nok", PAUSE, end=CLOSE),
    cut("half a last chunk, closed", "RFC 9112 8", CHUNKED, PAUSE, b"2\r\nok\r\n0\r\n", PAUSE, end=CLOSE),
    cut("half a trailer, closed", "RFC 9112 8", CHUNKED, PAUSE, b"2\r\nok\r\n0\r\nx: y", PAUSE, end=CLOSE),
    cut("chunks, closed, HTTP/1.0 client", "RFC 9112 8", CHUNKED, PAUSE, b"2\r\nok\r\n", PAUSE, end=CLOSE, request=OLD),
    cut("chunks that drip past the timeout", "RFC 9110 15.6.5", CHUNKED, *([b"1\r\nx\r\n", PAUSE] * 30)),
    cut("a chunk with a bare LF in its extension", "RFC 9110 15.6.5", CHUNKED, PAUSE, b"2\r\nok\r\n", PAUSE, b"2;a\nb\r\nab\r\n0\r\n\r\n"),
    cut("trailers that never end", "RFC 9112 7.1.2", CHUNKED, PAUSE, b"2\r\nok\r\n0\r\n", b"x: y\r\n" * 1000),
    fine("a chunk extension", "RFC 9112 7.1.1", CHUNKED + b"2;a=b\r\nok\r\n0\r\n\r\n", body=b"ok", lacks=(b"a=b",)),
    fine("framing as a trailer", "RFC 9110 6.5.1", CHUNKED + b"2\r\nok\r\n0\r\nset-cookie: evil\r\n\r\n", body=b"ok", lacks=(b"evil",)),
]

EVIL = OK + b"content-length: 4\r\n\r\nevil"
ORDER = [
    fine("two responses for one request", "RFC 9112 9.2", WHOLE + EVIL, body=b"ok"),
    fine("half a response behind one", "RFC 9112 9.2", WHOLE + EVIL[:20], body=b"ok"),
    bad("garbage behind a response", "RFC 9112 9.2", WHOLE + b"\0\0\0\0"),
    late("a second response, later", WHOLE, EVIL, body=b"ok"),
    late("garbage behind a response, later", WHOLE, b"\0\0\0\0", body=b"ok"),
    fine("a second response behind chunks", "RFC 9112 9.2", CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + EVIL, body=b"ok"),
    fine("a second response behind 204", "RFC 9112 9.2", b"HTTP/1.1 204 No\r\n\r\n" + EVIL, body=b"", status=204),
    bad("a body longer than its length", "RFC 9112 9.2", WHOLE.replace(b"ok", b"okevil")),
    fine("a whole response, then a reset", "RFC 9112 8", WHOLE, PAUSE, end=RESET, body=b"ok"),
    fine("keep-alive in the last response", "RFC 9112 9.6", WHOLE.replace(b"OK\r\n", b"OK\r\nconnection: keep-alive\r\nkeep-alive: max=0\r\n"), end=CLOSE,
         body=b"ok", lacks=(b"keep-alive",)),
    fine("connection that names what the gateway adds", "RFC 9110 7.6.1", WHOLE.replace(b"OK\r\n", b"OK\r\nconnection: via, date, content-length\r\n"),
         body=b"ok"),
    fine("upgrade in a 200", "RFC 9110 7.8", WHOLE.replace(b"OK\r\n", b"OK\r\nconnection: upgrade\r\nupgrade: websocket\r\n"), body=b"ok",
         lacks=(b"upgrade",)),
    bad("101 that nobody asked for", "RFC 9110 15.2.2", b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nevil"),
    bad("101 without an upgrade", "RFC 9110 15.2.2", b"HTTP/1.1 101 S\r\n\r\n" + EVIL),
    fine("100, then 200", "RFC 9110 15.2", b"HTTP/1.1 100 C\r\n\r\n" + WHOLE, body=b"ok"),
    fine("102, 103, 103, then 200", "RFC 9110 15.2", b"HTTP/1.1 102 P\r\n\r\n" + b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n" * 2 + WHOLE, body=b"ok"),
    fine("103 with a length", "RFC 9110 8.6", b"HTTP/1.1 103 E\r\ncontent-length: 4\r\n\r\n" + WHOLE, body=b"ok"),
    fine("103 to an HTTP/1.0 client", "RFC 9110 15.2", b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n" + WHOLE, body=b"ok", request=OLD, lacks=(b"link",)),
    bad("a storm of 100", "RFC 9110 15.2", *([b"HTTP/1.1 100 C\r\n\r\n" * 400] * 40)),
    bad("a storm of 103", "RFC 9110 15.2", *([b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n" * 200] * 40)),
    bad("103 and no more, closed", "RFC 9112 8", b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n", end=CLOSE, status=503),
    bad("103 and no more", "RFC 9110 15.6.5", b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n", status=504),
]


def again(name: str, request: bytes, sends: int, *pieces: bytes | float, end: str = RESET, status: int = 503) -> Case:
    """On a kept connection that dies under the request."""
    return Case(name, "RFC 9110 9.2.2", pieces, end, (status,), request, sends=sends, warm=True)


REPLAYS = [
    again("GET on a kept connection", GET, 2),
    again("HEAD on a kept connection", HEAD, 2),
    again("DELETE on a kept connection", GET.replace(b"GET", b"DELETE"), 2),
    again("POST on a kept connection", POST, 1),
    again("POST without a body on a kept connection", POST.replace(b": 3\r\n\r\nabc", b": 0\r\n\r\n"), 1),
    again("PATCH on a kept connection", POST.replace(b"POST", b"PATCH"), 1),
    again("PUT with a body on a kept connection", POST.replace(b"POST", b"PUT"), 1),
    again("an unknown method on a kept connection", GET.replace(b"GET", b"MKACTIVITY"), 1),
    again("GET with a body on a kept connection", POST.replace(b"POST", b"GET"), 1),
    again("GET after a byte of the answer", GET, 1, b"H", PAUSE),
    again("GET after a 103", GET, 1, b"HTTP/1.1 103 E\r\n\r\n", PAUSE),
    again("GET after nonsense", GET, 1, b"\0\r\n\r\n", end=STAY, status=502),
    again("GET after silence", GET, 1, end=STAY, status=504),
]

FAMILIES: dict[str, list[Case]] = {
    "Response heads": HEADS,
    "Lengths, codings, short bodies": LENGTHS,
    "Chunks": CHUNKS,
    "Answers to nothing, interim answers": ORDER,
    "Replays": REPLAYS,
}
