"""The guests of this folder, and the quickstart's chain, in the real Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from proxy import demo
from tests import requires
from tests.conformance import client
from tests.conformance.envoy import Envoy, EnvoyFilter
from tests.conformance.upstream import Upstream, sized
from tests.filters.cases import as_json
from tests.guests import build

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
async def test_go() -> None:
    """A stock Go filter reads and adds headers on both paths, reads its configuration and logs."""
    requires.envoy()
    with requires.toolchain():
        wasm = build.go_filter()
    assert wasm.stat().st_size > 1_000_000
    answer = sized(b"ok", fields=[("x-go-remove", "1"), ("x-kept", "1")])
    async with (
        Upstream([answer]) as upstream,
        Envoy(filters=[EnvoyFilter(wasm, b"hello")], clusters={"service": upstream.port}) as envoy,
    ):
        response = await client.fetch(envoy.port, client.request("GET", "/a", [("user-agent", "probe/1")]))
        messages = [line.message for line in envoy.log_lines()]
    request = upstream.requests[0]
    assert (response.status, response.all("x-go"), response.all("x-go-remove")) == (200, [b"ok"], [])
    assert response.all("x-kept") == [b"1"]
    assert (request.all("x-go-agent"), request.all("x-go-config")) == ([b"probe/1"], [b"hello"])
    assert {"go: configured: hello", "go: GET /a"} <= set(messages)


async def test_probe() -> None:
    """The benchmark's filter adds one header and replaces one on both paths."""
    probe = EnvoyFilter(ROOT / "benchmarks" / "filters" / "probe.wasm")
    requires.envoy()
    async with (
        Upstream([sized(b"ok", fields=[("x-probe-seen", "old")])]) as upstream,
        Envoy(filters=[probe], clusters={"service": upstream.port}) as envoy,
    ):
        response = await client.fetch(envoy.port, client.request("GET", "/a", [("x-probe-seen", "old")]))
    request = upstream.requests[0]
    assert (request.all("x-probe"), request.all("x-probe-seen")) == ([b"1"], [b"/a"])
    assert (response.all("x-probe"), response.all("x-probe-seen")) == ([b"1"], [b"200"])


async def test_quickstart_chain() -> None:
    """What config/quickstart.yaml promises, with its three filters and the demo service."""
    requires.envoy()
    file = ROOT / "config" / "quickstart.yaml"
    filters = [
        EnvoyFilter(file.parent / one["wasm"], as_json(one["config"]), one["name"])
        for one in yaml.safe_load(file.read_text())["filters"]
    ]
    runner = await demo.start(port=0)
    async with Envoy(filters=filters, clusters={"service": runner.addresses[0][1]}) as envoy:
        stranger = await client.fetch(envoy.port, client.request("GET", "/"))
        credentials = ("authorization", "Basic YWRhOmxvdmVsYWNl")
        ada = await client.fetch(envoy.port, client.request("GET", "/?q", [credentials, ("user-agent", "curl")]))
    await runner.cleanup()
    assert stranger.status == 401
    assert stranger.one("www-authenticate") == b'Basic realm="Penstock quickstart", charset="UTF-8"'
    text = ada.body.decode()
    assert (ada.status, ada.one("x-requested-path")) == (200, b"/?q")
    assert ada.one("x-upstream-server") == b"demo"
    assert "User: ada" in text
    assert "x-greeting: hello ada" in text.lower()
    assert "user-agent" not in text.lower()
    assert "<h1>Demo service, seen through Penstock</h1>" in text
    assert text.endswith("<p>This line is from body-rewrite.</p>\n</body>\n</html>\n")
