"""The filter chain of one stream: a state machine without I/O.

The server feeds events (headers, data, its own answers) and performs `outbox`, in order. The two directions are walked by
path.py; here is what joins them: local replies, failures, and filters that continue one direction from the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

from proxy.abi.filter import (
    CLOSE_REQUEST,
    CLOSE_RESPONSE,
    CONTINUE_REQUEST,
    CONTINUE_RESPONSE,
    FAILED,
    LOCAL_REPLY,
    LocalReply,
    StreamFilter,
)
from proxy.abi.memory import REQUEST_HEADERS, RESPONSE_HEADERS, Region, StreamMemory
from proxy.chain.commands import (
    REQUEST,
    AnswerLocally,
    Command,
    PauseBegan,
    PauseEnded,
    Reset,
    SendResponseData,
    SendResponseHeaders,
)
from proxy.chain.path import Path, RequestPath, ResponsePath
from proxy.telemetry.stream import StreamInfo

FAIL_STREAM = "wasm_fail_stream"
CLOSE_STREAM = "wasm_close_stream"
PAUSE_TIMEOUT = "filter_pause_timeout"
UNAVAILABLE = 14
"""gRPC status of a failed filter."""

GRPC_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""HTTP to gRPC (grpc/doc/http-grpc-status-mapping.md); all others are 2, unknown."""


