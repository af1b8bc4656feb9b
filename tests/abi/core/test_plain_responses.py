"""Responses that the core reads past the parser: what it takes, the parser takes too, and finds the same in it."""

import asyncio
from typing import Any

import pytest
from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import given
from hypothesis import strategies as st

from proxy.abi.memory import RESPONSE_HEADERS, HeadError, HeadOptions
from proxy.upstream.connection import MAX_HEADERS, NO_FLOW_CONTROL, READ_LIMIT
from tests.abi.core.mutations import mutated
from tests.server.fakes import stream_memory

MEMORY = stream_memory()
OPTIONS = MEMORY.options(HeadOptions())
LOOP = asyncio.new_event_loop()


MOST_FILLED = 1 << 16


def taken(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes, int] | None:
    """(status, fields, body, bytes of it still to come) as the core reads it; None: it leaves it to the parser."""
    size = data.find(b"\r\n\r\n") + 4
    if size < 4:
        return None
    MEMORY.begin()
    MEMORY.load_request([(b"host", b"a")], b"GET", b"/", OPTIONS, b"", b"")
    loaded = MEMORY.load_plain_response(data[:size], len(data) - size, OPTIONS)
    return (loaded & 0xFFFF, MEMORY.pairs(RESPONSE_HEADERS), data[size:], loaded >> 32) if loaded else None


def parsed(data: bytes, left: int = 0) -> tuple[int, list[tuple[bytes, bytes]], bytes, int] | str:
    """The same by the parser, which must find the body's end behind `left` bytes more; or what it says of it."""
    flow: Any = NO_FLOW_CONTROL
    parser = HttpResponseParser(flow, LOOP, READ_LIMIT, max_headers=MAX_HEADERS, read_until_eof=True, auto_decompress=False)
    try:
        messages, upgraded, _ = parser.feed_data(data)
        if len(messages) != 1 or upgraded:
            return f"{len(messages)} messages"
        message, payload = messages[0]
        body = payload.read_nowait()
        if left > MOST_FILLED:
            if payload.is_eof() or message.chunked or message.should_close:
                return "another end"
        elif left:
            if payload.is_eof() or parser.feed_data(b"\n" * (left - 1))[0] or payload.is_eof():
                return "the end comes too early"
            parser.feed_data(b"\n")
        if left <= MOST_FILLED and (
            not payload.is_eof() or message.chunked or message.should_close or parser.feed_eof() is not None
        ):
            return "more than this is needed"
        MEMORY.begin()
        MEMORY.load_request([(b"host", b"a")], b"GET", b"/", OPTIONS, b"", b"")
        MEMORY.load_response(message.code, message.raw_headers, OPTIONS)
    except (HttpProcessingError, HeadError) as error:
        return repr(error)
    return message.code, MEMORY.pairs(RESPONSE_HEADERS), body, left


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-A: \xc3\xa9 \t b\r\ncontent-length: 2\r\n\r\nok"


