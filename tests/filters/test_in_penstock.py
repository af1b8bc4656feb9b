"""Every case of filters/*/cases.yaml in Penstock: a gateway for each configuration, all of them up at once. What the
manifest grants is all that the filter may."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from proxy.kit.play import Player
from tests.conformance.envoy import EnvoyFilter
from tests.conformance.penstock import Penstock, PenstockError
from tests.filters import cases
from tests.filters.exchange import Services, exchange
from tests.filters.test_manifests import manifest

pytestmark = pytest.mark.timeout(120)


def gateway(name: str, number: int, configuration: bytes, clusters: dict[str, int]) -> Penstock:
    """A gateway whose chain is the filter, with the limits it would have by default."""
    tested = EnvoyFilter(cases.load(name).wasm, configuration, name=f"{name}-{number}")
    functions = [grant["name"] for grant in manifest(name)["grants"]["host_functions"]]
    capabilities = {"host_functions": functions, "allowed_hosts": [f"cluster:{one}" for one in clusters]}
    options = {"capabilities": capabilities}
    return Penstock([tested], clusters, filter_options=options, listener_options={"underscores": "keep"}, trailers=True)


async def run_cases(name: str, tested: cases.Cases) -> dict[str, list[str]]:
    """For each case that went wrong, what differed."""
    problems: dict[str, list[str]] = {}
    async with Services(tested) as services, contextlib.AsyncExitStack() as stack:
        gateways: dict[bytes, Penstock] = {}
        for case in tested.cases:
            if not case.portable:
                continue
            if case.configuration not in gateways:
                new = gateway(name, len(gateways), case.configuration, services.ports)
                gateways[case.configuration] = await stack.enter_async_context(new)
            used = gateways[case.configuration]
            if found := await exchange(case, used.port, services):
                problems[case.name] = [*found, *(line.message for line in used.lines[-3:]), *map(str, used.events[-3:])]
    return problems


@pytest.mark.parametrize("name", cases.filter_names())
def test_cases(name: str) -> None:
    """All exchanges went as the cases say."""
    assert asyncio.run(run_cases(name, cases.load(name))) == {}


@pytest.mark.parametrize("name", cases.filter_names())
def test_in_the_kit(name: str) -> None:
    """Cases that need a fixed clock or fixed random numbers, and every configuration that is to be refused."""
    tested = cases.load(name)
    wanted = {one.name for one in tested.cases if not one.portable} | {one.name for one in tested.refusals}
    played = list(Player(tested).run(wanted.__contains__))
    assert [(one.name, one.problems) for one in played if one.problems] == []
    assert {one.name for one in played} == wanted


# The kit looks at all of them, and Envoy does; that a gateway does not start is the same for each.
REFUSALS: list[Any] = [(name, one) for name in cases.filter_names() for one in cases.load(name).refusals[:2]]


@pytest.mark.parametrize(("name", "refusal"), REFUSALS, ids=[f"{name}: {one.name}" for name, one in REFUSALS])
async def test_refused_configuration(name: str, refusal: cases.Refusal) -> None:
    """The gateway does not start, and says why in the filter's words."""
    with pytest.raises(PenstockError, match="refused") as raised:
        async with gateway(name, 0, refusal.configuration, {"service": 9}):
            pass
    assert refusal.reason in str(raised.value)
