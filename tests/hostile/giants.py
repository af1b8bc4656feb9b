"""Modules that are large, many or wrong in one thing: made byte by byte, within a second each."""

from __future__ import annotations

from collections.abc import Iterable

from tests.wasm.binary import (
    HEADER,
    body,
    custom,
    exported,
    function_type,
    imported,
    leb,
    module,
    name,
    section,
    vector,
)

MARKER = "proxy_abi_version_0_2_1"
TYPES = (function_type((), ()), function_type(("i32",), ("i32",)), function_type(("i32", "i32", "i32"), ("i32",)))
NOTHING, ALLOCATES, THREE = 0, 1, 2
I32_CONST, DROP, BLOCK, END, LOCAL_GET, LOCAL_SET = b"\x41", b"\x1a", b"\x02\x40", b"\x0b", b"\x20", b"\x21"


def filter_of(
    bodies: Iterable[bytes] = (),
    *,
    imports: Iterable[bytes] = (),
    types: Iterable[bytes] = (),
    tables: Iterable[bytes] = (),
    exports: Iterable[bytes] = (),
    memories: Iterable[bytes] = (b"\0\x01",),
    behind: bytes = b"",
) -> bytes:
    """A filter whose functions beside marker, allocator and callback are `bodies`, of type () -> (); `behind` follows it."""
    wanted, code = list(imports), list(bodies)
    first = len(wanted)
    own = [
        (MARKER, NOTHING, body()),
        ("malloc", ALLOCATES, body(b"\x41\x08")),
        ("proxy_on_request_headers", THREE, body(b"\0")),
    ]
    return (
        module(
            types=[*TYPES, *types],
            imports=wanted,
            functions=[leb(kind) for _, kind, _ in own] + [leb(NOTHING)] * len(code),
            tables=list(tables),
            memories=list(memories),
            exports=[exported("memory", 2, 0), *(exported(one[0], 0, first + i) for i, one in enumerate(own)), *exports],
            code=[one[2] for one in own] + code,
        )
        + behind
    )


def blocks(count: int = 100_000) -> bytes:
    """Nested blocks that each copy a local: quadratic in the register allocator."""
    inside = BLOCK * count + (LOCAL_GET + b"\0" + LOCAL_SET + b"\x01" + END) * count
    return filter_of([body(inside, [(2, "i32")])])


def chain(count: int = 100_000) -> bytes:
    """Blocks one behind the other, each with a branch out of it over locals that live through all of them."""
    one = BLOCK + LOCAL_GET + b"\0" + b"\x0d\0" + LOCAL_GET + b"\0" + LOCAL_SET + b"\x01" + END
    return filter_of([body(one * count, [(64, "i32")])])


def locals_of_a_function(count: int = 50_000) -> bytes:
    """As many locals as the specification admits, in many functions."""
    return filter_of([body(LOCAL_GET + b"\0" + DROP, [(count, "i64")])] * 2000)


def too_many_locals() -> bytes:
    return filter_of([body(b"", [(0xFFFF_FFFF, "i64")])])


def functions(count: int = 200_000) -> bytes:
    return filter_of([body()] * count)


