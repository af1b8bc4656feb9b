"""Does the codec fit this wasmtime? Asked at every start that has components, before any of them runs.

The sizes of wasmtime's structures are compared with its own headers (capi.verify_components); here a small component is given a
value with one of everything, and gives it back: once as it came, and once through a function of the host's.
"""

from importlib.metadata import version
from typing import Any, Final

import wasmtime

from proxy.abi.component.instance import Instance, Linked
from proxy.abi.component.types import Enum, Flags, Function, Interfaces, List, Option, Plain, Record, Result, Tuple, Variant
from proxy.abi.component.wrap import wrap
from proxy.wasm import capi
from proxy.wasm.engine import Engine
from proxy.wasm.fault import GuestFault

STRING, BYTES, U32 = Plain("string"), Plain("string", isomorphic=True), Plain("u32")
HEADERS: Final = List(Tuple((STRING, BYTES)))
EVERYTHING: Final = Record((
    ("bool", Plain("bool")), ("u16", Plain("u16")), ("u32", U32), ("u64", Plain("u64")), ("s64", Plain("s64")),
    ("string", STRING), ("bytes", BYTES), ("headers", HEADERS), ("list", List(U32)), ("tuple", Tuple((U32, STRING))),
    ("some", Option(STRING)), ("none", Option(STRING)), ("ok", Result(U32, STRING)), ("err", Result(None, STRING)),
    ("empty", Variant((("first", None), ("second", STRING)))), ("full", Variant((("one", U32), ("two", HEADERS)))),
    ("enum", Enum(("low", "high"))), ("flags", Flags(("read", "write", "run"))),
))  # fmt: skip
VALUE: Final = (
    1, 0xFFFE, 0xFFFF_FFFD, 0xFFFF_FFFF_FFFF_FFFC, -5, "a é".encode(), bytes(range(256)),
    [(b"name", b"value"), (b"", b"\xff\x80")], [1, 2, 3], (7, b"in a tuple"), b"there", None, (True, 9), (False, b"no"),
    (0, None), (1, [(b"k", b"v")]), 1, 5,
)  # fmt: skip
ECHO: Final = Function((("values", List(EVERYTHING)),), List(EVERYTHING))
HOST: Final = "penstock:probe/host"
GUEST: Final = "penstock:probe/guest"
IMPORTS: Final[Interfaces] = {HOST: {"echo": ECHO}}
EXPORTS: Final[Interfaces] = {GUEST: {"echo": ECHO, "relay": ECHO}}

# A list is its address and length, whatever is in it: to give it back takes no more than those.
CORE: Final = f"""(module
  (import "{HOST}" "echo" (func $host (param i32 i32 i32)))
  (memory (export "memory") 32)
  (global $top (mut i32) (i32.const 64))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $top (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get 3))))
  (func (export "{GUEST}#echo") (param i32 i32) (result i32)
    (i32.store (i32.const 16) (local.get 0))
    (i32.store (i32.const 20) (local.get 1))
    (i32.const 16))
  (func (export "{GUEST}#relay") (param i32 i32) (result i32)
    (call $host (local.get 0) (local.get 1) (i32.const 16))
    (i32.const 16)))"""


def probe() -> bytes:
    """The small component, to be compiled."""
    return wrap(bytes(wasmtime.wat2wasm(CORE)), IMPORTS, EXPORTS)


def self_test(engine: Engine, code: bytes) -> None:
    """`code`: the compiled probe. Raises RuntimeError if values do not come through as they are."""
    capi.verify_components()
    heard: list[Any] = []
    given = [VALUE, VALUE]
    bounded = False

    def echo(values: list[Any]) -> list[Any]:
        heard.append(values)
        return values

    loaded = engine.load_component(code)
    linked = Linked(engine, loaded, IMPORTS, GUEST, EXPORTS[GUEST], {(HOST, "echo"): echo}, 1 << 16)
    try:
        instance = Instance(linked, memory_limit=4 << 20, memories=1, deadline=1.0, fuel=1 << 40)
        try:
            found = [instance.call(name, (given,), 1 << 40) for name in EXPORTS[GUEST]]
        finally:
            instance.close()
        bounded = is_bounded(linked)
    except GuestFault as fault:
        found = [fault]
    finally:
        linked.close()
    if found != [given, given] or heard != [given] or not bounded:
        raise RuntimeError(
            f"wasmtime {version('wasmtime')} does not fit this Penstock (components' values come back changed, or too many); "
            "install a version in the range of pyproject.toml"
        )


def is_bounded(linked: Linked) -> bool:
    """Is a result refused that is larger than a call may copy?"""
    instance = Instance(linked, memory_limit=4 << 20, memories=1, deadline=1.0, fuel=1 << 40, copied=1 << 10)
    try:
        instance.call("echo", ([VALUE, VALUE],), 1 << 40)
    except GuestFault as fault:
        return fault.reason == "result"
    finally:
        instance.close()
    return False
