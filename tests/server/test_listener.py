"""What clients may do wrong: heads that are too large or too slow, bodies that are broken or silent.

Malformed heads and framing, whole and byte by byte: tests/attacks/cases/client.py.
"""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
import structlog

from proxy.server import connection
from tests.server.fakes import Peer, replies

BOTH_LOOPS = True
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"

LARGE_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"y" * 2000 + b"\r\n") * 40 + b"\r\n"


@pytest.mark.parametrize("size", [100, 1000, 5000])
async def test_large_head_in_pieces(bench: Any, endpoint: Any, size: int) -> None:
    """The limit holds for a head that comes in pieces too."""
    gateway = await bench(await endpoint(replies(HELLO)))
    client = await gateway.client()
    head = LARGE_HEAD
    for i in range(0, len(head), size):
        try:
            await client.send(head[i : i + size])
        except ConnectionError:
            break
        await asyncio.sleep(0)
    assert (await client.head()).startswith(b"HTTP/1.1 431 ")


async def test_limits_are_settings(bench: Any, endpoint: Any) -> None:
    """Just within and just above each limit."""
    limits = {"line": "1KiB", "field": "1KiB", "headers": 5, "head": "3KiB"}
    gateway = await bench(await endpoint(replies(HELLO)), listener={"limits": limits})
    for request, status in (
        (b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1000 + b"\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1100 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 4 + b"\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 5 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"a" * 900 + b"\r\n") * 3 + b"\r\n", 200),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"a" * 900 + b"\r\n") * 4 + b"\r\n", 431),
    ):
        head, _ = await gateway.ask(request)
        assert head.startswith(b"HTTP/1.1 %d " % status), request[:40]
        assert b"\r\ndate: " in head  # RFC 9110 6.6.1


@pytest.mark.parametrize("trickle", [True, False])
async def test_slow_head(bench: Any, endpoint: Any, trickle: bool) -> None:
    """A head must be complete in time, even if it keeps moving: 408. A connection without a byte is closed silently."""
    gateway = await bench(await endpoint(replies(HELLO)), listener={"head_timeout": "300ms"})
    silent, client = await gateway.client(), await gateway.client()
    start = asyncio.get_running_loop().time()
    await client.send(b"G")
    if trickle:
        for byte in b"ET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaa":
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if client.reader._buffer:  # type: ignore[attr-defined]
                break
    assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
    assert await silent.rest() == b""
    assert asyncio.get_running_loop().time() - start < 1.5


async def test_slow_head_on_a_kept_connection(bench: Any, endpoint: Any) -> None:
    """The next head has its own time; until it begins the keepalive timeout holds."""
    gateway = await bench(await endpoint(replies(HELLO)), listener={"head_timeout": "300ms", "keepalive_timeout": "900ms"})
    client, idle = await gateway.client(), await gateway.client()
    for each in (client, idle):
        await each.send(GET)
        await each.response()
    await asyncio.sleep(0.5)
    await client.send(b"GET / HT")
    assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
    start = asyncio.get_running_loop().time()
    assert await idle.rest() == b""
    assert asyncio.get_running_loop().time() - start < 1.0


async def test_silent_body(bench: Any, endpoint: Any) -> None:
    """A body may take long, but not pause long."""
    closed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.reader.read()
        closed.set()

    gateway = await bench(await endpoint(serve), listener={"body_timeout": "300ms", "body_pace": "0B"})
    client = await gateway.client()
    await client.send(POST + b"Content-Length: 100\r\n\r\n")
    for _ in range(5):
        await client.send(b"x")
        await asyncio.sleep(0.15)
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert (await gateway.finished()).details == "request_body_timeout"
    await asyncio.wait_for(closed.wait(), 1)


