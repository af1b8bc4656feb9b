"""proxy_call_foreign_function: the functions of Envoy that exist here (source/extensions/common/wasm/foreign.cc)."""

import zlib
from collections.abc import Callable
from typing import Final

MOST_RESULT: Final = 4 << 20
"""Bytes that a result may have."""


class ForeignError(Exception):
    """The function failed: the status that the filter gets, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


BAD_ARGUMENT: Final = 2
SERIALIZATION_FAILURE: Final = 3
INTERNAL_FAILURE: Final = 10


def compress(arguments: bytes) -> bytes:
    """RFC 1950, zlib's default level."""
    return zlib.compress(arguments)


def uncompress(arguments: bytes) -> bytes:
    """RFC 1950; at most MOST_RESULT bytes come out."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(arguments, MOST_RESULT)
    except zlib.error as error:
        raise ForeignError(SERIALIZATION_FAILURE, f"uncompress: {error}") from None
    if not inflater.eof:
        reason = "the result is larger than 4 MiB" if inflater.unconsumed_tail else "the data is cut off"
        raise ForeignError(SERIALIZATION_FAILURE, f"uncompress: {reason}")
    return data


def clear_route_cache(arguments: bytes) -> bytes:
    """Routes are chosen after the chain, by the final head: there is nothing to clear."""
    return b""


FUNCTIONS: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"compress": compress,
    b"uncompress": uncompress,
    b"clear_route_cache": clear_route_cache,
}
