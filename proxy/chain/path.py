"""One direction of a stream: the walk of headers and data past the filters, and what filters hold back.

Theory of operation. Frames (headers, data, end of stream) walk the filters in order. A filter lets a frame go on or stops it;
what is stopped waits in that filter's `Hold`, with every later frame, until the filter continues: by the answer of a later
callback, or from outside (`resume`). Filters nearer the frame's origin go on seeing frames. A filter stops in one of these ways
(Envoy's FilterHeadersStatus and FilterDataStatus, as its Wasm filter uses them):

    ALL       on headers: later frames wait unseen; continued, the filter sees the data that waited, in one piece
    HEADERS   on headers, with allow_on_headers_stop_iteration: data callbacks go on, the first that continues lets go
    BUFFER    on data, action 1: each later callback sees everything that was held so far
    WATERMARK on data, action 2: data is held, but each callback sees only what is new
    DROP      on data, action 3 and above: what the filter saw is thrown away

ALL and WATERMARK stop the reading of that side when more than the filter's limit waits; BUFFER over the limit ends the
stream (413, 500), since the filter asked for all of it.
"""

from enum import Enum
from typing import TYPE_CHECKING, Final

from proxy.abi.filter import (
    ACTION,
    BODY,
    CLOSE_REQUEST,
    CLOSE_RESPONSE,
    CONTINUE_REQUEST,
    CONTINUE_RESPONSE,
    FAILED,
    LOCAL_REPLY,
    PAUSE,
    StreamFilter,
)
from proxy.chain.commands import (
    REQUEST,
    RESPONSE,
    Command,
    PauseRequest,
    PauseResponse,
    ResumeRequest,
    ResumeResponse,
    SendRequestData,
    SendRequestHeaders,
    SendResponseData,
    SendResponseHeaders,
)

if TYPE_CHECKING:
    from proxy.chain.chain import Chain

WATERMARK_ACTION: Final = 2
ENDS: Final = FAILED | LOCAL_REPLY | CLOSE_REQUEST | CLOSE_RESPONSE
"""After a result with one of these nothing walks on."""
NEEDS_CHAIN: Final = ENDS | CONTINUE_REQUEST | CONTINUE_RESPONSE


class Stop(Enum):
    """Why a filter holds frames."""

    ALL = 1
    HEADERS = 2
    BUFFER = 3
    WATERMARK = 4
    DROP = 5


class Hold:
    """What waits at one filter."""

    __slots__ = ("data", "end", "headers", "headers_end", "reading_stopped", "stop", "timed")

    def __init__(self, stop: Stop, headers: bool, headers_end: bool) -> None:
        self.stop = stop
        self.headers = headers
        """The headers have not gone on."""
        self.headers_end = headers_end
        """They end the stream."""
        self.data = bytearray()
        self.end = False
        """The end of the stream waits behind `data`."""
        self.reading_stopped = False
        self.timed = False
        """The filter's pause deadline runs: it waits for nothing that the peer has still to send."""


