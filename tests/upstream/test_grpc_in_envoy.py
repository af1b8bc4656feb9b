"""The same gRPC calls by one filter in the real Envoy and in Penstock: every return code, token, callback and its order, and
what can be read where. What differs on purpose is at the end."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import wasmtime

from proxy.abi.proxy_wasm import host, load, plugin
from proxy.abi.services import Services
from proxy.chain.grpc import GrpcOf
from proxy.upstream.grpc_callout import GrpcCallouts
from tests import requires
from tests.abi.guest import Lines, Worker, compiled
from tests.conformance.client import fetch, request
from tests.conformance.envoy import TYPE, Envoy, EnvoyFilter
from tests.upstream.callouts import Bench, policy
from tests.upstream.grpc_server import GrpcServer, Relay

PROBE = Path(__file__).parent / "grpc_probe" / "grpc_probe.wasm"
OPTIONS = TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
HTTP2 = {
    "typed_extension_protocol_options": {
        OPTIONS.removeprefix(TYPE): {"@type": OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
    }
}
LOOK = "pairs 4;pairs 5;buf 5;status"
LOOK_EVERYWHERE = f"!init:{LOOK}!recv:{LOOK}!trail:{LOOK}!closed:{LOOK}"


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def envoy_grpc(cluster: bytes, more: bytes = b"") -> str:
    return quote(field(1, field(1, cluster)) + more, safe="")


SERVICE = envoy_grpc(b"auth", field(5, field(1, b"im") + field(2, b"1")) + b"\x28\x01")

CASES = {
    "unary": "rqh:call auth t.S Echo a=1|x-bin=AAEC hello 2000;status;buf 5;pairs 4" + LOOK_EVERYWHERE,
    "unary, a GrpcService": f"rqh:call {SERVICE} t.S Echo ~ hello 2000",
    "unary, an empty message": "rqh:call auth t.S Echo ~ ~ 2000" + LOOK_EVERYWHERE,
    "unary, an error": "rqh:call auth t.S Fail ~ 7%20why%20not 2000" + LOOK_EVERYWHERE,
    "unary, an error without a text": "rqh:call auth t.S Fail ~ 7%20 2000" + LOOK_EVERYWHERE,
    "unary, an error after a message": "rqh:call auth t.S Fail ~ 7%20after%20%C3%A9%25 2000" + LOOK_EVERYWHERE,
    "unary, OK without a message": "rqh:call auth t.S None ~ x 2000" + LOOK_EVERYWHERE,
    "unary, two messages": "rqh:call auth t.S Two ~ x 2000" + LOOK_EVERYWHERE,
    "unary, too late": "rqh:call far t.S Slow ~ x 400" + LOOK_EVERYWHERE,
    "unary, too late after a message": "rqh:call far t.S Stuck ~ x 400" + LOOK_EVERYWHERE,
    "unary, no such method": "rqh:call auth t.S Nope ~ x 2000" + LOOK_EVERYWHERE,
    "unary, no server": "rqh:call dead t.S Echo ~ x 2000" + LOOK_EVERYWHERE,
    "unary, a server that hangs up": "rqh:call closing t.S Echo ~ x 2000" + LOOK_EVERYWHERE,
    "unary, no HTTP/2": "rqh:call garbage t.S Echo ~ x 2000" + LOOK_EVERYWHERE,
    "unary, cancelled": "rqh:call auth t.S Slow ~ x 2000;cancel c;cancel c;close c;send c x 0;"
    "call auth t.S Slow ~ x 2000;close c;close c",
    "unary, used in its callback": "rqh:call auth t.S Echo ~ x 2000!recv:cancel c;close c",
    "unary, used in its last callback": "rqh:call auth t.S Nope ~ x 2000!closed:cancel c;close c;call auth t.S Echo ~ y 2000",
    "a chain of calls": "rqh:call auth t.S Echo ~ x 2000!recv#1:call auth t.S Echo ~ y 2000!recv#2:"
    "stream auth t.S Echo ~;close s",
    "no such cluster": "rqh:call nope t.S Echo ~ x 2000;stream nope t.S Echo ~;call auth t.S Echo ~ x 2000",
    "no such cluster, a GrpcService": f"rqh:call {envoy_grpc(b'nope')} t.S Echo ~ x 2000!closed:status",
    "no such cluster, a stream": f"rqh:stream {envoy_grpc(b'nope')} t.S Echo ~!closed:status",
    "a name that cannot be": "rqh:call auth t.S Echo x%20a=1 x 2000!closed:status",
    "a value that cannot be": "rqh:call auth t.S Echo x-a=1%0Ay x 2000!closed:status",
    "a path that cannot be": "rqh:call auth t%0AS Echo ~ x 2000!closed:status",
    "an odd path": "rqh:call auth ~ t%20S ~ x 2000!closed:status",
    "tokens of other kinds": "rqh:cancel 0;close 0;cancel 4;close 8;send 5 x 0;send 900 x 0;send 902 x 0;cancel 901;cancel 902;"
    "close 901;close 902;cancel 903",
    "a stream": "rqh:stream auth t.S Echo a=1;send s one 0;send s two 1;send s three 0;buf 5;pairs 4" + LOOK_EVERYWHERE,
    "maps in a callback": "rqh:stream auth t.S Echo ~;close s!init:get 4 x-initial;get 4 X-Initial;get 4 nope;size 4;add 4;"
    "get 5 x!trail:get 5 grpc-status;get 5 y-bin;get 4 x-initial!closed:get 4 x;get 5 x",
    "a message is edited": "rqh:call auth t.S Echo ~ hello 2000!recv:setbuf 5;buf 5;buf 4",
    "after the end": "rqh:stream auth t.S Echo ~;send s one 1!closed:status;send s x 0;send s x 1;cancel s;cancel s;send s x 0;"
    "close s",
    "closed after the end": "rqh:stream auth t.S Echo ~;send s one 1!closed:close s;close s;send s x 0;cancel s",
    "used long after the end": "rqh:stream auth t.S Echo ~;send s one 1!closed:period 50!tick:period 0;"
    "send s x 0;close s;close s",
    "closed before the end": "rqh:stream auth t.S Echo ~;send s one 0;close s;close s;send s x 0!closed:period 50;close s"
    "!tick:period 0;send s x 0;close s;cancel s",
    "closed at once": "rqh:stream auth t.S Echo ~;close s;send s x 0;send s y 1;close s!closed:status;cancel s",
    "cancelled at once": "rqh:stream auth t.S Echo ~;cancel s;send s x 0",
    "cancelled by a message": "rqh:stream auth t.S Echo ~;send s x 0!recv:cancel s;cancel s;send s a 0;status",
    "cancelled by its head": "rqh:stream auth t.S Echo ~;send s x 0!init:cancel s",
    "a stream, an error": "rqh:stream auth t.S Fail ~;send s 9%20hm%20hm 0" + LOOK_EVERYWHERE,
    "a stream, an error after a message": "rqh:stream auth t.S Fail ~;send s 9%20after%20%C3%A9 0" + LOOK_EVERYWHERE,
    "a stream that ends first": "rqh:stream auth t.S First ~;send s x 0;send s y 0!closed:send s z 0;close s",
    "a stream, OK without a message": "rqh:stream auth t.S None ~;send s x 1" + LOOK_EVERYWHERE,
    "a stream, no server": "rqh:stream dead t.S Echo ~;send s x 0" + LOOK_EVERYWHERE,
    "a stream, a server that hangs up": "rqh:stream closing t.S Echo ~;send s x 0" + LOOK_EVERYWHERE,
    "a stream, no such method": "rqh:stream auth t.S Nope ~" + LOOK_EVERYWHERE,
    "many messages": "rqh:stream auth t.S Many ~;send s 5 1!closed:status",
    "dies": "rqh:stream relay t.S Stuck ~;send s x 0" + LOOK_EVERYWHERE,
    "dies before its head": "rqh:stream relay t.S Slow ~;send s x 0" + LOOK_EVERYWHERE,
    "dies before its head, unary": "rqh:call relay t.S Slow ~ x 2000" + LOOK_EVERYWHERE,
    "dies, unary": "rqh:call relay t.S Stuck ~ x 2000" + LOOK_EVERYWHERE,
    "two streams": "rqh:stream auth t.S Echo ~!init#1:stream auth t.S Echo ~;close 6;close s",
    "last": "rqh:call auth t.S Echo ~ x 2000;stream auth t.S Echo ~;cancel s",
}  # fmt: skip


def comparable(lines: Sequence[str]) -> list[str]:
    """Without what Envoy adds to heads, and grpc-accept-encoding, which grpcio keeps to itself; hence without exact counts."""
    found = []
    for line in lines:
        line = re.sub(r" (?:x-envoy-[a-z-]+|grpc-accept-encoding)=[^;]*;", "", line)
        found.append(re.sub(r"^((?:init|trail) .* n=)[1-9]\d*", r"\1some", line))
    return found


class Backends:
    """What the filter may call."""

    def __init__(self) -> None:
        self.server = GrpcServer()

    async def __aenter__(self) -> "Backends":
        await self.server.__aenter__()
        self.relay = await Relay(self.server.port).__aenter__()
        # The service learns of a call's deadline too, and tells of it: too late here, where the clocks are to be compared.
        self.far = await Relay(self.server.port, 0.1).__aenter__()
        self.broken = [await asyncio.start_server(serve, "127.0.0.1", 0) for serve in (garble, hang_up)]
        garbage, closing = (one.sockets[0].getsockname()[1] for one in self.broken)
        self.ports = {
            "service": 1, "auth": self.server.port, "relay": self.relay.port, "far": self.far.port, "dead": 1,
            "garbage": garbage, "closing": closing,
        }  # fmt: skip
        return self

    async def __aexit__(self, *error: object) -> None:
        for one in self.broken:
            one.close()
        for relay in (self.relay, self.far):
            relay.server.close()
            relay.cut()
        await self.server.stop()

    async def run(self, ask: Callable[[str], Any], said: Callable[[], list[str]]) -> dict[str, list[str]]:
        """What the filter says in each case, until it says no more."""
        found = {}
        for name, script in CASES.items():
            before = len(said())
            await ask(script)
            await asyncio.sleep(0.5 if " too late" in name else 0.2)
            if name.startswith("dies"):
                self.relay.cut()
            quiet, count = 0, -1
            while quiet < 5:
                await asyncio.sleep(0.04)
                now = len(said())
                quiet, count = (quiet + 1 if now == count else 0), now
            found[name] = comparable(said()[before:])
        return found


async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"garbage" * 10)
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.close()


async def in_envoy() -> dict[str, list[str]]:
    async with Backends() as services, Envoy([EnvoyFilter(PROBE)], services.ports, cluster_options=HTTP2) as envoy:
        return await services.run(
            lambda script: fetch(envoy.port, request("GET", "/", [("x-script", script)])),
            lambda: [line.message for line in envoy.worker_lines()],
        )


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Worker, Lines]]:
    """The probe in a VM, not started, and what it logs."""
    lines = Lines()
    for module in (plugin, host):
        monkeypatch.setattr(module, "log", lines)
    monkeypatch.setattr(load, "load_or_compile", compiled)
    from_text = wasmtime.wat2wasm
    monkeypatch.setattr(wasmtime, "wat2wasm", lambda code: code if isinstance(code, bytes) else from_text(code))
    worker = Worker(tmp_path, (PROBE.read_bytes(), {"limits": {"log_lines": 1_000_000, "log_line": 8192}}))  # type: ignore[arg-type]
    yield worker, lines
    worker.close()


async def in_penstock(worker: Worker, lines: Lines) -> dict[str, list[str]]:
    async with Backends() as services, Bench(services.ports) as bench:
        worker.slots[0].services = Services(bench.loop.call_later)
        callouts = GrpcCallouts(bench.callouts)
        worker.plugins[0].grpc = GrpcOf(callouts, policy(*(f"cluster:{name}" for name in services.ports)))
        worker.start()

        async def ask(script: str) -> None:
            worker.open(fields=[(b"host", b"test"), (b"x-script", script.encode())]).call("proxy_on_request_headers", end=True)

        try:
            return await services.run(ask, lambda: [message for _, message in lines.said()])
        finally:
            await callouts.close()


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_grpc_is_envoy_s(probe: tuple[Worker, Lines]) -> None:
    theirs, ours = await asyncio.gather(in_envoy(), in_penstock(*probe))
    assert probe[0].failures() == {}
    different = {name: (ours[name], theirs[name]) for name in CASES if ours[name] != theirs[name]}
    assert different == {}
    assert len(theirs["a stream"]) > 20


@pytest.mark.envoy
def test_a_name_that_is_a_message_ends_envoy() -> None:
    """Why a cluster's name goes before a GrpcService here: `hi` is one, without a target, and Envoy aborts."""

    async def run() -> int | None:
        async with Envoy([EnvoyFilter(PROBE)], {"service": 1}) as envoy:
            assert envoy.process is not None
            try:
                await fetch(envoy.port, request("GET", "/", [("x-script", "rqh:call hi t.S Echo ~ x 100")]))
            except Exception:
                await asyncio.sleep(0.2)
            return envoy.process.poll()

    assert asyncio.run(run()) == -6


def test_the_probe_is_what_its_source_gives(tmp_path: Path) -> None:
    requires.zig()
    flags = ["-target", "wasm32-wasi", "-O2", "-s", "-mexec-model=reactor", "-Wl,-z,stack-size=65536"]
    out = tmp_path / "out.wasm"
    command = [sys.executable, "-m", "ziglang", "cc", *flags, str(PROBE.with_suffix(".c")), "-o", str(out)]
    subprocess.run(command, check=True)
    assert out.read_bytes() == PROBE.read_bytes()
