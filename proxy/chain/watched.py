"""A chain that tells a witness what each filter does: for the admin's tap and for traces, never for other streams.

Each filter is wrapped, so that neither the chain nor the ABIs know of it: what a call cost is read from the counters that the
filter keeps anyway. A stream that is not watched has none of this (watching.py chooses when it is opened).
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from proxy.abi.filter import BODY, LOCAL_REPLY, LocalReply, StreamFilter
from proxy.abi.memory import Region, StreamMemory
from proxy.chain.bystander import Bystander
from proxy.chain.chain import REQUEST_SENT, RESPONSE_SENT, Chain, Parts
from proxy.chain.commands import Pairs
from proxy.telemetry.stream import StreamInfo

REQUEST, RESPONSE = 0, 1


class Call(NamedTuple):
    """One call into a filter. `result`: its action and flags (abi/filter.py); sizes are None where there was no body."""

    filter: str
    callback: str
    began: float
    """perf_counter() seconds."""
    seconds: float
    fuel: int
    result: int
    end_stream: bool
    body_before: bytes | None
    body_after: bytes | None
    reply: LocalReply | None
    failed: int
    """Faults that it had in the call."""


class Witness(Protocol):
    """Whom a watched chain tells. The heads are in the memory's live region meanwhile."""

    def opened(self, chain: Chain, filters: Sequence[str]) -> None: ...

    def head(self, direction: int) -> None:
        """A head enters the chain."""

    def left(self, direction: int) -> None:
        """A head has left the chain."""

    def called(self, call: Call) -> None: ...

    def continued(self, name: str, direction: int) -> None:
        """A filter lets go of what it held, outside of the stream's own events."""

    def overdue(self, name: str) -> None:
        """A filter has held the stream for longer than it may."""

    def answered(self, reply: LocalReply) -> None:
        """The answer comes from here: a filter's, or the gateway's own."""

    def finished(self) -> None: ...


class WatchedFilter:
    """A filter's part in a stream, and the witness of it."""

    __slots__ = ("inner", "plugin", "witness")

    def __init__(self, inner: Any, witness: Witness) -> None:
        self.inner = inner
        self.plugin = inner.plugin
        self.witness = witness

    @property
    def name(self) -> str:
        name: str = self.inner.name
        return name

    @property
    def body(self) -> bytes:
        body: bytes = self.inner.body
        return body

    @body.setter
    def body(self, body: bytes) -> None:
        self.inner.body = body

    @property
    def local_reply(self) -> LocalReply | None:
        reply: LocalReply | None = self.inner.local_reply
        return reply

    @local_reply.setter
    def local_reply(self, reply: LocalReply | None) -> None:
        self.inner.local_reply = reply

    @property
    def stops_iteration_on_headers(self) -> bool:
        return bool(self.inner.stops_iteration_on_headers)

    @property
    def body_limit(self) -> int:
        return int(self.inner.body_limit)

    @property
    def pause_seconds(self) -> float:
        return float(self.inner.pause_seconds)

    @property
    def down(self) -> bool:
        return bool(self.inner.down)

    @property
    def fails_open(self) -> bool:
        return bool(self.inner.fails_open)

    def overflowed(self, direction: int) -> None:
        self.inner.overflowed(direction)

    def overdue(self) -> None:
        self.inner.overdue()
        self.witness.overdue(self.name)

    def continued(self) -> None:
        self.inner.continued()

    def request_headers(self, end_stream: bool) -> int:
        return self.call("on_request_headers", self.inner.request_headers, (end_stream,), end_stream, None)

    def response_headers(self, end_stream: bool) -> int:
        return self.call("on_response_headers", self.inner.response_headers, (end_stream,), end_stream, None)

    def request_body(self, data: bytes, end_stream: bool) -> int:
        return self.call("on_request_body", self.inner.request_body, (data, end_stream), end_stream, data)

    def response_body(self, data: bytes, end_stream: bool) -> int:
        return self.call("on_response_body", self.inner.response_body, (data, end_stream), end_stream, data)

    def request_trailers(self, held: bytes | None) -> int:
        return self.call("on_request_trailers", self.inner.request_trailers, (held,), True, held)

    def response_trailers(self, held: bytes | None) -> int:
        return self.call("on_response_trailers", self.inner.response_trailers, (held,), True, held)

    def finish(self) -> None:
        def finish() -> int:
            self.inner.finish()
            return 0

        self.call("on_log, on_done, on_delete", finish, (), True, None)

    def call(
        self, callback: str, function: Callable[..., int], arguments: tuple[Any, ...], end_stream: bool, body: bytes | None
    ) -> int:
        plugin = self.plugin
        fuel, seconds, faults, began = plugin.fuel_used.value, plugin.seconds.value, plugin.faults, perf_counter()
        result = function(*arguments)
        fuel = int(plugin.fuel_used.value - fuel)
        seconds = plugin.seconds.value - seconds
        if seconds or result:  # else it has no such callback
            after = self.inner.body if result & BODY else body
            reply = self.inner.local_reply if result & LOCAL_REPLY else None
            faults = plugin.faults - faults
            self.witness.called(Call(self.name, callback, began, seconds, fuel, result, end_stream, body, after, reply, faults))
        return result


