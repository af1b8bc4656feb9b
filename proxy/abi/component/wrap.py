"""From a core module that was built for the world to a component: what `wasm-tools component new` does, for this world alone.

The module is one that wit-bindgen or a hand-written C header would give (component model, canonical ABI, "C/C++ producers"):
it imports functions as `penstock:filter/logging@0.1.0` `log`, exports `penstock:filter/http-filter@0.1.0#on-log`, `memory`
and `cabi_realloc`, and perhaps `cabi_post_...` for what a result leaves.

The imports need the module's memory, and the module needs its imports: so it gets functions that jump through a table, which a
last small module fills. wasmtime turns the text into a binary; the module goes in as it is, for the text has only a stand-in.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import wasmtime

from proxy.abi.component import world
from proxy.abi.component.stubs import AGAIN, CLOCK, NEEDED, RANDOM, WASI, stubs_text, typed
from proxy.abi.component.types import (
    Enum,
    Flags,
    Function,
    Interfaces,
    List,
    Option,
    Plain,
    Record,
    Result,
    Tuple,
    Type,
    Variant,
)
from proxy.wasm.module import COMPONENT_PREAMBLE, MODULE_PREAMBLE, Import, Module, read

NAMES: dict[Type, str] = {
    world.DATA: "data", world.EDIT: "header-edit", world.RESPONSE: "local-response", world.ACTION: "action",
    world.HEADERS_RESULT: "headers-result", world.BODY_RESULT: "body-result", world.HELD_RESULT: "held-result",
    Flags(world.PHASES): "phases", world.INFO: "filter-info", world.LEVEL: "level", world.KV_ENTRY: "entry",
    world.KV_ERROR: "error", world.CALL: "request", world.ANSWER: "response",
}  # fmt: skip
MOST_FLAT_PARAMS = 16
MOST_FLAT_RESULTS = 1
CORE_SECTION = 1
IMPORT_SECTION = 2
FUNCTION = 0
"""A kind of import."""
POST_TYPE = "(param i32)"
INITIALIZE = "_initialize"


class WrapError(Exception):
    """The module is not one for this world; the text says why."""


class Core(NamedTuple):
    """What the text has to know of the module: the names that it exports, the functions of the world that it imports, and what
    it imports of WASI, to be answered by stubs."""

    exported: set[str]
    imported: set[tuple[str, str]]
    wasi: Sequence[Import]


def wrap(
    core: bytes, imports: Interfaces = world.IMPORTS, exports: Interfaces = world.EXPORTS, *, stub_wasi: bool = False
) -> bytes:
    """The component. `stub_wasi`: what the module imports of WASI is answered within (stubs.py).

    Raises WrapError, ModuleError.
    """
    if stub_wasi:
        core = with_other_names(core)
    module = read(core)
    found = {one.name for one in module.exports if one.kind == "function"}
    for name in ("cabi_realloc", *(f"{interface}#{name}" for interface, own in exports.items() for name in own)):
        if name not in found:
            raise WrapError(f"the module does not export the function {name}")
    if not any(one.kind == "memory" and one.name == "memory" for one in module.exports):
        raise WrapError("the module does not export its memory as memory")
    wasi = [one for one in module.imports if stub_wasi and one.module == WASI and one.function is not None]
    world_imports = used(module, imports, wasi)
    own = {(interface, name) for interface, functions in world_imports.items() for name in functions}
    for interface, name in NEEDED if wasi else ():
        world_imports.setdefault(interface, {})[name] = imports[interface][name]
    binary = bytes(wasmtime.wat2wasm(text(world_imports, exports, Core(found, own, wasi))))
    return with_module(binary, core)


def used(module: Module, imports: Interfaces, but: Sequence[Import]) -> dict[str, dict[str, Function]]:
    """Of `imports` what the module imports; it must import nothing else `but` these."""
    own: dict[str, dict[str, Function]] = {}
    for one in module.imports:
        if one in but:
            continue
        function = imports.get(one.module, {}).get(one.name)
        if function is None or one.kind != "function":
            raise WrapError(f"the module imports {one.module} {one.name}, which the world does not have")
        own.setdefault(one.module, {})[one.name] = function
    return own


def with_module(binary: bytes, core: bytes) -> bytes:
    """Put the module in the place of the stand-in, the first core module."""
    at = len(COMPONENT_PREAMBLE)
    while at < len(binary):
        start, section = at, binary[at]
        size, at = leb_at(binary, at + 1)
        if section == CORE_SECTION:
            return binary[:start] + bytes([CORE_SECTION]) + leb(len(core)) + core + binary[at + size :]
        at += size
    raise AssertionError("the text has a core module")


def with_other_names(core: bytes) -> bytes:
    """The module without a name that is imported twice, as Go does: no component may have one. Raises WrapError."""
    at = len(MODULE_PREAMBLE)
    while at < len(core):
        start, section = at, core[at]
        size, at = leb_at(core, at + 1)
        if section == IMPORT_SECTION:
            count, place = leb_at(core, at)
            entries, known = [], set()
            for number in range(count):
                module, place = name_at(core, place)
                name, place = name_at(core, place)
                if core[place] != FUNCTION:
                    raise WrapError(f"the module imports {name.decode('utf-8', 'replace')}, which is no function")
                _, end = leb_at(core, place + 1)
                unique = name if (module, name) not in known else name + b"%b%d" % (AGAIN, number)
                known.add((module, unique))
                entries.append(leb(len(module)) + module + leb(len(unique)) + unique + core[place:end])
                place = end
            body = leb(count) + b"".join(entries)
            return core[:start] + bytes([section]) + leb(len(body)) + body + core[at + size :]
        at += size
    return core


def name_at(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = leb_at(data, at)
    return data[at : at + size], at + size


def leb_at(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def leb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---- The text ----


def text(imports: Interfaces, exports: Interfaces, core: Core) -> str:
    lines = ["(component"]
    functions = [(interface, name, function) for interface, own in imports.items() for name, function in own.items()]
    for interface, own in imports.items():
        lines += imported(interface, own)
    lines += core_part(functions, exports, core)
    for interface, own in exports.items():
        lines += exported(interface, own, core.exported)
    return "\n".join([*lines, ")"])


def imported(interface: str, functions: Mapping[str, Function]) -> Iterator[str]:
    names = Names(functions.values())
    yield f'(import "{interface}" (instance ${interface}'
    for type_, label in names.named.items():
        yield f"(type ${label}-plain {names.definition(type_)})"
        yield f'(export "{label}" (type ${label} (eq ${label}-plain)))'
    for name, function in functions.items():
        yield f'(export "{name}" {names.function(function)})'
    yield "))"


def core_part(functions: list[tuple[str, str, Function]], exports: Interfaces, core: Core) -> Iterator[str]:
    """The module, its imports through a table, and what fills the table."""
    jumps = [(interface, name, core_type(function)) for interface, name, function in functions]
    jumps += [(WASI, one.name, typed(one)) for one in core.wasi]
    n, of_world = len(jumps), len(functions)
    posts = [name for name in sorted(core.exported) if name.startswith("cabi_post_")]
    by_interface: dict[str, list[int]] = {}
    for i, (interface, name, _) in enumerate(jumps):
        if i >= of_world or (interface, name) in core.imported:
            by_interface.setdefault(interface, []).append(i)
    mine = [jumps[i] for members in by_interface.values() for i in members]
    stand_in = [f'(import "{interface}" "{name}" (func {type_}))' for interface, name, type_ in mine]
    stand_in += [
        '(memory (export "memory") 0)',
        '(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)',
    ]
    stand_in += [
        f'(func (export "{interface}#{name}") {core_type(function, lifted=True)} unreachable)'
        for interface, own in exports.items()
        for name, function in own.items()
    ]
    stand_in += [f'(func (export "{name}") {POST_TYPE})' for name in posts]
    if INITIALIZE in core.exported:
        stand_in.append(f'(func (export "{INITIALIZE}"))')
    yield f"(core module $main {' '.join(stand_in)})"
    yield "(core module $jumps"
    yield f'(table (export "table") {n} {n} funcref)'
    for i, (_, _, type_) in enumerate(jumps):
        arguments = " ".join(f"(local.get {k})" for k in range(len(params_of(type_))))
        yield f'(func (export "{i}") {type_} (call_indirect {type_} {arguments} (i32.const {i})))'
    yield ")"
    yield "(core instance $jumps (instantiate $jumps))"
    groups = []
    for interface, members in by_interface.items():
        named = " ".join(f'(export "{jumps[i][1]}" (func $jumps "{i}"))' for i in members)
        groups.append(f'(with "{interface}" (instance {named}))')
    yield f"(core instance $main (instantiate $main {' '.join(groups)}))"
    yield '(alias core export $main "memory" (core memory $memory))'
    realloc_of = "stubs" if core.wasi else "main"
    if core.wasi:
        yield from stubs_part(core.wasi)
    yield f'(alias core export ${realloc_of} "cabi_realloc" (core func $realloc))'
    for i, (interface, name, _) in enumerate(functions):
        yield f'(core func $f{i} (canon lower (func ${interface} "{name}") (memory $memory) (realloc $realloc)))'
    main = " ".join(f'(export "{i}" (func $f{i}))' for i in range(of_world))
    if core.wasi:
        main += "".join(f' (export "{i}" (func $stubs "{jumps[i][1]}"))' for i in range(of_world, n))
    yield "(core module $fill"
    for i, (_, _, type_) in enumerate(jumps):
        yield f'(import "" "{i}" (func {type_}))'
    yield f'(import "" "table" (table {n} {n} funcref))'
    if n:
        yield f"(elem (i32.const 0) func {' '.join(map(str, range(n)))})"
    yield ")"
    yield f'(core instance (instantiate $fill (with "" (instance {main} (export "table" (table $jumps "table"))))))'
    if INITIALIZE in core.exported:
        yield f'(core module $start (import "main" "{INITIALIZE}" (func)) (start 0))'
        given_start = f'(with "main" (instance (export "{INITIALIZE}" (func $main "{INITIALIZE}"))))'
        yield f"(core instance (instantiate $start {given_start}))"


def stubs_part(wasi: Sequence[Import]) -> Iterator[str]:
    """The stubs, with what they need of the world: numbers alone, for which no memory is wanted."""
    yield stubs_text(wasi)
    for number, (interface, name) in enumerate(NEEDED):
        yield f'(core func $needed{number} (canon lower (func ${interface} "{name}")))'
    given = []
    for wanted in (CLOCK, RANDOM):
        found = [f'(export "{name}" (func $needed{number}))' for number, (one, name) in enumerate(NEEDED) if one == wanted]
        given.append(f'(with "{wanted}" (instance {" ".join(found)}))')
    yield f'(core instance $stubs (instantiate $stubs {" ".join(given)} (with "main" (instance $main))))'


def params_of(type_: str) -> list[str]:
    """The parameters of a core type in text."""
    found = re.match(r"\(param ([^)]*)\)", type_)
    return found[1].split() if found else []


def exported(interface: str, functions: Mapping[str, Function], found: set[str]) -> Iterator[str]:
    """An interface's types need names where it is exported: a component in between gives them."""
    names = Names(functions.values())
    for type_, label in names.named.items():
        yield f"(type ${label} {names.definition(type_)})"
    for name, function in functions.items():
        post = f"cabi_post_{interface}#{name}"
        tail = f' (post-return (core func $main "{post}"))' if post in found else ""
        yield (
            f'(func $call-{name} {names.signature(function)} (canon lift (core func $main "{interface}#{name}") '
            f"(memory $memory) (realloc $realloc){tail}))"
        )
    yield "(component $named"
    for type_, label in names.named.items():
        yield f"(type ${label}-plain {names.definition(type_)})"
        yield f'(import "type-{label}" (type ${label} (eq ${label}-plain)))'
    for name, function in functions.items():
        yield f'(import "call-{name}" (func $in-{name} {names.signature(function)}))'
    outer = Names(functions.values(), suffix="-out")
    for type_, label in names.named.items():
        yield f"(type ${label}-again {outer.definition(type_)})"
        yield f'(export ${label}-out "{label}" (type ${label}-again))'
    for name, function in functions.items():
        yield f'(export "{name}" (func $in-{name}) {outer.function(function)})'
    yield ")"
    given = [f'(with "type-{label}" (type ${label}))' for label in names.named.values()]
    given += [f'(with "call-{name}" (func $call-{name}))' for name in functions]
    yield f"(instance $out (instantiate $named {' '.join(given)}))"
    yield f'(export "{interface}" (instance $out))'


