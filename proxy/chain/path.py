"""One direction of a stream: the walk of headers and data past the filters, and what filters hold back.

Theory of operation. Frames (headers, data, end of stream) walk the filters in order. A filter lets a frame go on or stops it;
what is stopped waits in that filter's `Hold`, with every later frame, until the filter continues: by the answer of a later
callback, or from outside (`resume`). Filters nearer the frame's origin go on seeing frames. A filter stops in one of these ways
(Envoy's FilterHeadersStatus and FilterDataStatus, as its Wasm filter uses them):

    ALL       on headers: later frames wait unseen; continued, the filter sees the data that waited, in one piece
    HEADERS   on headers, with allow_on_headers_stop_iteration: data callbacks go on, the first that continues lets go
    BUFFER    on data, action 1: each later callback sees everything that was held so far
    WATERMARK on data, action 2: data is held, but each callback sees only what is new
    DROP      on data, action 3 and above: what is new is thrown away; what was held before stays held
    TRAILERS  on trailers, action 1 and above, where nothing was held

Trailers come behind all data, in the place of its end. A filter that answers their callback with Continue lets go of all that
it holds; without that callback it does so too. Trailers that a filter begins in the last callback of a body are for the
filters behind it: to them the body does not end with its data.

ALL and WATERMARK stop the reading of that side when more than the filter's limit waits; BUFFER over the limit ends the
stream (413, 500), since the filter asked for all of it.

Where Envoy differs: a filter that continues in the very callback that pauses goes on here; there the stream hangs, or waits
for the next callback. Continuing what is not paused does nothing here; there it can crash. A filter that, continued, pauses
on more data than its limit gets the 413 or 500 here; there reading never starts again. Trailers that a filter begins as it
pauses wait with what it holds here; there they overtake it.
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
    TRAILERS,
    LocalReply,
    StreamFilter,
)
from proxy.abi.memory import REQUEST_TRAILERS, RESPONSE_TRAILERS
from proxy.chain.commands import (
    REQUEST,
    RESPONSE,
    SEND_REQUEST_END,
    SEND_REQUEST_HEADERS,
    SEND_RESPONSE_END,
    SEND_RESPONSE_HEADERS,
    Command,
    Pairs,
    PauseRequest,
    PauseResponse,
    ResumeRequest,
    ResumeResponse,
    SendRequestData,
    SendRequestHeaders,
    SendRequestTrailers,
    SendResponseData,
    SendResponseHeaders,
    SendResponseTrailers,
)

if TYPE_CHECKING:
    from proxy.chain.chain import Chain

WATERMARK_ACTION: Final = 2
ENDS: Final = FAILED | LOCAL_REPLY | CLOSE_REQUEST | CLOSE_RESPONSE
"""After a result with one of these nothing walks on."""
NEEDS_CHAIN: Final = ENDS | CONTINUE_REQUEST | CONTINUE_RESPONSE


SHORT: Final = 4096
"""Bytes up to which the last piece of what is held is made longer."""


class Stop(Enum):
    """Why a filter holds frames."""

    ALL = 1
    HEADERS = 2
    BUFFER = 3
    WATERMARK = 4
    DROP = 5
    TRAILERS = 6


class Hold:
    """What waits at one filter."""

    __slots__ = ("end", "filter", "headers", "headers_end", "over", "pieces", "size", "stop", "timed", "trailers")

    def __init__(self, filter_: StreamFilter, stop: Stop, headers: bool, headers_end: bool) -> None:
        self.filter = filter_
        self.stop = stop
        self.headers = headers
        """The headers have not gone on."""
        self.headers_end = headers_end
        """They end the stream."""
        self.pieces: list[bytes] = []
        """The data. Only the last may be short: what came byte by byte takes no more memory than in one piece."""
        self.size = 0
        """Bytes of it."""
        self.end = False
        """The end of the stream waits behind the data."""
        self.trailers = False
        """Trailers wait behind the data, and end the stream."""
        self.over = False
        """The data is more than the filter may hold: this side is not read."""
        self.timed = False
        """The filter's pause deadline runs: it waits for nothing that the peer has still to send."""

    def add(self, data: bytes) -> None:
        pieces = self.pieces
        self.size += len(data)
        if pieces and len(pieces[-1]) < SHORT:
            pieces[-1] += data
        elif data:
            pieces.append(data)

    def replace(self, data: bytes) -> None:
        self.pieces = [data] if data else []
        self.size = len(data)

    @property
    def data(self) -> bytes:
        """All of it."""
        if len(self.pieces) != 1:
            self.pieces = [b"".join(self.pieces)]
        return self.pieces[0]


