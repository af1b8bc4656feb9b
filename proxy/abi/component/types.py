"""Types of the component model, as far as the world of wit/ has them, and how to read those of a component.

wasmtime compares neither a component's exports nor the functions it imports with anything: that is done here, once for each
component, and what the codec reads later is of the type it expects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import wasmtime
from wasmtime import component

from proxy.wasm import capi


@dataclass(frozen=True)
class Plain:
    """bool, u16, u32, u64, s64 or string.

    `isomorphic`: a string that stands for bytes, a character for each (byte-string in the WIT).
    """

    name: str
    isomorphic: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class List:
    element: "Type"

    def __str__(self) -> str:
        return f"list<{self.element}>"


@dataclass(frozen=True)
class Tuple:
    parts: "tuple[Type, ...]"

    def __str__(self) -> str:
        return f"tuple<{', '.join(map(str, self.parts))}>"


@dataclass(frozen=True)
class Record:
    fields: "tuple[tuple[str, Type], ...]"

    def __str__(self) -> str:
        return f"record {{{', '.join(f'{name}: {type_}' for name, type_ in self.fields)}}}"


@dataclass(frozen=True)
class Variant:
    cases: "tuple[tuple[str, Type | None], ...]"

    def __str__(self) -> str:
        return f"variant {{{', '.join(name if type_ is None else f'{name}({type_})' for name, type_ in self.cases)}}}"


@dataclass(frozen=True)
class Enum:
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"enum {{{', '.join(self.names)}}}"


@dataclass(frozen=True)
class Flags:
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"flags {{{', '.join(self.names)}}}"


@dataclass(frozen=True)
class Option:
    some: "Type"

    def __str__(self) -> str:
        return f"option<{self.some}>"


@dataclass(frozen=True)
class Result:
    ok: "Type | None"
    err: "Type | None"

    def __str__(self) -> str:
        return f"result<{self.ok or '_'}, {self.err or '_'}>"


Type = Plain | List | Tuple | Record | Variant | Enum | Flags | Option | Result


@dataclass(frozen=True)
class Function:
    params: tuple[tuple[str, Type], ...]
    result: Type | None = None

    def __str__(self) -> str:
        params = ", ".join(f"{name}: {type_}" for name, type_ in self.params)
        return f"func({params})" + (f" -> {self.result}" if self.result is not None else "")


Interfaces = Mapping[str, Mapping[str, Function]]
"""Functions by name, by the interface's name."""


LONGEST_SHOWN: Final = 200


class ForeignTypeError(Exception):
    """A type that no world of Penstock's has: a resource, a future, a float."""


PLAIN: Final = {
    component.Bool: "bool", component.U8: "u8", component.U16: "u16", component.U32: "u32", component.U64: "u64",
    component.S8: "s8", component.S16: "s16", component.S32: "s32", component.S64: "s64", component.F32: "f32",
    component.F64: "f64", component.Char: "char", component.String: "string",
}  # fmt: skip


MOST_PARTS: Final = 1000
"""Types within one function's type. The file decides how many there are, the world has less than 100."""


class Reader:
    """Reads one function's type from wasmtime-py's."""

    def __init__(self) -> None:
        self.parts = 0

    def type(self, found: Any) -> Type:
        """Raises ForeignTypeError."""
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise ForeignTypeError(f"of more than {MOST_PARTS} parts")
        match found:
            case component.ListType():
                return List(self.type(found.element))
            case component.TupleType():
                return Tuple(tuple(self.type(part) for part in found.elements))
            case component.RecordType():
                return Record(tuple((name, self.type(type_)) for name, type_ in found.fields))
            case component.VariantType():
                return Variant(tuple((name, self.optional(type_)) for name, type_ in found.cases))
            case component.EnumType():
                return Enum(tuple(found.names))
            case component.FlagsType():
                return Flags(tuple(found.names))
            case component.OptionType():
                return Option(self.type(found.payload))
            case component.ResultType():
                return Result(self.optional(found.ok), self.optional(found.err))
        name = PLAIN.get(type(found))
        if name is None:
            raise ForeignTypeError(type(found).__name__.removesuffix("Type").lower())
        return Plain(name)

    def optional(self, found: Any) -> Type | None:
        return None if found is None else self.type(found)


def read_function(found: Any) -> Function:
    """One of wasmtime-py's function types as ours. Raises ForeignTypeError."""
    if capi.is_async(found):
        raise ForeignTypeError("async func")
    reader = Reader()
    params = tuple((name, reader.type(type_)) for name, type_ in found.params)
    return Function(params, reader.optional(found.result))


def differences(engine: wasmtime.Engine, externs: Mapping[str, Any], wanted: Interfaces, all_of_them: bool) -> list[str]:
    """What in `externs` (a component's imports, or exports) is not as `wanted` has it, a line for each.

    `all_of_them`: each of `wanted` must be there. A function that is there must have the type wanted.
    """
    problems = []
    for interface, functions in wanted.items():
        found = externs.get(interface)
        if found is None:
            if all_of_them:
                problems.append(f"{interface} is missing")
            continue
        instance = found.ty
        if not isinstance(instance, component.ComponentInstanceType):
            problems.append(f"{interface} is not an interface")
            continue
        items = {name: item.ty for name, item in instance.exports(engine).items()}
        own = {name: item for name, item in items.items() if isinstance(item, component.FuncType)}
        for name, function in functions.items():
            if name in own:
                problems += compare(f"{interface}, {name}", own[name], function)
            elif all_of_them:
                problems.append(f"{interface}, {name} is missing")
        if not all_of_them:
            problems += [f"{interface}, {name} does not exist" for name in own if name not in functions]
    return problems


def compare(name: str, found: Any, wanted: Function) -> list[str]:
    try:
        function = read_function(found)
    except (ForeignTypeError, TypeError, RecursionError) as error:
        return [f"{name} has a type that is not the world's ({error})"]
    if function == wanted:
        return []
    for (param, type_), (wanted_param, wanted_type) in zip(function.params, wanted.params, strict=False):
        if (param, type_) != (wanted_param, wanted_type):
            has = f"{shown(param)}: {shown(type_)}"
            return [f"{name} has the parameter {has}, the world {wanted_param}: {shown(wanted_type)}"]
    if len(function.params) == len(wanted.params):
        return [f"{name} gives {shown(function.result or 'nothing')}, the world {shown(wanted.result or 'nothing')}"]
    return [f"{name} is {shown(function)}, the world's is {shown(wanted)}"]


def shown(type_: object) -> str:
    """A type, cut: an untrusted file's may be of any length."""
    text = str(type_)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} ..."
