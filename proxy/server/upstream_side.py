"""An exchange towards its endpoint: takes or makes a connection, sends the request, hears the response or why there is none.

What happens when the upstream fails follows Envoy's router: before the chain has seen the response's headers the client
gets a local reply, after it a reset. Response code details and flags are Envoy's.
"""

from typing import TYPE_CHECKING

from proxy.abi.memory import HeadError
from proxy.server.downstream import RawHeaders
from proxy.server.interim import interim_head
from proxy.server.stream_state import BY_DIAL, BY_WRITER, LINES_PER_SECOND, LONG, StreamState, log
from proxy.telemetry.logging import limited
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.failure import Failure
from proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from proxy.server.generation import RouteState

MAX_ATTEMPTS = 3
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 9.2.2: may be sent again when a kept connection turns out to be closed."""


class UpstreamSide(StreamState):
    """Sink of the upstream's events (upstream/connection.py), waiter for its connection (upstream/pool.py)."""

    __slots__ = ()

    # What the exchange does about it

    def perform(self) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        raise NotImplementedError

    def flush_down(self) -> None:
        raise NotImplementedError

    def touch(self) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: bytes, details: str, flags: str) -> None:
        raise NotImplementedError

    def reset(self, details: str, flags: str) -> None:
        raise NotImplementedError

    def defect(self) -> None:
        raise NotImplementedError

    # The connection

    def open_upstream(self, route: "RouteState", fresh: bool = False, avoid: Pool | None = None) -> bool:
        """Take a kept connection or start a new one (`fresh`: only a new one). False if `avoid` is the only endpoint."""
        pool = route.cluster.next_pool(avoid)
        if pool is None:
            return False
        info = self.info
        info.attempts += 1
        info.upstream_address = pool.address
        connection = None if fresh else pool.take()
        if connection is None:
            self.dial = route.cluster.dial(pool, self)
        else:
            self.upstream = connection
            self.begun = False
        return True

    def on_connected(self, connection: UpstreamConnection) -> None:
        """The connection that `open_upstream` asked for."""
        self.dial = None
        self.upstream = connection
        self.begun = False
        self.info.upstream_address = connection.address
        self.free_request(BY_DIAL)
        self.flush()

    def on_connect_failed(self, pool: Pool, failure: Failure, error: str) -> None:
        """Nothing was sent: one try on another endpoint."""
        self.dial = None
        if self.over or self.route is None:
            return
        cluster = self.route.cluster
        cluster.instruments.failed(failure.metric)
        if failure is not Failure.OVERFLOW and self.info.attempts < 2 and self.open_upstream(self.route, avoid=pool):
            if not limited(("connect", cluster.name, pool.address), LINES_PER_SECOND):
                log.warning("connect failed, trying another endpoint", **self.facts(), failed=pool.address, error=error)
            self.flush()
            return
        self.upstream_failed(failure, error)

    def write_upstream(self, upstream: UpstreamConnection) -> None:
        """Send what was gathered."""
        out = self.upwards
        if self.begun and len(out) > 1 and len(out[1]) >= LONG:
            for piece in out:
                upstream.write(piece)
            out.clear()
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if self.begun:
            upstream.write(data)
            return
        self.begun = True
        # Less the time in filters, those of the response run while the endpoint answers: own, filters and upstream add up.
        self.upstream_since = self.gateway.clock() - self.info.filter_seconds
        upstream.begin(self, data, data.startswith(b"HEAD "), self.request_sent)
        if self.response_holds:
            upstream.pause_reading(self)

    def upstream_over(self) -> None:
        """The connection is no longer ours."""
        self.upstream = None
        if self.begun:
            self.info.upstream_seconds = self.gateway.clock() - self.info.filter_seconds - self.upstream_since

    def drop_upstream(self) -> None:
        """Let go of the connection, made or in the making."""
        self.upwards.clear()
        upstream, dial = self.upstream, self.dial
        if dial is not None:
            self.dial = None
            dial.cancel()
        if upstream is not None:
            self.upstream_over()
            if self.begun:
                upstream.let_go(self)
            else:
                upstream.owner.give_back(upstream)

    # What it says: `on_upstream_flush` comes after each read, and only then the chain's commands are carried out

    def on_upstream_interim(self, status: int, headers: RawHeaders) -> None:
        """A 1xx: for HTTP/1.1 clients only (RFC 9110 15.2)."""
        if self.upstream is None or self.response_started or not self.request.version[1]:
            return
        head = interim_head(status, headers)
        if head is not None:
            self.downstream.write(head)

    def on_upstream_head(self, status: int, headers: RawHeaders, end: bool) -> None:
        """The response's head; `end` if it has no body."""
        chain, region = self.chain, self.region
        if self.upstream is None or chain is None or region is None:
            return
        if status == 101 and not self.upgrade:
            self.drop_upstream()
            self.upstream_failed(Failure.PROTOCOL, "101 without a request for an upgrade")
            return
        if end:
            self.upstream_over()
        try:
            memory = self.memory
            memory.attach(region)
            memory.load_response(status, headers, self.downstream.listener.head_options)
            self.begin_response(status, end)
        except HeadError as error:
            self.drop_upstream()
            self.upstream_failed(Failure.PROTOCOL, error.reason)
        except Exception:
            self.defect()

    def on_upstream_data(self, data: bytes, end: bool) -> None:
        """More of the response's body."""
        chain = self.chain
        if self.upstream is None or chain is None:
            return
        if end:
            self.upstream_over()
        if self.idle_watched:
            self.touch()
        try:
            chain.response_data(data, end)
        except Exception:
            self.defect()

    def on_upstream_trailers(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """The response's end, behind its body."""
        chain = self.chain
        if self.upstream is None or chain is None:
            return
        self.upstream_over()
        try:
            chain.response_trailers(pairs)
        except Exception:
            self.defect()

    def on_upstream_flush(self) -> None:
        """All of one read has been handed over."""
        chain = self.chain
        if chain is not None and chain.outbox:
            try:
                self.perform()
            except Exception:
                self.defect()
        self.flush()

    def load_plain(self, head: bytes, rest: int) -> int:
        """Load a response's head past the parser, if it is plain."""
        region = self.region
        if self.upstream is None or self.chain is None or region is None:
            return 0
        memory = self.memory
        memory.attach(region)
        return memory.load_plain_response(head, rest, self.downstream.listener.head_options)

    def on_upstream_plain(self, loaded: int, body: bytes) -> None:
        """The response whose head was loaded, all of it or its beginning."""
        end = not loaded >> 32
        if end:
            self.upstream_over()
        try:
            self.begin_response(loaded & 0xFFFF, end and not body)
            if body and self.chain is not None:
                self.chain.response_data(body, end)
        except Exception:
            self.defect()
        self.on_upstream_flush()

    def begin_response(self, status: int, end: bool) -> None:
        """The response's head, loaded, goes through the chain."""
        chain = self.chain
        assert chain is not None
        info = self.info
        info.details = "via_upstream"
        info.entered_status = status
        self.head_seen = True
        self.request_head = b""
        if self.idle_watched:
            self.touch()
        chain.response_headers(end)

    def on_upstream_full(self) -> None:
        """The endpoint reads too slowly."""
        self.hold_request(BY_WRITER)

    def on_upstream_drained(self) -> None:
        """The endpoint has caught up."""
        self.touch()
        self.free_request(BY_WRITER)

    def on_upstream_error(self, connection: UpstreamConnection, failure: Failure, error: str) -> None:
        """The connection is lost or has sent nonsense; no more events come from it."""
        if self.upstream is not connection or self.over or self.route is None:
            return
        self.upstream_over()
        self.free_request(BY_WRITER)
        self.route.cluster.instruments.failed(failure.metric)
        head = self.request_head
        if (
            connection.reused
            and not connection.replied
            and head
            and head[: head.index(b" ")] in IDEMPOTENT
            and not self.body_sent
            and self.info.attempts < MAX_ATTEMPTS
        ):
            # The endpoint closed a kept connection as we used it; the request never reached its server.
            self.upwards[:] = [head]
            self.open_upstream(self.route, fresh=True)
            self.flush()
            return
        self.upstream_failed(failure, error)

    def upstream_failed(self, failure: Failure, error: str) -> None:
        """No response will come, or no more of it."""
        cluster = self.info.cluster_name
        if not limited((failure, cluster), LINES_PER_SECOND):
            log.warning("upstream failed", **self.facts(), reason=failure.reason, error=error)
        if self.head_seen:
            self.perform()
            self.flush_down()
            self.reset(failure.details_after, failure.flag)
        else:
            self.answer(failure.status, failure.body, failure.details_before, failure.flag)
            self.flush()

    # Back-pressure

    def hold_response(self, reason: int) -> None:
        """Do not read the endpoint."""
        if not self.response_holds and self.upstream is not None:
            self.upstream.pause_reading(self)
        self.response_holds |= reason

    def free_response(self, reason: int) -> None:
        """Read the endpoint again, unless there is another reason not to."""
        if self.response_holds & reason:
            self.response_holds &= ~reason
            if not self.response_holds and self.upstream is not None:
                self.upstream.resume_reading(self)
