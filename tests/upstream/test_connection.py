"""The upstream connection on a transport of the test's own: what it makes of bytes, however they are cut."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.abi.memory import HeadOptions
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.failure import Failure
from proxy.upstream.write_batch import WriteBatch
from tests.server.fakes import stream_memory

MEMORY = stream_memory()
OPTIONS = MEMORY.options(HeadOptions())


class Transport:
    """Records."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def abort(self) -> None:
        self.closed = True

    close = abort

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Owner:
    """Records."""

    def __init__(self) -> None:
        self.given_back = 0
        self.lost = 0

    def give_back(self, connection: UpstreamConnection) -> None:
        self.given_back += 1

    def closed(self, connection: UpstreamConnection) -> None:
        self.lost += 1


class Sink:
    """Records, data joined."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_upstream_interim(self, status: int, headers: Any) -> None:
        self.events.append(("interim", status))

    def on_upstream_head(self, status: int, headers: Any, end: bool) -> None:
        self.events.append(("head", status))
        if end:
            self.events += [b"", "end"]

    def on_upstream_data(self, data: bytes, end: bool) -> None:
        if isinstance(self.events[-1], bytes):
            self.events[-1] += data
        else:
            self.events.append(data)
        if end:
            self.events.append("end")

    def on_upstream_trailers(self, pairs: Any) -> None:
        self.events += [pairs, "end"]

    def on_upstream_flush(self) -> None:
        pass

    def load_plain(self, head: bytes, rest: int) -> int:
        return 0

    def on_upstream_plain(self, loaded: int, body: bytes) -> None:
        raise AssertionError("none was taken")

    def on_upstream_error(self, connection: UpstreamConnection, failure: Failure, error: str) -> None:
        self.events.append(failure)

    def on_upstream_full(self) -> None:
        self.events.append("full")

    def on_upstream_drained(self) -> None:
        self.events.append("drained")


class PlainSink(Sink):
    """Takes past the parser what needs none."""

    def load_plain(self, head: bytes, rest: int) -> int:
        MEMORY.begin()
        MEMORY.load_request([(b"host", b"a")], b"GET", b"/", OPTIONS, b"", b"")
        return MEMORY.load_plain_response(head, rest, OPTIONS)

    def on_upstream_plain(self, loaded: int, body: bytes) -> None:
        end = not loaded >> 32
        self.events.append(("head", loaded & 0xFFFF))
        if body or end:
            self.on_upstream_data(body, end)


SINKS = Sink, PlainSink


def connect(trailers: bool = False) -> tuple[UpstreamConnection, Transport, Owner]:
    owner = Owner()
    connection = UpstreamConnection(owner, "a:1", WriteBatch(LOOP), trailers)
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport, owner


LOOP = asyncio.new_event_loop()

RESPONSES: dict[str, tuple[bytes, bool, list[Any]]] = {
    # bytes, to a HEAD request, events
    "sized": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", False, [("head", 200), b"hello", "end"]),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False, [("head", 200), b"", "end"]),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: u\r\n\r\n",
        False,
        [("head", 200), b"abcde", "end"],
    ),
    "chunked, empty": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        False,
        [("head", 200), b"", "end"],
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", False, [("head", 204), b"", "end"]),
    "304": (b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n", False, [("head", 304), b"", "end"]),
    "HEAD": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", True, [("head", 200), b"", "end"]),
    "HEAD, chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True, [("head", 200), b"", "end"]),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        False,
        [("interim", 100), ("interim", 103), ("head", 200), b"x", "end"],
    ),
    "gzip stays": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        False,
        [("head", 200), b"abc", "end"],
    ),
}


def normal(events: list[Any]) -> list[Any]:
    """A body of nothing before the end, whether it came as a piece or not."""
    if "end" in events and not isinstance(events[events.index("end") - 1], (bytes, list)):
        events.insert(events.index("end"), b"")
    return events


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(sorted(RESPONSES)), min_size=1, max_size=6), st.randoms(use_true_random=False), st.booleans())
def test_any_sequence_in_any_pieces_on_one_connection(cases: list[str], random: Any, trailers: bool) -> None:
    """One connection, its parsers kept: every response gives its events wherever the bytes are cut."""
    connection, transport, owner = connect(trailers)
    for turn, case in enumerate(cases, 1):
        data, head, expected = RESPONSES[case]
        if trailers and b"T: u" in data:
            expected = [*expected[:-1], [(b"t", b"u")], "end"]
        sink = random.choice(SINKS)()
        connection.begin(sink, b"request", head, True)
        while data:
            count = random.choice([random.randint(1, len(data)), data.find(b"\r\n\r\n") + 4])
            connection.data_received(data[:count])
            data = data[count:]
        assert normal(sink.events) == expected
        assert owner.given_back == turn
        assert connection.reused == (turn > 1)
    assert not transport.closed


BROKEN: dict[str, tuple[bytes, list[Any]]] = {
    # bytes before the endpoint's FIN, events
    "nothing": (b"", [Failure.TERMINATED]),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent", [Failure.TERMINATED]),
    "interim only": (b"HTTP/1.1 100 Continue\r\n\r\n", [("interim", 100), Failure.TERMINATED]),
    "short": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", [("head", 200), b"abc", Failure.PROTOCOL]),
    "no last chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        [("head", 200), b"abc", Failure.PROTOCOL],
    ),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nabc", [("head", 200), b"abc", "end"]),
    "until close, empty": (b"HTTP/1.1 200 OK\r\n\r\n", [("head", 200), b"", "end"]),
}


@pytest.mark.parametrize("kind", SINKS)
@pytest.mark.parametrize("case", BROKEN)
def test_end_of_the_connection(case: str, kind: type[Sink]) -> None:
    """Only a body without a length may end with the connection."""
    data, expected = BROKEN[case]
    connection, transport, owner = connect()
    sink = kind()
    connection.begin(sink, b"request", False, True)
    if data:
        connection.data_received(data)
    connection.eof_received()
    connection.connection_lost(None)
    assert normal(sink.events) == expected
    assert transport.closed
    assert (owner.given_back, owner.lost) == (0, 1)


def test_reset_is_never_a_clean_end() -> None:
    """Not even of a body that ends with the connection."""
    connection, _, _ = connect()
    sink = Sink()
    connection.begin(sink, b"request", False, True)
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nabc")
    connection.connection_lost(ConnectionResetError())
    assert sink.events == [("head", 200), b"abc", Failure.TERMINATED]


@pytest.mark.parametrize("kind", SINKS)
@pytest.mark.parametrize("cut", [0, -5, -2])
@pytest.mark.parametrize("surplus", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"])
def test_surplus_is_not_kept(surplus: bytes, cut: int, kind: type[Sink]) -> None:
    """A connection that has said more than it was asked is closed, its response still delivered."""
    connection, transport, owner = connect()
    sink = kind()
    connection.begin(sink, b"request", False, True)
    data = RESPONSES["sized"][0]
    if cut:
        connection.data_received(data[:cut])
    connection.data_received((data[cut:] if cut else data) + surplus)
    assert sink.events == RESPONSES["sized"][2]
    assert transport.closed
    assert owner.given_back == 0


def test_unread_request_is_not_kept() -> None:
    """An endpoint that answers before it has the whole request: not used again."""
    connection, transport, owner = connect()
    connection.begin(Sink(), b"request", False, False)
    connection.data_received(RESPONSES["sized"][0])
    assert transport.closed
    assert owner.given_back == 0


def test_only_the_sink_may_pause_and_let_go() -> None:
    """A sink whose response is complete has no say over whoever comes next."""
    connection, transport, _ = connect()
    first, second = Sink(), Sink()
    connection.begin(first, b"request", False, True)
    connection.pause_reading(first)
    assert not transport.reading
    connection.data_received(RESPONSES["sized"][0])
    assert transport.reading, "a paused connection went back to the pool"
    connection.begin(second, b"request", False, True)
    connection.pause_reading(first)
    connection.let_go(first)
    assert transport.reading
    assert not transport.closed
    connection.let_go(second)
    assert transport.closed


def test_trailers_are_those_of_the_response_though_the_connection_serves_another() -> None:
    """Given back, it may be taken at once, before the sink has heard of the end."""

    class Next(Owner):
        def give_back(self, connection: UpstreamConnection) -> None:
            super().give_back(connection)
            if self.given_back == 1:
                connection.begin(second, b"request", False, True)

    first, second = Sink(), Sink()
    connection = UpstreamConnection(Next(), "a:1", WriteBatch(LOOP), True)
    connection.connection_made(Transport())  # type: ignore[arg-type]
    connection.begin(first, b"request", False, True)
    chunked = RESPONSES["chunked"][0]
    connection.data_received(chunked)
    connection.data_received(chunked.replace(b"T: u", b"V: w"))
    assert first.events == [("head", 200), b"abcde", [(b"t", b"u")], "end"]
    assert second.events == [("head", 200), b"abcde", [(b"v", b"w")], "end"]


@pytest.mark.parametrize("end", [b"0\r\nt: u\n\r\n", b"0\r\nt: u\r\n v\r\n\r\n", b"0\r\nt: \0\r\n\r\n", b"0\r\nt u\r\n\r\n"])
@pytest.mark.parametrize("cut", [1, 1000])
def test_a_section_that_may_be_read_in_two_ways_ends_the_connection(end: bytes, cut: int) -> None:
    """The parser takes most of these from a response."""
    connection, transport, owner = connect(trailers=True)
    sink = Sink()
    connection.begin(sink, b"request", False, True)
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + end
    while data and not transport.closed:
        connection.data_received(data[:cut])
        data = data[cut:]
    assert sink.events[-1] is Failure.PROTOCOL
    assert transport.closed
    assert not owner.given_back


def test_surplus_behind_trailers_closes_the_connection() -> None:
    connection, transport, owner = connect(trailers=True)
    sink = Sink()
    connection.begin(sink, b"request", False, True)
    connection.data_received(RESPONSES["chunked"][0] + RESPONSES["sized"][0])
    assert sink.events == [("head", 200), b"abcde", [(b"t", b"u")], "end"]
    assert transport.closed
    assert not owner.given_back
