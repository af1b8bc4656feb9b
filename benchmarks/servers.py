"""The processes of a comparison: the upstream and the proxies. Each has a port, a root pid and a stop; peers.py says which
proxies there are and how each is configured."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from proxy.kit.ending import end

HERE = Path(__file__).parent
ROOT = HERE.parent


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


class Started(Server, Protocol):
    """A proxy under test."""

    @property
    def seconds(self) -> float:
        """From the start of its process to its first answer."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One filter of a chain: a file, its configuration, whether it may call the service's cluster, and whether a callback
    of it takes more than Penstock's default fuel."""

    wasm: Path
    configuration: str = ""
    calls: bool = False
    hungry: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """What a proxy under test is to do: pass everything on to 127.0.0.1:`upstream`, through these filters. It has started
    when `path` is answered."""

    upstream: int
    filters: tuple[Plugin, ...] = ()
    workers: int = 1
    path: str = "/hello?name=world"


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
class ProcessServer:
    """A proxy started from a command, with a directory of its own."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path
    seconds: float = 0.0

    @classmethod
    def start(
        cls,
        name: str,
        command: Callable[[Path, int], Sequence[str]],
        launcher: Sequence[str] = (),
        path: str = "/",
        timeout: float = 60.0,
    ) -> ProcessServer:
        """Starts what `command` (directory, port) returns, and waits (seconds) until it answers a GET of `path`.

        Raises ServerError.
        """
        directory = Path(tempfile.mkdtemp(prefix=f"penstock-bench-{name}-"))
        port = free_port()
        words = [*launcher, *command(directory, port)]
        started = time.monotonic()
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                words,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        server = cls(process, port, directory)
        try:
            while not answers(port, path):
                if process.poll() is not None or time.monotonic() - started > timeout:
                    said = (directory / "log").read_text(errors="replace")[-2000:]
                    raise ServerError(f"{name} did not start:\n{said}")
                time.sleep(0.01)
        except BaseException:
            server.stop()
            raise
        server.seconds = time.monotonic() - started
        return server

    @property
    def pid(self) -> int:
        """The process; it may have children."""
        return self.process.pid

    def stop(self) -> None:
        """Ends it: SIGTERM, and SIGKILL if it does not heed it within 5 s."""
        end(self.process, 5.0)
        shutil.rmtree(self.directory, ignore_errors=True)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, path: str) -> bool:
    """Whether a GET gets an answer that is not the proxy's own word for "not ready"."""
    return fetch(port, path)[0] not in (0, 502, 503)


def fetch(
    port: int, path: str = "/hello?name=world", headers: Sequence[tuple[str, str]] = ()
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status (0 if nobody answers), headers and body of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"user-agent": "penstock-bench/1", **dict(headers)})
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    except (OSError, http.client.HTTPException):
        return 0, [], b""
    finally:
        connection.close()
