"""Whole requests that the core reads past the parser: what it takes, the parser takes too, and finds the same in it."""

import asyncio
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from hypothesis import given
from hypothesis import strategies as st

from proxy.abi.memory import HAS_ID, REQUEST_HEADERS, HeadError, HeadOptions
from tests.abi.core.mutations import mutated
from tests.server.fakes import stream_memory

MEMORY = stream_memory()
OPTIONS = {name: MEMORY.options(HeadOptions(request_id=name)) for name in ("off", "keep", "replace")}
LOOP = asyncio.new_event_loop()
PEER, IDENTITY = b"192.0.2.1", b"made-here"
Found = tuple[str, list[tuple[bytes, bytes]]]


def taken(data: bytes, request_id: str = "keep") -> Found | None:
    """(authority, fields) as the core reads it; None: it leaves it to the parser."""
    if data.find(b"\r\n\r\n") != len(data) - 4:
        return None
    MEMORY.begin()
    found = MEMORY.load_plain_request(data, OPTIONS[request_id], PEER, IDENTITY)
    start = found >> 16 & 0x7FFF
    return (data[start : start + (found & 0xFFFF)].decode(), MEMORY.pairs(REQUEST_HEADERS)) if found else None


def parsed(data: bytes, request_id: str = "keep") -> Found | str:
    """The same by the parser; or what it says of it."""
    parser = HttpRequestParser(BaseProtocol(LOOP), LOOP, 1 << 30, max_headers=128, auto_decompress=False)
    try:
        messages: Any
        messages, upgraded, tail = parser.feed_data(data)
        if len(messages) != 1 or upgraded or tail:
            return f"{len(messages)} messages"
        message, payload = messages[0]
        if payload is not EMPTY_PAYLOAD or message.should_close or message.upgrade or message.method != "GET":
            return "more than this is needed"
        MEMORY.begin()
        target = message.path.encode("utf-8", "surrogateescape")
        said = MEMORY.load_request(message.raw_headers, b"GET", target, OPTIONS[request_id], PEER, IDENTITY)
        if said or message.version != (1, 1):
            return "more than this is needed"
    except (HttpProcessingError, HeadError) as error:
        return repr(error)
    return message.headers["Host"], MEMORY.pairs(REQUEST_HEADERS)


PLAIN = b"GET /a?b=c HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent: x/1\r\nX-A: \xc3\xa9 \t b\r\nCookie: a=b\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        PLAIN.replace(b"X-A", b"Connection: Keep-Alive\r\nKeep-Alive: 300\r\nX-A"),
        PLAIN.replace(b"X-A", b"Accept: a\r\nAccept: b\r\nX-A"),
        PLAIN.replace(b"X-A", b"X-Forwarded-For: 198.51.100.1\r\nVia: 1.0 b\r\nX-A"),
    ],
)
def test_a_plain_request_is_taken(data: bytes) -> None:
    found = taken(data)
    assert found is not None
    assert found == parsed(data)


