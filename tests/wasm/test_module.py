import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wasm.module import MemoryType, ModuleError, TableType, format_of, read
from tests.wasm import binary as b

PROBE = (Path(__file__).parent.parent / "conformance" / "probe" / "probe.wasm").read_bytes()
FILTER = b.filter_module(imports=[("env", "proxy_log", ("i32", "i32", "i32"), ("i32",))])


def test_reads_a_whole_outline():
    data = b.module(
        types=[b.function_type(("i32", "i64"), ("f64",)), b.NOTHING],
        imports=[
            b.imported("env", "f", 0, b"\0"),
            b.imported("env", "t", 1, b"\x70\x01\x02\x03"),
            b.imported("env", "m", 2, b"\x03\x01\x02"),
            b.imported("env", "g", 3, b"\x7f\x01"),
        ],
        functions=[b"\1", b"\0"],
        tables=[b"\x6f\0\x05"],
        memories=[b"\0\x02"],
        tags=[b"\0\1"],
        globals=[b"\x7f\0\x41\0\x0b"],
        exports=[b.exported("run", 0, 2), b.exported("memory", 2, 1), b.exported("imported", 0, 0)],
        start=b"\1",
        code=[b.body(), b.body(b"\0" * 300)],
    ) + b.custom("name", b"whatever")
    found = read(data)
    assert [(one.module, one.name, one.kind) for one in found.imports] == [
        ("env", "f", "function"), ("env", "t", "table"), ("env", "m", "memory"), ("env", "g", "global"),
    ]  # fmt: skip
    assert str(found.imports[0].function) == "(i32, i64) -> (f64)"
    assert found.memories == [MemoryType(65536, 131072, True, False), MemoryType(131072, None, False, False)]
    assert found.tables == [TableType("funcref", 2, 3), TableType("externref", 5, None)]
    assert [(one.name, one.kind, one.index, str(one.function)) for one in found.exports] == [
        ("run", "function", 2, "(i32, i64) -> (f64)"),
        ("memory", "memory", 1, "None"),
        ("imported", "function", 0, "(i32, i64) -> (f64)"),
    ]
    assert (found.functions, found.start, found.largest_body) == (2, 1, 302)
    assert found.custom == [("name", b"whatever")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b.vector([b.name("language") + b.vector([b.name("Rust") + b.name("")])]), {"language": [("Rust", "")]}),
        (b"\x01\x05", {}),
        (b"\xff\xff\xff\xff\x0f", {}),
    ],
)
def test_producers_never_spoil_a_module(content, expected):
    assert read(b.HEADER + b.custom("producers", content)).producers == expected


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the file is empty"),
        (b"\x7fELF", "not a WebAssembly file"),
        (b"\0asm\1", "ends within the WebAssembly header"),
        (b"\0asm\x02\0\0\0", "version 2"),
        (b" (module)", "WebAssembly text"),
        (b.COMPONENT, "a component"),
        (b.HEADER + b"\x01", "unexpected end"),
        (b.HEADER + b"\x01\x05", "5 bytes are announced, 0 are left"),
        (b.HEADER + b"\x0e\0", "section 14 is unknown"),
        (b.HEADER + b"\x01\xff\xff\xff\xff\x1f", "more than 32 bits"),
        (b.HEADER + b"\x01\x80\x80\x80\x80\x80\0", "longer than 5 bytes"),
        (b.HEADER + b.section(1, b"\x01\x60\0\0\0"), "1 bytes are left over"),
        (b.HEADER + b.section(1, b"\x02\x60\0"), "unexpected end"),
        (b.HEADER + b.section(1, b"\xff\xff\xff\xff\x0f"), "more than the 1000000"),
        (b.HEADER + b.section(1, b"\x80\x08"), "are announced, only 0 bytes are left"),
        (b.HEADER + b.section(1, b"\x01\x60\x01\x40\0"), "value type 0x40"),
        (b.HEADER + b.section(1, b"\x01\x5f\0\0"), "GC proposal"),
        (b.HEADER + b.section(1, b"\0") * 2, "the type section is repeated or out of order"),
        (b.HEADER + b.section(3, b"\0") + b.section(1, b"\0"), "the type section is repeated or out of order"),
        (b.module(imports=[b.imported("env", "f", 0, b"\0")]), "type 0 does not exist"),
        (b.module(imports=[b.imported("env", "f", 9, b"\0")]), "kind 0x9"),
        (b.module(imports=[b"\x01\xff\x01f\0\0"]), "not UTF-8"),
        (b.module(imports=[b"\x01a\x01f\x03\x7f\x02"]), "mutability"),
        (b.module(types=[b.NOTHING], functions=[b"\1"], code=[b.body()]), "type 1 does not exist"),
        (b.module(types=[b.NOTHING], functions=[b"\0"]), "1 functions are declared, 0 bodies are given"),
        (b.module(types=[b.NOTHING], functions=[b"\0"], code=[b"\x09\0"]), "9 bytes are announced"),
        (b.module(memories=[b"\0\x81\x80\x04"]), "more pages than can be addressed"),
        (b.module(memories=[b"\x01\x02\x01"]), "minimum is more than its maximum"),
        (b.module(memories=[b"\x08\x01\0"]), "limits with flags 0x8"),
        (b.module(tables=[b"\x40\0\x70\0\x01\xd0\x70\x0b"]), "an initialiser"),
        (b.module(tables=[b"\x7f\0\x01"]), "a table of i32"),
        (b.module(exports=[b.exported("f", 0, 0)]), "function 0 does not exist"),
        (b.module(exports=[b.exported("m", 2, 0)]), "memory 0 does not exist"),
        (b.module(memories=[b"\0\1"], exports=[b.exported("m", 2, 0)] * 2), "two exports have one name"),
        (b.module(start=b"\0"), "function 0 does not exist"),
        (b.HEADER + b.custom("x") * 1001, "custom sections"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses(data, problem):
    with pytest.raises(ModuleError) as error:
        read(data)
    assert problem in error.value.problem
    assert "\n" not in error.value.problem


def test_tells_components_from_modules():
    assert (format_of(b.COMPONENT), format_of(b.HEADER)) == ("component", "module")


def reads_or_says_why(data: bytes) -> None:
    with contextlib.suppress(ModuleError):
        read(data)


@given(st.binary(max_size=200))
def test_junk_after_the_header(data):
    reads_or_says_why(b.HEADER + data)


@given(st.lists(st.tuples(st.integers(0, 14), st.binary(max_size=40)), max_size=6))
def test_junk_in_sections(sections):
    reads_or_says_why(b.HEADER + b"".join(b.section(number, content) for number, content in sections))


@given(st.sampled_from([PROBE, FILTER]), st.data())
def test_mutations(data, draw):
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        # The outline is at both ends; the middle is code, which is skipped.
        position = draw.draw(st.one_of(st.integers(0, min(1500, len(data) - 1)), st.integers(0, len(data) - 1)))
        changed[position] = draw.draw(st.integers(0, 255))
    reads_or_says_why(bytes(changed))


def test_truncations():
    """A prefix is a module only where it ends between two sections."""
    whole = 0
    for size in range(len(FILTER)):
        try:
            read(FILTER[:size])
            whole += 1
        except ModuleError:
            pass
    assert whole == 3  # the header, with the types, with the imports; from the functions on their bodies are missing


@pytest.mark.parametrize(
    "data",
    [
        b.functions([b.body()] * 300_000),
        b.module(types=[b.function_type(["i32"] * 1000, ())] * 4_000),
        b.module(types=[b.NOTHING], imports=[b.imported("", "", 0, b"\0")] * 100_000),
        b.HEADER + b.section(1, b.leb(1_000_000) + b"\x60" * 1_000_000),
    ],
    ids=["functions", "wide types", "imports", "a false count"],
)
def test_time_is_linear_in_the_size(data):
    started = time.process_time()
    reads_or_says_why(data)
    spent = time.process_time() - started
    assert spent < 0.2 + len(data) * 3e-6  # seconds; measured is a third of that or less
