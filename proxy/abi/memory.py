"""The stream memory: where the heads of the running stream live, and what the server and the chain do with them.

It is the linear memory of the ABI core (core/), shared by the stores of a worker. One stream at a time is live in it; the
others wait as snapshots. The server loads a head from a parser's fields and gets a head's bytes back; filters edit in
between, inside Wasm.
"""

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from email.utils import formatdate
from itertools import chain
from typing import Any, Final, NamedTuple

import wasmtime

from proxy.wasm import capi
from proxy.wasm.capi import ffi, lib
from proxy.wasm.engine import Engine
from proxy.wasm.store import Store

PAGES: Final = (1024, 32768)
"""Least and most pages of the stream memory: core/build.py links with the same. Untouched pages take no RAM."""

REQUEST_HEADERS: Final = 0
REQUEST_TRAILERS: Final = 1
RESPONSE_HEADERS: Final = 2
RESPONSE_TRAILERS: Final = 3
GRPC_INITIAL: Final = 4
GRPC_TRAILING: Final = 5
CALL_HEADERS: Final = 6
CALL_TRAILERS: Final = 7

END_STREAM: Final = 1
UPGRADE: Final = 2
HEAD_REQUEST: Final = 4
HTTP_10: Final = 8
CLOSE: Final = 16
PASS_TRAILERS: Final = 32

SAID_EXPECT: Final = 1 << 8
HAS_ID: Final = 1 << 31
"""The client's x-request-id is kept: it is in the map."""

FRAMING_NONE: Final = 0
FRAMING_LENGTH: Final = 1
FRAMING_CHUNKED: Final = 2
FRAMING_CLOSE: Final = 3

PLENTY: Final = 1 << 62
"""Fuel for the core's own work outside of a filter's call: bounded by the size of a head, not by a budget."""

REASONS: Final = (
    "",
    "a header field is not well-formed",
    "the Host header is missing, repeated or not a host",
    "the request target is not well-formed",
    "the method is not a token, or not one that is forwarded",
    "the path is not well-formed",
    "the authority is not a host",
    "a header name is not a token, or has an underscore",
    "a header value has control characters or an unknown expectation",
    "the status is not one of a final response",
    "the content-length is not one number",
    "the head is too large",
    "the protocol is not known",
    "the transfer-encoding is not chunked",
)
OPTIONS: Final = struct.Struct("<9I")
HEAD_WORDS: Final = 3
"""Words of stream_head before its maps."""

HEAD_METHOD, HEAD_PATH, HEAD_AUTHORITY, HEAD_NAME, HEAD_VALUE, HEAD_STATUS, HEAD_LENGTH = 4, 5, 6, 7, 8, 9, 10


class HeadError(Exception):
    """A head that must not be forwarded. `reason` is a short text without any of its bytes; `code` is one of HEAD_*."""

    def __init__(self, code: int) -> None:
        super().__init__(REASONS[code])
        self.code = code
        self.reason = REASONS[code]


class Head(NamedTuple):
    """The bytes of an HTTP/1.1 head, and how the body behind it is framed."""

    data: bytes
    framing: int
    """FRAMING_NONE, _LENGTH, _CHUNKED, or _CLOSE: the body ends with the connection."""
    length: int
    """Bytes of the body; for FRAMING_LENGTH."""
    status: int
    close: bool
    """The head says `connection: close`."""


new_tuple: Final = tuple.__new__


class Region:
    """One stream's part of the memory while another stream is live in it."""

    __slots__ = ("snapshot",)

    def __init__(self) -> None:
        self.snapshot = b""


class HeadOptions(NamedTuple):
    """How a listener wants its heads."""

    forwarded: str = "append"
    request_id: str = "keep"
    via: str | None = "penstock"
    scheme: str = "http"
    trailers: bool = False
    """Filters see `te: trailers` and `trailer`."""
    underscores: str = "reject"
    """What becomes of a request with such a field name, or of the field: reject, drop, keep."""
    most_fields: int = 100
    """Of a request that is read past the parser (`load_plain_request`), which has the same limit."""


class Layout(NamedTuple):
    """Addresses in the stream memory, as the core tells them."""

    scratch: int
    stream: int
    arena: int
    call: int
    arguments: int
    buffers: int
    time: int
    reply: int
    logs: int
    date: int
    persistent: int
    persistent_size: int
    vm_size: int
    arena_size: int
    readable: int
    effective: int
    scratch_top: int
    result: int