class Path:
    """Walks one direction. `filters` in the order of the walk; `bodies`: which of them have the data callback."""

    __slots__ = ("bodies", "chain", "closed", "filters", "holds", "inspected", "reached", "sent")

    direction: int
    continued: int

    def __init__(self, chain: "Chain", filters: list[StreamFilter], bodies: list[bool]) -> None:
        self.chain = chain
        self.filters = filters
        self.bodies = bodies
        self.inspected = True in bodies
        self.holds: dict[int, Hold] = {}
        self.reached = 0
        """How many filters have been given the headers."""
        self.sent = False
        """The headers have left the chain."""
        self.closed = False
        """Nothing walks any more: the stream was answered, reset, or this direction is over."""

    # ---- What differs by direction ----

    def call_headers(self, filter_: StreamFilter, end: bool) -> int:
        raise NotImplementedError

    def call_body(self, filter_: StreamFilter, data: bytes, end: bool) -> int:
        raise NotImplementedError

    def emit(self, command: Command) -> None:
        self.chain.outbox.append(command)

    def headers_command(self, end: bool) -> Command:
        raise NotImplementedError

    def data_command(self, data: bytes, end: bool) -> Command:
        raise NotImplementedError

    def reading_command(self, stop: bool) -> Command:
        raise NotImplementedError

    # ---- The walk ----

    def headers(self, end: bool, start: int = 0) -> None:
        """Headers arrive at filter `start`."""
        filters = self.filters
        for i in range(start, len(filters)):
            filter_ = filters[i]
            self.reached = i + 1
            result = self.call_headers(filter_, end)
            if not result:
                continue
            if result & NEEDS_CHAIN and self.defer(filter_, result):
                return
            action = result & ACTION
            # 2 is Envoy's ContinueAndEndStream, which its Wasm filter treats as Continue.
            if action in (0, 2) or result & self.continued:
                continue
            only_headers = action == PAUSE and filter_.stops_iteration_on_headers
            self.holds[i] = hold = Hold(Stop.HEADERS if only_headers else Stop.ALL, True, end)
            self.check_pause(filter_, hold)
            return
        self.sent = True
        self.emit(self.headers_command(end))
        if end:
            self.closed = True

    def data(self, data: bytes, end: bool) -> None:
        """Data from outside. Like Envoy's HTTP/1 codec, the end comes as an empty piece of its own."""
        if self.closed:
            return
        if not self.inspected and not self.holds:
            self.send(data, end)
        elif data and end:
            self.feed(0, data, False)
            if not self.closed:
                self.feed(0, b"", True)
        else:
            self.feed(0, data, end)

    def feed(self, start: int, data: bytes, end: bool) -> None:
        """Data arrives at filter `start`."""
        filters, bodies, holds = self.filters, self.bodies, self.holds
        for i in range(start, len(filters)):
            hold = holds.get(i) if holds else None
            if hold is not None and hold.stop is Stop.ALL:
                hold.data += data
                hold.end = end
                self.check_watermark(i, hold)
                return
            filter_ = filters[i]
            if bodies[i]:
                if hold is not None and hold.stop is Stop.BUFFER:
                    if self.overflows_before(filter_, hold, data):
                        return
                    data = bytes(hold.data) + data
                    hold.data.clear()
                result = self.call_body(filter_, data, end)
                if result & BODY:
                    data = filter_.body
                if result & NEEDS_CHAIN and self.defer(filter_, result):
                    return
                action = 0 if result & self.continued else result & ACTION
                if action:
                    self.stop_data(i, filter_, action, data, end)
                    return
            if hold is not None:
                if hold.data:
                    data = bytes(hold.data) + data
                self.let_go(i, hold)
                if hold.headers and not self.release_headers(i, False):
                    return
            if not data and not end:
                return
        self.send(data, end)

    def stop_data(self, i: int, filter_: StreamFilter, action: int, data: bytes, end: bool) -> None:
        """Filter `i` answered a data callback with `action`."""
        hold = self.holds.get(i)
        if hold is None:
            hold = self.holds[i] = Hold(Stop.BUFFER, False, False)
        hold.end = end
        self.check_pause(filter_, hold)
        if action == PAUSE:
            hold.stop = Stop.BUFFER
            hold.data += data
            if len(hold.data) > filter_.body_limit:
                self.overflow(filter_)
        elif action == WATERMARK_ACTION:
            hold.stop = Stop.WATERMARK
            hold.data += data
            self.check_watermark(i, hold)
        else:
            hold.stop = Stop.DROP

    def send(self, data: bytes, end: bool) -> None:
        if data or end:
            self.emit(self.data_command(data, end))
        if end:
            self.closed = True

    # ---- Letting go ----

    def resume(self, filter_: StreamFilter) -> None:
        """A filter continues what it held, from outside of this direction's callbacks. Without a hold nothing happens."""
        i = next((i for i, held_by in enumerate(self.filters) if held_by is filter_), -1)
        hold = self.holds.get(i)
        if hold is None or self.closed:
            return
        self.let_go(i, hold)
        seen = hold.stop is not Stop.ALL
        data = bytes(hold.data)
        if hold.headers:
            ends = hold.headers_end or (hold.end and not data)
            if not self.release_headers(i, ends) and not self.holds:
                return
            if ends:
                return
        if (data or hold.end) and not self.closed:
            self.feed(i + 1 if seen else i, data, hold.end)

    def release_headers(self, i: int, end: bool) -> bool:
        """The headers that filter `i` held go on. False if the walk of this direction ended with that."""
        self.headers(end, i + 1)
        return not self.closed or end

    def let_go(self, i: int, hold: Hold) -> None:
        del self.holds[i]
        self.filters[i].continued(self.direction)
        if hold.timed:
            self.chain.pause_ended()
        if hold.reading_stopped:
            self.emit(self.reading_command(stop=False))

    # ---- Limits ----

    def check_pause(self, filter_: StreamFilter, hold: Hold) -> None:
        """A filter that holds a body may wait for the rest of it; from then on, and for headers at once, time runs."""
        if not hold.timed and (hold.end or hold.headers_end or hold.stop is Stop.ALL):
            hold.timed = True
            self.chain.pause_began(filter_)

    def check_watermark(self, i: int, hold: Hold) -> None:
        if len(hold.data) > self.filters[i].body_limit and not hold.reading_stopped:
            hold.reading_stopped = True
            self.emit(self.reading_command(stop=True))

    def overflows_before(self, filter_: StreamFilter, hold: Hold, data: bytes) -> bool:
        """Does `data` not fit, before the filter has seen it? True: the stream is over."""
        raise NotImplementedError

    def overflow(self, filter_: StreamFilter) -> None:
        """A filter asked for all of a body that is larger than it may hold."""
        raise NotImplementedError

    def defer(self, filter_: StreamFilter, result: int) -> bool:
        """What a callback asked of the chain. True: this walk is over."""
        return self.chain.attend(self, filter_, result)


