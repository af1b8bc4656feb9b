"""Probes in a gateway as its user runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.guests import build
from tests.integration.conftest import GUESTS, Service
from tests.integration.gateway import Gateway, filter_of
from tests.versions.guests import ADDS, ANSWERS, version


def probed(wasm: Path, name: str, expect: dict[str, Any], **more: Any) -> dict[str, Any]:
    request = more.pop("request", {})
    return filter_of(wasm, name, probe={"request": request, "expect": expect, "every": "100ms"}, **more)


async def test_probes(tmp_path: Path, service: Service) -> None:
    asks = {"method": "POST", "body": "hello", "headers": {"x-call": "service", "x-ask": "/?user=ada&delay=0.1"}}
    filters = [
        probed(version(tmp_path, 1, ADDS), "adds", {"headers": {"X-Added": "1"}}),
        probed(
            build.c_filter(GUESTS / "auth.c"), "asks", {"headers": {"x-user": "ada"}}, request=asks,
            capabilities={"allowed_hosts": ["cluster:service"]},
        ),
        probed(version(tmp_path, 2, ADDS), "changed", {"status": 401}),
        probed(version(tmp_path, 3, ANSWERS.replace("{status}", "401")), "answers", {"status": 401}),
    ]  # fmt: skip
    async with Gateway(filters, {"service": service.port}, workers=2) as gateway:
        async with asyncio.timeout(30):
            while True:
                async with gateway.client.get(f"http://127.0.0.1:{gateway.admin_port}/ready") as response:
                    status, ready = response.status, await response.json()
                states = [worker["filters"] for worker in ready["workers"]]
                sound = [
                    one.get("probe", {}).get("passed", 0) for each in states for name, one in each.items() if name != "changed"
                ]
                if min(sound, default=0) >= 2 and all(each["changed"]["state"] == "probe_failed" for each in states):
                    break
                await asyncio.sleep(0.1)
        assert (status, ready["status"]) == (200, "degraded")
        for each in states:
            assert each["changed"]["reason"] == "probe: expected an answer with 401, got it passed on"
            assert {each[name]["state"] for name in ("adds", "asks", "answers")} == {"ready"}
            assert all(each[name]["probe"]["failed"] == 0 for name in ("adds", "asks", "answers"))
        lines = gateway.events("probe_failed")
        assert [line["filter"] for line in lines] == ["changed"] * 2  # once in each worker
        metrics = await gateway.metrics()
        assert metrics['penstock_probe_total{filter="changed",result="failed"}'] >= 2
        # The call was made, the request itself went nowhere.
        assert {request.method for request in service.requests} == {"GET"}
        assert (await gateway.get())[0] == 401
