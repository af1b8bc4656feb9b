"""Callbacks that do nothing are found in the file, and only those."""

import pytest
from wasmtime import wat2wasm

from proxy.abi.proxy_wasm.link import exported_callbacks
from proxy.wasm.module import read

CASES = [
    ("proxy_on_log", "(param i32)", "", False),
    ("proxy_on_log", "(param i32)", "(drop (i32.const 1))", True),
    ("proxy_on_log", "(param i32)", "unreachable", True),
    ("proxy_on_done", "(param i32) (result i32)", "(i32.const 1)", False),
    ("proxy_on_done", "(param i32) (result i32)", "(i32.const 0)", True),
    ("proxy_on_request_headers", "(param i32 i32 i32) (result i32)", "(i32.const 0)", False),
    ("proxy_on_request_headers", "(param i32 i32 i32) (result i32)", "(i32.const 1)", True),
    ("proxy_on_request_headers", "(param i32 i32 i32) (result i32)", "(local.get 0)", True),
    ("proxy_on_request_headers", "(param i32 i32 i32) (result i32)", "(i32.const 64)", True),
    ("proxy_on_vm_start", "(param i32 i32) (result i32)", "(i32.const 1)", False),
    ("proxy_on_configure", "(param i32 i32) (result i32)", "(i32.const 0)", True),
    ("proxy_on_delete", "(param i32)", "(call $elsewhere)", True),
]


@pytest.mark.parametrize(("name", "type_", "body", "called"), CASES)
def test_callbacks_that_do_nothing_are_not_called(name: str, type_: str, body: str, called: bool) -> None:
    text = f'(module (import "env" "f" (func $elsewhere)) (func (export "{name}") {type_} {body}))'
    assert (name in exported_callbacks(read(bytes(wat2wasm(text))), "0.2.1", None)) is called
