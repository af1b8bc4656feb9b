"""What no case file can hold: bytes that are no UTF-8, heads as large as the gateway takes them, odd targets. No stock filter
may fail on any of them, whatever it answers."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance import client
from tests.conformance.penstock import Penstock
from tests.conformance.upstream import Answer, Close, Upstream, head
from tests.filters import cases
from tests.filters.test_in_penstock import gateway

NAMES = [
    "ab-route", "bot-block", "cache-control", "json-validate", "log-sampler", "metrics-by-header", "pii-mask", "redirect",
    "request-id", "script", "waf-lite",
]  # fmt: skip
"""The others are looked at in their own cases and by tests/hostile."""

INVALID = "\xff\xfe\xc3(\xed\xa0\x80"  # as the wire modules encode it, a byte for a character
SPECIAL = [
    "x-request-id",
    "cookie",
    "content-type",
    "content-encoding",
    "if-none-match",
    "x-forwarded-proto",
    "authorization",
    "etag",
]


def requests() -> list[list[bytes]]:
    """Each as its pieces."""
    many = [(f"x-{number}", "v") for number in range(200)]
    body = b'{"a":"' + bytes(range(0x80, 0x100)) + b'\\ud800"}' + b"[" * 300
    json = ("content-type", "application/json")
    return [
        [client.request("GET", f"/{INVALID}?{INVALID}={INVALID}#x")],
        *([client.request("GET", "/", [(name, INVALID)])] for name in SPECIAL),
        [client.request("GET", "/", [(name, "") for name in SPECIAL])],
        [client.request("GET", "/" + "%2e%2e%2f" * 900)],
        [client.request("GET", "/?" + "'%20or%20" * 900, [("cookie", ";=" * 3000), ("referer", "<" * 6000)])],
        [client.request("GET", "/", [("cookie", "a=b; " * 2400), *many])],
        [client.request("GET", "/", [("if-none-match", '"' * 8000), ("accept", "," * 8000)])],
        [client.request("OPTIONS", "*")],
        [client.request("GET", "//\\//evil.example/%")],
        [client.request("POST", "/", [json], body)],
        client.chunked_request("POST", "/", [body[at : at + 1] for at in range(len(body))], [json]),
        [client.request("POST", "/", [json], b"[" + b"1," * 8000 + b"1]")],
        [client.request("POST", "/", [("content-type", "text/plain")], b"4@4 4.4+4-" * 1500 + b"\xff" * 500)],
    ]


async def play(name: str) -> tuple[list[int], Penstock]:
    """The statuses, and the gateway that gave them."""
    tested = cases.load(name)
    fields = [(one, INVALID) for one in ("etag", "vary", "cache-control", "content-range")]
    answer = [head(200, [*fields, ("content-type", f"text/plain; charset={INVALID}"), ("content-length", "2")]), b"\xff@"]
    async with Upstream() as service:
        service.answers = [Answer([*answer, Close()])]
        others = {other: 9 for case in tested.cases for other in case.services}
        used = gateway(name, 0, tested.cases[0].configuration, {"service": service.port, **others})
        statuses = []
        async with used:
            for pieces in requests():
                statuses.append((await client.fetch(used.port, pieces)).status)
        return statuses, used


@pytest.mark.parametrize("name", NAMES)
def test_no_failure(name: str) -> None:
    statuses, used = asyncio.run(play(name))
    assert [one for one in used.events if one["event"] == "filter_failed"] == []
    assert len(statuses) == len(requests())
    assert 503 not in statuses
