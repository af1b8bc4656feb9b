"""The foreign functions `expr_create`, `expr_evaluate` and `expr_delete`: CEL over a stream's attributes, as in Envoy 1.40.

The language is Envoy's own, cel-cpp, by `cel-expr-python`, an extra. What an evaluation may cost is known and charged before
(cel_cost.py). They act on the context whose callback runs, whatever its effective one is.
"""

import datetime
import struct
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from proxy.abi.memory import decode_pairs, encode_pairs
from proxy.abi.proxy_wasm.cel_cost import ELEMENT, Tree, UnknownFunctionError
from proxy.abi.proxy_wasm.properties import GROUPS, STATE, NullPropertyError, get
from proxy.abi.proxy_wasm.protobuf import DecodeError

if TYPE_CHECKING:
    from proxy.abi.proxy_wasm.context import Context

MODULE: Final = "cel_expr_python.cel"
EXTRA: Final = "pip install penstock[cel]"

LONGEST: Final = 4096
"""Bytes of an expression."""
MOST: Final = 100
"""Expressions of a VM."""
MOST_SOURCE: Final = 64 << 10
"""Bytes of all of them; compiled they take 70 times as much memory."""
MOST_COST: Final = 50_000_000
"""Units of one evaluation, whatever the fuel: about as many bytes of memory, and 50 ms."""
MOST_RESULT: Final = 1 << 20
"""Bytes of a value."""
CREATE_FUEL: Final = 4_000
"""For each byte of an expression: parsing it."""
BOUND_FUEL: Final = 2_000
"""For each byte of an expression: working out what it may cost, once for each power of two that it reads."""
READ_FUEL: Final = 20
"""For each byte of the attributes that an expression reads."""

EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
INTEGERS: Final = frozenset({
    "size", "total_size", "headers_bytes", "code", "flags", "grpc_status", "port", "request_attempt_count",
    "listener_direction",
})  # fmt: skip
MAPS: Final = frozenset({"headers", "trailers"})
TIMES: Final = frozenset({"time", "duration", "backend_latency"})
"""The library takes no times from outside: they can be read alone, and are not there within a larger expression."""
OWN: Final = frozenset({"plugin_name", "plugin_root_id", "plugin_vm_id"})


