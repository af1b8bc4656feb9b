"""What was found in a filter's file, as text."""

import re

import pytest

from proxy.abi.proxy_wasm.inspect import ExportedCallback, Grant, ImportedFunction, Inspection, inspect_bytes
from proxy.cli.inspect_report import report

FOUND = Inspection(
    size=3 << 20,
    sha256="ab" * 32,
    kind="module",
    abi_version="0.2.1",
    abi_markers=("proxy_abi_version_0_2_1",),
    language="Rust",
    sdk="proxy-wasm-rust-sdk",
    producers=("language: Rust",),
    imports={
        "host": (ImportedFunction("env.proxy_log", "(i32 i32 i32) -> (i32)"),),
        "wasi": (),
        "environment": (),
        "unknown": (ImportedFunction("env.teleport", "() -> ()", "is not offered by any proxy-wasm host"),),
    },
    callbacks=(ExportedCallback("proxy_on_request_headers", "(i32 i32 i32) -> (i32)"),),
    unreachable=(ExportedCallback("proxy_on_requst_body", "() -> ()", "is not a callback of the ABI"),),
    memory_minimum=17 << 16,
    memories=1,
    memory_export="memory",
    functions=7,
    largest_function_body=300,
    code_size=4096,
    start_export="_initialize",
    allocator="malloc",
    grants=(Grant("capabilities.allowed_hosts", "imports proxy_http_call"),),
)

EXPECTED = """\
f.wasm
  size          3 MiB, SHA-256 abababababababababababababababababababababababababababababababab
  ABI           proxy-wasm 0.2.1 (exports proxy_abi_version_0_2_1)
  made with     Rust, proxy-wasm-rust-sdk
  producers     language: Rust
  memory        starts with MEMORY, no maximum of its own, exported as memory
  code          7 functions, 4 KiB; the largest 300 bytes
  starts with   _initialize
  allocator     malloc

  imports: proxy-wasm host functions (1)
    env.proxy_log

  imports: functions that no host offers (1)
    env.teleport is not offered by any proxy-wasm host

  callbacks (1)
    proxy_on_request_headers

  callbacks that are never called (1)
    proxy_on_requst_body: is not a callback of the ABI

  grants it will need (1)
    capabilities.allowed_hosts: imports proxy_http_call

  would not load (1)
    imports that no proxy-wasm host offers: env.teleport; build the filter without them
"""


def test_a_report() -> None:
    assert re.sub(r"starts with [0-9.]+ (MiB|KiB|bytes)", "starts with MEMORY", report("f.wasm", FOUND)) == EXPECTED


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"\0asm\x0d\0\x01\0", ["kind          component", "would not load (1)", "the component exports no filter"]),
        (b"\0asm\x01\0\0\0", ["ABI           none that is known", "memory        none", "no allocator is exported"]),
    ],
)
def test_a_file_that_is_no_filter_is_described_all_the_same(data: bytes, lines: list[str]) -> None:
    text = report("f.wasm", inspect_bytes(data))
    for line in lines:
        assert line in text
    assert text.endswith("\n")
