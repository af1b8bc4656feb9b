import shutil
import struct

import pytest

from proxy.abi.core import build
from proxy.abi.memory import CORE_FUNCTIONS, PAGES
from proxy.wasm.module import read
from tests import requires

requires.zig()


def test_core_wasm_is_what_its_sources_give():
    assert build.check(), "run python -m proxy.abi.core.build"


def test_the_bytes_are_the_same_from_another_folder(tmp_path):
    folder = tmp_path / "some where else"
    folder.mkdir()
    for source in (*build.SOURCES, "core.h"):
        shutil.copy(build.FOLDER / source, folder)
    build.build(folder / "out.wasm", folder)
    assert (folder / "out.wasm").read_bytes() == build.CORE.read_bytes()
    assert str(tmp_path).encode() not in build.CORE.read_bytes()


def test_the_memory_is_what_the_core_imports():
    (memory,) = read(build.CORE.read_bytes()).memories
    assert (memory.minimum // build.PAGE, memory.maximum // build.PAGE, memory.shared) == (*PAGES, True)


def test_its_functions_have_the_arity_that_they_are_called_with():
    exports = {one.name: one.function for one in read(build.CORE.read_bytes()).exports if one.kind == "function"}
    for name, parameters in {**CORE_FUNCTIONS, "enter": 4, "layout": 0}.items():
        assert exports[name].params == ("i32",) * parameters


def test_a_source_that_does_not_compile_is_an_error(tmp_path):
    for source in (*build.SOURCES, "core.h"):
        shutil.copy(build.FOLDER / source, tmp_path)
    (tmp_path / "maps.c").write_text("int unused_result(void) { int x; return 0; }\n")
    with pytest.raises(build.BuildError, match=r"maps\.c"):
        build.build(tmp_path / "out.wasm", tmp_path)


def test_check_notices_a_flipped_byte(monkeypatch, tmp_path):
    other = tmp_path / "core.wasm"
    data = bytearray(build.CORE.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    monkeypatch.setattr(build, "CORE", other)
    assert not build.check()
    assert struct.unpack_from("<4s", data)[0] == b"\0asm"


def test_another_compiler_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "ZIG_VERSION", "0.1.0")
    with pytest.raises(build.BuildError, match=r"pip install ziglang==0\.1\.0"):
        build.build(tmp_path / "out.wasm")
