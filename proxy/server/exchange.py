"""One stream: a request, its way through the chain to an endpoint, and the response's way back.

Driven by callbacks, without tasks or futures: the client's connection and the endpoint's push what they parsed into the
chain, and what the chain puts into its outbox becomes bytes on the other transport. Bytes are gathered while an event is
handled and written once at its end (`flush`), so a head and its body leave in one system call.

How it ends: the response is written (`complete`), the client goes (`on_downstream_gone`), or the response cannot be
finished (`reset`). Each goes through `over`, exactly once.

What happens when the upstream fails follows Envoy's router: before the chain has seen the response's headers the client
gets a local reply, after it a reset. Response code details and flags are Envoy's.
"""

import asyncio
import random
import re
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from proxy.abi.memory import (
    CLOSE,
    END_STREAM,
    FRAMING_CHUNKED,
    FRAMING_LENGTH,
    FRAMING_NONE,
    HEAD_REQUEST,
    HTTP_10,
    REQUEST_HEADERS,
    SAID_EXPECT,
    UPGRADE,
    HeadError,
    Region,
)
from proxy.chain import commands
from proxy.server.answers import CONTINUE, plain
from proxy.server.downstream import Downstream, RawHeaders, RequestHead
from proxy.server.interim import interim_head
from proxy.server.stream_interface import Chain
from proxy.server.tunnel import Tunnel
from proxy.telemetry.logging import get_logger, limited
from proxy.telemetry.stream import StreamInfo
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.failure import Failure
from proxy.upstream.pool import Dial, Pool

if TYPE_CHECKING:
    from proxy.server.gateway import Gateway, RouteState

log = get_logger("stream")

