"""The chain of a stream without filters: what comes in goes out. Nothing is walked, held or called, nothing is made for it."""

from collections.abc import Callable, Sequence

from proxy.abi.memory import Region, StreamMemory
from proxy.chain.chain import NO_PARTS, Chain
from proxy.chain.commands import (
    SEND_REQUEST_HEADERS,
    SEND_RESPONSE_HEADERS,
    Pairs,
    SendRequestData,
    SendRequestTrailers,
    SendResponseData,
    SendResponseTrailers,
)
from proxy.telemetry.stream import StreamInfo


class EmptyChain(Chain):
    """A Chain for its users. The gateway's own answers are composed by the Chain that it becomes then."""

    __slots__ = ()

    def __init__(self, memory: StreamMemory, region: Region, info: StreamInfo, wake: Callable[[], None]) -> None:
        self.memory = memory
        self.region = region
        self.info = info
        self.wake = wake
        self.outbox = []
        self.response_begun = False

    def names(self) -> list[str]:
        return []

    def request_headers(self, end_stream: bool) -> None:
        self.outbox.append(SEND_REQUEST_HEADERS[end_stream])

    def request_data(self, data: bytes, end_stream: bool) -> None:
        if data or end_stream:
            self.outbox.append(SendRequestData(data, end_stream))

    def request_trailers(self, pairs: Pairs) -> None:
        self.outbox.append(SendRequestTrailers(pairs))

    def response_headers(self, end_stream: bool) -> None:
        self.response_begun = True
        self.outbox.append(SEND_RESPONSE_HEADERS[end_stream])

    def response_data(self, data: bytes, end_stream: bool) -> None:
        if data or end_stream:
            self.outbox.append(SendResponseData(data, end_stream))

    def response_trailers(self, pairs: Pairs) -> None:
        self.outbox.append(SendResponseTrailers(pairs))

    def local_reply(self, status: int, body: bytes, details: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        begun, outbox = self.response_begun, self.outbox
        super().__init__(self.memory, self.region, self.info, self.wake)
        # Whoever called may be in the middle of it.
        self.outbox = outbox
        self.take_part([], NO_PARTS)
        self.response_begun = self.response.sent = begun
        super().local_reply(status, body, details, headers)

    def pause_expired(self) -> None:
        """Nobody pauses."""

    def finish(self) -> None:
        """Nobody waits for the end."""
