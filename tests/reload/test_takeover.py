"""A gateway that takes the place of another on the same port: seen from clients."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from tests.integration.gateway import READY
from tests.reload.running import ROOT, Client, Running, marks, service


class Successor(Running):
    """Starts on the config of another gateway, in its place."""

    def __init__(self, before: Running) -> None:
        super().__init__([])
        self.config = before.config
        self.folder = before.folder

    async def start(self, *options: str) -> str:
        """What it says on standard output first."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "run", str(self.file), *options,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, limit=1 << 22,
        )  # fmt: skip
        self.reading = asyncio.create_task(self.read_log())
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode()


async def test_no_connection_is_refused() -> None:
    """Clients that connect anew for each request, and one that keeps its connection, while the process is replaced."""
    outcomes: dict[str, int] = {}
    done = asyncio.Event()

    async def connects(port: int) -> None:
        while not done.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                name = next(line for line in answer.split(b"\r\n") if line.startswith(b"x-generation: ")).decode()
            except (OSError, StopIteration) as error:
                name = f"failed: {error!r}"
            outcomes[name] = outcomes.get(name, 0) + 1

    async with service() as port, Running([marks("old")], {"service": port}, workers=2) as before:
        loop = asyncio.get_running_loop()
        clients = [asyncio.create_task(connects(before.port)) for _ in range(8)]
        keeps = Client()
        await loop.create_connection(lambda: keeps, "127.0.0.1", before.port)
        # Without being told to, a second gateway does not share the port.
        second = Successor(before)
        before.rewrite(reload={"watch": False}, listeners=[{"address": f"127.0.0.1:{before.port}"}])
        assert await second.start() == ""
        assert await second.process.wait() == 1
        before.rewrite(listeners=[{"address": "127.0.0.1:0"}], workers=1)
        second = Successor(before)
        assert await second.start("--takeover") == ""
        assert await second.process.wait() == 2
        await second.reading
        assert "1 workers cannot serve the 2 sockets of the gateway that runs" in second.log_text()
        before.rewrite(filters=[marks("new")], workers=3)
        after = Successor(before)
        try:
            found = READY.match(await after.start("--takeover"))
            assert found is not None, after.log_text()
            assert (int(found[1]), int(found[2])) == (before.port, before.admin_port)
            async with asyncio.timeout(20):
                assert await before.process.wait() == 0
            seen = dict(outcomes)
            while outcomes.get("x-generation: new", 0) < seen.get("x-generation: new", 0) + 50:
                await asyncio.sleep(0.02)
            done.set()
            await asyncio.gather(*clients)
            print(outcomes)
            assert set(outcomes) == {"x-generation: old", "x-generation: new"}, outcomes
            assert keeps.wrong == []
            assert keeps.received == b"", "cut inside an answer"
            status: dict[str, Any] = await before_ready(after, before.admin_port)
            assert (status["status"], status["serving"]) == ("ready", 3)
        finally:
            if after.process.returncode is None:
                after.process.kill()
                await after.process.wait()
            await after.reading


async def before_ready(gateway: Running, admin_port: int) -> dict[str, Any]:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{admin_port}/ready") as response:
        found: dict[str, Any] = await response.json()
        return found
