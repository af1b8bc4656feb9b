"""The filter chain of one stream: a state machine without I/O.

The server feeds events (headers, data, its own answers) and performs `outbox`, in order. The two directions are walked by
path.py; here is what joins them: local replies, failures, and filters that continue one direction from the other.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from proxy.abi.filter import (
    CLOSE_REQUEST,
    CLOSE_RESPONSE,
    CONTINUE_REQUEST,
    CONTINUE_RESPONSE,
    FAIL_STREAM,
    FAILED,
    GRPC_OF_HTTP,
    GRPC_UNKNOWN,
    LOCAL_REPLY,
    Callbacks,
    LocalReply,
    StreamFilter,
)
from proxy.abi.memory import REQUEST_HEADERS, REQUEST_TRAILERS, RESPONSE_HEADERS, RESPONSE_TRAILERS, Region, StreamMemory
from proxy.chain.commands import (
    REQUEST,
    SEND_REQUEST_HEADERS,
    SEND_RESPONSE_HEADERS,
    AnswerLocally,
    Command,
    Pairs,
    PauseBegan,
    PauseEnded,
    Reset,
    SendRequestData,
    SendResponseData,
    SendResponseHeaders,
)
from proxy.chain.path import Hold, Path, RequestPath, ResponsePath
from proxy.telemetry.stream import StreamInfo

CLOSE_STREAM = "wasm_close_stream"
PAUSE_TIMEOUT = "filter_pause_timeout"
UNAVAILABLE = 14
"""gRPC status of a failed filter."""

REQUEST_SENT, REQUEST_OVER, RESPONSE_SENT, RESPONSE_OVER = 1, 2, 4, 8


class Parts:
    """What the filters of a stream look at, in the config's order: of a route, the same for every stream."""

    def __init__(self, callbacks: Sequence[Callbacks]) -> None:
        self.request_bodies = [each.request_body for each in callbacks]
        self.response_bodies = [each.response_body for each in reversed(callbacks)]
        """In the order of the response's walk."""
        self.inspects_request = any(self.request_bodies)
        self.inspects_response = any(self.response_bodies)
        self.ends = any(each.ends for each in callbacks)


NO_PARTS = Parts(())

OVER = RequestPath(cast(Any, None), [], [])
"""Both directions of a stream that is over."""
OVER.closed = True