class Names:
    """The types of some functions that must have names, each before those that use it."""

    def __init__(self, functions: Iterable[Function], suffix: str = "") -> None:
        self.named: dict[Type, str] = {}
        self.suffix = suffix
        for function in functions:
            for _, type_ in function.params:
                self.collect(type_)
            if function.result is not None:
                self.collect(function.result)

    def collect(self, type_: Type) -> None:
        for part in parts_of(type_):
            self.collect(part)
        if isinstance(type_, Record | Variant | Enum | Flags) and type_ not in self.named:
            self.named[type_] = NAMES.get(type_, f"type{len(self.named)}")

    def of(self, type_: Type | None) -> str:
        if type_ is None:
            return ""
        if type_ in self.named:
            return f"${self.named[type_]}{self.suffix}"
        match type_:
            case List():
                return f"(list {self.of(type_.element)})"
            case Tuple():
                return f"(tuple {' '.join(map(self.of, type_.parts))})"
            case Option():
                return f"(option {self.of(type_.some)})"
            case Result():
                error = f" (error {self.of(type_.err)})" if type_.err is not None else ""
                return f"(result {self.of(type_.ok)}{error})"
        return str(type_)

    def definition(self, type_: Type) -> str:
        match type_:
            case Record():
                return f"(record {' '.join(f'(field {quoted(name)} {self.of(part)})' for name, part in type_.fields)})"
            case Variant():
                return f"(variant {' '.join(f'(case {quoted(name)} {self.of(part)})' for name, part in type_.cases)})"
            case Enum():
                return f"(enum {' '.join(map(quoted, type_.names))})"
            case Flags():
                return f"(flags {' '.join(map(quoted, type_.names))})"
        raise AssertionError(type_)

    def signature(self, function: Function) -> str:
        params = " ".join(f"(param {quoted(name)} {self.of(type_)})" for name, type_ in function.params)
        return params + (f" (result {self.of(function.result)})" if function.result is not None else "")

    def function(self, function: Function) -> str:
        return f"(func {self.signature(function)})"


