"""What the chain knows of a filter, whatever its ABI."""

from typing import Final, NamedTuple, Protocol

from proxy.abi.memory import Region
from proxy.telemetry.stream import StreamInfo

FAIL_STREAM: Final = "wasm_fail_stream"
"""Response code details of an answer for a filter that is down, Envoy's."""

CONTINUE: Final = 0
PAUSE: Final = 1

ACTION: Final = 0xFF
"""The low byte of a callback's result is its action; above it stand what the filter asked for meanwhile."""
LOGS: Final = 1 << 8
LOCAL_REPLY: Final = 1 << 9
CONTINUE_REQUEST: Final = 1 << 10
CONTINUE_RESPONSE: Final = 1 << 11
CLOSE_REQUEST: Final = 1 << 12
CLOSE_RESPONSE: Final = 1 << 13
BODY: Final = 1 << 14
TRAILERS: Final = 1 << 16
"""The last callback of a body has begun trailers: there are some now, perhaps empty."""
SWITCHED: Final = 1 << 18
"""The callback set an effective context: what it asked for may concern other streams."""
FAILED: Final = 1 << 17
"""The filter is gone and its policy is fail closed."""

GRPC_OF_HTTP: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""The gRPC status of a response that has none, by its HTTP status (grpc/doc/http-grpc-status-mapping.md)."""
GRPC_UNKNOWN: Final = 2
"""That of all others."""


class LocalReply(NamedTuple):
    """A response made here instead of upstream (proxy_send_local_response)."""

    status: int
    details: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    grpc_status: int | None


class StreamHost(Protocol):
    """A stream as its filters see it."""

    region: Region
    info: StreamInfo
    properties: dict[bytes, bytes]

    # From outside of the stream's own callbacks: a tick, the answer to a call, another stream's callback.

    def holds(self, filter_: "StreamFilter") -> bool:
        """Does `filter_` hold anything of the stream?"""

    def held(self, filter_: "StreamFilter", direction: int) -> bytes | None:
        """What `filter_` holds of a body and has seen; None if it holds none. 0 the request, 1 the response."""

    def replace_held(self, filter_: "StreamFilter", direction: int, data: bytes) -> None: ...

    def resume(self, filter_: "StreamFilter", direction: int) -> None:
        """Continue what the filter holds."""

    def reply(self, filter_: "StreamFilter", reply: "LocalReply") -> None: ...

    def close(self) -> None: ...


class StreamFilter(Protocol):
    """One filter's part in one stream. Callbacks return an action and flags; they never raise."""

    body: bytes
    """What a body or trailers callback left; valid when its result has BODY."""
    local_reply: LocalReply | None
    """Valid when a result has LOCAL_REPLY."""

    @property
    def name(self) -> str: ...

    @property
    def stops_iteration_on_headers(self) -> bool:
        """Pausing on headers holds the headers alone (allow_on_headers_stop_iteration)."""

    @property
    def body_limit(self) -> int:
        """Most bytes held while this filter pauses on a body."""

    @property
    def pause_seconds(self) -> float:
        """Longest time for which it may pause."""

    @property
    def down(self) -> bool:
        """Its VM is gone: no callback of it will run any more."""

    def request_headers(self, end_stream: bool) -> int: ...
    def request_body(self, data: bytes, end_stream: bool) -> int: ...
    def response_headers(self, end_stream: bool) -> int: ...
    def response_body(self, data: bytes, end_stream: bool) -> int: ...

    def request_trailers(self, held: bytes | None) -> int:
        """The trailers are loaded. `held`: what it buffers of the body, to read and to edit; None: nothing."""
        ...

    def response_trailers(self, held: bytes | None) -> int: ...

    @property
    def fails_open(self) -> bool:
        """Its on_failure: go on without it."""

    def overflowed(self, direction: int) -> None:
        """It asked for all of a body that is larger than it may hold: to be logged and counted."""

    def overdue(self) -> None:
        """It has held the stream longer than it may: to be logged and counted."""

    def continued(self) -> None:
        """This filter continues a direction: the request's maps close to it, whichever it was (Envoy: continueStream)."""

    def finish(self) -> None:
        """The stream is over: log, done, delete."""


class Callbacks(NamedTuple):
    """Which callbacks a filter has: the chain calls no others."""

    request_headers: bool
    request_body: bool
    response_headers: bool
    response_body: bool
    finish: bool
    ends: bool
    """Its part in a stream has something to do when the stream is over, a callback or not."""


class FilterFactory(Protocol):
    """One configured filter in one worker."""

    name: str
    callbacks: Callbacks

    def open(self, stream: StreamHost) -> StreamFilter | None:
        """A filter for a new stream; None: this filter takes no part (it is down, and fails open)."""
