"""Trailers over the wire: off unless both sides want them; never headers; hostile sections end the connection."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.chain.commands import SendRequestTrailers, SendResponseTrailers
from tests.server.fakes import Bench, Peer

HEAD = b"POST /one HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n"
SENT = b"3\r\none\r\n0\r\nX-A: 1\r\nx-b:  two \r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
BACK = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\nX-C: 3\r\n\r\n"
END = b"x-a: 1\r\nx-b: two\r\n\r\n"
ON: dict[str, Any] = {"listener": {"trailers": True}, "cluster": {"trailers": True}}


class Service:
    """An endpoint that reads chunked bodies line by line, and answers."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers or (EMPTY,)
        self.heads: list[bytes] = []
        self.sections: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            self.heads.append(head)
            if b"chunked" in head:
                while size := int(await peer.reader.readuntil(b"\r\n"), 16):
                    await peer.reader.readexactly(size + 2)
                section = b""
                while not section.endswith(b"\r\n\r\n") and section != b"\r\n":
                    section += await peer.reader.readuntil(b"\r\n")
                self.sections.append(section)
            elif b"content-length: 6" in head:
                await peer.reader.readexactly(6)
            await peer.send(self.answers[min(len(self.heads), len(self.answers)) - 1])


async def section_of(client: Any) -> bytes:
    """What stands behind the last chunk of the next response."""
    while size := int(await client.reader.readuntil(b"\r\n"), 16):
        await client.read(size + 2)
    section = b""
    while not section.endswith(b"\r\n\r\n") and section != b"\r\n":
        section += await client.reader.readuntil(b"\r\n")
    return section


async def send(gateway: Bench, pieces: Sequence[bytes]) -> Any:
    client = await gateway.client()
    for piece in pieces:
        await client.send(piece)
    return client


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("listener", [True, False])
@pytest.mark.parametrize("cluster", [True, False])
@pytest.mark.parametrize("chain", ["empty", "fake"])
async def test_each_side_has_its_switch(bench: Any, endpoint: Any, listener: bool, cluster: bool, chain: str) -> None:
    service = Service(BACK)
    gateway = await bench(
        await endpoint(service),
        listener={"trailers": listener},
        cluster={"trailers": cluster},
        filters=[] if chain == "empty" else None,
    )
    client = await send(gateway, [HEAD + b"\r\n" + SENT])
    assert (await client.head()).startswith(b"HTTP/1.1 200")
    assert await section_of(client) == (b"x-c: 3\r\n\r\n" if listener and cluster else b"\r\n")
    assert service.sections == [END if listener and cluster else b"\r\n"]
    if chain == "fake":
        events = gateway.chains.opened[0].events
        assert ("request_trailers" in events, "response_trailers" in events) == (listener, cluster)


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
async def test_however_they_are_cut(bench: Any, endpoint: Any, size: int) -> None:
    service = Service(EMPTY)
    gateway = await bench(await endpoint(service), **ON)
    client = await gateway.client()
    for _ in range(3):
        for piece in cut(HEAD + b"\r\n" + SENT, size):
            await client.send(piece)
        assert (await client.head()).startswith(b"HTTP/1.1 200")
        await client.send(b"\r\n" + NEXT)
        assert (await client.head()).startswith(b"HTTP/1.1 200")
    assert service.sections == [END] * 3
    assert [head.split(b" ")[1] for head in service.heads] == [b"/one", b"/next"] * 3
    assert not any(b"x-a" in head for head in service.heads)


async def test_a_pipelined_request_keeps_its_trailers(bench: Any, endpoint: Any) -> None:
    service = Service(EMPTY)
    gateway = await bench(await endpoint(service), **ON)
    sized = b"POST /sized HTTP/1.1\r\nHost: a\r\ncontent-length: 6\r\n\r\n\r\n\r\n0\r"
    client = await send(gateway, [NEXT + sized + b"\r\n" + HEAD + b"\r\n" + SENT])
    for _ in range(3):
        assert (await client.head()).startswith(b"HTTP/1.1 200")
    assert service.sections == [END]
    assert [head.split(b" ")[1] for head in service.heads] == [b"/next", b"/sized", b"/one"]


