"""TLS on both sides, with a certificate made for the test."""

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.server.fakes import Endpoint, Peer, replies

BOTH_LOOPS = True
HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed one for localhost."""
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem", folder / "key.pem"


async def tls_endpoint(certificate: tuple[Path, Path], serve: Any) -> Endpoint:
    server = Endpoint(serve)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.server = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=context)
    server.address = f"127.0.0.1:{server.server.sockets[0].getsockname()[1]}"
    return server


async def test_both_sides(bench: Any, certificate: tuple[Path, Path]) -> None:
    """A request, and an upload that comes back, through TLS in and TLS out; the endpoint sees https in X-Forwarded-Proto."""
    body = bytes(range(250)) * 12_000

    async def serve(peer: Peer) -> None:
        while True:
            head = await peer.head()
            if head.startswith(b"POST"):
                assert await peer.reader.readexactly(len(body)) == body
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            else:
                await peer.send(HELLO)

    server = await tls_endpoint(certificate, serve)
    gateway = await bench(
        server,
        listener={"tls": {"certificate": str(certificate[0]), "private_key": str(certificate[1])}},
        cluster={"tls": {"ca": str(certificate[0]), "server_name": "localhost"}},
    )
    context = ssl.create_default_context(cafile=str(certificate[0]))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context, server_hostname="localhost")
    for request, answer in (
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"hello"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body, body),
    ):
        writer.write(request)
        await writer.drain()
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert await asyncio.wait_for(reader.readexactly(len(answer)), 10) == answer
    assert b"x-forwarded-proto: https\r\n" in server.heads[0]
    assert len(server.peers) == 1
    writer.close()
    await server.stop()


@pytest.mark.parametrize("tls", [{}, {"server_name": "other.example"}])
async def test_unverified_endpoint(bench: Any, certificate: tuple[Path, Path], tls: dict[str, str]) -> None:
    """A certificate that is not trusted, or not for this name: no request is sent."""
    server = await tls_endpoint(certificate, replies(HELLO))
    if tls:
        tls = {**tls, "ca": str(certificate[0])}
    gateway = await bench(server, cluster={"tls": tls})
    head, _ = await gateway.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert not server.heads
    assert (await gateway.finished()).flags == "UF"
    await server.stop()
