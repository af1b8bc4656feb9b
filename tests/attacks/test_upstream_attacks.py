"""What upstreams send: the right status or a cut connection, never a short body that looks whole, never a harmful replay."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.attacks.cases.upstream import CLOSE, FAMILIES, RESET, Case
from tests.attacks.client import Client
from tests.server.fakes import Bench, Endpoint, Peer, start_bench

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = [pytest.param(case, id=f"{family}: {case.name}") for family, cases in FAMILIES.items() for case in cases]
ROUTES = [
    {"match": {"prefix": "/slow"}, "cluster": "service", "timeout": "500ms"},
    {"match": {"prefix": "/"}, "cluster": "service"},
]
CANARY = b"GET /canary/%d HTTP/1.1\r\nHost: a\r\n\r\n"


class Attacker(Endpoint):
    """Answers `/attack` and `/slow` as the case in hand says, all else with its target."""

    def __init__(self) -> None:
        super().__init__(self.attack)
        self.case: Case | None = None
        self.sends = 0

    async def attack(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            target = head.split(b" ")[1]
            if target not in (b"/attack", b"/slow"):
                await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(target), target))
                continue
            self.sends += 1
            case = self.case
            assert case is not None
            for piece in case.pieces:
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                else:
                    await peer.send(piece)
            if case.end == RESET:
                peer.reset()
                return
            if case.end == CLOSE:
                return
            if b"abc" in case.request:
                await peer.reader.readexactly(3)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[tuple[Bench, Attacker]]:
    """One gateway before one attacker: what one case leaves behind, the next would meet."""
    attacker = Attacker()
    await attacker.start()
    bench = await start_bench([attacker.address], filters=[], routes=ROUTES)
    yield bench, attacker
    await bench.stop()
    await attacker.stop()


@pytest.mark.parametrize("case", CASES)
async def test_upstream(stage: tuple[Bench, Attacker], case: Case) -> None:
    """The client's answer, how often the request was sent, and that nothing is left over for the next request."""
    bench, attacker = stage
    attacker.case, attacker.sends = case, 0
    for peer in attacker.peers:
        peer.writer.transport.abort()
    attacker.peers.clear()
    await asyncio.sleep(0.01)
    async with Client(bench.port) as client:
        if case.warm:
            await canary(client, 0)
            client.data = b""
        await client.send(case.request.replace(b" /attack ", b" /slow ") if case.slow else case.request)
        found, _ = await client.answers([case.request.split(b" ")[0]])
        assert tuple(message.status for message in found) == case.answers, client.data
        if not case.answers:
            assert client.ended == "reset"
        for message in found:
            assert case.body is None or message.body == case.body
            for text in case.lacks:
                assert text not in client.data
        await asyncio.sleep(case.settle)
        if case.answers and not client.ended and b"close" not in found[-1].tokens(b"connection"):
            await canary(client, 1)
    async with Client(bench.port) as client:
        await canary(client, 2)
        await asyncio.sleep(0.01)
        await canary(client, 3)
    assert attacker.sends == case.sends


async def canary(client: Client, number: int) -> None:
    """An innocent request gets its own answer."""
    client.data = b""
    await client.send(CANARY % number)
    found, rest = await client.answers([b"GET"])
    assert [message.body for message in found] == [b"/canary/%d" % number], client.data
    assert not rest
