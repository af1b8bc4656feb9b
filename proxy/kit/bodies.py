"""What filters do to bodies, piece by piece, for `penstock explain`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from proxy.abi.filter import LocalReply
from proxy.chain.chain import Chain
from proxy.chain.watched import Call

MOST_SHOWN: Final = 120
"""Bytes of a piece."""
BEFORE: Final = 20
"""Bytes that are shown in front of the first difference in a longer one."""


class Bodies:
    """A witness of a chain (chain/watched.py): tells which pieces a callback has changed, - and + lines."""

    def __init__(self, tell: Callable[[list[str]], None]) -> None:
        self.tell = tell

    def called(self, call: Call) -> None:
        if call.body_before is not None and call.body_after is not None and call.body_before != call.body_after:
            title = "request" if "request" in call.callback else "response"
            self.tell([f"{title} body {line}" for line in body_changes(call.body_before, call.body_after)])

    # The rest is told by others.

    def opened(self, chain: Chain, filters: Sequence[str]) -> None: ...
    def head(self, direction: int) -> None: ...
    def left(self, direction: int) -> None: ...
    def continued(self, name: str, direction: int) -> None: ...
    def overdue(self, name: str) -> None: ...
    def answered(self, reply: LocalReply) -> None: ...
    def finished(self) -> None: ...


def body_changes(before: bytes, after: bytes) -> Iterator[str]:
    """A piece as it was and as it is; long ones from shortly in front of where they part."""
    at = next((i for i, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    start = 0
    if max(len(before), len(after)) > MOST_SHOWN:
        start = max((min(len(before), len(after)) if at is None else at) - BEFORE, 0)
    for sign, piece in (("-", before), ("+", after)):
        shown = piece[start : start + MOST_SHOWN].decode("utf-8", "backslashreplace")
        front, behind = "..." if start else "", "..." if start + MOST_SHOWN < len(piece) else ""
        yield f"{sign} {front}{shown!r}{behind} ({len(piece)} bytes)"
