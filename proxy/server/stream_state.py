"""What is known and held of one stream, and the two things that all parts of an exchange do with it: stop and go on reading a
side, and log. Slots, because a request reads and writes some hundred of these."""

from typing import TYPE_CHECKING

from proxy.abi.memory import FRAMING_NONE, Region
from proxy.server.downstream import Downstream, RequestHead
from proxy.server.stream_interface import Chain
from proxy.telemetry.logging import get_logger, limited
from proxy.telemetry.stream import StreamInfo
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.pool import Dial

if TYPE_CHECKING:
    from proxy.server.deadlines import DeadlineQueue
    from proxy.server.ending import Ending
    from proxy.server.gateway import Gateway
    from proxy.server.generation import RouteState

log = get_logger("stream")

LINES_PER_SECOND = 5.0
"""Of one kind, per cluster or listener."""

LONG = 16 * 1024
"""Bytes of a body from which on to join it with its head costs more than to write two pieces."""

# Why a side is not read.
BY_CHAIN, BY_WRITER, BY_DIAL = 1, 2, 4


class StreamState:
    """The fields of an exchange (exchange.py), and what acts on nothing else."""

    __slots__ = (
        "answered",
        "begun",
        "body_mark",
        "body_sent",
        "chain",
        "dial",
        "downstream",
        "downwards",
        "expects_continue",
        "gateway",
        "generation",
        "head_seen",
        "idle_watched",
        "info",
        "keep_alive",
        "memory",
        "over",
        "pausing",
        "performing",
        "region",
        "request",
        "request_chunked",
        "request_ended",
        "request_head",
        "request_holds",
        "request_kept",
        "request_left",
        "request_sent",
        "response_ended",
        "response_framing",
        "response_holds",
        "response_kept",
        "response_left",
        "response_started",
        "route",
        "switching",
        "upgrade",
        "upstream",
        "upstream_since",
        "upwards",
    )

    def __init__(self, gateway: "Gateway", downstream: Downstream, request: RequestHead) -> None:
        self.gateway = gateway
        generation = self.generation = gateway.generation
        self.memory = generation.memory
        self.downstream = downstream
        self.request = request
        self.info = StreamInfo()
        self.region: Region | None = None
        self.chain: Chain | None = None
        self.route: RouteState | None = None
        self.over = False
        self.performing = False
        self.idle_watched = False
        """The route's idle timeout is running."""
        self.pausing: DeadlineQueue[Ending] | None = None
        """Where the deadline of a filter's pause is running."""
        self.answered = False
        """The response comes from here; what is left of the request is dropped."""

        # Request side
        self.request_ended = False
        """The client has sent all of it."""
        self.request_sent = False
        """The chain has let all of it out."""
        self.request_head = b""
        """Kept until the response begins, to send it again."""
        self.body_mark = 0
        """So many bytes of the body must have come before the body's deadline."""
        self.body_sent = False
        self.request_left = 0
        self.request_kept = b""
        """The last byte of the announced length, until the stream's end shows that no more comes."""
        self.request_chunked = False
        self.expects_continue = False
        self.upgrade = False
        self.request_holds = 0
        self.upwards: list[bytes] = []
        """Bytes for the endpoint, gathered while an event is handled."""

        # Upstream
        self.dial: Dial | None = None
        self.upstream: UpstreamConnection | None = None
        self.begun = False
        """The request's head has gone to `upstream`."""
        self.upstream_since = 0.0
        self.response_holds = 0

        # Response side
        self.head_seen = False
        """The chain has the response's headers; from here on a failure is a reset."""
        self.response_started = False
        self.response_ended = False
        self.response_framing = FRAMING_NONE
        self.response_left = 0
        self.response_kept = b""
        """The last byte of the announced length, or a piece that ends with it, until the end shows that no more comes."""
        self.keep_alive = False
        self.switching = False
        """A 101 is on its way; the tunnel follows."""
        self.downwards: list[bytes] = []
        """Bytes for the client."""

    # Back-pressure

    def hold_request(self, reason: int) -> None:
        """Do not read the client."""
        if not self.request_holds:
            self.downstream.stop_reading()
        self.request_holds |= reason

    def free_request(self, reason: int) -> None:
        """Read the client again, unless there is another reason not to."""
        if self.request_holds & reason:
            self.request_holds &= ~reason
            if not self.request_holds and not self.over:
                self.downstream.read_on()
                if not self.request_ended:
                    self.pace_body()

    def pace_body(self) -> None:
        """From now on the client has body_timeout for the next body_pace bytes."""
        raise NotImplementedError

    # Log

    def facts(self) -> dict[str, str]:
        """What a log line about the stream says."""
        info = self.info
        return {"request_id": info.request_id, "cluster": info.cluster_name, "endpoint": info.upstream_address}

    def complain(self, event: str, **facts: str | list[str]) -> None:
        """A warning, a few a second for each route."""
        if not limited((event, self.info.route_name), LINES_PER_SECOND):
            log.warning(event, request_id=self.info.request_id, route=self.info.route_name, **facts)
