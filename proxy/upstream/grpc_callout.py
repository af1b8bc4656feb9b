"""gRPC calls that filters make (proxy_grpc_call, proxy_grpc_stream), by grpcio: an extra, `pip install penstock[grpc]`.

Where they may go is a callout's question, with a callout's answer (callout.py, allowed_hosts). What filters see of a call is
what Envoy 1.40 shows them, found by running it (grpc_head.py). Messages are bytes: nothing here knows protobuf but for the
two fields of Envoy's own GrpcService.

grpcio's asyncio API, because its completions arrive in the event loop, by a socket that the loop watches (asyncio's and
uvloop's alike); its synchronous API takes a thread for each stream. Its other threads hold no lock of ours. Both kinds of
call are bidirectional streams here, as they are in Envoy: a unary call sends one message, and its last message counts.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from proxy.capabilities.allowed_hosts import DeniedError
from proxy.telemetry.logging import get_logger
from proxy.upstream.callout import INTERNAL_FAILURE, CalloutError, CalloutPolicy, Callouts
from proxy.upstream.cluster import Cluster
from proxy.upstream.grpc_channels import GrpcChannels, Kept, TlsUnavailableError
from proxy.upstream.grpc_head import (
    BEGUN,
    Ending,
    GrpcService,
    InvalidHeadError,
    Pairs,
    ending,
    incoming,
    method_path,
    never_begun,
    outgoing,
    parse_service,
    status_fields,
    timed_out,
)

if TYPE_CHECKING:
    import grpc.aio

log = get_logger("callout")

PARSE_FAILURE: Final = 4
BAD_ARGUMENT: Final = 2

MAX_STREAM_SECONDS = 3600.0
"""Longest life of a stream; Envoy has no limit."""
MAX_QUEUED = 4 << 20
"""Bytes of messages that a stream's filter may be ahead of its service."""

HEAD_ALONE_SECONDS = 0.02
"""A response's head that says nothing is told this late, if nothing else comes of it."""

OK: Final = 0
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
INTERNAL: Final = 13
UNAVAILABLE: Final = 14


class GrpcRefusedError(CalloutError):
    """A call that is not made. Where Envoy finds out only after it has given the call a token, `ending` is what the filter
    is told of that token in a moment, although it never learnt it."""

    def __init__(self, status: int, reason: str, ending: Ending | None = None) -> None:
        super().__init__(status, reason)
        self.ending = ending


class Events(Protocol):
    """Who made a call. Never called from inside `call`, `stream`, `send`, `half_close` or `cancel`.

    A unary call ends with one `message` or one `closed`. A stream has `initial_metadata`, any number of `message`s,
    `trailing_metadata`, `closed`; each but `message` exactly once, in this order.
    """

    def initial_metadata(self, pairs: Pairs) -> None: ...

    def message(self, data: bytes) -> None: ...

    def trailing_metadata(self, pairs: Pairs) -> None: ...

    def closed(self, status: int, message: bytes) -> None: ...


class Way(NamedTuple):
    """Where a call goes."""

    cluster: Cluster
    authority: str
    metadata: Sequence[tuple[bytes, bytes]]


