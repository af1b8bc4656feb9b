"""A bound on what evaluating a CEL expression costs, from its syntax tree and the size of what it reads.

CEL ends always, but `.map(x, x + x)`, written 30 times in a row, makes 2 GB of a word. Nothing stops an evaluation in its
middle, so its bound is worked out before, and charged. Units are about bytes touched. The tree is cel.expr.ParsedExpr
(cel-spec, syntax.proto); its depth is limited by the parser.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from proxy.abi.proxy_wasm.protobuf import fields

NODE: Final = 300
"""Units for the work on one node of the tree."""
ELEMENT: Final = 16
"""Bytes that an element of a list or map counts beside its own."""
MOST_ITERATIONS: Final = 10_000
"""Of the library, for one evaluation."""
SMALL: Final = 40
"""Bytes of a number, a truth value, a time."""
RESULT_BYTE: Final = 50
"""Units for each byte of the result, whose elements are encoded one by one."""
REGEX_BYTE: Final = 10_000
"""Units for each byte of a regular expression, which is compiled each time."""

ANY_VALUE, PARSED_EXPR = 2, 2
CONST, IDENT, SELECT, CALL, LIST, STRUCT, COMPREHENSION = range(3, 10)

JUDGEMENTS: Final = frozenset({
    "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", "@in", "@not_strictly_false", "startsWith",
    "endsWith", "contains", "matches", "size",
})  # fmt: skip
"""Functions whose result is small."""
KNOWN: Final = JUDGEMENTS | {
    "_+_", "_-_", "_*_", "_/_", "_%_", "-_", "_[_]", "_?_:_", "int", "uint", "double", "bool", "string", "bytes", "type", "dyn",
    "duration", "timestamp", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours",
    "getMilliseconds", "getMinutes", "getMonth", "getSeconds",
}  # fmt: skip
"""CEL's standard functions. A call of another is refused when an expression is made, as in Envoy."""


class UnknownFunctionError(Exception):
    """The expression calls what is no standard function."""


class Bound(NamedTuple):
    """Bytes of a value, units of the work for it."""

    size: int
    cost: int


Scope = Mapping[str, int]
"""Sizes of what the names stand for that comprehensions bind."""


