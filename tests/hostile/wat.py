"""Filters in the WebAssembly text format, put together from the few lines that make each of them hostile."""

from __future__ import annotations

import re

from proxy.abi.memory import encode_pairs
from proxy.abi.proxy_wasm.signatures import CALLBACKS, HOST_FUNCTIONS, WASI_FUNCTIONS, Signature

HEADERS = "proxy_on_request_headers"
ANSWERS = {"proxy_on_vm_start": 1, "proxy_on_configure": 1, "proxy_on_done": 1}
"""What a callback with a result answers, if a case does not say; 0, continue, elsewhere."""
MALLOC = '(func (export "malloc") (param i32) (result i32) (i32.const 2048))'
CALL = re.compile(r"\(call \$((?:proxy|wasi)_\w+)")
SCRATCH = 1024
"""Where a filter lets the host write answers: nothing of its own lies there."""


def types(signature: Signature) -> str:
    """A signature as the text format writes it."""
    params = f"(param {' '.join(signature.params)})" if signature.params else ""
    results = f"(result {' '.join(signature.results)})" if signature.results else ""
    return f"{params} {results}"


def imported(text: str) -> str:
    """The imports that `text` calls: $proxy_NAME from env, $wasi_NAME from WASI."""
    lines = []
    for name in dict.fromkeys(CALL.findall(text)):
        module, function, table = "env", name, HOST_FUNCTIONS
        if name.startswith("wasi_"):
            module, function, table = "wasi_snapshot_preview1", name.removeprefix("wasi_"), WASI_FUNCTIONS
        lines.append(f'(import "{module}" "{function}" (func ${name} {types(table[function])}))')
    return "\n  ".join(lines)


def callback(name: str, body: str, answer: int | None = None, locals_: str = "") -> str:
    """An exported callback that runs `body` and answers."""
    signature = CALLBACKS[name]
    result = f"(i32.const {ANSWERS.get(name, 0) if answer is None else answer})" if signature.results else ""
    return f'(func (export "{name}") {types(signature)} {locals_} {body} {result})'


def module(*parts: str, memory: str = "1", allocator: str = MALLOC) -> str:
    """A filter of these parts, with a memory, an allocator and the version's marker."""
    text = "\n  ".join((*(part for part in parts if not part.startswith("(import")), allocator))
    imports = "\n  ".join((*(part for part in parts if part.startswith("(import")), imported(text)))
    return f"""(module
  {imports}
  (memory (export "memory") {memory})
  (func (export "proxy_abi_version_0_2_1"))
  {text})"""


def guest(
    body: str,
    *more: str,
    on: str = HEADERS,
    answer: int | None = None,
    locals_: str = "",
    memory: str = "1",
    allocator: str = MALLOC,
) -> str:
    """A filter with one callback."""
    return module(*more, callback(on, body, answer, locals_), memory=memory, allocator=allocator)


def data(at: int, content: bytes) -> str:
    """Bytes that lie in the memory from the start."""
    return f'(data (i32.const {at}) "{"".join(f"{chr(92)}{byte:02x}" for byte in content)}")'


def call(name: str, *arguments: int) -> str:
    """A host call with constant arguments, its status dropped."""
    function = name.removeprefix("wasi_")
    signature = WASI_FUNCTIONS[function] if name.startswith("wasi_") else HOST_FUNCTIONS[function]
    given = " ".join(f"({kind}.const {signed(value, kind)})" for kind, value in zip(signature.params, arguments, strict=True))
    text = f"(call ${name} {given})"
    return f"(drop {text})" if signature.results else text


def signed(value: int, kind: str) -> int:
    """A number as the text format takes it for that type, whatever its sign."""
    bits = 32 if kind == "i32" else 64
    return value & ((1 << bits) - 1)


def repeat(times: int, body: str) -> str:
    """`body`, that often; $i counts down. The function declares `LOOP`."""
    return f"(local.set $i (i32.const {times})) (loop $again {body} (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"


LOOP = "(local $i i32)"
FOREVER = "(loop $forever (br $forever))"

CALL_HEAD = ((":method", "GET"), (":path", "/callout"), (":authority", "service"))


def pair_block(fields: tuple[tuple[str, str], ...]) -> bytes:
    return encode_pairs([(name.encode(), value.encode()) for name, value in fields])


def pairs(at: int, fields: tuple[tuple[str, str], ...]) -> str:
    """A pair block in the memory."""
    return data(at, pair_block(fields))


def pairs_size(fields: tuple[tuple[str, str], ...]) -> int:
    return len(pair_block(fields))
