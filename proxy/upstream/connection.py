"""One HTTP/1.1 connection to an endpoint: aiohttp's C response parser, driven directly, its events pushed to a sink.

The one file of the upstream side that touches aiohttp's lower layers. What it relies on (tests/upstream/ fails when a new
aiohttp changes it):

- `HttpResponseParser.feed_data(bytes)` returns `(messages, upgraded, tail)` and puts body bytes into the `StreamReader` of
  the message. It runs to the end of its input as long as nobody calls its `pause_reading`; so after each call the reader is
  emptied with `read_nowait`, and back-pressure is the transport's alone (`NoFlowControl`).
- A parser may serve one response after the other, but not after a chunked one: the last of its trailers would become the
  first header of the next response. HEAD needs one of its own: that a response has no body is fixed at birth.
- The pieces of a reader's body are in its `_buffer`.
- Of a body that has a content-length it hands on the bytes as they are, whatever they are: so behind a head that needed no
  parser they are counted here, and it never sees them.
- `feed_eof()` between two messages answers None and changes nothing; if bytes of a further message came in, it does not.
"""

import asyncio
from collections import deque
from typing import Any, Protocol, cast

from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.tcp_helpers import tcp_keepalive, tcp_nodelay

from proxy.http1.chunks import FramingError
from proxy.http1.follow import Follower
from proxy.upstream.failure import Failure
from proxy.upstream.write_batch import WriteBatch

RawHeaders = tuple[tuple[bytes, bytes], ...]

EMPTY_LINE = b"\r\n\r\n"
BODILESS = (204, 304)
"""Statuses without a body, whatever their framing fields say (RFC 9112 6.3)."""
MAX_LINE = 16 * 1024
"""Bytes of a status line's reason."""
MAX_FIELD = 64 * 1024
"""Bytes of one header field: Envoy's limit for the whole head."""
MAX_HEADERS = 256
MAX_HEAD = 128 * 1024
"""Bytes that may come, interim responses included, while a head is still incomplete."""
MAX_TRAILERS = 64 * 1024
"""Bytes of a trailer section."""
MAX_PLAIN_HEAD = 8 * 1024
MAX_TAIL = 256 * 1024
"""Bytes kept behind a 101 while a filter holds it."""
READ_LIMIT = 1 << 30
"""Bytes at which a reader asks for flow control; out of reach, since it is emptied after every read."""

NOTHING: deque[bytes] = deque()