class GrpcCallouts:
    """One per worker, beside its Callouts. Use from the event loop's thread only."""

    def __init__(self, callouts: Callouts) -> None:
        self.callouts = callouts
        self.loop = callouts.loop
        self.channels: dict[CalloutPolicy, GrpcChannels] = {}

    def load(self) -> None:
        """Import grpcio now (0.1 s), and not when the first call is made. Raises ImportError."""
        import grpc.aio  # noqa: F401

    def call(
        self,
        caller: CalloutPolicy,
        upstream: bytes,
        service: bytes,
        method: bytes,
        metadata: Pairs,
        message: bytes,
        timeout: float,
        events: Events,
    ) -> "GrpcCall":
        """A unary call; `timeout` in seconds, 0 is over at once. `upstream`: a cluster's name, a serialised GrpcService, or
        `[scheme://]host[:port]`. Raises GrpcRefusedError."""
        call = self.make(caller, upstream, service, method, metadata, message, events, True)
        call.start(min(timeout, caller.max_seconds))
        call.send(message, True)
        return call

    def stream(
        self, caller: CalloutPolicy, upstream: bytes, service: bytes, method: bytes, metadata: Pairs, events: Events
    ) -> "GrpcCall":
        """A bidirectional stream. Raises GrpcRefusedError."""
        call = self.make(caller, upstream, service, method, metadata, b"", events, False)
        call.start(MAX_STREAM_SECONDS)
        return call

    def make(
        self,
        caller: CalloutPolicy,
        upstream: bytes,
        service: bytes,
        method: bytes,
        metadata: Pairs,
        message: bytes,
        events: Events,
        unary: bool,
    ) -> "GrpcCall":
        way = self.way(caller, upstream)
        if len(caller.running) >= caller.max_calls:
            raise GrpcRefusedError(INTERNAL_FAILURE, f"{caller.max_calls} calls are in flight (limits.calls)")
        if len(message) > caller.max_request_bytes:
            raise GrpcRefusedError(
                INTERNAL_FAILURE, f"the message has {len(message)} bytes, more than {caller.max_request_bytes}"
            )
        pairs = [*metadata, *way.metadata]
        if sum(len(name) + len(value) + 4 for name, value in pairs) > caller.max_head_bytes:
            raise GrpcRefusedError(INTERNAL_FAILURE, f"the metadata has more than {caller.max_head_bytes} bytes")
        try:
            path, fields = method_path(service, method), outgoing(pairs)
        except InvalidHeadError as error:
            said = str(error)
            raise GrpcRefusedError(INTERNAL_FAILURE, said.partition("{")[0], Ending(UNAVAILABLE, said.encode())) from None
        channels = self.channels.get(caller)
        if channels is None:
            channels = self.channels[caller] = GrpcChannels(self.loop)
            self.callouts.callers.add(caller)
        return GrpcCall(caller, channels, way, path, fields, events, unary)

    def way(self, caller: CalloutPolicy, upstream: bytes) -> Way:
        """Where the call goes. Raises GrpcRefusedError.

        Envoy reads the argument as a GrpcService first, and aborts when a name such as `hi` happens to be one without a
        target; here a cluster's name is its name.
        """
        name = upstream.decode("utf-8", "surrogateescape")
        described = None if name in self.callouts.clusters else parse_service(upstream)
        try:
            if described is None or described.target:
                return self.to(caller, described, name)
            cluster = self.callouts.clusters.get(described.cluster)
            if cluster is None:
                raise DeniedError(f"there is no cluster {described.cluster[:80]!a}")
            caller.allowed.check_cluster(described.cluster)
            return Way(cluster, described.cluster, described.metadata)
        except DeniedError as error:
            caller.on_denied(error)
            if described is None or described.target:
                raise GrpcRefusedError(PARSE_FAILURE, str(error)) from None
            raise GrpcRefusedError(INTERNAL_FAILURE, str(error), Ending(UNAVAILABLE, b"Cluster not available")) from None

    def to(self, caller: CalloutPolicy, described: GrpcService | None, name: str) -> Way:
        """To a cluster by its name, or to a host. Raises DeniedError."""
        callouts = self.callouts
        if described is None and name in callouts.clusters:
            caller.allowed.check_cluster(name)
            return Way(callouts.clusters[name], name, ())
        if described is None:
            target = caller.allowed.target(name)
        else:
            text = described.target.removeprefix("dns:///")
            target = caller.allowed.target(text, "https" if described.tls else "http")
        cluster = callouts.hosts_of(caller).cluster(target, caller.on_denied)
        return Way(cluster, target.authority, described.metadata if described is not None else ())

    async def close(self) -> None:
        """End everything."""
        for caller, channels in list(self.channels.items()):
            caller.cancel_all()
            await channels.close()
        self.channels.clear()


