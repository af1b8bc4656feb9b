"""The gateway with real filters, as bytes on both sides: the quickstart's chain, routes, failures, and the duties of HTTP with
a chain in the way."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime
import yaml

from proxy.abi.proxy_wasm import load
from tests.abi.guest import Script, compiled
from tests.server.fakes import Bench, Peer, replies

ROOT = Path(__file__).parents[2]
PROBE = ROOT / "benchmarks/filters/probe.wasm"
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
BROKEN = b"upstream connect error or disconnect/reset before headers. reset reason: protocol error"
QUICKSTART = yaml.safe_load((ROOT / "config/quickstart.yaml").read_text())["filters"]
ADA = b"authorization: Basic " + base64.b64encode(b"ada:lovelace") + b"\r\n"

TRAP = """(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 0))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"""
LOOP = TRAP.replace("unreachable", "(loop (br 0)) (i32.const 0)")
"""Filters that never come to an end of a request's headers."""


@pytest.fixture(autouse=True)
def compiled_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the compiler's child processes, which tests/wasm has."""
    monkeypatch.setattr(load, "load_or_compile", compiled)


@pytest.fixture
def wasm(tmp_path: Path) -> Callable[[str | Script], str]:
    """Assembles a filter; its path."""

    def make(text: str | Script) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.wasm"
        path.write_bytes(wasmtime.wat2wasm(text.text if isinstance(text, Script) else text))
        return str(path)

    return make


def quickstart() -> list[dict[str, Any]]:
    """The filters of config/quickstart.yaml."""
    return [{**one, "wasm": str(ROOT / "config" / one["wasm"])} for one in QUICKSTART]


def writes(name: bytes, value: bytes) -> Script:
    """A filter that sets a request header."""
    return Script({"proxy_on_request_headers": [("proxy_replace_header_map_value", 0, name, value)]})


PAGE = b"<html><body><h1>Demo service</h1><p>text</p></body></html>"


async def in_pieces(peer: Peer) -> None:
    """A page in chunks whose borders are inside of what body-rewrite looks for."""
    while True:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nserver: demo\r\ntransfer-encoding: chunked\r\n\r\n")
        for i in range(0, len(PAGE), 7):
            piece = PAGE[i : i + 7]
            await peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0.001)
        await peer.send(b"0\r\n\r\n")


async def test_quickstart(bench: Any, endpoint: Any) -> None:
    """401 without a password; with one all three filters have done their work, on both ways."""
    server = await endpoint(in_pieces)
    gateway = await bench(server, filters=quickstart())
    client = await gateway.client()
    for _ in range(2):
        await client.send(b"GET /page HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\n\r\n")
        head, _ = await client.response()
        assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert b'www-authenticate: Basic realm="Penstock quickstart"' in head
        assert not server.heads
        await client.send(b"GET /page HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\n" + ADA + b"\r\n")
        head, body = await client.response()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"x-requested-path: /page\r\n" in head
        assert b"x-upstream-server: demo\r\n" in head
        assert body == PAGE.replace(b"service</h1>", b"service, seen through Penstock</h1>").replace(
            b"</body>", b"<p>This line is from body-rewrite.</p>\n</body>"
        )
        assert b"x-greeting: hello ada\r\n" in server.heads[-1]
        assert b"user-agent" not in server.heads.pop()
        for peer in server.peers:
            peer.heads.clear()
    first, second = gateway.telemetry.finished[:2]
    assert (first.status, second.status, second.details) == (401, 200, "via_upstream")
    assert first.connection_id == second.connection_id > 0
    assert first.over
    assert second.filter_seconds > 0


async def test_routes_switch_filters_off_and_configure_them(bench: Any, endpoint: Any) -> None:
    """One route without the password, one with its own header edits; the third as configured for all."""
    server = await endpoint(replies(HELLO))
    own = {"request": {"set": {"x-greeting": "own"}}}
    gateway = await bench(
        server,
        filters=quickstart(),
        routes=[
            {"match": {"prefix": "/open"}, "cluster": "service", "filters": {"basic-auth": {"enabled": False}}},
            {"match": {"prefix": "/own"}, "cluster": "service", "filters": {"header-rewrite": {"config": own}}},
            {"match": {"prefix": "/"}, "cluster": "service"},
        ],
    )
    client = await gateway.client()
    for path, authorization, status, seen in (
        (b"/open", b"", 200, b"x-greeting: hello \r\n"),
        (b"/own", b"", 401, b""),
        (b"/own", ADA, 200, b"x-greeting: own\r\n"),
        (b"/", b"", 401, b""),
        (b"/", ADA, 200, b"x-greeting: hello ada\r\n"),
    ):
        await client.send(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + authorization + b"\r\n")
        assert (await client.response())[0].startswith(b"HTTP/1.1 %d " % status)
        if seen:
            assert seen in server.heads[-1]


