"""The conformance harness: the scripted upstream and the strict client against each other, and the real Envoy."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from tests import requires
from tests.conformance.case import PROBE, PROBES
from tests.conformance.client import Client, chunked_request, fetch, request
from tests.conformance.envoy import Envoy, EnvoyError, EnvoyFilter
from tests.conformance.probe import wasi
from tests.conformance.upstream import Answer, Body, Close, Upstream, chunked, head, sized
from tests.conformance.wire import WireError


def probe(script: str) -> EnvoyFilter:
    """A probe named A with this script."""
    return EnvoyFilter(PROBE, f"name A\n{script}\n".encode())


async def test_upstream_and_client_agree_on_a_chunked_exchange() -> None:
    async with Upstream([chunked([b"one", b"two"], trailers=[("t", "1")])]) as upstream:
        response = await fetch(upstream.port, chunked_request("POST", "/x", [b"a", b"bc"]), 0.01)
    assert (response.status, response.chunks, response.trailers) == (200, [b"one", b"two"], [(b"t", b"1")])
    received = upstream.requests[0]
    assert (received.method, received.target, received.chunks, received.complete) == (
        b"POST",
        b"/x",
        [b"a", b"bc"],
        True,
    )
    assert received.raw.endswith(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")


async def test_upstream_answers_in_turn_on_one_connection() -> None:
    async with Upstream([sized(b"1"), sized(b"2")]) as upstream, Client(upstream.port) as client:
        bodies = []
        for _ in range(3):
            await client.send(request("GET", "/"))
            bodies.append(bytes((await client.receive()).body))
    assert bodies == [b"1", b"2", b"2"]
    assert upstream.connections == 1


async def test_interim_responses_are_kept_apart() -> None:
    async with Upstream([Answer([head(103, [("link", "x")]), Body(), head(204)])]) as upstream:
        response = await fetch(upstream.port, request("GET", "/"))
    assert (response.status, [interim.status for interim in response.interim]) == (204, [103])


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 99 X\r\n\r\n",
        b"HTTP/1.1 200 X\nbad: lf\n\n",
        b"HTTP/1.1 200 X\r\nna me: 1\r\n\r\n",
        b"HTTP/1.1 200 X\r\n folded: 1\r\n\r\n",
        b"HTTP/1.1 200 X\r\nno-colon\r\n\r\n",
    ],
)
async def test_client_refuses_a_malformed_head(wire: bytes) -> None:
    async with Upstream([Answer([wire, Close()])]) as upstream:
        with pytest.raises(WireError):
            await fetch(upstream.port, request("GET", "/"))


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"content-length: 5\r\n\r\nab", "3 bytes early"),
        (b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", "both"),
        (b"content-length: 5\r\ncontent-length: 5\r\n\r\nabcde", "repeated"),
        (b"transfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n", "chunk size"),
        (b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "CRLF"),
        (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "ended"),
    ],
)
async def test_client_reports_bad_framing(wire: bytes, error: str) -> None:
    async with Upstream([Answer([b"HTTP/1.1 200 X\r\n" + wire, Close()])]) as upstream:
        response = await fetch(upstream.port, request("GET", "/"))
    assert error in response.error
    assert not response.complete


@pytest.mark.parametrize(
    ("version", "options"), [("0.2.1", []), ("0.2.0", ["-DABI=20"]), ("0.1.0", ["-DABI=10", "-Wl,--export=malloc"])]
)
def test_probe_is_built_from_its_source(tmp_path: Path, version: str, options: list[str]) -> None:
    requires.zig()
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-O2", "-s", "-mexec-model=reactor"]
    built = tmp_path / "probe.wasm"
    source = PROBE.with_suffix(".c")
    subprocess.run([*command, "-Wl,-z,stack-size=65536", *options, source, "-o", built], check=True)
    assert built.read_bytes() == PROBES[version].read_bytes()


def test_the_caller_of_wasi_is_built_from_its_source() -> None:
    assert wasmtime.wat2wasm(wasi.text()) == wasi.BUILT.read_bytes()


@pytest.mark.envoy
async def test_envoy_runs_the_probe() -> None:
    async with (
        Upstream() as upstream,
        Envoy([probe("rqh: add 0 x-seen 1; metric 0 seen 2")], {"service": upstream.port}) as envoy,
    ):
        response = await fetch(envoy.port, request("GET", "/"))
        assert (response.status, bytes(response.body), response.one("server")) == (200, b"ok", b"envoy")
        assert upstream.requests[0].one("x-seen") == b"1"
        assert envoy.metrics() == {"seen": 2}
        for _ in range(100):
            if any(line.message == "A delete c=2" for line in envoy.worker_lines()) and envoy.access_lines():
                break
            await asyncio.sleep(0.02)
        messages = [line.message for line in envoy.worker_lines()]
        assert messages[:3] == ["A create c=2 parent=1", "A rqh c=2 n=6 eos=1", "A   add 0 x-seen 1 = 0"]
        assert [(line.level, line.prefix.split()[0]) for line in envoy.worker_lines()[:1]] == [("info", "f0")]
        assert messages[-3:] == ["A log c=2", "A done c=2", "A delete c=2"]
        assert [(line.status, line.details, line.upstream) for line in envoy.access_lines()] == [
            (200, "via_upstream", "service")
        ]
    assert envoy.process is None


@pytest.mark.envoy
async def test_envoy_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "bad.wasm").write_bytes(b"nonsense")
    envoy = Envoy([EnvoyFilter(tmp_path / "bad.wasm")], {"service": 1})
    with pytest.raises(EnvoyError, match="Wasm"):
        await asyncio.to_thread(envoy.start)
    assert (envoy.process, envoy.directory) == (None, None)
