"""What an intermediary owes both sides: fields that end at the hop or begin there, one form of a path, a word on failures."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.abi.proxy_wasm import load
from proxy.telemetry import logging as logs
from tests.abi.guest import compiled
from tests.server.fakes import Peer, free_port, replies

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
REWRITE = str(Path(__file__).parents[2] / "filters/header-rewrite/header-rewrite.wasm")

HOPS: dict[str, tuple[bytes, bytes]] = {
    # fields of a message, what must not be on the other side
    "named": (b"Connection: X-Hop, x-two\r\nX-Hop: 1\r\nX-Two: 2\r\n", b"x-hop x-two connection"),
    "named twice": (b"Connection: x-hop\r\nConnection: , x-two ,\r\nX-Hop: 1\r\nX-Two: 2\r\n", b"x-hop x-two"),
    "named behind": (b"X-Hop: 1\r\nConnection: x-hop\r\n", b"x-hop"),
    "keep-alive": (b"Keep-Alive: timeout=5\r\n", b"keep-alive"),
    "te": (b"TE: trailers\r\n", b"te"),
    "trailer": (b"Trailer: x\r\n", b"trailer"),
    "proxy-connection": (b"Proxy-Connection: keep-alive\r\n", b"proxy-connection"),
    "upgrade": (b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"upgrade connection"),
}


@pytest.mark.parametrize("case", HOPS)
async def test_hop_by_hop_fields_end_here(bench: Any, endpoint: Any, case: str) -> None:
    """Both ways; what is not named passes."""
    fields, gone = HOPS[case]
    server = await endpoint(replies(b"HTTP/1.1 200 OK\r\n" + fields + b"X-Kept: 1\r\ncontent-length: 5\r\n\r\nhello"))
    gateway = await bench(server)
    head, body = await gateway.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"X-Kept: 1\r\n\r\n")
    assert body == b"hello"
    for seen in (server.heads[0], head.replace(b"connection: close\r\n", b"")):
        assert b"\r\nx-kept: 1\r\n" in seen
        names = {line.partition(b":")[0] for line in seen.lower().split(b"\r\n")[1:]}
        assert not names & set(gone.split())


async def test_what_is_named_is_gone_before_filters_run(bench: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the gateway adds cannot be named away (CVE-2026-105299)."""
    monkeypatch.setattr(load, "load_or_compile", compiled)
    config = {"request": {"set": {"x-saw": "%REQ(x-hop)%", "x-chain": "%REQ(x-forwarded-for)%"}}}
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, filters=[{"name": "f", "wasm": REWRITE, "config": config}])
    await gateway.ask(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-hop, x-forwarded-for, via, host, x-request-id, x-chain\r\nX-Hop: 1\r\n"
        b"X-Forwarded-For: 6.6.6.6\r\n\r\n"
    )
    head = server.heads[0]
    assert b"x-saw" not in head
    for there in (b"host: a", b"x-forwarded-for: 127.0.0.1", b"x-chain: 127.0.0.1", b"via: 1.1 penstock", b"x-request-id: "):
        assert b"\r\n" + there in head


GIVEN = b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nVia: 1.0 x\r\nX-Request-Id: mine\r\n"
FORWARDED: dict[str, tuple[dict[str, Any], bytes, dict[bytes, bytes | None]]] = {
    "append": (
        {},
        b"",
        {b"x-forwarded-for": b"127.0.0.1", b"x-forwarded-proto": b"http", b"x-forwarded-host": b"a", b"via": b"1.1 penstock"},
    ),
    "append to a list": (
        {},
        GIVEN,
        {
            b"x-forwarded-for": b"1.2.3.4,127.0.0.1",
            b"x-forwarded-proto": b"https",
            b"x-forwarded-host": b"b",
            b"via": b"1.0 x,1.1 penstock",
            b"x-request-id": b"mine",
        },
    ),
    "replace": (
        {"forwarded": "replace", "via": "edge"},
        GIVEN,
        {b"x-forwarded-for": b"127.0.0.1", b"x-forwarded-proto": b"http", b"x-forwarded-host": b"a", b"via": b"1.0 x,1.1 edge"},
    ),
    "off": (
        {"forwarded": "off", "via": None, "request_id": "off"},
        b"",
        {b"x-forwarded-for": None, b"x-forwarded-proto": None, b"x-forwarded-host": None, b"via": None, b"x-request-id": None},
    ),
}


@pytest.mark.parametrize("case", FORWARDED)
async def test_fields_that_the_gateway_adds(bench: Any, endpoint: Any, case: str) -> None:
    """Via and X-Forwarded-* as configured; Host is the client's."""
    listener, given, wanted = FORWARDED[case]
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, listener=listener)
    await gateway.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + given + b"\r\n")
    fields = [line.split(b": ", 1) for line in server.heads[0].split(b"\r\n")[1:-2]]
    for name, value in {**wanted, b"host": b"a"}.items():
        found = [v.replace(b", ", b",") for n, v in fields if n == name]
        assert found == ([] if value is None else [value]), name


