"""`python -m tests.conformance.probe.wasi`: builds wasi.wasm, a filter that calls every WASI function and logs its errno.

In on_request_headers each function of both module names is called once, all arguments 0 (where that is an address, it is one of
zeros), and `A   NAME = NN` is logged; then the two functions of module `env` that compilers bring in. proc_exit is left out: it ends
the VM.
"""

from __future__ import annotations

from pathlib import Path

import wasmtime

from proxy.abi.proxy_wasm.signatures import ENVIRONMENT_FUNCTIONS, WASI_FUNCTIONS, WASI_MODULES, WASI_VARIANTS, Signature

BUILT = Path(__file__).with_name("wasi.wasm")
ENVIRONMENT = ("emscripten_notify_memory_growth", "pthread_equal")
FIRST = 4096
"""Address of the first line; what lies below is for functions that write."""


def asked() -> list[tuple[str, str, Signature]]:
    """(module, name, type) of what is called, in its order. Of two types it is the one that Envoy knows."""
    found = [
        (module, name, WASI_VARIANTS.get(name, signature))
        for module in WASI_MODULES
        for name, signature in WASI_FUNCTIONS.items()
        if name != "proc_exit"
    ]
    return found + [("env", name, ENVIRONMENT_FUNCTIONS[name]) for name in ENVIRONMENT]


def text() -> str:
    """The module in the text format."""
    imports, lines, calls = [], [], []
    at = FIRST
    for index, (module, name, signature) in enumerate(asked()):
        types = f"(param {' '.join(signature.params)}) (result {' '.join(signature.results)})"
        imports.append(f'(import "{module}" "{name}" (func $f{index} {types}))')
        line = f"A   {module}.{name} = 00"
        lines.append(f'(data (i32.const {at}) "{line}")')
        call = f"(call $f{index} {' '.join(f'({one}.const 0)' for one in signature.params)})"
        calls.append(
            f"(call $show (i32.const {at}) (i32.const {len(line)}) {call if signature.results else f'{call} (i32.const 0)'})"
        )
        at += len(line)
    return f"""(module
      (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
      {" ".join(imports)}
      (memory (export "memory") 2)
      {" ".join(lines)}
      (func $show (param $line i32) (param $size i32) (param $errno i32)
        (i32.store8 (i32.sub (i32.add (local.get $line) (local.get $size)) (i32.const 2))
          (i32.add (i32.const 48) (i32.div_u (local.get $errno) (i32.const 10))))
        (i32.store8 (i32.sub (i32.add (local.get $line) (local.get $size)) (i32.const 1))
          (i32.add (i32.const 48) (i32.rem_u (local.get $errno) (i32.const 10))))
        (drop (call $log (i32.const 2) (local.get $line) (local.get $size))))
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        {" ".join(calls)}
        (i32.const 0)))"""


if __name__ == "__main__":
    BUILT.write_bytes(wasmtime.wat2wasm(text()))
