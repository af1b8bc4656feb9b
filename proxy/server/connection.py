"""The client's side on aiohttp: its low-level Server, its RequestHandler, its C request parser.

The one file of the downstream side that touches aiohttp's lower layers. `RequestHandler` brings the parser with its limits,
the bounded queue of pipelined requests and the registry of connections; what it does per request is replaced. It runs one
task per connection and one more per request, builds a request and a writer object, and reads bodies through futures; here
a parsed head goes straight to an `Exchange`, in the call that received its last byte, and body bytes follow the same way.

What it relies on (tests/server/ fails when a new aiohttp changes it):

- `self._parser.feed_data(bytes)` returns `(messages, upgraded, tail)`, each message with a `StreamReader` for its body, or
  `EMPTY_PAYLOAD` if it has none. It runs to the end of its input as long as nobody calls its `pause_reading`, so readers are
  emptied after each call with `read_nowait`, and back-pressure is the transport's alone.
- After 32 messages that `message_consumed` has not been called for, it keeps the rest until `feed_data(b"")`.
- A WebSocket upgrade or CONNECT ends parsing: `upgraded` is true, and `tail` is what follows the request.
"""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError, InvalidHeader, InvalidURLError, LineTooLong
from aiohttp.http_parser import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.tcp_helpers import tcp_keepalive
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE, RequestHandler, RequestPayloadError

from proxy.abi.memory import HAS_ID, REQUEST_HEADERS
from proxy.http1.chunks import FramingError
from proxy.http1.follow import Follower
from proxy.server.answers import plain
from proxy.server.deadlines import DeadlineQueue
from proxy.server.downstream import DownstreamSink, RequestHead
from proxy.server.exchange import PLAIN_GET, Exchange
from proxy.server.target import is_plain
from proxy.telemetry.logging import get_logger, limited

if TYPE_CHECKING:
    from proxy.server.listener import ConnectionServer, Listener

log = get_logger("listener")

LINES_PER_SECOND = 5.0
LINGER_SECONDS = 2.0
"""How long a connection with an unread request is drained before it closes, so that the answer arrives (RFC 9112 9.6)."""
LAST_SECONDS = 0.5
"""How long a client that has connected may take for its first request when the gateway stops: a reset would take that from
it."""
CLOSE_SECONDS = 30.0
"""How long a client may take to fetch what is left when its connection closes."""
TURNED_AWAY = 256
"""Connections over max_connections that get an answer at the same time."""
MAX_EARLY = 64 * 1024
"""Bytes kept that a client sends behind an Upgrade before the 101."""
READ_LIMIT = 1 << 30
"""Bytes at which a reader asks for flow control; out of reach, since it is emptied after every read."""
MAX_WORDS = 100
"""Characters of the parser's words in the log; all that it has are shorter."""
BY_EXCHANGE, BY_QUEUE = 1, 2
"""Why a connection is not read."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
NO_DATA = b""
EMPTY_LINE = b"\r\n\r\n"
PLAIN_BEGINNING = b"GET /"
MAX_PLAIN_HEAD = 8 * 1024
"""The core's, for messages past the parser (abi/core/heads.c)."""


UNUSUAL = frozenset({"CONNECT", "OPTIONS", "TRACE"})


