"""proxy_get_property: Envoy's attributes, as far as they exist here, in their byte encodings.

Text as it stands; integers and ports 8 bytes little-endian; booleans one byte; times and durations 64-bit nanoseconds; maps
as the ABI's pair block. What a filter may see and when is measured on Envoy 1.40: request attributes that come from headers
live as long as the request map is open to the filter, response ones from the response's headers on.
"""

import re
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from proxy.abi.filter import GRPC_OF_HTTP, GRPC_UNKNOWN, StreamHost
from proxy.abi.memory import REQUEST_HEADERS, RESPONSE_HEADERS, RESPONSE_TRAILERS, StreamMemory, encode_pairs
from proxy.telemetry.stream import StreamInfo

if TYPE_CHECKING:
    from proxy.abi.proxy_wasm.context import Context

READABLE_SHIFT: Final = 10

FLAG_BITS: Final = {
    "UH": 0x2, "UT": 0x4, "LR": 0x8, "UR": 0x10, "UF": 0x20, "UC": 0x40, "UO": 0x80, "NR": 0x100, "DC": 0x4000,
    "URX": 0x1000, "SI": 0x20000, "DPE": 0x80000, "UPE": 0x800000,
}  # fmt: skip
"""Envoy's response flags as response.flags has them."""

TIMES: Final = frozenset({b"request\0time", b"request\0duration", b"response\0backend_latency"})
"""What limits.clock coarsens here."""

GRPC_LARGEST: Final = 16
GRPC_INVALID: Final = -1

NUMBER: Final = re.compile(rb"\s*[+-]?\d+\s*")
"""What Envoy takes for a number in a header."""

MAPS: Final = frozenset({b"headers", b"trailers"})
"""What a path goes into further than a name."""

STATE: Final = b"\0"
"""Begins the names of what set_envoy_filter_state keeps among a stream's properties."""


class NullPropertyError(Exception):
    """The path names something that is no value: status 3 (SerializationFailure), as Envoy answers."""


def get(context: "Context", path: bytes) -> bytes | None:
    """The value at `path` (segments joined by NUL, one at the end tolerated); None: there is none."""
    if not path:
        raise NullPropertyError
    path = path.removesuffix(b"\0")
    plugin = context.plugin
    own = {
        b"plugin_name": plugin.name,
        b"plugin_root_id": plugin.settings.root_id,
        b"plugin_vm_id": plugin.settings.vm_id,
    }.get(path)
    if own is not None:
        return own.encode()
    stream = context.stream
    if stream is None:
        if path == b"xds":
            raise NullPropertyError
        return None
    group, _, rest = path.partition(b"\0")
    readers = GROUPS.get(group)
    if readers is not None:
        if not rest:
            raise NullPropertyError
        name, _, key = rest.partition(b"\0")
        reader = None if key and name not in MAPS else readers.get(name)
        value = None if reader is None else reader(Reading(plugin.memory, stream, readable(context)), key)
        if value is not None and path in TIMES:
            (nanoseconds,) = struct.unpack("<q", value)
            value = struct.pack("<q", nanoseconds - nanoseconds % plugin.settings.clock)
        return value
    if group == b"filter_state" and rest.startswith(b"wasm."):
        return stream.properties.get(rest[5:])
    if group == b"filter_state" and rest:
        return stream.properties.get(STATE + rest)
    if group == b"metadata":
        return None if rest else b""
    if group == b"filter_state" or (path == b"upstream_filter_state" and stream.info.upstream_address):
        raise NullPropertyError
    if path == b"connection_id":
        return integer(stream.info.connection_id)
    return None if b"\0" in path else stream.properties.get(path)  # Envoy splits what it looks up, and not what it stores


def readable(context: "Context") -> int:
    """Bit m: map m may be read. For the context that host functions act on the core knows best: in one call into a VM the maps
    are shut while the context is created, and after its log."""
    memory = context.plugin.memory
    if context.plugin.slot.running is context:
        return memory.words_at(memory.at.readable, 1)[0]
    return context.window >> READABLE_SHIFT


def integer(value: int) -> bytes:
    return struct.pack("<q", value)


def boolean(value: bool) -> bytes:
    return bytes([value])


