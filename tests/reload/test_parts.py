"""The parts of a reload by themselves."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.config.model import Config
from proxy.server import revision
from proxy.server.deadlines import Deadlines
from proxy.server.differences import differences, unchangeable
from proxy.server.reloading import told
from proxy.server.revision import Revision
from proxy.server.watched_files import signature, watched_files
from proxy.sharing.limits import Limits
from proxy.sharing.quarantine import SPARE, QuarantineBoard, Trap
from proxy.sharing.store import SharedStore
from tests.reload.test_generations import config_of, hello, reload, started

BASE: dict[str, Any] = {
    "listeners": [{"address": "127.0.0.1:8080"}],
    "clusters": [{"name": "a", "endpoints": ["127.0.0.1:1"]}],
    "routes": [{"match": {"prefix": "/"}, "cluster": "a"}],
}


def config(**sections: Any) -> Config:
    return Config.model_validate({**BASE, **sections})


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"listeners": [{"address": "127.0.0.1:8081"}]}, "listeners[0].address"),
        ({"listeners": [*BASE["listeners"], {"address": "127.0.0.1:8081"}]}, "listeners"),
        ({"listeners": [{"address": "127.0.0.1:8080", "trailers": True}]}, "listeners[0].trailers"),
        ({"workers": 2}, "workers"),
        ({"event_loop": "asyncio"}, "event_loop"),
        ({"admin": None}, "admin.address"),
        ({"admin": {"address": "127.0.0.1:1"}}, "admin.address"),
    ],
)
def test_what_needs_a_restart(changed: dict[str, Any], path: str) -> None:
    (problem,) = unchangeable(config(), config(**changed))
    assert (problem.path, problem.mend) == (path, "restart to change it")
    assert differences(config(), config(**changed))


def test_what_a_reload_changes_is_listed_by_name() -> None:
    new = config(
        clusters=[{"name": "b", "endpoints": ["127.0.0.1:2"]}, {"name": "a", "endpoints": ["127.0.0.1:3"]}],
        routes=[{"match": {"prefix": "/"}, "cluster": "a", "timeout": "30s"}],
        listeners=[{"address": "127.0.0.1:8080", "limits": {"body": "1MiB"}}],
    )
    assert unchangeable(config(), new) == []
    assert differences(config(), new) == [
        "listeners[0].limits.body: None -> 1MiB",
        "clusters[a].endpoints: ['127.0.0.1:1'] -> ['127.0.0.1:3']",
        "+ clusters[b]",
        "routes[0].timeout: 15s -> 30s",
    ]
    assert differences(new, new) == []


def test_a_config_is_told_as_the_gateway_tells_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`penstock diff` sends an absolute path, and the gateway may have been started with a relative one."""
    monkeypatch.chdir(tmp_path)
    asked = tmp_path / "site" / "gateway.yaml"
    assert told(asked, Path("site/gateway.yaml")) == Path("site/gateway.yaml")
    assert told(tmp_path.parent / "other.yaml", Path("gateway.yaml")) == Path("../other.yaml")
    assert told(asked, asked) == asked


def test_watched_files_are_those_that_a_config_names(tmp_path: Path) -> None:
    """Also of a config that is wrong, and of files that are not there."""
    (tmp_path / "filters.d").mkdir()
    (tmp_path / "filters.d" / "one.wasm").write_bytes(b"")
    (tmp_path / "filters.d" / "one.yaml").write_text("config: {key: '${file:one.secret}'}")
    file = tmp_path / "config.yaml"
    file.write_text(
        "filters_directory: filters.d\nnonsense: 1\nlisteners: [{tls: {certificate: c.pem, private_key: k.pem}}]\n"
        "filters: [{wasm: a.wasm, canary: {wasm: sub/b.wasm}, config: {token: '${file:t}'}}, {wasm: 'https://x/y.wasm'}]\n"
    )
    names = {str(path.relative_to(tmp_path)) for path in watched_files(file)}
    assert names >= {
        "config.yaml", "filters.d", "filters.d/one.wasm", "filters.d/one.yaml", "filters.d/one.secret", "c.pem", "k.pem",
        "a.wasm", "sub/b.wasm", "t",
    }  # fmt: skip
    assert not any("y.wasm" in name for name in names)
    before = signature(watched_files(file))
    (tmp_path / "a.wasm").write_bytes(b"x")
    assert signature(watched_files(file)) != before
    file.write_text("{")
    assert file in watched_files(file)


