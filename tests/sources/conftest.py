"""Sources on loopback: an https server and a real registry (Debian's docker-registry), under an authority of their own."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import wasmtime
import yaml

from proxy.config.load import load
from proxy.config.model import Config
from tests import requires

# htpasswd -nbBC 4 reader reader-password
LOGIN = ("reader", "reader-password")
HTPASSWD = "reader:$2b$04$4xKX3Hk7jkfj9lSxfSlgz.d3e2ZachOF7zdl6cDw.73mT9iWiWzeS\n"


def module(*imports: str, mark: str = "") -> bytes:
    """A filter that does nothing, and imports these host functions, all (i32, i32, i32) -> i32. `mark` makes it another one."""
    text = "".join(f'(import "env" "{name}" (func (param i32 i32 i32) (result i32)))' for name in imports)
    return bytes(
        wasmtime.wat2wasm(
            f"""(module {text} (memory (export "memory") 1) (data (i32.const 0) "{mark}")
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024)))"""
        )
    )


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest(name: str = "one", version: str = "1.0.0", **grants: object) -> bytes:
    return yaml.safe_dump({"name": name, "version": version, "grants": grants}).encode()


@dataclass
class Certificates:
    authority: Path
    chain: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    requires.module("trustme", "pip install trustme")
    import trustme

    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "chain.pem"))
    return Certificates(folder / "ca.pem", folder / "chain.pem")


@dataclass
class Site:
    """Files by path, or a status, or where to redirect; `asked`: the paths, in order."""

    port: int
    files: dict[str, bytes | int | str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    """Statuses by path, the last."""
    behave: Callable[[Any], bool] | None = None
    """Answers instead, if it gives True."""

    def url(self, path: str) -> str:
        return f"https://localhost:{self.port}{path}"


@pytest.fixture
def site(certificates: Certificates) -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            site.asked.append(path)
            if site.behave is not None and site.behave(self):
                return
            found = site.files.get(path, 404)
            if isinstance(found, str):
                self.answer(path, 302, b"", location=found)
            elif isinstance(found, int):
                self.answer(path, found, b"")
            elif self.headers.get("if-none-match") == f'"{sha(found)}"':
                self.answer(path, 304, b"")
            else:
                self.answer(path, 200, found, etag=f'"{sha(found)}"')

        def answer(self, path: str, status: int, body: bytes, **headers: str) -> None:
            site.sent[path] = status
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is no news."""

        def finish_request(self, request: Any, address: Any) -> None:
            request.settimeout(10)
            with context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, address)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.chain)
    server = Server(("127.0.0.1", 0), Handler)
    site = Site(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Registry:
    """A docker-registry that runs. `address` is its host:port."""

    address: str
    authority: Path
    login: tuple[str, str] | None

    def push(self, name: str, module: bytes, signature: bytes | None = None, asks: bytes | None = None) -> str:
        """By oras, as its users do; gives the manifest's digest."""
        import oras.client

        client = oras.client.OrasClient(self.address, tls_verify=str(self.authority), auth_backend="basic")
        if self.login is not None:
            client.auth.set_basic_auth(*self.login)
        parts = {
            "x.wasm:application/wasm": module,
            "x.wasm.sig:application/vnd.penstock.signature.v1+json": signature,
            "filter.yaml:application/vnd.penstock.manifest.v1+yaml": asks,
        }
        folder = self.authority.parent / "push"
        folder.mkdir(exist_ok=True)
        files = []
        for key, data in parts.items():
            if data is not None:
                file, _, kind = key.partition(":")
                (folder / file).write_bytes(data)
                files.append(f"{folder / file}:{kind}")
        response = client.push(target=f"{self.address}/{name}", files=files, disable_path_validation=True)
        assert response.status_code == 201
        return str(response.headers["Docker-Content-Digest"])


def start_registry(folder: Path, certificates: Certificates, login: bool) -> tuple[Registry, subprocess.Popen[bytes]]:
    requires.command("docker-registry")
    requires.module("oras", "pip install oras")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"inmemory": {}},
        "http": {
            "addr": f"127.0.0.1:{port}",
            "secret": "only for tests",
            "tls": {"certificate": str(certificates.chain), "key": str(certificates.chain)},
        },
    }
    if login:
        (folder / "htpasswd").write_text(HTPASSWD)
        settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    (folder / "registry.yml").write_text(json.dumps(settings))
    with (folder / "registry.log").open("wb") as output:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "registry.yml")], stdout=output, stderr=output)
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, (folder / "registry.log").read_text()
        time.sleep(0.02)
    return Registry(f"localhost:{port}", certificates.authority, LOGIN if login else None), process


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


@pytest.fixture
def registry(tmp_path: Path, certificates: Certificates) -> Iterator[Registry]:
    registry, process = start_registry(tmp_path, certificates, login=False)
    try:
        yield registry
    finally:
        stop(process)


@pytest.fixture
def closed_registry(tmp_path: Path, certificates: Certificates) -> Iterator[Registry]:
    """One that asks who is there."""
    registry, process = start_registry(tmp_path, certificates, login=True)
    try:
        yield registry
    finally:
        stop(process)


Make = Callable[..., Config]


@pytest.fixture
def make(tmp_path: Path, certificates: Certificates) -> Make:
    """A config with these filters, loaded from a file; loopback sources are allowed unless `sources` says otherwise."""

    def make(*filters: Mapping[str, object], sources: Mapping[str, object] | None = None, **rest: object) -> Config:
        own = {"allowed_networks": ["127.0.0.0/8", "::1/128"], "ca": str(certificates.authority), "store": "store"}
        path = tmp_path / "gateway.yaml"
        path.write_text(
            yaml.safe_dump({
                "listeners": [{"address": "127.0.0.1:0"}],
                "clusters": [{"name": "service", "endpoints": ["127.0.0.1:9"]}],
                "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
                "filters": [{"name": "one", **one} for one in filters],
                "sources": {**own, **(sources or {})},
                "admin": None,
                **rest,
            })
        )  # fmt: skip
        return load(path)

    return make