class ExpressionError(Exception):
    """Something is wrong with an expression: the filter's status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


NOT_FOUND, BAD_ARGUMENT, SERIALIZATION_FAILURE, INTERNAL_FAILURE = 1, 2, 3, 10


def installed() -> bool:
    """Is the extra there?"""
    return find_spec("cel_expr_python") is not None


class Compiled:
    """An expression that can be evaluated."""

    def __init__(self, program: Any, tree: Tree, size: int) -> None:
        self.program = program
        self.tree = tree
        self.size = size
        self.bounds: dict[int, int] = {}
        """Units that an evaluation may cost, by the power of two that is over the bytes it reads."""


class Expressions:
    """Those of one VM, by the id of their root and a token that counts from 0."""

    def __init__(self, pay: Callable[[int], None]) -> None:
        """`pay(fuel)` charges before work is done, and raises if the filter cannot pay."""
        self.pay = pay
        self.kept: dict[tuple[int, int], Compiled] = {}
        self.next_token: dict[int, int] = {}
        self.environment: Any = None

    def create(self, root: int, source: bytes) -> bytes:
        """A token. Raises ExpressionError."""
        if len(source) > LONGEST:
            raise ExpressionError(BAD_ARGUMENT, f"an expression may have {LONGEST} bytes")
        if len(self.kept) >= MOST:
            raise ExpressionError(INTERNAL_FAILURE, f"a VM may have {MOST} expressions")
        if len(source) + sum(one.size for one in self.kept.values()) > MOST_SOURCE:
            raise ExpressionError(INTERNAL_FAILURE, f"the expressions of a VM may have {MOST_SOURCE} bytes")
        self.pay(CREATE_FUEL * len(source))
        try:
            if self.environment is None:
                from cel_expr_python import cel  # type: ignore[import-untyped]

                self.environment = cel.NewEnv()
            program = self.environment.compile(source.decode(), disable_check=True)
            tree = Tree(program.serialize())
        except UnicodeDecodeError:
            raise ExpressionError(BAD_ARGUMENT, "the expression is no UTF-8") from None
        except UnknownFunctionError as error:
            raise ExpressionError(BAD_ARGUMENT, f"there is no function {error}") from None
        except (RuntimeError, DecodeError) as error:
            raise ExpressionError(BAD_ARGUMENT, " ".join(str(error).split())[:300]) from None
        token = self.next_token.get(root, 0)
        self.next_token[root] = token + 1 & 0xFFFF_FFFF
        self.kept[root, token] = Compiled(program, tree, len(source))
        return struct.pack("<I", token)

    def delete(self, root: int, argument: bytes) -> bytes:
        """Nothing, also for an unknown token. Raises ExpressionError."""
        self.kept.pop((root, token_of(argument)), None)
        return b""

    def evaluate(self, root: int, context: "Context", argument: bytes) -> bytes:
        """The value in the encoding of properties. Raises ExpressionError."""
        one = self.kept.get((root, token_of(argument)))
        if one is None:
            raise ExpressionError(NOT_FOUND, "there is no expression with this token")
        if one.tree.path is not None:
            return self.attribute(context, *one.tree.path)
        data, size = gather(context, one.tree)
        self.pay(READ_FUEL * size)
        cost = one.bounds.get(size.bit_length())
        if cost is None:
            self.pay(BOUND_FUEL * one.size)
            cost = one.bounds[size.bit_length()] = one.tree.bound(1 << size.bit_length())
        if cost > MOST_COST:
            raise ExpressionError(INTERNAL_FAILURE, "the evaluation could take too long, or too much memory")
        self.pay(cost)
        try:
            value = one.program.eval(data=data)
        except RuntimeError as error:
            raise ExpressionError(INTERNAL_FAILURE, str(error)[:300]) from None
        if value.type().name() == "ERROR":
            raise ExpressionError(INTERNAL_FAILURE, str(value.plain_value())[:300])
        result = encode(value)
        if len(result) > MOST_RESULT:
            raise ExpressionError(INTERNAL_FAILURE, f"the result has more than {MOST_RESULT} bytes")
        return result

    def attribute(self, context: "Context", group: str, name: str) -> bytes:
        """An expression that is only a path is that property."""
        path = f"{group}\0{name}" if name else group
        try:
            value = get(context, path.encode())
        except NullPropertyError:
            raise ExpressionError(SERIALIZATION_FAILURE, "the value is no attribute but a group of them") from None
        if value is None:
            raise ExpressionError(INTERNAL_FAILURE, f"there is no {path}".replace("\0", "."))
        return value


def token_of(argument: bytes) -> int:
    if len(argument) != 4:
        raise ExpressionError(BAD_ARGUMENT, "a token has four bytes")
    return int.from_bytes(argument, "little")


def gather(context: "Context", tree: Tree) -> tuple[dict[str, Any], int]:
    """What the expression reads, as far as it is there, and its bytes."""
    data: dict[str, Any] = {}
    total = 0
    for group, name in tree.reads:
        known = GROUPS.get(group.encode())
        if known is not None:
            wanted = [name] if name else [one.decode() for one in known]
            values = data.setdefault(group, {})
        elif group == "filter_state":
            wanted, values = [], data.setdefault(group, {})
            for key, value in context.stream.properties.items() if context.stream is not None else ():
                state = key.removeprefix(STATE) if key.startswith(STATE) else b"wasm." + key
                values[state.decode("utf-8", "replace")] = value.decode("utf-8", "replace") if key.startswith(STATE) else value
                total += len(key) + len(value) + ELEMENT
        else:
            wanted, values = [group], data
        for one in wanted:
            if one in TIMES or one.endswith("metadata"):  # messages
                continue
            path = one if known is None else f"{group}\0{one}"
            raw = read(context, path.encode())
            if raw is not None:
                values[one] = value_of(group, one, raw, known is None)
                total += len(raw) + ELEMENT
    return data, total


def read(context: "Context", path: bytes) -> bytes | None:
    try:
        return get(context, path)
    except NullPropertyError:
        return None


def value_of(group: str, name: str, raw: bytes, own: bool) -> Any:
    """A property as CEL knows it: Envoy's types (docs, "Attributes")."""
    if own:
        return raw.decode("utf-8", "replace") if name in OWN else raw
    if name in MAPS:
        pairs = decode_pairs(raw) or []
        return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in pairs}
    if name in INTEGERS or (group, name) == ("connection", "id"):
        return struct.unpack("<q", raw)[0]
    if name == "mtls":
        return raw != b"\0"
    return raw.decode("utf-8", "replace")


def encode(value: Any) -> bytes:
    """A CEL value in the encoding of properties; lists as pairs without values. Raises ExpressionError."""
    kind = value.type().name().partition("<")[0]
    if kind == "LIST":
        return encode_pairs([(encode(one), b"") for one in value.value()])
    if kind == "MAP":
        return encode_pairs([(encode_plain(type_of(key), key), encode(one)) for key, one in value.value().items()])
    return encode_plain(kind, value.plain_value())


def type_of(key: Any) -> str:
    return "BOOL" if isinstance(key, bool) else "INT" if isinstance(key, int) else "STRING"


def encode_plain(kind: str, plain: Any) -> bytes:
    match kind:
        case "STRING":
            return str(plain).encode()
        case "BYTES":
            return bytes(plain)
        case "BOOL":
            return bytes([plain])
        case "INT":
            return struct.pack("<q", plain)
        case "UINT":
            return struct.pack("<Q", plain)
        case "DOUBLE":
            return struct.pack("<d", plain)
        case "TIMESTAMP":
            return nanoseconds(plain.astimezone(datetime.UTC) - EPOCH)
        case "DURATION":
            return nanoseconds(plain)
    raise ExpressionError(SERIALIZATION_FAILURE, f"a value of type {kind.lower()} has no encoding")


def nanoseconds(span: datetime.timedelta) -> bytes:
    whole = (span.days * 86_400 + span.seconds) * 1_000_000_000 + span.microseconds * 1000
    if not -(1 << 63) <= whole < 1 << 63:
        raise ExpressionError(SERIALIZATION_FAILURE, "the time is out of range")
    return struct.pack("<q", whole)