def test_a_revision_goes_to_another_process_without_a_file() -> None:
    fd = revision.new_memory()
    pid = os.fork()
    if not pid:
        made = config(listeners=[{"address": "127.0.0.1:9"}])
        revision.save(fd, Revision(7, made, {b"s": Limits(items=3)}, "f"), {"filters": bytes(1000)})
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    found = revision.load(fd)
    assert (found.number, found.config.__dict__, found.spaces) == (
        7, config(listeners=[{"address": "127.0.0.1:9"}]).__dict__, {b"s": Limits(items=3)},
    )  # fmt: skip
    assert revision.load_filters(fd) == {"filters": bytes(1000)}
    os.close(fd)


def test_filters_keep_their_quarantine_while_others_come_and_go() -> None:
    """In two processes' views: a board is looked at by workers whose lookups were made before the reload."""
    board = QuarantineBoard(["auth", "limit"], 2)
    board.note(1, "auth", Trap(1.0, "c", "trap", "m"))
    board.take_out(1, "auth", "reason")
    board.assign(["new", "auth"])
    assert board.names == ["new", "auth"]
    assert board.is_out("auth")
    assert not board.is_out("new")
    assert len(board.traps("auth")) == 1
    # Gone and back again: as it was.
    board.assign(["new"])
    assert board.names == ["new"]
    board.assign(["new", "auth"])
    assert board.is_out("auth")
    # So many others that its place is given away.
    board.take_out(0, "limit", "r")
    for number in range(SPARE + 1):
        board.assign(["new", "auth", f"other-{number}"])
    assert board.names == ["new", "auth", f"other-{SPARE}"]
    assert board.is_out("auth")
    assert not board.is_out("limit"), "it has lost its place"
    board.take_out(0, "limit", "an old generation's VM")
    assert not any(board.is_out(name) for name in (f"other-{SPARE}", "new"))
    assert board.traps(f"other-{SPARE}") == []
    with pytest.raises(ValueError):
        board.assign([str(number) for number in range(SPARE + 3)])


def test_spaces_come_after_the_workers(tmp_path: Path) -> None:
    store = SharedStore(1, {}, [tmp_path], spare=2)
    sharing = store.attach(0)
    store.extend({b"one": Limits()})
    sharing.extend(store.limits)
    sharing.space(b"one").set(b"k", b"v", 0)
    store.extend({b"two": Limits(), b"one": Limits()})
    sharing.extend(store.limits)
    assert sharing.space(b"two").get(b"k") is None
    assert sharing.space(b"one").get(b"k") == (b"v", 1)
    with pytest.raises(ValueError, match="room for 2"):
        store.extend({b"three": Limits()})
    sharing.close()
    store.close()


async def test_a_deadline_that_gets_shorter_or_longer() -> None:
    expired: list[str] = []
    deadlines = Deadlines(asyncio.get_running_loop())
    now = 100.0
    deadlines.clock = lambda: now
    queue = deadlines.queue(10.0, expired.append)
    queue.start("a")
    now = 105.0
    queue.start("b")
    queue.change(2.0)
    assert queue.due == {"a": 107.0, "b": 107.0}
    now = 106.0
    queue.start("c")
    queue.change(60.0)
    queue.start("d")
    queue.fire(108.5)
    assert expired == ["a", "b", "c"]
    assert queue.due == {"d": 166.0}
    deadlines.close()


async def test_certificates_are_read_again(tmp_path: Path) -> None:
    """Handshakes from then on have the new one; a connection that is open stays open."""

    def make(name: str) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")],
            check=True, capture_output=True,
        )  # fmt: skip

    async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        return reader, writer, writer.get_extra_info("ssl_object").getpeercert(binary_form=True)

    make("one")
    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    tls = {"certificate": str(tmp_path / "cert.pem"), "private_key": str(tmp_path / "key.pem")}
    listeners = [{"address": "127.0.0.1:0", "tls": tls}]
    gateway, port = await started(config_of(upstream, [], listeners=listeners))
    reader, writer, before = await connect(port)
    make("two")
    await reload(gateway, config_of(upstream, [], listeners=listeners))
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
    _, other, after = await connect(port)
    assert b"two" in after
    assert b"one" in before
    writer.close()
    other.close()
    await gateway.drain(1)
    server.close()
