"""The head of a request that a filter makes: what proxy_http_call was given, checked and written as HTTP/1.1.

As Envoy 1.40 writes it (found by running it), less what a filter must not decide: framing, hop-by-hop headers, and anything
that a server could read in another way than it was meant.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

Pairs = Sequence[tuple[bytes, bytes]]

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 section 5.5
PATH = re.compile(rb"/[!-\"$-~\x80-\xff]*")  # origin-form; a server would cut off a fragment
# RFC 3986 section 3.2, without userinfo, and without the comma that a second host comes with
AUTHORITY = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[!$&'()*+;=%A-Za-z0-9._~-]+)(?::[0-9]{0,5})?")

DROPPED: Final = frozenset({
    b"connection", b"expect", b"http2-settings", b"keep-alive", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Between two hops (RFC 9110 section 7.6.1), or asking for something that a callout cannot do."""

JOINED: Final = frozenset({
    b"accept", b"accept-encoding", b"access-control-request-headers", b"access-control-request-method",
    b"access-control-request-private-network", b"authentication", b"authorization", b"cache-control", b"content-encoding",
    b"content-type", b"grpc-accept-encoding", b"grpc-timeout", b"if-match", b"if-modified-since", b"if-none-match",
    b"if-range", b"if-unmodified-since", b"origin", b"pragma", b"proxy-status", b"referer", b"user-agent", b"via",
    b"x-client-trace-id", b"x-envoy-original-path", b"x-forwarded-client-cert", b"x-forwarded-for", b"x-forwarded-host",
    b"x-forwarded-port", b"x-forwarded-proto", b"x-request-id",
})  # fmt: skip
"""Envoy's inline headers: a second one is joined to the first with a comma, without a space."""

BODILESS: Final = frozenset({b"GET", b"HEAD", b"DELETE", b"TRACE"})
"""No `content-length: 0` where they have no body (Envoy's HTTP/1 codec)."""
REQUIRED: Final = (b":path", b":method", b":authority")


class MissingError(Exception):
    """A pseudo-header is missing: Envoy's BadArgument."""


class InvalidHeadError(Exception):
    """The head cannot be written. `body` is what Envoy answers in the place of the upstream, with status 503."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.body = body


class RequestHead:
    """What a filter gave, in order; names in lower case, `host` as `:authority`."""

    __slots__ = ("authority", "fields", "method", "path", "scheme")

    def __init__(self, headers: Pairs) -> None:
        """Raises MissingError. What is wrong with the values is found by `write`: Envoy looks there as late as that."""
        pseudo: dict[bytes, bytes] = {}
        fields: list[tuple[bytes, bytes]] = []
        places: dict[bytes, int] = {}
        for given, value in headers:
            name = given.lower()
            if name[:1] == b":" or name == b"host":
                if name == b"host":
                    name = b":authority"
                pseudo[name] = pseudo[name] + b"," + value if name in pseudo else value
            elif name in JOINED and name in places:
                place = places[name]
                fields[place] = (name, fields[place][1] + b"," + value)
            elif name:
                places[name] = len(fields)
                fields.append((name, value))
        for name in REQUIRED:
            if name not in pseudo:
                raise MissingError(f"the header {name.decode()} is missing")
        self.method = pseudo[b":method"]
        self.path = pseudo[b":path"]
        self.authority = pseudo[b":authority"]
        self.scheme = pseudo.get(b":scheme", b"")
        self.fields = fields

    def write(self, host: bytes, length: int) -> bytes:
        """The head, with `host` in its Host header and the framing of a body of `length` bytes. Raises InvalidHeadError."""
        if not TOKEN.fullmatch(self.method):
            raise invalid_value(b":method")
        if self.method == b"CONNECT":
            raise InvalidHeadError(b"missing required header: :protocol")
        if not PATH.fullmatch(self.path) and not (self.path == b"*" and self.method == b"OPTIONS"):
            raise invalid_value(b":path")
        if not AUTHORITY.fullmatch(host):
            raise invalid_value(b":authority")
        named = self.named_by_connection()
        lines = [b"%s %s HTTP/1.1\r\nhost: %s\r\n" % (self.method, self.path, host)]
        framed = False
        for name, value in self.fields:
            if not TOKEN.fullmatch(name):
                raise InvalidHeadError(b"invalid header name: " + escaped(name))
            if not VALUE.fullmatch(value):
                raise invalid_value(name)
            if name == b"content-length":
                # The first one's place is where Envoy writes the length of the body.
                if length and not framed:
                    lines.append(b"content-length: %d\r\n" % length)
                    framed = True
            elif name not in DROPPED and name not in named:
                lines.append(b"%s: %s\r\n" % (name, value))
        if not framed and (length or self.method not in BODILESS):
            lines.append(b"content-length: %d\r\n" % length)
        lines.append(b"\r\n")
        return b"".join(lines)

    def named_by_connection(self) -> Iterable[bytes]:
        """What the `connection` headers name goes no further than the next hop either."""
        return {
            option.strip(b" \t").lower() for name, value in self.fields if name == b"connection" for option in value.split(b",")
        }


def invalid_value(name: bytes) -> InvalidHeadError:
    return InvalidHeadError(b"invalid header value for: " + name)


def escaped(name: bytes) -> bytes:
    """As in a JSON string: how Envoy shows a bad name."""
    return json.dumps(name.decode("latin-1"), ensure_ascii=False)[1:-1].encode("latin-1")
