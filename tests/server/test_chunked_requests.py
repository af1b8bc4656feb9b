"""Nothing of a chunked request reaches the next one on its connection."""

from typing import Any

import pytest

from tests.server.fakes import Peer

CHUNKED = b"POST /one HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("end", [b"2\r\nok\r\n0\r\nx-evil: 2\r\n\r\n", b"2\r\nok\r\n0\r\n\r\n"])
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
async def test_the_connection_goes_on_with_a_new_parser(bench: Any, endpoint: Any, end: bytes, pieces: str) -> None:
    first = [CHUNKED + end] if pieces == "whole" else [CHUNKED, *(bytes([c]) for c in end)]
    heads = await exchange(bench, endpoint, first, [NEXT])
    assert [head.split(b" ")[1] for head in heads] == [b"/one", b"/next"]
    assert not any(b"x-evil" in head for head in heads)


async def test_a_request_in_the_same_read_is_not_served(bench: Any, endpoint: Any) -> None:
    """Whether it has the trailer of the one before cannot be told."""
    heads = await exchange(bench, endpoint, [CHUNKED + b"0\r\nx-evil: 2\r\n\r\n" + NEXT], [])
    assert [head.split(b" ")[1] for head in heads] == [b"/one"]


async def test_part_of_a_request_in_the_same_read_ends_the_connection(bench: Any, endpoint: Any) -> None:
    heads = await exchange(bench, endpoint, [CHUNKED + b"0\r\nx-evil: 2\r\n\r\n" + NEXT[:9]], [NEXT[9:]])
    assert [head.split(b" ")[1] for head in heads] == [b"/one"]


async def exchange(bench: Any, endpoint: Any, first: list[bytes], then: list[bytes]) -> list[bytes]:
    """The heads that reach the endpoint."""
    heads: list[bytes] = []

    async def serve(peer: Peer) -> None:
        while True:
            heads.append(await peer.head())
            if b"chunked" in heads[-1].lower():
                await peer.reader.readuntil(b"0\r\n\r\n")
            await peer.send(ANSWER)

    gateway = await bench(await endpoint(serve))
    client = await gateway.client()
    for piece in first:
        await client.send(piece)
    assert (await client.head()).startswith(b"HTTP/1.1 200")
    for piece in then:
        await client.send(piece)
    if not then or not then[0].startswith(b"GET"):
        assert await client.reader.read() == b""
    else:
        assert (await client.head()).startswith(b"HTTP/1.1 200")
    return heads
