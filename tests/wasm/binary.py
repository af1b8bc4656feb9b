"""Writes WebAssembly modules byte by byte, wrong ones included, which no text format can."""

from collections.abc import Iterable, Sequence

HEADER = b"\0asm\x01\0\0\0"
COMPONENT = b"\0asm\x0d\0\x01\0"
TYPES = {"i32": 0x7F, "i64": 0x7E, "f32": 0x7D, "f64": 0x7C, "v128": 0x7B, "funcref": 0x70, "externref": 0x6F}
NOTHING = b"\x60\0\0"  # the type () -> ()
ORDER = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)


def leb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def vector(items: Iterable[bytes]) -> bytes:
    every = list(items)
    return leb(len(every)) + b"".join(every)


def name(text: str) -> bytes:
    encoded = text.encode()
    return leb(len(encoded)) + encoded


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + leb(len(content)) + content


def custom(title: str, content: bytes = b"") -> bytes:
    return section(0, name(title) + content)


def function_type(params: Sequence[str], results: Sequence[str]) -> bytes:
    return b"\x60" + vector(bytes([TYPES[one]]) for one in params) + vector(bytes([TYPES[one]]) for one in results)


def imported(module: str, field: str, kind: int, description: bytes) -> bytes:
    return name(module) + name(field) + bytes([kind]) + description


def exported(field: str, kind: int, index: int) -> bytes:
    return name(field) + bytes([kind]) + leb(index)


def body(code: bytes = b"", locals_: Sequence[tuple[int, str]] = ()) -> bytes:
    """A function body with its size in front."""
    declared = vector(leb(count) + bytes([TYPES[kind]]) for count, kind in locals_)
    content = declared + code + b"\x0b"
    return leb(len(content)) + content


def module(**sections: Iterable[bytes] | bytes) -> bytes:
    """A module from the items of its sections by name, or a section's raw content; bodies are named `code`."""
    numbers = {
        "types": 1, "imports": 2, "functions": 3, "tables": 4, "memories": 5, "globals": 6, "exports": 7, "start": 8,
        "code": 10, "tags": 13,
    }  # fmt: skip
    contents = {numbers[title]: items if isinstance(items, bytes) else vector(items) for title, items in sections.items()}
    return HEADER + b"".join(section(number, contents[number]) for number in ORDER if number in contents)


def functions(bodies: Sequence[bytes]) -> bytes:
    """A module of functions () -> () that nobody can call."""
    return module(types=[NOTHING], functions=[b"\0"] * len(bodies), code=bodies)


def filter_module(
    imports: Iterable[tuple[str, str, Sequence[str], Sequence[str]]] = (),
    exports: Iterable[tuple[str, Sequence[str], Sequence[str]]] = (),
    marker: str | None = "proxy_abi_version_0_2_1",
    allocator: str | None = "malloc",
    memory: str | None = "memory",
    pages: int = 1,
) -> bytes:
    """A proxy-wasm filter whose exported functions all trap."""
    wanted, offered = list(imports), list(exports)
    offered += [(marker, (), ())] if marker else []
    offered += [(allocator, ("i32",), ("i32",))] if allocator else []
    types = [function_type(*one[-2:]) for one in (*wanted, *offered)]
    first = len(wanted)
    return module(
        types=types,
        imports=[imported(where, field, 0, leb(index)) for index, (where, field, _, _) in enumerate(wanted)],
        functions=[leb(first + index) for index in range(len(offered))],
        memories=[b"\0" + leb(pages)],
        exports=[exported(one[0], 0, first + index) for index, one in enumerate(offered)]
        + ([exported(memory, 2, 0)] if memory else []),
        code=[body(b"\0")] * len(offered),
    )