def text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


class Reading:
    """One look at a stream. The stream is the live one."""

    def __init__(self, memory: StreamMemory, stream: StreamHost, readable: int) -> None:
        self.memory = memory
        self.stream = stream
        self.info: StreamInfo = stream.info
        self.readable = readable

    def open(self, map_: int) -> bool:
        return bool(self.readable >> map_ & 1)

    def header(self, map_: int, name: bytes) -> bytes | None:
        if not self.open(map_):
            return None
        values = [value for key, value in self.memory.pairs(map_) if key == name]
        return b",".join(values) if values else None

    def headers(self, map_: int, key: bytes) -> bytes | None:
        """One header by name, or the whole map with the values of a name joined."""
        if key:
            key = key.lower()
            return self.header(map_, b":authority" if key == b"host" and map_ == REQUEST_HEADERS else key)
        joined: dict[bytes, bytes] = {}
        for name, value in self.memory.pairs(map_) if self.open(map_) else ():
            joined[name] = joined[name] + b"," + value if name in joined else value
        return encode_pairs(list(joined.items()))

    def map_size(self, map_: int) -> int:
        return sum(len(k) + len(v) for k, v in self.memory.pairs(map_)) if self.open(map_) else 0

    def path(self) -> bytes | None:
        return self.header(REQUEST_HEADERS, b":path")


Reader = Callable[[Reading, bytes], bytes | None]


def header(map_: int, name: bytes) -> Reader:
    return lambda reading, key: reading.header(map_, name)


def fact(get_fact: Callable[[StreamInfo], Any], encode: Callable[[Any], bytes]) -> Reader:
    return lambda reading, key: encode(get_fact(reading.info))


def url_path(reading: Reading, key: bytes) -> bytes | None:
    path = reading.path()
    return None if path is None else path.partition(b"?")[0]


def query(reading: Reading, key: bytes) -> bytes | None:
    path = reading.path()
    return None if path is None else path.partition(b"?")[2].partition(b"#")[0]


def request_size(reading: Reading, key: bytes) -> bytes | None:
    announced = reading.header(REQUEST_HEADERS, b"content-length")
    if announced is None:
        return integer(reading.info.bytes_received)
    size = number(announced)
    return None if size is None else integer(size)


def request_total_size(reading: Reading, key: bytes) -> bytes | None:
    return integer(reading.info.bytes_received + reading.map_size(REQUEST_HEADERS))


def request_duration(reading: Reading, key: bytes) -> bytes | None:
    """Known when the stream is over."""
    if not reading.info.over:
        return None
    return integer(int((time.monotonic() - reading.info.start_monotonic) * 1e9))


def response_code(reading: Reading, key: bytes) -> bytes | None:
    """As it was sent; before that, what filters have made of it is not seen (Envoy)."""
    if known := reading.info.status or reading.info.entered_status:
        return integer(known)
    status = reading.memory.get(RESPONSE_HEADERS, b":status")
    return integer(int(status)) if status is not None and status.isdigit() and len(status) <= 5 else None


def response_details(reading: Reading, key: bytes) -> bytes | None:
    # A filter's reply may have empty details: then they are there all the same.
    return text(reading.info.details) if reading.info.details or reading.info.status else None


def response_flags(reading: Reading, key: bytes) -> bytes | None:
    return integer(sum(FLAG_BITS.get(flag, 0) for flag in reading.info.flags.split(",")))


def grpc_status(reading: Reading, key: bytes) -> bytes | None:
    """What the trailers say, else the headers, each if it is open; else what the response's code comes to."""
    status = reading.header(RESPONSE_TRAILERS, b"grpc-status") or reading.header(RESPONSE_HEADERS, b"grpc-status")
    if status:
        said = number(status)
        return integer(said if said is not None and 0 <= said <= GRPC_LARGEST else GRPC_INVALID)
    code = response_code(reading, b"")
    return None if code is None else integer(GRPC_OF_HTTP.get(struct.unpack("<q", code)[0], GRPC_UNKNOWN))


def backend_latency(reading: Reading, key: bytes) -> bytes | None:
    return integer(int(reading.info.upstream_seconds * 1e9)) if reading.info.over and reading.info.upstream_seconds else None


