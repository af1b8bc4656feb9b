"""Versions of one small filter: each marks responses with its number, and does what `extra` says in a request's headers."""

from __future__ import annotations

from pathlib import Path

import wasmtime

MODULE = """(module
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_current_time_nanoseconds" (func $time (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "x-version") (data (i32.const 32) "{number}") (data (i32.const 48) "x-added")
  (data (i32.const 64) "service")
  (global $i (mut i32) (i32.const 0))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {extra} (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (drop (call $add (i32.const 2) (i32.const 16) (i32.const 9) (i32.const 32) (i32.const 1))) (i32.const 0)))"""

TRAPS = "unreachable"
ADDS = "(drop (call $add (i32.const 0) (i32.const 48) (i32.const 7) (i32.const 32) (i32.const 1)))"
ANSWERS = (
    "(drop (call $reply (i32.const {status}) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)"
    " (i32.const 0) (i32.const 0) (i32.const -1)))"
)
CALLS = (
    "(drop (call $call (i32.const 64) (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)"
    " (i32.const 0) (i32.const 1000) (i32.const 96)))"
)
BURNS = (
    "(loop $l (global.set $i (i32.add (global.get $i) (i32.const 1)))"
    " (br_if $l (i32.rem_u (global.get $i) (i32.const 100000))))"
)


def version(folder: Path, number: int, extra: str = "") -> Path:
    """The filter's file."""
    file = folder / f"version-{number}.wasm"
    file.write_bytes(wasmtime.wat2wasm(MODULE.replace("{number}", str(number)).replace("{extra}", extra)))
    return file
