"""ab-route and the routes behind it: both gateways send each variant to its cluster."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import requires
from tests.conformance import client
from tests.conformance.envoy import Envoy, EnvoyFilter
from tests.conformance.penstock import Penstock
from tests.conformance.upstream import Upstream, sized
from tests.filters import cases

CONFIGURATION = b'{"experiment":"e","variants":[{"name":"a","weight":1},{"name":"b","weight":1}]}'


@dataclass(slots=True)
class EnvoyByHeader(Envoy):
    """The cluster's name is what the header says."""

    def bootstrap(self, directory: Path) -> dict[str, Any]:
        whole = Envoy.bootstrap(self, directory)
        manager = whole["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        (host,) = manager["route_config"]["virtual_hosts"]
        # The first route is what Envoy chooses before the filter has written the header.
        host["routes"] = [
            {"match": {"prefix": "/", "headers": [{"name": "x-ab-variant"}]}, "route": {"cluster_header": "x-ab-variant"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "a"}},
        ]
        return whole


@dataclass(slots=True)
class PenstockByHeader(Penstock):
    """A route for each variant."""

    def config(self) -> dict[str, Any]:
        whole = Penstock.config(self)
        whole["routes"] = [
            {"match": {"prefix": "/", "headers": {"x-ab-variant": name}}, "cluster": name} for name in self.clusters
        ]
        return whole


async def ask(port: int, fields: list[tuple[str, str]]) -> tuple[str, str]:
    """Which cluster answered, and the cookie that came with it."""
    response = await client.fetch(port, client.request("GET", "/", fields))
    headers = {name: value.decode() for name, value in response.headers}
    return bytes(response.body).decode(), headers.get(b"set-cookie", "").partition(";")[0]  # type: ignore[call-overload]


async def check(gateway: Any) -> None:
    async with gateway:
        for name in ("a", "b"):
            assert await ask(gateway.port, [("cookie", f"ab-e={name}")]) == (name, "")
        found = [await ask(gateway.port, []) for _ in range(64)]
    assert all(cookie == f"ab-e={cluster}" for cluster, cookie in found)
    assert 8 <= sum(cluster == "a" for cluster, _ in found) <= 56  # less than one in 10^9 are outside


@pytest.mark.parametrize("kind", ["penstock", pytest.param("envoy", marks=pytest.mark.envoy)])
def test_variants_reach_their_clusters(kind: str) -> None:
    async def run() -> None:
        async with Upstream() as a, Upstream() as b:
            a.answers, b.answers = [sized(b"a")], [sized(b"b")]
            tested = EnvoyFilter(cases.load("ab-route").wasm, CONFIGURATION, name="ab-route")
            clusters = {"a": a.port, "b": b.port}
            await check((EnvoyByHeader if kind == "envoy" else PenstockByHeader)([tested], clusters, routes=(("/", "a"),)))

    if kind == "envoy":
        requires.envoy()
    asyncio.run(run())
