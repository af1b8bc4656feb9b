"""The service behind the gateway: `python -m tests.hostile.upstream` prints its port and answers until its input ends.

Answers 200 with as many bytes as the request's `x-answer` says, when the request is complete. In a process of its own, so that
what it costs is nobody's latency.
"""

from __future__ import annotations

import asyncio
import re
import sys

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ANSWER = re.compile(rb"\r\nx-answer: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Service(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        if not end:
            return
        length = LENGTH.search(head)
        if CHUNKED.search(head):
            if not body.endswith(b"0\r\n\r\n"):
                return
        elif length is not None and len(body) < int(length[1]):
            return
        self.data = b""
        wanted = ANSWER.search(head)
        size = int(wanted[1]) if wanted is not None else 2
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"o" * size)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Service, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