class ResponseSink(Protocol):
    """Who sent the request. All calls come from the event loop; each may let go of the connection.

    Order: any number of interim, then head, then data until one call has `end` or trailers come in its place; or error at any
    point, which ends it.
    `flush` follows when everything that one read brought was handed over.
    """

    def on_upstream_interim(self, status: int, headers: RawHeaders) -> None: ...

    def on_upstream_head(self, status: int, headers: RawHeaders, end: bool) -> None: ...

    def on_upstream_data(self, data: bytes, end: bool) -> None: ...

    def on_upstream_trailers(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """At least one, names in lower case. Only from a connection that was made with `trailers`."""
        ...

    def on_upstream_flush(self) -> None: ...

    def load_plain(self, head: bytes, rest: int) -> int:
        """A response's head, as it came, with `rest` bytes behind it in the same read. If it is one to be taken as it is,
        something for `on_upstream_plain`, which follows; from bit 32 on it says how many bytes of the body are still to come.
        0: the parser reads it."""
        ...

    def on_upstream_plain(self, loaded: int, body: bytes) -> None:
        """The response that `load_plain` has answered `loaded` for: head, data and flush in one. It is all of it, unless more
        bytes are to come: those follow as data."""
        ...

    def on_upstream_error(self, connection: "UpstreamConnection", failure: Failure, error: str) -> None: ...

    def on_upstream_full(self) -> None: ...

    def on_upstream_drained(self) -> None: ...


class RawSink(Protocol):
    """Who takes over after 101: bytes as they come."""

    def on_upstream_bytes(self, data: bytes) -> None: ...

    def on_upstream_eof(self) -> bool:
        """True keeps the sending side open."""
        ...

    def on_upstream_lost(self) -> None: ...

    def on_upstream_full(self) -> None: ...

    def on_upstream_drained(self) -> None: ...


class Owner(Protocol):
    """The pool the connection belongs to."""

    def give_back(self, connection: "UpstreamConnection") -> None: ...

    def closed(self, connection: "UpstreamConnection") -> None: ...


class NoFlowControl:
    """What a StreamReader of the parser believes to be its protocol."""

    connected = True

    def pause_reading(self) -> None:
        """Nothing: see the module's docstring."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing: see the module's docstring."""


NO_FLOW_CONTROL = NoFlowControl()


class UpstreamConnection(asyncio.Protocol):
    """A connection in one of four states: idle (no sink), busy (a sink), raw (tunnelled after 101), lost (no transport)."""

    __slots__ = (
        "active",
        "address",
        "body_parser",
        "chunked",
        "follower",
        "head_parser",
        "head_size",
        "idle_since",
        "left",
        "loop",
        "lost",
        "must_close",
        "owner",
        "parsing",
        "paused",
        "payload",
        "raw",
        "replied",
        "request_complete",
        "reused",
        "served",
        "sink",
        "switched",
        "tail",
        "trailers",
        "transport",
        "writes",
    )

    def __init__(self, owner: Owner, address: str, writes: WriteBatch, trailers: bool = False) -> None:
        """`trailers`: hand them over; else they are dropped."""
        self.owner = owner
        self.address = address
        self.trailers = trailers
        self.follower: Follower | None = None
        self.loop = writes.loop
        self.writes = writes
        self.transport: asyncio.Transport | None = None
        self.sink: ResponseSink | None = None
        self.raw: RawSink | None = None
        self.body_parser: Any = None
        self.chunked = False
        """The response is, and may have trailers."""
        self.head_parser: Any = None
        self.active: Any = None
        self.payload: StreamReader | None = None
        self.tail = b""
        """Bytes that came behind a 101."""
        self.switched = False
        self.idle_since = 0.0
        self.served = 0
        """Requests sent on this connection, the current one included."""
        self.reused = False
        """The current request is not the first."""
        self.replied = False
        """A byte came since the current request was sent."""
        self.parsing = False
        """The parser has been given of the current response."""
        self.head_size = 0
        self.left = 0
        """Bytes of the current body that are still to come, if it is one past the parser."""
        self.request_complete = False
        """Set by the sink when the last byte of the request is written; without it the connection is not used again."""
        self.must_close = False
        self.paused = False
        self.lost = False

    # The sink's side

    def begin(self, sink: ResponseSink, data: bytes, head: bool, complete: bool) -> None:
        """Send a request's first bytes; `head` for a HEAD request, `complete` if they are the last ones too."""
        assert self.transport is not None
        parser = self.head_parser if head else self.body_parser
        if parser is None:
            parser = HttpResponseParser(
                NO_FLOW_CONTROL,  # type: ignore[arg-type]
                self.loop,
                READ_LIMIT,
                max_line_size=MAX_LINE,
                max_headers=MAX_HEADERS,
                max_field_size=MAX_FIELD,
                response_with_body=not head,
                read_until_eof=True,
                auto_decompress=False,
            )
            if head:
                self.head_parser = parser
            else:
                self.body_parser = parser
        self.active = parser
        if self.trailers:
            self.follower = Follower(MAX_HEADERS, MAX_TRAILERS, EMPTY_PAYLOAD)
        self.sink = sink
        self.replied = self.parsing = self.chunked = False
        self.head_size = 0
        self.reused = self.served > 0
        self.served += 1
        self.request_complete = complete
        self.writes.write(self.transport, data)

    def write(self, data: bytes) -> None:
        """Send more of the request, or of the tunnel. Dropped once the connection is lost (the sink hears of that)."""
        if self.transport is not None:
            self.writes.write(self.transport, data)

    def write_eof(self) -> bool:
        """End the sending side of a tunnel; False if this transport cannot (TLS)."""
        if self.transport is None or not self.transport.can_write_eof():
            return False
        self.writes.flush()
        self.transport.write_eof()
        return True

    def close_gently(self) -> None:
        """Close after sending what is buffered; for a tunnel."""
        if self.transport is not None:
            self.writes.flush()
            self.transport.close()

    def let_go(self, sink: ResponseSink) -> None:
        """The sink has no more use for the response: close at once. Harmless if the connection is no longer the sink's."""
        if self.sink is sink:
            self.sink = None
            self.abort()

    def tunnel(self, raw: RawSink) -> None:
        """From now on bytes pass as they are: what the sink of a 101 may ask for. `tail` has what came before."""
        self.raw = raw
        self.sink = None

    def pause_reading(self, sink: ResponseSink | RawSink) -> None:
        """Stop reading; what one read already brought still arrives. Harmless if the connection is no longer the sink's."""
        if (self.sink is sink or self.raw is sink) and not self.paused and self.usable:
            assert self.transport is not None
            self.paused = True
            self.transport.pause_reading()

    def resume_reading(self, sink: ResponseSink | RawSink) -> None:
        """Read on. Harmless if the connection is no longer the sink's."""
        if self.sink is sink or self.raw is sink:
            self.read_on()

    def abort(self) -> None:
        """Close without sending what is still buffered."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def usable(self) -> bool:
        """An idle connection that is not known to be closed."""
        return self.transport is not None and not self.transport.is_closing()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast(asyncio.Transport, transport)
        tcp_nodelay(self.transport, True)
        tcp_keepalive(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by either side, or broken."""
        self.transport = None
        self.lost = True
        self.owner.closed(self)
        if self.raw is not None:
            raw, self.raw = self.raw, None
            raw.on_upstream_lost()
        elif self.sink is not None:
            self.fail(Failure.TERMINATED, "connection closed" if exc is None else type(exc).__name__)
        self.body_parser = self.head_parser = self.active = self.payload = None

    def pause_writing(self) -> None:
        """asyncio's write buffer is full."""
        target = self.raw or self.sink
        if target is not None:
            target.on_upstream_full()

    def resume_writing(self) -> None:
        """asyncio's write buffer has room again."""
        target = self.raw or self.sink
        if target is not None:
            target.on_upstream_drained()

    def data_received(self, data: bytes) -> None:
        """Parse what came and push it on."""
        sink = self.sink
        if sink is None:
            if self.raw is not None:
                self.raw.on_upstream_bytes(data)
            else:
                # Nothing was asked: an answer to a later request must not be prepared by now.
                self.abort()
            return
        if self.switched:
            # 101 came, and the sink has not decided yet.
            self.tail += data
            if len(self.tail) > MAX_TAIL:
                self.fail(Failure.PROTOCOL, "too much behind a 101")
            return
        self.replied = True
        if not self.parsing:
            if self.left:
                self.count(sink, data)
                return
            if self.active is self.body_parser and self.follower is None and self.take_plain(sink, data):
                return
            self.parsing = True
        payload = self.payload
        try:
            messages, upgraded, tail = self.active.feed_data(data)
        except HttpProcessingError as error:
            if payload is not None and payload.is_eof():
                # The response ended well; what follows it is broken.
                self.must_close = True
                if self.follower is None or self.follow(self.follower, data, ()):
                    self.deliver(sink, payload, True)
            else:
                self.fail(Failure.PROTOCOL, type(error).__name__)
            return
        if self.follower is not None and not self.follow(self.follower, data, messages):
            return
        head = None
        for message, body in messages:
            if head is not None or payload is not None:
                self.must_close = True
                break
            code: int = message.code
            if message.version[0] != 1 or code < 100:
                self.fail(Failure.PROTOCOL, "version or status out of range")
                return
            if message.chunked and not message.version[1]:
                self.fail(Failure.PROTOCOL, "chunked in HTTP/1.0")  # RFC 9112 6.1
                return
            if code >= 200:
                head = message
                payload = self.payload = body
                self.chunked = message.chunked
                if message.should_close:
                    self.must_close = True
            elif code == 101:
                if not upgraded:
                    self.fail(Failure.PROTOCOL, "101 without upgrade")
                    return
                self.must_close = True
                self.switched = True
                self.tail = tail
                sink.on_upstream_head(101, message.raw_headers, False)
                sink.on_upstream_flush()
                return
            else:
                sink.on_upstream_interim(code, message.raw_headers)
                if self.sink is not sink:
                    return
        if payload is None:
            self.head_size += len(data)
            if self.head_size > MAX_HEAD:
                self.fail(Failure.PROTOCOL, "response head too large")
            return
        if head is None:
            self.deliver(sink, payload, payload.is_eof())
            return
        complete = payload.is_eof()
        follower = self.follower
        if complete:
            # Nobody reads from it again, so its one piece is taken past its bookkeeping.
            pieces = NOTHING if payload is EMPTY_PAYLOAD else payload._buffer
            chunk = pieces[0] if len(pieces) == 1 else payload.read_nowait()
            self.finish()
            if not chunk and (not head.chunked or payload is EMPTY_PAYLOAD or head.code in BODILESS):
                sink.on_upstream_head(head.code, head.raw_headers, True)
                sink.on_upstream_flush()
                return
        else:
            chunk = payload.read_nowait()
        sink.on_upstream_head(head.code, head.raw_headers, False)
        # A sink that let go inside the call above ignores this one.
        if complete and follower is not None:
            self.end(sink, follower, payload, chunk)
        elif chunk or complete:
            sink.on_upstream_data(chunk, complete)
        sink.on_upstream_flush()

    def take_plain(self, sink: ResponseSink, data: bytes) -> bool:
        """Pass on a response that needs no parser, as far as it has come. False: it does."""
        size = data.find(EMPTY_LINE) + len(EMPTY_LINE)
        if not len(EMPTY_LINE) <= size <= MAX_PLAIN_HEAD:
            return False
        loaded = sink.load_plain(data[:size], len(data) - size)
        if loaded:
            left = loaded >> 32
            if left:
                self.left = left
            else:
                self.finish()
            sink.on_upstream_plain(loaded, data[size:])
        return loaded > 0

    def count(self, sink: ResponseSink, data: bytes) -> None:
        """More of a body whose head needed no parser."""
        left = self.left = self.left - len(data)
        if left <= 0:
            self.left = 0
            if left:
                # The response ended well; what follows it is not asked for.
                self.must_close = True
                data = data[:left]
            self.finish()
        sink.on_upstream_data(data, left <= 0)
        sink.on_upstream_flush()

    def eof_received(self) -> bool:
        """The endpoint sends no more: the end of a body without a length, else an early end."""
        if self.raw is not None:
            return self.raw.on_upstream_eof()
        sink, payload = self.sink, self.payload
        if sink is None:
            return False
        if self.left:
            self.fail(Failure.PROTOCOL, "closed before the end of the body")
            return False
        if payload is None:
            self.fail(Failure.TERMINATED, "closed before the response head")
            return False
        try:
            self.active.feed_eof()
        except HttpProcessingError as error:
            self.fail(Failure.PROTOCOL, type(error).__name__)
            return False
        self.must_close = True
        self.deliver(sink, payload, True)
        return False

    # Inside

    def deliver(self, sink: ResponseSink, payload: StreamReader, complete: bool) -> None:
        chunk = payload.read_nowait()
        # With `finish` the connection may serve another, with a follower of its own.
        follower = self.follower
        if complete:
            self.finish()
        elif not chunk:
            return
        if complete and follower is not None:
            self.end(sink, follower, payload, chunk)
        else:
            sink.on_upstream_data(chunk, complete)
        sink.on_upstream_flush()

    def end(self, sink: ResponseSink, follower: Follower, payload: StreamReader, chunk: bytes) -> None:
        """The last of a body, and its trailers."""
        trailers = follower.take(payload)
        if chunk or not trailers:
            sink.on_upstream_data(chunk, not trailers)
        if trailers:
            sink.on_upstream_trailers(trailers)

    def follow(self, follower: Follower, data: bytes, messages: Any) -> bool:
        """False: the response is not what the parser takes it for."""
        try:
            follower.follow(data, messages)
        except FramingError as error:
            self.fail(Failure.PROTOCOL, error.reason)
            return False
        return True

    def finish(self) -> None:
        """The response is complete: back to the pool if the connection is in a known, clean state; else close."""
        self.sink = None
        self.payload = None
        transport = self.transport
        if self.must_close or not self.request_complete or transport is None or transport.is_closing():
            self.close()
            return
        if self.parsing:
            try:
                surplus = self.active.feed_eof()
            except HttpProcessingError:
                self.close()
                return
            if surplus is not None:
                self.close()
                return
        if self.chunked:
            self.body_parser = None
        if self.paused:
            self.read_on()
        self.owner.give_back(self)

    def read_on(self) -> None:
        if self.paused and self.transport is not None:
            self.paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def close(self) -> None:
        """Close an idle or finished connection."""
        if self.transport is not None:
            # abort, not close: what is unsent has no reader any more, and uvloop keeps it otherwise.
            self.transport.abort()

    def fail(self, failure: Failure, error: str) -> None:
        sink, self.sink = self.sink, None
        self.payload = None
        self.abort()
        if sink is not None:
            sink.on_upstream_error(self, failure, error)