class Connection(RequestHandler):
    """One client connection: idle, inside a head, busy with an exchange, tunnelled, or draining before it closes."""

    __slots__ = (
        "chunk_tail",
        "chunked",
        "connection_id",
        "destination",
        "exchange",
        "follower",
        "head_bytes",
        "last",
        "leaving",
        "listener",
        "payload",
        "peer_ip",
        "pumping",
        "reading_holds",
        "sink",
        "source",
        "unread",
        "watched",
        "writes",
    )

    def __init__(self, listener: "Listener", server: "ConnectionServer", loop: asyncio.AbstractEventLoop) -> None:
        limits = listener.config.limits
        super().__init__(
            server,
            loop=loop,
            max_line_size=limits.line,
            max_field_size=limits.field,
            max_headers=limits.headers,
            read_bufsize=READ_LIMIT,
            auto_decompress=False,
            access_log=cast(Any, None),
        )
        self.listener = listener
        self.writes = listener.gateway.writes
        self.exchange: Exchange | None = None
        self.payload: StreamReader | None = None
        """The body of the current request, until its end has been passed on."""
        self.sink: DownstreamSink | None = None
        self.head_bytes = 0
        """Bytes of the next head that have come."""
        self.leaving = False
        """No further request is taken; what comes in is dropped."""
        self.reading_holds = 0
        self.pumping = False
        self.watched: DeadlineQueue[Connection] | None = None
        self.unread = False
        """The client may still be sending what nobody will read."""
        self.chunked: StreamReader | None = None
        """The body of a chunked request until its end is parsed."""
        self.chunk_tail = b""
        """The last bytes that came while `chunked` is set."""
        self.follower = Follower(limits.headers, limits.head, EMPTY_PAYLOAD) if listener.trailers else None
        self.last = False
        """The request in hand is the last of this connection."""
        self.connection_id = next(listener.gateway.connection_ids)
        self.peer_ip = b""
        self.source = ""
        self.destination = ""

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted (and, with TLS, shaken hands)."""
        BaseProtocol.connection_made(self, transport)
        tcp = cast(asyncio.Transport, transport)
        tcp_keepalive(tcp)
        peer, own = tcp.get_extra_info("peername"), tcp.get_extra_info("sockname")
        if peer:
            self.peer_ip = peer[0].encode()
            self.source = address_text(peer)
        if own:
            self.destination = address_text(own)
        assert self._manager is not None
        self._manager.connection_made(self, tcp)
        self.listener.opened()
        if self.listener.draining:
            self.watch(self.listener.last_deadlines)
        elif self.listener.open > self.listener.most:
            self.turn_away()
        else:
            self.watch(self.listener.head_deadlines)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Closed by either side, or broken."""
        listener = self.listener
        self.watch(None)
        if self._manager is not None:
            self._manager.connection_lost(self, exc)
            self._manager = None
        transport: Any = self.transport
        if hasattr(transport, "_read_ready_cb"):
            # A bound method of its own keeps asyncio's transport, with its socket, alive until the collector comes by.
            transport._read_ready_cb = None
        self.transport = None
        self._parser = None
        self._messages.clear()
        self.payload = None
        sink, self.sink = self.sink, None
        exchange, self.exchange = self.exchange, None
        if sink is not None:
            sink.on_downstream_gone()
        elif exchange is not None:
            exchange.on_downstream_gone()
        listener.closed()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client sends no more. As in Envoy that ends its request too, except in a tunnel."""
        if self.sink is not None:
            return self.sink.on_downstream_eof()
        return None

    def pause_writing(self) -> None:
        """asyncio's write buffer is full."""
        super().pause_writing()
        if self.sink is not None:
            self.sink.on_downstream_full()
        elif self.exchange is not None:
            self.exchange.on_downstream_full()

    def resume_writing(self) -> None:
        """asyncio's write buffer has room again."""
        super().resume_writing()
        if self.sink is not None:
            self.sink.on_downstream_drained()
        elif self.exchange is not None:
            self.exchange.on_downstream_drained()

    def data_received(self, data: bytes) -> None:
        """Parse what came; begin exchanges, pass bodies on."""
        if self.sink is not None:
            self.sink.on_downstream_bytes(data)
            return
        if self.leaving or (self.last and self.payload is None):
            return
        if self._upgraded:
            self.keep_early(data)
            return
        parser = self._parser
        if parser is None:
            return
        exchange = self.exchange
        if exchange is None and data[:5] == PLAIN_BEGINNING and data[-4:] == EMPTY_LINE and self.begin_plain(data):
            return
        try:
            messages, upgraded, tail = parser.feed_data(data)
        except HttpProcessingError as error:
            self.on_broken(error, data)
            return
        if self.follower is not None:
            try:
                self.follower.follow(data, messages)
            except FramingError as framing:
                self.break_off(431 if framing.too_large else 400, framing.reason)
                return
        if self.chunked is not None:
            messages = self.part_from_chunked(messages, data)
        else:
            for message, _ in messages:
                if message.chunked:
                    messages = self.part_from_chunked(messages, data)
                    break
        in_body = self.payload is not None
        if in_body and exchange is not None:
            self.feed_body(exchange)
        if messages:
            if self.head_bytes + len(data) > self.listener.head_limit and self.head_too_large(messages):
                return
            self.head_bytes = 0
            watched = self.watched
            if watched is not None:
                watched.stop(self)
                self.watched = None
            if upgraded:
                self._upgraded = True
                self._message_tail = tail
            if self.exchange is None and not self.leaving:
                message, payload = messages[0]
                if len(messages) > 1:
                    self.enqueue(messages[1:])
                self.begin(message, payload)
                if self._messages:
                    self.pump()
            else:
                self.enqueue(messages)
        elif not in_body and data and not self.leaving:
            self.on_part_of_head(len(data))

    def begin_plain(self, data: bytes) -> bool:
        """Make a stream of a whole request that the parser need not see, if this is one, and the parser is at its ease."""
        listener = self.listener
        if (
            self.head_bytes
            or self._messages
            or self.chunked is not None
            or self.follower is not None
            or len(data) > listener.plain_limit
            or data.find(EMPTY_LINE) != len(data) - 4
        ):
            return False
        gateway = listener.gateway
        overload = gateway.overload
        if overload.streams >= overload.limit:
            return False
        target = data[4 : data.find(b" ", 4)].decode("latin-1")
        if not is_plain(target):
            return False
        # Nothing is made of the request before the core has taken it: many are the parser's.
        memory = gateway.generation.memory
        identity = next(gateway.request_ids)
        region = memory.begin()
        try:
            found = memory.load_plain_request(data, listener.head_options, self.peer_ip, identity.encode())
        except Exception:
            overload.streams += 1
            broken = self.exchange = Exchange(gateway, self, PLAIN_GET)
            broken.defect()
            return True
        if not found:
            memory.release(region)
            return False
        if found & HAS_ID:
            identity = (memory.get(REQUEST_HEADERS, b"x-request-id") or b"").decode()
        start = found >> 16 & 0x7FFF
        authority = data[start : start + (found & 0xFFFF)].decode()
        exchange = Exchange(gateway, self, PLAIN_GET)
        overload.streams += 1
        self.exchange = exchange
        try:
            exchange.begin_plain(region, target, authority, identity)
        except Exception:
            exchange.defect()
        watched = self.watched
        if watched is not None and self.exchange is exchange:
            watched.stop(self)
            self.watched = None
        exchange.flush()
        return True

    def part_from_chunked(self, messages: Any, data: bytes) -> Any:
        """Let nothing of a chunked request reach the next one; the messages that may be served.

        aiohttp's parser gives the last trailer of a chunked request to the next request as its first header. So the next
        one gets a new parser; and if it came in the same read as the end of the chunked one, the connection closes instead.
        """
        if self.chunked is not None:
            served: Any = ()
        else:
            first = next(i for i, (message, _) in enumerate(messages) if message.chunked)
            served = messages[: first + 1]
            self.chunked = messages[first][1]
        assert self.chunked is not None
        self.chunk_tail = (self.chunk_tail + data[-4:])[-4:]
        if len(messages) > len(served):
            self.last = True
        if self.chunked.is_eof():
            self.chunked = None
            if self.chunk_tail != b"\r\n\r\n":
                self.last = True
            self.chunk_tail = b""
            self._parser = self.new_parser()
        return served

    def new_parser(self) -> HttpRequestParser:
        limits = self.listener.config.limits
        return HttpRequestParser(
            self,
            self._loop,
            READ_LIMIT,
            max_line_size=limits.line,
            max_field_size=limits.field,
            max_headers=limits.headers,
            payload_exception=RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=MAX_MSG_QUEUE_SIZE,
        )

    def on_part_of_head(self, size: int) -> None:
        """Bytes that complete nothing."""
        if self.exchange is not None:
            # The next request has begun before this one is answered (pipelining): it can wait.
            self.hold_reading(BY_QUEUE)
        elif not self.head_bytes:
            # The first byte of a head: from here on the head's own deadline holds.
            self.watch(self.listener.head_deadlines)
        self.head_bytes += size
        if self.head_bytes > self.listener.head_limit:
            self.refuse(431, "head too large")

    def watch(self, queue: "DeadlineQueue[Connection] | None") -> None:
        """A connection waits for one thing at a time; `queue` is its deadline."""
        if self.watched is not None:
            self.watched.stop(self)
        self.watched = queue
        if queue is not None:
            queue.start(self)

    # Requests

    def begin(self, message: Any, payload: StreamReader) -> None:
        """Make a stream of a request: `message` is aiohttp's RawRequestMessage, a RequestHead."""
        if self._parser is not None:
            self._parser.message_consumed()
        if message.version is not HttpVersion11 or message.method in UNUSUAL:
            status = refusal(message)
            if status:
                self.refuse(status, f"answered {status}")
                return
        gateway = self.listener.gateway
        overload = gateway.overload
        if overload.streams >= overload.limit:
            self.refuse(503, overload.reason)
            return
        overload.streams += 1
        exchange = self.exchange = Exchange(gateway, self, message)
        end = payload is EMPTY_PAYLOAD or (payload.is_eof() and not payload.total_bytes)
        if end and self.follower is not None:
            end = not self.follower.has(payload)
        try:
            exchange.begin(end)
        except Exception:
            exchange.defect()
        if not end and self.exchange is exchange:
            self.payload = payload
            self.feed_body(exchange)
        else:
            exchange.flush()

    def feed_body(self, exchange: Exchange) -> None:
        payload = self.payload
        assert payload is not None
        chunk = payload.read_nowait()
        end = payload.is_eof()
        trailers: list[tuple[bytes, bytes]] = []
        if end:
            self.payload = None
            if self.follower is not None:
                trailers = self.follower.take(payload)
        if chunk or (end and not trailers):
            exchange.on_request_data(chunk, end and not trailers)
        if trailers:
            exchange.on_request_trailers(trailers)
        exchange.flush()

    def enqueue(self, messages: Any) -> None:
        """Requests that came while one is being answered wait, and their connection is not read (pipelining)."""
        self._messages.extend(messages)
        self.hold_reading(BY_QUEUE)

    def pump(self) -> None:
        """Begin what waits, in order, one at a time."""
        if self.pumping:
            return
        self.pumping = True
        try:
            while self.exchange is None and not self.leaving:
                if not self._messages:
                    if self._parser is None or self._upgraded:
                        break
                    # The parser stops after 32 requests; what it kept back may hold more.
                    self.data_received(NO_DATA)
                    if self.exchange is None and not self._messages:
                        break
                    continue
                message, payload = self._messages.popleft()
                self.begin(message, payload)
        finally:
            self.pumping = False
        if not self._messages and (self.exchange is None or self.payload is not None):
            self.free_reading(BY_QUEUE)

    def exchange_over(self, keep_alive: bool) -> None:
        """The exchange is done with the connection, and the response is written."""
        exchange, self.exchange = self.exchange, None
        if not keep_alive or self.leaving or self.last or self.transport is None or self.listener.draining:
            if exchange is not None and not exchange.request.should_close and not self.listener.draining:
                # Not the client's wish: it may be sending on, and a reset would take the answer from it (RFC 9112 9.6).
                self.unread = True
            self.leave()
            return
        if self.reading_holds:
            self.free_reading(BY_EXCHANGE)
            if self.reading_holds:
                self.pump()
        if self.exchange is None and not self.leaving:
            queue = self.watched = self.listener.head_deadlines if self.head_bytes else self.listener.keepalive_deadlines
            queue.start(self)

    def keep_early(self, data: bytes) -> None:
        """Bytes behind an Upgrade whose answer is open: nobody gets them before a 101 (CVE-2026-2833)."""
        self._message_tail += data
        if len(self._message_tail) > MAX_EARLY:
            self.hold_reading(BY_QUEUE)

    # What goes wrong

    def on_broken(self, error: HttpProcessingError, data: bytes) -> None:
        """The parser gave up: for a head that is an answer, for a body the end of its exchange."""
        status = 400
        if isinstance(error, LineTooLong):
            # In a body it is a trailer.
            field = self.payload is not None or self.head_bytes > 0
            status = 431 if field or b"\n" in data[: self.listener.config.limits.line + 1] else 414
        elif str(error.message) == "Too many headers received":
            status = 431
        self.break_off(status, type(error).__name__, words_of(error))

    def break_off(self, status: int, reason: str, error: str = "") -> None:
        """What came is no request, or no body. `error`: for the log, what is wrong with it."""
        exchange = self.exchange
        if exchange is not None and self.payload is not None:
            self.leaving = self.unread = True
            self.payload = None
            self.complain(reason, status, error)
            exchange.on_request_broken(status)
        else:
            self.refuse(status, reason, error)

    def head_too_large(self, messages: Any) -> bool:
        """One read may bring a head and much else: count exactly."""
        limit = self.listener.head_limit
        for message, _ in messages:
            size = sum(len(name) + len(value) + 4 for name, value in message.raw_headers) + len(message.path) + 14
            if size > limit:
                self.refuse(431, "head too large")
                return True
        return False

    def refuse(self, status: int, reason: str, error: str = "") -> None:
        """Answer without a stream and close. Nothing of the request is in the answer or in the log."""
        self.complain(reason, status, error)
        exchange = self.exchange
        if exchange is not None:
            # The bad head came behind a request that is being answered: that answer still goes out, this one cannot.
            self.leaving = self.unread = True
            return
        self.write(plain(status))
        self.unread = True
        self.leave()

    def turn_away(self) -> None:
        """One connection too many: an answer at once; beyond that not even this, since each answer is waited for."""
        if self.listener.open <= self.listener.most + TURNED_AWAY:
            self.refuse(503, "max_connections")
        else:
            self.complain("max_connections", 0)
            self.leaving = True
            self.cut()

    def complain(self, reason: str, status: int, error: str = "") -> None:
        self.listener.rejected(reason)
        if not limited(("rejected", reason), LINES_PER_SECOND):
            said = {"error": error} if error else {}
            log.info("request rejected", reason=reason, **said, status=status, source=self.source)

    # What the exchange asks for

    def write(self, data: bytes) -> None:
        """Send; dropped once the client has gone."""
        if self.transport is not None:
            self.writes.write(self.transport, data)

    def write_eof(self) -> None:
        """End the sending side, where the transport can (TLS cannot)."""
        if self.transport is not None:
            if self.transport.can_write_eof():
                self.writes.flush()
                self.transport.write_eof()
            else:
                self.shut()

    def abort(self) -> None:
        """Reset the connection: a body that ends with the connection must not look complete."""
        self.leaving = True
        self.exchange = None
        self.writes.flush()
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                except OSError:
                    log.debug("socket already closed")
            self.transport.abort()

    def stop_reading(self) -> None:
        """Leave what the client sends in its hands."""
        self.hold_reading(BY_EXCHANGE)

    def read_on(self) -> None:
        """Undo `stop_reading`."""
        self.free_reading(BY_EXCHANGE)

    def tunnel(self, sink: DownstreamSink) -> bytes:
        """From now on bytes pass as they are."""
        self.sink = sink
        self.exchange = None
        early, self._message_tail = self._message_tail, b""
        self.free_reading(BY_QUEUE)
        return early

    # Flow control

    def pause_reading(self) -> None:
        """Nothing: the parser's readers call this when they are full, and they are emptied before that."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing: the parser's readers call this whenever they are read."""

    def hold_reading(self, reason: int) -> None:
        if not self.reading_holds:
            self._pause_transport_reading()
        self.reading_holds |= reason

    def free_reading(self, reason: int) -> None:
        if self.reading_holds & reason:
            self.reading_holds &= ~reason
            if not self.reading_holds:
                self._resume_transport_reading()

    # Closing

    def leave(self) -> None:
        """Close after what was written; first drain what the client still sends, lest its kernel drop our answer."""
        self.leaving = True
        self._messages.clear()
        self.watch(None)
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if not (self.unread or self.payload is not None or self.reading_holds or self.head_bytes or self._upgraded):
            self.shut()
            return
        self.payload = None
        if self.reading_holds:
            self.reading_holds = 0
            self._resume_transport_reading()
        if transport.can_write_eof():
            self.writes.flush()
            transport.write_eof()
        self.watch(self.listener.linger_deadlines)

    def shut(self) -> None:
        """Close once what is buffered has gone out; if the client does not fetch it, close anyway."""
        self.leaving = True
        if self.transport is not None and not self.transport.is_closing():
            self.watch(self.listener.close_deadlines)
            self.writes.flush()
            self.transport.close()

    def close(self) -> None:
        """For the tunnel, and for aiohttp's Server."""
        self.shut()

    def cut(self) -> None:
        """Close at once: the grace of a shutdown, or of a closing connection, is over."""
        if self.transport is not None:
            self.transport.abort()

    def drain(self) -> None:
        """The listener closes: an idle connection goes now, a busy one after its response; one that waits for its first
        request, or for the rest of one, has a moment for it."""
        if self.exchange is None and self.sink is None and not self.leaving:
            if self.watched is self.listener.head_deadlines:
                self.watch(self.listener.last_deadlines)
            else:
                self.leave()

    def on_head_timeout(self) -> None:
        """The head is not complete in time; a connection on which nothing came is closed without a word."""
        if self.exchange is not None or self.leaving:
            return
        if self.head_bytes:
            self.refuse(408, "head timeout")
        else:
            self.leave()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  (aiohttp's signature)
        """For aiohttp's Server.shutdown; `Listener.drain` has waited before."""
        self.cut()


def address_text(address: tuple[Any, ...]) -> str:
    """`ip:port`, IPv6 in brackets."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def words_of(error: HttpProcessingError) -> str:
    """What the parser says of it, for the log; "" where that is the client's bytes.

    The C parser quotes the line in question behind its words and an empty line. The errors left out here are made of a line, a
    field's value or a target alone.
    """
    words, quoted, _ = str(error.message).partition("\n\n")
    if isinstance(error, (LineTooLong, InvalidHeader)) or (isinstance(error, InvalidURLError) and not quoted):
        return ""
    return words.rpartition("\n")[2].strip(" :")[:MAX_WORDS]


def refusal(message: RequestHead) -> int:
    """The status for what no stream is made of; 0 for the rest."""
    version = message.version
    if version is not HttpVersion11 and version is not HttpVersion10:
        return 505
    if message.chunked and version is HttpVersion10:
        return 400  # RFC 9112 6.1: whoever was before us may have read it otherwise
    method = message.method
    if method not in UNUSUAL:
        return 0
    if method == "CONNECT":
        return 501
    if message.headers.get("Max-Forwards", "").strip() == "0":
        # RFC 9110 7.6.2: not to be forwarded; we are where it ends, and what it asks for is not done here.
        return 501
    return 0
