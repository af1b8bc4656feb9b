"""A listener at work: its settings as connections need them, its sockets, and how many connections it has."""

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any, cast

from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy, HttpResponseParser, HttpResponseParserPy
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from proxy.config.listener import Listener as ListenerConfig
from proxy.server.connection import (
    CLOSE_SECONDS,
    LAST_SECONDS,
    LINGER_SECONDS,
    MAX_PLAIN_HEAD,
    Connection,
)
from proxy.server.deadlines import DeadlineQueue
from proxy.server.ending import Ending
from proxy.telemetry.metrics import Counter

if TYPE_CHECKING:
    from proxy.server.gateway import Gateway


class MissingParserError(Exception):
    """aiohttp has no C parser here."""


def require_c_parser() -> None:
    """Raises MissingParserError: aiohttp's parser in Python has had most of its request-smuggling advisories."""
    if HttpRequestParser is HttpRequestParserPy or HttpResponseParser is HttpResponseParserPy:
        raise MissingParserError(
            "aiohttp runs without its C parser; install a binary wheel of aiohttp, and unset AIOHTTP_NO_EXTENSIONS"
        )


class ConnectionServer(Server):
    """aiohttp's registry of connections, making ours."""

    def __init__(self, listener: "Listener", loop: asyncio.AbstractEventLoop) -> None:
        async def no_handler(request: object) -> Any:
            raise AssertionError("connections hand their requests to exchanges")

        super().__init__(no_handler, loop=loop)
        self.listener = listener

    def __call__(self) -> RequestHandler:
        """A connection's protocol."""
        return Connection(self.listener, self, self._loop)


class Listener:
    """A configured listener at work: its settings as connections need them, its sockets, its connections."""

    def __init__(
        self, gateway: "Gateway", config: ListenerConfig, loop: asyncio.AbstractEventLoop, most: int, head_options: int
    ) -> None:
        """`head_options`: the handle of its options in the memory of every generation."""
        self.gateway = gateway
        self.config = config
        self.loop = loop
        self.scheme = "http" if config.tls is None else "https"
        self.trailers = config.trailers
        self.head_options = head_options
        queue = gateway.deadlines.queue
        self.head_deadlines: DeadlineQueue[Connection] = queue(config.head_timeout, Connection.on_head_timeout)
        self.keepalive_deadlines: DeadlineQueue[Connection] = queue(config.keepalive_timeout, Connection.leave)
        self.body_deadlines: DeadlineQueue[Ending] = queue(config.body_timeout, Ending.on_body_timeout)
        self.linger_deadlines: DeadlineQueue[Connection] = queue(LINGER_SECONDS, Connection.cut)
        self.close_deadlines: DeadlineQueue[Connection] = queue(CLOSE_SECONDS, Connection.cut)
        self.last_deadlines: DeadlineQueue[Connection] = queue(LAST_SECONDS, Connection.leave)
        self.draining = False
        self.server = ConnectionServer(self, loop)
        self.sockets: asyncio.Server | None = None
        self.tls: ssl.SSLContext | None = None
        self.connections = gateway.telemetry.instruments.connections.child((config.address,))
        self.rejections: dict[str, Counter] = {}
        self.open = 0
        self.empty = asyncio.Event()
        self.empty.set()
        self.configure(config, most)

    def configure(self, config: ListenerConfig, most: int) -> None:
        """Take other settings, after a reload too; `most`: connections at a time. The address, whether there is TLS, and
        `trailers` stay; a connection keeps the parser's limits that it began with."""
        self.config = config
        self.most = most
        # What each request needs, out of the config's models, which are slow to read.
        self.head_limit = config.limits.head
        self.body_limit = config.limits.body
        self.body_pace = config.body_pace
        self.keeps_request_ids = config.request_id == "keep"
        limits = config.limits
        self.plain_limit = min(limits.head, limits.line, limits.field, MAX_PLAIN_HEAD)
        """The largest head that the parser need not see: none of its limits could hold it up. `limits.headers` is counted by
        the core."""
        self.head_deadlines.change(config.head_timeout)
        self.keepalive_deadlines.change(config.keepalive_timeout)
        self.body_deadlines.change(config.body_timeout)
        if self.tls is not None and config.tls is not None:
            # Handshakes from now on have the new certificate.
            self.tls.load_cert_chain(str(config.tls.certificate), str(config.tls.private_key))

    def check(self, config: ListenerConfig) -> None:
        """Raises OSError if the certificate or the key of other settings cannot be loaded."""
        if config.tls is not None:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(str(config.tls.certificate), str(config.tls.private_key))

    async def start(self, sock: socket.socket) -> None:
        """Serve a listening socket. Raises OSError if the certificate or the key cannot be loaded."""
        tls = self.config.tls
        context: ssl.SSLContext | None = None
        if tls is not None:
            context = self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(str(tls.certificate), str(tls.private_key))
            context.set_alpn_protocols(["http/1.1"])
        self.sockets = await self.loop.create_server(
            self.server,
            sock=sock,
            ssl=context,
            ssl_handshake_timeout=None if context is None else max(self.config.head_timeout, 1.0),
            backlog=4096,
        )

    def stop_accepting(self) -> None:
        """Close the listening socket; idle connections go, busy ones after their response."""
        self.draining = True
        if self.sockets is not None:
            self.sockets.close()
        for connection in self.server.connections:
            cast(Connection, connection).drain()

    async def wait_empty(self) -> None:
        """Until the last connection is closed."""
        await self.empty.wait()

    def cut(self) -> None:
        """Close what is still open: the grace of the shutdown is over."""
        for connection in self.server.connections:
            exchange = cast(Connection, connection).exchange
            if exchange is not None:
                exchange.reset("shutdown_grace_expired", "")  # else it would look as if the client had gone
            cast(Connection, connection).cut()

    def opened(self) -> None:
        """One connection more."""
        self.open += 1
        self.connections.value += 1
        self.empty.clear()

    def closed(self) -> None:
        """One connection less."""
        self.open -= 1
        self.connections.value -= 1
        if not self.open:
            self.empty.set()

    def rejected(self, reason: str) -> None:
        """Count a request that never became a stream; `reason` is one of a short list."""
        counter = self.rejections.get(reason)
        if counter is None:
            instruments = self.gateway.telemetry.instruments
            counter = self.rejections[reason] = instruments.rejected_requests.child((self.config.address, reason))
        counter.value += 1
