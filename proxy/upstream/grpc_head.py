"""What a gRPC call of a filter carries beside its messages: where it goes, its metadata, its status, as filters see them.

Filters see HTTP/2 header fields (Envoy shows them as they came); the gRPC library keeps the fields that are its own to itself.
What it hides is put back in its place here, so that a filter written for Envoy finds it: `:status`, `content-type`,
`grpc-status`, `grpc-message`, and binary values as base64.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

Pairs = Sequence[tuple[bytes, bytes]]
Metadata = Sequence[tuple[str, str | bytes]]
"""As grpcio takes and gives it: text, and bytes where the key ends in `-bin`."""

OWN_FIELDS = frozenset({
    "host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "content-type",
    "content-length", "user-agent",
})  # fmt: skip
"""Dropped from what a filter sends, like every pseudo header and `grpc-*`: they are the library's to write."""
KEY = re.compile(r"[0-9a-z_.-]+")
"""gRPC over HTTP/2, "Custom-Metadata"."""
VALUE = re.compile(r"[\x20-\x7e]*")
UNSAFE_IN_MESSAGE = re.compile(rb"[^\x20-\x24\x26-\x7e]")
LONGEST_PATH = 4096


class InvalidHeadError(Exception):
    """The call cannot be written as a request. `str()` is Envoy's text for it."""


@dataclass(slots=True)
class GrpcService:
    """The parts of an `envoy.config.core.v3.GrpcService` that say where to and with what."""

    cluster: str = ""
    """`envoy_grpc.cluster_name`."""
    target: str = ""
    """`google_grpc.target_uri`."""
    tls: bool = False
    """`google_grpc.channel_credentials` asks for TLS."""
    metadata: list[tuple[bytes, bytes]] = field(default_factory=list)
    """`initial_metadata`."""


def parse_service(data: bytes) -> GrpcService | None:
    """A serialised GrpcService (api/envoy/config/core/v3/grpc_service.proto); None if it is not one, or names no target."""
    service = GrpcService()
    try:
        for number, value in fields(data):
            if number == 1:
                service.cluster, service.target = dict(fields(value)).get(1, b"").decode(), ""
            elif number == 2:
                google = dict(fields(value))
                service.cluster, service.target = "", google.get(1, b"").decode()
                service.tls = any(kind in (1, 2) for kind, _ in fields(google.get(2, b"")))
            elif number == 5:
                header = dict(fields(value))
                service.metadata.append((header.get(1, b""), header.get(2) or header.get(3, b"")))
    except ValueError:  # UnicodeDecodeError is one
        return None
    return service if service.cluster or service.target else None


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The texts and submessages of a protobuf message (protobuf.dev, "Encoding"), by number. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError("field 0")
        if kind == 0:
            _, at = varint(data, at)
            continue
        if kind == 2:
            size, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("a group")
        if at + size > len(data):
            raise ValueError("cut short")
        if kind == 2:
            yield number, data[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without an end")


# ---- What goes out ----


def method_path(service: bytes, method: bytes) -> str:
    """`/service/method`. Raises InvalidHeadError."""
    path = f"/{service.decode('latin-1')}/{method.decode('latin-1')}"
    if not VALUE.fullmatch(path) or len(path) > LONGEST_PATH:
        raise InvalidHeadError(invalid_value(":path"))
    return path


def outgoing(pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str | bytes]]:
    """A filter's metadata for the library. Raises InvalidHeadError."""
    found: list[tuple[str, str | bytes]] = []
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in OWN_FIELDS or name.startswith((":", "grpc-")):
            continue
        if not KEY.fullmatch(name):
            raise InvalidHeadError(f"invalid header name: {name}{{{REMOVED}{{invalid_header_name:_{underscored(name)}}}}}")
        if not VALUE.fullmatch(value):
            raise InvalidHeadError(invalid_value(name))
        found.append((name, binary(name, raw_value) if name.endswith("-bin") else value))
    return found