def quoted(name: str) -> str:
    return f'"{name}"'


def parts_of(type_: Type) -> list[Type]:
    match type_:
        case List():
            return [type_.element]
        case Tuple():
            return list(type_.parts)
        case Record():
            return [part for _, part in type_.fields]
        case Variant():
            return [part for _, part in type_.cases if part is not None]
        case Option():
            return [type_.some]
        case Result():
            return [part for part in (type_.ok, type_.err) if part is not None]
    return []


# ---- Core types (component model, canonical ABI, "flattening") ----


def core_type(function: Function, lifted: bool = False) -> str:
    params, results = flat(function, lifted)
    text = f"(param {' '.join(params)})" if params else ""
    return text + (f" (result {' '.join(results)})" if results else "")


def flat(function: Function, lifted: bool = False) -> tuple[list[str], list[str]]:
    """Core parameters and results: of an export if `lifted`, else of an import."""
    params = [one for _, type_ in function.params for one in flat_type(type_)]
    if len(params) > MOST_FLAT_PARAMS:
        params = ["i32"]
    results = [] if function.result is None else flat_type(function.result)
    if len(results) > MOST_FLAT_RESULTS:
        if lifted:
            return params, ["i32"]
        return [*params, "i32"], []
    return params, results


def flat_type(type_: Type) -> list[str]:
    match type_:
        case Plain():
            return {"string": ["i32", "i32"], "u64": ["i64"], "s64": ["i64"]}.get(type_.name, ["i32"])
        case List():
            return ["i32", "i32"]
        case Tuple() | Record():
            return [one for part in parts_of(type_) for one in flat_type(part)]
        case Enum() | Flags():
            return ["i32"]
    joined: list[str] = []
    for part in parts_of(type_):
        for i, one in enumerate(flat_type(part)):
            if i == len(joined):
                joined.append(one)
            elif joined[i] != one:
                joined[i] = "i64" if "i64" in (one, joined[i]) else "i32"
    return ["i32", *joined]
