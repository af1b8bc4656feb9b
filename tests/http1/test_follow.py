"""The follower beside the real parser: it finds what was sent, and where the two do not agree it says so."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.http import HttpRequestParser, HttpResponseParser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http1.chunks import FramingError
from proxy.http1.follow import Follower, HeadFinder
from proxy.http1.trailers import admitted
from proxy.upstream.connection import NO_FLOW_CONTROL

REQUEST = b"POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LOOP = asyncio.new_event_loop()
LIMITS = {"max_line_size": 8190, "max_field_size": 8190, "max_headers": 64}
FIELDS, BYTES = 64, 4096

SIZED = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n\r\n\r\n5\r",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nx\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
]
INTERIM = [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]


class RefusedError(Exception):
    """By either."""


class Side:
    """A parser with its follower, as a connection has them."""

    def __init__(self, request: bool) -> None:
        kind: Any = HttpRequestParser if request else HttpResponseParser
        own = {"max_msg_queue_size": MAX_MSG_QUEUE_SIZE} if request else {"response_with_body": True, "read_until_eof": True}
        self.parser = kind(NO_FLOW_CONTROL, LOOP, 1 << 30, auto_decompress=False, **LIMITS, **own)
        self.follower = Follower(FIELDS, BYTES, EMPTY_PAYLOAD)
        self.payload: Any = None
        self.body = b""

    def feed(self, data: bytes) -> None:
        """Until the chunked message is complete."""
        if self.complete:
            return
        try:
            messages, _, _ = self.parser.feed_data(data)
            self.follower.follow(data, messages)
        except (HttpProcessingError, FramingError) as error:
            raise RefusedError from error
        for message, payload in messages:
            if self.payload is None and message.chunked:
                self.payload = payload
        if self.payload is not None:
            self.body += self.payload.read_nowait()

    @property
    def complete(self) -> bool:
        return self.payload is not None and bool(self.payload.is_eof())


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    for cut in cuts:
        if not data:
            return
        yield data[:cut]
        data = data[cut:]
    if data:
        yield data


tokens = st.text("abcXYZ-_!#019", min_size=1, max_size=8).map(lambda name: b"x-" + name.encode())
values = st.text('abc XYZ;=,"\t\xe9\u00ff', max_size=12).map(lambda value: value.encode("latin-1"))
sections = st.lists(st.tuples(tokens, values), max_size=5)
bodies = st.lists(st.binary(min_size=1, max_size=30), max_size=5)
extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b c"'])
cuttings = st.lists(st.integers(1, 25), max_size=60)


def written(body: list[bytes], section: list[tuple[bytes, bytes]], extension: bytes) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % pair for pair in section)
    return b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in body) + b"0\r\n" + lines + b"\r\n"


@settings(max_examples=400, deadline=None)
@given(
    before=st.lists(st.integers(0, 4), max_size=3),
    request=st.booleans(),
    body=bodies,
    section=sections,
    extension=extensions,
    cuts=cuttings,
)
def test_finds_what_was_sent(
    before: list[int], request: bool, body: list[bytes], section: list[tuple[bytes, bytes]], extension: bytes, cuts: list[int]
) -> None:
    first = b"".join(SIZED[i] if request else INTERIM[i % 2] for i in before)
    data = first + (REQUEST if request else RESPONSE) + written(body, section, extension)
    side = Side(request)
    for piece in pieces(data, cuts):
        side.feed(piece)
    assert side.complete
    assert side.body == b"".join(body)
    found = side.follower.take(side.payload)
    assert found == [(name.lower(), value.strip(b" \t")) for name, value in section]
    assert not side.follower.lost


CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)\r\n")


def reference(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], int]:
    """A whole chunked body read once more, in the plainest way: body, trailers, its length. Raises ValueError."""
    at, body = 0, b""
    while True:
        match = CHUNK.match(data, at)
        if match is None:
            raise ValueError
        size, at = int(match[1], 16), match.end()
        if not size:
            break
        body += data[at : at + size]
        at += size + 2
        if data[at - 2 : at] != b"\r\n":
            raise ValueError
    section = []
    while (match := LINE.match(data, at)) is not None:
        section.append((match[1].lower(), match[2].strip(b" \t")))
        at = match.end()
    if data[at : at + 2] != b"\r\n":
        raise ValueError
    return body, section, at + 2


mutations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete"]),
        st.integers(0, 200),
        st.sampled_from([*(b"%c" % c for c in b"\r\n\0 \t:;01fGa\x80"), b"\r\n", b"0\r\n\r\n"]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=1500, deadline=None)
@given(request=st.booleans(), body=bodies, section=sections, extension=extensions, changes=mutations, cuts=cuttings)
def test_a_mutation_is_read_alike_or_refused(
    request: bool,
    body: list[bytes],
    section: list[tuple[bytes, bytes]],
    extension: bytes,
    changes: list[tuple[str, int, bytes]],
    cuts: list[int],
) -> None:
    """Whatever the parser lets pass of it: the body and the trailers that are passed on are those a plain reader finds."""
    data = written(body, section, extension)
    for how, where, text in changes:
        where %= len(data) + 1
        data = data[:where] + (text if how != "delete" else b"") + data[where + (how != "insert") * len(text) :]
    side = Side(request)
    try:
        for piece in pieces((REQUEST if request else RESPONSE) + data, cuts):
            side.feed(piece)
    except RefusedError:
        return
    if side.complete:
        plain, trailers, _ = reference(data)
        assert side.body == plain
        assert side.follower.take(side.payload) == admitted(trailers)


@pytest.mark.parametrize(
    "section",
    [
        b"content-length: 5\r\n",
        b"transfer-encoding: chunked\r\n",
        b"x: 1\r\n y\r\n",
        b"x: 1\ny: 2\r\n",
        b"x: 1\0\r\n",
        b"x : 1\r\n",
    ],
)
@pytest.mark.parametrize("request_", [True, False])
@pytest.mark.parametrize("cut", [1, 1000])
def test_smuggling_is_refused_or_dropped(section: bytes, request_: bool, cut: int) -> None:
    side = Side(request_)
    data = (REQUEST if request_ else RESPONSE) + b"1\r\na\r\n0\r\n" + section + b"\r\n"
    try:
        for piece in pieces(data, [cut] * len(data)):
            side.feed(piece)
    except RefusedError:
        return
    assert section.startswith(b"transfer-encoding")  # which the response parser takes
    assert not side.follower.has(side.payload)


@pytest.mark.parametrize("cut", [1, 2, 3, 1000])
def test_what_may_not_be_a_trailer_is_not_one(cut: int) -> None:
    side = Side(True)
    section = b"X-A: 1\r\nCookie: a\r\nContent-Type: t\r\nContent-Digest: d\r\nAuthorization: z\r\nSet-Cookie: q\r\n"
    data = REQUEST + b"0\r\n" + section + b"\r\n"
    for piece in pieces(data, [cut] * len(data)):
        side.feed(piece)
    assert side.follower.take(side.payload) == [(b"x-a", b"1"), (b"content-digest", b"d")]
    assert side.follower.take(side.payload) == []


def test_one_byte_chunks() -> None:
    side = Side(True)
    side.feed(REQUEST)
    for _ in range(3000):
        side.feed(b"1\r\na\r\n")
    side.feed(b"0\r\nx: y\r\n\r\n")
    assert side.body == b"a" * 3000
    assert side.follower.take(side.payload) == [(b"x", b"y")]


def test_more_requests_in_a_read_than_the_parser_hands_out_lose_the_place() -> None:
    """Then no trailers are passed on: counted places would be wrong."""
    side = Side(True)
    data = SIZED[0] * 40 + REQUEST + b"0\r\nx: y\r\n\r\n"
    messages, _, _ = side.parser.feed_data(data)
    side.follower.follow(data, messages)
    assert len(messages) == MAX_MSG_QUEUE_SIZE
    assert side.follower.lost
    assert not side.follower.bodies


def test_a_parser_that_ends_elsewhere_is_noticed() -> None:
    class Message:
        chunked = True

    class Payload:
        total_bytes = 2

        def is_eof(self) -> bool:
            return True

    for data in (b"1\r\na\r\n0\r\n\r\n", b"2\r\nab\r\n0\r\n"):
        with pytest.raises(FramingError, match="where the parser says"):
            Follower(FIELDS, BYTES, EMPTY_PAYLOAD).follow(REQUEST + data, [(Message(), Payload())])
    Follower(FIELDS, BYTES, EMPTY_PAYLOAD).follow(REQUEST + b"2\r\nab\r\n0\r\n\r\n", [(Message(), Payload())])


@given(cuts=cuttings, leading=st.integers(0, 3), end=st.sampled_from([b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"]))
def test_heads_end_at_the_first_empty_line(cuts: list[int], leading: int, end: bytes) -> None:
    head = b"\r\n" * leading + b"GET / HTTP/1.1\r\nhost: a\r\nx:" + end
    finder, seen = HeadFinder(), 0
    for piece in pieces(head + b"rest\r\n\r\n", cuts):
        at = finder.find(piece, 0)
        if at >= 0:
            assert seen + at == len(head)
            return
        seen += len(piece)
    raise AssertionError("not found")
