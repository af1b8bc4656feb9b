"""Follows the messages of one connection beside the parser, and finds the trailers that it drops.

The parser's verdicts are given: which messages there are, what their bodies are, when they end. What has to be found is where
in the bytes a chunked body begins. A head ends at the first empty line behind its first byte, and a body that is not chunked
has as many bytes as the parser has handed out of it; so the place can be counted. From there on a ChunkTracker runs, and must
come to its end in the very read in which the parser does, after as many bytes of body. If not, somebody reads these bytes
otherwise than somebody else, and the connection is not worth keeping.
"""

import re
from collections.abc import Sequence
from typing import Any, Protocol

from proxy.http1.chunks import ChunkTracker, Fields, FramingError
from proxy.http1.trailers import admitted

EMPTY_LINE = re.compile(rb"\n\r?\n")
LINE_ENDS = b"\r\n"


class Payload(Protocol):
    """A body as the parser hands it out (aiohttp's StreamReader)."""

    total_bytes: int
    """So far, read or not."""

    def is_eof(self) -> bool:
        """The parser has seen its end."""
        ...


class HeadFinder:
    """Where heads end, however they are cut."""

    __slots__ = ("tail",)

    def __init__(self) -> None:
        self.tail = b""
        """The last bytes of a head that has begun; none between two messages."""

    def find(self, data: bytes, at: int) -> int:
        """The index behind the head that goes on, or begins, at `at`; -1 if it does not end here."""
        tail = self.tail
        if not tail:
            # A parser passes over line ends in front of a message (RFC 9112 2.2).
            while at < len(data) and data[at] in LINE_ENDS:
                at += 1
            if at == len(data):
                return -1
        seam = EMPTY_LINE.search(tail + data[at : at + 2]) if tail else None
        end = at + seam.end() - len(tail) if seam is not None else 0
        if seam is None:
            match = EMPTY_LINE.search(data, at)
            if match is None:
                self.tail = (tail + data[at:])[-2:]
                return -1
            end = match.end()
        self.tail = b""
        return end


class Follower:
    """One connection's messages, in the parser's order. `empty`: the parser's payload of a message without a body."""

    __slots__ = ("bodies", "counted", "empty", "finder", "lost", "max_bytes", "max_fields", "open", "tracker")

    def __init__(self, max_fields: int, max_bytes: int, empty: Any) -> None:
        self.max_fields = max_fields
        self.max_bytes = max_bytes
        self.empty = empty
        self.finder = HeadFinder()
        self.open: Any = None
        """The body whose end has not come."""
        self.counted = 0
        """Bytes of it so far, unless it is chunked."""
        self.tracker: ChunkTracker | None = None
        """Runs while `open` is chunked."""
        self.bodies: dict[Any, Fields] = {}
        """Trailers of complete bodies, until somebody takes them."""
        self.lost = False
        """The parser keeps bytes back: places cannot be counted any more, and trailers are dropped."""

    def follow(self, data: bytes, messages: Sequence[tuple[Any, Any]]) -> None:
        """The parser has been given `data`, and has found `messages`: pairs of head and payload. Raises FramingError."""
        if self.lost:
            return
        at = 0
        body = self.open
        if self.tracker is not None:
            self.track(self.tracker, data, 0)
            # What follows a chunked message in the same read is not served.
            return
        if body is not None:
            at = body.total_bytes - self.counted
            self.counted = body.total_bytes
            if not body.is_eof():
                return
            self.open = None
        for message, payload in messages:
            at = self.finder.find(data, at)
            if at < 0:
                raise FramingError("a head does not end where the parser says")
            if payload is self.empty:
                continue
            if message.chunked:
                self.open = payload
                self.tracker = ChunkTracker(self.max_fields, self.max_bytes)
                self.track(self.tracker, data, at)
                return
            at += payload.total_bytes
            if not payload.is_eof():
                self.open, self.counted = payload, payload.total_bytes
                return
        self.lost = self.finder.find(data, at) >= 0

    def track(self, tracker: ChunkTracker, data: bytes, at: int) -> None:
        body = self.open
        tracker.feed(data, at)
        if tracker.done is not body.is_eof() or (tracker.done and tracker.body != body.total_bytes):
            raise FramingError("a chunked body does not end where the parser says")
        if tracker.done:
            self.open = self.tracker = None
            kept = admitted(tracker.trailers)
            if kept:
                self.bodies[body] = kept

    def has(self, body: Any) -> bool:
        """Are there trailers behind this body?"""
        return body in self.bodies

    def take(self, body: Any) -> Fields:
        """The trailers behind a body that is complete; names in lower case."""
        return self.bodies.pop(body, [])
