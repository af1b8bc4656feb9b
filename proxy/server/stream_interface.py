"""The chain as the server uses it; `proxy.chain` implements it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from proxy.abi.memory import HeadOptions, Region, StreamMemory
from proxy.config.model import Config
from proxy.config.route import Route
from proxy.sharing.limits import Limits
from proxy.telemetry.stream import StreamInfo
from proxy.upstream.callout import Callouts
from proxy.upstream.grpc_callout import GrpcCallouts


class Chain(Protocol):
    """The filters of one stream: events in, commands (proxy/chain/commands.py) in `outbox`."""

    outbox: list[Any]

    def names(self) -> list[str]:
        """The stream's filters, in the config's order."""
        ...

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


class Joint(Protocol):
    """What the filters of all of a worker's generations have in common."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None: ...

    def extend(self, spaces: Mapping[bytes, Limits]) -> None:
        """The next generation's filters share in these."""
        ...

    def chains(self, config: Config, prepared: Any, strict: bool = False) -> "Chains":
        """The next generation's filters. `strict`: one that does not start is an error."""
        ...

    def close(self) -> None: ...


class Chains(Protocol):
    """The filters of one generation: loaded once, opened per stream."""

    @property
    def memory(self) -> StreamMemory:
        """There after `start`."""
        ...

    async def start(
        self, callouts: Callouts | None = None, grpc: GrpcCallouts | None = None, heads: Sequence[HeadOptions] = ()
    ) -> list[int]:
        """Load the filters; the handles of the listeners' `heads`. Raises if one cannot serve."""
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

    def bury(self) -> None:
        """Close the VMs, although streams are not over."""
        ...

    def close(self) -> None: ...
