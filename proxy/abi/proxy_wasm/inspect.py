"""What a filter's file says about itself, without compiling or running it: its ABI, its imports and exports, its size,
the grants it will ask for; and whether the limits let it pass.

Names come from an untrusted file: they are shown escaped and cut, and are for people and logs, not for linking.
"""

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Protocol

from proxy.abi.component.inspect import ComponentFacts, facts, refusals
from proxy.abi.proxy_wasm import origin
from proxy.abi.proxy_wasm.signatures import (
    CALLBACKS,
    CALLBACKS_BY_VERSION,
    HOST_FUNCTION_VERSIONS,
    LIFECYCLE,
    MARKERS,
    UNUSED_CALLBACKS,
    WASI_MODULES,
    import_signatures,
)
from proxy.config.units import format_size
from proxy.wasm.module import LARGEST_MODULE, FunctionType, Import, Module, ModuleError, format_of, read

LONGEST_SHOWN = 120  # characters of a name
MOST_LISTED = 20  # names in one problem
MISSPELT = 0.8  # likeness (difflib's) from which a name is taken for another, misspelt
DEFAULT_MEMORY = 16 << 20  # bytes, the default of a filter's `memory`

Group = Literal["host", "wasi", "environment", "unknown"]


@dataclass(frozen=True, slots=True)
class ImportedFunction:
    """`name` has its module before a dot: `env.proxy_log`. `problem` is empty for an import that can be linked."""

    name: str
    type: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ExportedCallback:
    """`why` says why it can never be called; it is empty for a callback that can."""

    name: str
    type: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A setting that the filter's config may have to give, and what shows it. Some are deny-all unless given
    (`capabilities.allowed_hosts`, `capabilities.env`), the others have a default (`limits.tick`)."""

    grant: str
    because: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """Sizes in bytes. For a component everything after `kind` is empty but `component` and `grants`.

    `imports` groups the imported functions (host: `proxy_*`; wasi; environment: what else Envoy offers; unknown:
    nobody offers it); `imported_externs` are the imports that are no functions; `imports_outside_version` lists host
    functions that Envoy refuses to a module of this ABI version, Penstock not. `functions` counts those with a body.
    `mistyped` are exports that the host would call under another type: like Envoy, Penstock refuses the module.
    """

    size: int
    sha256: str
    kind: Literal["module", "component"]
    abi_version: str | None = None
    abi_markers: tuple[str, ...] = ()
    language: str | None = None
    sdk: str | None = None
    producers: tuple[str, ...] = ()
    imports: dict[str, tuple[ImportedFunction, ...]] = field(default_factory=dict)
    imports_outside_version: tuple[str, ...] = ()
    imported_externs: tuple[str, ...] = ()
    callbacks: tuple[ExportedCallback, ...] = ()
    unreachable: tuple[ExportedCallback, ...] = ()
    mistyped: tuple[str, ...] = ()
    memory_minimum: int = 0
    memory_maximum: int | None = None
    memories: int = 0
    memory_export: str | None = None
    memory_is_64_bit: bool = False
    shared_memory: bool = False
    tables: int = 0
    table_minimum: int = 0
    functions: int = 0
    largest_function_body: int = 0
    code_size: int = 0
    start_section: bool = False
    start_export: str | None = None
    allocator: str | None = None
    grants: tuple[Grant, ...] = ()
    component: ComponentFacts | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings, numbers and None, for JSON."""
        return asdict(self, dict_factory=plain)


class Limits(Protocol):
    """What `check_limits` reads of a filter's `limits`: bytes, a count, bytes."""

    @property
    def module(self) -> int: ...
    @property
    def functions(self) -> int: ...
    @property
    def function_body(self) -> int: ...


def plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict whose tuples are lists, as JSON has it."""
    return {name: listing(value) for name, value in pairs}


def listing(value: Any) -> Any:
    match value:
        case tuple():
            return list(value)
        case dict():
            return {name: listing(item) for name, item in value.items()}
    return value


def inspect(path: Path) -> Inspection:
    """Reads the file. Raises ModuleError for what is not WebAssembly, OSError if it can't be read."""
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise ModuleError("is no regular file")  # reading a pipe or a device may never end
    size = found.st_size
    if size > LARGEST_MODULE:
        raise ModuleError(f"the file has {size} bytes; no engine takes a module of more than 1 GiB")
    return inspect_bytes(path.read_bytes())