class GrpcCall:
    """One call or stream under way."""

    def __init__(
        self,
        caller: CalloutPolicy,
        channels: GrpcChannels,
        way: Way,
        path: str,
        metadata: Sequence[tuple[str, str | bytes]],
        events: Events,
        unary: bool,
    ) -> None:
        self.caller = caller
        self.channels = channels
        self.way = way
        self.path = path
        self.metadata = metadata
        self.events = events
        self.unary = unary
        self.loop = channels.loop
        self.timer: asyncio.Handle | None = None
        self.task: asyncio.Task[None] | None = None
        self.writer: asyncio.Task[None] | None = None
        self.call: grpc.aio.StreamStreamCall[bytes, bytes] | None = None
        self.kept: Kept | None = None
        self.queue: deque[bytes] = deque()
        self.queued = 0
        self.half_closed = False
        self.announced = False
        """initial_metadata has been told."""
        self.begun = False
        """The response has begun."""
        self.last: bytes | None = None
        """A unary call's message."""
        self.over = False
        caller.running.add(self)

    # ---- The filter's side ----

    def send(self, message: bytes, end: bool) -> None:
        """Queue a message, and the end of all. After the end, nothing happens (as in Envoy). Raises GrpcRefusedError."""
        if self.over or self.half_closed:
            return
        if len(message) > self.caller.max_request_bytes:
            raise GrpcRefusedError(
                BAD_ARGUMENT, f"the message has {len(message)} bytes, more than {self.caller.max_request_bytes}"
            )
        if self.queued + len(message) > MAX_QUEUED:
            self.half_closed = True
            self.loop.call_soon(self.finish, Ending(RESOURCE_EXHAUSTED, b"too many messages wait to be sent", reset=True))
            return
        self.queue.append(message)
        self.queued += len(message)
        self.half_closed = end
        self.write_soon()

    def half_close(self) -> None:
        """Say that no more messages will come."""
        if not self.over and not self.half_closed:
            self.half_closed = True
            self.write_soon()

    def cancel(self) -> None:
        """End it without a word. Harmless when it is over."""
        if not self.over:
            self.end()

    # ---- Its course ----

    def start(self, seconds: float) -> None:
        self.timer = self.loop.call_later(seconds, self.on_timeout, seconds)
        self.task = self.loop.create_task(self.run(seconds))

    def on_timeout(self, seconds: float) -> None:
        self.way.cluster.instruments.failed("timeout")
        if not self.unary:
            self.finish(Ending(DEADLINE_EXCEEDED, b"the stream has lasted too long", reset=True))
        elif seconds:
            self.finish(timed_out(self.begun))
        else:  # Envoy sends `grpc-timeout: 0m`, and the service says so
            self.finish(Ending(DEADLINE_EXCEEDED, b"Deadline Exceeded{via_upstream}"))

    async def run(self, seconds: float) -> None:
        library = self.channels.grpc
        try:
            kept = self.kept = await self.channels.take(self.way.cluster, self.way.authority)
        except OSError as error:
            log.debug("callout failed", filter=self.caller.name, reason=str(error))
            self.finish(never_begun("remote connection failure"))
            return
        except TlsUnavailableError as error:
            log.warning("grpc callout impossible", filter=self.caller.name, cluster=self.way.cluster.name, reason=str(error))
            self.finish(Ending(UNAVAILABLE, b"TLS is not possible", b"TLS is not possible"))
            return
        open_stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = kept.channel.stream_stream(self.path)
        call = self.call = open_stream(timeout=seconds if self.unary else None, metadata=tuple(self.metadata))
        self.write_soon()
        try:
            initial = tuple(await call.initial_metadata())
            reading = self.loop.create_task(call.read())
            # The library tells nobody whether there was no response at all, or one whose head is its trailers as well: then
            # the end follows at once.
            ended = not initial and (await asyncio.wait({reading}, timeout=HEAD_ALONE_SECONDS))[0]
            if not ended or (not reading.exception() and isinstance(reading.result(), bytes)):
                self.begun = True
                self.announce([*BEGUN, *incoming(initial)])
            message = await reading
            while not self.over and isinstance(message, bytes):
                self.on_message(message)
                message = await call.read()
        except library.aio.AioRpcError:
            pass  # how it ended is asked below
        if not self.over:
            status, details = await call.code(), await call.details()
            trailing = tuple(await call.trailing_metadata())
            if not self.over:
                self.on_status(status.value[0], details or "", trailing)

    def write_soon(self) -> None:
        if self.call is not None and self.writer is None:
            self.writer = self.loop.create_task(self.write(self.call))

    async def write(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        """Send what is queued, one message after the other as the service takes them.

        Not by `call.write`: where a service ends a stream while a message is on its way, that notes INTERNAL as the stream's
        status, and the status that the service gave is lost (grpc/aio/_call.py, `_write`).
        """
        library = self.channels.grpc
        try:
            await call.wait_for_connection()
            while self.queue:
                message = self.queue.popleft()
                await call._cython_call.send_serialized_message(message)  # type: ignore[attr-defined]
                self.queued -= len(message)
            if self.half_closed:
                await call.done_writing()
        except (library.aio.AioRpcError, library.aio.InternalError, asyncio.InvalidStateError):
            return  # the call is over: the reading side knows how
        self.writer = None
        if self.queue:
            self.write_soon()

    # ---- What comes back ----

    def announce(self, pairs: Pairs) -> None:
        if not self.announced:
            self.announced = True
            if not self.unary:
                self.events.initial_metadata(pairs)

    def on_message(self, message: bytes) -> None:
        self.announce(BEGUN)
        self.begun = True
        if self.unary:
            self.last = message
        else:
            self.events.message(message)

    def on_status(self, status: int, details: str, trailing: Any) -> None:
        """The call has its status."""
        if status == DEADLINE_EXCEEDED and self.timer is not None and self.loop.time() >= self.deadline():
            self.finish(timed_out(self.begun))  # grpcio's clock was a moment ahead of ours
            return
        self.finish(ending(status, details, self.begun), incoming(trailing))

    def deadline(self) -> float:
        """When the timeout is, less what two clocks may differ by."""
        return self.timer.when() - 0.01 if isinstance(self.timer, asyncio.TimerHandle) else 0.0

    def finish(self, how: Ending, trailing: Pairs = ()) -> None:
        """Tell the filter, once."""
        if self.over:
            return
        begun = self.begun
        self.end()
        events = self.events
        if how.status:
            log.debug("grpc callout failed", filter=self.caller.name, status=how.status, reason=how.message.decode("latin-1"))
        if self.unary:
            if how.status == OK and self.last is not None:
                events.message(self.last)
            elif how.status == OK:
                events.closed(INTERNAL, b"")
            else:
                events.closed(how.status, how.message)
            return
        self.announce(())
        pairs: Pairs = () if how.reset else [*status_fields(how.status, how.shown), *trailing]
        events.trailing_metadata([*BEGUN, *pairs] if pairs and not begun else pairs)
        events.closed(how.status, how.message)

    def end(self) -> None:
        """Let go of everything."""
        self.over = True
        self.caller.running.discard(self)
        self.queue.clear()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        call, self.call = self.call, None
        if call is not None:
            call.cancel()
        for task in (self.task, self.writer):
            if task is not None and task is not asyncio.current_task(self.loop):
                task.cancel()
        self.task = self.writer = None
        kept, self.kept = self.kept, None
        if kept is not None:
            self.channels.give_back(kept)
