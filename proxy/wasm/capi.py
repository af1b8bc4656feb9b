"""The wasmtime C API, called through cffi: the one file that knows wasmtime's private parts.

wasmtime-py compiles and loads modules; from there on its own layer costs 20 to 40 us a call, this one under 1 us. The
structures below are those of wasmtime 50's C headers. `verify` compares them with the ones wasmtime-py was generated with,
so that another wasmtime fails at start with a clear message and not in the middle of a request.
"""

import ctypes
from importlib.metadata import version
from typing import Any, Final

import cffi
import wasmtime
from wasmtime import _bindings as bindings
from wasmtime import _ffi as wasmtime_ffi

ffi: Final[Any] = cffi.FFI()
ffi.cdef("""
typedef struct { uint64_t store_id; void *inner; } func_t;
typedef struct { uint64_t store_id; size_t inner; } instance_t;
typedef struct { struct { uint64_t store_id; uint32_t a; } x; uint32_t b; } memory_t;
typedef struct { uint64_t store_id; uint32_t a, b, c; } global_t;
typedef union {
  func_t func; memory_t memory; memory_t table; global_t global; void *sharedmemory; uint64_t tag[3];
} extern_union;
typedef struct { uint8_t kind; extern_union of; } extern_t;
typedef struct { size_t size; char *data; } byte_vec;
typedef struct { size_t size; void **data; } valtype_vec;
typedef void *(*unchecked_callback)(void *env, void *caller, uint32_t *values, size_t n);
typedef void *(*epoch_callback)(void *context, void *data, uint64_t *delta, uint8_t *kind);

void *wasmtime_store_new(void *engine, void *data, void *finalizer);
void *wasmtime_store_context(void *store);
void wasmtime_store_delete(void *store);
void wasmtime_store_limiter(void *store, int64_t memory, int64_t elements, int64_t instances, int64_t tables, int64_t memories);
void wasmtime_store_epoch_deadline_callback(void *store, epoch_callback, void *data, void *finalizer);
void *wasmtime_context_set_fuel(void *context, uint64_t fuel);
void *wasmtime_context_get_fuel(void *context, uint64_t *fuel);
void wasmtime_context_set_epoch_deadline(void *context, uint64_t ticks);
void *wasmtime_instance_new(void *context, void *module, extern_t *imports, size_t n, instance_t *instance, void **trap);
bool wasmtime_instance_export_get(void *context, instance_t *instance, char *name, size_t n, extern_t *item);
void wasmtime_func_new_unchecked(void *context, void *type, unchecked_callback, void *env, void *finalizer, func_t *func);
void *wasmtime_func_call_unchecked(void *context, func_t *func, uint32_t *values, size_t n, void **trap);
void *wasmtime_func_type(void *context, func_t *func);
valtype_vec *wasm_functype_params(void *type);
valtype_vec *wasm_functype_results(void *type);
uint8_t wasm_valtype_kind(void *type);
void wasm_functype_delete(void *type);
size_t wasmtime_memory_data_size(void *context, memory_t *memory);
void *wasmtime_error_new(char *message);
void wasmtime_error_message(void *error, byte_vec *message);
void wasmtime_error_delete(void *error);
void wasm_trap_message(void *trap, byte_vec *message);
bool wasmtime_trap_code(void *trap, uint8_t *code);
void wasm_trap_delete(void *trap);
void wasm_byte_vec_delete(byte_vec *);
uint8_t *wasmtime_sharedmemory_data(void *memory);
size_t wasmtime_sharedmemory_data_size(void *memory);
void wasmtime_engine_increment_epoch(void *engine);
""")
lib: Final[Any] = ffi.dlopen(str(wasmtime_ffi.filename))

I32: Final = 0
FUNC: Final = 0
TABLE: Final = 2
MEMORY: Final = 3
SHARED_MEMORY: Final = 4
EPOCH_CONTINUE: Final = 0

VALUE_WORDS: Final = 4
"""32-bit words in a wasmtime_val_raw_t."""

TRAP_OUT_OF_FUEL: Final = wasmtime.TrapCode.OUT_OF_FUEL.value
TRAP_UNREACHABLE: Final = wasmtime.TrapCode.UNREACHABLE.value


