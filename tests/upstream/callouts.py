"""Callouts with real connections on loopback, a scripted resolver, and a spy on every socket of the process."""

import asyncio
import socket
import ssl
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from proxy.abi.memory import StreamMemory
from proxy.capabilities.allowed_hosts import AllowedHosts
from proxy.config.cluster import Cluster as ClusterConfig
from proxy.server.deadlines import Deadlines
from proxy.telemetry.instruments import Instruments
from proxy.telemetry.metrics import Registry
from proxy.upstream.callout import CalloutHandle, CalloutPolicy, CalloutResult, Callouts
from proxy.upstream.cluster import Cluster
from proxy.upstream.resolver import Resolver
from proxy.upstream.write_batch import WriteBatch
from tests.server.fakes import stream_memory

Pairs = Sequence[tuple[bytes, bytes]]

CERTIFICATE = Path(__file__).parent / "api.test.pem"
"""Self-signed for api.test, with its key."""
LOOPBACK = "127.0.0.0/8"


def head(method: str = "GET", path: str = "/", authority: str = "auth", *fields: tuple[str, str]) -> Pairs:
    """The headers of a call."""
    pairs = [(":method", method), (":path", path), (":authority", authority), *fields]
    return [(name.encode(), value.encode()) for name, value in pairs]


class Spy:
    """Everything that a process connects to or resolves, as Python's audit events tell it; those of asyncio's own loop."""

    def __init__(self) -> None:
        self.connected: list[Any] = []
        self.resolved: list[str] = []


spies: list[Spy] = []


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not spies:
        return
    if event == "socket.connect":
        for spy in spies:
            spy.connected.append(arguments[1])
    elif event == "socket.getaddrinfo":
        for spy in spies:
            spy.resolved.append(arguments[0])


sys.addaudithook(audit)


class Names:
    """A resolver: each name's answers in turn, the last one again and again."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        await asyncio.sleep(0)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.answers[host]
        return answers[min(self.asked.count(host), len(answers)) - 1]


class Bench:
    """Callouts of one worker; `clusters` are names and ports on loopback."""

    def __init__(
        self,
        clusters: Mapping[str, int | Sequence[int]] | None = None,
        names: Names | None = None,
        own: Iterable[tuple[str, int]] = (),
        trusted: bool = False,
        connect_timeout: float = 2.0,
        max_connections: int = 1024,
        max_pending: int = 1024,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.headers: dict[Pairs, Pairs] = {}
        self.writes = WriteBatch(self.loop)
        self.deadlines = Deadlines(self.loop)
        self.instruments = Instruments(Registry())
        resolver = Resolver(self.loop)
        self.clusters = {
            name: Cluster(
                ClusterConfig(
                    name=name,
                    endpoints=[f"127.0.0.1:{port}" for port in ([ports] if isinstance(ports, int) else ports)],  # type: ignore[arg-type]
                    connect_timeout=connect_timeout,
                    max_connections=max_connections,
                    max_pending=max_pending,
                ),
                self.writes,
                self.deadlines,
                resolver,
                self.instruments.cluster(name),
            )
            for name, ports in (clusters or {}).items()
        }
        tls = ssl.create_default_context(cafile=CERTIFICATE) if trusted else None
        self.callouts = Callouts(
            self.clusters,
            self.writes,
            self.deadlines,
            self.instruments.cluster,
            own,
            names,
            tls,
            connect_timeout=connect_timeout,
        )

    async def __aenter__(self) -> "Bench":
        return self

    async def __aexit__(self, *error: object) -> None:
        self.callouts.close()
        for cluster in self.clusters.values():
            cluster.close()
        await asyncio.sleep(0.01)
        self.deadlines.close()
        left = [cluster.connections for cluster in self.clusters.values()]
        assert not any(left), f"connections left: {left}"

    def start(
        self, policy: CalloutPolicy, upstream: str, headers: Pairs, body: bytes = b"", timeout: float = 3.0
    ) -> tuple[CalloutHandle, "asyncio.Future[CalloutResult]"]:
        """A call and what will come of it."""
        future: asyncio.Future[CalloutResult] = self.loop.create_future()
        # As a filter's VM does: the same headers are the same tuple.
        known = self.headers.setdefault(tuple(headers), tuple(headers))
        call = self.callouts.start(policy, upstream, known, body, (), timeout, future.set_result)
        assert not future.done(), "answered from inside start"
        return call, future

    async def call(
        self, policy: CalloutPolicy, upstream: str, headers: Pairs, body: bytes = b"", timeout: float = 3.0
    ) -> CalloutResult:
        """A call's result. Raises CalloutError."""
        async with asyncio.timeout(10):
            return await self.start(policy, upstream, headers, body, timeout)[1]


@cache
def memory() -> StreamMemory:
    """Made in a test, not when a conftest imports this: pytest's handler of faults must be there before wasmtime's."""
    return stream_memory()


def policy(*entries: str, **limits: Any) -> CalloutPolicy:
    """A filter's policy with these allowed hosts; it takes plain responses past the parser."""
    made = CalloutPolicy("f", AllowedHosts(entries), **limits)
    made.load_plain = memory().load_plain_answer
    return made


def server_context() -> ssl.SSLContext:
    """The TLS of api.test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context