REMOVED = "filter_removed_required_request_headers"


def invalid_value(name: str) -> str:
    return f"invalid header value for: {name}{{{REMOVED}{{invalid_header_value_for:_{underscored(name)}}}}}"


def underscored(name: str) -> str:
    return re.sub(r"\s", "_", name)


def binary(name: str, value: bytes) -> bytes:
    """The bytes that a `-bin` field's base64 stands for, padded or not."""
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise InvalidHeadError(invalid_value(name)) from None


# ---- What comes back ----

BEGUN = ((b":status", b"200"), (b"content-type", b"application/grpc"))
"""What stands in front of a response's own fields."""


def incoming(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """The library's metadata as header fields; binary values in base64 without padding (gRPC over HTTP/2, "Binary-Header")."""
    return [
        (key.encode(), value.encode() if isinstance(value, str) else base64.b64encode(value).rstrip(b"="))
        for key, value in metadata
    ]


def status_fields(status: int, message: bytes) -> list[tuple[bytes, bytes]]:
    """What stands in front of the trailers' own fields."""
    return [(b"grpc-status", b"%d" % status), (b"grpc-message", message)]


def encoded(message: str) -> bytes:
    """grpc-message as it stands on the wire ("Percent-Encoded"): so filters get it, from Envoy too."""
    return UNSAFE_IN_MESSAGE.sub(lambda found: b"%%%02X" % found[0][0], message.encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended. `shown`: grpc-message among the trailing metadata; `message`: what proxy_get_status says, which in
    Envoy has the response code details behind it. `reset`: after the response had begun, so that there are no trailers."""

    status: int
    message: bytes
    shown: bytes = b""
    reset: bool = False


def said(status: int, message: str) -> Ending:
    """The service's own status."""
    shown = encoded(message)
    return Ending(status, shown + b"{via_upstream}" if shown else b"via_upstream", shown)


def never_begun(reason: str, details: str = "") -> Ending:
    """No response: 14 (unavailable)."""
    shown = f"upstream connect error or disconnect/reset before headers. reset reason: {reason}".encode()
    more = reason.replace(" ", "_") + (f"|delayed_connect_error:_{underscored(details)}" if details else "")
    return Ending(14, shown + f"{{upstream_reset_before_response_started{{{more}}}}}".encode(), shown)


def lost(begun: bool) -> Ending:
    """The connection is gone."""
    if not begun:
        return never_begun("connection termination")
    return Ending(13, b"upstream_reset_after_response_started{connection_termination}", reset=True)


def timed_out(begun: bool) -> Ending:
    """The call has taken too long."""
    if begun:
        return Ending(13, b"response_timeout", reset=True)
    return Ending(14, b"upstream request timeout{response_timeout}", b"upstream request timeout")


CONNECT_FAILED = re.compile(r"failed to connect to all addresses; last error: (.*)", re.DOTALL)
REFUSED = re.compile(r"Failed to connect to remote host: ([^()]*[^() ])")
REMOVED_STREAM = re.compile(r"Stream removed \((.*)\)", re.DOTALL)


def ending(code: int, details: str, begun: bool) -> Ending:
    """grpcio's outcome as Envoy's. What grpcio says of itself can be told from a service's words by its text alone; a
    service that says the same is believed to be lost, and its caller is told so."""
    if code == 14 and (failed := CONNECT_FAILED.match(details)):
        if "HTTP/2" in failed[1]:
            return never_begun("protocol error")
        if "Socket closed" in failed[1] or "Connection reset" in failed[1]:
            return never_begun("connection termination")
        refused = REFUSED.search(failed[1])
        return never_begun("remote connection failure", refused[1] if refused else "")
    removed = REMOVED_STREAM.match(details)
    if code == 14 and (removed or details == "Socket closed"):
        return lost(begun)
    if removed:
        inner = encoded(removed[1].split(";")[0])
        return Ending(code, inner, inner, reset=begun)
    return said(code, details)
