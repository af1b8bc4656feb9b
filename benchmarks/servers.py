"""The processes of a comparison: the upstream, the real Envoy, Penstock. Each has a port, a root pid and a stop."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.conformance.envoy import Envoy, EnvoyError, EnvoyFilter

HERE = Path(__file__).parent
ROOT = HERE.parent
COMMAND = (sys.executable, "-m", "proxy", "run")


class ServerError(Exception):
    """A server did not start; the message says what it printed."""


class Server(Protocol):
    """What a comparison needs of a server."""

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""

    @property
    def pid(self) -> int:
        """The root of its process tree."""

    def stop(self) -> None:
        """Ends it."""


def compiler() -> list[str] | None:
    """A C compiler's command for this machine: the system's, else ziglang's; None without either."""
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    return None


def build_upstream(directory: Path) -> Path:
    """Compiles the upstream into the directory."""
    binary = directory / "upstream"
    command = compiler()
    if command is None:
        raise ServerError("no C compiler for the upstream: apt install gcc, or pip install ziglang==0.17.0")
    subprocess.run([*command, "-O2", "-o", binary, HERE / "upstream.c"], check=True)
    return binary


@dataclass(slots=True)
class Upstream:
    """The compiled upstream; it ends when its stdin closes, so it can't outlive us."""

    process: subprocess.Popen[bytes]
    port: int

    @classmethod
    def start(cls, binary: Path, launcher: Sequence[str]) -> Upstream:
        """Starts it on a free port."""
        process = subprocess.Popen([*launcher, str(binary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ServerError("the upstream did not start")
        return cls(process, int(line))

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def stop(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


@dataclass(slots=True)
class EnvoyServer:
    """The real Envoy with `count` copies of the filter, each in a VM of its own, one worker, logs off."""

    envoy: Envoy

    @classmethod
    def start(cls, wasm: Path, configuration: bytes, count: int, upstream: int, launcher: Sequence[str]) -> EnvoyServer:
        """Starts it. Raises ServerError."""
        chain = [EnvoyFilter(wasm, configuration, name=f"bench-{index}") for index in range(count)]
        envoy = Envoy(chain, {"service": upstream}, log_level="off", launcher=launcher)
        try:
            envoy.start()
        except EnvoyError as error:
            raise ServerError(str(error)) from None
        return cls(envoy)

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


@dataclass(slots=True)
class PenstockServer:
    """`python -m proxy run` with `count` copies of the filter, one worker, access log off."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path = field(default_factory=Path)

    @classmethod
    def start(
        cls,
        wasm: Path,
        configuration: bytes,
        count: int,
        upstream: int,
        launcher: Sequence[str],
        command: Sequence[str] = COMMAND,
        timeout: float = 60.0,
    ) -> PenstockServer:
        """Starts it on a free port and waits (seconds) until it answers. Raises ServerError."""
        directory = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        port = free_port()
        config = directory / "penstock.yaml"
        # JSON is YAML: nothing to quote by hand.
        config.write_text(json.dumps(configuration_of(wasm, configuration, count, upstream, port), indent=1))
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [*launcher, *command, str(config)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        server = cls(process, port, directory)
        deadline = time.monotonic() + timeout
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                said = (directory / "log").read_text(errors="replace")[-2000:]
                server.stop()
                raise ServerError(f"penstock did not start:\n{said}")
            time.sleep(0.05)
        return server

    @property
    def pid(self) -> int:
        """The supervisor; its workers are its children."""
        return self.process.pid

    def stop(self) -> None:
        """Ends it: SIGTERM, and SIGKILL if it does not heed it within 5 s."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def configuration_of(wasm: Path, configuration: bytes, count: int, upstream: int, port: int) -> dict[str, object]:
    """Penstock's config: one worker, everything else at its default but the access log, as Envoy has none here."""
    chain = [
        {
            "name": f"bench-{index}",
            "wasm": str(wasm.absolute()),
            **({"config": configuration.decode()} if configuration else {}),
        }
        for index in range(count)
    ]
    return {
        "listeners": [{"address": f"127.0.0.1:{port}"}],
        "clusters": [{"name": "service", "endpoints": [f"127.0.0.1:{upstream}"]}],
        "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
        "filters": chain,
        "admin": None,
        "workers": 1,
        "log": {"access": False},
    }


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether a GET gets a 200."""
    return fetch(port)[0] == 200


def fetch(port: int) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status (0 if nobody answers), headers and body of a small GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/hello?name=world", headers={"user-agent": "penstock-bench/1"})
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    except (OSError, http.client.HTTPException):
        return 0, [], b""
    finally:
        connection.close()
