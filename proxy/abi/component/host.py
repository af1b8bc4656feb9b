"""What a component imports, answered by the gateway. Every call is charged fuel for the time that it takes in Python."""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from proxy.abi.component import world
from proxy.abi.component.changed import ChangedInstance
from proxy.abi.component.instance import Instance
from proxy.abi.component.properties import property_text
from proxy.abi.component.values import content, data_of
from proxy.abi.component.worlds import World
from proxy.abi.services import CallRefusedError
from proxy.abi.settings import LEVEL_NUMBERS, LEVELS
from proxy.sharing.status import SharingError, Status
from proxy.telemetry.logging import limited
from proxy.telemetry.metrics import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from proxy.abi.component.plugin import Configured
    from proxy.abi.component.stream import ComponentStream

log = structlog.get_logger("filter")

CALL_FUEL: Final = 12_000
"""Fuel for one call: about what its microseconds would have cost in guest code."""
BYTE_FUEL: Final = 1
SLOW_CALL_FUEL: Final = 200_000
"""For what takes a lock or starts something."""

MOST_METRIC_NAME: Final = 512


HostFunction = Callable[..., Any]


class Host:
    """Answers one filter's instances. `running` is the configuration whose instance runs, `stream` the stream that it runs
    for; None: it starts."""

    now: Callable[[], int] = staticmethod(time.time_ns)
    """Nanoseconds since 1970."""
    monotonic: Callable[[], int] = staticmethod(time.monotonic_ns)
    random_bytes: Callable[[int], bytes] = staticmethod(os.urandom)
    instance_of: Callable[..., Instance] = Instance
    """Makes the instances that are answered, with an Instance's arguments."""

    def __init__(self, served: World) -> None:
        self.running: Configured | None = None
        self.stream: ComponentStream | None = None
        self.instance: Instance | None = None
        self.callback = ""
        self.metrics: dict[tuple[str, str], Counter | Gauge | Histogram] = {}
        if served.changes:
            self.instance_of = partial(ChangedInstance, self, served)
        own: dict[str, dict[str, Callable[..., Any]]] = {
            "types": {},
            "logging": {"log": self.log},
            "config": {"get": self.config_get},
            "kv": {"get": self.kv_get, "set": self.kv_set},
            "http-client": {"send": self.send},
            "metrics": {
                "counter-add": self.counter_add,
                "gauge-set": self.gauge_set,
                "histogram-record": self.histogram_record,
            },
            "properties": {"get": self.property},
            "clock": {"now-ns": self.clock_now, "monotonic-ns": self.clock_monotonic},
            "random": {"get-u64": self.random_number},
        }
        for (interface, name), answer in served.answers.items():
            own.setdefault(interface, {})[name] = partial(answer, self)
        self.functions = {
            (interface, name): own[interface.partition("@")[0].partition("/")[2]][name]
            for interface, found in served.imports.items()
            for name in found
        }

    def charge(self, fuel: int) -> None:
        if self.instance is not None:
            self.instance.store.charge(fuel)

    @property
    def configured(self) -> "Configured":
        assert self.running is not None  # set before any instance is entered
        return self.running

    def refused(self, function: str, status: str, reason: str) -> None:
        """Count a call that was not done, and say why at level debug, for the filter's author."""
        plugin = self.configured.plugin
        plugin.count_error(function, status)
        if not limited(("host_call_refused", plugin.name), 10):
            log.debug("host_call_refused", filter=plugin.name, function=function, status=status, reason=reason)

    # ---- logging ----

    def log(self, level: int, message: bytes) -> None:
        plugin = self.configured.plugin
        settings = plugin.settings
        self.charge(CALL_FUEL + BYTE_FUEL * len(message))
        if level < LEVEL_NUMBERS[settings.log_level]:
            return
        text = message[: settings.log_line].decode("utf-8", "backslashreplace")
        if self.stream is None:
            plugin.last_lines = [*plugin.last_lines[-9:], text]
        if not plugin.lines.take():
            plugin.instruments.log_lines_dropped.value += 1
            return
        fields = {"filter": plugin.name, "callback": self.callback, "message": text}
        if self.stream is not None:
            fields["request_id"] = self.stream.stream.info.request_id
        getattr(log, LEVELS[level])("filter_log", **fields)

    # ---- config ----

    def config_get(self, key: bytes) -> bytes | None:
        self.charge(CALL_FUEL)
        value = self.configured.keys.get(key.decode())
        if value is None:
            return None
        self.charge(BYTE_FUEL * len(value))
        return value

    # ---- kv ----

    def kv_get(self, key: bytes) -> tuple[bool, Any]:
        self.charge(SLOW_CALL_FUEL)
        space = self.configured.plugin.slot.space
        if space is None:
            return self.kv_refused("get", "nothing is shared here")
        try:
            found = space.get(key)
        except SharingError as error:
            return self.kv_refused("get", str(error))
        if found is None:
            return True, None
        value, version = found
        self.charge(BYTE_FUEL * len(value))
        return True, (data_of(value), version)

    def kv_set(self, key: bytes, value: tuple[int, bytes], version: int | None) -> tuple[bool, Any]:
        self.charge(SLOW_CALL_FUEL)
        space = self.configured.plugin.slot.space
        if space is None:
            return self.kv_refused("set", "nothing is shared here")
        try:
            status = space.set(key, content(value), version or 0)
        except SharingError as error:
            return self.kv_refused("set", str(error))
        return (False, (world.CONFLICT, None)) if status is Status.CAS_MISMATCH else (True, None)

    def kv_refused(self, function: str, reason: str) -> tuple[bool, Any]:
        self.refused(f"kv.{function}", "InternalFailure", reason)
        return False, (world.REFUSED, reason.encode())

    # ---- http-client ----

    def send(self, request: tuple[bytes, list[tuple[bytes, bytes]], tuple[int, bytes] | None, int]) -> tuple[bool, Any]:
        self.charge(SLOW_CALL_FUEL)
        upstream, headers, body, milliseconds = request
        reason = "calls are made only for a stream"
        if self.stream is not None:
            head = [(name.lower(), value) for name, value in headers]
            try:
                data = b"" if body is None else content(body)
                return True, self.stream.send(upstream.decode(), head, data, milliseconds / 1000)
            except CallRefusedError as error:
                reason = error.reason
        self.refused("http-client.send", "BadArgument", reason)
        return False, reason.encode()

    # ---- metrics ----

    def metric(self, kind: str, name: bytes) -> Any | None:
        """The filter's metric, made at its first use; None: it may have no more."""
        self.charge(CALL_FUEL)
        key = kind, name.decode()
        found = self.metrics.get(key)
        if found is not None:
            return found
        plugin = self.configured.plugin
        if len(self.metrics) >= plugin.settings.metrics or len(name) > MOST_METRIC_NAME:
            self.refused(f"metrics.{kind}", "InternalFailure", "more than limits.metrics, or a name over 512 bytes")
            return None
        instruments = plugin.instruments
        makers: dict[str, Callable[[str], Counter | Gauge | Histogram]] = {
            "counter": instruments.guest_counter,
            "gauge": instruments.guest_gauge,
            "histogram": instruments.guest_histogram,
        }
        made = self.metrics[key] = makers[kind](key[1])
        return made

    def counter_add(self, name: bytes, delta: int) -> None:
        found = self.metric("counter", name)
        if found is not None:
            found.value += delta

    def gauge_set(self, name: bytes, value: int) -> None:
        found = self.metric("gauge", name)
        if found is not None:
            found.value = value

    def histogram_record(self, name: bytes, value: int) -> None:
        found = self.metric("histogram", name)
        if found is not None:
            found.observe(value)

    # ---- properties, clock, random ----

    def property(self, path: bytes) -> bytes | None:
        self.charge(CALL_FUEL)
        value = property_text(self.stream, self.configured.plugin, path.decode())
        if value is not None:
            self.charge(BYTE_FUEL * len(value))
        return value

    def clock_now(self) -> int:
        return self.stepped(self.now())

    def clock_monotonic(self) -> int:
        return self.stepped(self.monotonic())

    def stepped(self, nanoseconds: int) -> int:
        self.charge(CALL_FUEL)
        return nanoseconds - nanoseconds % self.configured.plugin.settings.clock

    def random_number(self) -> int:
        self.charge(CALL_FUEL)
        return int.from_bytes(self.random_bytes(8), "little")


def keys_of(configuration: bytes) -> dict[str, bytes]:
    """The top-level keys of a config: text as it stands, all else as JSON. None of what is no JSON mapping."""
    try:
        found = json.loads(configuration)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        key: (value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))).encode("utf-8", "replace")
        for key, value in found.items()
    }