class RequestPath(Path):
    """From the client to the upstream: the config's order."""

    __slots__ = ()
    direction = REQUEST
    continued = CONTINUE_REQUEST

    def call_headers(self, filter_: StreamFilter, end: bool) -> int:
        return filter_.request_headers(end)

    def call_body(self, filter_: StreamFilter, data: bytes, end: bool) -> int:
        return filter_.request_body(data, end)

    def headers_command(self, end: bool) -> Command:
        return SendRequestHeaders(end)

    def data_command(self, data: bytes, end: bool) -> Command:
        return SendRequestData(data, end)

    def reading_command(self, stop: bool) -> Command:
        return PauseRequest() if stop else ResumeRequest()

    def overflows_before(self, filter_: StreamFilter, hold: Hold, data: bytes) -> bool:
        return False

    def overflow(self, filter_: StreamFilter) -> None:
        self.chain.local_reply(413, b"Payload Too Large", "request_payload_too_large")


class ResponsePath(Path):
    """From the upstream to the client: the config's order reversed."""

    __slots__ = ()
    direction = RESPONSE
    continued = CONTINUE_RESPONSE

    def call_headers(self, filter_: StreamFilter, end: bool) -> int:
        return filter_.response_headers(end)

    def call_body(self, filter_: StreamFilter, data: bytes, end: bool) -> int:
        return filter_.response_body(data, end)

    def headers_command(self, end: bool) -> Command:
        return SendResponseHeaders(end)

    def data_command(self, data: bytes, end: bool) -> Command:
        return SendResponseData(data, end)

    def reading_command(self, stop: bool) -> Command:
        return PauseResponse() if stop else ResumeResponse()

    def overflows_before(self, filter_: StreamFilter, hold: Hold, data: bytes) -> bool:
        if len(hold.data) + len(data) <= filter_.body_limit:
            return False
        self.overflow(filter_)
        return True

    def overflow(self, filter_: StreamFilter) -> None:
        self.chain.local_reply(500, b"Internal Server Error", "response_payload_too_large")
