"""A gateway that cannot start leaves nothing behind: no thread, socket, timer, connection, or shared memory."""

import asyncio
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.abi.component import world
from proxy.abi.component.wrap import core_type
from proxy.chain.chains import FilterStartError
from proxy.config.model import Config
from proxy.server.assembly import make_gateway, open_sharing, prepare_filters
from proxy.server.listener import Listener
from tests.abi.component import wat
from tests.server.fakes import FakeTelemetry

REFUSES = "(i32.store8 (i32.const 64) (i32.const 1)) (i32.const 64)"


def config_of(tmp_path: Path, configure: str = "(i32.const 64)", **second: Any) -> Config:
    """Two listeners, and a filter that shares data."""
    wasm = tmp_path / "one.wasm"
    kv = world.interface("kv")
    get = f'(import "{kv}" "get" (func {core_type(world.IMPORTS[kv]["get"], lifted=False)}))'
    wasm.write_bytes(wat.component({"configure": configure}, more=get))
    return Config.model_validate({
        "listeners": [{"address": "127.0.0.1:0"}, {"address": "127.0.0.1:0", **second}],
        "clusters": [{"name": "service", "endpoints": ["127.0.0.1:9"]}],
        "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
        "filters": [{"name": "one", "wasm": str(wasm), "vm_id": "shared"}],
        "overload": {"memory": "8GiB"},
    })  # fmt: skip


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def descriptors() -> int:
    """Open ones, less the contents of modules that wasmtime keeps as long as their objects live."""
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return sum("wasm-memory-image" not in os.readlink(link) for link in links if link.is_symlink())


async def fails(config: Config, sockets: list[socket.socket]) -> BaseException:
    """Why the gateway did not start. Its tasks and timers are gone, its threads and descriptors as they were."""
    assert not prepare_filters(config)
    store = open_sharing(config, 1)
    assert store is not None
    loop: Any = asyncio.get_running_loop()
    threads, open_before = threading.active_count(), descriptors()
    gateway = make_gateway(config, FakeTelemetry(), 0)
    assert threading.active_count() > threads
    with pytest.raises(Exception) as raised:
        await gateway.start(sockets)
    gone = sum(sock.fileno() == -1 for sock in sockets)
    assert (threading.active_count(), descriptors()) == (threads, open_before - gone)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [timer for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()] == []
    store.close()
    return raised.value


@pytest.mark.parametrize("connected", [False, True])
async def test_a_listener_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: bool) -> None:
    """The second one has a certificate that is none; the first has served by then."""
    pem = tmp_path / "tls.pem"
    pem.write_text("no certificate")
    config = config_of(tmp_path, tls={"certificate": str(pem), "private_key": str(pem)})
    first, second = listening(), listening()
    address = first.getsockname()
    clients: list[asyncio.StreamReader] = []
    start = Listener.start

    async def serve(listener: Listener, sock: socket.socket) -> None:
        await start(listener, sock)
        if connected:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\n")
            clients.append(reader)
            while not listener.open:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(Listener, "start", serve)
    error = await fails(config, [first, second])
    assert isinstance(error, OSError)
    assert first.fileno() == -1
    for client in clients:
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(client.read(), 5) == b""
    clients.clear()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    second.close()


async def test_a_filter_that_refuses(tmp_path: Path) -> None:
    sockets = [listening(), listening()]
    error = await fails(config_of(tmp_path, REFUSES), sockets)
    assert isinstance(error, FilterStartError)
    for sock in sockets:
        assert sock.fileno() != -1, "they are the caller's until their listeners have started"
        sock.close()


async def test_another_one_starts_where_one_failed(tmp_path: Path) -> None:
    """What is left would be in its way: the engine, the spaces, the addresses."""
    sockets = [listening(), listening()]
    await fails(config_of(tmp_path, REFUSES), sockets)
    config = config_of(tmp_path)
    assert not prepare_filters(config)
    store = open_sharing(config, 1)
    assert store is not None
    gateway = make_gateway(config, FakeTelemetry(), 0)
    await gateway.start(sockets)
    assert gateway.state()["filters"]["one"]["state"] == "ready"
    await gateway.drain(0.1)
    store.close()
