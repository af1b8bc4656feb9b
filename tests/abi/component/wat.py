"""Components from WAT core modules: every export of the world, each `unreachable` unless it is given."""

from collections.abc import Mapping

import wasmtime

from proxy.abi.component import world
from proxy.abi.component.types import Interfaces
from proxy.abi.component.wrap import core_type, wrap

INFO = 16
"""Where the filter-info lies: no name, no version, and what it wants."""
OK = 64
"""A result that is ok."""
NOTHING = 96
"""A result that lets everything go on as it is."""


def component(
    bodies: Mapping[str, str] | None = None,
    *,
    wants: int = 1,
    more: str = "",
    pages: str = "1",
    imports: Interfaces = world.IMPORTS,
    exports: Interfaces = world.EXPORTS,
) -> bytes:
    """`bodies` by the export's name; `more` goes before them in the module; `wants`: the phases' bits."""
    given = {"metadata": f"(i32.const {INFO})", "configure": f"(i32.const {OK})", "on-log": "", **(bodies or {})}
    functions = []
    for interface, own in exports.items():
        for name, function in own.items():
            body = given.get(name, f"(i32.const {NOTHING})")
            functions.append(f'(func (export "{interface}#{name}") {core_type(function, lifted=True)} {body})')
    text = f"""(module {more}
      (memory (export "memory") {pages})
      (data (i32.const {INFO + 16}) "\\{wants:02x}")
      (global $top (mut i32) (i32.const 1024))
      (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (local $at i32)
        (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
        (global.set $top (i32.add (local.get $at) (local.get 3)))
        (if (i32.gt_u (global.get $top) (i32.shl (memory.size) (i32.const 16)))
          (then (if (i32.eq (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))))
        (local.get $at))
      {chr(10).join(functions)})"""
    return wrap(bytes(wasmtime.wat2wasm(text)), imports, exports)
