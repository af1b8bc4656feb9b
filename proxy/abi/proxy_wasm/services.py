"""What a worker offers its filters beyond their streams. The server fills it in; a check runs filters without it."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from proxy.sharing.space import Space

Pairs = Sequence[tuple[bytes, bytes]]


class CallRefusedError(Exception):
    """A call that is not made: `status` is what the host function returns, `reason` is for the filter's author."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Answer(Protocol):
    """What a call gave. Without headers: a reset."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def trailers(self) -> list[tuple[bytes, bytes]]: ...


class Call(Protocol):
    """A call under way."""

    def cancel(self) -> None:
        """End it; its answer will not come."""


Http = Callable[[str, Pairs, bytes, Pairs, float, Callable[[Answer], None]], Call]
"""(upstream, headers, body, trailers, timeout in seconds, done) -> the call. Raises CallRefusedError."""


class Services(NamedTuple):
    """For the filters of one worker."""

    later: Callable[..., Any] | None = None
    """`later(seconds, function, *arguments)` -> a handle with `cancel()`; None: nothing runs later (a check)."""
    space: Callable[[bytes], Space] | None = None
    """Shared data and queues by the name of their space; None: no filter here shares anything."""


ALONE: Final = Services()
