"""The client's side as the exchange sees it: interfaces only, no sockets. `listener.py` implements them on aiohttp."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from proxy.config.listener import Listener as ListenerConfig
    from proxy.server.deadlines import DeadlineQueue

RawHeaders = tuple[tuple[bytes, bytes], ...]


class RequestHead(Protocol):
    """A parsed request head (aiohttp's RawRequestMessage). Strings hold other bytes than UTF-8 as surrogates."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str:
        """The request target as received, whichever form it has."""
        ...

    @property
    def version(self) -> tuple[int, int]: ...
    @property
    def raw_headers(self) -> RawHeaders: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """Looked up in any case; the first of several."""
        ...

    @property
    def should_close(self) -> bool: ...
    @property
    def chunked(self) -> bool: ...
    @property
    def upgrade(self) -> bool:
        """Connection names Upgrade, and there is one."""
        ...


class DownstreamSink(Protocol):
    """Who gets a tunnelled client's bytes."""

    def on_downstream_bytes(self, data: bytes) -> None: ...

    def on_downstream_eof(self) -> bool:
        """True keeps the sending side open."""
        ...

    def on_downstream_gone(self) -> None: ...

    def on_downstream_full(self) -> None: ...

    def on_downstream_drained(self) -> None: ...


class ListenerSide(Protocol):
    """What all connections of one listener share."""

    @property
    def config(self) -> "ListenerConfig": ...
    @property
    def scheme(self) -> str: ...
    @property
    def head_options(self) -> int:
        """The handle of StreamMemory.options."""
        ...

    @property
    def body_limit(self) -> int | None:
        """Bytes of a request body."""
        ...

    @property
    def keeps_request_ids(self) -> bool:
        """A client's own x-request-id is used if it is sound."""
        ...

    @property
    def trailers(self) -> bool:
        """Clients get trailers, and theirs are taken."""
        ...

    @property
    def body_pace(self) -> int:
        """Bytes of a body that must come before its deadline."""
        ...

    @property
    def body_deadlines(self) -> "DeadlineQueue[Any]":
        """Slowness inside a request body; items have `on_body_timeout()`."""
        ...

    @property
    def draining(self) -> bool: ...


class Downstream(Protocol):
    """One client connection. Writes are dropped once the client has gone (the exchange hears of that)."""

    @property
    def listener(self) -> ListenerSide: ...
    @property
    def connection_id(self) -> int:
        """Unique in the worker."""
        ...

    @property
    def peer_ip(self) -> bytes: ...
    @property
    def source(self) -> str: ...
    @property
    def destination(self) -> str: ...

    def write(self, data: bytes) -> None: ...

    def write_eof(self) -> None: ...

    def close(self) -> None:
        """Send what is buffered, then close."""
        ...

    def abort(self) -> None:
        """Reset, so that nobody takes what was sent for the whole."""
        ...

    def stop_reading(self) -> None: ...

    def read_on(self) -> None: ...

    def tunnel(self, sink: DownstreamSink) -> bytes:
        """From now on bytes pass as they are; answers with those that came early."""
        ...

    def exchange_over(self, keep_alive: bool) -> None:
        """The exchange is done with the connection, and the response is written."""
        ...
