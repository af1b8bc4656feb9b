"""What a language's runtime asks of WASI, answered within the component: it is left without files, environment and arguments,
with the world's clock and random numbers. For compilers that cannot do without (Go's).

As WAT: a small core module that is instantiated after the filter's own, whose memory it writes to. A function that is not among
these answers ENOSYS. Signatures and numbers: WASI snapshot_preview1.

While the host has memory allocated, nothing may be called outside (component model: "may leave"), and allocating is when a
collector looks at the clock. So cabi_realloc goes through here: meanwhile the clock stands still, and random numbers follow
from the last.
"""

from collections.abc import Sequence
from typing import Final

from proxy.abi.component.world import interface
from proxy.wasm.module import Import

WASI: Final = "wasi_snapshot_preview1"
CLOCK, RANDOM = interface("clock"), interface("random")
AGAIN: Final = b"+"
"""Before a number: the second time that a module imports the same."""
NEEDED: Final = ((CLOCK, "now-ns"), (CLOCK, "monotonic-ns"), (RANDOM, "get-u64"))
"""What the stubs import of the world."""
ENOSYS, EBADF = 52, 8
NO_LIST: Final = "(i32.store (local.get 0) (i32.const 0)) (i32.store (local.get 1) (i32.const 0)) (i32.const 0)"

BODIES: Final = {
    "args_sizes_get": NO_LIST,
    "environ_sizes_get": NO_LIST,
    "args_get": "(i32.const 0)",
    "environ_get": "(i32.const 0)",
    "sched_yield": "(i32.const 0)",
    "proc_exit": "unreachable",
    "fd_prestat_get": f"(i32.const {EBADF})",
    "clock_time_get": """
      (if (i32.eqz (global.get $allocating))
        (then (global.set $last-now (call $now)) (global.set $last-monotonic (call $monotonic))))
      (i64.store (local.get 2)
        (select (global.get $last-monotonic) (global.get $last-now) (local.get 0)))
      (i32.const 0)""",
    # The rest of the last 8 bytes would be beyond what was asked for: those go byte by byte.
    "random_get": """
      (block $done (loop $more
        (br_if $done (i32.eqz (local.get 1)))
        (if (i32.ge_u (local.get 1) (i32.const 8))
          (then
            (i64.store (local.get 0) (call $next))
            (local.set 0 (i32.add (local.get 0) (i32.const 8)))
            (local.set 1 (i32.sub (local.get 1) (i32.const 8))))
          (else
            (i32.store8 (local.get 0) (i32.wrap_i64 (call $next)))
            (local.set 0 (i32.add (local.get 0) (i32.const 1)))
            (local.set 1 (i32.sub (local.get 1) (i32.const 1)))))
        (br $more)))
      (i32.const 0)""",
    # All of it is written, nowhere: the lengths of the pieces are added up.
    "fd_write": """
      (i32.store (local.get 3) (i32.const 0))
      (block $done (loop $more
        (br_if $done (i32.eqz (local.get 2)))
        (i32.store (local.get 3) (i32.add (i32.load (local.get 3)) (i32.load offset=4 (local.get 1))))
        (local.set 1 (i32.add (local.get 1) (i32.const 8)))
        (local.set 2 (i32.sub (local.get 2) (i32.const 1)))
        (br $more)))
      (i32.const 0)""",
    # Everything that is waited for has come: an event is its subscription's user data and 24 bytes of zeros.
    "poll_oneoff": """
      (i32.store (local.get 3) (local.get 2))
      (block $done (loop $more
        (br_if $done (i32.eqz (local.get 2)))
        (i64.store (local.get 1) (i64.load (local.get 0)))
        (i64.store offset=8 (local.get 1) (i64.const 0))
        (i64.store offset=16 (local.get 1) (i64.const 0))
        (i64.store offset=24 (local.get 1) (i64.const 0))
        (local.set 0 (i32.add (local.get 0) (i32.const 48)))
        (local.set 1 (i32.add (local.get 1) (i32.const 32)))
        (local.set 2 (i32.sub (local.get 2) (i32.const 1)))
        (br $more)))
      (i32.const 0)""",
}

OWN: Final = """
  (global $allocating (mut i32) (i32.const 0))
  (global $last-now (mut i64) (i64.const 0))
  (global $last-monotonic (mut i64) (i64.const 0))
  (global $last-random (mut i64) (i64.const 0))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $allocating (i32.const 1))
    (call $realloc (local.get 0) (local.get 1) (local.get 2) (local.get 3))
    (global.set $allocating (i32.const 0)))
  (func $next (result i64)
    (global.set $last-random
      (if (result i64) (global.get $allocating)
        (then (i64.add (i64.mul (global.get $last-random) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
        (else (call $random))))
    (global.get $last-random))"""
"""The multiplier and the increment are Knuth's (MMIX)."""


def stubs_text(imports: Sequence[Import]) -> str:
    """The module: it imports the memory and NEEDED, and exports each of the functions under its name."""
    lines = [
        f'(import "{CLOCK}" "now-ns" (func $now (result i64)))',
        f'(import "{CLOCK}" "monotonic-ns" (func $monotonic (result i64)))',
        f'(import "{RANDOM}" "get-u64" (func $random (result i64)))',
        '(import "main" "memory" (memory 0))',
        '(import "main" "cabi_realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))',
        OWN,
    ]
    for one in imports:
        lines.append(f'(func (export "{one.name}") {typed(one)} {body(one)})')
    return f"(core module $stubs {' '.join(lines)})"


def body(one: Import) -> str:
    return BODIES.get(one.name.partition(AGAIN.decode())[0], f"(i32.const {ENOSYS})")


def typed(one: Import) -> str:
    """A function's core type, in text."""
    assert one.function is not None
    params = f"(param {' '.join(one.function.params)})" if one.function.params else ""
    return params + (f" (result {' '.join(one.function.results)})" if one.function.results else "")
