"""Reads the outline of a WebAssembly module without compiling it.

The input is hostile: every read is checked against its section, every number against its LEB128 limit, and the time is
linear in the size of the file. Function bodies and initialisers are skipped, so a module that reads well may still be
invalid; the compiler has the last word. Source: the WebAssembly core specification, chapter 5 (binary format), with the
threads proposal's shared memories; counts are bound as in the JavaScript embedding's implementation limits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

PAGE = 65536  # bytes
LARGEST_MODULE = 1 << 30  # bytes, the limit of every engine

MODULE_PREAMBLE = b"\0asm\x01\0\0\0"
COMPONENT_PREAMBLE = b"\0asm\x0d\0\x01\0"

VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref", 0x6F: "externref"}
VALUE_CODES = bytes(VALUE_TYPES)
KINDS = ("function", "table", "memory", "global", "tag")
SECTIONS = {
    1: "type", 2: "import", 3: "function", 4: "table", 5: "memory", 13: "tag", 6: "global", 7: "export", 8: "start",
    9: "element", 12: "data count", 10: "code", 11: "data",
}  # fmt: skip
ORDER = {section: place for place, section in enumerate(SECTIONS)}

MOST_TYPES = 1_000_000
MOST_FUNCTIONS = 1_000_000
MOST_IMPORTS = 1_000  # no ABI has a tenth of it, and each costs a worker microseconds whenever the VM is built again
MOST_EXPORTS = 100_000
MOST_TABLES = 100_000
MOST_MEMORIES = 100_000
MOST_PARAMS = 1_000
MOST_CUSTOM_SECTIONS = 1_000
LONGEST_NAME = 100_000  # bytes
LONGEST_CONSTANT = 4  # bytes of a function body that only gives a small number

Kind = Literal["function", "table", "memory", "global", "tag"]


class ModuleError(Exception):
    """The bytes are not a module that can be read; `problem` says what is wrong, in one line."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class FunctionType:
    """Value types by their names in the text format: `i32 i64 f32 f64 v128 funcref externref`."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"


@dataclass(frozen=True, slots=True)
class MemoryType:
    """Sizes in bytes; `maximum` is None if the module states none."""

    minimum: int
    maximum: int | None
    shared: bool
    is_64_bit: bool


@dataclass(frozen=True, slots=True)
class TableType:
    """Sizes in elements."""

    element: str
    minimum: int
    maximum: int | None


@dataclass(frozen=True, slots=True)
class Import:
    """What a module wants from outside; `function` and `memory` are set for these kinds."""

    module: str
    name: str
    kind: Kind
    function: FunctionType | None = None
    memory: MemoryType | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """What a module offers; `index` counts the kind's imports first. `function` is set for functions."""

    name: str
    kind: Kind
    index: int
    function: FunctionType | None = None


@dataclass(slots=True)
class Module:
    """The outline. `memories` and `tables` start with the imported ones; bodies and code count bytes."""

    imports: list[Import] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    memories: list[MemoryType] = field(default_factory=list)
    tables: list[TableType] = field(default_factory=list)
    functions: int = 0
    code_size: int = 0
    largest_body: int = 0
    constants: dict[int, int | None] = field(default_factory=dict)
    """Functions, by index, that do nothing: what they answer, always; None for those without a result."""
    start: int | None = None
    custom: list[tuple[str, bytes]] = field(default_factory=list)
    producers: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def format_of(data: bytes) -> Literal["module", "component"]:
    """Tells by the first 8 bytes. Raises ModuleError: neither."""
    if data.startswith(MODULE_PREAMBLE):
        return "module"
    if data.startswith(COMPONENT_PREAMBLE):
        return "component"
    if not data:
        raise ModuleError("the file is empty")
    if data.startswith(b"\0asm"):
        if len(data) < len(MODULE_PREAMBLE):
            raise ModuleError(f"the file ends within the WebAssembly header, after {len(data)} bytes")
        version = int.from_bytes(data[4:6], "little")
        raise ModuleError(f"binary format version {version} is neither a module (1) nor a component (13)")
    if data.lstrip().startswith(b"(module"):
        raise ModuleError("this is WebAssembly text; convert it to binary first")
    raise ModuleError("not a WebAssembly file: it does not begin with \\0asm")


