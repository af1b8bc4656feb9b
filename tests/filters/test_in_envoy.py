"""Every case of filters/*/cases.yaml in the real Envoy, but for those that only the kit can run.

One Envoy per filter has a listener for each configuration, and all of them share one VM, so that the filter also shows
that it keeps its root contexts apart. What must be refused comes by the listener discovery file, where Envoy reports
each listener for itself and stays up.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import requires
from tests.conformance.envoy import Envoy, EnvoyFilter
from tests.filters import cases
from tests.filters.exchange import Services, exchange

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(120)]

REJECTED = re.compile(r"lds: listener '([^']+)' config rejected")

# source.address is who connected, and request ids are left alone.
AS_IN_PENSTOCK = {
    "use_remote_address": True,
    "skip_xff_append": True,
    "generate_request_id": False,
    "preserve_external_request_id": True,
}


@dataclass(slots=True)
class ManyListeners(Envoy):
    """An Envoy with a listener per filter configuration; `refused` ones are added by the discovery file."""

    wasm: Path = Path()
    accepted: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, bytes] = field(default_factory=dict)

    def bootstrap(self, directory: Path) -> dict[str, Any]:
        """One listener of Envoy's own bootstrap, copied per configuration."""
        whole = Envoy.bootstrap(self, directory)
        template = whole["static_resources"]["listeners"][0]
        discovered = [self.listener(template, name, data) for name, data in self.refused.items()]
        resources = [{"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", **one} for one in discovered]
        file = directory / "listeners.json"
        file.write_text(json.dumps({"version_info": "1", "resources": resources}))
        whole["static_resources"]["listeners"] = [self.listener(template, name, data) for name, data in self.accepted.items()]
        whole["dynamic_resources"] = {"lds_config": {"resource_api_version": "V3", "path_config_source": {"path": str(file)}}}
        whole["node"] = {"id": "tests", "cluster": "tests"}
        return whole

    def listener(self, template: dict[str, Any], name: str, configuration: bytes) -> dict[str, Any]:
        """A listener whose chain is the filter with that configuration. `name` also names the plugin, for its log."""
        listener = copy.deepcopy(template)
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager |= AS_IN_PENSTOCK
        tested = EnvoyFilter(self.wasm, configuration, name=name, vm_id="shared")
        manager["http_filters"].insert(0, tested.http_filter(0))
        return {**listener, "name": name}

    def ports(self) -> dict[str, int]:
        """The port of each listener by its name."""
        statuses = json.loads(self.admin("/listeners?format=json"))["listener_statuses"]
        return {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in statuses}


@dataclass(slots=True)
class Outcome:
    """What came of the cases of one filter: for each case what was wrong with it; for each refusal what was logged, or
    None if Envoy took the configuration."""

    problems: dict[str, list[str]]
    logs: dict[str, str | None]


async def run_cases(tested: cases.Cases) -> Outcome:
    """All cases one after the other on one Envoy, then the log."""
    listeners: dict[bytes, str] = {}
    portable = [case for case in tested.cases if case.portable]
    for case in portable:
        listeners.setdefault(case.configuration, f"accepted-{len(listeners)}")
    refused = {f"refused-{index}": one for index, one in enumerate(tested.refusals)}
    problems: dict[str, list[str]] = {}
    async with Services(tested) as services:
        envoy = ManyListeners(
            clusters=services.ports,
            wasm=tested.wasm,
            accepted={name: configuration for configuration, name in listeners.items()},
            refused={name: one.configuration for name, one in refused.items()},
        )
        async with envoy:
            ports = envoy.ports()
            for case in portable:
                problems[case.name] = await exchange(case, ports[listeners[case.configuration]], services)
            logs = refusal_logs(envoy)
    return Outcome(problems, {one.name: logs.get(name) for name, one in refused.items()})


def refusal_logs(envoy: Envoy) -> dict[str, str]:
    """What the filter logged before Envoy rejected each listener. Envoy does not name the plugin in a line of it, but
    it takes one listener after the other, and has done so before it is live."""
    logs, lines = {}, []
    for line in envoy.raw_log().splitlines():
        if "|wasm|wasm log" in line:
            lines.append(line.partition("|wasm|wasm log")[2])
        elif rejected := REJECTED.search(line):
            logs[rejected[1]] = "\n".join(lines)
            lines.clear()
    return logs


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """Outcomes by filter; each filter's cases run when they are first asked for."""
    requires.envoy()
    return {}


def outcome(outcomes: dict[str, Outcome], name: str) -> Outcome:
    if name not in outcomes:
        outcomes[name] = asyncio.run(run_cases(cases.load(name)))
    return outcomes[name]


CASES = [(name, one.name) for name in cases.filter_names() for one in cases.load(name).cases if one.portable]
REFUSALS = [(name, one) for name in cases.filter_names() for one in cases.load(name).refusals]


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}: {case}" for name, case in CASES])
def test_case(outcomes: dict[str, Outcome], name: str, case: str) -> None:
    """The exchange went as the case says."""
    assert outcome(outcomes, name).problems[case] == []


@pytest.mark.parametrize(("name", "refusal"), REFUSALS, ids=[f"{name}: {one.name}" for name, one in REFUSALS])
def test_refused_configuration(outcomes: dict[str, Outcome], name: str, refusal: cases.Refusal) -> None:
    """The filter refused the configuration and logged why."""
    log = outcome(outcomes, name).logs[refusal.name]
    assert log is not None, "the configuration was accepted"
    assert refusal.reason in log