class Chain:
    """Made, then `take_part`, then events, then `finish`.

    A filter's failure is its own: it is skipped or answered for here, and nobody else's callbacks see it.
    """

    __slots__ = (
        "clocked",
        "deferred",
        "filters",
        "finished",
        "info",
        "memory",
        "outbox",
        "parts",
        "properties",
        "region",
        "request_path",
        "response_begun",
        "response_path",
        "wake",
        "walked",
    )

    def __init__(self, memory: StreamMemory, region: Region, info: StreamInfo, wake: Callable[[], None]) -> None:
        self.memory = memory
        self.region = region
        self.info = info
        self.wake = wake
        self.outbox: list[Command] = []
        self.properties: dict[bytes, bytes] = {}
        self.filters: list[StreamFilter] = []
        self.response_begun = False
        """A response, the upstream's or our own, has entered the chain."""
        self.clocked: Hold | None = None
        """The hold whose deadline runs."""
        self.deferred: list[tuple[Path, StreamFilter]] | None = None
        """What filters let go of in a direction whose walk had not come to its end."""
        self.finished = False
        self.parts = NO_PARTS
        self.request_path: Path | None = None
        self.response_path: Path | None = None
        self.walked = 0
        """How far the directions without a path have come: REQUEST_SENT and so on."""

    def take_part(self, filters: list[StreamFilter], parts: Parts) -> None:
        """The stream's filters, in the config's order, and what they look at."""
        self.filters = filters
        self.parts = parts

    def names(self) -> list[str]:
        """The stream's filters, in the config's order; without those that look on."""
        return [filter_.name for filter_ in self.filters if filter_.name]

    def take_members(self, members: Sequence[tuple[StreamFilter, Callbacks]]) -> None:
        """`take_part` of filters that are not the same for every stream of the route."""
        self.take_part([filter_ for filter_, _ in members], Parts([callbacks for _, callbacks in members]))

    # ---- The two directions ----

    # Most streams walk straight past their filters: nobody holds, answers or looks at a body. A Path is made for a direction
    # when that ends, or when somebody asks for it.

    @property
    def request(self) -> Path:
        path = self.request_path
        if path is None:
            path = self.request_path = RequestPath(self, self.filters, self.parts.request_bodies)
            if self.walked & REQUEST_SENT:
                path.sent_straight(bool(self.walked & REQUEST_OVER))
        return path

    @property
    def response(self) -> Path:
        path = self.response_path
        if path is None:
            path = self.response_path = ResponsePath(self, self.filters[::-1], self.parts.response_bodies)
            if self.walked & RESPONSE_SENT:
                path.sent_straight(bool(self.walked & RESPONSE_OVER))
        return path

    # ---- Events ----

    def request_headers(self, end_stream: bool) -> None:
        """The request's head is loaded in the live region."""
        self.memory.attach(self.region)
        for i, filter_ in enumerate(self.filters):
            result = filter_.request_headers(end_stream)
            if result:
                self.request.headers(end_stream, i, result)
                return
        self.walked |= REQUEST_SENT | REQUEST_OVER if end_stream else REQUEST_SENT
        self.outbox.append(SEND_REQUEST_HEADERS[end_stream])

    def request_data(self, data: bytes, end_stream: bool) -> None:
        path = self.request_path
        if path is None:
            if not self.parts.inspects_request:
                self.pass_request_data(data, end_stream)
                return
            path = self.request
        if path.inspected or path.holds:  # else nobody looks at the memory
            self.memory.attach(self.region)
        path.data(data, end_stream)
        if self.deferred:
            self.settle()

    def request_trailers(self, pairs: Pairs) -> None:
        """The end of the request, in the place of an empty last piece of data; at least one, names in lower case."""
        self.memory.attach(self.region)
        if self.request.closed:
            return
        self.memory.set_pairs(REQUEST_TRAILERS, pairs)
        self.request.trailers()
        if self.deferred:
            self.settle()

    def response_headers(self, end_stream: bool) -> None:
        """The response's head is loaded in the live region."""
        self.memory.attach(self.region)
        self.response_begun = True
        if self.response_path is None:
            for i, filter_ in enumerate(reversed(self.filters)):
                result = filter_.response_headers(end_stream)
                if result:
                    self.response.headers(end_stream, i, result)
                    break
            else:
                self.info.entered_status = 0
                self.walked |= RESPONSE_SENT
                self.outbox.append(SEND_RESPONSE_HEADERS[end_stream])
                if end_stream:
                    self.response_ended()
        else:
            self.response.headers(end_stream)
        if self.deferred:
            self.settle()

    def response_data(self, data: bytes, end_stream: bool) -> None:
        path = self.response_path
        if path is None:
            if not self.parts.inspects_response:
                self.pass_response_data(data, end_stream)
                return
            path = self.response
        if path.inspected or path.holds:  # else nobody looks at the memory
            self.memory.attach(self.region)
        path.data(data, end_stream)
        if self.deferred:
            self.settle()

    def pass_request_data(self, data: bytes, end_stream: bool) -> None:
        """No filter looks at it or has held anything."""
        if self.walked & REQUEST_OVER:
            return
        if data or end_stream:
            self.outbox.append(SendRequestData(data, end_stream))
        if end_stream:
            self.walked |= REQUEST_OVER

    def pass_response_data(self, data: bytes, end_stream: bool) -> None:
        if self.walked & RESPONSE_OVER:
            return
        if data or end_stream:
            self.outbox.append(SendResponseData(data, end_stream))
        if end_stream:
            self.response_ended()

    def response_ended(self) -> None:
        """With its response a stream is over: what is left of the request has no reader."""
        self.walked |= RESPONSE_OVER
        if self.request_path is not None:
            self.request_path.close()
        else:
            self.walked |= REQUEST_SENT | REQUEST_OVER

    def response_trailers(self, pairs: Pairs) -> None:
        """The end of the response, as for the request's."""
        self.memory.attach(self.region)
        if self.response.closed:
            return
        self.memory.set_pairs(RESPONSE_TRAILERS, pairs)
        self.response.trailers()
        if self.deferred:
            self.settle()

    def local_reply(self, status: int, body: bytes, details: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The gateway answers instead of the upstream. The answer walks the response chain, as a filter's own does."""
        self.answer(LocalReply(status, details, body, tuple(headers), None), None)
        self.settle()

    def pause_expired(self) -> None:
        """A filter has held the stream for as long as it may: go on without it, or answer for it, by its policy."""
        hold = self.clocked
        if hold is None:
            return
        self.memory.attach(self.region)
        hold.filter.overdue()
        if hold.filter.fails_open:
            path = self.request if hold in self.request.holds.values() else self.response
            path.resume(hold.filter)
        else:
            self.info.answered_by = hold.filter.name
            self.answer(LocalReply(503, PAUSE_TIMEOUT, b"", (), UNAVAILABLE), None)
        self.settle()

    def finish(self) -> None:
        """The stream is over, well or not: log, done, delete. Once."""
        if self.finished:
            return
        self.finished = True
        if self.parts.ends:
            self.memory.attach(self.region)
            for filter_ in self.filters:
                filter_.finish()
        # Without these cycles a stream's memory is freed at once, not by the collector.
        self.filters = []
        self.request_path = self.response_path = OVER
        self.clocked = None

    # ---- What filters ask for outside of the stream's events ----

    def resume(self, filter_: StreamFilter, direction: int) -> None:
        """A filter continues what it paused."""
        if self.finished:
            return
        self.memory.attach(self.region)
        (self.request if direction == REQUEST else self.response).resume(filter_)
        self.settle()
        if self.outbox:
            self.wake()

    def reply(self, filter_: StreamFilter, reply: LocalReply) -> None:
        """A filter answers; or, when it is down, somebody answers for it."""
        if self.finished:
            return
        self.memory.attach(self.region)
        self.info.answered_by = filter_.name
        self.answer(reply, filter_ if filter_.down else None)
        self.settle()
        if self.outbox:
            self.wake()

    def close(self) -> None:
        """A filter closes the stream."""
        self.abort(CLOSE_STREAM)
        if self.outbox:
            self.wake()

    def head(self, direction: int) -> Pairs:
        """The head of a direction as it stands."""
        return self.memory.pairs(REQUEST_HEADERS if direction == REQUEST else RESPONSE_HEADERS)

    def holds(self, filter_: StreamFilter) -> bool:
        return any(path is not None and path.hold_of(filter_) is not None for path in (self.request_path, self.response_path))

    def held(self, filter_: StreamFilter, direction: int) -> bytes | None:
        """What a filter holds of a body and has seen; None if it holds none."""
        path = self.request_path if direction == REQUEST else self.response_path
        return None if path is None or not path.holds else path.held(filter_)

    def replace_held(self, filter_: StreamFilter, direction: int, data: bytes) -> None:
        """A filter has edited what it holds."""
        (self.request if direction == REQUEST else self.response).replace_held(filter_, data)
        if self.outbox:
            self.wake()

    # ---- What they ask for in callbacks ----

    def attend(self, path: Path, filter_: StreamFilter, result: int) -> bool:
        """What a callback on `path` asked of the chain beside its action. True: the walk on `path` is over."""
        if result & FAILED:
            self.info.answered_by = filter_.name
            self.answer(LocalReply(503, FAIL_STREAM, b"", (), UNAVAILABLE), filter_)
            return True
        if result & LOCAL_REPLY and filter_.local_reply is not None:
            reply, filter_.local_reply = filter_.local_reply, None
            self.info.answered_by = filter_.name
            self.answer(reply, None)
            return True
        if result & (CLOSE_REQUEST | CLOSE_RESPONSE):
            self.abort(CLOSE_STREAM)
            return True
        if path.direction == REQUEST:
            other, flag = self.response, CONTINUE_RESPONSE
        else:
            other, flag = self.request, CONTINUE_REQUEST
        if result & flag:
            if other.busy:
                # What the filter held there came after what walks there now.
                self.deferred = [*(self.deferred or ()), (other, filter_)]
            else:
                path.busy = True
                other.resume(filter_)
                path.busy = False
        return path.closed

    def settle(self) -> None:
        """No walk is under way: those that waited for that."""
        while self.deferred:
            (path, filter_), *self.deferred = self.deferred
            path.resume(filter_)

    def pause_began(self, hold: Hold) -> None:
        """A filter holds the stream up. One deadline runs at a time; the others wait for their turn."""
        if self.clocked is None:
            self.clocked = hold
            self.outbox.append(PauseBegan(hold.filter.pause_seconds))

    def pause_ended(self, hold: Hold) -> None:
        """`hold` is no more."""
        if hold is not self.clocked:
            return
        self.clocked = None
        self.outbox.append(PauseEnded())
        for path in (self.request_path, self.response_path):
            for other in path.holds.values() if path is not None else ():
                if other.timed and self.clocked is None:
                    self.pause_began(other)

    def abort(self, details: str) -> None:
        """Nothing more can be done for the client."""
        if self.response.closed:
            return
        self.info.details = details
        self.outbox.append(Reset(details))
        self.request.close()
        self.response.close()

    # ---- Local replies ----

    def answer(self, reply: LocalReply, failed: StreamFilter | None) -> None:
        """Answer from here (Envoy: FilterManager::sendLocalReply).

        Before any response the answer walks the filters that have seen the request's headers, less `failed`. If a
        response is in the chain it goes to the client at once; if one has been sent, the stream is cut.
        """
        if self.response.closed:
            return
        if self.response.sent:
            self.abort(reply.details)
            return
        self.info.details = reply.details
        self.outbox.append(AnswerLocally(reply.details))
        self.request.close()
        self.memory.attach(self.region)
        head_only, body = self.compose(reply)
        if self.response_begun:
            self.info.entered_status = 0
            path = self.response
            path.sent = True
            path.close()
            self.outbox.append(SendResponseHeaders(head_only))
            if not head_only:
                self.outbox.append(SendResponseData(body, True))
            return
        self.response_begun = True
        path = self.response_path = self.response_of(failed)
        path.headers(head_only)
        if not head_only and not path.closed:
            path.finish_data(path.feed(0, body, True))

    def response_of(self, failed: StreamFilter | None) -> Path:
        """The way of a local reply. Filters that share the VM of a failed one are down with it."""
        bodies = self.response.bodies[::-1]
        taken = [
            (filter_, bodies[i])
            for i, filter_ in enumerate(self.filters[: self.request.reached])
            if failed is None or not (filter_ is failed or filter_.down)
        ]
        taken.reverse()
        return ResponsePath(self, [filter_ for filter_, _ in taken], [inspects for _, inspects in taken])

    def compose(self, reply: LocalReply) -> tuple[bool, bytes]:
        """Load the reply's head: (it ends the stream, body)."""
        status = reply.status if 200 <= reply.status <= 599 else 500
        body = reply.body
        kept = [(k.lower(), v) for k, v in reply.headers if not k.startswith(b":")]
        content_type = self.memory.get(REQUEST_HEADERS, b"content-type") or b""
        self.info.entered_status = status
        if content_type.startswith(b"application/grpc") and content_type[16:17] in (b"", b"+"):
            grpc = reply.grpc_status if reply.grpc_status is not None else GRPC_OF_HTTP.get(status, GRPC_UNKNOWN)
            pairs = [(b":status", b"200"), *(pair for pair in kept if pair[0] != b"content-length")]
            replace(pairs, b"content-type", b"application/grpc")
            if not any(value for name, value in pairs if name == b"grpc-status"):
                replace(pairs, b"grpc-status", b"%d" % grpc)
            if body:
                replace(pairs, b"grpc-message", percent_encoded(body))
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
        return self.info.method == "HEAD", body


def replace(pairs: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
    """Make this the only field of its name, in the place of the first, or last."""
    at = next((i for i, pair in enumerate(pairs) if pair[0] == name), len(pairs))
    pairs[at:] = [(name, value), *(pair for pair in pairs[at:] if pair[0] != name)]


def percent_encoded(text: bytes) -> bytes:
    """grpc-message (gRPC over HTTP/2, "Responses"): printable ASCII less % (and ~, as Envoy) as it stands, the rest as %XX."""
    return b"".join(b"%c" % c if 0x20 <= c < 0x7E and c != 0x25 else b"%%%02X" % c for c in text)
