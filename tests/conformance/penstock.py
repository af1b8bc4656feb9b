"""Runs the real gateway in this process: the other side of the conformance suite, with the face of `envoy.Envoy`.

`Penstock` validates a generated config, compiles its filters and starts a `Gateway` in the running event loop, with real
sockets, as a worker does; only the supervisor and its forks are left out. The log is the process's JSON log, read as it
is written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Self

from proxy.config.model import Config
from proxy.server import assembly
from proxy.server.gateway import Gateway
from proxy.server.sockets import bound_address, open_sockets
from proxy.sharing.store import SharedStore
from proxy.telemetry import logging as logs
from proxy.telemetry.stream import StreamInfo
from proxy.telemetry.telemetry import Telemetry
from proxy.telemetry.writer import Writer
from tests.conformance.envoy import AccessLine, EnvoyFilter


class PenstockError(Exception):
    """The gateway could not be started; the message says why."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a filter's `proxy_log`."""

    filter: str
    callback: str
    level: str
    message: str


class LogTap(Writer):
    """Where the process's log goes while gateways run: filters' lines to the gateway that has the filter."""

    active: ClassVar[LogTap | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.gateways: dict[str, Penstock] = {}
        self.other: list[dict[str, Any]] = []
        self.before = (logs.output.writer, logs.output.level, logs.output.json)

    @classmethod
    def install(cls) -> LogTap:
        if cls.active is None:
            cls.active = cls()
            logs.configure("info", "json", cls.active)
        return cls.active

    def remove(self) -> None:
        if not self.gateways:
            writer, level, as_json = self.before
            logs.configure(
                {10: "debug", 20: "info", 30: "warning"}.get(level, "error"), "json" if as_json else "console", writer
            )
            LogTap.active = None

    def write(self, line: str) -> None:
        fields = json.loads(line)
        gateway = self.gateways.get(fields.get("filter", ""))
        if gateway is None:
            self.other.append(fields)
        elif fields["event"] == "filter_log":
            gateway.lines.append(LogLine(fields["filter"], fields["callback"], fields["level"], fields["message"]))
        else:
            gateway.events.append(fields)

    def flush(self) -> None:
        """Lines are not kept."""


class Accesses:
    """In the place of the access log: keeps what it is told."""

    def __init__(self, lines: list[AccessLine]) -> None:
        self.lines = lines

    def write(self, info: StreamInfo, duration: float) -> None:
        self.lines.append(AccessLine(info.status, info.details, info.flags, info.cluster_name, info.bytes_sent))


@dataclass(slots=True)
class Penstock:
    """One gateway with one listener; `filters`, `clusters` and `routes` as for `Envoy`. Filters' names must be unique among
    the gateways that run at one time. `filter_options`, `listener_options` and `route_options` are merged into the config's
    sections of those names."""

    filters: Sequence[EnvoyFilter] = ()
    clusters: Mapping[str, int] = field(default_factory=dict)
    routes: Sequence[tuple[str, str]] = (("/", "service"),)
    filter_options: Mapping[str, Any] = field(default_factory=dict)
    listener_options: Mapping[str, Any] = field(default_factory=dict)
    route_options: Mapping[str, Any] = field(default_factory=dict)
    trailers: bool = False
    """Passed on by the listener and the clusters."""
    port: int = 0
    lines: list[LogLine] = field(default_factory=list)
    """What the filters logged, in order; the start included."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """The gateway's own lines about the filters."""
    accesses: list[AccessLine] = field(default_factory=list)
    gateway: Gateway | None = None
    tap: LogTap | None = None
    store: SharedStore | None = None

    async def __aenter__(self) -> Self:
        self.tap = LogTap.install()
        config = Config.model_validate(self.config())
        self.tap.gateways.update(dict.fromkeys(self.names, self))
        problems = await asyncio.to_thread(assembly.prepare_filters, config)
        if problems:
            self.forget()
            raise PenstockError("\n".join(map(str, problems)))
        telemetry = Telemetry(access=False)
        telemetry.access = Accesses(self.accesses)  # type: ignore[assignment]
        self.store = assembly.open_sharing(config, 1)
        gateway = assembly.make_gateway(config, telemetry, 0)
        (sock,) = open_sockets("127.0.0.1:0", 1)
        try:
            await gateway.start([sock])
        except BaseException as error:
            sock.close()
            gateway.first[0].close()  # a worker would end, and with it the engine and its thread
            if gateway.joint is not None:
                gateway.joint.close()
            if self.store is not None:
                self.store.close()
            assembly.prepared.pop(id(config), None)
            assembly.stores.pop(id(config), None)
            self.forget()
            raise PenstockError(str(error)) from error
        self.port = int(bound_address(sock).rpartition(":")[2])
        self.gateway = gateway
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.gateway is not None:
            await self.gateway.drain(0.05)
            assembly.prepared.pop(id(self.gateway.config), None)
            assembly.stores.pop(id(self.gateway.config), None)
        if self.store is not None:
            self.store.close()
        self.forget()

    def forget(self) -> None:
        assert self.tap is not None
        for name in self.names:
            self.tap.gateways.pop(name, None)
        self.tap.remove()

    @property
    def names(self) -> list[str]:
        return [filter_.name or f"f{index}" for index, filter_ in enumerate(self.filters)]

    def metrics(self) -> dict[str, int]:
        """The counters and gauges that filters defined, by the names in which Penstock shows them."""
        assert self.gateway is not None
        found: dict[str, int] = {}
        for plugin in self.gateway.generation.chains.plugins:  # type: ignore[attr-defined]
            plugin.metrics.refresh()
            for (kind, name), cell in plugin.metrics.defined.items():
                if kind < 2:
                    found[name] = found.get(name, 0) + int(plugin.metrics.shown[cell].value)
        return found

    def config(self) -> dict[str, Any]:
        """The config as its YAML would be read. Everything that Penstock adds to heads by itself is off."""
        return {
            "listeners": [
                {
                    "address": "127.0.0.1:0",
                    "via": None,
                    "forwarded": "off",
                    "request_id": "off",
                    "limits": {"line": "16KiB", "field": "16KiB", "head": "60KiB"},
                    "trailers": self.trailers,
                    **self.listener_options,
                }
            ],
            "clusters": [
                {"name": name, "endpoints": [f"127.0.0.1:{port}"], "trailers": self.trailers}
                for name, port in self.clusters.items()
            ],
            "routes": [
                {"name": f"to-{name}", "match": {"prefix": prefix}, "cluster": name, **self.route_options}
                for prefix, name in self.routes
            ],
            "filters": [self.filter(name, filter_) for name, filter_ in zip(self.names, self.filters, strict=True)],
            "admin": None,
            "shutdown_grace": "1s",
            "log": {"format": "json"},
        }

    def filter(self, name: str, filter_: EnvoyFilter) -> dict[str, Any]:
        """One entry of `filters`."""
        options = dict(self.filter_options)
        limits = {"log_lines": "1000000/s", "log_line": "8KiB", "pause": "30s", "calls": 64, **options.pop("limits", {})}
        capabilities = {"allowed_hosts": [f"cluster:{name}" for name in self.clusters], **options.pop("capabilities", {})}
        return {
            "name": name,
            "wasm": str(filter_.wasm),
            "config": filter_.configuration.decode("utf-8"),
            "root_id": filter_.root_id,
            "vm_id": filter_.vm_id,
            "vm_config": filter_.vm_configuration.decode("utf-8"),
            "on_failure": "open" if filter_.fail_policy == "open" else "closed",
            "allow_on_headers_stop_iteration": bool(filter_.allow_on_headers_stop_iteration),
            "limits": limits,
            "capabilities": capabilities,
            "deadline": "1s",
            **options,
        }