@pytest.mark.parametrize("fault", ["trap", "loop"])
@pytest.mark.parametrize("policy", ["closed", "open"])
async def test_a_filter_that_fails(bench: Any, endpoint: Any, wasm: Any, fault: str, policy: str) -> None:
    """503 or on without it, each time; a route that does not have the filter, and other filters, never notice."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(
        server,
        filters=[
            {"name": "before", "wasm": wasm(writes(b"x-before", b"1"))},
            {"name": "broken", "wasm": wasm(TRAP if fault == "trap" else LOOP), "on_failure": policy},
            {"name": "after", "wasm": wasm(writes(b"x-after", b"1"))},
        ],
        routes=[
            {"match": {"prefix": "/safe"}, "cluster": "service", "filters": {"broken": {"enabled": False}}},
            {"match": {"prefix": "/"}, "cluster": "service"},
        ],
    )
    broken, safe = await gateway.client(), await gateway.client()
    for _ in range(3):
        await broken.send(GET)
        head, body = await broken.response()
        if policy == "closed":
            assert head.startswith(b"HTTP/1.1 503 ")
        else:
            assert body == b"hello"
            assert b"x-before: 1\r\nx-after: 1\r\n" in server.heads[-1]
        await safe.send(GET.replace(b"/ ", b"/safe "))
        assert (await safe.response())[1] == b"hello"
        assert b"x-before: 1\r\nx-after: 1\r\n" in server.heads[-1]
    details = {(info.path, info.status, info.details) for info in gateway.telemetry.finished}
    wanted = ("/", 503, "wasm_fail_stream") if policy == "closed" else ("/", 200, "via_upstream")
    assert details == {wanted, ("/safe", 200, "via_upstream")}


async def test_the_final_head_chooses_the_route(bench: Any, endpoint: Any, wasm: Any) -> None:
    """As Envoy: a filter that rewrites the path sends the request elsewhere, from a route, from none, and to none."""
    one, two = await endpoint(replies(HELLO)), await endpoint(replies(HELLO))
    rewrites = {"name": "rewrite", "wasm": str(ROOT / "filters/header-rewrite/header-rewrite.wasm")}

    async def start(path: str) -> Bench:
        found: Bench = await bench(
            one,
            clusters=[{"name": "two", "endpoints": [two.address]}],
            routes=[
                {"name": "one", "match": {"prefix": "/one"}, "cluster": "service"},
                {"name": "two", "match": {"prefix": "/two", "host": "a"}, "cluster": "two", "idle_timeout": "10s"},
            ],
            filters=[{**rewrites, "config": {"request": {"set": {":path": path}}}}],
        )
        return found

    gateway = await start("/two")
    for request in (
        b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /three HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ):
        assert (await gateway.ask(request))[1] == b"hello"
        assert two.heads[-1].split(b" ")[1] == b"/two"
    info = await gateway.finished(3)
    assert (info.route_name, info.cluster_name, info.details) == ("two", "two", "via_upstream")
    head, _ = await gateway.ask(b"GET /one HTTP/1.1\r\nHost: b\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    info = await gateway.finished(4)
    assert (info.route_name, info.details, info.flags) == ("", "route_not_found", "NR")
    assert not one.heads
    for route in gateway.gateway.generation.routes.values():
        assert not route.idle_deadlines.due, "a deadline of the first route is left"
        assert not route.deadlines.due


@pytest.mark.parametrize("stops", [True, False])
async def test_100_when_a_filter_waits_for_the_body(bench: Any, endpoint: Any, wasm: Any, stops: bool) -> None:
    """A filter that holds the headers until it has seen of the body gets one; one that waits for other things does not."""
    holds = Script({"proxy_on_request_headers": [], "proxy_on_request_body": []}, actions={"proxy_on_request_headers": 1})

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(3)
        await peer.send(HELLO)

    gateway = await bench(
        await endpoint(serve),
        filters=[{"name": "f", "wasm": wasm(holds), "allow_on_headers_stop_iteration": stops, "limits": {"pause": "200ms"}}],
    )
    client = await gateway.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    if stops:
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        assert (await client.response())[1] == b"hello"
    else:
        assert (await client.head()).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("policy", ["closed", "open"])
async def test_a_pause_has_an_end(bench: Any, endpoint: Any, wasm: Any, policy: str) -> None:
    """A filter that never continues: 503 or on without it when its time is over."""
    holds = wasm(Script({"proxy_on_request_headers": []}, actions={"proxy_on_request_headers": 1}))
    gateway = await bench(
        await endpoint(replies(HELLO)),
        filters=[{"name": "f", "wasm": holds, "on_failure": policy, "limits": {"pause": "200ms"}}],
    )
    start = asyncio.get_running_loop().time()
    head, body = await gateway.ask(GET)
    assert 0.15 < asyncio.get_running_loop().time() - start < 1
    info = await gateway.finished()
    if policy == "open":
        assert body == b"hello"
    else:
        assert head.startswith(b"HTTP/1.1 503 ")
        assert info.details == "filter_pause_timeout"
    assert not any(queue.due for queue in gateway.gateway.generation.pauses.values())


async def test_a_client_that_leaves_a_pause(bench: Any, endpoint: Any, wasm: Any) -> None:
    """Its deadlines go with it."""
    holds = wasm(Script({"proxy_on_request_headers": []}, actions={"proxy_on_request_headers": 1}))
    gateway = await bench(await endpoint(replies(HELLO)), filters=[{"name": "f", "wasm": holds}])
    client = await gateway.client()
    await client.send(GET)
    await asyncio.sleep(0.05)
    client.close()
    info = await gateway.finished()
    assert (info.details, info.flags, info.status) == ("downstream_remote_disconnect", "DC", 0)
    assert not any(queue.due for queue in gateway.gateway.generation.pauses.values())


async def test_upgrade_with_filters(bench: Any, endpoint: Any) -> None:
    """They see the Upgrade field of both heads; the tunnel begins after the 101."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(SWITCH)
        while data := await peer.reader.read(100):
            await peer.send(data)

    server = await endpoint(serve)
    config = {"request": {"set": {"x-seen": "%REQ(upgrade)%"}}, "response": {"set": {"x-seen": "%RESP(upgrade)%"}}}
    gateway = await bench(
        server,
        filters=[{"name": "f", "wasm": str(ROOT / "filters/header-rewrite/header-rewrite.wasm"), "config": config}],
    )
    client = await gateway.client()
    await client.send(UPGRADE + b"early")
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"x-seen: websocket\r\n" in head
    assert head.count(b"upgrade: websocket\r\n") == head.count(b"connection: upgrade\r\n") == 1
    assert b"x-seen: websocket\r\n" in server.heads[0]
    assert server.heads[0].count(b"upgrade: websocket\r\n") == 1
    assert await client.read(5) == b"early"
    plain = await gateway.client()
    other = b"Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: x\r\n"
    await plain.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + other + b"\r\n")
    await plain.head()
    assert b"\r\nupgrade: " not in server.heads[1]
    assert b"http2-settings" not in server.heads[1]