class Path:
    """Walks one direction. `filters` in the order of the walk; `bodies`: which of them have the data callback."""

    __slots__ = ("bodies", "busy", "chain", "closed", "filters", "holds", "inspected", "over", "reached", "sent")

    direction: int
    continued: int
    headers_commands: tuple[Command, Command]
    """The one that does not end the stream, and the one that does."""
    data_command: type[SendRequestData] | type[SendResponseData]
    end_command: Command
    """Nothing but the end."""
    overflows_unseen: bool
    """Data over the limit of a buffering filter ends the stream before, not after the filter has seen it."""
    begun_wait: bool
    """Trailers that a filter begins wait at the next filter that holds data, and pass it by when it lets go; else that filter
    has its callback at once."""

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
        self.over = 0
        """How many holds are over their limit."""
        self.busy = False
        """A walk waits in the middle, while what its filter let go of in the other direction walks there."""

    def sent_straight(self, over: bool) -> None:
        """The headers have passed all filters before this path was made; `over`: and the end."""
        self.reached = len(self.filters)
        self.sent = True
        self.closed = over

    # ---- What differs by direction ----

    def emit(self, command: Command) -> None:
        self.chain.outbox.append(command)

    def call_trailers(self, filter_: StreamFilter, held: bytes | None) -> int:
        raise NotImplementedError

    def trailers_command(self) -> Command:
        raise NotImplementedError

    def reading_command(self, stop: bool) -> Command:
        raise NotImplementedError

    # ---- The walk ----

    def headers(self, end: bool, start: int = 0, result: int = 0) -> None:
        """Headers arrive at filter `start`; with a `result`, which that filter has answered."""
        filters, request = self.filters, self.direction == REQUEST
        for i in range(start, len(filters)):
            filter_ = filters[i]
            if not result:
                result = filter_.request_headers(end) if request else filter_.response_headers(end)
                if not result:
                    continue
            answer, result = result, 0
            self.reached = i + 1
            if answer & NEEDS_CHAIN and self.chain.attend(self, filter_, answer):
                return
            action = answer & ACTION
            # 2 is Envoy's ContinueAndEndStream, which its Wasm filter treats as Continue.
            if action in (0, 2) or answer & self.continued:
                continue
            only_headers = action == PAUSE and filter_.stops_iteration_on_headers
            self.holds[i] = hold = Hold(filter_, Stop.HEADERS if only_headers else Stop.ALL, True, end)
            self.check_pause(hold)
            return
        self.reached = len(filters)
        self.sent = True
        if self.direction == RESPONSE:
            self.chain.info.entered_status = 0
        if start and not end:
            # Of what was held more follows before the head is emitted; what filters edit then is not to be seen in it.
            pairs = self.chain.head(self.direction)
            if self.direction == REQUEST:
                self.emit(SendRequestHeaders(end, pairs))
            else:
                self.chain.info.entered_status = status_of(pairs)
                self.emit(SendResponseHeaders(end, pairs))
        else:
            self.chain.outbox.append(self.headers_commands[end])
        if end:
            self.ended()

    def data(self, data: bytes, end: bool) -> None:
        """Data from outside. Like Envoy's HTTP/1 codec, the end comes as an empty piece of its own."""
        if self.closed:
            return
        if not self.inspected and not self.holds:
            self.send(data, end)
            return
        if data:
            self.feed(0, data, False)
        if end and not self.closed:
            self.finish_data(self.feed(0, b"", True))

    def finish_data(self, begun: int) -> None:
        """After `feed` with the end: trailers that a filter has begun follow, from the filter `begun` on; 0: none."""
        if begun and not self.closed:
            self.trailers(begun)

    def feed(self, start: int, data: bytes, end: bool) -> int:
        """Data arrives at filter `start`. Emptied by a filter, it still goes to the others. What it returns is for
        `finish_data`; without `end` it is 0."""
        begun = 0
        filters, bodies, holds, request = self.filters, self.bodies, self.holds, self.direction == REQUEST
        for i in range(start, len(filters)):
            hold = holds.get(i) if holds else None
            if hold is not None and hold.stop is Stop.ALL:
                hold.add(data)
                hold.end = end
                self.check_watermark(hold)
                if begun and self.begun_wait:
                    self.wait_with_trailers(hold)
                    return 0
                return begun
            filter_ = filters[i]
            buffered = too_large = False
            if bodies[i]:
                if hold is not None and hold.stop is Stop.BUFFER:
                    buffered = True
                    too_large = hold.size + len(data) > filter_.body_limit
                    if too_large and self.overflows_unseen:
                        self.overflow(filter_)
                        return begun
                    hold.add(data)
                    data = hold.data
                result = filter_.request_body(data, end) if request else filter_.response_body(data, end)
                if not result and hold is None:
                    continue
                if result & BODY:
                    data = filter_.body
                if end and result & TRAILERS:
                    begun, end = i + 1, False
                if result & NEEDS_CHAIN and self.chain.attend(self, filter_, result):
                    return begun
                if too_large:
                    self.overflow(filter_)
                    return begun
                action = 0 if result & self.continued else result & ACTION
                if action:
                    self.stop_data(i, action, data, end)
                    if begun > i or (begun and self.begun_wait):
                        self.wait_with_trailers(self.holds.get(i))
                        return 0
                    return begun
            if hold is not None:
                if hold.size and not buffered:
                    data = hold.data + data
                self.let_go(i, hold)
                if hold.headers:
                    self.headers(False, i + 1)
                    if self.closed:
                        return begun
                if begun and self.begun_wait:
                    begun = i + 1
        self.send(data, end)
        return begun

    def trailers(self, start: int = 0) -> None:
        """Trailers arrive at filter `start`, loaded in their map; all data has come before."""
        filters, holds = self.filters, self.holds
        for i in range(start, len(filters)):
            if self.closed:
                return
            hold = holds.get(i) if holds else None
            if hold is not None and hold.stop is Stop.ALL:
                self.wait_with_trailers(hold)
                return
            filter_ = filters[i]
            buffers = hold is not None and hold.stop is Stop.BUFFER
            result = self.call_trailers(filter_, hold.data if hold is not None and buffers else None)
            if hold is not None and buffers and result & BODY:
                hold.replace(filter_.body)
            if result & NEEDS_CHAIN and self.chain.attend(self, filter_, result):
                return
            if hold is not None and buffers and hold.size > filter_.body_limit:
                self.overflow(filter_)
                return
            if result & ACTION and not result & self.continued:
                if hold is None:
                    hold = holds[i] = Hold(filter_, Stop.TRAILERS, False, False)
                self.wait_with_trailers(hold)
                return
            if hold is not None:
                self.let_go(i, hold)
                if hold.headers:
                    self.headers(False, i + 1)
                if hold.size and not self.closed:
                    self.feed(i + 1, hold.data, False)
        if not self.closed:
            self.emit(self.trailers_command())
            self.ended()

    def wait_with_trailers(self, hold: Hold | None) -> None:
        """Trailers end what waits there. Without a hold the stream has been ended by what went wrong."""
        if hold is not None:
            hold.trailers = hold.end = True
            self.check_pause(hold)

    def stop_data(self, i: int, action: int, data: bytes, end: bool) -> None:
        """Filter `i` answered a data callback with `action`. `data`: what it was shown, as it left it."""
        filter_ = self.filters[i]
        hold = self.holds.get(i)
        if hold is None:
            hold = self.holds[i] = Hold(filter_, Stop.DROP, False, False)
        hold.end = end
        if hold.stop is Stop.BUFFER:
            hold.replace(data)
        elif action in (PAUSE, WATERMARK_ACTION):
            hold.add(data)
        if action == PAUSE:
            hold.stop = Stop.BUFFER
            if hold.size > filter_.body_limit:
                self.overflow(filter_)
                return
        else:
            hold.stop = Stop.WATERMARK if action == WATERMARK_ACTION else Stop.DROP
            self.check_watermark(hold)
        self.check_pause(hold)

    def send(self, data: bytes, end: bool) -> None:
        if data:
            self.chain.outbox.append(self.data_command(data, end))
        elif end:
            self.chain.outbox.append(self.end_command)
        if end:
            self.ended()

    def ended(self) -> None:
        """The end of this direction has left the chain."""
        self.closed = True

    # ---- Letting go ----

    def resume(self, filter_: StreamFilter) -> None:
        """A filter continues what it held, from outside of this direction's callbacks. Without a hold nothing happens."""
        # Only this closes the request's maps: a body callback that lets the headers go leaves them open (Envoy).
        filter_.continued()
        i = next((i for i, hold in self.holds.items() if hold.filter is filter_), None)
        if i is None:
            return
        hold = self.holds[i]
        self.let_go(i, hold)
        if hold.headers:
            self.headers(hold.headers_end, i + 1)
        if not (hold.size or hold.end) or self.closed:
            return
        next_ = i if hold.stop is Stop.ALL else i + 1
        if not hold.trailers:
            begun = self.feed(next_, hold.data, hold.end)
            if begun == i + 1 and hold.stop is Stop.ALL and not self.closed:
                # Envoy: who held everything, and begins them in what is let go of, has their callback too.
                self.trailers(i)
            else:
                self.finish_data(begun)
            return
        if hold.size:
            self.feed(next_, hold.data, False)
        if not self.closed:
            self.trailers(next_)

    def let_go(self, i: int, hold: Hold) -> None:
        del self.holds[i]
        self.chain.pause_ended(hold)
        self.mark_over(hold, False)

    def close(self) -> None:
        """Nothing walks on. What is held is dropped."""
        self.closed = True
        if self.holds:
            dropped = list(self.holds.values())
            self.holds.clear()
            for hold in dropped:
                self.chain.pause_ended(hold)
            if self.over:
                self.over = 0
                self.emit(self.reading_command(stop=False))

    def hold_of(self, filter_: StreamFilter) -> Hold | None:
        return next((hold for hold in self.holds.values() if hold.filter is filter_), None)

    def held(self, filter_: StreamFilter) -> bytes | None:
        """The data that a filter holds and has seen; None if it holds none."""
        hold = self.hold_of(filter_)
        return None if hold is None or hold.stop is Stop.ALL else hold.data

    def replace_held(self, filter_: StreamFilter, data: bytes) -> None:
        """The filter has edited what it holds."""
        hold = self.hold_of(filter_)
        if hold is None or hold.stop is Stop.ALL:
            return
        hold.replace(data)
        if hold.stop is Stop.BUFFER and len(data) > filter_.body_limit:
            self.overflow(filter_)
        else:
            self.check_watermark(hold)

    # ---- Limits ----

    def check_pause(self, hold: Hold) -> None:
        """A filter that holds a body may wait for the rest of it; when there is no rest to come, and for headers at once,
        time runs."""
        if not hold.timed and (hold.end or hold.headers_end or hold.over or hold.stop is Stop.ALL):
            hold.timed = True
            self.chain.pause_began(hold)

    def check_watermark(self, hold: Hold) -> None:
        self.mark_over(hold, hold.size > hold.filter.body_limit)

    def mark_over(self, hold: Hold, over: bool) -> None:
        """This side is read while no hold is over its limit."""
        if over == hold.over:
            return
        hold.over = over
        self.over += 1 if over else -1
        if self.over == int(over):
            self.emit(self.reading_command(stop=over))

    def overflow(self, filter_: StreamFilter) -> None:
        """A filter asked for all of a body that is larger than it may hold."""
        raise NotImplementedError


