"""Requests and answers that most cases use."""

from __future__ import annotations

from collections.abc import Sequence

from tests.conformance.client import chunked_request
from tests.conformance.client import request as plain_request
from tests.conformance.upstream import Answer, Body, chunked, head

FIELDS = (("user-agent", "ua"), ("x-forwarded-proto", "http"))
"""With its x-forwarded-proto Envoy adds none of its own."""


def get(target: str = "/a?b=1", fields: Sequence[tuple[str, str]] = (), method: str = "GET") -> tuple[bytes, ...]:
    return (plain_request(method, target, [*FIELDS, *fields]),)


def post(body: bytes = b"hello", fields: Sequence[tuple[str, str]] = (), target: str = "/a") -> tuple[bytes, ...]:
    """A sized request, its body in a piece of its own."""
    whole = plain_request("POST", target, [*FIELDS, *fields], body)
    return (whole[: len(whole) - len(body)], body)


def chunks(pieces: Sequence[bytes], trailers: Sequence[tuple[str, str]] = ()) -> tuple[bytes, ...]:
    return tuple(chunked_request("POST", "/a", pieces, FIELDS, trailers))


def slow(seconds: float, body: bytes = b"ok") -> Answer:
    """A sized answer that comes late."""
    return Answer([Body(), seconds, head(200, [("content-length", str(len(body)))]) + body])


GET = get()
POST = post()
THREE = chunks([b"one", b"two", b"three"])
THREE_BACK = chunked([b"one", b"two", b"three"], delay=0.03)
TICK = "period 60"
"""In a stream's callback: the root's first tick comes 60 ms later."""
