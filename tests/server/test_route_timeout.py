"""`timeout: 0` on a route: no limit to how long an answer may take, as in Envoy; silence still has one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.config.load import load
from proxy.server.deadlines import NoDeadline
from tests.server.fakes import Peer

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def slow(peer: Peer) -> None:
    await peer.head()
    await asyncio.sleep(0.8)
    await peer.send(HELLO)


@pytest.mark.parametrize(("timeout", "status"), [("300ms", b"504"), ("0s", b"200")])
async def test_an_answer_may_take_any_time(bench: Any, endpoint: Any, timeout: str, status: bytes) -> None:
    gateway = await bench(await endpoint(slow), route={"timeout": timeout})
    head, _ = await gateway.ask(GET)
    assert head.startswith(b"HTTP/1.1 " + status)


async def test_silence_ends_it_all_the_same(bench: Any, endpoint: Any) -> None:
    gateway = await bench(await endpoint(slow), route={"timeout": "0s", "idle_timeout": "300ms"})
    head, _ = await gateway.ask(GET)
    assert head.startswith(b"HTTP/1.1 408")
    (route,) = gateway.gateway.generation.routes.values()
    assert isinstance(route.deadlines, NoDeadline)


@pytest.mark.parametrize("written", ["0", "0s", '"0"', "0ms"])
def test_how_it_is_written(tmp_path: Path, written: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"""
listeners: [{{address: 127.0.0.1:0}}]
clusters: [{{name: service, endpoints: [127.0.0.1:9]}}]
routes: [{{match: {{prefix: /}}, cluster: service, timeout: {written}}}]
""")
    config = load(file)
    assert config.routes[0].timeout == 0
    assert config.routes[0].redacted()["timeout"] == "0s"
