"""The demo service: each of its paths, through a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from proxy import demo


@pytest.fixture
async def service() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a demo service on a port of its own."""
    runner = await demo.start(port=0)
    host, port = runner.addresses[0]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        yield session
    await runner.cleanup()


async def test_page_shows_the_request_escaped(service: aiohttp.ClientSession) -> None:
    """The page names the user and lists headers, and what a client sends cannot become markup."""
    async with service.get("/?q=1", headers={"x-auth-user": "<b>ada", "x-one": "1&2"}) as response:
        text = await response.text()
    assert response.content_type == "text/html"
    assert "User: &lt;b&gt;ada" in text
    assert "GET /?q=1\n" in text
    assert "x-one: 1&amp;2" in text


async def test_headers_keeps_repeats(service: aiohttp.ClientSession) -> None:
    """/headers answers with every field, repeated ones too."""
    async with service.post("/headers", headers=[("x-a", "1"), ("x-a", "2")]) as response:
        answer = await response.json()
    assert answer["method"] == "POST"
    assert [pair for pair in answer["headers"] if pair[0] == "x-a"] == [["x-a", "1"], ["x-a", "2"]]


@pytest.mark.parametrize("body", [b"", b"hello", b"x" * 3_000_000])
async def test_echo(service: aiohttp.ClientSession, body: bytes) -> None:
    """/echo answers with what was sent, larger than any buffer too."""
    async with service.post("/echo", data=body, headers={"content-type": "text/x"}) as response:
        assert (await response.read(), response.content_type) == (body, "text/x")


async def test_stream_comes_in_chunks(service: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """/stream is chunked and complete."""
    monkeypatch.setattr(demo, "STREAM_PAUSE", 0.0)
    async with service.get("/stream") as response:
        text = await response.text()
    assert response.headers["transfer-encoding"] == "chunked"
    assert text.splitlines() == [f"line {number} of 10" for number in range(1, 11)]


@pytest.mark.parametrize("count", [0, 1, 65536, 200_001])
async def test_bytes(service: aiohttp.ClientSession, count: int) -> None:
    """/bytes/N is N bytes long and says so."""
    async with service.get(f"/bytes/{count}") as response:
        assert (len(await response.read()), response.content_length) == (count, count)


@pytest.mark.parametrize(
    ("path", "status"), [("/status/204", 204), ("/status/503", 503), ("/status/600", 404), ("/status/100", 404)]
)
async def test_status(service: aiohttp.ClientSession, path: str, status: int) -> None:
    """/status/N answers with N; other numbers are no path of it."""
    async with service.get(path) as response:
        assert response.status == status


@pytest.mark.parametrize(("path", "status"), [("/delay/0.01", 200), ("/delay/1000000", 404), ("/delay/x", 404)])
async def test_delay(service: aiohttp.ClientSession, path: str, status: int) -> None:
    """/delay/S answers after S seconds."""
    async with service.get(path) as response:
        assert response.status == status


async def test_delay_is_bounded(service: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer delay than allowed is cut to what is."""
    monkeypatch.setattr(demo, "LARGEST_DELAY", 0.01)
    async with service.get("/delay/900") as response:
        assert await response.text() == "waited 0.01 s\n"


@pytest.mark.parametrize("address", ["", "9000", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"])
def test_run_refuses_what_is_no_address(address: str) -> None:
    """A malformed address is a ValueError that shows it."""
    with pytest.raises(ValueError, match="is not an address"):
        demo.run(address)


async def test_start_reports_a_taken_port() -> None:
    """A second service on the same port is an OSError."""
    runner = await demo.start(port=0)
    with pytest.raises(OSError, match="in use"):
        await demo.start(port=runner.addresses[0][1])
    await runner.cleanup()
