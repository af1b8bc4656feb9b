"""The gateway as its user runs it: `python -m proxy run CONFIG`, with real workers, ports and filters."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

ROOT = Path(__file__).parents[2]
READY = re.compile(r"serving on http://127\.0\.0\.1:(\d+); admin on http://127\.0\.0\.1:(\d+)")
LIMITS = {"log_lines": "100000/s"}


class GatewayError(Exception):
    """The gateway did not start, or did not say what was waited for; the message ends with its log."""


def filter_of(
    wasm: Path, name: str, config: object = None, limits: Mapping[str, object] | None = None, **keys: object
) -> dict[str, Any]:
    """An entry of the config's `filters`."""
    return {"name": name, "wasm": str(wasm), "config": config, "limits": {**LIMITS, **(limits or {})}, **keys}


class Gateway:
    """A running gateway with one listener; `clusters` are names to ports, every request goes to `service`.

    `options` are further sections of the config. Started and stopped by `async with`.
    """

    def __init__(
        self, filters: Sequence[dict[str, Any]], clusters: Mapping[str, int] | None = None, workers: int = 1, **options: object
    ) -> None:
        self.config = {
            "listeners": [{"address": "127.0.0.1:0"}],
            "clusters": [
                {"name": name, "endpoints": [f"127.0.0.1:{port}"]} for name, port in (clusters or {"service": 9}).items()
            ],
            "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
            "filters": list(filters),
            "admin": {"address": "127.0.0.1:0"},
            "workers": workers,
            "shutdown_grace": "2s",
            "log": {"format": "json", "access": False},
            **options,
        }
        self.lines: list[dict[str, Any]] = []
        """The log so far, a mapping for each line."""
        self.news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-integration-")
        file = Path(self.folder.name) / "config.yaml"
        file.write_text(json.dumps(self.config))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "proxy", "run", str(file),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, limit=1 << 22,
        )  # fmt: skip
        self.reading = asyncio.create_task(self.read_log())
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        found = READY.match(line)
        if found is None:
            await self.process.wait()
            await self.reading
            raise GatewayError(f"{line}{self.log_text()}")
        self.port, self.admin_port = int(found[1]), int(found[2])
        # One connection for each request, so that every worker gets some.
        self.client = aiohttp.ClientSession(
            f"http://127.0.0.1:{self.port}", connector=aiohttp.TCPConnector(force_close=True, limit=0)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "client"):
            await self.client.close()
        if self.process.returncode is None:
            self.process.kill()  # its children die with it
            await self.process.wait()
        await self.reading
        self.folder.cleanup()

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": line.decode(errors="replace")})
            self.news.set()

    def log_text(self) -> str:
        return "\n".join(map(str, self.lines[-40:]))

    async def stop(self) -> int:
        """SIGTERM; the exit status once everything has ended."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            status = await self.process.wait()
            await self.reading
        return status

    # ---- What it says ----

    def said(self, name: str, start: str = "") -> list[str]:
        """What the filter logged that begins with `start`."""
        return [
            line["message"] for line in self.lines
            if line["event"] == "filter_log" and line["filter"] == name and line["message"].startswith(start)
        ]  # fmt: skip

    def events(self, event: str) -> list[dict[str, Any]]:
        """The log lines of that event."""
        return [line for line in self.lines if line["event"] == event]

    async def until(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        """Wait until the log has what `condition` looks for. Raises GatewayError."""
        end = time.monotonic() + seconds
        while not condition():
            self.news.clear()
            try:
                async with asyncio.timeout(max(end - time.monotonic(), 0.0)):
                    await self.news.wait()
            except TimeoutError:
                raise GatewayError(f"not logged in {seconds} s:\n{self.log_text()}") from None

    # ---- What it is asked ----

    async def get(self, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
        """A request's status, response headers (in lower case) and body. Underscores in `headers` stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.get(path, headers=named) as response:
            return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.text()

    async def metrics(self) -> dict[str, float]:
        """The samples of /metrics by name and labels as written."""
        async with self.client.get(f"http://127.0.0.1:{self.admin_port}/metrics") as response:
            text = await response.text()
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}
