"""The wasmtime C API, called through cffi: the one file that knows wasmtime's private parts.

wasmtime-py compiles and loads modules; from there on its own layer costs 20 to 40 us a call, this one under 1 us. The
structures below are those of wasmtime 50's C headers. `verify` compares them with the ones wasmtime-py was generated with,
so that another wasmtime fails at start with a clear message and not in the middle of a request.
"""

import ctypes
from collections.abc import Sequence
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
uint8_t *wasmtime_memory_data(void *context, memory_t *memory);
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

typedef struct { uint64_t store_id; uint32_t a; } component_instance_t;
typedef struct { struct { uint64_t store_id; uint32_t a; } x; uint32_t b; void *c; } component_func_t;
typedef void *(*component_callback)(size_t data, void *context, void *type, size_t args, size_t n, size_t results, size_t m);
void wasmtime_component_val_clone(size_t from, size_t to);
void wasmtime_component_val_delete(size_t val);
void *wasmtime_component_func_call(component_func_t *f, void *context, size_t args, size_t n, size_t results, size_t m);
void *wasmtime_component_linker_new(void *engine);
void wasmtime_component_linker_delete(void *linker);
void *wasmtime_component_linker_root(void *linker);
void *wasmtime_component_linker_instance_add_instance(void *parent, char *name, size_t n, void **instance);
void *wasmtime_component_linker_instance_add_func(void *i, char *name, size_t n, component_callback, size_t data, void *end);
void wasmtime_component_linker_instance_delete(void *instance);
void *wasmtime_component_linker_instantiate(void *linker, void *context, void *component, component_instance_t *instance);
void *wasmtime_component_instance_get_export_index(component_instance_t *i, void *context, void *parent, char *name, size_t n);
bool wasmtime_component_instance_get_func(component_instance_t *instance, void *context, void *index, component_func_t *func);
void wasmtime_component_export_index_delete(void *index);
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
        raise misfit(wrong)


SPACE: Final[Any] = ffi.buffer(ffi.cast("char *", 0), 1 << 47)
"""The process's memory, by address: values of components are trees of C structures, and this reads and writes them at a fifth
of the price of cdata. Only for addresses that came from wasmtime or from `ffi.new`."""

VAL_SIZE: Final = 32
"""Bytes of a wasmtime_component_val_t: the kind in the first, its value from byte 8 on."""
ENTRY_SIZE: Final = 48
"""Bytes of a record's entry: the name's size and address, then the value."""
COMPONENT_KINDS: Final = {
    "bool": 0, "u8": 2, "u16": 4, "u32": 6, "s64": 7, "u64": 8, "string": 12, "list": 13, "record": 14, "tuple": 15,
    "variant": 16, "enum": 17, "option": 18, "result": 19, "flags": 20,
}  # fmt: skip


def verify_components() -> None:
    """As `verify`, of what components' values are made of: raise RuntimeError unless the codec fits this wasmtime."""
    structures: Any = bindings
    val, entry = structures.wasmtime_component_val, structures.wasmtime_component_valrecord_entry
    union = structures.wasmtime_component_valunion
    facts = {
        "wasmtime_component_val": (ctypes.sizeof(val), val.of.offset) == (VAL_SIZE, 8),
        "wasmtime_component_valrecord_entry": (ctypes.sizeof(entry), entry.val.offset) == (ENTRY_SIZE, 16),
        "wasmtime_component_valvariant": structures.wasmtime_component_valvariant.val.offset == 16,
        "wasmtime_component_valresult": structures.wasmtime_component_valresult.val.offset == 8,
        "wasmtime_component_vallist": structures.wasmtime_component_vallist.data.offset == 8,
        "wasmtime_component_valunion": all(getattr(union, name).offset == 0 for name, _ in union._fields_),
        "wasmtime_component_func": ctypes.sizeof(bindings.wasmtime_component_func) == ffi.sizeof("component_func_t"),
        "wasmtime_component_instance": ctypes.sizeof(bindings.wasmtime_component_instance)
        == ffi.sizeof("component_instance_t"),
        "wasmtime_component_valkind_t": all(
            getattr(wasmtime_ffi, f"WASMTIME_COMPONENT_{name.upper()}").value == kind for name, kind in COMPONENT_KINDS.items()
        ),
    }
    wrong = [name for name, fits in facts.items() if not fits]
    if wrong:
        raise misfit(wrong)


def limit_component_async(config: wasmtime.Config) -> None:
    """Of the component model's async part only the base, whose built-ins QuickJS imports. wasmtime-py's Config has no property
    for either."""
    bindings.wasmtime_config_wasm_component_model_async_set(config.ptr(), True)
    bindings.wasmtime_config_wasm_component_model_async_stackful_set(config.ptr(), False)
    bindings.wasmtime_config_wasm_component_model_more_async_builtins_set(config.ptr(), False)


def is_async(function_type: Any) -> bool:
    """Is it an `async func`? wasmtime-py's FuncType does not say."""
    return bool(bindings.wasmtime_component_func_type_async(function_type.ptr()))


def misfit(wrong: Sequence[str]) -> RuntimeError:
    return RuntimeError(
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


# What one call of a component may copy out of its memory is a number in the store, 128 MiB by default, which wasmtime lets Rust
# set and not C. It must be small: wasmtime makes C structures of a guest's result before anyone can look at it, a million list
# elements take it half a second, and neither fuel nor an epoch counts that. So the number is found by its default.
COPIED_DEFAULT: Final = 128 << 20


def copied_cell_offset(engine: Any) -> int | None:
    """Bytes from a store's context to how much a component's call may copy; None if this wasmtime does not show it."""
    store = lib.wasmtime_store_new(engine, ffi.NULL, ffi.NULL)
    try:
        data: bytes = ffi.buffer(lib.wasmtime_store_context(store), CELL_SEARCH)[:]
        wanted = COPIED_DEFAULT.to_bytes(8, "little")
        places = [at for at in range(0, CELL_SEARCH, 8) if data[at : at + 8] == wanted]
        return places[0] if len(places) == 1 else None
    finally:
        lib.wasmtime_store_delete(store)


def limit_copied(context: Any, offset: int | None, size: int) -> None:
    """Let no call of a component in this store copy more than `size` bytes out of it. Raises RuntimeError if this wasmtime does
    not let itself be told."""
    cell = None if offset is None else ffi.cast("uint64_t *", ffi.cast("char *", context) + offset)
    if cell is None or cell[0] != COPIED_DEFAULT:
        raise misfit(["the limit of what a component's call copies"])
    cell[0] = size


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
