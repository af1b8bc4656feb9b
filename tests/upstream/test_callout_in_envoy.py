"""The same calls through the real Envoy and through Callouts: what the callee gets and what the filter gets."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from proxy.upstream.callout import CalloutResult
from proxy.upstream.callout_head import JOINED
from tests.conformance.client import fetch, request
from tests.conformance.envoy import Envoy, EnvoyFilter
from tests.conformance.upstream import Answer, Body, Close, Upstream, chunked, sized
from tests.conformance.upstream import head as answer_head
from tests.upstream.callouts import Bench, policy

PROBE = Path(__file__).parent.parent / "conformance" / "probe" / "probe.wasm"
ENVOY_S_OWN = re.compile(rb"x-envoy-[a-z-]+: [^\r]*\r\n")

Pairs = Sequence[tuple[bytes, bytes]]
Call = tuple[str, Pairs, bytes, float]
"""Cluster, headers, body, seconds."""


def call(*fields: tuple[bytes, bytes], method: bytes = b"GET", body: bytes = b"", cluster: str = "auth") -> Call:
    return cluster, [(b":method", method), (b":path", b"/x?y=1"), (b":authority", b"auth.test"), *fields], body, 1.0


OK = sized(b"ok", 200, [("X-Up", "A"), ("x-d", "1"), ("X-D", "2"), ("x-empty", ""), ("keep-alive", "3"), ("te", "x")])
HEAD = answer_head(200, [("content-length", "4")]) + b"ok"

REPEATED = sorted({*JOINED, b"cookie", b"range", b"accept-language"} - {b"x-envoy-original-path"})

CASES: Sequence[tuple[Call, Answer | None]] = [
    (call(), OK),
    (call(body=b"abc"), OK),
    *((call(method=method), OK) for method in (b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"FOO", b"get")),
    (call(method=b"POST", body=b"hello"), chunked([b"one", b"two"], trailers=[("t", "1")])),
    (call((b"content-length", b"99"), (b"z", b"1"), method=b"POST", body=b"hello"), OK),
    (call((b"X-Dup", b"1"), (b"a", b"b"), (b"x-dup", b"2"), (b"x-forwarded-for", b"1")), OK),
    (call(*((name, value) for name in REPEATED for value in (b"1", b"2"))), OK),
    # Not a second host: Envoy sends `auth.test,other`, here the call is refused (tests/attacks/cases/filter.py).
    (call((b":path", b"/b"), (b":scheme", b"https"), (b":status", b"1"), (b"", b"1")), OK),
    (call((b"tab", b"a\tb"), (b"high", b"\xff\xc3\xa9")), OK),
    (call(), sized(b"", 302, [("location", "http://127.0.0.1:1/")])),
    (call(), Answer([Body(), answer_head(204)])),
    (call(), Answer([Body(), answer_head(304, [("content-length", "5")])])),
    (call(), Answer([Body(), answer_head(103, [("link", "x")]), answer_head(200, [("content-length", "0")])])),
    (call(method=b"HEAD"), Answer([Body(), answer_head(200, [("content-length", "5")])])),
    (call(), Answer([Body(), answer_head(200) + b"abc", 0.02, Close()])),
    (call(), Answer([Body(), Close()])),
    (call(), Answer([Body(), Close(abort=True)])),
    (call(), Answer([Body(), b"garbage\r\n\r\n"])),
    (call(), Answer([Body(), HEAD, 0.02, Close()])),
    (call(), Answer([Body(), HEAD, 0.02, Close(abort=True)])),
    (call(), Answer([Body(), HEAD, 1.5])),
    (call(), Answer([Body(), 1.5, HEAD])),
    (call(), sized(b"ok", 200, [(f"x{i}", "1") for i in range(101)])),
    (call(), sized(b"ok", 200, [("x", "1" * 200_000)])),
    (call(cluster="dead"), None),
    (call(method=b"HEAD", cluster="dead"), None),
    (call((b"x", b"a\r\ny: b")), None),
    (call((b"x", b"a\0b")), None),
    (call((b"x", b"a\x7fb")), None),
    (call((b"x y", b"1"), (b"x", b"\n")), None),
    (call((b"x\r\ny", b"1")), None),
    (call((b":path", b"\n")), None),
    (call((b":authority", b"\n")), None),
    (call((b":method", b"\n")), None),
    (call(method=b"CONNECT"), None),
]  # fmt: skip


def script(calls: Sequence[Call]) -> str:
    """Makes the calls one after the other."""

    def word(data: bytes) -> str:
        return quote(data, safe="/:") or "~"

    lines = ["called: pairs 6; buf 4 0 600"]
    for number, (cluster, headers, body, seconds) in enumerate(calls):
        pairs = "|".join(f"{quote(name, safe=':')}={quote(value, safe='/:')}" for name, value in headers)
        kind = f"called#{number}" if number else "rqh"
        lines.append(f"{kind}: call {cluster} {pairs} {word(body)} {int(seconds * 1000)}")
    return "\n".join(lines)


def rendered(result: CalloutResult) -> list[str]:
    """As the probe would log it."""
    pairs = " ".join(f"{name.decode()}={value.decode('latin-1')};" for name, value in result.headers) or "none"
    return [pairs, result.body.decode("latin-1")]


def of_envoy(messages: Sequence[str]) -> list[list[str]]:
    """Pairs and body of each response in the probe's lines."""
    found: list[list[str]] = []
    for message in messages:
        if pairs := re.match(r"A   pairs 6 = 0 (?:n=\d+ )?(.*)", message, re.DOTALL):
            found.append([re.sub(r"x-envoy-[a-z-]+=[^;]*; ?", "", pairs[1]).strip()])
        elif body := re.match(r"A   buf 4 0 600 = \d n=\d+ \[(.*)\]", message, re.DOTALL):
            found[-1].append(body[1].replace("\\x5c", "\\"))
    return found


@pytest.mark.envoy
@pytest.mark.slow
async def test_callouts_are_envoy_s() -> None:
    calls = [call for call, _ in CASES]
    answers = [answer for _, answer in CASES if answer is not None]
    clusters = {"dead": 1}

    async with Upstream(answers) as auth, Upstream() as service:
        plugin = EnvoyFilter(PROBE, f"name A\n{script(calls)}\n".encode())
        async with Envoy([plugin], {"service": service.port, "auth": auth.port, **clusters}) as envoy:
            await fetch(envoy.port, request("GET", "/"))
            theirs: list[list[str]] = []
            for _ in range(300):
                theirs = of_envoy([line.message for line in envoy.worker_lines()])
                if len(theirs) == len(calls) and len(theirs[-1]) == 2:
                    break
                await asyncio.sleep(0.02)
    their_requests = [ENVOY_S_OWN.sub(b"", bytes(received.raw)) for received in auth.requests]

    async with Upstream(answers) as auth, Bench({"auth": auth.port, **clusters}) as bench:
        caller = policy("cluster:auth", "cluster:dead")
        ours = [rendered(await bench.call(caller, *one)) for one in calls]
    our_requests = [bytes(received.raw) for received in auth.requests]

    assert our_requests == their_requests
    for one, mine, envoy_s in zip(calls, ours, theirs, strict=True):
        assert mine == envoy_s, one
