"""The wasmtime C API, called through cffi: the one file that knows wasmtime's private parts.

wasmtime-py compiles and loads modules; from there on its own layer costs 20 to 40 us a call, this one under 1 us. The
structures below are those of wasmtime 50's C headers. `verify` compares them with the ones wasmtime-py was generated with,
so that another wasmtime fails at start with a clear message and not in the middle of a request.
"""

import ctypes
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
typedef union { func_t func; memory_t memory; memory_t table; global_t global; void *sharedmemory; uint64_t tag[3]; } extern_union;
typedef struct { uint8_t kind; extern_union of; } extern_t;
typedef struct { size_t size; char *data; } byte_vec;
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

FUNC: Final = 0
TABLE: Final = 2
MEMORY: Final = 3
SHARED_MEMORY: Final = 4
EPOCH_CONTINUE: Final = 0

VALUE_WORDS: Final = 4
"""32-bit words in a wasmtime_val_raw_t."""

TRAP_OUT_OF_FUEL: Final = wasmtime.TrapCode.OUT_OF_FUEL.value
TRAP_INTERRUPT: Final = wasmtime.TrapCode.INTERRUPT.value
TRAP_STACK_OVERFLOW: Final = wasmtime.TrapCode.STACK_OVERFLOW.value
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
            f"wasmtime {wasmtime.__version__} does not fit this Penstock ({', '.join(wrong)} differ); "
            "install a version in the range of pyproject.toml"
        )


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