def inspect_bytes(data: bytes) -> Inspection:
    """As `inspect`, of bytes in memory. Time is linear in their number."""
    digest = hashlib.sha256(data).hexdigest()
    if format_of(data) == "component":
        found = facts(data)
        granted = tuple(Grant(*grant) for grant in found.grants)
        return Inspection(size=len(data), sha256=digest, kind="component", component=found, grants=granted)
    module = read(data)
    exports = {export.name: export for export in module.exports}
    functions = {name: export.function for name, export in exports.items() if export.function is not None}
    markers = tuple(name for name in functions if name in MARKERS)
    version = MARKERS[markers[0]] if markers else None
    imports = grouped(module.imports, version)
    # To look for what a name may have meant takes a tenth of a millisecond, and a module may have any number of names.
    suggested = [name for name in functions if is_callback(name) and name not in CALLBACKS][:MOST_LISTED]
    callbacks = tuple(
        described(name, type_, version, name in suggested) for name, type_ in functions.items() if is_callback(name)
    )
    callbacks += tuple(
        ExportedCallback(shown(export.name), "", f"is a {export.kind}, not a function")
        for export in module.exports
        if export.kind != "function" and is_callback(export.name)
    )
    language = origin.language(module, data)
    memory = module.memories[0] if module.memories else None
    return Inspection(
        size=len(data),
        sha256=digest,
        kind="module",
        abi_version=version,
        abi_markers=markers,
        language=language,
        sdk=origin.sdk(data, language, functions, CALLBACKS),
        producers=tuple(
            shown(f"{field}: {name} {number}".rstrip())
            for field, entries in module.producers.items()
            for name, number in entries
        )[:MOST_LISTED],
        imports=imports,
        imports_outside_version=tuple(outside(imports, version)),
        imported_externs=tuple(
            f"{one.kind} {shown(f'{one.module}.{one.name}')}" for one in module.imports if one.kind != "function"
        ),
        callbacks=tuple(one for one in callbacks if not one.why),
        unreachable=tuple(one for one in callbacks if one.why),
        mistyped=tuple(mistyped(functions, version)),
        memory_minimum=memory.minimum if memory else 0,
        memory_maximum=memory.maximum if memory else None,
        memories=len(module.memories),
        memory_export=next((shown(one.name) for one in module.exports if one.kind == "memory"), None),
        memory_is_64_bit=any(one.is_64_bit for one in module.memories),
        shared_memory=any(one.shared for one in module.memories),
        tables=len(module.tables),
        table_minimum=sum(one.minimum for one in module.tables),
        functions=module.functions,
        largest_function_body=module.largest_body,
        code_size=module.code_size,
        start_section=module.start is not None,
        start_export=next((name for name in ("_initialize", "_start") if name in functions), None),
        allocator=next((name for name in ("proxy_on_memory_allocate", "malloc") if name in functions), None),
        grants=tuple(grants(module, imports)),
    )


def check_limits(inspection: Inspection, limits: Limits, memory: int | None = None) -> list[str]:
    """Why the module can't be loaded, everything at once, each as `problem; what to write`; empty if it can.

    `memory` is the filter's memory limit in bytes; None leaves it unchecked. Checks that the engine makes by itself
    (a valid function body, say) are left to the compiler.
    """
    if inspection.component is not None:
        return [f"{problem}; {mend}" for problem, mend in refusals(inspection.component, limits, memory)]
    problems = []
    for setting, size, limit in (
        ("module", inspection.size, limits.module),
        ("function_body", inspection.largest_function_body, limits.function_body),
    ):
        if size > limit:
            what = "the module is" if setting == "module" else "the largest function's body is"
            problems.append(
                f"{what} {show_size(size)}, more than limits.{setting} {format_size(limit)}; "
                f"write limits: {{{setting}: {enough(size)}}}"
            )
    if inspection.functions > limits.functions:
        problems.append(
            f"the module has {inspection.functions} functions, more than limits.functions {limits.functions}; "
            f"write limits: {{functions: {inspection.functions}}}"
        )
    if memory is not None and inspection.memory_minimum > memory:
        problems.append(
            f"the module starts with {show_size(inspection.memory_minimum)} of memory, more than memory "
            f"{format_size(memory)}; write memory: {enough(inspection.memory_minimum)} or more, "
            "or build the filter with a smaller stack and heap"
        )
    return problems + structural(inspection)


def structural(inspection: Inspection) -> list[str]:
    """What no setting admits."""
    problems = []
    if inspection.abi_version is None:
        problems.append(
            "no proxy-wasm ABI version is exported; build the filter with a proxy-wasm SDK, or export a function named "
            + " or ".join(MARKERS)
        )
    if inspection.allocator is None:
        problems.append("no allocator is exported; export proxy_on_memory_allocate or malloc, (i32) -> (i32)")
    if inspection.shared_memory:
        problems.append("a shared memory is declared or imported, and is never allowed; build without threads")
    if inspection.imported_externs:
        problems.append(
            f"only functions can be imported, not {listed(inspection.imported_externs)}; "
            "build the filter with memory and tables of its own"
        )
    if inspection.memory_is_64_bit:
        problems.append("a 64-bit memory is declared; build the filter for wasm32")
    if inspection.memories > 1:
        problems.append(f"{inspection.memories} memories are declared; build the filter with one")
    elif inspection.memory_export is None:
        problems.append("no memory is exported; export the filter's memory as memory")
    unknown: list[ImportedFunction] = []
    wrong: list[ImportedFunction] = []
    for functions in inspection.imports.values():
        for function in functions:
            if function.problem:
                (unknown if function.problem == UNKNOWN else wrong).append(function)
    if unknown:
        names = listed(function.name for function in unknown)
        problems.append(f"imports that no proxy-wasm host offers: {names}; build the filter without them")
    problems += [f"import {function.name} {function.problem}; build the filter with that type" for function in wrong]
    problems += [f"export {text}; build the filter with that type" for text in inspection.mistyped]
    return problems


