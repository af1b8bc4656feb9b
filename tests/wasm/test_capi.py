import ctypes
import importlib.metadata

import pytest
import wasmtime
from wasmtime import _bindings as bindings

from proxy.wasm import capi
from proxy.wasm.settings import engine_config


def test_the_installed_wasmtime_fits():
    capi.verify()


@pytest.mark.parametrize("name", ["wasmtime_func", "wasmtime_extern", "wasmtime_val_raw_t"])
def test_another_wasmtime_is_refused(monkeypatch, name):
    """One that changed a structure fails at start, and names it."""

    class Larger(ctypes.Structure):
        _fields_ = (("more", ctypes.c_uint64 * 9),)

    monkeypatch.setattr(bindings, name, Larger)
    with pytest.raises(RuntimeError, match=f"wasmtime {importlib.metadata.version('wasmtime')} does not fit"):
        capi.verify()


def test_every_function_is_in_the_library():
    """A function that a new wasmtime no longer has is found here, not in the middle of a request."""
    declared = [line for line in capi.ffi._cdefsources[0].splitlines() if line.endswith(");") and "typedef" not in line]
    assert len(declared) > 20
    for line in declared:
        assert getattr(capi.lib, line.split("(")[0].split()[-1].lstrip("*"))


def test_errors_are_told():
    error = capi.lib.wasmtime_error_new(b"what went wrong")
    assert capi.take_error(error) == "what went wrong"


def test_the_pointer_of_an_object_is_its_own():
    one, two = wasmtime.Engine(engine_config()), wasmtime.Engine(engine_config())
    assert capi.pointer(one) != capi.pointer(two)
    assert capi.pointer(one) == capi.pointer(one)


def test_no_offset_means_no_cell():
    assert capi.fuel_cell(capi.ffi.NULL, None) is None


def test_a_wrong_offset_is_noticed():
    engine = wasmtime.Engine(engine_config())
    pointer = capi.pointer(engine)
    offset = capi.fuel_cell_offset(pointer)
    store = capi.lib.wasmtime_store_new(pointer, capi.ffi.NULL, capi.ffi.NULL)
    context = capi.lib.wasmtime_store_context(store)
    assert capi.fuel_cell(context, offset) is not None
    assert capi.fuel_cell(context, offset - 8) is None
    assert capi.fuel_cell(context, offset + 8) is None
    capi.lib.wasmtime_store_delete(store)
