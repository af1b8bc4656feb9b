"""Fetching, seen from the gateway: a child process for each source (fetcher.py), a few at a time, each for a bounded time."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from proxy.children import Child, run_all
from proxy.config.remote import Remote
from proxy.config.sources import Sources
from proxy.sources.guard import FetchError
from proxy.telemetry.logging import printable

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
    return run_all([partial(Fetching, order) for order in orders], TOGETHER)


class Fetching(Child[Fetched | FetchError]):
    """One running fetcher."""

    def __init__(self, order: Order) -> None:
        super().__init__("proxy.sources.fetcher", (), order.to_json().encode(), order.seconds + GRACE, environment())

    def outcome(self, status: int) -> Fetched | FetchError:
        if status < 0:
            return FetchError("it took too long", "raise sources.timeout, or mend the source")
        if status:
            last = self.text.decode(errors="replace").strip().rpartition("\n")[2]
            return FetchError(f"fetching failed: {printable(last[:200])}", "look at the source")
        said = json.loads(self.output.readline(LONGEST_LINE))
        if "problem" in said:
            # There may be words of the source's in it.
            return FetchError(printable(said["problem"]), printable(said["mend"]), said.get("lasting", False))
        parts = {name: self.output.read(size) for name, size in said["sizes"].items()}
        return Fetched(parts, frozenset(said["same"]), said["tag"])


def environment() -> dict[str, str]:
    """No secrets, no proxies, and no home with a file of logins in it: only where the system's authorities are."""
    kept = {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
    return {"HOME": "/nonexistent", "DOCKER_CONFIG": "/nonexistent", **kept}