def read(data: bytes) -> Module:
    """The outline of a core module. Raises ModuleError, and nothing else, whatever the bytes are."""
    if len(data) > LARGEST_MODULE:
        raise ModuleError(f"the file has {len(data)} bytes; no engine takes a module of more than 1 GiB")
    if format_of(data) == "component":
        raise ModuleError("this is a component, not a core module")
    return Outline(data).read()


class Cursor:
    """A position in the bytes that can't leave `[position, end)`."""

    __slots__ = ("data", "end", "position", "where")

    def __init__(self, data: bytes, position: int, end: int, where: str) -> None:
        self.data = data
        self.position = position
        self.end = end
        self.where = where

    def fail(self, problem: str) -> ModuleError:
        return ModuleError(f"{self.where}: {problem} at byte {self.position}")

    def byte(self) -> int:
        position = self.position
        if position >= self.end:
            raise self.fail("unexpected end")
        self.position = position + 1
        return self.data[position]

    def skip(self, count: int) -> int:
        """Steps over `count` bytes and returns where they start."""
        start = self.position
        if count > self.end - start:
            raise self.fail(f"unexpected end: {count} bytes are announced, {self.end - start} are left")
        self.position = start + count
        return start

    def u32(self) -> int:
        position = self.position
        if position < self.end:
            first = self.data[position]
            if first < 0x80:
                self.position = position + 1
                return first
        return self.unsigned(32)

    def unsigned(self, bits: int) -> int:
        """An unsigned LEB128 number, at most ceil(bits / 7) bytes long."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if value >> bits:
                raise self.fail(f"a number of more than {bits} bits")
            if byte < 0x80:
                return value
            shift += 7
            if shift >= bits:
                raise self.fail(f"a number longer than {(bits + 6) // 7} bytes")

    def count(self, most: int, what: str) -> int:
        """The length of a vector whose elements take a byte or more each."""
        count = self.u32()
        if count > most:
            raise self.fail(f"{count} {what}, more than the {most} that are taken")
        if count > self.end - self.position:
            raise self.fail(f"{count} {what} are announced, only {self.end - self.position} bytes are left")
        return count

    def name(self) -> str:
        length = self.u32()
        if length > LONGEST_NAME:
            raise self.fail(f"a name of {length} bytes")
        start = self.skip(length)
        try:
            return self.data[start : self.position].decode()
        except UnicodeDecodeError:
            raise self.fail("a name is not UTF-8") from None

    def value_type(self) -> str:
        code = self.byte()
        found = VALUE_TYPES.get(code)
        if found is None:
            raise self.fail(f"value type {code:#x} is unknown or of a proposal that is switched off")
        return found

    def value_types(self) -> tuple[int, int]:
        """A vector of value types, checked; start and end of its bytes."""
        count = self.count(MOST_PARAMS, "parameters or results")
        start = self.skip(count)
        wrong = self.data[start : self.position].translate(None, VALUE_CODES)
        if wrong:
            raise self.fail(f"value type {wrong[0]:#x} is unknown or of a proposal that is switched off")
        return start, start + count

    def limits(self, largest_flags: int) -> tuple[int, int, int | None]:
        """Flags, minimum, maximum. Flag 1: a maximum is given, 2: shared, 4: 64-bit, 8: own page size."""
        flags = self.byte()
        if flags > largest_flags:
            raise self.fail(f"limits with flags {flags:#x} are unknown or of a proposal that is switched off")
        bits = 64 if flags & 4 else 32
        minimum = self.unsigned(bits)
        return flags, minimum, self.unsigned(bits) if flags & 1 else None

    def memory_type(self) -> MemoryType:
        flags, minimum, maximum = self.limits(0x7)
        is_64_bit = bool(flags & 4)
        most = 1 << (48 if is_64_bit else 16)
        if minimum > most or (maximum or 0) > most:
            raise self.fail("a memory of more pages than can be addressed")
        if maximum is not None and minimum > maximum:
            raise self.fail("a memory whose minimum is more than its maximum")
        return MemoryType(minimum * PAGE, None if maximum is None else maximum * PAGE, bool(flags & 2), is_64_bit)

    def table_type(self) -> TableType:
        element = self.value_type()
        if element not in ("funcref", "externref"):
            raise self.fail(f"a table of {element}")
        _, minimum, maximum = self.limits(0x7)
        return TableType(element, minimum, maximum)


class Outline:
    """One pass over the sections."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.module = Module()
        # Where each type's parameter and result codes stand: only the few types that matter are ever decoded.
        self.types: list[tuple[int, int, int, int]] = []
        self.function_types: list[int] = []  # type indices, imported functions first
        self.decoded: dict[int, FunctionType] = {}
        self.bodies = 0

    def read(self) -> Module:
        whole = Cursor(self.data, len(MODULE_PREAMBLE), len(self.data), "module")
        readers: dict[int, Callable[[Cursor], None]] = {
            1: self.read_types, 2: self.read_imports, 3: self.read_functions, 4: self.read_tables,
            5: self.read_memories, 7: self.read_exports, 8: self.read_start, 10: self.read_code,
        }  # fmt: skip
        last = -1
        while whole.position < whole.end:
            section = whole.byte()
            size = whole.u32()
            start = whole.skip(size)
            if section == 0:
                self.read_custom(Cursor(self.data, start, start + size, "custom section"))
                continue
            if section not in SECTIONS:
                raise whole.fail(f"section {section} is unknown")
            if ORDER[section] <= last:
                raise whole.fail(f"the {SECTIONS[section]} section is repeated or out of order")
            last = ORDER[section]
            if section in readers:
                cursor = Cursor(self.data, start, start + size, f"{SECTIONS[section]} section")
                readers[section](cursor)
                if cursor.position != cursor.end:
                    raise cursor.fail(f"{cursor.end - cursor.position} bytes are left over")
        if self.bodies != self.module.functions:
            raise ModuleError(f"{self.module.functions} functions are declared, {self.bodies} bodies are given")
        return self.module

    def read_custom(self, cursor: Cursor) -> None:
        name = cursor.name()
        content = self.data[cursor.position : cursor.end]
        if len(self.module.custom) >= MOST_CUSTOM_SECTIONS:
            raise cursor.fail(f"more than {MOST_CUSTOM_SECTIONS} custom sections")
        self.module.custom.append((name, content))
        if name == "producers" and not self.module.producers:
            self.module.producers = read_producers(content)

    def read_types(self, cursor: Cursor) -> None:
        for _ in range(cursor.count(MOST_TYPES, "types")):
            form = cursor.byte()
            if form != 0x60:
                raise cursor.fail(f"type form {form:#x} is unknown or of the GC proposal, which is switched off")
            self.types.append((*cursor.value_types(), *cursor.value_types()))

    def read_imports(self, cursor: Cursor) -> None:
        for _ in range(cursor.count(MOST_IMPORTS, "imports")):
            module, name, kind = cursor.name(), cursor.name(), self.kind(cursor)
            function = memory = None
            if kind == "function":
                index = cursor.u32()
                function = self.type_at(index, cursor)
                self.function_types.append(index)
            elif kind == "table":
                self.module.tables.append(cursor.table_type())
            elif kind == "memory":
                memory = cursor.memory_type()
                self.module.memories.append(memory)
            elif kind == "global":
                cursor.value_type()
                if cursor.byte() > 1:
                    raise cursor.fail("a global's mutability is neither 0 nor 1")
            else:
                self.read_tag(cursor)
            self.module.imports.append(Import(module, name, kind, function, memory))

    def read_tag(self, cursor: Cursor) -> None:
        if cursor.byte():
            raise cursor.fail("a tag's attribute is not 0")
        self.type_at(cursor.u32(), cursor)

    def read_functions(self, cursor: Cursor) -> None:
        count = cursor.count(MOST_FUNCTIONS, "functions")
        self.module.functions = count
        known = len(self.types)
        for _ in range(count):
            index = cursor.u32()
            if index >= known:
                raise cursor.fail(f"type {index} does not exist")
            self.function_types.append(index)

    def read_tables(self, cursor: Cursor) -> None:
        for _ in range(cursor.count(MOST_TABLES, "tables")):
            if cursor.data[cursor.position : cursor.position + 1] == b"\x40":
                raise cursor.fail("a table with an initialiser is of a proposal that is switched off")
            self.module.tables.append(cursor.table_type())

    def read_memories(self, cursor: Cursor) -> None:
        for _ in range(cursor.count(MOST_MEMORIES, "memories")):
            self.module.memories.append(cursor.memory_type())

    def read_exports(self, cursor: Cursor) -> None:
        names = set()
        for _ in range(cursor.count(MOST_EXPORTS, "exports")):
            name, kind, index = cursor.name(), self.kind(cursor), cursor.u32()
            if name in names:
                raise cursor.fail("two exports have one name")
            names.add(name)
            function = None
            if kind == "function":
                if index >= len(self.function_types):
                    raise cursor.fail(f"function {index} does not exist")
                function = self.type_at(self.function_types[index], cursor)
            elif kind == "memory" and index >= len(self.module.memories):
                raise cursor.fail(f"memory {index} does not exist")
            elif kind == "table" and index >= len(self.module.tables):
                raise cursor.fail(f"table {index} does not exist")
            self.module.exports.append(Export(name, kind, index, function))

    def read_start(self, cursor: Cursor) -> None:
        index = cursor.u32()
        if index >= len(self.function_types):
            raise cursor.fail(f"function {index} does not exist")
        self.module.start = index

    def read_code(self, cursor: Cursor) -> None:
        self.bodies = count = cursor.count(MOST_FUNCTIONS, "function bodies")
        self.module.code_size = cursor.end - cursor.position
        largest = 0
        first = sum(one.kind == "function" for one in self.module.imports)
        for index in range(first, first + count):
            size = cursor.u32()
            start = cursor.skip(size)
            if size > largest:
                largest = size
            if size <= LONGEST_CONSTANT:
                self.note_constant(index, cursor.data[start : start + size])
        self.module.largest_body = largest

    def note_constant(self, index: int, body: bytes) -> None:
        """A body without locals that is empty, or one i32.const of 0 to 63."""
        if body == b"\0\x0b":
            self.module.constants[index] = None
        elif len(body) == 4 and body[:2] == b"\0\x41" and body[2] < 64 and body[3] == 0x0B:
            self.module.constants[index] = body[2]

    def kind(self, cursor: Cursor) -> Kind:
        code = cursor.byte()
        match code:
            case 0:
                return "function"
            case 1:
                return "table"
            case 2:
                return "memory"
            case 3:
                return "global"
            case 4:
                return "tag"
        raise cursor.fail(f"kind {code:#x} is unknown or of a proposal that is switched off")

    def type_at(self, index: int, cursor: Cursor) -> FunctionType:
        found = self.decoded.get(index)
        if found is None:
            if index >= len(self.types):
                raise cursor.fail(f"type {index} does not exist")
            first, second, third, fourth = self.types[index]
            found = self.decoded[index] = FunctionType(
                tuple(VALUE_TYPES[code] for code in self.data[first:second]),
                tuple(VALUE_TYPES[code] for code in self.data[third:fourth]),
            )
        return found


def read_producers(content: bytes) -> dict[str, list[tuple[str, str]]]:
    """The `producers` section of the tool conventions: field -> (tool, version). A malformed one counts as absent."""
    cursor = Cursor(content, 0, len(content), "producers section")
    fields: dict[str, list[tuple[str, str]]] = {}
    try:
        for _ in range(cursor.count(100, "fields")):
            name = cursor.name()
            fields[name] = [(cursor.name(), cursor.name()) for _ in range(cursor.count(1000, "producers"))]
    except ModuleError:
        return {}
    return fields
