"""Properties as text: proxy-wasm's attributes (abi/proxy_wasm/properties.py) without their byte encodings."""

import struct
from typing import TYPE_CHECKING, Any, Final, cast

from proxy.abi.proxy_wasm.properties import NullPropertyError, get

if TYPE_CHECKING:
    from proxy.abi.component.plugin import ComponentPlugin
    from proxy.abi.component.stream import ComponentStream

NUMBERS: Final = frozenset({
    "request.time", "request.duration", "request.size", "request.total_size", "request.headers_bytes", "response.code",
    "response.flags", "response.grpc_status", "response.size", "response.total_size", "response.headers_bytes",
    "response.backend_latency", "source.port", "destination.port", "connection.id", "connection_id", "upstream.port",
    "upstream.request_attempt_count", "xds.listener_direction",
})  # fmt: skip
BOOLEANS: Final = frozenset({"connection.mtls"})
MAPS: Final = frozenset({"request.headers", "response.headers", "response.trailers"})
"""Only with a name behind: `request.headers.user-agent`."""


class NoStream:
    """What `get` wants of a context, outside of any stream."""

    stream = None
    window = 0

    def __init__(self, plugin: "ComponentPlugin") -> None:
        self.plugin = plugin


def property_text(stream: "ComponentStream | None", plugin: "ComponentPlugin", path: str) -> bytes | None:
    """The value at a path with dots; None: there is none. What is not UTF-8 is shown with U+FFFD."""
    if path in MAPS:
        return None
    place = "\0".join(path.split(".", 2))
    try:
        value = get(cast(Any, stream if stream is not None else NoStream(plugin)), place.encode())
    except NullPropertyError:
        return None
    if value is None:
        return None
    if path in NUMBERS:
        return str(struct.unpack("<q", value)[0]).encode()
    if path in BOOLEANS:
        return b"true" if value == b"\1" else b"false"
    return value if value.isascii() else value.decode("utf-8", "replace").encode()
