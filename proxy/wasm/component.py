"""Reads the outline of a WebAssembly component without compiling it: what it imports and exports, and the modules in it.

As hostile an input as a module's (module.py), and read in the same way: of the component's own sections only the names of
imports and exports matter here, their types are wasmtime's to read. Source: the component model's Binary.md.
"""

from dataclasses import dataclass, field

from proxy.wasm.module import COMPONENT_PREAMBLE, LARGEST_MODULE, MODULE_PREAMBLE, Cursor, Module, ModuleError, read

CUSTOM, CORE_MODULE, COMPONENT, IMPORT, EXPORT = 0, 1, 4, 10, 11
LAST_SECTION = 12
MOST_MODULES = 100
DEEPEST = 16
MOST_NAMES = 1_000

SORTS = {0: "core module", 1: "function", 2: "value", 3: "type", 4: "component", 5: "instance"}


@dataclass(slots=True)
class Component:
    """`modules` are all core modules in it, in nested components too."""

    imports: list[str] = field(default_factory=list)
    exports: list[str] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)
    custom: list[str] = field(default_factory=list)

    @property
    def memories(self) -> int:
        """How many linear memories its modules declare."""
        imported = sum(1 for module in self.modules for one in module.imports if one.kind == "memory")
        return sum(len(module.memories) for module in self.modules) - imported


def read_component(data: bytes) -> Component:
    """The outline of a component. Raises ModuleError, and nothing else, whatever the bytes are."""
    if len(data) > LARGEST_MODULE:
        raise ModuleError(f"the file has {len(data)} bytes; no engine takes one of more than 1 GiB")
    outline = Component()
    sections(Cursor(data, 0, len(data), "component"), outline, 0)
    return outline


def sections(whole: Cursor, outline: Component, depth: int) -> None:
    if depth > DEEPEST:
        raise whole.fail(f"components within components, more than {DEEPEST} deep")
    start = whole.skip(len(COMPONENT_PREAMBLE))
    if whole.data[start : whole.position] != COMPONENT_PREAMBLE:
        raise whole.fail("not a component")
    while whole.position < whole.end:
        section = whole.byte()
        start = whole.skip(whole.u32())
        if section > LAST_SECTION:
            raise whole.fail(f"section {section} is unknown")
        inner = Cursor(whole.data, start, whole.position, "component")
        if section == CORE_MODULE:
            if len(outline.modules) == MOST_MODULES:
                raise whole.fail(f"more than {MOST_MODULES} core modules")
            if not whole.data.startswith(MODULE_PREAMBLE, start):
                raise whole.fail("a core module without its header")
            outline.modules.append(read(whole.data[start : whole.position]))
        elif section == COMPONENT:
            sections(inner, outline, depth + 1)
        elif section == CUSTOM and depth == 0:
            outline.custom.append(inner.name())
        elif section == IMPORT and depth == 0:
            for _ in range(inner.count(MOST_NAMES, "imports")):
                outline.imports.append(name(inner))
                description(inner)
        elif section == EXPORT and depth == 0:
            for _ in range(inner.count(MOST_NAMES, "exports")):
                outline.exports.append(name(inner))
                if inner.byte() == 0:
                    inner.byte()
                inner.u32()
                if inner.byte():
                    description(inner)


def name(cursor: Cursor) -> str:
    """An import's or export's name, with its interface's version."""
    form = cursor.byte()
    if form > 1:
        raise cursor.fail(f"a name of the unknown form {form:#x}")
    return cursor.name()


def description(cursor: Cursor) -> None:
    """What an import is: only its length matters."""
    sort = cursor.byte()
    if sort not in SORTS:
        raise cursor.fail(f"the unknown sort {sort:#x}")
    if sort == 0:
        cursor.byte()  # of core sorts only modules
    if sort in (2, 3):
        bound = cursor.byte()
        if sort == 3 and bound == 1:
            return
    if sort == 2:
        raise cursor.fail("values are not imported or exported yet in any engine")
    cursor.u32()