LINES_PER_SECOND = 5.0
"""Of one kind, per cluster or listener."""
HELD_BYTES = 64 * 1024
"""Request bytes kept while a connection is made; beyond, the client is not read."""
MAX_ATTEMPTS = 3
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 9.2.2: may be sent again when a kept connection turns out to be closed."""
REQUEST_ID = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
"""What the core keeps."""

COUNTS_HOPS = frozenset({"OPTIONS", "TRACE"})

# Why a side is not read.
BY_CHAIN, BY_WRITER, BY_DIAL = 1, 2, 4


class RequestIds:
    """Ids in the form of a UUID: random per worker, then counted, which costs a fifth of random ones; not secret."""

    def __init__(self) -> None:
        digits = f"{random.SystemRandom().getrandbits(128):032x}"
        self.prefix = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-"
        self.count = count(int(digits[20:], 16))

    def __next__(self) -> str:
        return f"{self.prefix}{next(self.count) & 0xFFFFFFFFFFFF:012x}"


class Exchange:
    """Sink of the upstream's events, waiter for its connection, and what the listener drives."""

    # Defaults live in the class: a stream sets only what it changes.
    region: Region | None = None
    chain: Chain | None = None
    route: "RouteState | None" = None
    over: bool = False
    performing: bool = False
    idle_watched: bool = False
    """The route's idle timeout is running."""

    # Request side
    request_ended: bool = False
    """The client has sent all of it."""
    request_sent: bool = False
    """The chain has let all of it out."""
    request_head: bytes = b""
    """Kept until the response begins, to send it again."""
    method: bytes = b""
    """As it goes upstream: a filter may have changed it."""
    body_sent: bool = False
    request_left: int = 0
    request_chunked: bool = False
    expects_continue: bool = False
    upgrade: bool = False
    request_holds: int = 0
    answered: bool = False
    """The response comes from here; what is left of the request is dropped."""

    # Upstream
    dial: Dial | None = None
    upstream: UpstreamConnection | None = None
    begun: bool = False
    """The request's head has gone to `upstream`."""
    upstream_since: float = 0.0
    response_holds: int = 0

    # Response side
    head_seen: bool = False
    """The chain has the response's headers; from here on a failure is a reset."""
    response_started: bool = False
    response_ended: bool = False
    response_framing: int = FRAMING_NONE
    response_left: int = 0
    keep_alive: bool = False
    switching: bool = False
    tunnel: Tunnel | None = None

    pause_timer: asyncio.TimerHandle | None = None
    """How long a filter may still hold the stream."""

    def __init__(self, gateway: "Gateway", downstream: Downstream, request: RequestHead) -> None:
        self.gateway = gateway
        self.memory = gateway.memory
        self.downstream = downstream
        self.request = request
        self.info = StreamInfo()
        self.upwards: list[bytes] = []
        self.downwards: list[bytes] = []

    # What the listener drives

    def begin(self, end: bool) -> None:
        """The head is parsed; `end` if the request has no body. Call `flush` afterwards, body or not."""
        try:
            self.start(end)
        except Exception:
            self.defect()

    def start(self, end: bool) -> None:
        request, downstream, info = self.request, self.downstream, self.info
        listener = downstream.listener
        method, target, headers = request.method, request.path, request.headers
        self.request_ended = end
        info.method = method
        info.path = target
        info.authority = headers.get("Host", "")
        info.protocol = "HTTP/1.1" if request.version[1] else "HTTP/1.0"
        info.scheme = listener.scheme
        info.source_address = downstream.source
        info.destination_address = downstream.destination
        info.request_id = self.choose_request_id()
        self.region = self.memory.begin()
        try:
            said = self.memory.load_request(
                request.raw_headers if method not in COUNTS_HOPS else fewer_hops(request.raw_headers),
                method.encode(),
                target.encode("utf-8", "surrogateescape"),
                listener.head_options,
                downstream.peer_ip,
                info.request_id.encode(),
            )
        except HeadError as error:
            info.flags = "DPE"
            self.refuse(400, "http1.codec_error", error.reason)
            return
        if target[0] != "/":
            self.take_target()
        if not end:
            listener.body_deadlines.start(self)
            self.expects_continue = bool(said & SAID_EXPECT and request.version[1])
        if request.upgrade:
            self.prepare_upgrade()
        route = self.route = self.gateway.route(method, info.authority, info.path, self.header)
        if route is not None:
            info.route_name = route.label
            info.cluster_name = route.cluster.name
            if not end or not route.bounded:
                self.watch_idle(route)
        self.chain = self.gateway.chains.open(
            None if route is None else route.config, info, self.region, self.wake
        )
        limit = listener.config.limits.body
        if limit is not None and not end and announced_length(headers.get("Content-Length")) > limit:
            self.answer(413, b"payload too large", "request_payload_too_large", "")
            return
        self.chain.request_headers(end and not self.upgrade)
        if self.chain is not None and self.chain.outbox:
            self.perform()
        if not self.request_sent and self.request_ended and route is not None and not self.over:
            # Held by a filter: the route's timeout has not begun, the idle timeout has to watch.
            self.watch_idle(route)

    def on_request_data(self, data: bytes, end: bool) -> None:
        """More of the body. Call `flush` afterwards."""
        if end:
            self.request_ended = True
            self.downstream.listener.body_deadlines.stop(self)
        if self.over or self.answered:
            return
        info = self.info
        info.bytes_received += len(data)
        limit = self.downstream.listener.config.limits.body
        if limit is not None and info.bytes_received > limit:
            self.answer(413, b"payload too large", "request_payload_too_large", "")
            return
        if not end:
            self.downstream.listener.body_deadlines.start(self)
        self.touch()
        chain = self.chain
        if chain is None:
            return
        try:
            chain.request_data(data, end)
            if chain.outbox:
                self.perform()
        except Exception:
            self.defect()

    def on_request_broken(self, status: int) -> None:
        """The body's framing is broken; the connection cannot go on."""
        self.info.flags = "DPE"
        if self.response_started or self.chain is None:
            self.reset("http1.codec_error", "DPE")
            return
        self.answer(status, b"bad request", "http1.codec_error", "DPE")
        self.flush()

    def on_downstream_gone(self) -> None:
        """The client has closed: let go of the upstream at once."""
        if not self.over:
            self.end("downstream_remote_disconnect", "DC")

    def on_downstream_full(self) -> None:
        """The client reads too slowly."""
        self.hold_response(BY_WRITER)

    def on_downstream_drained(self) -> None:
        """The client has caught up."""
        if self.idle_watched:
            self.touch()
        self.free_response(BY_WRITER)

    def flush(self) -> None:
        """Write what was gathered, in both directions; then see whether the stream is over."""
        if self.over:
            return
        upstream = self.upstream
        if upstream is not None:
            if self.upwards:
                self.write_upstream(upstream)
            if self.request_sent and self.begun:
                upstream.request_complete = True
        elif self.dial is not None and not self.request_holds & BY_DIAL and sum(map(len, self.upwards)) > HELD_BYTES:
            self.hold_request(BY_DIAL)
        if self.downwards:
            out = self.downwards
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self.downstream.write(data)
        if self.response_ended:
            self.complete()
        elif self.switching:
            self.begin_tunnel()

    # Commands of the chain

    def wake(self) -> None:
        """The chain has commands, outside an event of ours."""
        if self.over:
            return
        self.touch()
        try:
            self.perform()
            self.flush()
        except Exception:
            self.defect()

    def perform(self) -> None:
        """Carry out the outbox in order. Commands may cause more; they follow."""
        if self.performing or self.chain is None:
            return
        self.performing = True
        try:
            outbox = self.chain.outbox
            while outbox:
                batch = outbox[:]
                outbox.clear()
                for command in batch:
                    ACTIONS[command.__class__](self, command)
                    if self.over:
                        outbox.clear()
                        return
        finally:
            self.performing = False

    def send_request_headers(self, command: commands.SendRequestHeaders) -> None:
        """Choose an endpoint and send the head."""
        if self.answered:
            return
        route = self.route
        if route is None:
            self.answer(404, b"no route matched", "route_not_found", "NR")
            return
        assert self.region is not None
        self.memory.attach(self.region)
        flags = END_STREAM | UPGRADE if self.upgrade else END_STREAM if command.end_stream else 0
        try:
            head = self.memory.emit_request(flags)
        except HeadError as error:
            self.complain("filter wrote a request that cannot be sent", reason=error.reason)
            self.answer(503, b"invalid request", "filter_wrote_invalid_request", "")
            return
        data = self.request_head = with_upgrade(head.data) if self.upgrade else head.data
        self.request_left = head.length
        self.request_chunked = head.framing == FRAMING_CHUNKED
        self.method = data[: data.index(b" ")]
        self.upwards.append(data)
        if flags:
            self.on_request_sent(route)
        elif self.expects_continue:
            self.expects_continue = False
            self.downstream.write(CONTINUE)
        self.open_upstream(route)

    def send_request_data(self, command: commands.SendRequestData) -> None:
        """Frame and pass on a piece of the body."""
        if self.answered or self.route is None or self.request_sent:
            return
        data, out = command.data, self.upwards
        if data:
            self.body_sent = True
            if self.request_chunked:
                out += (b"%x\r\n" % len(data), data, b"\r\n")
            else:
                self.request_left -= len(data)
                out.append(data)
        if command.end_stream and self.request_chunked:
            out.append(b"0\r\n\r\n")
        elif not self.request_chunked and (self.request_left < 0 or (command.end_stream and self.request_left)):
            # A filter changed the body but not content-length. Not one byte too many leaves here.
            out.clear()
            self.complain("request body does not have the length of its head")
            self.answer(500, b"request length mismatch", "request_length_mismatch", "")
            return
        if command.end_stream:
            self.body_sent = True
            self.on_request_sent(self.route)

    def send_response_headers(self, command: commands.SendResponseHeaders) -> None:
        """Send the head; from here on the status is out."""
        if self.response_started:
            return
        self.response_started = True
        request = self.request
        flags = END_STREAM if command.end_stream else 0
        if request.method == "HEAD":
            flags |= HEAD_REQUEST
        if not request.version[1]:
            flags |= HTTP_10
        # What the client still sends of the request has no reader after the response: the connection cannot go on.
        if request.should_close or request.upgrade or not self.request_ended or self.downstream.listener.draining:
            flags |= CLOSE
        if self.upgrade and self.upstream is not None:
            flags |= UPGRADE
        assert self.region is not None
        self.memory.attach(self.region)
        try:
            head = self.memory.emit_response(flags)
        except HeadError as error:
            self.complain("filter wrote a response that cannot be sent", reason=error.reason)
            self.refuse(500, "filter_wrote_invalid_response", error.reason)
            return
        self.info.status = head.status
        self.downwards.append(head.data if head.status != 101 else with_upgrade(head.data))
        self.response_framing = head.framing
        self.response_left = head.length
        self.keep_alive = not head.close
        if head.status == 101:
            self.switching = True
        elif command.end_stream:
            self.response_ended = True

    def send_response_data(self, command: commands.SendResponseData) -> None:
        """Frame and pass on a piece of the body."""
        if self.response_ended or not self.response_started:
            return
        data, out = command.data, self.downwards
        framing = self.response_framing
        if framing == FRAMING_CHUNKED:
            if data:
                out += (b"%x\r\n" % len(data), data, b"\r\n")
            if command.end_stream:
                out.append(b"0\r\n\r\n")
        elif framing != FRAMING_NONE:
            if framing == FRAMING_LENGTH:
                self.response_left -= len(data)
                if self.response_left < 0 or (command.end_stream and self.response_left):
                    # A filter changed the body but not content-length, or an endpoint's HEAD answer has a body.
                    self.complain("response body does not have the length of its head")
                    self.flush_down()
                    self.reset("response_length_mismatch", "")
                    return
            if data:
                out.append(data)
        self.info.bytes_sent += len(data)
        if command.end_stream:
            self.response_ended = True

    def pause_request(self, command: commands.PauseRequest) -> None:
        """Do not read the client."""
        self.hold_request(BY_CHAIN)

    def resume_request(self, command: commands.ResumeRequest) -> None:
        """Read the client again."""
        self.free_request(BY_CHAIN)

    def pause_response(self, command: commands.PauseResponse) -> None:
        """Do not read the upstream."""
        self.hold_response(BY_CHAIN)

    def resume_response(self, command: commands.ResumeResponse) -> None:
        """Read the upstream again."""
        self.free_response(BY_CHAIN)

    def pause_began(self, command: commands.PauseBegan) -> None:
        self.pause_timer = asyncio.get_running_loop().call_later(command.seconds, self.on_pause_expired)

    def pause_ended(self, command: commands.PauseEnded) -> None:
        if self.pause_timer is not None:
            self.pause_timer.cancel()
            self.pause_timer = None

    def on_pause_expired(self) -> None:
        """A filter has held the stream for as long as it may."""
        self.pause_timer = None
        if self.over or self.chain is None:
            return
        self.chain.pause_expired()
        self.wake()

    def answer_locally(self, command: commands.AnswerLocally) -> None:
        """The response comes from the chain: the upstream has no more say."""
        self.answered = True
        self.drop_upstream()

    def reset_downstream(self, command: commands.Reset) -> None:
        """The chain cannot finish what it began."""
        self.reset(self.info.details or "filter_reset", self.info.flags)

    # The upstream

    def open_upstream(self, route: "RouteState", fresh: bool = False, avoid: Pool | None = None) -> bool:
        """Take a kept connection or start a new one (`fresh`: only a new one). False if `avoid` is the only endpoint."""
        pool = route.cluster.next_pool(avoid)
        if pool is None:
            return False
        self.info.attempts += 1
        self.info.upstream_address = pool.address
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
        out = self.upwards
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if self.begun:
            upstream.write(data)
            return
        self.begun = True
        self.upstream_since = self.gateway.clock()
        upstream.begin(self, data, self.method == b"HEAD", self.request_sent)
        if self.response_holds:
            upstream.pause_reading(self)

    def on_request_sent(self, route: "RouteState") -> None:
        """The chain has let the request's end out: the route's timeout begins."""
        self.request_sent = True
        route.deadlines.start(self)
        if route.bounded and self.idle_watched:
            self.idle_watched = False
            route.idle_deadlines.stop(self)

    def on_upstream_interim(self, status: int, headers: RawHeaders) -> None:
        """A 1xx: for HTTP/1.1 clients only (RFC 9110 15.2)."""
        if self.upstream is None or self.response_started or not self.request.version[1]:
            return
        head = interim_head(status, headers)
        if head is not None:
            self.downstream.write(head)

    def on_upstream_head(self, status: int, headers: RawHeaders, end: bool) -> None:
        """The response's head; `end` if it has no body. `on_upstream_flush` follows."""
        upstream = self.upstream
        if upstream is None or self.chain is None:
            return
        if status == 101 and not self.upgrade:
            self.drop_upstream()
            self.upstream_failed(Failure.PROTOCOL, "101 without a request for an upgrade")
            return
        if end:
            self.upstream_over()
        assert self.region is not None
        try:
            self.memory.attach(self.region)
            self.memory.load_response(status, headers, self.downstream.listener.head_options)
            self.info.details = "via_upstream"
            self.head_seen = True
            self.request_head = b""
            if self.idle_watched:
                self.touch()
            self.chain.response_headers(end)
            if self.chain is not None and self.chain.outbox:
                self.perform()
        except HeadError as error:
            self.drop_upstream()
            self.upstream_failed(Failure.PROTOCOL, error.reason)
        except Exception:
            self.defect()

    def on_upstream_data(self, data: bytes, end: bool) -> None:
        """More of the response's body. `on_upstream_flush` follows."""
        if self.upstream is None or self.chain is None:
            return
        if end:
            self.upstream_over()
        if self.idle_watched:
            self.touch()
        chain = self.chain
        try:
            chain.response_data(data, end)
            if chain.outbox:
                self.perform()
        except Exception:
            self.defect()

    def on_upstream_flush(self) -> None:
        """All of one read has been handed over."""
        self.flush()

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
        if (
            connection.reused
            and not connection.replied
            and self.method in IDEMPOTENT
            and not self.body_sent
            and self.request_head
            and self.info.attempts < MAX_ATTEMPTS
        ):
            # The endpoint closed a kept connection as we used it; the request never reached its server.
            self.upwards[:] = [self.request_head]
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
            self.flush_down()
            self.reset(failure.details_after, failure.flag)
        else:
            self.answer(failure.status, failure.body, failure.details_before, failure.flag)
            self.flush()

    def upstream_over(self) -> None:
        """The connection is no longer ours."""
        self.upstream = None
        if self.begun:
            self.info.upstream_seconds = self.gateway.clock() - self.upstream_since

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

    # Deadlines

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

    def on_body_timeout(self) -> None:
        """The client has been silent inside the request's body."""
        if self.request_holds:
            # We are not reading: the silence is ours.
            self.downstream.listener.body_deadlines.start(self)
            return
        self.give_up(408, b"request timeout", "request_body_timeout", "SI")

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
        if self.pause_timer is not None:
            self.pause_timer.cancel()
        info = self.info
        info.details = details
        info.flags = flags
        if self.upstream is not None or self.dial is not None:
            self.drop_upstream()
        route = self.route
        if route is not None:
            if self.request_sent:
                route.deadlines.stop(self)
            if self.idle_watched:
                route.idle_deadlines.stop(self)
        if not self.request_ended:
            self.downstream.listener.body_deadlines.stop(self)
        chain = self.chain
        if chain is not None:
            chain.finish()
            # Breaks the cycle through `wake`: a stream's memory is freed at once, not by the collector.
            self.chain = None
        if self.region is not None:
            self.memory.release(self.region)
        self.gateway.telemetry.stream_finished(info)

    def begin_tunnel(self) -> None:
        """The 101 is written: both connections pass bytes from now on."""
        self.switching = False
        upstream, route = self.upstream, self.route
        assert upstream is not None
        assert route is not None
        route.deadlines.stop(self)
        route.idle_deadlines.stop(self)
        self.idle_watched = False
        self.tunnel = Tunnel(self.downstream, upstream, route.tunnel_deadlines, self.on_tunnel_over)
        upstream.tunnel(self.tunnel)
        self.tunnel.begin()

    def on_tunnel_over(self, tunnel: Tunnel) -> None:
        """Both sides of the tunnel are closed."""
        self.info.bytes_received += tunnel.received
        self.info.bytes_sent += tunnel.sent
        if not self.over:
            self.upstream_over()
            self.end(self.info.details, self.info.flags)

    # Back-pressure

    def hold_request(self, reason: int) -> None:
        if not self.request_holds:
            self.downstream.stop_reading()
        self.request_holds |= reason

    def free_request(self, reason: int) -> None:
        if self.request_holds & reason:
            self.request_holds &= ~reason
            if not self.request_holds and not self.over:
                self.downstream.read_on()

    def hold_response(self, reason: int) -> None:
        if not self.response_holds and self.upstream is not None:
            self.upstream.pause_reading(self)
        self.response_holds |= reason

    def free_response(self, reason: int) -> None:
        if self.response_holds & reason:
            self.response_holds &= ~reason
            if not self.response_holds and self.upstream is not None:
                self.upstream.resume_reading(self)

    # Small parts of `begin`

    def choose_request_id(self) -> str:
        policy = self.downstream.listener.config.request_id
        if policy == "keep":
            given = self.request.headers.get("X-Request-Id")
            if given is not None and REQUEST_ID.fullmatch(given):
                return given
        return next(self.gateway.request_ids)

    def take_target(self) -> None:
        """Absolute-form and `*`: what the core made of the target is what is routed."""
        if self.info.path == "*":
            self.info.path = "/"
            return
        info, memory = self.info, self.memory
        path = memory.get(REQUEST_HEADERS, b":path")
        authority = memory.get(REQUEST_HEADERS, b":authority")
        info.path = (path or b"/").decode("utf-8", "surrogateescape")
        info.authority = (authority or b"").decode("utf-8", "surrogateescape")

    def prepare_upgrade(self) -> None:
        """Only WebSocket, only by GET without a body: what aiohttp's parser stops parsing for."""
        request = self.request
        self.upgrade = (
            self.request_ended
            and request.method == "GET"
            and request.version[1] == 1
            and request.headers.get("Upgrade", "").lower() == "websocket"
        )

    def header(self, name: str) -> str | None:
        """For the router: the header as the filters will see it, hop-by-hop ones gone."""
        value = self.memory.get(REQUEST_HEADERS, name.encode())
        return None if value is None else value.decode("utf-8", "surrogateescape")

    def flush_down(self) -> None:
        if self.downwards:
            data = b"".join(self.downwards)
            self.downwards.clear()
            self.downstream.write(data)

    def facts(self) -> dict[str, str]:
        info = self.info
        return {"request_id": info.request_id, "cluster": info.cluster_name, "endpoint": info.upstream_address}

    def complain(self, event: str, **facts: str) -> None:
        if not limited((event, self.info.route_name), LINES_PER_SECOND):
            log.warning(event, request_id=self.info.request_id, route=self.info.route_name, **facts)


