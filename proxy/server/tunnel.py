"""Bytes both ways after a 101 (RFC 9110 7.8): back-pressure, half-close, idle timeout. Filters do not see them."""

from collections.abc import Callable
from typing import Any

from proxy.server.deadlines import DeadlineQueue
from proxy.server.downstream import Downstream
from proxy.upstream.connection import UpstreamConnection


class Tunnel:
    """Sink of both connections. Ends when both sides have sent their EOF, one is lost, or neither spoke for long."""

    __slots__ = (
        "client_ended",
        "downstream",
        "endpoint_ended",
        "idle",
        "on_over",
        "over",
        "received",
        "sent",
        "upstream",
    )

    def __init__(
        self,
        downstream: Downstream,
        upstream: UpstreamConnection,
        idle: DeadlineQueue[Any],
        on_over: Callable[["Tunnel"], None],
    ) -> None:
        self.downstream = downstream
        self.upstream = upstream
        self.idle = idle
        self.on_over = on_over
        self.received = 0
        """Bytes from the client."""
        self.sent = 0
        """Bytes to the client."""
        self.client_ended = False
        self.endpoint_ended = False
        self.over = False

    def begin(self) -> None:
        """Pass on what came early, in either direction; the 101 has been written."""
        early = self.downstream.tunnel(self)
        self.idle.start(self)
        tail, self.upstream.tail = self.upstream.tail, b""
        if tail:
            self.on_upstream_bytes(tail)
        if early:
            self.on_downstream_bytes(early)

    def on_downstream_bytes(self, data: bytes) -> None:
        """From the client."""
        self.idle.start(self)
        self.received += len(data)
        self.upstream.write(data)

    def on_upstream_bytes(self, data: bytes) -> None:
        """From the endpoint."""
        self.idle.start(self)
        self.sent += len(data)
        self.downstream.write(data)

    def on_downstream_eof(self) -> bool:
        """The client sends no more."""
        self.client_ended = True
        if self.endpoint_ended or not self.upstream.write_eof():
            self.end()
            return False
        return True

    def on_upstream_eof(self) -> bool:
        """The endpoint sends no more."""
        self.endpoint_ended = True
        if self.client_ended:
            self.end()
            return False
        self.downstream.write_eof()
        return True

    def on_downstream_gone(self) -> None:
        """The client's connection is lost."""
        self.end()

    def on_upstream_lost(self) -> None:
        """The endpoint's connection is lost."""
        self.end()

    def on_downstream_full(self) -> None:
        """The client reads too slowly."""
        self.upstream.pause_reading(self)

    def on_downstream_drained(self) -> None:
        """The client has caught up."""
        self.upstream.resume_reading(self)

    def on_upstream_full(self) -> None:
        """The endpoint reads too slowly."""
        self.downstream.stop_reading()

    def on_upstream_drained(self) -> None:
        """The endpoint has caught up."""
        self.downstream.read_on()

    def on_idle_timeout(self) -> None:
        """Nobody spoke for the route's idle_timeout."""
        self.end()

    def end(self) -> None:
        """Close both sides, sending what is buffered."""
        if self.over:
            return
        self.over = True
        self.idle.stop(self)
        self.upstream.close_gently()
        self.downstream.close()
        self.on_over(self)