UNKNOWN = "is not offered by any proxy-wasm host"


def grouped(imports: Iterable[Import], version: str | None) -> dict[str, tuple[ImportedFunction, ...]]:
    """The imported functions by group, in the module's order; an import that is repeated is listed once."""
    groups: dict[Group, dict[ImportedFunction, None]] = {"host": {}, "wasi": {}, "environment": {}, "unknown": {}}
    for one in imports:
        if one.function is None:
            continue
        accepted = import_signatures(one.module, one.name)
        problem = ""
        if not accepted:
            problem = UNKNOWN
        elif as_signature(one.function) not in accepted:
            problem = f"has type {one.function}, the ABI's is {accepted[0]}"
        group: Group = "environment"
        if not accepted:
            group = "unknown"
        elif one.module in WASI_MODULES:
            group = "wasi"
        elif one.name.startswith("proxy_"):
            group = "host"
        name = f"{one.module}.{one.name}"
        groups[group][ImportedFunction(shown(name), shown(str(one.function)), problem and shown(problem))] = None
    return {group: tuple(functions) for group, functions in groups.items()}


def as_signature(type_: FunctionType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return type_.params, type_.results


def is_callback(name: str) -> bool:
    if name in LIFECYCLE:
        return False
    return name in CALLBACKS or name.startswith(("proxy_on_", "envoy_on_"))


def described(name: str, type_: FunctionType, version: str | None, suggest: bool) -> ExportedCallback:
    known = CALLBACKS_BY_VERSION[version or "0.2.1"]
    if name not in CALLBACKS:
        near = get_close_matches(name, known, 1, MISSPELT) if suggest else []
        why = "is not a callback of the ABI" + (f"; did you mean {near[0]}?" if near else "")
    elif name not in known:
        why = f"does not exist in ABI {version}"
    elif as_signature(type_) != known[name]:
        why = f"has type {type_}, the ABI's is {known[name]}"
    else:
        why = UNUSED_CALLBACKS.get(name, "")
    return ExportedCallback(shown(name), shown(str(type_)), shown(why))


def mistyped(functions: dict[str, FunctionType], version: str | None) -> Iterable[str]:
    for name, wanted in {**CALLBACKS_BY_VERSION[version or "0.2.1"], **LIFECYCLE}.items():
        if name in functions and as_signature(functions[name]) != wanted:
            yield shown(f"{name} has type {functions[name]}, the ABI's is {wanted}")


def grants(module: Module, imports: dict[str, tuple[ImportedFunction, ...]]) -> Iterable[Grant]:
    """The settings that decide how far the filter gets with what it imports, by their path in the filter's config."""
    used = {function.name.partition(".")[2] for function in (*imports["host"], *imports["wasi"])}
    for grant, functions in (
        ("capabilities.allowed_hosts", ("proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream")),
        ("capabilities.env", ("environ_get",)),
        ("limits.calls", ("proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream")),
        ("limits.shared_data", ("proxy_set_shared_data",)),
        ("limits.queued_items", ("proxy_enqueue_shared_queue",)),
        ("limits.tick", ("proxy_set_tick_period_milliseconds",)),
    ):
        found = [name for name in functions if name in used]
        if found:
            yield Grant(grant, f"imports {', '.join(found)}")
    memory = module.memories[0].minimum if module.memories else 0
    if memory > DEFAULT_MEMORY:
        yield Grant(f"memory: {enough(memory)}", f"starts with {show_size(memory)} of memory")


def outside(imports: dict[str, tuple[ImportedFunction, ...]], version: str | None) -> Iterable[str]:
    """Host functions that the module's own ABI version does not have."""
    if version is not None:
        for function in imports["host"]:
            name = function.name.partition(".")[2]
            if version not in HOST_FUNCTION_VERSIONS.get(name, (version,)):
                yield name


def shown(text: str) -> str:
    """Text from the file as it may be printed: one line, no control characters, cut."""
    if not text.isprintable():
        text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def listed(names: Iterable[str]) -> str:
    every = list(names)
    more = len(every) - MOST_LISTED
    return ", ".join(every[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def show_size(size: int) -> str:
    """A size for reading, exact where rounding would mislead: `33 MiB`, `2.5 MiB`, `2097153 bytes`."""
    for unit, worth in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= worth:
            rounded = round(size / worth, 1)
            return f"{rounded:g} {unit}" if rounded * worth >= size else f"{size} bytes"
    return f"{size} bytes"


def enough(size: int) -> str:
    """The next whole MiB (or KiB, below one MiB), as config writes it."""
    worth = 1 << 20 if size > 1 << 20 else 1 << 10
    return format_size(-(-size // worth) * worth)
