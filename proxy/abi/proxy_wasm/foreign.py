"""proxy_call_foreign_function: the functions of Envoy 1.40 that exist here (source/extensions/common/wasm/foreign.cc)."""

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from proxy.abi.proxy_wasm import expressions, signing
from proxy.abi.proxy_wasm.expressions import ExpressionError, Expressions
from proxy.abi.proxy_wasm.properties import STATE
from proxy.abi.proxy_wasm.protobuf import DecodeError, Kind, decode
from proxy.telemetry.logging import limited

if TYPE_CHECKING:
    from proxy.abi.proxy_wasm.host import Host

log = structlog.get_logger("filter")

MOST_RESULT: Final = 4 << 20
"""Bytes that a result may have."""
BYTE_FUEL: Final = 100
"""Fuel for each byte of a foreign function's arguments."""
MOST_DECLARED: Final = 100
"""Properties that a root may declare."""


class ForeignError(Exception):
    """The function failed: the status that the filter gets, why, and the fuel that the attempt cost."""

    def __init__(self, status: int, reason: str, fuel: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.fuel = fuel


NOT_FOUND: Final = 1
BAD_ARGUMENT: Final = 2
SERIALIZATION_FAILURE: Final = 3
INTERNAL_FAILURE: Final = 10

FILTER_STATE_ARGUMENTS: Final[dict[int, tuple[str, Kind]]] = {1: ("path", "string"), 2: ("value", "string")}
PROPERTY_ARGUMENTS: Final[dict[int, tuple[str, Kind]]] = {1: ("name", "string")}

STATE_TEXTS: Final = frozenset({
    b"envoy.hashable_string", b"envoy.network.network_namespace", b"envoy.network.upstream_server_name",
    b"envoy.network.upstream_subject_alt_names", b"envoy.string", b"envoy.tcp_proxy.cluster", b"envoy.upstream.dynamic_host",
})  # fmt: skip
STATE_NUMBERS: Final = frozenset({
    b"envoy.ratelimit.hits_addend", b"envoy.tcp_proxy.per_connection_idle_timeout_ms", b"envoy.upstream.dynamic_port",
})  # fmt: skip
"""Keys of the filter state that Envoy knows and that are text or numbers; filters may set these and no others."""


def compress(arguments: bytes) -> bytes:
    """RFC 1950, zlib's default level."""
    return zlib.compress(arguments)


def uncompress(arguments: bytes) -> bytes:
    """RFC 1950; at most MOST_RESULT bytes come out."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(arguments, MOST_RESULT)
    except zlib.error as error:
        raise ForeignError(SERIALIZATION_FAILURE, f"uncompress: {error}") from None
    if not inflater.eof:
        reason = "the result is larger than 4 MiB" if inflater.unconsumed_tail else "the data is cut off"
        raise ForeignError(SERIALIZATION_FAILURE, f"uncompress: {reason}", len(data))
    return data


def clear_route_cache(arguments: bytes) -> bytes:
    """Routes are chosen after the chain, by the final head: there is nothing to clear."""
    return b""


class ForeignFunctions:
    """The functions, and what they keep for one VM. They act on the effective context, unless they say otherwise."""

    def __init__(self, host: "Host") -> None:
        self.host = host
        self.declared: dict[int, set[bytes]] = {}
        """Names of declared properties, by the id of their root."""
        self.functions: dict[bytes, Callable[[bytes], bytes]] = {
            b"compress": compress,
            b"uncompress": uncompress,
            b"clear_route_cache": clear_route_cache,
            b"set_envoy_filter_state": self.set_envoy_filter_state,
            b"declare_property": self.declare_property,
        }
        if signing.installed():
            self.functions |= {
                b"verify_signature": lambda arguments: self.signed(signing.verify_signature, arguments),
                b"sign": lambda arguments: self.signed(signing.sign, arguments),
            }

        self.expressions = Expressions(self.pay)
        if expressions.installed():
            self.functions |= {
                b"expr_create": lambda source: self.expressed(self.expressions.create, source),
                b"expr_evaluate": self.evaluate,
                b"expr_delete": lambda token: self.expressed(self.expressions.delete, token),
            }

    def call(self, name: bytes, arguments: bytes) -> bytes:
        """The result. Raises ForeignError."""
        function = self.functions.get(name)
        if function is None:
            self.note_missing(name)
            raise ForeignError(NOT_FOUND, "there is no such function")
        self.pay(BYTE_FUEL * len(arguments))
        return function(arguments)

    def pay(self, fuel: int) -> None:
        """Charge for what is about to be done. Raises ForeignError if the call cannot pay: then it is not done."""
        if not self.host.pay(fuel):
            raise ForeignError(INTERNAL_FAILURE, "too little fuel is left")

    def note_missing(self, name: bytes) -> None:
        """Say which extra brings a function that is not there."""
        filter_ = self.host.slot.roots[0].plugin.name
        extra = EXTRAS.get(name)
        if extra is not None and not limited(("foreign_function_missing", filter_), 1):
            log.warning(
                "foreign_function_missing",
                filter=filter_,
                function=name.decode(),
                answer="1 (NotFound)",
                install=extra.install,
            )

    def signed(self, function: Callable[[bytes, signing.Charge], bytes], arguments: bytes) -> bytes:
        try:
            return function(arguments, self.pay)
        except signing.ArgumentsError as error:
            raise ForeignError(BAD_ARGUMENT, str(error)) from None

    def expressed(self, function: Callable[[int, bytes], bytes], argument: bytes) -> bytes:
        try:
            return function(self.host.root().id, argument)
        except ExpressionError as error:
            raise ForeignError(error.status, error.reason) from None

    def evaluate(self, token: bytes) -> bytes:
        """expr_evaluate acts on the calling context: its stream is made the live one for as long as it takes."""
        memory, calling = self.host.memory, self.host.calling
        live = memory.live
        if calling.stream is not None and calling.stream.region is not live:
            memory.attach(calling.stream.region)
        try:
            return self.expressed(lambda root, argument: self.expressions.evaluate(root, calling, argument), token)
        finally:
            if live is not None and memory.live is not live:
                memory.attach(live)

    def set_envoy_filter_state(self, arguments: bytes) -> bytes:
        """Keeps a value that property `filter_state` `KEY` reads. Envoy's other users of it (upstream TLS names, TCP proxy,
        rate limits) are not here: nothing but filters looks at it. Lasts as long as the stream, whatever its `span`."""
        try:
            given = decode(arguments, FILTER_STATE_ARGUMENTS)
        except DecodeError as error:
            raise ForeignError(BAD_ARGUMENT, f"the arguments are no SetEnvoyFilterStateArguments: {error}") from None
        path, value = given.get("path", b""), given.get("value", b"")
        assert isinstance(path, bytes)
        assert isinstance(value, bytes)
        stream = self.host.context.stream
        if stream is None:
            raise ForeignError(NOT_FOUND, "the context belongs to no stream")
        if path in STATE_NUMBERS:
            if not value.isdigit() or int(value[:20]) >= 1 << 32:
                raise ForeignError(BAD_ARGUMENT, "the value is no number")
        elif path not in STATE_TEXTS:
            raise ForeignError(NOT_FOUND, "there is no such key of the filter state")
        if not self.host.has_room(stream.properties, STATE + path, value):
            raise ForeignError(INTERNAL_FAILURE, self.host.reason)
        stream.properties[STATE + path] = value
        return b""

    def declare_property(self, arguments: bytes) -> bytes:
        """Notes that a property is declared, which it can be once in each context. The type and the rest are for Envoy's own
        readers of properties; a filter reads back the bytes that were set."""
        try:
            given = decode(arguments, PROPERTY_ARGUMENTS)
        except DecodeError as error:
            raise ForeignError(BAD_ARGUMENT, f"the arguments are no DeclarePropertyArguments: {error}") from None
        name = given.get("name", b"")
        assert isinstance(name, bytes)
        calling = self.host.calling
        if calling.stream is not None:
            properties = calling.stream.properties
            key = STATE + STATE + calling.id.to_bytes(4, "little") + name
            if key in properties:
                raise ForeignError(BAD_ARGUMENT, "the property is declared already")
            if not self.host.has_room(properties, key, b""):
                raise ForeignError(INTERNAL_FAILURE, self.host.reason)
            properties[key] = b""
            return b""
        declared = self.declared.setdefault(calling.id, set())
        if name in declared:
            raise ForeignError(BAD_ARGUMENT, "the property is declared already")
        if len(declared) >= MOST_DECLARED:
            raise ForeignError(INTERNAL_FAILURE, f"{MOST_DECLARED} properties are declared")
        declared.add(name)
        return b""


class Extra(NamedTuple):
    """What has to be installed for a function. `distinctive`: a module that holds its name means it."""

    install: str
    module: str
    distinctive: bool

    def installed(self) -> bool:
        return signing.installed() if self.module == signing.MODULE else expressions.installed()

    def load(self) -> None:
        """Import it while nobody waits: it takes longer than a callback may."""
        if self.installed():
            import_module(self.module)


EXTRAS: Final = {
    b"verify_signature": Extra(signing.EXTRA, signing.MODULE, True),
    b"expr_create": Extra(expressions.EXTRA, expressions.MODULE, True),
    b"sign": Extra(signing.EXTRA, signing.MODULE, False),
}
