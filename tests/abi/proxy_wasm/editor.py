"""A filter that edits maps as the request's body tells it, and what a map is after such edits, in plain Python."""

import struct
from collections.abc import Iterable

from proxy.abi.memory import decode_pairs

ADD, REPLACE, REMOVE, SET = range(4)
Edit = tuple[int, int, bytes, bytes]  # what, map, name, value (for SET: the block)
Pairs = list[tuple[bytes, bytes]]
INLINE = frozenset({b":authority", b":method", b":path", b":scheme", b"accept", b"user-agent"})  # of those that the tests use

EDITOR = """(module
  (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_header_map_pairs" (func $set (param i32 i32 i32) (result i32)))
  (memory (export "memory") 64)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 65536))
  ;; holds the headers, so that they stay open in the body's callbacks
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
  ;; the body is a list of: u8 what, u8 map, u16 size of the name, u32 size of the value, name, value
  (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
    (local $p i32) (local $end i32) (local $what i32) (local $map i32)
    (local $name i32) (local $names i32) (local $value i32) (local $values i32)
    (drop (call $get (i32.const 0) (i32.const 0) (local.get 1) (i32.const 8) (i32.const 12)))
    (local.set $p (i32.load (i32.const 8)))
    (local.set $end (i32.add (local.get $p) (i32.load (i32.const 12))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $p) (local.get $end)))
      (local.set $what (i32.load8_u (local.get $p)))
      (local.set $map (i32.load8_u offset=1 (local.get $p)))
      (local.set $names (i32.load16_u offset=2 (local.get $p)))
      (local.set $values (i32.load offset=4 (local.get $p)))
      (local.set $name (i32.add (local.get $p) (i32.const 8)))
      (local.set $value (i32.add (local.get $name) (local.get $names)))
      (if (i32.eq (local.get $what) (i32.const 0)) (then (drop
        (call $add (local.get $map) (local.get $name) (local.get $names) (local.get $value) (local.get $values)))))
      (if (i32.eq (local.get $what) (i32.const 1)) (then (drop
        (call $replace (local.get $map) (local.get $name) (local.get $names) (local.get $value) (local.get $values)))))
      (if (i32.eq (local.get $what) (i32.const 2)) (then (drop
        (call $remove (local.get $map) (local.get $name) (local.get $names)))))
      (if (i32.eq (local.get $what) (i32.const 3)) (then (drop
        (call $set (local.get $map) (local.get $value) (local.get $values)))))
      (local.set $p (i32.add (local.get $value) (local.get $values)))
      (br $next)))
    (i32.const 1)))"""

ROOMY = {
    "allow_on_headers_stop_iteration": True,
    "fuel": 10**12,
    "deadline": "10s",
    "limits": {"headers": 1000, "header_bytes": "3MiB", "body_buffer": "3MiB"},
}


def body_of(edits: Iterable[Edit]) -> bytes:
    return b"".join(struct.pack("<BBHI", what, map_, len(name), len(value)) + name + value for what, map_, name, value in edits)


def edited(pairs: Pairs, edit: Edit) -> Pairs:
    """What Envoy makes of a map: see notes in core/maps.c."""
    what, map_, name, value = edit
    if what == SET:
        fresh: Pairs = []
        for key, text in decode_pairs(value) or []:
            fresh = edited(fresh, (ADD, map_, key, text))
        return fresh
    name = folded(name, map_)
    if what == ADD:
        at = next((i for i, pair in enumerate(pairs) if pair[0] == name), None)
        if at is not None and map_ == 0 and name in INLINE:
            joined = b",".join(text for text in (pairs[at][1], value) if text)  # nothing is joined to nothing
            return [*pairs[:at], (name, joined), *pairs[at + 1 :]]
        return inserted(pairs, name, value)
    left = [pair for pair in pairs if pair[0] != name]
    return inserted(left, name, value) if what == REPLACE else left


def folded(name: bytes, map_: int) -> bytes:
    name = name.lower()
    return b":authority" if map_ == 0 and name == b"host" else name


def inserted(pairs: Pairs, name: bytes, value: bytes) -> Pairs:
    if name[:1] != b":":
        return [*pairs, (name, value)]
    at = next((i for i, pair in enumerate(pairs) if pair[0][:1] != b":"), len(pairs))
    return [*pairs[:at], (name, value), *pairs[at:]]
