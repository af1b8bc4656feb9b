"""Values of components as a trace shows them, by their types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from proxy.abi.component.types import Enum, Flags, Function, List, Option, Plain, Record, Result, Tuple, Type, Variant
from proxy.kit.shown import shown

MOST_ITEMS: Final = 64
"""Elements of a list that are shown."""
STRING: Final = Plain("string")


def text_of(type_: Type | None, value: Any) -> str:
    """A value in the codec's form (abi/component/codec.py); without a type it is empty."""
    match type_:
        case None:
            return ""
        case Plain("string"):
            return shown(value)
        case Plain("bool"):
            return "true" if value else "false"
        case Plain():
            return str(value)
        case List(Tuple((Plain("string"), Plain("string")))):
            return "{" + listed([f"{shown(name)}: {shown(field)}" for name, field in value[:MOST_ITEMS]], value) + "}"
        case List(element):
            return "[" + listed([text_of(element, one) for one in value[:MOST_ITEMS]], value) + "]"
        case Tuple(parts):
            return ", ".join(text_of(part, one) for part, one in zip(parts, value, strict=True))
        case Record(fields):
            named = [f"{name}: {text_of(part, one)}" for (name, part), one in zip(fields, value, strict=True)]
            return "{" + ", ".join(named) + "}"
        case Variant(cases):
            number, payload = value
            name, part = cases[number]
            return name if part is None else f"{name}({text_of(part, payload)})"
        case Enum(names):
            return str(names[value])
        case Flags(names):
            return "|".join(name for i, name in enumerate(names) if value >> i & 1) or "none"
        case Option(some):
            return "none" if value is None else text_of(some, value)
        case Result(ok, err):
            is_ok, payload = value
            return f"ok {text_of(ok, payload)}".rstrip() if is_ok else f"error {text_of(err, payload)}".rstrip()


def listed(items: Sequence[str], whole: Sequence[Any]) -> str:
    more = [f"... ({len(whole)} in all)"] if len(whole) > len(items) else []
    return ", ".join([*items, *more])


def arguments_text(function: Function, values: Sequence[Any], names: bool) -> str:
    """`names`: each argument behind its name."""
    pairs = zip(function.params, values, strict=True)
    return ", ".join((f"{name}=" if names else "") + text_of(type_, value) for (name, type_), value in pairs)
