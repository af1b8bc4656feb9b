"""A gRPC server on loopback whose methods do what the tests ask: raw bytes in and out, no protobuf."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

SERVICE = "t.S"


class Service(grpc.GenericRpcHandler):
    """Methods of `t.S`. `seen` holds (method, metadata, messages) of every call, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[tuple[str, Any]], list[bytes]]] = []
        self.cancelled: list[str] = []

    def service(self, details: Any) -> Any:
        """Every method takes and gives streams: whether a call is unary is known to its client alone."""
        name = details.method.removeprefix(f"/{SERVICE}/")
        behaviour = getattr(self, f"do_{name.lower()}", None)
        if behaviour is None:
            return None
        messages: list[bytes] = []
        self.seen.append((details.method, [(pair.key, pair.value) for pair in details.invocation_metadata], messages))

        async def handle(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async def noted() -> AsyncIterator[bytes]:
                async for message in requests:
                    messages.append(message)
                    yield message

            try:
                async for answer in behaviour(noted(), context):
                    yield answer
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise

        return grpc.stream_stream_rpc_method_handler(handle)

    async def do_echo(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Each message back; its own metadata before and after."""
        await context.send_initial_metadata((("x-initial", "1"), ("x-initial", "2"), ("x-raw-bin", b"\x00\xffab")))
        context.set_trailing_metadata((("x-trailing", "t"), ("y-bin", b"\x01\x02")))
        async for message in requests:
            yield message

    async def do_first(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """The first message back, and the end."""
        async for message in requests:
            yield message
            return

    async def do_fail(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """`CODE TEXT` of the first message as the status; the rest of the messages, if there is `after` in it, before it."""
        async for message in requests:
            code, _, text = message.decode().partition(" ")
            if text.startswith("after"):
                yield b"before"
            context.set_trailing_metadata((("x-why", "because"),))
            await context.abort(next(one for one in grpc.StatusCode if one.value[0] == int(code)), text)

    async def do_none(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """OK without a message."""
        async for _ in requests:
            pass
        return
        yield b""

    async def do_two(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Two messages."""
        async for _ in requests:
            pass
        yield b"one"
        yield b"two"

    async def do_slow(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Nothing for a long time."""
        await asyncio.sleep(20)
        yield b"late"

    async def do_stuck(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """A message, and nothing more for a long time."""
        yield b"first"
        await asyncio.sleep(20)

    async def do_big(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """As many bytes as the first message says."""
        async for message in requests:
            yield bytes(int(message))

    async def do_count(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """How many bytes each message had."""
        async for message in requests:
            yield b"%d" % len(message)

    async def do_many(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """As many messages as the first says."""
        async for message in requests:
            for number in range(int(message)):
                yield b"%d" % number
            return

    async def do_heavy(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Much metadata."""
        await context.send_initial_metadata(tuple((f"x-{number}", "v" * 100) for number in range(200)))
        async for message in requests:
            yield message


class GrpcServer:
    """`async with GrpcServer() as server`: serves on 127.0.0.1:`server.port`."""

    def __init__(self, credentials: Any = None) -> None:
        self.service = Service()
        self.credentials = credentials
        self.port = 0

    async def __aenter__(self) -> Self:
        self.server = grpc.aio.server(
            handlers=(self.service,), options=(("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1))
        )
        if self.credentials is None:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self.server.add_secure_port("127.0.0.1:0", self.credentials)
        await self.server.start()
        return self

    async def stop(self) -> None:
        """Now, whatever is going on."""
        await self.server.stop(None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class Relay:
    """Passes bytes on to 127.0.0.1:`port`, until `cut` ends its connections without a word. What comes back is `delay`
    seconds late."""

    def __init__(self, port: int, delay: float = 0.0) -> None:
        self.to = port
        self.delay = delay
        self.port = 0
        self.accepted = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            further_reader, further = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.close()
            return
        self.writers += [writer, further]
        await asyncio.gather(self.pass_on(reader, further, 0.0), self.pass_on(further_reader, writer, self.delay))

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        try:
            while data := await reader.read(65536):
                await asyncio.sleep(delay)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.close()
        self.cut()