def test_an_id_of_the_client() -> None:
    for sent in (b"theirs", b"un sound", b"x" * 129):
        data = PLAIN.replace(b"X-A", b"X-Request-Id: %s\r\nX-A" % sent)
        for policy in OPTIONS:
            MEMORY.begin()
            found = MEMORY.load_plain_request(data, OPTIONS[policy], PEER, IDENTITY)
            assert bool(found & HAS_ID) == (policy == "keep")
            expected = {"off": sent, "replace": IDENTITY, "keep": sent if sent == b"theirs" else IDENTITY}[policy]
            assert MEMORY.get(REQUEST_HEADERS, b"x-request-id") == expected
            assert taken(data, policy) == parsed(data, policy)
    twice = PLAIN.replace(b"X-A", b"X-Request-Id: one\r\nX-Request-Id: two\r\nX-A")
    assert taken(twice) is None, "the first of them is kept: the parser's side knows it"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET ", b"HEAD "),
        (b"GET ", b"get "),
        (b"GET ", b"GET  "),
        (b"GET /", b"GET http://example.com/"),
        (b"GET /", b"GET *"),
        (b"/a?b=c", b"/a#b"),
        (b"/a?b=c", b"/\xc3\xa9"),
        (b"/a?b=c", b"/a\tb"),
        (b"/a?b=c", b"/a b"),
        (b"/a?b=c", b"/a\x7f"),
        (b" HTTP/1.1", b" HTTP/1.0"),
        (b" HTTP/1.1", b" HTTP/1.10"),
        (b" HTTP/1.1", b"  HTTP/1.1"),
        (b" HTTP/1.1", b""),
        (b" HTTP/1.1\r\n", b" HTTP/1.1\n"),
        (b" HTTP/1.1\r\n", b" HTTP/1.1 \r\n"),
        (b"Host: example.com:8080\r\n", b""),
        (b"Host: ", b"Host: b\r\nHost: "),
        (b"Host: ", b"Host:"),
        (b"Host: ", b"Host : "),
        (b"Host: ", b" Host: "),
        (b"Host: ", b"Host: user@"),
        (b"example.com:8080", b"a,b"),
        (b"X-A: ", b"X-A:  "),
        (b"X-A: ", b"X-A:\t"),
        (b"X-A: ", b"X A: "),
        (b"X-A: ", b": "),
        (b"X-A: ", b"X_A: "),
        (b" b\r\n", b" b \r\n"),
        (b" b\r\n", b" b\n"),
        (b" b\r\n", b" b\r\n folded\r\n"),
        (b" b\r\n", b" b\x00\r\n"),
        (b" b\r\n", b" b\x7f\r\n"),
        (b" b\r\n", b" b\r\nX-Empty: \r\n"),
        (b"X-A", b"Content-Length: 0\r\nX-A"),
        (b"X-A", b"Content-Length: 5\r\nX-A"),
        (b"X-A", b"Transfer-Encoding: chunked\r\nX-A"),
        (b"X-A", b"Connection: close\r\nX-A"),
        (b"X-A", b"Connection: keep-alive, x-a\r\nX-A"),
        (b"X-A", b"Connection: upgrade\r\nUpgrade: websocket\r\nX-A"),
        (b"X-A", b"Expect: 100-continue\r\nX-A"),
        (b"X-A", b"TE: trailers\r\nX-A"),
        (b"X-A", b"Trailer: x\r\nX-A"),
        (b"X-A", b"HTTP2-Settings: x\r\nX-A"),
        (b"X-A", b"User-Agent: y\r\nX-A"),
        (b"X-A", b"Content-Type: a\r\nContent-Type: a\r\nX-A"),
        (b"X-A", b"X-A: 1\r\n" * 97 + b"X-A"),
        (b"X-A: ", b"X-A: " + b"a" * 9000),
        (b"\r\n\r\n", b"\r\n\n"),
        (b"\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ],
)
def test_what_is_unusual_is_the_parser_s(old: bytes, new: bytes) -> None:
    assert old in PLAIN
    assert taken(PLAIN.replace(old, new, 1)) is None


PIECES = st.sampled_from([
    b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"Host: b:1\r\n", b"a: b\r\n", b"Accept: x\r\n", b"Via: 1.0 x\r\n", b"X_y: 1\r\n",
    b"Content-Length: 0\r\n", b"Connection: close\r\n", b"Connection: Keep-Alive\r\n", b"Keep-Alive: 5\r\n", b"ETag: a\r\n",
    b"Transfer-Encoding: chunked\r\n", b"User-Agent: c\r\n", b"X-Request-Id: d\r\n", b"Forwarded: for=a\r\n", b"\r\n", b"\n",
    b"\r", b":", b" ", b"\t", b"%", b"//", b"..", b"#", b"\x00", b"\x7f", b"\x80", b"\xff",
])  # fmt: skip


FIELDS = [
    b"Accept: a\r\n", b"a: b\r\n", b"Cookie: c\r\n", b"Via: 1.0 x\r\n", b"X-Forwarded-For: 1.2.3.4\r\n",
    b"Connection: keep-alive\r\n",
]  # fmt: skip
LIKELY = st.lists(st.sampled_from(FIELDS)).map(lambda one: b"GET /x HTTP/1.1\r\nHost: a\r\n%s\r\n" % b"".join(one))


@given(
    st.one_of(
        LIKELY,
        st.lists(PIECES, max_size=8).map(lambda pieces: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join([*pieces, b"\r\n"])),
        st.builds(mutated, LIKELY, st.integers(0, 400), st.integers(0, 3), st.one_of(PIECES, st.binary(max_size=3))),
    ),
    st.sampled_from(["off", "keep", "replace"]),
)
def test_the_parser_finds_the_same(data: bytes, request_id: str) -> None:
    found = taken(data, request_id)
    if found is not None:
        assert found == parsed(data, request_id)
