"""Fetching, seen from the gateway: a child process for each source (fetcher.py), a few at a time, each for a bounded time."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from proxy.config.model import Sources
from proxy.config.remote import Remote
from proxy.sources.guard import FetchError
from proxy.telemetry.logging import printable
from proxy.wasm.compile import anonymous_file

TOGETHER = 4
GRACE = 5.0
"""Seconds for the child's start and end."""
LONGEST_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class Order:
    """What to fetch. `limit`: bytes of the module. `known`: what was told to ask with, if anything was had before."""

    remote: Remote
    limit: int
    seconds: float
    sources: Sources
    known: str = ""

    def to_json(self) -> str:
        login = self.sources.registries.get(self.remote.registry)
        return json.dumps({
            "source": str(self.remote),
            "limit": self.limit,
            "seconds": self.seconds,
            "networks": self.sources.allowed_networks,
            "ca": None if self.sources.ca is None else str(self.sources.ca.absolute()),
            "login": None if login is None else [str(login.username), str(login.password)],
            "known": self.known,
        })  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fetched:
    """The parts that there are, less those in `same`: they are as they were. `tag`: what to ask with the next time."""

    parts: dict[str, bytes]
    same: frozenset[str]
    tag: str


def fetch_all(orders: Sequence[Order]) -> list[Fetched | FetchError]:
    """The outcomes in the order of the orders. Blocks until all are there; leaves no child and no thread behind."""
    waiting = deque(enumerate(orders))
    running: dict[int, Child] = {}
    outcomes: dict[int, Fetched | FetchError] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < TOGETHER:
                    index, order = waiting.popleft()
                    running[index] = child = Child(order)
                    selector.register(child.report, selectors.EVENT_READ, index)
                first = min(child.deadline for child in running.values())
                for key, _ in selector.select(max(0.0, first - time.monotonic())):
                    child = running[key.data]
                    if child.read():
                        continue
                    selector.unregister(child.report)
                    outcomes[key.data] = child.finish()
                    del running[key.data]
                for child in running.values():
                    child.check_deadline()
        finally:
            for child in running.values():
                child.abandon()
    return [outcomes[index] for index in range(len(orders))]


class Child:
    """One running fetcher. Its standard error is a pipe whose end tells that it has gone."""

    def __init__(self, order: Order) -> None:
        self.deadline = time.monotonic() + order.seconds + GRACE
        self.text = b""
        self.output: IO[bytes] = anonymous_file()
        with anonymous_file() as told:
            told.write(order.to_json().encode())
            told.seek(0)  # flushes, too
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "proxy.sources.fetcher"],
                stdin=told, stdout=self.output, stderr=subprocess.PIPE, cwd="/", env=environment(),
            )  # fmt: skip
        assert self.process.stderr is not None
        self.report: IO[bytes] = self.process.stderr

    def read(self) -> bool:
        """Takes what the child reports; False at its end."""
        data = os.read(self.report.fileno(), 65536)
        self.text = (self.text + data)[-LONGEST_LINE:]
        return bool(data)

    def check_deadline(self) -> None:
        if time.monotonic() >= self.deadline:
            self.deadline = float("inf")
            self.process.kill()

    def abandon(self) -> None:
        self.process.kill()
        self.process.wait()
        self.report.close()
        self.output.close()

    def finish(self) -> Fetched | FetchError:
        status = self.process.wait()
        try:
            if status < 0:
                return FetchError("it took too long", "raise sources.timeout, or mend the source")
            if status:
                last = self.text.decode(errors="replace").strip().rpartition("\n")[2]
                return FetchError(f"fetching failed: {printable(last[:200])}", "look at the source")
            self.output.seek(0)
            said = json.loads(self.output.readline(LONGEST_LINE))
            if "problem" in said:
                # There may be words of the source's in it.
                return FetchError(printable(said["problem"]), printable(said["mend"]), said.get("lasting", False))
            parts = {name: self.output.read(size) for name, size in said["sizes"].items()}
            return Fetched(parts, frozenset(said["same"]), said["tag"])
        finally:
            self.report.close()
            self.output.close()


def environment() -> dict[str, str]:
    """No secrets, no proxies, and no home with a file of logins in it: only where modules and the system's authorities are."""
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    kept = {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
    return {"PYTHONPATH": path, "HOME": "/nonexistent", "DOCKER_CONFIG": "/nonexistent", **kept}
