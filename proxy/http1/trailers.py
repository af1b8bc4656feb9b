"""Trailer fields: which of them may pass, and how they are written.

RFC 9110 6.5.1: no field may be sent as a trailer that frames, routes, modifies or authenticates the request, controls caches,
or says what the content is. A recipient that merges trailers into its headers would act on such a field after everybody on
the way, filters first of all, has decided without it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from proxy.http1.chunks import Fields

FORBIDDEN: Final = frozenset(
    b"""
    connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings
    host forwarded via x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-real-ip x-request-id max-forwards
    expect range if-match if-none-match if-modified-since if-unmodified-since if-range
    authorization proxy-authorization www-authenticate proxy-authenticate cookie set-cookie origin referer
    age cache-control pragma expires date location retry-after vary warning clear-site-data strict-transport-security
    """.split()
)
"""Beside these, every content-* but content-digest (RFC 9530 2 has it in trailers)."""

NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def is_forbidden(name: bytes) -> bool:
    """`name` in lower case."""
    return name in FORBIDDEN or (name.startswith((b"content-", b"access-control-")) and name != b"content-digest")


def admitted(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Those that may pass."""
    return [(name, value) for name, value in fields if not is_forbidden(name)]


def section(fields: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """What ends a chunked body: the last chunk and the trailer section (RFC 9112 7.1.2), less what may not pass. None: a name
    or value that cannot be sent is among them (a filter may write anything)."""
    if not fields:
        return b"0\r\n\r\n"
    lines = [b"0\r\n"]
    for name, value in fields:
        if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
            return None
        if not is_forbidden(name):
            lines.append(b"%s: %s\r\n" % (name, value))
    lines.append(b"\r\n")
    return b"".join(lines)