class RequestPath(Path):
    """From the client to the upstream: the config's order."""

    __slots__ = ()
    direction = REQUEST
    continued = CONTINUE_REQUEST
    headers_commands = SEND_REQUEST_HEADERS
    data_command = SendRequestData
    end_command = SEND_REQUEST_END
    overflows_unseen = False
    begun_wait = False

    def call_trailers(self, filter_: StreamFilter, held: bytes | None) -> int:
        return filter_.request_trailers(held)

    def trailers_command(self) -> Command:
        return SendRequestTrailers(self.chain.memory.pairs(REQUEST_TRAILERS))

    def reading_command(self, stop: bool) -> Command:
        return PauseRequest() if stop else ResumeRequest()

    def overflow(self, filter_: StreamFilter) -> None:
        filter_.overflowed(self.direction)
        self.chain.info.answered_by = filter_.name
        self.chain.answer(LocalReply(413, "request_payload_too_large", b"Payload Too Large", (), None), None)


class ResponsePath(Path):
    """From the upstream to the client: the config's order reversed."""

    __slots__ = ()
    direction = RESPONSE
    continued = CONTINUE_RESPONSE
    headers_commands = SEND_RESPONSE_HEADERS
    data_command = SendResponseData
    end_command = SEND_RESPONSE_END
    overflows_unseen = True
    begun_wait = True

    def call_trailers(self, filter_: StreamFilter, held: bytes | None) -> int:
        return filter_.response_trailers(held)

    def trailers_command(self) -> Command:
        return SendResponseTrailers(self.chain.memory.pairs(RESPONSE_TRAILERS))

    def reading_command(self, stop: bool) -> Command:
        return PauseResponse() if stop else ResumeResponse()

    def ended(self) -> None:
        """With its response a stream is over: what is left of the request has no reader."""
        self.closed = True
        self.chain.response_ended()

    def overflow(self, filter_: StreamFilter) -> None:
        filter_.overflowed(self.direction)
        self.chain.info.answered_by = filter_.name
        self.chain.answer(LocalReply(500, "response_payload_too_large", b"Internal Server Error", (), None), None)


def status_of(pairs: Pairs) -> int:
    """0 if there is none, or it is no number."""
    value = dict(pairs).get(b":status", b"")
    return int(value) if value.isdigit() else 0
