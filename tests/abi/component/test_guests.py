"""The same small filter in C, Rust, Go, JavaScript and Python (filters/component-*), each built by its own toolchain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.chain.chains import FilterStartError
from tests import requires
from tests.abi.component import toolchains
from tests.server.fakes import replies

JSON = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n{"a":1}'
TEXT = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\n{as is}"
CONFIG = {"token": "sesame", "client": "ada"}
WITHOUT = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
WITH = b"GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sesame\r\n\r\n"

BUILDS: dict[str, Callable[[], Path]] = {
    "go": toolchains.go_filter,
    "rust": lambda: toolchains.RUST_FILTER,
    "c": lambda: toolchains.component_of(toolchains.C / "filter.c"),
    "javascript": toolchains.js_filter,
    "python": toolchains.python_filter,
}

pytestmark = [pytest.mark.usefixtures("compiled_here"), pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(params=BUILDS)
def wasm(request: pytest.FixtureRequest) -> str:
    with requires.toolchain():
        return str(BUILDS[request.param]())


@pytest.mark.parametrize("isolation", ["shared", "request"])
async def test_the_token_decides_and_the_body_is_edited(bench: Any, endpoint: Any, wasm: str, isolation: str) -> None:
    """Two requests of each kind: what an instance keeps must not reach the next."""
    server = await endpoint(replies(JSON, TEXT, JSON))
    filter_ = {"name": "f", "wasm": wasm, "config": CONFIG, "isolation": isolation}
    gateway = await bench(server, filters=[filter_])
    client = await gateway.client()
    for answer in (b'{"a":1,"checked":true}', b"{as is}", b'{"a":1,"checked":true}'):
        await client.send(WITHOUT)
        head, body = await client.response()
        assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert b"www-authenticate: Bearer\r\n" in head
        assert body == b"no valid token"
        await client.send(WITH)
        head, body = await client.response()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == answer
        assert b"x-client: ada\r\n" in server.heads[-1]
        assert b"authorization" not in server.heads[-1]
    assert len(server.heads) == 3
    plugin = gateway.gateway.generation.chains.plugins[0]
    assert plugin.version == "1.0.0"
    assert plugin.calls["on-request-body"].value == plugin.calls["on-log"].value == 0, "called, and not wanted"


async def test_what_is_no_json_object_stays_as_it_is(bench: Any, endpoint: Any, wasm: str) -> None:
    bodies = (b"[1]", b"null", b'"text"', b"{broken", b'{"a":\xff}', b"")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    server = await endpoint(replies(*(head % len(body) + body for body in bodies)))
    gateway = await bench(server, filters=[{"name": "f", "wasm": wasm, "config": CONFIG}])
    client = await gateway.client()
    for body in bodies:
        await client.send(WITH)
        assert (await client.response())[1] == body


@pytest.mark.parametrize("config", [{"client": "ada"}, {"token": ""}])
async def test_a_config_without_a_token_is_refused(bench: Any, endpoint: Any, wasm: str, config: Any) -> None:
    with pytest.raises(FilterStartError, match="filter f did not start: configure: the config has no token"):
        await bench(await endpoint(replies(JSON)), filters=[{"name": "f", "wasm": wasm, "config": config}])