def fewer_hops(headers: RawHeaders) -> RawHeaders:
    """Max-Forwards counts down at each intermediary (RFC 9110 7.6.2); the listener has kept those that say 0."""
    return tuple(
        (name, b"%d" % (int(value) - 1))
        if name.lower() == b"max-forwards" and value.isdigit() and len(value) < 10 and int(value)
        else (name, value)
        for name, value in headers
    )


def with_upgrade(head: bytes) -> bytes:
    """The Upgrade field belongs to the hop (RFC 9110 7.8): whatever happened to it in the chain, it goes out."""
    if b"\r\nupgrade: " in head:
        return head
    return head[:-2] + b"upgrade: websocket\r\n\r\n"


def announced_length(value: str | None) -> int:
    """Content-Length as the parser admitted it; 0 if there is none."""
    return int(value) if value is not None and value.isdecimal() and len(value) < 20 else 0


ACTIONS: dict[type, Callable[[Exchange, Any], None]] = {
    commands.SendRequestHeaders: Exchange.send_request_headers,
    commands.SendRequestData: Exchange.send_request_data,
    commands.SendResponseHeaders: Exchange.send_response_headers,
    commands.SendResponseData: Exchange.send_response_data,
    commands.PauseRequest: Exchange.pause_request,
    commands.ResumeRequest: Exchange.resume_request,
    commands.PauseResponse: Exchange.pause_response,
    commands.ResumeResponse: Exchange.resume_response,
    commands.PauseBegan: Exchange.pause_began,
    commands.PauseEnded: Exchange.pause_ended,
    commands.AnswerLocally: Exchange.answer_locally,
    commands.Reset: Exchange.reset_downstream,
}
