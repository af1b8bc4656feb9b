"""Interim responses (1xx, RFC 9110 15.2) on their way down. Filters do not see them, so the core does not hold them."""

import re
from http import HTTPStatus

RawHeaders = tuple[tuple[bytes, bytes], ...]

# RFC 9110 7.6.1 and what frames a message; an interim response has no body.
NOT_FORWARDED = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
MAX_BYTES = 16 * 1024
"""Of one interim head."""


def interim_head(status: int, headers: RawHeaders) -> bytes | None:
    """The bytes for an HTTP/1.1 client; None if this one is not to be forwarded (100, which we answer ourselves, 101, or
    one that is malformed or oversized: an interim response may be left out, RFC 9110 15.2)."""
    if status <= 101:
        return None
    nominated = {
        token.strip().lower() for name, value in headers if name.lower() == b"connection" for token in value.split(b",")
    }
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    parts = [b"HTTP/1.1 %d %b\r\n" % (status, phrase)]
    for name, value in headers:
        lowered = name.lower()
        if lowered in NOT_FORWARDED or lowered in nominated:
            continue
        if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
            return None
        parts.append(b"%b: %b\r\n" % (lowered, value))
    parts.append(b"\r\n")
    head = b"".join(parts)
    return head if len(head) <= MAX_BYTES else None