def once_routed(reading: Reading, key: bytes) -> bytes | None:
    """Metadata of what has none here: an empty message."""
    return b"" if reading.info.cluster_name else None


def once_connected(reading: Reading, key: bytes) -> bytes | None:
    return b"" if reading.info.upstream_address else None


def of_the_host(reading: Reading, key: bytes) -> bytes | None:
    """Metadata of an endpoint: there is none."""
    if reading.info.upstream_address:
        raise NullPropertyError
    return None


def upstream(part: int) -> Reader:
    def read(reading: Reading, key: bytes) -> bytes | None:
        address = reading.info.upstream_address
        if not address:
            return None
        return text(address) if part == 0 else integer(port_of(address))

    return read


def number(value: bytes) -> int | None:
    """A 64-bit number as a header has it."""
    found = int(value) if len(value) < 100 and NUMBER.fullmatch(value) else 1 << 63
    return found if -(1 << 63) <= found < 1 << 63 else None


def port_of(address: str) -> int:
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else 0


GROUPS: Final[dict[bytes, dict[bytes, Reader]]] = {
    b"request": {
        b"path": header(REQUEST_HEADERS, b":path"),
        b"url_path": url_path,
        b"host": header(REQUEST_HEADERS, b":authority"),
        b"scheme": header(REQUEST_HEADERS, b":scheme"),
        b"method": header(REQUEST_HEADERS, b":method"),
        b"referer": header(REQUEST_HEADERS, b"referer"),
        b"useragent": header(REQUEST_HEADERS, b"user-agent"),
        b"id": header(REQUEST_HEADERS, b"x-request-id"),
        b"query": query,
        b"headers": lambda reading, key: reading.headers(REQUEST_HEADERS, key),
        b"protocol": fact(lambda info: info.protocol, text),
        b"time": fact(lambda info: int(info.start * 1e9), integer),
        b"duration": request_duration,
        b"size": request_size,
        b"total_size": request_total_size,
        b"headers_bytes": lambda reading, key: integer(reading.map_size(REQUEST_HEADERS)),
    },
    b"response": {
        b"code": response_code,
        b"code_details": response_details,
        b"flags": response_flags,
        b"grpc_status": grpc_status,
        b"headers": lambda reading, key: reading.headers(RESPONSE_HEADERS, key),
        b"trailers": lambda reading, key: reading.headers(RESPONSE_TRAILERS, key),
        b"size": fact(lambda info: info.bytes_sent, integer),
        b"total_size": lambda reading, key: integer(reading.info.bytes_sent + reading.map_size(RESPONSE_HEADERS)),
        b"headers_bytes": lambda reading, key: integer(reading.map_size(RESPONSE_HEADERS)),
        b"backend_latency": backend_latency,
    },
    b"source": {
        b"address": fact(lambda info: info.source_address, text),
        b"port": fact(lambda info: port_of(info.source_address), integer),
    },
    b"destination": {
        b"address": fact(lambda info: info.destination_address, text),
        b"port": fact(lambda info: port_of(info.destination_address), integer),
    },
    b"connection": {
        b"id": fact(lambda info: info.connection_id, integer),
        b"mtls": fact(lambda info: False, boolean),
        b"requested_server_name": fact(lambda info: "", text),
    },
    b"upstream": {
        b"address": upstream(0),
        b"port": upstream(1),
        b"request_attempt_count": fact(lambda info: info.attempts, integer),
        b"transport_failure_reason": once_connected,
        b"locality": once_connected,
    },
    b"xds": {
        b"cluster_name": lambda reading, key: text(reading.info.cluster_name) if reading.info.cluster_name else None,
        b"route_name": lambda reading, key: text(reading.info.route_name) if reading.info.route_name else None,
        b"listener_direction": fact(lambda info: 0, integer),
        b"filter_chain_name": fact(lambda info: "", text),
        b"listener_metadata": fact(lambda info: "", text),
        b"cluster_metadata": once_routed,
        b"route_metadata": once_routed,
        b"virtual_host_metadata": once_routed,
        b"upstream_host_metadata": of_the_host,
        b"upstream_host_locality_metadata": of_the_host,
    },
}
