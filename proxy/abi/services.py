"""What a worker offers its filters beyond their streams. The server fills it in; a check runs filters without it."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from proxy.sharing.space import Space

Pairs = Sequence[tuple[bytes, bytes]]


class CallRefusedError(Exception):
    """A call that is not made: `status` is what the host function returns, `reason` is for the filter's author.

    `closed`, of gRPC calls: the status and message that proxy_on_grpc_close brings nevertheless, as in Envoy.
    """

    def __init__(self, status: int, reason: str, closed: tuple[int, bytes] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.closed = closed


class Answer(Protocol):
    """What a call gave. Without headers: a reset."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def trailers(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def head(self) -> bytes:
        """Empty, or the head of a plain answer, which StreamMemory.load_plain_answer has loaded as so many `fields`."""
        ...

    @property
    def fields(self) -> int: ...
    @property
    def failure(self) -> str:
        """Why it is not the upstream's; "" if it is."""
        ...


class Call(Protocol):
    """A call under way."""

    def cancel(self) -> None:
        """End it; its answer will not come."""


Http = Callable[[str, Pairs, bytes, Pairs, float, Callable[[Answer], None]], Call]
"""(upstream, headers, body, trailers, timeout in seconds, done) -> the call. Raises CallRefusedError."""


class GrpcEvents(Protocol):
    """Whom a gRPC call tells: a unary call `message` or `closed`, a stream all of them, in this order."""

    def initial_metadata(self, pairs: Pairs) -> None: ...
    def message(self, data: bytes) -> None: ...
    def trailing_metadata(self, pairs: Pairs) -> None: ...
    def closed(self, status: int, message: bytes) -> None: ...


class GrpcCall(Call, Protocol):
    """A gRPC call or stream under way."""

    def send(self, message: bytes, end: bool) -> None:
        """Send a message, the last one at the `end`. Raises CallRefusedError."""

    def half_close(self) -> None:
        """No more messages will be sent."""


class Grpc(Protocol):
    """gRPC calls; `upstream` is a cluster's name, a serialised GrpcService, or a host. Events come later, never from inside."""

    def call(
        self,
        upstream: bytes,
        service: bytes,
        method: bytes,
        metadata: Pairs,
        message: bytes,
        seconds: float,
        events: GrpcEvents,
    ) -> GrpcCall:
        """A unary call. Raises CallRefusedError."""

    def stream(self, upstream: bytes, service: bytes, method: bytes, metadata: Pairs, events: GrpcEvents) -> GrpcCall:
        """A stream. Raises CallRefusedError."""


class Services(NamedTuple):
    """For the filters of one worker."""

    later: Callable[..., Any] | None = None
    """`later(seconds, function, *arguments)` -> a handle with `cancel()`; None: nothing runs later (a check)."""
    space: Callable[[bytes], Space] | None = None
    """Shared data and queues by the name of their space; None: no filter here shares anything."""
    host: Callable[[Any], Callable[[int], int]] | None = None
    """`host(slot)` answers the core's calls to Python for a new VM of `slot`, in Host's place: the kit's has its own clock."""
    component_host: Callable[[Any], Any] | None = None
    """`component_host(world)` answers what a component of that world imports, in the place of component/host.py's Host."""


ALONE: Final = Services()