@pytest.mark.parametrize("policy", ["keep", "replace"])
async def test_request_ids(bench: Any, endpoint: Any, policy: str) -> None:
    """A sound one is kept or not, as configured; the log and the endpoint have the same one."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, listener={"request_id": policy})
    for i, given in enumerate((b"", b"X-Request-Id: mine\r\n", b"X-Request-Id: not sound\r\n")):
        await gateway.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + given + b"\r\n")
        info = await gateway.finished(i + 1)
        assert b"\r\nx-request-id: %b\r\n" % info.request_id.encode() in server.heads[-1]
        assert (info.request_id == "mine") == (policy == "keep" and b"mine" in given)
        assert " " not in info.request_id
    assert len({info.request_id for info in gateway.telemetry.finished}) == 3


PATHS: dict[bytes, bytes | None] = {
    # what a client asks for, what the endpoint gets (None: refused)
    b"/public/../private": b"/private",
    b"/public/%2e%2E/private": b"/private",
    b"/%70rivate?x=/../%41": b"/private?x=/../%41",
    b"http://h/public/../private": b"/private",
    b"/public/..%2fprivate": None,
    b"/public/..;/private": None,
    b"/public\\..\\private": None,
    b"/public%00": None,
    b"/public%0d%0aX: y": None,
    b"/public#x": None,
    b"/publ\xefc": None,
}


@pytest.mark.parametrize("path", PATHS)
async def test_one_form_of_a_path(bench: Any, endpoint: Any, path: bytes) -> None:
    """What is routed, what filters see and what the endpoint gets is the same; two-faced paths are refused."""
    server = await endpoint(replies(HELLO))
    routes = [
        {"name": "private", "match": {"prefix": "/private"}, "cluster": "service"},
        {"name": "public", "match": {"prefix": "/public"}, "cluster": "service"},
    ]
    gateway = await bench(server, routes=routes)
    head, _ = await gateway.ask(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    wanted = PATHS[path]
    if wanted is None:
        assert head.startswith(b"HTTP/1.1 400 ")
        assert not server.heads
        return
    info = await gateway.finished()
    assert server.heads[0].split(b" ")[1] == wanted == info.path.encode()
    assert info.route_name == "private"


async def silent(peer: Peer) -> None:
    await peer.head()
    await peer.reader.read()


FAILURES: dict[str, tuple[Any, dict[str, Any], int, str, str, str]] = {
    # the endpoint, cluster and route settings, status, the metric's reason, details, what the log says
    "refused": (None, {}, 503, "connect_failed", "upstream_reset_before_response_started", "Connection refused"),
    "no name": ("nowhere.invalid", {}, 503, "connect_failed", "upstream_reset_before_response_started", "upstream failed"),
    "timeout": (silent, {"timeout": "100ms"}, 504, "timeout", "response_timeout", "response_timeout"),
    "broken": (replies(b"x\r\n\r\n"), {}, 502, "protocol_error", "upstream_reset_before_response_started", "protocol_error"),
    "closed": (replies(b""), {}, 503, "reset", "upstream_reset_before_response_started", "connection_termination"),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_failures_say_why(bench: Any, endpoint: Any, capfd: Any, case: str) -> None:
    """A short plain body for the client, a line and a count for the operator."""
    serve, route, status, reason, details, said = FAILURES[case]
    logs.buckets.clear()

    async def close(peer: Peer) -> None:
        await peer.head()

    if serve is None or isinstance(serve, str):
        server: Any = f"{serve or '127.0.0.1'}:{free_port()}"
    else:
        server = await endpoint(close if case == "closed" else serve)
    gateway = await bench(server, route=route)
    head, body = await gateway.ask(GET)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: text/plain\r\n" in head
    assert 0 < len(body) < 120
    assert b"connection: close" not in head
    info = await gateway.finished()
    assert (info.status, info.details.split("{")[0]) == (status, details)
    failures = gateway.gateway.telemetry.instruments.upstream_failures.children
    assert {labels: child.value for labels, child in failures.items()} == {("service", reason): 1}
    lines = [line for line in "".join(capfd.readouterr()).splitlines() if info.request_id in line]
    assert len(lines) == 1
    assert said in lines[0]


async def test_nothing_moves(bench: Any, endpoint: Any) -> None:
    """idle_timeout ends a stream that timeout does not bound: before the response 408, inside of it by a reset."""
    parts = [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"]

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(parts.pop(0))
        await peer.reader.read()
        peer.closed.set()

    server = await endpoint(serve)
    gateway = await bench(server, route={"timeout": "10s", "idle_timeout": "200ms"})
    client = await gateway.client()
    await client.send(GET)
    assert (await client.response())[0].startswith(b"HTTP/1.1 408 ")
    await client.send(GET)
    await client.head()
    with pytest.raises(ConnectionError):
        await client.rest()
    for peer in server.peers:
        await asyncio.wait_for(peer.closed.wait(), 1)
    assert {info.details for info in gateway.telemetry.finished} == {"stream_idle_timeout"}
