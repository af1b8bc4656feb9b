"""A client that sends raw bytes, records what comes back, and says how it ended."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from tests.attacks.strict import Message, read_responses

PATIENCE = 8.0
"""Seconds until an answer is missing."""
Sent = bytes | Sequence[bytes | float]
"""Bytes; or pieces, with pauses in seconds between them."""


class Client:
    """One connection to the gateway."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.data = b""
        """All that came."""
        self.ended = ""
        """"" while open; `eof` or `reset`."""

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def send(self, sent: Sent, bytewise: bool = False) -> None:
        """Send; a gateway that has closed meanwhile is no error here."""
        pieces: Sequence[bytes | float] = [sent] if isinstance(sent, bytes) else sent
        try:
            for piece in pieces:
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                elif bytewise:
                    for i in range(len(piece)):
                        self.writer.write(piece[i : i + 1])
                        await asyncio.sleep(0)
                else:
                    self.writer.write(piece)
                    await self.writer.drain()
        except (ConnectionError, RuntimeError):  # uvloop: the handler is closed
            return

    async def more(self, seconds: float = PATIENCE) -> bool:
        """Wait for more; False if the gateway closed. Raises TimeoutError."""
        if self.ended:
            return False
        try:
            async with asyncio.timeout(seconds):
                data = await self.reader.read(1 << 20)
        except ConnectionError:
            self.ended = "reset"
            return False
        if not data:
            self.ended = "eof"
        self.data += data
        return bool(data)

    async def answers(self, methods: Sequence[bytes], count: int | None = None) -> tuple[list[Message], bytes]:
        """What came as responses to `methods`: until there are `count` (all), or the gateway closes.

        Raises AmbiguousError, TimeoutError.
        """
        wanted = len(methods) if count is None else count
        while True:
            found, rest = read_responses(self.data, list(methods))
            last = found[-1] if found else None
            whole = last is None or not last.until_close or self.ended == "eof"
            if len(found) >= wanted and whole and (found or self.ended):
                return found if whole else found[:-1], rest
            if not await self.more():
                found, rest = read_responses(self.data, list(methods))
                if found and found[-1].until_close and self.ended == "reset":
                    found.pop()  # cut, not complete
                return found, rest

    async def closed(self) -> None:
        """Read on until the gateway closes. Raises TimeoutError."""
        while await self.more():
            continue