class Chain:
    """`participants`: the filters of this stream in the config's order, each with (has request body, has response body).

    A filter's failure is its own: it is skipped or answered for here, and nobody else's callbacks see it.
    """

    __slots__ = (
        "attributes",
        "filters",
        "finished",
        "info",
        "memory",
        "outbox",
        "pauses",
        "properties",
        "region",
        "replied",
        "request",
        "response",
        "response_begun",
        "wake",
    )

    def __init__(self, memory: StreamMemory, region: Region, info: StreamInfo, wake: Callable[[], None]) -> None:
        self.memory = memory
        self.region = region
        self.info = info
        self.wake = wake
        self.outbox: list[Command] = []
        self.properties: dict[bytes, bytes] = {}
        self.attributes: dict[str, Any] = {}
        self.filters: list[StreamFilter] = []
        self.response_begun = False
        """A response, the upstream's or our own, has entered the chain."""
        self.replied = False
        self.pauses = 0
        self.finished = False
        self.request: Path
        self.response: Path

    def take_part(self, filters: list[StreamFilter], request_bodies: list[bool], response_bodies: list[bool]) -> None:
        """The stream's filters, in the config's order; before any event."""
        self.filters = filters
        self.request = RequestPath(self, filters, request_bodies)
        self.response = ResponsePath(self, filters[::-1], response_bodies[::-1])

    # ---- Events ----

    def request_headers(self, end_stream: bool) -> None:
        """The request's head is loaded in the live region."""
        self.memory.attach(self.region)
        self.request.headers(end_stream)

    def request_data(self, data: bytes, end_stream: bool) -> None:
        self.memory.attach(self.region)
        self.request.data(data, end_stream)

    def response_headers(self, end_stream: bool) -> None:
        """The response's head is loaded in the live region."""
        self.memory.attach(self.region)
        self.response_begun = True
        self.response.headers(end_stream)

    def response_data(self, data: bytes, end_stream: bool) -> None:
        self.memory.attach(self.region)
        self.response.data(data, end_stream)

    def local_reply(self, status: int, body: bytes, details: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The gateway answers instead of the upstream. The answer walks the response chain, as a filter's own does."""
        self.reply(LocalReply(status, details, body, tuple(headers), None), None)

    def finish(self) -> None:
        """The stream is over, well or not: log, done, delete. Once."""
        if self.finished:
            return
        self.finished = True
        self.request.closed = self.response.closed = True
        if self.filters:
            self.memory.attach(self.region)
            for filter_ in self.filters:
                filter_.finish()

    # ---- What filters ask for ----

    def attend(self, path: Path, filter_: StreamFilter, result: int) -> bool:
        """What a callback on `path` asked of the chain beside its action. True: the walk on `path` is over."""
        if result & FAILED:
            self.reply(LocalReply(503, FAIL_STREAM, b"", (), UNAVAILABLE), filter_)
            return True
        if result & LOCAL_REPLY and filter_.local_reply is not None:
            reply, filter_.local_reply = filter_.local_reply, None
            self.reply(reply, None)
            return True
        if result & (CLOSE_REQUEST | CLOSE_RESPONSE):
            self.abort(CLOSE_STREAM)
            return True
        other, flag = (
            (self.response, CONTINUE_RESPONSE) if path.direction == REQUEST else (self.request, CONTINUE_REQUEST)
        )
        if result & flag:
            other.resume(filter_)
        return path.closed

    def pause_began(self, filter_: StreamFilter) -> None:
        self.pauses += 1
        if self.pauses == 1:
            self.outbox.append(PauseBegan(filter_.pause_seconds))

    def pause_ended(self) -> None:
        self.pauses -= 1
        if not self.pauses:
            self.outbox.append(PauseEnded())

    def pause_expired(self) -> None:
        """Filters have held the stream for as long as they may: go on without them, or answer for them, by policy."""
        self.memory.attach(self.region)
        for path in (self.request, self.response):
            for i, hold in list(path.holds.items()):
                if not hold.timed or path.closed:
                    continue
                filter_ = path.filters[i]
                filter_.overdue()
                if not filter_.fails_open:
                    self.reply(LocalReply(503, PAUSE_TIMEOUT, b"", (), UNAVAILABLE), None)
                    return
                path.resume(filter_)

    def resume(self, filter_: StreamFilter, direction: int) -> None:
        """A filter continues from outside of the stream's own events."""
        if self.finished:
            return
        self.memory.attach(self.region)
        (self.request if direction == REQUEST else self.response).resume(filter_)
        self.wake()

    def abort(self, details: str) -> None:
        """Nothing more can be done for the client."""
        self.request.closed = self.response.closed = True
        self.info.details = details
        self.outbox.append(Reset(details))

    # ---- Local replies ----

    def reply(self, reply: LocalReply, failed: StreamFilter | None) -> None:
        """Answer from here (Envoy: FilterManager::sendLocalReply).

        Before any response the answer walks the filters that have seen the request's headers, less `failed`. If a
        response is in the chain it goes to the client at once; if one has been sent, the stream is cut.
        """
        self.request.closed = True
        if self.response.sent:
            self.abort(reply.details)
            return
        self.info.details = reply.details
        walks = not self.response_begun
        self.response_begun = self.replied = True
        self.outbox.append(AnswerLocally(reply.details))
        self.memory.attach(self.region)
        head_only, body = self.compose(reply)
        path = self.response
        if not walks:
            path.closed = path.sent = True
            path.holds.clear()
            self.outbox.append(SendResponseHeaders(head_only))
            if not head_only:
                self.outbox.append(SendResponseData(body, True))
            return
        seen = self.filters[: self.request.reached]
        down = failed is not None
        keep = [i for i, filter_ in enumerate(seen) if not (filter_ is failed or (down and filter_.down))]
        bodies = path.bodies[::-1]
        self.response = path = ResponsePath(
            self, [seen[i] for i in reversed(keep)], [bodies[i] for i in reversed(keep)]
        )
        path.headers(head_only)
        if not head_only and path is self.response and not path.closed:
            path.feed(0, body, True)

    def compose(self, reply: LocalReply) -> tuple[bool, bytes]:
        """Load the reply's head: (it ends the stream, body)."""
        status = reply.status if 200 <= reply.status <= 599 else 500
        body = reply.body
        kept = [(k.lower(), v) for k, v in reply.headers if not k.startswith(b":")]
        content_type = self.memory.get(REQUEST_HEADERS, b"content-type") or b""
        if content_type.startswith(b"application/grpc") and content_type[16:17] in (b"", b"+", b";"):
            grpc = reply.grpc_status if reply.grpc_status is not None else GRPC_STATUS.get(status, 2)
            dropped = (b"content-type", b"content-length", b"grpc-status", b"grpc-message")
            pairs = [(b":status", b"200"), *(pair for pair in kept if pair[0] not in dropped)]
            pairs += [(b"content-type", b"application/grpc"), (b"grpc-status", b"%d" % grpc)]
            if body:
                pairs.append((b"grpc-message", percent_encoded(body)))
            self.memory.set_pairs(RESPONSE_HEADERS, pairs)
            return True, b""
        pairs = [(b":status", b"%d" % status)]
        if not body:
            pairs += [pair for pair in kept if pair[0] not in (b"content-type", b"content-length")]
            self.memory.set_pairs(RESPONSE_HEADERS, pairs)
            return True, b""
        length = (b"content-length", b"%d" % len(body))
        names = {name for name, _ in kept}
        for pair in kept:
            if pair[0] != b"content-length":
                pairs.append(pair)
            elif length not in pairs:
                pairs.append(length)
        if b"content-length" not in names:
            pairs.append(length)
        if b"content-type" not in names:
            pairs.append((b"content-type", b"text/plain"))
        self.memory.set_pairs(RESPONSE_HEADERS, pairs)
        return self.info.method == "HEAD" or status in (204, 304), body


def percent_encoded(text: bytes) -> bytes:
    """grpc-message (gRPC over HTTP/2, "Responses"): printable ASCII less % as it stands, the rest as %XX."""
    return b"".join(b"%c" % c if 0x20 <= c <= 0x7E and c != 0x25 else b"%%%02X" % c for c in text)
