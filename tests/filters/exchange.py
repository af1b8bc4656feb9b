"""Plays one case of a filter against a gateway that runs it, whichever that is."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.conformance import client
from tests.conformance.upstream import Answer, Body, Close, Received, Upstream, chunked, head, sized
from tests.conformance.wire import WireError
from tests.filters import cases

CHUNK_PAUSE = 0.002  # seconds between chunks, so that they stay apart on their way


class Services:
    """The upstreams behind a gateway: `service`, where requests go, and those that a filter's cases name."""

    def __init__(self, tested: cases.Cases) -> None:
        names = {name for case in tested.cases for name in case.services}
        self.main = Upstream()
        self.others = {name: Upstream() for name in sorted(names)}

    @property
    def ports(self) -> dict[str, int]:
        """The port of each by its cluster's name."""
        return {"service": self.main.port} | {name: one.port for name, one in self.others.items()}

    def script(self, case: cases.Case) -> None:
        """Forgets what there was and answers as the case says."""
        self.main.requests.clear()
        self.main.answers = [answer(case.response)]
        for name, upstream in self.others.items():
            upstream.requests.clear()
            upstream.answers = [answer(one) for one in case.services.get(name, [None])]

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(one.__aenter__() for one in (self.main, *self.others.values())))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(one.__aexit__(kind, error, trace) for one in (self.main, *self.others.values())))


async def exchange(case: cases.Case, port: int, services: Services) -> list[str]:
    """Plays one case; returns what differs."""
    services.script(case)
    request = case.request
    fields = [(name, value) for name, value in latin(request.headers) if name.lower() != "host"]
    host = next((value for name, value in latin(request.headers) if name.lower() == "host"), "test")
    if request.chunks is None:
        pieces = [client.request(request.method, request.path, fields, request.body, host)]
    else:
        pieces = client.chunked_request(request.method, request.path, request.chunks, fields, host=host)
    try:
        response = await client.fetch(port, pieces, CHUNK_PAUSE)
    except (WireError, TimeoutError, OSError) as error:
        return [f"no response: {error!r}"]
    if case.downstream is None:
        return [] if response.error else [f"response: expected none, got a whole one with status {response.status}"]
    found = [response.error] if response.error else []
    if response.status != case.downstream.status:
        found.append(f"status: expected {case.downstream.status}, got {response.status}")
    found += [f"response {line}" for line in case.downstream.problems(response.headers, bytes(response.body))]
    upstream = [] if case.upstream is None else [case.upstream]
    found += differences("service", services.main.requests, upstream)
    for name, other in services.others.items():
        wanted, received = case.calls.get(name, []), other.requests
        if wanted and not any(case.services[name]):  # a gateway may ask once more where the connection was closed
            received = received[: len(wanted)]
        found += differences(name, received, wanted)
    return found


def differences(name: str, received: Sequence[Received], wanted: Sequence[cases.Wanted]) -> list[str]:
    """What is wrong with the requests that one upstream got, a line each. A head whose body was refused on the way is no
    request: the service never sees the end of it."""
    if not wanted:
        received = [one for one in received if one.complete]
    if len(received) != len(wanted):
        lines = b", ".join(one.start_line for one in received).decode("latin-1")
        return [f"{name}: expected {len(wanted)} requests, got {len(received)}: {lines}"]
    found = []
    for request, expected in zip(received, wanted, strict=True):
        method, path = request.start_line.decode("latin-1").split(" ")[:2]
        if expected.method not in (None, method) or expected.path not in (None, path):
            found.append(f"{name}: got {method} {path}, expected {expected.method} {expected.path}")
        found += [f"{name}: request {line}" for line in expected.problems(request.headers, bytes(request.body))]
    return found


def answer(sent: cases.Sent | None) -> Answer:
    """What a service does in this case."""
    if sent is None:
        return Answer([Body(), Close()])
    fields = latin(sent.headers)
    if sent.chunks is not None:
        made = chunked(sent.chunks, sent.status, fields, CHUNK_PAUSE, latin(sent.trailers))
    elif "content-length" in dict(fields):  # the answer to HEAD
        made = Answer([head(sent.status, fields)])
    else:
        made = sized(sent.body, sent.status, fields)
    return dataclasses.replace(made, steps=[sent.delay, *made.steps]) if sent.delay else made


def latin(fields: cases.Fields) -> list[tuple[str, str]]:
    """Header values as UTF-8 bytes, each a character, as the wire modules encode them."""
    return [(name, value.encode().decode("latin-1")) for name, value in fields]
