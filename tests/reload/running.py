"""A gateway of real processes whose config is rewritten while it runs, a service behind it, clients that keep connections."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy.server.asking import ask, find
from tests.integration.gateway import Gateway, filter_of

ROOT = Path(__file__).parents[2]
REWRITE = ROOT / "filters/header-rewrite/header-rewrite.wasm"
BODY = ROOT / "filters/body-rewrite/body-rewrite.wasm"


def marks(value: str, **keys: object) -> dict[str, Any]:
    """A filter that writes `value` into each response's x-generation."""
    return filter_of(REWRITE, "rewrite", {"response": {"set": {"x-generation": value}}}, **keys)


class Running(Gateway):
    """Its config file is `self.file`."""

    @property
    def file(self) -> Path:
        return Path(self.folder.name) / "config.yaml"

    def rewrite(self, **changes: object) -> None:
        """Replace the file, as editors do."""
        self.config.update(changes)
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.config))
        new.replace(self.file)

    async def reload(self) -> dict[str, Any]:
        """What `penstock reload` asks; the outcome."""
        return await self.ask({"do": "reload"})

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        return await asyncio.to_thread(ask, find(None, self.process.pid), question, 60.0)

    async def generation(self) -> str | None:
        return (await self.get())[1].get("x-generation")

    async def ready(self) -> dict[str, Any]:
        async with self.client.get(f"http://127.0.0.1:{self.admin_port}/ready") as response:
            found: dict[str, Any] = await response.json()
            return found

    async def eventually(self, condition: Callable[[], Any], seconds: float = 15.0) -> None:
        """Until an async condition holds."""
        end = time.monotonic() + seconds
        while not await condition():
            assert time.monotonic() < end, self.log_text()
            await asyncio.sleep(0.05)


async def command(*arguments: str) -> tuple[int | None, str, str]:
    """`penstock ...`: status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def service(answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello") -> AsyncIterator[int]:
    """An upstream that answers every request the same; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Client(asyncio.Protocol):
    """One connection that is used for one request after the other, until told to stop."""

    def __init__(self) -> None:
        self.received = b""
        self.answers: dict[bytes, int] = {}
        self.wrong: list[bytes] = []
        self.closed_early = False
        self.stopping = False
        self.over = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.transport.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank or len(body) < 5:
            return
        self.received = b""
        generation = [line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"x-generation: ")]
        if not head.startswith(b"HTTP/1.1 200 ") or body != b"hello" or len(generation) != 1:
            self.wrong.append(head + blank + body)
        else:
            self.answers[generation[0]] = self.answers.get(generation[0], 0) + 1
        if self.stopping:
            self.transport.close()
            self.over.set()
        else:
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed_early = not self.over.is_set()
        self.over.set()
