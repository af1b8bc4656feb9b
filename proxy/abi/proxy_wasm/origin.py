"""Guesses which language and SDK a module comes from. A guess for people to read: a module can claim anything."""

import re
from collections.abc import Collection

from proxy.wasm.module import Module

LANGUAGES = {"C": "C", "C_plus_plus": "C++", "Rust": "Rust", "Go": "Go", "Swift": "Swift", "Zig": "Zig", "D": "D"}
TOOLS = (
    ("TinyGo", "Go (TinyGo)"), ("Go cmd/compile", "Go"), ("rustc", "Rust"), ("Zig", "Zig"),
    ("AssemblyScript", "AssemblyScript"),
)  # fmt: skip
LANGUAGE_MARKS = (
    (b"QuickJS", "JavaScript (QuickJS)"),
    (b"\xff Go buildinf:", "Go"),
    (b"/rustc/", "Rust"),
    (b"library/core/src/", "Rust"),
    ("~lib/rt/".encode("utf-16-le"), "AssemblyScript"),
    ("~lib/builtins.ts".encode("utf-16-le"), "AssemblyScript"),
)
RUST_SDK = re.compile(rb"proxy-wasm-([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4})/src/")
SDK_MARKS = (
    (b"github.com/proxy-wasm/proxy-wasm-go-sdk", "proxy-wasm-go-sdk"),
    (b"github.com/tetratelabs/proxy-wasm-go-sdk", "proxy-wasm-go-sdk (tetratelabs)"),
    (b"proxy-wasm-rust-sdk", "proxy-wasm-rust-sdk"),
    ("~lib/@gcoredev/proxy-wasm-sdk-as".encode("utf-16-le"), "@gcoredev/proxy-wasm-sdk-as"),
    ("~lib/@solo-io/proxy-runtime".encode("utf-16-le"), "@solo-io/proxy-runtime"),
)


def language(module: Module, data: bytes) -> str | None:
    """From the producers section, else from what the toolchains leave in a module."""
    claimed = [name for name, _ in module.producers.get("language", [])]
    tools = [name for name, _ in module.producers.get("processed-by", [])]
    if (found := marked(data, LANGUAGE_MARKS[:1])) is not None:
        return found  # an interpreter: what counts is the language it runs, not the one it is written in
    for mark, name in TOOLS:
        if any(tool.startswith(mark) for tool in tools):
            return name
    for claim in claimed:
        for prefix in sorted(LANGUAGES, key=len, reverse=True):
            if claim.startswith(prefix):
                return LANGUAGES[prefix]
    if any(name in ("go:buildid", "go.buildid") for name, _ in module.custom):
        return "Go"
    exports = {export.name for export in module.exports}
    if {"__new", "__pin", "__collect"} <= exports or "asc_abi" in exports:
        return "AssemblyScript"
    if (found := marked(data, LANGUAGE_MARKS[1:])) is not None:
        return found
    return "C or C++" if any(tool.startswith("clang") for tool in tools) else None


def sdk(data: bytes, language_guess: str | None, exports: Collection[str], callbacks: Collection[str]) -> str | None:
    """The proxy-wasm SDK by its marks, `name version` where the version can be told."""
    if (found := RUST_SDK.search(data)) is not None:
        return f"proxy-wasm-rust-sdk {found[1].decode()}"
    if (mark := marked(data, SDK_MARKS)) is not None:
        return mark
    everything = {name for name in callbacks if not name.startswith("envoy_") and not name.endswith("_metadata")}
    everything -= {"proxy_validate_configuration"}
    if language_guess in ("C++", "C or C++") and everything <= set(exports):
        return "proxy-wasm-cpp-sdk"  # it exports every callback, used or not
    return None


def marked(data: bytes, marks: Collection[tuple[bytes, str]]) -> str | None:
    return next((name for mark, name in marks if mark in data), None)
