"""How an exchange ends: the deadlines that may end it, the answers that are the gateway's own, and what is cleared away."""

from typing import TYPE_CHECKING

from proxy.server.answers import plain
from proxy.server.stream_state import LINES_PER_SECOND, log
from proxy.server.tunnel import Tunnel
from proxy.server.upstream_side import UpstreamSide
from proxy.telemetry.logging import limited

if TYPE_CHECKING:
    from proxy.server.generation import RouteState


class Ending(UpstreamSide):
    """Deadlines and ends."""

    __slots__ = ()

    def wake(self) -> None:
        raise NotImplementedError

    # Deadlines

    def on_request_sent(self, route: "RouteState") -> None:
        """The chain has let the request's end out: the route's timeout begins."""
        self.request_sent = True
        route.deadlines.start(self)
        if self.idle_watched and route.bounded:
            self.idle_watched = False
            route.idle_deadlines.stop(self)

    def touch(self) -> None:
        """Something moved: the idle timeout starts again, if it is what watches this stream."""
        if self.idle_watched and self.route is not None:
            self.route.idle_deadlines.start(self)

    def watch_idle(self, route: "RouteState") -> None:
        """Until the request is sent, or always if nothing else ends the stream."""
        self.idle_watched = True
        route.idle_deadlines.start(self)

    def on_route_timeout(self) -> None:
        """The route's timeout, from the request's end to the response's."""
        if self.route is not None:
            self.route.cluster.instruments.failed("timeout")
        self.give_up(504, b"upstream request timeout", "response_timeout", "UT")

    def on_idle_timeout(self) -> None:
        """Nothing moved for the route's idle_timeout."""
        self.give_up(408, b"stream timeout", "stream_idle_timeout", "SI")

    def pace_body(self) -> None:
        """From now on the client has body_timeout for the next body_pace bytes."""
        listener = self.downstream.listener
        self.body_mark = self.info.bytes_received + listener.body_pace
        listener.body_deadlines.start(self)

    def on_body_timeout(self) -> None:
        """The client has been too slow inside the request's body."""
        if self.request_holds:
            # We are not reading: the silence is ours.
            self.pace_body()
            return
        self.give_up(408, b"request timeout", "request_body_timeout", "SI")

    def on_pause_expired(self) -> None:
        """A filter has held the stream for as long as it may."""
        self.pausing = None
        if self.over or self.chain is None:
            return
        try:
            self.chain.pause_expired()
        except Exception:
            self.defect()
        self.wake()

    def give_up(self, status: int, body: bytes, details: str, flags: str) -> None:
        if self.over:
            return
        if not limited((details, self.info.cluster_name), LINES_PER_SECOND):
            log.warning("stream timed out", **self.facts(), reason=details)
        self.drop_upstream()
        if self.head_seen or self.response_started:
            self.reset(details, flags)
        else:
            self.answer(status, body, details, flags)
            self.flush()

    # The end

    def answer(self, status: int, body: bytes, details: str, flags: str) -> None:
        """The gateway's own answer, through the response side of the chain."""
        if self.chain is None or self.head_seen or self.response_started:
            self.reset(details, flags)
            return
        self.drop_upstream()
        self.answered = True
        self.head_seen = True
        self.info.details = details
        self.info.flags = flags
        self.chain.local_reply(status, body, details)
        self.perform()

    def refuse(self, status: int, details: str, reason: str) -> None:
        """Answer past the chain: there is none yet, or it is what went wrong."""
        if not limited((details, reason), LINES_PER_SECOND):
            log.info("request refused", **self.facts(), status=status, reason=reason)
        self.drop_upstream()
        self.answered = self.response_started = self.response_ended = True
        self.keep_alive = False
        self.info.status = status
        self.info.details = details
        self.downwards[:] = [plain(status)]

    def defect(self) -> None:
        """An exception that nobody expected: ours to mend. The stream ends; the gateway goes on."""
        if not limited(("defect",), LINES_PER_SECOND):
            log.exception("stream failed by a defect", **self.facts())
        self.performing = False
        if self.over:
            return
        if self.response_started:
            self.reset("internal_error", "")
        else:
            self.refuse(500, "internal_error", "defect")
            self.flush()

    def complete(self) -> None:
        """The response is written."""
        self.end(self.info.details, self.info.flags)
        self.downstream.exchange_over(self.keep_alive and self.request_ended)

    def reset(self, details: str, flags: str) -> None:
        """The client must not take what it got for the whole."""
        if self.over:
            return
        self.end(details, flags)
        self.downstream.abort()

    def end(self, details: str, flags: str) -> None:
        """The stream is over, well or not."""
        self.over = True
        self.gateway.overload.streams -= 1
        info = self.info
        info.details = details
        info.flags = flags
        info.over = True
        if self.upstream is not None or self.dial is not None:
            self.drop_upstream()
        route = self.route
        if route is not None:
            if self.request_sent:
                route.deadlines.stop(self)
            if self.idle_watched:
                route.idle_deadlines.stop(self)
        if self.pausing is not None:
            self.pausing.stop(self)
        if not self.request_ended:
            self.downstream.listener.body_deadlines.stop(self)
        chain = self.chain
        if chain is not None:
            chain.finish()
            # Breaks the cycle through `wake`: a stream's memory is freed at once, not by the collector.
            self.chain = None
        if self.region is not None:
            self.memory.release(self.region)
        if self.generation.retired:
            self.generation.stream_over()
        self.gateway.telemetry.stream_finished(info)

    # After a 101

    def begin_tunnel(self) -> None:
        """The 101 is written: both connections pass bytes from now on."""
        self.switching = False
        upstream, route = self.upstream, self.route
        assert upstream is not None
        assert route is not None
        route.deadlines.stop(self)
        route.idle_deadlines.stop(self)
        self.idle_watched = False
        tunnel = Tunnel(self.downstream, upstream, route.tunnel_deadlines, self.on_tunnel_over)
        upstream.tunnel(tunnel)
        tunnel.begin()

    def on_tunnel_over(self, tunnel: Tunnel) -> None:
        """Both sides of the tunnel are closed."""
        self.info.bytes_received += tunnel.received
        self.info.bytes_sent += tunnel.sent
        if not self.over:
            self.upstream_over()
            self.end(self.info.details, self.info.flags)