def verify() -> None:
    """Raise RuntimeError unless the installed wasmtime has the structures this file was written for."""
    pairs = [
        ("func_t", bindings.wasmtime_func),
        ("instance_t", bindings.wasmtime_instance),
        ("memory_t", bindings.wasmtime_memory),
        ("memory_t", bindings.wasmtime_table),
        ("global_t", bindings.wasmtime_global),
        ("extern_t", bindings.wasmtime_extern),
    ]
    wrong = [name for name, structure in pairs if ffi.sizeof(name) != ctypes.sizeof(structure)]
    if ctypes.sizeof(bindings.wasmtime_val_raw_t) != 4 * VALUE_WORDS:
        wrong.append("wasmtime_val_raw_t")
    kinds = [
        wasmtime_ffi.WASMTIME_EXTERN_FUNC,
        wasmtime_ffi.WASMTIME_EXTERN_TABLE,
        wasmtime_ffi.WASMTIME_EXTERN_MEMORY,
        wasmtime_ffi.WASMTIME_EXTERN_SHAREDMEMORY,
    ]
    if [kind.value for kind in kinds] != [FUNC, TABLE, MEMORY, SHARED_MEMORY]:
        wrong.append("wasmtime_extern_kind_t")
    if wrong:
        raise RuntimeError(
            f"wasmtime {version('wasmtime')} does not fit this Penstock ({', '.join(wrong)} differ); "
            "install a version in the range of pyproject.toml"
        )


# A call's fuel is set before it and read after it. Through the C API that is 0.6 us a call, a tenth of what a filter costs on a
# request; the counter itself is a 64-bit cell inside the store (minus the fuel that is left, in wasmtime 50), and writing it
# takes 0.05 us. Where it lies is found by setting two numbers and looking for them, and checked again for every store; if it
# is not found, the C API is used. benchmarks/ and tests/wasm/test_store.py have both ways.
CELL_SEARCH: Final = 2304


def fuel_cell_offset(engine: Any) -> int | None:
    """Bytes from a store's context to its fuel cell; None if this wasmtime does not show it."""
    store = lib.wasmtime_store_new(engine, ffi.NULL, ffi.NULL)
    try:
        context = lib.wasmtime_store_context(store)
        found: set[int] = set()
        for fuel in (0x5EA1_0123_4567, 0x1DEA_7654_3210):
            lib.wasmtime_context_set_fuel(context, fuel)
            data: bytes = ffi.buffer(context, CELL_SEARCH)[:]
            wanted = (-fuel).to_bytes(8, "little", signed=True)
            places = {at for at in range(0, CELL_SEARCH, 8) if data[at : at + 8] == wanted}
            found = places if not found else found & places
        return found.pop() if len(found) == 1 else None
    finally:
        lib.wasmtime_store_delete(store)


def fuel_cell(context: Any, offset: int | None) -> Any | None:
    """A store's fuel cell, an int64_t pointer that holds minus the fuel; None: use the C API."""
    if offset is None:
        return None
    cell = ffi.cast("int64_t *", ffi.cast("char *", context) + offset)
    for fuel in (0x0BAD_CAFE_F00D, 0):
        lib.wasmtime_context_set_fuel(context, fuel)
        if cell[0] != -fuel:
            return None
    return cell


def arity(context: Any, function: Any) -> tuple[int, int] | None:
    """How many i32 a function takes and gives; None if there is any other type among them."""
    type_ = lib.wasmtime_func_type(context, function)
    try:
        sides = lib.wasm_functype_params(type_), lib.wasm_functype_results(type_)
        if any(lib.wasm_valtype_kind(side.data[i]) != I32 for side in sides for i in range(side.size)):
            return None
        return sides[0].size, sides[1].size
    finally:
        lib.wasm_functype_delete(type_)


def pointer(managed: Any) -> Any:
    """The C pointer inside a wasmtime-py object."""
    return ffi.cast("void *", ctypes.cast(managed.ptr(), ctypes.c_void_p).value)


def message(read: Any, owner: Any) -> str:
    """The text of an error or trap."""
    vector = ffi.new("byte_vec *")
    read(owner, vector)
    text: str = ffi.buffer(vector.data, vector.size)[:].rstrip(b"\0").decode("utf-8", "replace")
    lib.wasm_byte_vec_delete(vector)
    return text


def take_error(error: Any) -> str:
    """The text of an error, which is freed."""
    text = message(lib.wasmtime_error_message, error)
    lib.wasmtime_error_delete(error)
    return text


def take_trap(trap: Any) -> tuple[int | None, str]:
    """The code and text of a trap, which is freed."""
    code = ffi.new("uint8_t *")
    known = lib.wasmtime_trap_code(trap, code)
    text = message(lib.wasm_trap_message, trap)
    lib.wasm_trap_delete(trap)
    return (code[0] if known else None), text