EMPTY_LINK: Final = """
(module
  (func (export "read") (param i32 i32 i32) (result i32) (i32.const 6))
  (func (export "write") (param i32 i32 i32) (result i32) (i32.const 6))
  (func (export "store") (param i32 i32) (result i32) (i32.const 6))
  (func (export "check") (param i32 i32) (result i32) (i32.const 6))
  (func (export "allocate") (param i32) (result i32) (i32.const 0))
  (func (export "callback") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 0)))
"""
"""What stands where a filter would be, in the store that only loads and emits heads."""


CORE_FUNCTIONS: Final = {
    "load_request": 3, "load_response": 4, "load_plain_request": 4, "load_plain_response": 3, "emit_request": 1,
    "emit_response": 1, "load_plain_answer": 2, "map_set_pairs": 2, "set_answer": 2, "new_stream": 0, "room": 1, "prepare": 1,
    "mend": 0,
}  # fmt: skip
"""What is called outside of filters, and how many arguments it takes."""


def memory_type() -> wasmtime.MemoryType:
    return wasmtime.MemoryType(wasmtime.Limits(*PAGES), shared=True)


class StreamMemory:
    """One for each generation of a worker's filters. `core` and `empty_link` are modules of the engine: core/core.wasm and
    EMPTY_LINK."""

    def __init__(self, engine: Engine, core: wasmtime.Module, empty_link: wasmtime.Module) -> None:
        self.engine = engine
        self.core = core
        self.store = Store(engine, memory_limit=0, deadline=3600.0, host=self.no_host)
        self.store.set_fuel(PLENTY)
        self.buffer = engine.memory()
        link = self.store.instantiate(empty_link, [])
        instance = self.store.instantiate(core, self.core_imports(self.store, link))
        address = self.store.call(self.store.function(instance, "layout"))
        self.at = Layout(*struct.unpack_from("<18I", self.buffer, address))
        self.context = self.store.context
        self.trap = self.store.trap
        self.values = ffi.new("uint32_t[]", 4 * capi.VALUE_WORDS)
        self.functions = {name: self.store.function(instance, name, n) for name, n in CORE_FUNCTIONS.items()}
        self.load_request_function = self.functions["load_request"]
        self.load_response_function = self.functions["load_response"]
        self.load_plain_request_function = self.functions["load_plain_request"]
        self.load_plain_response_function = self.functions["load_plain_response"]
        self.load_plain_answer_function = self.functions["load_plain_answer"]
        self.emit_request_function = self.functions["emit_request"]
        self.emit_response_function = self.functions["emit_response"]
        # Of the layout what each request needs.
        self.at_arguments = self.at.arguments
        self.at_buffers = self.at.buffers
        self.at_scratch = self.at.scratch
        self.at_stream = self.at.stream
        self.persistent_top = self.at.persistent
        self.live: Region | None = None
        self.answer_head = b""
        """The head that `load_plain_answer` has loaded; empty once something else is in its map."""
        self.filled = 0
        """Bit m: `set_answer` has put something into map m."""
        self.nobody = Region()
        """A stream without heads: what a root context acts on."""
        self.top = struct.Struct("<I")
        self.head_result = struct.Struct("<4IQI")
        self.empty = struct.pack("<I", self.at.arena) + bytes(self.at.arena - self.at.stream - 4)
        self.save(self.begin_empty())
        assert self.live is not None
        self.nobody.snapshot, self.live = self.live.snapshot, None
        self.set_date(0.0)

    def core_imports(self, store: Store, link: Any) -> list[Any]:
        """The imports of a core instance in `store`, linked to a filter by `link`."""
        found: list[Any] = []
        for item in self.core.imports:
            if item.module == "env":
                found.append(store.shared_memory())
            elif item.module == "host":
                found.append(store.host_function())
            else:
                found.append(store.export(link, item.name or ""))
        return found

    def no_host(self, operation: int) -> int:
        raise AssertionError(f"the core asked for operation {operation} outside of a filter")

    # ---- Memory ----

    def keep(self, data: bytes, align: int = 8) -> int:
        """Put `data` into the part of the memory that lasts; its address. Raises MemoryError when it is full."""
        address = -(-self.persistent_top // align) * align
        if address + len(data) > self.at.persistent + self.at.persistent_size:
            raise MemoryError("the stream memory has no room left for filters' records")
        self.persistent_top = address + len(data)
        self.buffer[address : address + len(data)] = data
        return address

    def write_scratch(self, data: bytes) -> None:
        """`data` to where the core looks for its input."""
        start = self.at_scratch
        end = start + len(data)
        buffer = self.buffer
        if end > len(buffer):
            self.room(len(data))
            buffer = self.buffer
        buffer[start:end] = data

    def room(self, size: int) -> None:
        """Grow the memory so that scratch holds `size` bytes."""
        self.store.call(self.functions["room"], size)
        self.buffer = self.engine.memory()

    def bytes_at(self, address: int, size: int) -> bytes:
        if address + size > len(self.buffer):
            self.buffer = self.engine.memory()
        data: bytes = self.buffer[address : address + size]
        return data

    def write(self, address: int, data: bytes) -> None:
        if address + len(data) > len(self.buffer):
            self.buffer = self.engine.memory()
        self.buffer[address : address + len(data)] = data

    def words_at(self, address: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}I", self.buffer, address)

    def set_date(self, now: float) -> None:
        """The Date of responses that have none (RFC 9110 6.6.1); call it once a second with time.time()."""
        date = self.at.date
        self.buffer[date : date + 29] = formatdate(now, usegmt=True).encode()

    # ---- Which stream is live ----

    def begin(self) -> Region:
        """A new stream's region, live. Load its request next."""
        if self.live is not None:
            self.save(self.live)
        self.live = Region()
        return self.live

    def begin_empty(self) -> Region:
        """A new stream without any head: for what a filter does outside of streams."""
        region = self.begin()
        self.store.call(self.functions["new_stream"])
        return region

    def attach(self, region: Region) -> None:
        """Make `region` the live one."""
        live = self.live
        if live is region:
            return
        if live is not None and live is not self.nobody:  # nothing is written there
            self.save(live)
        self.live = region
        start = self.at_stream
        # A region that was released, or never filled, is an empty stream, and not what the last one left.
        snapshot = region.snapshot or self.empty
        self.buffer[start : start + len(snapshot)] = snapshot

    def save(self, region: Region) -> None:
        start = self.at_stream
        top: int = self.top.unpack_from(self.buffer, start)[0]
        region.snapshot = self.buffer[start:top]

    def release(self, region: Region) -> None:
        """The stream is over; its bytes need not be kept."""
        if self.live is region:
            self.live = None
        region.snapshot = b""

    # ---- Heads ----

    def options_of(self, listeners: Sequence[HeadOptions]) -> list[int]:
        """Keep the listeners' options; their handles. If nothing was kept before, the handles depend on the number of listeners
        alone: so a listener's is the same in every generation's memory."""
        handles = [self.keep(bytes(OPTIONS.size)) for _ in listeners]
        for handle, options in zip(handles, listeners, strict=True):
            self.write_options(handle, options)
        return handles

    def options(self, options: HeadOptions) -> int:
        """Keep a listener's options; the handle for `load_request` and `load_response`."""
        return self.options_of([options])[0]

    def write_options(self, handle: int, options: HeadOptions) -> None:
        via = f"1.1 {options.via}".encode() if options.via else b""
        scheme = options.scheme.encode()
        at = self.keep(via + scheme)
        forwarded = {"off": 0, "append": 1, "replace": 2}[options.forwarded]
        request_id = {"off": 0, "keep": 1, "replace": 2}[options.request_id]
        underscores = {"reject": 0, "drop": 1, "keep": 2}[options.underscores]
        texts = at, len(via), at + len(via), len(scheme)
        self.write(handle, OPTIONS.pack(forwarded, request_id, *texts, options.trailers, underscores, options.most_fields))

    def load_request(
        self, fields: Sequence[tuple[bytes, bytes]], method: bytes, target: bytes, options: int, peer: bytes, request_id: bytes
    ) -> int:
        """Start the live stream with a request head.

        `fields` as the parser gives them; the core drops what is hop-by-hop, makes the pseudo headers and adds what
        `options` say. Returns SAID_* bits. Raises HeadError.
        """
        data = b"\n".join([method, target, peer, request_id, *chain.from_iterable(fields)])
        start = self.at_scratch
        self.buffer[start : start + len(data)] = data
        values = self.values
        values[0] = len(data)
        values[4] = 4 + 2 * len(fields)
        values[8] = options
        if lib.wasmtime_func_call_unchecked(self.context, self.load_request_function, values, 3, self.trap) or self.trap[0]:
            raise self.broken()
        result: int = values[0]
        if result & 0xFF:
            raise HeadError(result & 0xFF)
        return result

    def load_response(self, status: int, fields: Sequence[tuple[bytes, bytes]], options: int = 0) -> int:
        """The head of the response of the live stream; SAID_* bits. `options` 0 adds nothing. Raises HeadError."""
        data = b"\n".join([*chain.from_iterable(fields)])
        start = self.at_scratch
        self.buffer[start : start + len(data)] = data
        values = self.values
        values[0] = status
        values[4] = len(data)
        values[8] = 2 * len(fields)
        values[12] = options
        if lib.wasmtime_func_call_unchecked(self.context, self.load_response_function, values, 4, self.trap) or self.trap[0]:
            raise self.broken()
        result: int = values[0]
        if result & 0xFF:
            raise HeadError(result & 0xFF)
        return result

    def load_plain_request(self, head: bytes, options: int, peer: bytes, request_id: bytes) -> int:
        """`load_request` from the head's own bytes, up to its empty line, if it is plain (core/heads.c). Where in `head` the
        Host's value begins, shifted left by 16, and its length, with HAS_ID; 0 if the request is for the parser."""
        data = b"".join((head, peer, request_id))
        start = self.at_scratch
        self.buffer[start : start + len(data)] = data
        values = self.values
        values[0] = len(head)
        values[4] = len(peer)
        values[8] = len(request_id)
        values[12] = options
        function = self.load_plain_request_function
        if lib.wasmtime_func_call_unchecked(self.context, function, values, 4, self.trap) or self.trap[0]:
            raise self.broken()
        host: int = values[0]
        return host

    def load_plain_response(self, head: bytes, rest: int, options: int) -> int:
        """`load_response` from the head's own bytes, up to its empty line, if it is plain (core/heads.c) and announces a body
        of at least `rest` bytes. The status, and how many more are to come, shifted left by 32; 0 if the response is for the
        parser."""
        size = len(head)
        start = self.at_scratch
        self.buffer[start : start + size] = head
        values = self.values
        values[0] = size
        values[4] = rest
        values[8] = options
        function = self.load_plain_response_function
        if lib.wasmtime_func_call_unchecked(self.context, function, values, 3, self.trap) or self.trap[0]:
            raise self.broken()
        status: int = values[0]
        if status:
            status |= self.top.unpack_from(self.buffer, self.at_arguments)[0] << 32
        return status

    def load_plain_answer(self, head: bytes, rest: int) -> int:
        """Fill CALL_HEADERS from the head of a call's answer, up to its empty line, if it is plain (core/heads.c) and announces
        a body of `rest` bytes. The status, shifted left by 16, and the number of fields; 0 if the answer is for the parser."""
        size = len(head)
        start = self.at_scratch
        self.buffer[start : start + size] = head
        values = self.values
        values[0] = size
        values[4] = rest
        self.filled |= 1 << CALL_HEADERS
        function = self.load_plain_answer_function
        if lib.wasmtime_func_call_unchecked(self.context, function, values, 2, self.trap) or self.trap[0]:
            raise self.broken()
        found: int = values[0]
        self.answer_head = head if found else b""
        return found

    def emit_request(self, flags: int) -> Head:
        """The live stream's request as bytes for an HTTP/1.1 upstream. `flags`: END_STREAM, UPGRADE, PASS_TRAILERS (keep `te:
        trailers` and `trailer`). Raises HeadError."""
        return self.emit(self.emit_request_function, flags)

    def emit_response(self, flags: int) -> Head:
        """The live stream's response as bytes. `flags`: END_STREAM, UPGRADE, HEAD_REQUEST, HTTP_10, CLOSE, PASS_TRAILERS (keep
        `trailer`). Raises HeadError."""
        return self.emit(self.emit_response_function, flags)

    def emit(self, function: Any, flags: int) -> Head:
        values = self.values
        values[0] = flags
        if lib.wasmtime_func_call_unchecked(self.context, function, values, 1, self.trap) or self.trap[0]:
            raise self.broken()
        wrong = values[0]
        if wrong:
            raise HeadError(wrong)
        buffer = self.buffer
        address, size, framing, close, length, status = self.head_result.unpack_from(buffer, self.at_arguments)
        end = address + size
        data = buffer[address:end] if end <= len(buffer) else self.bytes_at(address, size)
        # Half the price of Head(...), on every request twice.
        return new_tuple(Head, (data, framing, length, status, close != 0))

    def broken(self) -> RuntimeError:
        """The core itself failed outside of a filter: a defect, never a peer's doing."""
        return RuntimeError(f"the ABI core stopped: {self.store.fault(ffi.NULL) if self.trap[0] else 'no trap'}")

    def entries(self, map_: int) -> Iterator[tuple[int, int, int, int]]:
        """(key address, key size, value address, value size) of a map of the live stream.

        Read from here and not by the core: filters' host calls need it while a core instance runs, and all of them share
        one stack.
        """
        address, count = struct.unpack_from("<2I", self.buffer, self.at.stream + HEAD_WORDS * 4 + map_ * 16)
        return struct.iter_unpack("<4I", self.buffer[address : address + 16 * count])

    def get(self, map_: int, name: bytes) -> bytes | None:
        """The first value of `name` (lower case) in a map of the live stream."""
        buffer = self.buffer
        for key, key_size, value, size in self.entries(map_):
            if key_size == len(name) and buffer[key : key + key_size] == name:
                found: bytes = buffer[value : value + size]
                return found
        return None

    def pairs(self, map_: int) -> list[tuple[bytes, bytes]]:
        """All of a map of the live stream, in order."""
        buffer = self.buffer
        return [(buffer[k : k + n], buffer[v : v + size]) for k, n, v, size in self.entries(map_)]

    def edited(self, map_: int) -> bool:
        """Has a filter edited this map of the live stream?"""
        return bool(self.top.unpack_from(self.buffer, self.at_stream + 4)[0] >> map_ & 1)

    def mend(self) -> None:
        """After a fault in a filter's call: make the live stream's maps sound, wherever an edit was stopped (core/maps.c)."""
        self.store.call(self.functions["mend"])

    def set_answer(self, map_: int, pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        """Fill map 4 to 7 for the next callback (gRPC metadata, a call's answer); names in lower case. False: too large."""
        if not pairs and not self.filled >> map_ & 1:
            return True
        self.filled |= 1 << map_
        if map_ == CALL_HEADERS:
            self.answer_head = b""
        block = encode_pairs(pairs) if pairs else b""
        self.write_scratch(block)
        if self.store.call(self.functions["set_answer"], map_, len(block)):
            return False
        if not pairs:
            self.filled &= ~(1 << map_)
        return True

    def take_scratch(self, size: int) -> int:
        """Scratch for an answer to the running host call, behind what the core has put there; its address."""
        top = self.words_at(self.at.scratch_top, 1)[0]
        address = (top + 7) & ~7
        if address + size > len(self.buffer):
            self.buffer = self.engine.memory()  # the core may have grown it
        if address + size > len(self.buffer):
            self.engine.grow_memory(address + size - len(self.buffer))
            self.buffer = self.engine.memory()
        struct.pack_into("<I", self.buffer, self.at.scratch_top, address + size)
        return address

    def set_pairs(self, map_: int, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Make a map of the live stream anew."""
        block = encode_pairs(list(pairs))
        self.write_scratch(block)
        self.store.call(self.functions["map_set_pairs"], map_, len(block))

    def close(self) -> None:
        """Nothing can be read or written afterwards: an attempt is an error, and does not reach freed memory."""
        self.store.close()
        self.buffer = b""


def encode_pairs(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The ABI's pair block (proxy-wasm spec v0.2.1, "Serialization")."""
    texts = [*chain.from_iterable(pairs)]
    lengths = array("I", map(len, texts))
    return len(pairs).to_bytes(4, "little") + lengths.tobytes() + b"\0".join([*texts, b""])


def decode_pairs(block: bytes) -> list[tuple[bytes, bytes]] | None:
    """The pairs of a block; None if it is not well-formed. Limits as proxy-wasm-cpp-host's: 1 MiB, 1,024 pairs."""
    if not block:
        return []
    if not 4 <= len(block) <= 1 << 20:
        return None
    count = int.from_bytes(block[:4], "little")
    if count > 1024 or 4 + 8 * count > len(block):
        return None
    lengths = struct.unpack_from(f"<{2 * count}I", block, 4)
    at = 4 + 8 * count
    texts = []
    for length in lengths:
        if at + length >= len(block) or block[at + length]:
            return None
        texts.append(block[at : at + length])
        at += length + 1
    if at != len(block):
        return None
    return list(zip(texts[::2], texts[1::2], strict=True))