TEXT = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
DUTIES: dict[str, tuple[bytes, bytes, bytes, bytes | None]] = {
    # request, answer of the endpoint, in the heads that arrive, the body (None: there can be none)
    "sized": (GET, TEXT + b"content-length: 5\r\n\r\nhello", b"200 OK\r\n", b"hello"),
    "chunked": (GET, TEXT + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"chunked\r\n", b"hello"),
    "HEAD": (GET.replace(b"GET", b"HEAD"), TEXT + b"content-length: 5\r\n\r\n", b"200 OK\r\n", None),
    "204": (GET, b"HTTP/1.1 204 No Content\r\n\r\n", b"204 No Content\r\n", None),
    "304": (GET, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b"304 Not Modified\r\n", None),
    "103": (
        GET,
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + TEXT + b"content-length: 5\r\n\r\nhello",
        b"103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"hello",
    ),
    "POST": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        TEXT + b"content-length: 5\r\n\r\nhello",
        b"200 OK\r\n",
        b"hello",
    ),
    "POST, chunked": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        TEXT + b"content-length: 5\r\n\r\nhello",
        b"200 OK\r\n",
        b"hello",
    ),
    "absolute-form": (b"GET http://b/p HTTP/1.1\r\nHost: a\r\n\r\n", HELLO, b"200 OK\r\n", b"hello"),
    "broken": (GET, b"nonsense\r\n\r\n", b"502 Bad Gateway\r\n", BROKEN),
    "early": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
        TEXT + b"content-length: 5\r\n\r\nhello",
        b"connection: close\r\n",
        b"hello",
    ),
}
CHAINS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "probe": [{"name": f"p{i}", "wasm": str(PROBE)} for i in range(3)],
    "body": [
        {
            "name": "body",
            "wasm": str(ROOT / "filters/body-rewrite/body-rewrite.wasm"),
            "config": {"types": ["text/plain"], "response": [{"find": "nowhere", "replace": ""}]},
        }
    ],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("case", DUTIES)
async def test_http_duties(bench: Any, endpoint: Any, case: str, chain: str) -> None:
    """What holds without filters holds with them, and the next request on the connection is served where one may be."""
    request, answer, in_head, body = DUTIES[case]
    sent = b"3\r\nabc\r\n0\r\n\r\n" if b"chunked" in request else request.split(b"\r\n\r\n")[1]

    async def serve(peer: Peer) -> None:
        while True:
            await peer.head()
            assert await peer.reader.readexactly(len(sent)) == sent
            await peer.send(answer)
            if b"nonsense" in answer:
                return

    server = await endpoint(serve)
    gateway = await bench(server, filters=CHAINS[chain])
    client = await gateway.client()
    for _ in range(1 if case == "early" else 2):
        await client.send(request)
        got = await client.head() if case == "103" else b""
        if body is None:
            got += await client.head()
        else:
            head, behind = await client.response()
            got += head
            assert behind == body
        assert in_head in got
        if chain == "probe":
            assert got.count(b"x-probe: ") == 3
    if case == "absolute-form":
        assert server.heads[0].startswith(b"GET /p HTTP/1.1\r\nhost: b\r\n")
    if case == "early":
        assert await client.rest() == b""
