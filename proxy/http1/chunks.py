"""The chunked transfer coding (RFC 9112 7.1), followed for the sake of its trailer section.

The parser decides where a message ends and what its body is; it tells nobody of trailers. This follows the same bytes beside
it. It is stricter than any parser: CRLF only, no obs-fold, no space around a name. What it does not understand it refuses,
and follow.py refuses what the two do not agree on, so nothing is ever framed by this alone.
"""

import re
from typing import Final

Fields = list[tuple[bytes, bytes]]

LONGEST_SIZE_LINE: Final = 4096
"""Bytes of a chunk's size and extensions."""
LONGEST_TRAILER_LINE: Final = 64 << 10
"""Bytes of one trailer field, whatever the limits say."""

SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
"""RFC 9110 5.1, 5.5: what the ABI core takes for a header as well."""


class FramingError(Exception):
    """The bytes are not what they should be, or too many. `reason` has none of them in it."""

    def __init__(self, reason: str, too_large: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.too_large = too_large
        """It is over a limit, and might else be well-formed."""


class ChunkTracker:
    """One chunked body: `feed` it until `done`. Work is linear in chunks and trailer bytes, not in the body's bytes."""

    __slots__ = ("body", "done", "in_trailers", "left", "line", "max_bytes", "max_fields", "size", "trailers")

    def __init__(self, max_fields: int, max_bytes: int) -> None:
        """`max_fields`, `max_bytes`: of the trailer section, line ends included."""
        self.max_fields = max_fields
        self.max_bytes = max_bytes
        self.line = b""
        """What has come of a line."""
        self.left = 0
        """Bytes of the chunk that have not come, with the CRLF behind it."""
        self.in_trailers = False
        self.size = 0
        """Bytes of the trailer section so far."""
        self.body = 0
        """Bytes of the body so far, once their chunk is announced: sure when `done`."""
        self.done = False
        self.trailers: Fields = []

    def feed(self, data: bytes, at: int = 0) -> int:
        """Follow `data` from `at`; the index behind the last byte of the message, or `len(data)`. Raises FramingError."""
        size = len(data)
        while at < size and not self.done:
            left = self.left
            if left > 2:
                step = min(left - 2, size - at)
                self.left = left - step
                at += step
            elif left:
                if data[at] != (13 if left == 2 else 10):
                    raise FramingError("a chunk does not end where its size says")
                self.left = left - 1
                at += 1
            else:
                at = self.take_line(data, at)
        return at

    def take_line(self, data: bytes, at: int) -> int:
        """One line, or what there is of it; the index behind it."""
        end = data.find(b"\n", at) + 1
        line = self.line + data[at : end or len(data)]
        if self.in_trailers:
            if self.size + len(line) > self.max_bytes or len(line) > LONGEST_TRAILER_LINE:
                raise FramingError("the trailer section is too large", too_large=True)
        elif len(line) > LONGEST_SIZE_LINE:
            raise FramingError("a chunk's size line is too long")
        if not end:
            self.line = line
            return len(data)
        self.line = b""
        if line[-2:] != b"\r\n":
            raise FramingError("a line of the chunked coding does not end in CRLF")
        if self.in_trailers:
            self.take_trailer(line)
        else:
            self.take_size(line)
        return end

    def take_size(self, line: bytes) -> None:
        match = SIZE.fullmatch(line, 0, len(line) - 2)
        if match is None:
            raise FramingError("a chunk's size line is not well-formed")
        size = int(match[1], 16)
        self.body += size
        if size:
            self.left = size + 2
        else:
            self.in_trailers = True

    def take_trailer(self, line: bytes) -> None:
        self.size += len(line)
        if len(line) == 2:
            self.done = True
            return
        match = FIELD.fullmatch(line, 0, len(line) - 2)
        if match is None:
            raise FramingError("a trailer field is not well-formed")
        if len(self.trailers) == self.max_fields:
            raise FramingError("there are too many trailer fields", too_large=True)
        self.trailers.append((match[1].lower(), match[2].rstrip(b" \t")))
