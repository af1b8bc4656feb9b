"""A chain without Wasm on the real stream memory, a client and an endpoint that speak bytes: for the server's tests."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import wasmtime

from proxy.abi import memory as abi_memory
from proxy.abi.memory import EMPTY_LINK, END_STREAM, HeadOptions, StreamMemory, memory_type
from proxy.chain.commands import (
    AnswerLocally,
    SendRequestData,
    SendRequestHeaders,
    SendRequestTrailers,
    SendResponseData,
    SendResponseHeaders,
    SendResponseTrailers,
)
from proxy.config.model import Config
from proxy.server.assembly import make_gateway, prepare_filters
from proxy.server.gateway import Gateway
from proxy.telemetry.stream import StreamInfo
from proxy.telemetry.telemetry import Telemetry
from proxy.wasm.engine import Engine
from tests.ports import free_port

Script = dict[str, Callable[["FakeChain", Any], None]]


class FakeChain:
    """Passes everything on, unless the script has a function for the phase; that gets the chain and the event's value."""

    def __init__(self, memory: StreamMemory, info: StreamInfo, region: Any, wake: Callable[[], None], script: Script) -> None:
        self.memory = memory
        self.info = info
        self.region = region
        self.wake = wake
        self.script = script
        self.outbox: list[Any] = []
        self.finished = 0
        self.events: list[str] = []

    def names(self) -> list[str]:
        return ["fake"]

    def request_headers(self, end_stream: bool) -> None:
        self.events.append("request_headers")
        if (act := self.script.get("request_headers")) is not None:
            act(self, end_stream)
        else:
            self.outbox.append(SendRequestHeaders(end_stream))

    def request_data(self, data: bytes, end_stream: bool) -> None:
        if (act := self.script.get("request_data")) is not None:
            act(self, (data, end_stream))
        else:
            self.outbox.append(SendRequestData(data, end_stream))

    def request_trailers(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self.events.append("request_trailers")
        self.outbox.append(SendRequestTrailers(pairs))

    def response_headers(self, end_stream: bool) -> None:
        self.events.append("response_headers")
        if (act := self.script.get("response_headers")) is not None:
            act(self, end_stream)
        else:
            self.outbox.append(SendResponseHeaders(end_stream))

    def response_data(self, data: bytes, end_stream: bool) -> None:
        if (act := self.script.get("response_data")) is not None:
            act(self, (data, end_stream))
        else:
            self.outbox.append(SendResponseData(data, end_stream))

    def response_trailers(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self.events.append("response_trailers")
        self.outbox.append(SendResponseTrailers(pairs))

    def local_reply(self, status: int, body: bytes, details: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.events.append("local_reply")
        self.info.details = details
        self.memory.attach(self.region)
        fields = ((b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), *headers)
        self.memory.load_response(status, fields, 0)
        self.outbox.append(AnswerLocally())
        self.outbox.append(SendResponseHeaders(not body))
        if body:
            self.outbox.append(SendResponseData(body, True))

    def pause_expired(self) -> None:
        self.events.append("pause_expired")

    def finish(self) -> None:
        self.finished += 1


class FakeChains:
    """Opens fake chains and keeps them for the test to look at."""

    memory: StreamMemory

    def __init__(self) -> None:
        self.script: Script = {}
        self.opened: list[FakeChain] = []
        self.keep = True

    async def start(self, callouts: object = None, grpc: object = None, heads: Sequence[HeadOptions] = ()) -> list[int]:
        self.memory = stream_memory()
        return self.memory.options_of(heads)

    def open(self, route: Any, info: StreamInfo, region: Any, wake: Callable[[], None]) -> FakeChain:
        chain = FakeChain(self.memory, info, region, wake, self.script)
        if self.keep:
            self.opened.append(chain)
        return chain

    def state(self) -> dict[str, Any]:
        return {}

    async def finish(self, grace: float) -> None:
        """These filters have no work of their own."""

    def bury(self) -> None:
        """There is no VM."""

    def close(self) -> None:
        """The memory serves the next test too."""


@cache
def stream_memory() -> StreamMemory:
    """One for all tests of a process, as a worker has one."""
    engine = Engine(memory_type())
    core = Path(abi_memory.__file__).parent / "core" / "core.wasm"
    return StreamMemory(
        engine,
        wasmtime.Module(engine.wasmtime, core.read_bytes()),
        wasmtime.Module(engine.wasmtime, wasmtime.wat2wasm(EMPTY_LINK)),
    )


class FakeTelemetry(Telemetry):
    """Keeps what finished."""

    def __init__(self) -> None:
        super().__init__(access=False)
        self.finished: list[StreamInfo] = []

    def stream_finished(self, info: StreamInfo) -> None:
        self.finished.append(info)
        super().stream_finished(info)


Serve = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One accepted connection of a scripted endpoint."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heads: list[bytes] = []
        self.closed = asyncio.Event()

    async def head(self) -> bytes:
        """The next request's head, with its last blank line."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        return head

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()


class Endpoint:
    """A scripted upstream: one coroutine per connection; records what it was asked."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.peers: list[Peer] = []
        self.address = ""
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, sock: socket.socket | None = None) -> None:
        if sock is None:
            self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0, limit=1 << 20)
        else:
            self.server = await asyncio.start_server(self.accept, sock=sock, limit=1 << 20)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self.tasks.append(asyncio.get_running_loop().create_task(self.run(peer)))

    async def run(self, peer: Peer) -> None:
        try:
            await self.serve(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            peer.closed.set()
        finally:
            peer.writer.close()

    async def stop(self) -> None:
        self.server.close()
        for peer in self.peers:
            if not peer.writer.transport.is_closing():
                peer.writer.transport.abort()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    @property
    def heads(self) -> list[bytes]:
        return [head for peer in self.peers for head in peer.heads]


def replies(*answers: bytes) -> Serve:
    """Each connection: read a head, send an answer; the last answer for ever."""

    async def serve(peer: Peer) -> None:
        count = 0
        while True:
            await peer.head()
            await peer.send(answers[min(count, len(answers) - 1)])
            count += 1

    return serve


class Client:
    """A raw client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    async def read(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), 5)

    async def rest(self) -> bytes:
        """All until the gateway closes; ConnectionResetError if it resets."""
        return await asyncio.wait_for(self.reader.read(-1), 8)

    async def response(self) -> tuple[bytes, bytes]:
        """Head and body, by content-length or chunked."""
        head = await self.head()
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            body = b""
            while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
                body += (await self.read(size + 2))[:-2]
            await self.read(2)
            return head, body
        if b"content-length: " in lowered:
            length = int(lowered.split(b"content-length: ")[1].split(b"\r\n")[0])
            return head, await self.read(length)
        return head, b""

    def close(self) -> None:
        self.writer.transport.abort()


class Bench:
    """A gateway with one listener on loopback in this process, and what the tests need of it."""

    def __init__(self, gateway: Gateway, chains: FakeChains, telemetry: FakeTelemetry, port: int) -> None:
        self.gateway = gateway
        self.chains = chains
        self.telemetry = telemetry
        self.port = port
        self.clients: list[Client] = []

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22))
        self.clients.append(client)
        return client

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """One request on a fresh connection."""
        client = await self.client()
        await client.send(request)
        return await client.response()

    async def finished(self, count: int = 1) -> StreamInfo:
        """The info of the last of `count` finished streams."""
        for _ in range(500):
            if len(self.telemetry.finished) >= count:
                break
            await asyncio.sleep(0.01)
        return self.telemetry.finished[count - 1]

    async def stop(self) -> None:
        for client in self.clients:
            client.close()
        await self.gateway.drain(0.5)


async def start_bench(
    endpoints: Sequence[str],
    *,
    listener: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    route: dict[str, Any] | None = None,
    routes: list[dict[str, Any]] | None = None,
    clusters: Sequence[dict[str, Any]] = (),
    script: Script | None = None,
    filters: list[dict[str, Any]] | None = None,
    overload: dict[str, Any] | None = None,
) -> Bench:
    """A serving gateway before the endpoints; the keyword arguments are config sections. With `filters`, even none, the chain
    is the real one."""
    config = Config.model_validate(
        {
            "listeners": [{"address": "127.0.0.1:0", **(listener or {})}],
            "clusters": [{"name": "service", "endpoints": list(endpoints), **(cluster or {})}, *clusters],
            "routes": routes or [{"match": {"prefix": "/"}, "cluster": "service", **(route or {})}],
            "filters": filters or [],
            "overload": overload or {},
        }
    )
    chains = FakeChains()
    chains.script = script or {}
    telemetry = FakeTelemetry()
    if filters is None:
        gateway = Gateway(config, telemetry, chains)
    else:
        problems = prepare_filters(config)
        assert not problems, [str(problem) for problem in problems]
        gateway = make_gateway(config, telemetry, 0)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    sock.setblocking(False)
    try:
        await gateway.start([sock])
    except Exception:
        sock.close()
        raise
    return Bench(gateway, chains, telemetry, sock.getsockname()[1])


__all__ = ["END_STREAM", "Bench", "Client", "Endpoint", "FakeChain", "Peer", "free_port", "replies", "start_bench"]
