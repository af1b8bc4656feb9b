"""Arguments and results of the ABI's functions, as a trace shows them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from proxy.abi.memory import decode_pairs
from proxy.abi.proxy_wasm.host import STATUS_NAMES
from proxy.abi.proxy_wasm.signatures import WASI_MODULES
from proxy.chain.shown import action_text
from proxy.wasm.module import Import

Peek = Callable[[int, int], bytes | None]
"""(address, size) -> bytes of the filter's memory, None if they are not in it."""

LONGEST: Final = 160
"""Bytes of a text that are shown."""

MAPS: Final = (
    "request_headers", "request_trailers", "response_headers", "response_trailers", "grpc_initial_metadata",
    "grpc_trailing_metadata", "call_headers", "call_trailers",
)  # fmt: skip
BUFFERS: Final = (
    "request_body", "response_body", "downstream_data", "upstream_data", "call_body", "grpc_message", "vm_configuration",
    "plugin_configuration", "foreign_arguments",
)  # fmt: skip
WORDS: Final = {
    "map": MAPS,
    "buffer": BUFFERS,
    "level": ("trace", "debug", "info", "warn", "error", "critical"),
    "stream": ("request", "response", "downstream", "upstream"),
    "kind": ("counter", "gauge", "histogram"),
}

FUNCTIONS: Final = {
    "proxy_log": "level text",
    "proxy_get_log_level": "out4",
    "proxy_get_current_time_nanoseconds": "out8",
    "proxy_get_configuration": "out",
    "proxy_get_status": "out4 out",
    "proxy_get_buffer_bytes": "buffer n n out",
    "proxy_get_buffer_status": "buffer out4 out4",
    "proxy_set_buffer_bytes": "buffer n n text",
    "proxy_get_header_map_size": "map out4",
    "proxy_get_header_map_pairs": "map outpairs",
    "proxy_set_header_map_pairs": "map pairs",
    "proxy_get_header_map_value": "map text out",
    "proxy_add_header_map_value": "map text text",
    "proxy_replace_header_map_value": "map text text",
    "proxy_remove_header_map_value": "map text",
    "proxy_continue_stream": "stream",
    "proxy_close_stream": "stream",
    "proxy_send_local_response": "n text text pairs i",
    "proxy_http_call": "text pairs text pairs n out4",
    "proxy_grpc_call": "text text text pairs text n out4",
    "proxy_grpc_stream": "text text text pairs out4",
    "proxy_grpc_send": "n text n",
    "proxy_get_shared_data": "text out out4",
    "proxy_set_shared_data": "text text n",
    "proxy_register_shared_queue": "text out4",
    "proxy_resolve_shared_queue": "text text out4",
    "proxy_enqueue_shared_queue": "n text",
    "proxy_dequeue_shared_queue": "n out",
    "proxy_define_metric": "kind text out4",
    "proxy_increment_metric": "n n64",
    "proxy_record_metric": "n n64",
    "proxy_get_metric": "n out8",
    "proxy_get_property": "path out",
    "proxy_set_property": "path text",
    "proxy_call_foreign_function": "text text out",
    "fd_write": "n vectors out4",
    "clock_time_get": "n n64 out8",
}
"""What the words of a call mean, in order; text, pairs, path, out and vectors take two words, as n64 does."""

CALLBACKS: Final = {
    "proxy_on_context_create": "context parent",
    "proxy_on_vm_start": "context size",
    "proxy_on_configure": "context size",
    "proxy_on_request_headers": "context headers end_of_stream",
    "proxy_on_request_body": "context size end_of_stream",
    "proxy_on_request_trailers": "context trailers",
    "proxy_on_response_headers": "context headers end_of_stream",
    "proxy_on_response_body": "context size end_of_stream",
    "proxy_on_response_trailers": "context trailers",
    "proxy_on_http_call_response": "context token headers size trailers",
    "proxy_on_queue_ready": "context token",
    "proxy_on_grpc_receive_initial_metadata": "context token headers",
    "proxy_on_grpc_receive": "context token size",
    "proxy_on_grpc_receive_trailing_metadata": "context token trailers",
    "proxy_on_grpc_close": "context token status",
    "proxy_on_foreign_function": "context function size",
}
VERDICTS: Final = frozenset({"proxy_on_vm_start", "proxy_on_configure", "proxy_on_done"})
STREAM_PREFIXES: Final = ("proxy_on_request_", "proxy_on_response_")