class Tree:
    """The syntax tree of one expression."""

    def __init__(self, serialised: bytes) -> None:
        """Of what cel_expr_python's `Expression.serialize` gives. Raises UnknownFunctionError, DecodeError."""
        self.root = child(child(serialised, ANY_VALUE), PARSED_EXPR)
        self.reads: set[tuple[str, str]] = set()
        """Attributes by group and name; without a name: all of the group, or a name of no group."""
        self.gather(self.root, frozenset())
        self.path = self.attribute(self.root)
        """The attribute, if the expression is nothing but one."""

    def gather(self, expr: bytes, bound: frozenset[str]) -> None:
        """Notes what is read; `bound` are the names that comprehensions around it bind."""
        found = self.attribute(expr)
        if found is not None:
            if found[0] not in bound:
                self.reads.add(found)
            return
        kind, node = variant(expr)
        if kind == COMPREHENSION:
            bound |= {text(node, number) for number in (1, 3, 8)}
        if kind == CALL and text(node, 2) not in KNOWN:
            raise UnknownFunctionError(text(node, 2))
        for inner in children(kind, node):
            self.gather(inner, bound)

    def attribute(self, expr: bytes) -> tuple[str, str] | None:
        """`name`, `group.name` or `group['name']`."""
        kind, node = variant(expr)
        if kind == IDENT:
            return text(node, 1), ""
        if kind == SELECT and not child(node, 3):
            operand, name = variant(child(node, 1)), text(node, 2)
        elif kind == CALL and text(node, 2) == "_[_]":
            arguments = list(all_of(node, 3))
            operand, (key_kind, key) = variant(arguments[0]), variant(arguments[1])
            name = text(key, 6) if key_kind == CONST else ""
        else:
            return None
        return (text(operand[1], 1), name) if operand[0] == IDENT and name else None

    def bound(self, read: int) -> int:
        """Units that one evaluation costs at most, if the attributes have `read` bytes."""
        whole = self.measure(self.root, {}, read)
        return whole.cost + RESULT_BYTE * whole.size

    def measure(self, expr: bytes, scope: Scope, read: int) -> Bound:
        kind, node = variant(expr)
        if kind == CONST:
            return Bound(len(node) + SMALL, NODE)
        if kind == IDENT:
            return Bound(scope.get(text(node, 1), read), NODE)
        if kind == COMPREHENSION:
            return self.measure_loop(node, scope, read)
        inner = [self.measure(one, scope, read) for one in children(kind, node)]
        size = sum(one.size for one in inner)
        cost = NODE + sum(one.cost for one in inner)
        if kind == SELECT:
            return Bound(size, cost)
        if kind in (LIST, STRUCT):
            return Bound(size + ELEMENT * (len(inner) + 1), cost + size)
        name = text(node, 2)
        if name == "matches" and inner:
            cost += REGEX_BYTE * inner[-1].size
        # Adding to a comprehension's own list does not copy it.
        copied = 0 if "@result" in scope and name in ("_+_", "_?_:_", "_||_", "_&&_") and accumulates(node) else size
        return Bound(SMALL if name in JUDGEMENTS else size + SMALL, cost + copied)

    def measure_loop(self, node: bytes, scope: Scope, read: int) -> Bound:
        over = self.measure(child(node, 2), scope, read)
        start = self.measure(child(node, 4), scope, read)
        times = min(over.size // ELEMENT + 1, MOST_ITERATIONS)
        condition, step = child(node, 5), child(node, 6)
        # Elements together are as large as the list. Where one is gone through again, each counts as the largest could be.
        element = over.size if nested(step) else over.size // times + ELEMENT
        names = {text(node, 1): element, text(node, 8): element}
        grown = self.measure(step, {**scope, **names, text(node, 3): 0}, read)
        step_kind, step_node = variant(step)
        judges = step_kind == CALL and text(step_node, 2) in JUDGEMENTS  # `all`, `exists`: what is carried on stays small
        result = max(start.size, grown.size) if judges else start.size + times * grown.size
        inner = {**scope, **names, text(node, 3): result}
        rounds = times * (grown.cost + self.measure(condition, inner, read).cost)
        last = self.measure(child(node, 7), inner, read)
        return Bound(last.size, NODE + over.cost + start.cost + rounds + last.cost)


def variant(expr: bytes) -> tuple[int, bytes]:
    """Which kind of node, and it."""
    for number, _, value in fields(expr):
        if CONST <= number <= COMPREHENSION and isinstance(value, bytes):
            return number, value
    return CONST, b""


def all_of(node: bytes, number: int) -> Iterator[bytes]:
    for found, _, value in fields(node):
        if found == number:
            yield value if isinstance(value, bytes) else b"1" * bool(value)


def child(node: bytes, number: int) -> bytes:
    """The field, or b""; of a number: whether it is 0."""
    return next(all_of(node, number), b"")


def text(node: bytes, number: int) -> str:
    return child(node, number).decode("utf-8", "replace")


def children(kind: int, node: bytes) -> Iterator[bytes]:
    if kind == SELECT:
        yield child(node, 1)
    elif kind == CALL:
        yield from all_of(node, 1)
        yield from all_of(node, 3)
    elif kind == LIST:
        yield from all_of(node, 1)
    elif kind == STRUCT:
        for entry in all_of(node, 2):
            yield from all_of(entry, 3)
            yield from all_of(entry, 4)
    elif kind == COMPREHENSION:
        for number in (2, 4, 5, 6, 7):
            yield from all_of(node, number)


def nested(expr: bytes) -> bool:
    """Is there a comprehension in it?"""
    kind, node = variant(expr)
    return kind == COMPREHENSION or any(nested(one) for one in children(kind, node))


def accumulates(call: bytes) -> bool:
    """Is one of the arguments the comprehension's own accumulator?"""
    return any(variant(one) == (IDENT, b"\n\x07@result") for one in all_of(call, 3))
