"""The chain as the server uses it; `proxy.chain` implements it."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from proxy.abi.memory import Region, StreamMemory
from proxy.config.model import Route
from proxy.telemetry.stream import StreamInfo
from proxy.upstream.callout import Callouts
from proxy.upstream.grpc_callout import GrpcCallouts


class Chain(Protocol):
    """The filters of one stream: events in, commands (proxy/chain/commands.py) in `outbox`."""

    outbox: list[Any]

    def request_headers(self, end_stream: bool) -> None: ...

    def request_data(self, data: bytes, end_stream: bool) -> None: ...

    def request_trailers(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """The request's end after its body; at least one, names in lower case."""
        ...

    def response_headers(self, end_stream: bool) -> None: ...

    def response_data(self, data: bytes, end_stream: bool) -> None: ...

    def response_trailers(self, pairs: list[tuple[bytes, bytes]]) -> None: ...

    def local_reply(self, status: int, body: bytes, details: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None: ...

    def pause_expired(self) -> None:
        """The time that PauseBegan gave is over."""
        ...

    def finish(self) -> None: ...


class Chains(Protocol):
    """A worker's filters: loaded once, opened per stream."""

    @property
    def memory(self) -> StreamMemory:
        """There after `start`."""
        ...

    async def start(self, callouts: Callouts | None = None, grpc: GrpcCallouts | None = None) -> None:
        """Load the filters. Raises if one cannot serve."""
        ...

    def open(self, route: Route | None, info: StreamInfo, region: Region, wake: Callable[[], None]) -> Chain:
        """The chain of a new stream, its request already loaded in the live `region`.

        `route` None: no route matched, and the filters' own configs hold. `wake` is called when commands appear outside an
        event.
        """
        ...

    def state(self) -> dict[str, Any]:
        """For /ready: filter name -> `{"state": ...}`."""
        ...

    async def finish(self, grace: float) -> None:
        """Every stream is over: let the filters end their own work, within `grace` seconds."""
        ...

    def close(self) -> None: ...