def giant_body(size: int) -> bytes:
    """One function of `size` bytes or so."""
    return filter_of([body((I32_CONST + b"\x01" + DROP) * (size // 3))])


def deep_expression(depth: int = 600_000) -> bytes:
    """An operand stack that is as deep as the function is long."""
    return filter_of([body(I32_CONST + b"\x01" + (I32_CONST + b"\x02") * depth + b"\x6a" * depth + DROP)])


def calls(count: int = 90_000) -> bytes:
    """Functions that each call the next ones: what an inliner would drown in."""
    every = [body(b"".join(b"\x10" + leb(min(i + step, count - 1) + 3) for step in (1, 2, 3))) for i in range(count)]
    return filter_of(every)


def many_types(count: int = 1_000_001) -> bytes:
    return HEADER + section(1, leb(count) + function_type((), ()) * count)


def wide_type(params: int) -> bytes:
    return filter_of(types=[function_type(("i64",) * params, ())])


def many_imports(count: int) -> bytes:
    """One host function, imported that often; the filter traps in its callback."""
    one = imported("env", "proxy_done", 0, leb(len(TYPES)))
    return filter_of(types=[function_type((), ("i32",))], imports=[one] * count)


def unknown_imports(count: int) -> bytes:
    return filter_of(imports=[imported("env", f"proxy_{i}", 0, b"\0") for i in range(count)])


def many_exports(count: int, prefix: str) -> bytes:
    return filter_of(exports=[exported(f"{prefix}{i}", 0, 0) for i in range(count)])


def many_tables(count: int, elements: int = 1) -> bytes:
    return filter_of(tables=[b"\x70\0" + leb(elements)] * count)


def many_memories(count: int) -> bytes:
    return filter_of(memories=[b"\0\x01"] * count)


def memory(minimum: int, maximum: int | None = None, flags: int = 0) -> bytes:
    """A filter with one memory of these pages."""
    limits = bytes([flags | (maximum is not None)]) + leb(minimum) + (leb(maximum) if maximum is not None else b"")
    return filter_of(memories=[limits])


def custom_sections(count: int, size: int) -> bytes:
    return filter_of(behind=custom("x", b"\xaa" * size) * count)


def long_name(length: int) -> bytes:
    return filter_of(exports=[exported("a" * length, 0, 0)])


def named_functions(length: int) -> bytes:
    """A filter that traps, in a function whose name in the name section is that long and full of control characters."""
    text = ('\x1b[31m{"level":"critical","event":"forged"}' * length)[:length]
    names = section(1, vector([leb(2) + name(text)]))
    return filter_of(behind=custom("name", names))


def data_segments(count: int) -> bytes:
    """Many small data segments, which are all put in place at the start."""
    segments = section(11, vector([b"\0\x41\0\x0b\x01x"] * count))
    return filter_of(behind=segments)


def lying_count(kind: str) -> bytes:
    """A section that announces four thousand million items."""
    numbers = {"types": 1, "imports": 2, "functions": 3, "tables": 4, "memories": 5, "exports": 7, "code": 10}
    return HEADER + section(numbers[kind], b"\xff\xff\xff\xff\x0f")


def lying_size() -> bytes:
    """A section that is longer than the file."""
    return HEADER + b"\x01\xff\xff\xff\xff\x07" + b"\0" * 16


def endless_number() -> bytes:
    """A section whose size is a number that does not end."""
    return HEADER + b"\x01" + b"\x80" * 100_000


def truncated(at: float) -> bytes:
    """A good filter of 100 functions, cut after that part of its bytes."""
    whole = filter_of([body(I32_CONST + b"\x01" + DROP)] * 100)
    return whole[: int(len(whole) * at)]


def bodies_missing() -> bytes:
    return module(types=TYPES, functions=[b"\0"] * 4, code=[body()] * 3)


def ill_typed_body() -> bytes:
    """A body that leaves a value behind, and one that takes one that is not there."""
    return filter_of([body(I32_CONST + b"\x01"), body(DROP)])


def unknown_opcode() -> bytes:
    return filter_of([body(b"\xfb\xff\x7f")])


def repeated_section() -> bytes:
    return filter_of(behind=section(1, vector(TYPES)))


def component() -> bytes:
    return b"\0asm\x0d\0\x01\0" + b"\0" * 64


def start_at_nothing() -> bytes:
    """A start section that names a function that is not there."""
    return HEADER + section(1, vector(TYPES)) + section(8, leb(1_000_000))


def a_tag() -> bytes:
    """A filter with a tag of the exceptions proposal, in its place between memories and exports."""
    whole = filter_of()
    memories = section(5, vector([b"\0\x01"]))
    return whole.replace(memories, memories + section(13, vector([b"\0\0"])), 1)
