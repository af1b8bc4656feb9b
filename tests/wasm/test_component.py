import contextlib

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wasm.component import DEEPEST, read_component
from proxy.wasm.module import ModuleError
from tests.wasm import binary as b


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


WHOLE = wat("""(component
  (type $t (record (field "a" u32)))
  (import "own:package/one@1.2.3" (instance (export "f" (func (param "x" string)))))
  (import "a-func" (func $f (result u8)))
  (import "a-type" (type (eq $t)))
  (import "a-resource" (type (sub resource)))
  (import "a-component" (component))
  (import "a-module" (core module))
  (core module (memory 3) (func) (func (result i32) i32.const 0))
  (core module (import "m" "m" (memory 1)) (memory 5 9))
  (component (core module (memory 7)) (component (core module (memory 11))))
  (export "again" (func $f))
  (export "typed" (func $f) (func (result u8))))""")


def test_names_and_modules_are_found():
    found = read_component(WHOLE)
    assert found.imports == ["own:package/one@1.2.3", "a-func", "a-type", "a-resource", "a-component", "a-module"]
    assert found.exports == ["again", "typed"]
    assert [memory.minimum // 65536 for module in found.modules for memory in module.memories] == [3, 1, 5, 7, 11]
    assert found.memories == 4
    assert [module.functions for module in found.modules] == [2, 0, 0, 0]


def test_what_is_no_component():
    for data in (b"", b.HEADER, b"(component)", b.COMPONENT[:6]):
        with pytest.raises(ModuleError):
            read_component(data)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b.section(13, b""), "section 13 is unknown"),
        (b.section(1, b""), "without its header"),
        (b.section(1, b.COMPONENT), "without its header"),
        (b.section(4, b.HEADER), "not a component"),
        (b.section(10, b"\x05"), "5 imports are announced"),
        (b.section(10, b"\x01\x09\x01a"), "unknown form 0x9"),
        (b.section(10, b"\x01\0\x01a\x09\0"), "unknown sort 0x9"),
        (b"\x01\xff\xff\xff\xff\x0f", "unexpected end"),
    ],
)
def test_malformed(content, problem):
    with pytest.raises(ModuleError, match=problem):
        read_component(b.COMPONENT + content)


def test_depth_and_number_are_bound():
    data = b.COMPONENT
    for _ in range(DEEPEST + 1):
        data = b.COMPONENT + b.section(4, data)
    with pytest.raises(ModuleError, match="components within components"):
        read_component(data)
    with pytest.raises(ModuleError, match="more than 100 core modules"):
        read_component(b.COMPONENT + b.section(1, b.HEADER) * 101)


@given(st.integers(0, len(WHOLE)), st.binary(max_size=3), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_damage_is_never_more_than_a_module_error(at, inserted, removed):
    with contextlib.suppress(ModuleError):
        read_component(WHOLE[:at] + inserted + WHOLE[at + removed :])
