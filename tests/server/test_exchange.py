"""Requests and responses through the gateway, as bytes on both sides."""

import asyncio
from typing import Any

import pytest
import structlog

from tests.server.fakes import Bench, Endpoint, Peer, free_port, replies

BOTH_LOOPS = True
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

RESPONSES: dict[str, tuple[bytes, bytes, bytes, bytes]] = {
    # request head's method, what the endpoint sends, in the head that arrives, the body that arrives
    "sized": (b"GET", HELLO, b"content-length: 5\r\n", b"hello"),
    "sized, empty": (b"GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"content-length: 0\r\n", b""),
    "chunked": (
        b"GET",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: u\r\n\r\n",
        b"transfer-encoding: chunked\r\n",
        b"abcde",
    ),
    "until close": (b"GET", b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc", b"chunked\r\n", b"abc"),
    "HTTP/1.0": (b"GET", b"HTTP/1.0 200 OK\r\n\r\nabc", b"transfer-encoding: chunked\r\n", b"abc"),
    "HEAD": (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b"content-length: 5\r\n", b""),
    "HEAD, chunked": (b"HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"200 OK\r\n", b""),
    "204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"204 No Content\r\n", b""),
    "304": (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b"content-length: 5\r\n", b""),
    "unknown status": (b"GET", b"HTTP/1.1 299 Odd\r\ncontent-length: 1\r\n\r\nx", b"HTTP/1.1 299 ", b"x"),
    "odd reason": (b"GET", b"HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\nx", b"HTTP/1.1 200 OK\r\n", b"x"),
}


@pytest.mark.parametrize("case", RESPONSES)
async def test_responses_arrive_whole(bench: Any, endpoint: Any, case: str) -> None:
    """Each framing arrives, and the client's connection serves the next request."""
    method, answer, in_head, body = RESPONSES[case]

    async def serve(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.send(answer)
            if b"connection: close" in answer or b"HTTP/1.0" in answer:
                return

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    for _ in range(2):
        await client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await client.head()
        assert in_head in head
        assert b"date: " in head
        if body and b"chunked" in head:
            got = b""
            while size := int((await client.reader.readuntil(b"\r\n")).strip(), 16):
                got += (await client.read(size + 2))[:-2]
            await client.read(2)
        else:
            got = await client.read(len(body))
        assert got == body
    info = await gateway.finished(2)
    assert (info.details, info.flags) == ("via_upstream", "")


async def test_one_byte_at_a_time(bench: Any, endpoint: Any) -> None:
    """Heads and bodies in single bytes, in both directions."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        assert await peer.reader.readexactly(15) == b"5\r\nabcde\r\n0\r\n\r\n"
        for i in range(len(HELLO)):
            await peer.send(HELLO[i : i + 1])
            await asyncio.sleep(0)

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    head, body = request.split(b"\r\n\r\n", 1)
    for i in range(len(head) + 4):
        await client.send(request[i : i + 1])
        await asyncio.sleep(0)
    await client.send(body)
    assert (await client.response())[1] == b"hello"


BODIES: dict[str, tuple[bytes, bytes, bytes]] = {
    # request after the request line, in the upstream head, upstream body bytes
    "sized": (b"Host: a\r\nContent-Length: 5\r\n\r\nhello", b"content-length: 5\r\n", b"hello"),
    "chunked": (
        b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\n5;ext\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"transfer-encoding: chunked\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    "empty": (b"Host: a\r\nContent-Length: 0\r\n\r\n", b"content-length: 0\r\n", b""),
}


@pytest.mark.parametrize("case", BODIES)
async def test_request_bodies_arrive_whole(bench: Any, endpoint: Any, case: str) -> None:
    """Request framing is made anew; chunk extensions and trailers stay behind."""
    request, in_head, body = BODIES[case]
    got = b""

    async def serve(peer: Peer) -> None:
        nonlocal got
        while True:
            await peer.head()
            got = await peer.reader.readexactly(len(body))
            await peer.send(HELLO)

    server = await endpoint(serve)
    gateway = await bench(server)
    client = await gateway.client()
    for _ in range(2):
        await client.send(b"POST / HTTP/1.1\r\n" + request)
        assert (await client.response())[1] == b"hello"
        assert got == body
        assert in_head in server.heads[-1]
    assert len(server.peers) == 1, "the connection was not used again"
    assert (await gateway.finished(2)).bytes_received == (5 if body else 0)


async def test_pipelined_requests_are_answered_in_order(bench: Any, endpoint: Any) -> None:
    """Requests behind one another, more than the parser holds at once."""

    async def serve(peer: Peer) -> None:
        while True:
            path = (await peer.head()).split(b" ")[1]
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(100)))
    for i in range(100):
        assert (await client.response())[1] == b"/%d" % i
    await client.send(GET)
    assert (await client.response())[1] == b"/"


async def test_pipelined_body_waits_for_its_turn(bench: Any, endpoint: Any) -> None:
    """A body behind an unanswered request reaches the endpoint after that answer."""

    async def serve(peer: Peer) -> None:
        while True:
            head = await peer.head()
            if head.startswith(b"POST"):
                assert await peer.reader.readexactly(5) == b"hello"
            await peer.send(HELLO)

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    await client.send(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
    assert (await client.response())[1] == b"hello"
    await client.send(b"lo")
    assert (await client.response())[1] == b"hello"


FAILURES: dict[str, tuple[bytes | None, int, str, str]] = {
    # what the endpoint sends before it closes (None: it resets), status, details, flags
    "closes": (b"", 503, "upstream_reset_before_response_started{connection_termination}", "UC"),
    "resets": (None, 503, "upstream_reset_before_response_started{connection_termination}", "UC"),
    "half a head": (b"HTTP/1.1 200", 503, "upstream_reset_before_response_started{connection_termination}", "UC"),
    "garbage": (b"nonsense\r\n\r\n", 502, "upstream_reset_before_response_started{protocol_error}", "UPE"),
    "HTTP/2": (b"HTTP/2.0 200 OK\r\n\r\n", 502, "upstream_reset_before_response_started{protocol_error}", "UPE"),
    "unasked 101": (
        b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        502,
        "upstream_reset_before_response_started{protocol_error}",
        "UPE",
    ),
    "both lengths": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        502,
        "upstream_reset_before_response_started{protocol_error}",
        "UPE",
    ),
    "bad length": (
        b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
        502,
        "upstream_reset_before_response_started{protocol_error}",
        "UPE",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_broken_endpoint(bench: Any, endpoint: Any, case: str) -> None:
    """A response that does not come, or is none, becomes Envoy's answer; the client's connection lives on."""
    answer, status, details, flags = FAILURES[case]

    async def serve(peer: Peer) -> None:
        await peer.head()
        if answer is None:
            peer.reset()
        elif answer:
            await peer.send(answer)

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    for _ in range(2):
        await client.send(GET)
        head, body = await client.response()
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"content-type: text/plain\r\n" in head
        assert body.startswith(b"upstream connect error")
    info = await gateway.finished()
    assert (info.status, info.details, info.flags) == (status, details, flags)


SHORT: dict[str, tuple[bytes, bool]] = {
    "sized": (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", False),
    "sized, reset": (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", True),
    "chunked": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", False),
    "broken chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", False),
    "until close, reset": (b"HTTP/1.1 200 OK\r\n\r\nabc", True),
}


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("case", SHORT)
async def test_short_body_never_looks_whole(bench: Any, endpoint: Any, case: str, version: bytes) -> None:
    """An endpoint that dies inside a body: the client's connection is reset, no clean end of any framing."""
    answer, reset = SHORT[case]

    async def serve(peer: Peer) -> None:
        await peer.head()
        # Head and body apart: a head that arrives together with broken framing is a 502 instead.
        head, body = answer.split(b"\r\n\r\n", 1)
        await peer.send(head + b"\r\n\r\n")
        await asyncio.sleep(0.05)
        await peer.send(body)
        if reset:
            await asyncio.sleep(0.05)
            peer.reset()

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    await client.send(b"GET / %b\r\nHost: a\r\n\r\n" % version)
    assert (await client.head()).startswith(b"HTTP/1.1 200")
    with pytest.raises(ConnectionError):
        await client.rest()
    info = await gateway.finished()
    assert info.status == 200
    assert info.details.startswith("upstream_reset_after_response_started{")
    assert info.flags in ("UC", "UPE")


async def test_surplus_behind_a_response_ends_the_connection(bench: Any, endpoint: Any) -> None:
    """Bytes nobody asked for are no answer to the next request."""
    for surplus in (HELLO.replace(b"hello", b"wrong"), b"HTTP/1.1 200 O", b""):

        async def serve(peer: Peer, surplus: bytes = surplus) -> None:
            await peer.head()
            await peer.send(HELLO + surplus)
            await peer.head()
            await peer.send(HELLO)

        server = await endpoint(serve)
        gateway = await bench(server)
        client = await gateway.client()
        for _ in range(2):
            await client.send(GET)
            assert (await client.response())[1] == b"hello"
        assert len(server.peers) == (2 if surplus else 1)


async def test_late_surplus_ends_an_idle_connection(bench: Any, endpoint: Any) -> None:
    """An endpoint that speaks unasked is not listened to."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(HELLO)
        await asyncio.sleep(0.05)
        await peer.send(HELLO.replace(b"hello", b"wrong"))
        await peer.reader.read()

    server = await endpoint(serve)
    gateway = await bench(server)
    client = await gateway.client()
    for _ in range(2):
        await client.send(GET)
        assert (await client.response())[1] == b"hello"
        await asyncio.sleep(0.15)
    assert len(server.peers) == 2


async def test_refused_connection(bench: Any) -> None:
    """Nobody listens: 503, UF."""
    gateway = await bench(f"127.0.0.1:{free_port()}")
    head, body = await gateway.ask(GET)
    assert head.startswith(b"HTTP/1.1 503 ")
    assert body.endswith(b"remote connection failure")
    info = await gateway.finished()
    assert (info.details, info.flags, info.attempts) == (
        "upstream_reset_before_response_started{remote_connection_failure}",
        "UF",
        1,
    )


async def test_refused_connection_is_tried_elsewhere_once(bench: Any, endpoint: Any) -> None:
    """Another endpoint answers, with a body too: nothing of it had been sent."""

    async def serve(peer: Peer) -> None:
        while True:
            await peer.head()
            assert await peer.reader.readexactly(3) == b"abc"
            await peer.send(HELLO)

    server = await endpoint(serve)
    gateway = await bench(f"127.0.0.1:{free_port()}", server)
    client = await gateway.client()
    for _ in range(4):
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        assert (await client.response())[1] == b"hello"
    assert [info.attempts for info in gateway.telemetry.finished] == [2, 1, 2, 1]
    gateway = await bench(*(f"127.0.0.1:{free_port()}" for _ in range(3)))
    assert (await gateway.ask(GET))[0].startswith(b"HTTP/1.1 503 ")
    assert (await gateway.finished()).attempts == 2


async def test_endpoints_take_turns(bench: Any, endpoint: Any) -> None:
    """Round robin, request by request."""
    servers = [await endpoint(replies(HELLO.replace(b"hello", b"from%d" % i))) for i in range(3)]
    gateway = await bench(*servers)
    client = await gateway.client()
    seen = []
    for _ in range(6):
        await client.send(GET)
        seen.append((await client.response())[1])
    assert seen == [b"from0", b"from1", b"from2"] * 2


REPLAYS: dict[str, tuple[bytes, bool]] = {
    "GET": (GET, True),
    "DELETE": (GET.replace(b"GET", b"DELETE"), True),
    "POST without a body": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", False),
    "PUT with a body": (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", False),
}


@pytest.mark.parametrize("case", REPLAYS)
async def test_kept_connection_that_dies_is_replaced_if_safe(bench: Any, endpoint: Any, case: str) -> None:
    """An endpoint closes a kept connection when the request comes: sent again only if idempotent and bodyless."""
    request, again = REPLAYS[case]

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(HELLO)
        await peer.head()
        peer.reset()

    server = await endpoint(serve)
    gateway = await bench(server)
    client = await gateway.client()
    await client.send(GET)
    await client.response()
    await client.send(request)
    head, _ = await client.response()
    assert head.startswith(b"HTTP/1.1 200 " if again else b"HTTP/1.1 503 ")
    assert len(server.peers) == (2 if again else 1)


async def test_no_route(bench: Any, endpoint: Any) -> None:
    """404, through the chain, and without a byte to the endpoint."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, routes=[{"match": {"prefix": "/only"}, "cluster": "service"}])
    client = await gateway.client()
    await client.send(GET)
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 404 ")
    assert body
    await client.send(GET.replace(b"/ ", b"/only/x "))
    assert (await client.response())[1] == b"hello"
    info = gateway.telemetry.finished[0]
    assert (info.status, info.details, info.flags, info.route_name) == (404, "route_not_found", "NR", "")
    assert gateway.chains.opened[0].events == ["request_headers", "local_reply"]
    assert len(server.heads) == 1


async def test_route_timeout(bench: Any, endpoint: Any) -> None:
    """504 before the response, a reset inside it; the endpoint is let go."""
    parts = [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"]

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(parts.pop(0))
        await peer.reader.read()
        peer.closed.set()

    server = await endpoint(serve)
    gateway = await bench(server, route={"timeout": "200ms"})
    client = await gateway.client()
    await client.send(GET)
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 504 ")
    assert body == b"upstream request timeout"
    await client.send(GET)
    await client.head()
    with pytest.raises(ConnectionError):
        await client.rest()
    infos = gateway.telemetry.finished
    assert [(info.status, info.details, info.flags) for info in infos] == [
        (504, "response_timeout", "UT"),
        (200, "response_timeout", "UT"),
    ]
    for peer in server.peers:
        await asyncio.wait_for(peer.closed.wait(), 2)


async def test_client_that_leaves_frees_the_endpoint(bench: Any, endpoint: Any) -> None:
    """The upstream connection closes as soon as the client is gone, whatever the stream was doing."""
    for answer in (b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"):
        asked = asyncio.Event()

        async def serve(peer: Peer, answer: bytes = answer, asked: asyncio.Event = asked) -> None:
            await peer.head()
            await peer.send(answer)
            asked.set()
            await peer.reader.read()
            peer.closed.set()

        server = await endpoint(serve)
        gateway = await bench(server)
        client = await gateway.client()
        await client.send(GET)
        await asyncio.wait_for(asked.wait(), 2)
        await asyncio.sleep(0.05)
        client.close()
        await asyncio.wait_for(server.peers[0].closed.wait(), 1)
        info = await gateway.finished()
        assert (info.details, info.flags) == ("downstream_remote_disconnect", "DC")
        assert info.status == (200 if answer else 0)


async def test_expect_continue(bench: Any, endpoint: Any) -> None:
    """100 once the filters let the head pass, and only to HTTP/1.1; the endpoint does not see the expectation."""

    async def serve(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.reader.readexactly(3)
            await peer.send(HELLO)

    server = await endpoint(serve)
    gateway = await bench(server)
    request = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
    client = await gateway.client()
    await client.send(request)
    assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"abc")
    assert (await client.response())[1] == b"hello"
    assert b"expect" not in server.heads[0].lower()
    old = await gateway.client()
    await old.send(request.replace(b"/1.1", b"/1.0") + b"abc")
    assert (await old.head()).startswith(b"HTTP/1.1 200")


async def test_expect_continue_answered_locally(bench: Any, endpoint: Any) -> None:
    """A filter that answers: no 100, and the connection closes, since the body is still to come or not."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, script={"request_headers": lambda chain, end: chain.local_reply(401, b"no", "denied")})
    client = await gateway.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in head
    assert body == b"no"
    assert await client.rest() == b""
    assert not server.heads


async def test_interim_responses(bench: Any, endpoint: Any) -> None:
    """103 reaches HTTP/1.1 clients without its hop-by-hop fields; 100 and HTTP/1.0 clients' ones do not pass."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
    gateway = await bench(await endpoint(replies(b"HTTP/1.1 100 Continue\r\n\r\n" + early + HELLO)))
    client = await gateway.client()
    await client.send(GET)
    assert await client.head() == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    assert (await client.response())[1] == b"hello"
    old = await gateway.client()
    await old.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert (await old.head()).startswith(b"HTTP/1.1 200")


async def test_http10_clients(bench: Any, endpoint: Any) -> None:
    """Closed unless they ask for more; a body without a length ends with the connection."""
    gateway = await bench(await endpoint(replies(HELLO)))
    client = await gateway.client()
    for _ in range(2):
        await client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        head, body = await client.response()
        assert b"connection: keep-alive\r\n" in head
        assert body == b"hello"
    await client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert (await client.rest()).endswith(b"connection: close\r\n\r\nhello")
    gateway = await bench(
        await endpoint(replies(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
    )
    client = await gateway.client()
    await client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    answer = await client.rest()
    assert answer.endswith(b"connection: close\r\n\r\nabc")
    assert b"transfer-encoding" not in answer


async def test_targets(bench: Any, endpoint: Any) -> None:
    """Absolute-form goes on as origin-form, its authority winning; `*` stays."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(server, routes=[{"match": {"prefix": "/", "host": "b"}, "cluster": "service"}])
    client = await gateway.client()
    await client.send(b"GET http://b:80/p?q HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.response()
    await client.send(b"OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n")
    await client.response()
    await client.send(b"GET /p HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.response())[0].startswith(b"HTTP/1.1 404")
    assert server.heads[0].startswith(b"GET /p?q HTTP/1.1\r\nhost: b:80\r\n")
    assert server.heads[1].startswith(b"OPTIONS * HTTP/1.1\r\nhost: b\r\n")
    assert len(server.heads) == 2


async def test_max_forwards_counts_down(bench: Any, endpoint: Any) -> None:
    """RFC 9110 7.6.2: for OPTIONS and TRACE only."""
    server = await endpoint(replies(HELLO))
    gateway = await bench(server)
    for method, sent, got in ((b"OPTIONS", b"5", b"4"), (b"TRACE", b"1", b"0"), (b"GET", b"5", b"5"), (b"TRACE", b"x", b"x")):
        await gateway.ask(method + b" / HTTP/1.1\r\nHost: a\r\nMax-Forwards: " + sent + b"\r\n\r\n")
        assert b"max-forwards: " + got + b"\r\n" in server.heads[-1]


async def test_early_response(bench: Any, endpoint: Any) -> None:
    """An endpoint that answers before the body has come: its answer arrives, then both connections close."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        await peer.reader.read()
        peer.closed.set()

    server = await endpoint(serve)
    gateway = await bench(server)
    client = await gateway.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
    head, body = await client.response()
    assert head.startswith(b"HTTP/1.1 403 ")
    assert b"connection: close\r\n" in head
    assert body == b"no"
    await client.send(b"x" * 100000)
    assert await client.rest() == b""
    await asyncio.wait_for(server.peers[0].closed.wait(), 2)


LIMITS: dict[str, bytes] = {
    "announced": b"Content-Length: 11\r\n\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("case", LIMITS)
async def test_body_limit(bench: Any, endpoint: Any, case: str) -> None:
    """413, and the connection closes."""
    gateway = await bench(await endpoint(replies(HELLO)), listener={"limits": {"body": 10}})
    client = await gateway.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + LIMITS[case])
    head, _ = await client.response()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert (await gateway.finished()).details == "request_payload_too_large"


async def test_filter_that_changes_lengths(bench: Any, endpoint: Any) -> None:
    """A body that is not what its head says never leaves as if it were."""
    from proxy.chain.commands import SendRequestData, SendResponseData

    asked = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        try:
            await peer.reader.readexactly(3)
        finally:
            asked.set()
        await peer.send(HELLO)

    for more in (b"", b"more than was said"):
        server = await endpoint(serve)
        gateway = await bench(
            server,
            script={"request_data": lambda chain, event, more=more: chain.outbox.append(SendRequestData(more, event[1]))},
        )
        with structlog.testing.capture_logs() as logged:
            head, _ = await gateway.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        assert head.startswith(b"HTTP/1.1 500 ")
        assert (await gateway.finished()).details == "request_length_mismatch"
        (line,) = [line for line in logged if line["event"] == "request body does not have the length of its head"]
        assert line["filters"] == ["fake"]
        assert "content-length" in line["look_for"]
    for more in (b"", b"more than was said"):
        gateway = await bench(
            await endpoint(replies(HELLO)),
            script={"response_data": lambda chain, event, more=more: chain.outbox.append(SendResponseData(more, event[1]))},
        )
        client = await gateway.client()
        await client.send(GET)
        with pytest.raises(ConnectionError):
            await client.rest()
        assert (await gateway.finished()).details == "response_length_mismatch"


@pytest.mark.parametrize("size", [1, 2, 100_000])
async def test_last_byte_waits_for_the_end_of_the_stream(bench: Any, endpoint: Any, size: int) -> None:
    """A filter has let all of the body go and holds its end: everything but one byte leaves, however long the piece is."""
    from proxy.chain.commands import SendResponseData

    body = bytes(range(1, 251)) * (size // 250) + bytes(range(size % 250))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body
    held = {"response_data": lambda chain, event: chain.outbox.append(SendResponseData(event[0], False)) if event[0] else None}
    gateway = await bench(await endpoint(replies(answer)), script=held)
    client = await gateway.client()
    await client.send(GET)
    await client.head()
    assert await client.read(size - 1) == body[:-1]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.1)
    chain = gateway.chains.opened[0]
    chain.outbox.append(SendResponseData(b"", True))
    chain.wake()
    assert await client.read(1) == body[-1:]
    assert (await gateway.finished()).bytes_sent == size


async def test_filter_holds_a_request(bench: Any, endpoint: Any) -> None:
    """A chain that goes on later wakes the exchange; if it never does, the idle timeout ends the stream."""
    from proxy.chain.commands import SendRequestHeaders

    server = await endpoint(replies(HELLO))
    gateway = await bench(
        server, route={"idle_timeout": "400ms", "timeout": "100ms"}, script={"request_headers": lambda chain, end: None}
    )
    client = await gateway.client()
    await client.send(GET)
    await asyncio.sleep(0.2)
    chain = gateway.chains.opened[0]
    chain.outbox.append(SendRequestHeaders(True))
    chain.wake()
    assert (await client.response())[1] == b"hello"
    await client.send(GET)
    assert (await client.response())[0].startswith(b"HTTP/1.1 408 ")
    assert (await gateway.finished(2)).details == "stream_idle_timeout"


async def test_defect_in_the_chain(bench: Any, endpoint: Any) -> None:
    """An exception ends its stream only."""

    def broken(chain: Any, event: Any) -> None:
        raise RuntimeError("defect")

    for phase in ("request_headers", "response_headers", "response_data", "request_data"):
        gateway = await bench(await endpoint(replies(HELLO)), script={phase: broken})
        client = await gateway.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        assert (await client.response())[0].startswith(b"HTTP/1.1 500 ")
        gateway.chains.script.clear()
        assert (await gateway.ask(GET))[1] == b"hello"


async def test_max_connections(bench: Any, endpoint: Any) -> None:
    """Requests wait for a connection, first come first served, and give up after connect_timeout."""
    go = asyncio.Event()

    async def serve(peer: Peer) -> None:
        while True:
            await peer.head()
            await go.wait()
            await peer.send(HELLO)

    server = await endpoint(serve)
    gateway = await bench(server, cluster={"max_connections": 1, "connect_timeout": "300ms"})
    clients = [await gateway.client() for _ in range(3)]
    for client in clients[:2]:
        await client.send(GET)
    head, _ = await clients[1].response()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert (await gateway.finished()).flags == "UO"
    await clients[2].send(GET)
    await asyncio.sleep(0.05)
    go.set()
    assert (await clients[0].response())[1] == b"hello"
    assert (await clients[2].response())[1] == b"hello"
    assert len(server.peers) == 1


async def test_drain(bench: Any, endpoint: Any) -> None:
    """Idle connections go at once, busy ones after their response, which says so."""
    go = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        await peer.send(HELLO)

    gateway: Bench = await bench(await endpoint(serve))
    idle, busy = await gateway.client(), await gateway.client()
    await busy.send(GET)
    await asyncio.sleep(0.05)
    draining = asyncio.create_task(gateway.gateway.drain(3))
    assert await idle.rest() == b""
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", gateway.port)
    go.set()
    answer = await busy.rest()
    assert answer.endswith(b"hello")
    assert b"connection: close\r\n" in answer
    await asyncio.wait_for(draining, 2)
    assert isinstance(gateway.gateway.listeners[0].open, int)


def test_endpoint_is_scripted() -> None:
    """The fake keeps what the tests rely on."""
    assert Endpoint(replies(HELLO)).heads == []
