"""Where an attack is played: a gateway on the real server stack and its recording origin, and what must hold after each act."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from tests.attacks.client import Client, Sent
from tests.attacks.origin import Origin
from tests.attacks.strict import Message
from tests.server.fakes import Bench, start_bench

CANARY = b"GET /canary/%d HTTP/1.1\r\nHost: canary\r\n\r\n"


class Outcome:
    """What one attack led to."""

    def __init__(self, answers: list[Message], rest: bytes, ended: str, reached: list[Message], raw: bytes) -> None:
        self.answers = answers
        self.rest = rest
        """The beginning of an answer that was cut."""
        self.ended = ended
        self.reached = reached
        """The whole requests that the origin got."""
        self.raw = raw
        """All that the client got."""

    @property
    def statuses(self) -> list[int]:
        return [message.status for message in self.answers]

    @property
    def lines(self) -> list[str]:
        return [message.line for message in self.reached]


class Stage:
    """A gateway and its origin; `async with`. `options` are start_bench's."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.origin = Origin()
        self.callee = Origin()
        """For filters' calls: the cluster `callee`."""
        self.canaries = 0

    async def __aenter__(self) -> Self:
        self.defects: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.defects.append(context))
        await self.origin.start()
        await self.callee.start()
        self.bench: Bench = await start_bench(
            [self.origin.address],
            clusters=[{"name": "callee", "endpoints": [self.callee.address]}],
            **{"filters": [], **self.options},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.bench.stop()
        await self.origin.stop()
        await self.callee.stop()
        assert not self.defects, self.defects

    async def play(
        self,
        sent: Sent,
        methods: Sequence[bytes],
        answers: int | None = None,
        *,
        bytewise: bool = False,
        goes_on: bool = True,
    ) -> Outcome:
        """Send, wait for so many answers, and see that gateway and origin are in step afterwards.

        `goes_on`: a connection that is still open must serve another request.

        Raises AmbiguousError if client or origin could read something in two ways.
        """
        self.origin.forget()
        async with Client(self.bench.port) as client:
            await client.send(sent, bytewise)
            found, rest = await client.answers(methods, answers)
            closing = bool(found) and b"close" in found[-1].tokens(b"connection")
            if not client.ended and (closing or not found):
                await client.closed()
                found, rest = await client.answers(methods, answers)
            raw, ended = client.data, client.ended
            if goes_on and not ended and found[-1].status != 101:
                await self.canary(client)
        async with Client(self.bench.port) as client:
            await self.canary(client)
        await self.origin.settled()
        for recording in self.origin.connections:
            if recording.error is not None:
                raise recording.error
            # A request that was cut is no request, if the connection was cut too.
            assert not recording.rest or recording.closed, recording.rest
        reached = [message for message in self.origin.requests if not message.target.startswith(b"/canary/")]
        return Outcome(found, rest, ended, reached, raw)

    async def canary(self, client: Client) -> None:
        """An innocent request gets its own answer, and nothing but that."""
        self.canaries += 1
        client.data = b""
        await client.send(CANARY % self.canaries)
        found, rest = await client.answers([b"GET"])
        assert [(message.status, message.body) for message in found] == [(200, b"GET /canary/%d\n" % self.canaries)], (
            client.data
        )
        assert not rest
