"""Large bodies in constant memory: the gateway in a process of its own, both ends as plain sockets."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SIZES = {"uvloop": 2 << 30, "asyncio": 256 << 20}
"""Past what 31 bits count on the loop that workers use; on the other as much as a buffer would show."""
PIECE = b"x" * (1 << 20)
MORE_RSS = 64 << 20

GATEWAY = """
import asyncio, sys
from tests.server.fakes import start_bench

async def main() -> None:
    bench = await start_bench([sys.argv[2]], route={"timeout": "120s"}, filters=[])
    print(bench.port, flush=True)
    await asyncio.Event().wait()

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, "closed inside a head"
        data += piece
    head, rest = data.split(b"\r\n\r\n", 1)
    return head, rest


def read_body(sock: socket.socket, got: int, size: int) -> int:
    buffer = bytearray(1 << 20)
    while got < size:
        count = sock.recv_into(buffer)
        if not count:
            break
        got += count
    return got


@pytest.fixture(params=["asyncio", "uvloop"])
def gateway(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, int, int, int]]:
    """A listening endpoint socket, the gateway's port and its pid, and how much to send through it."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    with subprocess.Popen([sys.executable, "-c", GATEWAY, request.param, address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield listening, port, process.pid, SIZES[request.param]
        process.terminate()
    listening.close()


def watch(pid: int, stop: threading.Event, peak: list[int]) -> None:
    while not stop.wait(0.02):
        peak[0] = max(peak[0], rss(pid))


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("way", ["download", "upload"])
def test_gigabytes_in_constant_memory(gateway: tuple[socket.socket, int, int, int], way: str, framing: str) -> None:
    """The receiver starts late and pauses, so that a gateway which buffers would be found out."""
    listening, port, pid, size = gateway
    got = 0

    def send(sock: socket.socket) -> None:
        for _ in range(size // len(PIECE)):
            if framing == "chunked":
                sock.sendall(b"%x\r\n" % len(PIECE))
            sock.sendall(PIECE)
            if framing == "chunked":
                sock.sendall(b"\r\n")
        if framing == "chunked":
            sock.sendall(b"0\r\n\r\n")

    framed = b"content-length: %d" % size if framing == "sized" else b"transfer-encoding: chunked"

    def serve() -> None:
        nonlocal got
        sock, _ = listening.accept()
        head, rest = read_head(sock)
        if way == "download":
            sock.sendall(b"HTTP/1.1 200 OK\r\n" + framed + b"\r\n\r\n")
            send(sock)
        else:
            time.sleep(1)
            assert framed in head
            got = read_all(sock, rest)
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        sock.recv(1)
        sock.close()

    def read_all(sock: socket.socket, rest: bytes) -> int:
        if framing == "sized":
            return read_body(sock, len(rest), size)
        # Chunk sizes vary; the framing is short beside the data, so count all up to the end.
        total, tail = len(rest), rest[-5:]
        while tail != b"0\r\n\r\n":
            piece = sock.recv(1 << 20)
            assert piece, "closed inside the body"
            total += len(piece)
            tail = (tail + piece)[-5:]
        return size if size < total < size * 1.01 else total

    thread = threading.Thread(target=serve)
    thread.start()
    before = rss(pid)
    peak, stop = [before], threading.Event()
    watcher = threading.Thread(target=watch, args=(pid, stop, peak))
    watcher.start()
    with socket.create_connection(("127.0.0.1", port)) as client:
        if way == "download":
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(1)
            _, rest = read_head(client)
            got = read_all(client, rest)
        else:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n" + framed + b"\r\n\r\n")
            send(client)
            head, rest = read_head(client)
            assert head.startswith(b"HTTP/1.1 200 OK")
            read_body(client, len(rest), 2)
    # The gateway keeps its connection to the endpoint: let go of it.
    listening.close()
    stop.set()
    watcher.join()
    thread.join(0.1)
    assert got == size
    assert peak[0] - before < MORE_RSS, f"{(peak[0] - before) >> 20} MiB more"
    print(f"{way} {framing}: {(peak[0] - before) >> 20} MiB more")