@pytest.mark.parametrize(("pace", "timeout", "status"), [("1KiB", "300ms", b"408"), ("2B", "2s", b"200")])
async def test_the_pace_of_a_body(bench: Any, endpoint: Any, pace: str, timeout: str, status: bytes) -> None:
    """So many bytes must come in each body_timeout: to trickle is no better than to be silent."""

    async def serve(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(30)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    gateway = await bench(await endpoint(serve), listener={"body_timeout": timeout, "body_pace": pace})
    client = await gateway.client()
    answer = asyncio.ensure_future(client.response())
    await client.send(POST + b"Content-Length: 30\r\n\r\n")
    for _ in range(30):
        await client.send(b"x")
        if (await asyncio.wait([answer], timeout=0.1))[0]:
            break
    head, _ = await answer
    assert head.startswith(b"HTTP/1.1 %s " % status)


async def test_broken_body_inside_a_stream(bench: Any, endpoint: Any) -> None:
    """The endpoint has the head already: it is let go, and what it got does not end well."""
    got = b""
    over = asyncio.Event()

    async def serve(peer: Peer) -> None:
        nonlocal got
        await peer.head()
        got = await peer.reader.read()
        over.set()

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await asyncio.sleep(0.05)
    await client.send(b"nonsense\r\n")
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
    await asyncio.wait_for(over.wait(), 1)
    assert b"0\r\n\r\n" not in got
    info = await gateway.finished()
    assert (info.details, info.flags) == ("http1.codec_error", "DPE")


async def test_garbage_behind_a_request(bench: Any, endpoint: Any) -> None:
    """The request's answer still comes, then the connection closes."""
    go = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        await peer.send(HELLO)

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    await client.send(GET)
    await asyncio.sleep(0.05)
    await client.send(b"\x01\x02\x03\r\n\r\n")
    await asyncio.sleep(0.05)
    go.set()
    answer = await client.rest()
    assert answer.endswith(b"hello")
    assert answer.count(b"HTTP/1.1") == 1


async def test_rejections_are_counted_and_logged_sparsely(bench: Any, endpoint: Any, capfd: Any) -> None:
    """A flood of malformed requests is a few lines, none with a traceback or the client's bytes."""
    gateway = await bench(await endpoint(replies(HELLO)))
    for _ in range(60):
        client = await gateway.client()
        await client.send(b"EVILBYTES\r\n\r\n")
        await client.rest()
    captured = capfd.readouterr()
    text = captured.out + captured.err
    assert "EVILBYTES" not in text
    assert "Traceback" not in text
    assert text.count("\n") < 40
    rejected = gateway.gateway.telemetry.instruments.rejected_requests
    assert {labels: child.value for labels, child in rejected.children.items()} == {("127.0.0.1:0", "BadHttpMethod"): 60}


@pytest.mark.parametrize(
    ("sent", "reason", "error"),
    [
        (b"EVILBYTES / HTTP/1.1", "BadHttpMethod", "Invalid method encountered"),
        (b"\x16\x03\x01\x02\x00EVILBYTES", "BadHttpMethod", "Received HTTPS traffic on an HTTP port"),
        (b"GET / HTTP/1.1\r\nX: EVILBYTES", "BadHttpMessage", "Missing 'Host' header in request."),
        (b"GET / EVILBYTES", "BadStatusLine", "Expected HTTP/, RTSP/ or ICE/"),
        (b"GET /?\x01EVILBYTES HTTP/1.1", "InvalidURLError", "Invalid char in url query"),
        (b"GET http://[EVILBYTES HTTP/1.1\r\nHost: a", "InvalidURLError", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\nEVIL BYTES: x\n\nEVILBYTES", "BadHttpMessage", "Invalid header token"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key1: EVILBYTES", "InvalidHeader", None),
        (b"GET /" + b"EVILBYTES" * 1000, "LineTooLong", None),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
async def test_a_rejection_says_why(
    bench: Any, endpoint: Any, monkeypatch: Any, sent: bytes, reason: str, error: str | None
) -> None:
    """In the parser's words, and never in the client's bytes."""
    monkeypatch.setattr(connection, "limited", lambda *_: False)
    gateway = await bench(await endpoint(replies(HELLO)))
    client = await gateway.client()
    with structlog.testing.capture_logs() as logged:
        await client.send(sent + b"\r\n\r\n")
        await client.rest()
    (line,) = [line for line in logged if line["event"] == "request rejected"]
    assert (line["reason"], line.get("error")) == (reason, error)
    assert "EVIL" not in str(logged)


async def test_connections_are_counted(bench: Any, endpoint: Any) -> None:
    """The gauge follows the connections."""
    gateway = await bench(await endpoint(replies(HELLO)))
    listener = gateway.gateway.listeners[0]
    clients = [await gateway.client() for _ in range(3)]
    for client in clients:
        await client.send(GET)
        await client.response()
    assert listener.open == 3
    for client in clients:
        client.close()
    await asyncio.wait_for(listener.wait_empty(), 1)
    assert listener.connections.value == 0
    assert not listener.server.connections
    assert not listener.keepalive_deadlines.due


def test_refuses_to_run_without_the_c_parser() -> None:
    """The message says what to do."""
    script = "from proxy.server.listener import require_c_parser; require_c_parser()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"AIOHTTP_NO_EXTENSIONS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "MissingParserError: aiohttp runs without its C parser; install a binary wheel" in done.stderr