TWO_WORDS: Final = frozenset({"text", "pairs", "path", "out", "outpairs", "vectors", "n64"})
RESULTS: Final = frozenset({"out", "outpairs", "out4", "out8"})


def parts(function: str, words: Sequence[int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(meaning, words) of each argument; what is not known is a number."""
    at = 0
    for kind in FUNCTIONS.get(function, "").split():
        size = 2 if kind in TWO_WORDS else 1
        if at + size > len(words):
            break
        yield kind, tuple(words[at : at + size])
        at += size
    for word in words[at:]:
        yield "n", (word,)


def arguments_text(function: str, words: Sequence[int], peek: Peek) -> str:
    """The arguments that go in."""
    return ", ".join(argument(kind, value, peek) for kind, value in parts(function, words) if kind not in RESULTS)


def argument(kind: str, words: tuple[int, ...], peek: Peek) -> str:
    if kind in WORDS:
        names = WORDS[kind]
        return names[words[0]] if words[0] < len(names) else str(words[0])
    if kind == "n":
        return str(words[0])
    if kind == "i":
        return str(words[0] - (1 << 32) if words[0] >> 31 else words[0])
    if kind == "n64":
        value = words[0] | words[1] << 32
        return str(value - (1 << 64) if value >> 63 else value)
    if kind == "vectors":
        return shown(vectors(words, peek))
    data = peek(*words)
    if kind == "pairs":
        return pairs_text(data)
    if kind == "path" and data is not None:
        return shown(data.replace(b"\0", b"."))
    return shown(data)


def vectors(words: tuple[int, ...], peek: Peek) -> bytes | None:
    """What a WASI list of pieces holds."""
    data = peek(words[0], 8 * min(words[1], 64))
    if data is None:
        return None
    return b"".join(peek(address, size) or b"" for address, size in struct.iter_unpack("<2I", data))


def result_text(name: str, words: Sequence[int], result: int, peek: Peek, item: Import | None) -> str:
    """The result, with what was written to the addresses for it."""
    if item is None:
        if name in VERDICTS:
            return "true" if result else "false"
        if name.startswith(STREAM_PREFIXES):
            return action_text(result)
        return ""
    assert item.function is not None
    if not item.function.results:
        return ""
    wasi = item.module in WASI_MODULES
    status = f"errno {result}" if wasi and result else STATUS_NAMES[result] if result < len(STATUS_NAMES) else str(result)
    if result:
        return status
    written = [read_back(kind, value, peek) for kind, value in parts(name, words) if kind in RESULTS]
    return " ".join([status, *written])


def read_back(kind: str, words: tuple[int, ...], peek: Peek) -> str:
    if kind in ("out4", "out8"):
        data = peek(words[0], int(kind[3:]))
        return "?" if data is None else str(int.from_bytes(data, "little"))
    address, size = peek(words[0], 4), peek(words[1], 4)
    if address is None or size is None:
        return "?"
    data = peek(int.from_bytes(address, "little"), int.from_bytes(size, "little"))
    return pairs_text(data) if kind == "outpairs" else shown(data)


def callback_text(name: str, words: Sequence[int]) -> str:
    """A callback's arguments, by their names."""
    names = CALLBACKS.get(name, "context").split()
    labelled = []
    for index, word in enumerate(words):
        label = names[index] if index < len(names) else f"argument{index}"
        labelled.append(f"{label}={('false', 'true')[min(word, 1)] if label == 'end_of_stream' else word}")
    return ", ".join(labelled)


def pairs_text(data: bytes | None) -> str:
    pairs = decode_pairs(data) if data is not None else None
    if pairs is None:
        return "(not well-formed)"
    return "{" + ", ".join(f"{shown(name)}: {shown(value)}" for name, value in pairs) + "}"


def shown(data: bytes | None) -> str:
    """Bytes as a text in quotes, cut, with what is not printable escaped."""
    if data is None:
        return "(not in the filter's memory)"
    text = "".join(
        character if character.isprintable() and character != '"' else character.encode("unicode_escape").decode()
        for character in data[:LONGEST].decode("utf-8", "backslashreplace")
    ).replace('"', '\\"')
    more = f"... ({len(data)} bytes)" if len(data) > LONGEST else ""
    return f'"{text}"{more}'