async def test_trailers_without_a_body(bench: Any, endpoint: Any) -> None:
    service = Service(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-c: 3\r\n\r\n")
    gateway = await bench(await endpoint(service), **ON)
    client = await send(gateway, [HEAD + b"\r\n0\r\nx-a: 1\r\n\r\n"])
    assert (await client.head()).startswith(b"HTTP/1.1 200")
    assert await section_of(client) == b"x-c: 3\r\n\r\n"
    assert service.sections == [b"x-a: 1\r\n\r\n"]


@pytest.mark.parametrize(
    ("client_says", "service_gets"),
    [
        (b"TE: trailers\r\n", b"te: trailers\r\nconnection: te\r\n"),
        (b"TE: gzip;q=0.5, Trailers\r\nConnection: te\r\n", b"te: trailers\r\nconnection: te\r\n"),
        (b"TE: gzip\r\nConnection: te\r\n", b""),
        (b"TE: trailersx, xtrailers\r\n", b""),
        (b"TE: trailers\r\nTE: trailers\r\n", b"te: trailers\r\nconnection: te\r\n"),
    ],
)
async def test_te(bench: Any, endpoint: Any, client_says: bytes, service_gets: bytes) -> None:
    """RFC 9110 10.1.4; other transfer codings are this hop's."""
    service = Service()
    gateway = await bench(await endpoint(service), **ON)
    client = await send(gateway, [NEXT.replace(b"Host: a\r\n", b"Host: a\r\n" + client_says)])
    await client.head()
    lines = [line + b"\r\n" for line in service.heads[0].split(b"\r\n") if line.startswith((b"te:", b"connection:"))]
    assert b"".join(lines) == service_gets


@pytest.mark.parametrize(("listener", "cluster"), [(True, False), (False, True), (False, False)])
async def test_te_is_dropped_where_trailers_are(bench: Any, endpoint: Any, listener: bool, cluster: bool) -> None:
    service = Service(BACK.replace(b"\r\n\r\n3", b"\r\ntrailer: x-c\r\n\r\n3"))
    gateway = await bench(await endpoint(service), listener={"trailers": listener}, cluster={"trailers": cluster})
    client = await send(gateway, [HEAD + b"te: trailers\r\ntrailer: x-a\r\n\r\n" + SENT])
    head = await client.head()
    assert b"\r\nte:" not in service.heads[0]
    assert (b"\r\ntrailer: x-a" in service.heads[0]) == (listener and cluster)
    assert (b"\r\ntrailer: x-c" in head) == listener


async def test_the_trailer_field_goes_only_with_chunks(bench: Any, endpoint: Any) -> None:
    announced = BACK.replace(b"\r\n\r\n3", b"\r\ntrailer: x-c\r\n\r\n3")
    service = Service(EMPTY.replace(b"content", b"trailer: x-c\r\ncontent"), announced)
    gateway = await bench(await endpoint(service), **ON)
    client = await send(gateway, [NEXT.replace(b"\r\n\r\n", b"\r\ntrailer: x-a\r\n\r\n")])
    assert b"trailer" not in await client.head()
    await client.send(HEAD + b"Trailer: x-a\r\n\r\n" + SENT)
    assert b"\r\ntrailer: x-c\r\n" in await client.head()
    assert [b"\r\ntrailer: x-a\r\n" in head for head in service.heads] == [False, True]


async def test_http_1_0_gets_none(bench: Any, endpoint: Any) -> None:
    gateway = await bench(await endpoint(Service(BACK)), **ON)
    client = await send(gateway, [b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"])
    assert (await client.rest()).endswith(b"connection: close\r\n\r\none")


REFUSED: dict[str, tuple[bytes, int]] = {
    "content-length": (b"content-length: 5\r\n", 400),
    "transfer-encoding": (b"transfer-encoding: chunked\r\n", 400),
    "obs-fold": (b"x: 1\r\n y\r\n", 400),
    "bare LF": (b"x: 1\ny: 2\r\n", 400),
    "NUL": (b"x: 1\0\r\n", 400),
    "a space before the colon": (b"x : 1\r\n", 400),
    "too large": (b"".join(b"x-%d: %s\r\n" % (i, b"a" * 4000) for i in range(20)), 431),
    "too many": (b"x: 1\r\n" * 150, 431),
    "one too long": (b"x: " + b"a" * 20000 + b"\r\n", 431),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("size", [7, 1 << 20])
async def test_hostile_trailers(bench: Any, endpoint: Any, case: str, size: int) -> None:
    """Refused, whatever is held of the body; nothing behind them is served."""
    section, status = REFUSED[case]
    service = Service()
    gateway = await bench(await endpoint(service), **ON)
    client = await send(gateway, [HEAD + b"\r\n", b"3\r\none\r\n"])
    try:
        for piece in cut(b"0\r\n" + section + b"\r\n" + NEXT, size):
            await client.send(piece)
    except ConnectionError:
        pass  # it has been answered by now
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head
    assert not service.sections
    assert not any(b"/next" in head for head in service.heads)


@pytest.mark.parametrize("name", [b"Cookie", b"Authorization", b"X-Forwarded-For", b"Content-Type", b"TE", b"Via"])
async def test_what_may_not_be_a_trailer_is_dropped(bench: Any, endpoint: Any, name: bytes) -> None:
    service = Service(BACK.replace(b"X-C: 3", name + b": evil"))
    gateway = await bench(await endpoint(service), **ON)
    client = await send(gateway, [HEAD + b"\r\n3\r\none\r\n0\r\n" + name + b": evil\r\nx-a: 1\r\nx-b: two\r\n\r\n"])
    assert b"evil" not in await client.head()
    assert await section_of(client) == b"\r\n"
    assert service.sections == [END]
    assert b"evil" not in service.heads[0]


@pytest.mark.parametrize("case", ["content-length", "obs-fold", "NUL", "too large", "too many"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_hostile_trailers_of_a_response(bench: Any, endpoint: Any, case: str, at_once: bool) -> None:
    """502 while nothing has been sent, else cut."""
    section = REFUSED[case][0] * (1 if case != "too many" else 3)

    start = BACK[: BACK.index(b"0\r\nX-C")]

    async def serve(peer: Peer) -> None:
        await peer.head()
        if not at_once:
            await peer.send(start)
            await peer.reader.readexactly(1)
        await peer.send(start * at_once + b"0\r\n" + section + b"\r\n")

    gateway = await bench(await endpoint(serve), **ON)
    client = await send(gateway, [HEAD + b"\r\n"])
    if at_once:
        head = await client.head()
        if head.startswith(b"HTTP/1.1 200"):  # the kernel has cut it after the head
            with pytest.raises((ConnectionError, EOFError)):
                await section_of(client)
        else:
            assert head.startswith(b"HTTP/1.1 502")
        return
    assert (await client.head()).startswith(b"HTTP/1.1 200")
    await client.send(b"3\r\none\r\n")
    with pytest.raises((ConnectionError, EOFError)):
        await section_of(client)


async def test_trailers_that_a_filter_wrote_wrong(bench: Any, endpoint: Any) -> None:
    service = Service(BACK)
    gateway = await bench(await endpoint(service), **ON)
    client = await send(gateway, [HEAD + b"\r\n3\r\none\r\n"])

    def smuggle(bench_: Bench) -> None:
        chain = bench_.chains.opened[-1]
        chain.request_trailers = lambda pairs: chain.outbox.append(SendRequestTrailers([(b"x-a", b"1\r\nx-b: 2")]))

    while not service.heads:
        await asyncio.sleep(0.01)
    smuggle(gateway)
    await client.send(b"0\r\nx-a: 1\r\n\r\n")
    assert (await client.head()).startswith(b"HTTP/1.1 503")
    assert not service.sections


@pytest.mark.parametrize("wrong", [(b"x-a", b"1\r\nx-b: 2"), (b"x a", b"1"), (b"", b"1"), (b":status", b"200"), (b"x", b"\0")])
async def test_response_trailers_that_a_filter_wrote_wrong(bench: Any, endpoint: Any, wrong: tuple[bytes, bytes]) -> None:
    def end(chain: Any, event: tuple[bytes, bool]) -> None:
        chain.outbox.append(SendResponseTrailers([wrong]))

    service = Service(BACK.replace(b"X-C: 3\r\n", b""))
    gateway = await bench(await endpoint(service), script={"response_data": end}, **ON)
    client = await send(gateway, [NEXT])
    with pytest.raises((ConnectionError, EOFError)):
        while True:
            await client.read(1)


async def test_trailers_behind_a_length_are_dropped(bench: Any, endpoint: Any) -> None:
    def end(chain: Any, event: tuple[bytes, bool]) -> None:
        chain.outbox.append(SendResponseTrailers([(b"x-a", b"1")]))

    sized = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    gateway = await bench(await endpoint(Service(sized)), script={"response_data": end}, **ON)
    client = await send(gateway, [NEXT])
    assert (await client.response())[1] == b""
    await client.send(NEXT)
    assert (await client.head()).startswith(b"HTTP/1.1 200")


async def test_an_early_answer_ends_what_trailers_would_have(bench: Any, endpoint: Any) -> None:
    """The response is over before the request's trailers come: nobody reads them, and the connection closes."""

    async def early(peer: Peer) -> None:
        await peer.head()
        await peer.send(EMPTY)
        await peer.closed.wait()

    gateway = await bench(await endpoint(early), **ON)
    client = await send(gateway, [HEAD + b"\r\n3\r\none\r\n"])
    assert b"connection: close" in await client.head()
    await client.send(b"0\r\nx-a: 1\r\n\r\n" + NEXT)
    assert await client.rest() == b""