def test_a_plain_response_is_taken() -> None:
    found = taken(PLAIN)
    assert found is not None
    assert found == parsed(PLAIN)
    assert taken(PLAIN.replace(b"X-A", b"Keep-Alive: 5\r\nConnection: keep-alive\r\nX-A")) is not None
    assert found[1][:3] == [(b":status", b"200"), (b"content-type", b"text/plain"), (b"x-a", b"\xc3\xa9 \t b")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"HTTP/1.2"),
        (b"HTTP/1.1", b"http/1.1"),
        (b" 200 ", b" 100 "),
        (b" 200 ", b" 101 "),
        (b" 200 ", b" 199 "),
        (b" 200 ", b" 204 "),
        (b" 200 ", b" 205 "),
        (b" 200 ", b" 304 "),
        (b" 200 ", b" 600 "),
        (b" 200 ", b" 20 "),
        (b" 200 ", b" 2000 "),
        (b" 200 ", b" +20 "),
        (b" 200 OK", b" 200"),
        (b" 200 OK", b" 200 O\x00K"),
        (b" 200 OK\r\n", b" 200 OK\n"),
        (b" 200 OK\r\n", b" 200 OK\r\r\n"),
        (b"X-A: ", b"X-A:"),
        (b"X-A: ", b"X-A:  "),
        (b"X-A: ", b"X-A:\t"),
        (b"X-A: ", b"X-A : "),
        (b"X-A: ", b": "),
        (b"X-A: ", b" X-A: "),
        (b"X-A: ", b"\tX-A: "),
        (b"X-A: ", b"X A: "),
        (b"X-A: ", b"X\x00A: "),
        (b"X-A: ", b"X\xc3: "),
        (b" b\r\n", b" b \r\n"),
        (b" b\r\n", b" b\n"),
        (b" b\r\n", b" b\r"),
        (b" b\r\n", b" b\x00\r\n"),
        (b" b\r\n", b" b\x7f\r\n"),
        (b" b\r\n", b" b\r\n folded\r\n"),
        (b" b\r\n", b" b\r\nX-Empty: \r\n"),
        (b" b\r\n", b" b\r\ncontent-length: 2\r\n"),
        (b" b\r\n", b" b\r\ntransfer-encoding: chunked\r\n"),
        (b" b\r\n", b" b\r\nTransfer-Encoding: identity\r\n"),
        (b" b\r\n", b" b\r\nConnection: close\r\n"),
        (b" b\r\n", b" b\r\nConnection: keep-alive, x-a\r\n"),
        (b" b\r\n", b" b\r\nUpgrade: h2c\r\n"),
        (b" b\r\n", b" b\r\nTrailer: x\r\n"),
        (b" b\r\n", b" b\r\nProxy-Connection: close\r\n"),
        (b"length: 2", b"length: 1"),
        (b"length: 2", b"length: +2"),
        (b"length: 2", b"length: 0x2"),
        (b"length: 2", b"length: 2, 2"),
        (b"length: 2", b"length: 0000000002"),
        (b"length: 2", b"length: 4294967298"),
        (b"content-length: 2\r\n", b""),
        (b"\r\n\r\n", b"\n\r\n"),
        (b"\r\n\r\nok", b"\r\n\r\nokk"),
        (b"X-A", b"X-A: 1\r\n" * 254 + b"X-A"),
        (b"X-A: ", b"X-A: " + b"a" * 9000),
    ],
)
def test_what_is_unusual_is_the_parser_s(old: bytes, new: bytes) -> None:
    assert old in PLAIN
    assert taken(PLAIN.replace(old, new, 1)) is None


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [(b"length: 2", b"length: 3", 1), (b"\r\nok", b"\r\n", 2), (b"length: 2", b"length: 999999999", 999999997)],
)
def test_what_is_not_there_yet_is_counted(old: bytes, new: bytes, left: int) -> None:
    data = PLAIN.replace(old, new, 1)
    found = taken(data)
    assert found is not None
    assert found[3] == left
    assert found == parsed(data, left)


PIECES = st.sampled_from([
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 \r\n", b"HTTP/1.1 404 Not Found\r\n", b"HTTP/1.0 200 OK\r\n", b"Server: x\r\n",
    b"HTTP/1.1 204 No\r\n", b"a: b\r\n", b"Set-Cookie: a=b; Path=/\r\n", b"Set-Cookie: c\r\n", b"Via: 1.0 x\r\n", b"x_y: 1\r\n",
    b"Date: today\r\n", b"Cache-Control: a\r\n", b"cache-control: b\r\n", b"Expect: 100-continue\r\n", b"Host: a\r\n",
    b"Te: trailers\r\n", b"Content-Length: 2\r\n", b"content-length: 0\r\n", b"Content-Length: 02\r\n", b"Connection: x\r\n",
    b"Connection: Keep-Alive\r\n", b"Keep-Alive: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"\n", b"\r", b":", b" ",
    b"\t", b"ok", b"0\r\n\r\n", b"\x00", b"\x7f", b"\x80", b"\xff",
])  # fmt: skip


FIELDS = [b"Server: x\r\n", b"a: b\r\n", b"Set-Cookie: c\r\n", b"Via: 1.0 x\r\n", b"cache-control: b\r\n"]
LIKELY = st.tuples(
    st.lists(st.sampled_from(FIELDS)),
    st.sampled_from([b"", b"ok", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]),
    st.sampled_from([0, 0, 0, 1, 7]),
).map(lambda one: b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (b"".join(one[0]), len(one[1]) + one[2], one[1]))


@given(
    st.one_of(
        st.lists(PIECES, max_size=8).map(lambda pieces: b"".join([b"HTTP/1.1 200 OK\r\n", *pieces])),
        LIKELY,
        st.builds(mutated, LIKELY, st.integers(0, 400), st.integers(0, 3), st.one_of(PIECES, st.binary(max_size=3))),
    )
)
def test_the_parser_finds_the_same(data: bytes) -> None:
    found = taken(data)
    if found is not None:
        assert found == parsed(data, found[3])