class WatchedChain(Chain):
    """Chain, its filters wrapped. Filters name themselves by what is inside of the wrapping."""

    __slots__ = ("has_left", "witness")

    def __init__(
        self, memory: StreamMemory, region: Region, info: StreamInfo, wake: Callable[[], None], witness: Witness
    ) -> None:
        super().__init__(memory, region, info, wake)
        self.witness = witness
        self.has_left = [False, False]

    def take_part(self, filters: list[StreamFilter], parts: Parts) -> None:
        wrapped: list[StreamFilter] = [
            filter_ if isinstance(filter_, Bystander) else WatchedFilter(filter_, self.witness) for filter_ in filters
        ]
        super().take_part(wrapped, parts)
        self.witness.opened(self, [filter_.name for filter_ in filters if not isinstance(filter_, Bystander)])

    def wrapped(self, filter_: StreamFilter) -> StreamFilter:
        for one in self.filters:
            if isinstance(one, WatchedFilter) and one.inner is filter_:
                return one
        return filter_

    # ---- Events ----

    def look(self) -> None:
        """After an event: has a head left the chain?"""
        if self.finished:
            return
        for direction, path, straight in (
            (REQUEST, self.request_path, REQUEST_SENT),
            (RESPONSE, self.response_path, RESPONSE_SENT),
        ):
            sent = self.walked & straight if path is None else path.sent
            if sent and not self.has_left[direction]:
                self.has_left[direction] = True
                self.memory.attach(self.region)
                self.witness.left(direction)

    def request_headers(self, end_stream: bool) -> None:
        self.memory.attach(self.region)
        self.witness.head(REQUEST)
        super().request_headers(end_stream)
        self.look()

    def request_data(self, data: bytes, end_stream: bool) -> None:
        self.memory.attach(self.region)
        super().request_data(data, end_stream)
        self.look()

    def request_trailers(self, pairs: Pairs) -> None:
        super().request_trailers(pairs)
        self.look()

    def response_headers(self, end_stream: bool) -> None:
        self.memory.attach(self.region)
        self.witness.head(RESPONSE)
        super().response_headers(end_stream)
        self.look()

    def response_data(self, data: bytes, end_stream: bool) -> None:
        self.memory.attach(self.region)
        super().response_data(data, end_stream)
        self.look()

    def response_trailers(self, pairs: Pairs) -> None:
        super().response_trailers(pairs)
        self.look()

    def compose(self, reply: LocalReply) -> tuple[bool, bytes]:
        composed = super().compose(reply)
        self.witness.answered(reply)
        self.witness.head(RESPONSE)
        return composed

    def pause_expired(self) -> None:
        super().pause_expired()
        self.look()

    def local_reply(self, status: int, body: bytes, details: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().local_reply(status, body, details, headers)
        self.look()

    def finish(self) -> None:
        if not self.finished:
            self.look()
            super().finish()
            self.witness.finished()

    # ---- What filters ask for outside of the stream's events ----

    def resume(self, filter_: StreamFilter, direction: int) -> None:
        if not self.finished:
            self.witness.continued(filter_.name, direction)
            super().resume(self.wrapped(filter_), direction)
            self.look()

    def reply(self, filter_: StreamFilter, reply: LocalReply) -> None:
        if not self.finished:
            super().reply(self.wrapped(filter_), reply)
            self.look()

    def holds(self, filter_: StreamFilter) -> bool:
        return super().holds(self.wrapped(filter_))

    def held(self, filter_: StreamFilter, direction: int) -> bytes | None:
        return super().held(self.wrapped(filter_), direction)

    def replace_held(self, filter_: StreamFilter, direction: int, data: bytes) -> None:
        super().replace_held(self.wrapped(filter_), direction, data)
