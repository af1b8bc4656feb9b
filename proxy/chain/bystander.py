"""A part in a stream that no filter takes: it looks on and lets everything pass."""

from proxy.abi.filter import LocalReply


class Bystander:
    """A StreamFilter that does nothing; its kinds look at what comes by."""

    __slots__ = ()

    name: str
    body: bytes = b""
    local_reply: LocalReply | None = None
    stops_iteration_on_headers = False
    body_limit = 1 << 62
    pause_seconds = 0.0
    down = False
    fails_open = True

    def request_headers(self, end_stream: bool) -> int:
        return 0

    def request_body(self, data: bytes, end_stream: bool) -> int:
        return 0

    def request_trailers(self, held: bytes | None) -> int:
        return 0

    def response_headers(self, end_stream: bool) -> int:
        return 0

    def response_body(self, data: bytes, end_stream: bool) -> int:
        return 0

    def response_trailers(self, held: bytes | None) -> int:
        return 0

    def overflowed(self, direction: int) -> None:
        """It holds nothing."""

    def overdue(self) -> None:
        """It holds nothing."""

    def continued(self) -> None:
        """It holds nothing."""

    def finish(self) -> None:
        """Nothing is to be ended."""
