"""A filter that keeps failing, in a gateway as its user runs it: out in all workers, whoever dies, until it is resumed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from tests.integration.conftest import Service
from tests.integration.gateway import Gateway, filter_of

TRAPS_AT_MANY_HEADERS = """(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (if (i32.gt_u (local.get 1) (i32.const 20)) (then unreachable)) (i32.const 0)))"""
MANY = {f"x_{i}": "1" for i in range(20)}
ROUTES = [
    {"match": {"prefix": "/without"}, "cluster": "service", "filters": {"guard": {"enabled": False}}},
    {"match": {"prefix": "/"}, "cluster": "service"},
]


def guard(folder: Path, policy: str) -> dict[str, Any]:
    file = folder / "guard.wasm"
    file.write_bytes(wasmtime.wat2wasm(TRAPS_AT_MANY_HEADERS))
    return filter_of(file, "guard", on_failure=policy, quarantine={"faults": 3, "window": "1m"})


async def admin(gateway: Gateway, method: str, path: str) -> tuple[int, Any]:
    async with gateway.client.request(method, f"http://127.0.0.1:{gateway.admin_port}{path}") as response:
        return response.status, await response.json()


async def ready(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = (await admin(gateway, "GET", "/ready"))[1]
    return found


async def quarantined_everywhere(gateway: Gateway, workers: int) -> None:
    async with asyncio.timeout(10):
        while [each["filters"].get("guard", {}).get("state") for each in (await ready(gateway))["workers"]] != (
            ["quarantined"] * workers
        ):
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(("policy", "status"), [("closed", 503), ("open", 200)])
async def test_out_in_all_workers_until_resumed(tmp_path: Path, service: Service, policy: str, status: int) -> None:
    async with Gateway([guard(tmp_path, policy)], {"service": service.port}, 2, routes=ROUTES) as gateway:
        assert {(await gateway.get())[0] for _ in range(8)} == {200}
        async with asyncio.timeout(30):
            while not gateway.events("filter_quarantined"):
                assert (await gateway.get(**MANY))[0] == status
                await asyncio.sleep(0.05)
        await quarantined_everywhere(gateway, 2)
        # What it would have let pass gets its policy's answer at once; a route without it is as it was.
        assert {(await gateway.get())[0] for _ in range(8)} == {status}
        assert {(await gateway.get("/without"))[0] for _ in range(8)} == {200}
        (line,) = [line for line in gateway.events("filter_quarantined") if line["level"] == "error"]
        assert line["filter"] == "guard"
        assert (await gateway.metrics())['penstock_filter_quarantined{filter="guard"}'] == 1

        body = (await admin(gateway, "GET", "/filters"))[1]["guard"]
        assert body["state"] == "quarantined"
        assert body["quarantine"]["reason"] == line["reason"]
        assert len(body["traps"]) >= 3
        assert {trap["reason"] for trap in body["traps"]} == {"trap"}
        assert {trap["callback"] for trap in body["traps"]} == {"proxy_on_request_headers"}

        # A worker dies: its successor does not let the filter in.
        victim = (await ready(gateway))["workers"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(15):
            while True:
                found = (await ready(gateway))["workers"][0]
                if found["pid"] not in (None, victim) and found["state"] == "serving":
                    break
                await asyncio.sleep(0.02)
        await quarantined_everywhere(gateway, 2)
        assert {(await gateway.get())[0] for _ in range(8)} == {status}

        assert await admin(gateway, "POST", "/filters/guard/resume") == (200, {"filter": "guard", "was_quarantined": True})
        async with asyncio.timeout(10):
            while (await ready(gateway))["status"] != "ready":
                await asyncio.sleep(0.05)
        assert {(await gateway.get())[0] for _ in range(8)} == {200}
        assert (await gateway.metrics())['penstock_filter_quarantined{filter="guard"}'] == 0


async def test_a_killed_worker_loses_its_own_streams_and_is_back(
    tmp_path: Path, service: Service, record_property: Any
) -> None:
    async with Gateway([guard(tmp_path, "closed")], {"service": service.port}, 2) as gateway:

        async def post() -> int:
            # Not a GET: the client would send that again.
            async with gateway.client.post("/?delay=2") as response:
                return response.status

        running = [asyncio.create_task(post()) for _ in range(16)]
        while len(service.requests) < 16:
            await asyncio.sleep(0.01)
        victim = (await ready(gateway))["workers"][0]["pid"]
        start = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(15):
            while (await ready(gateway))["workers"][0]["pid"] in (None, victim):
                await asyncio.sleep(0.005)
            while (await ready(gateway))["serving"] < 2:
                await asyncio.sleep(0.005)
        seconds = time.monotonic() - start
        record_property("seconds_until_the_successor_serves", round(seconds, 3))
        print(f"the successor serves after {seconds * 1000:.0f} ms")
        ends = await asyncio.gather(*running, return_exceptions=True)
        lost = [end for end in ends if isinstance(end, BaseException)]
        # SO_REUSEPORT spreads connections: both workers had some, and only the killed one's are lost.
        assert 0 < len(lost) < 16
        assert {end for end in ends if not isinstance(end, BaseException)} == {200}
        assert {(await gateway.get())[0] for _ in range(16)} == {200}


async def test_a_filter_that_no_longer_starts_does_not_keep_a_worker_from_serving(tmp_path: Path, service: Service) -> None:
    """It starts once for each gateway, by its shared data; the others must not go without their worker for it."""
    starts_once = """(module
      (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
      (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
      (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (if (i32.eqz (call $get (i32.const 0) (i32.const 3) (i32.const 16) (i32.const 20) (i32.const 24))) (then unreachable))
        (i32.eqz (call $set (i32.const 0) (i32.const 3) (i32.const 8) (i32.const 1) (i32.const 0)))))"""
    file = tmp_path / "once.wasm"
    file.write_bytes(wasmtime.wat2wasm(starts_once))
    routes = [{**ROUTES[0], "filters": {"once": {"enabled": False}}}, ROUTES[1]]
    async with Gateway([filter_of(file, "once")], {"service": service.port}, routes=routes) as gateway:
        assert (await gateway.get())[0] == 200
        os.kill((await ready(gateway))["workers"][0]["pid"], signal.SIGKILL)
        async with asyncio.timeout(15):
            while not gateway.events("filter_failed"):
                await asyncio.sleep(0.05)
            while (await ready(gateway))["serving"] < 1:
                await asyncio.sleep(0.05)
        assert (await gateway.get("/without"))[0] == 200
        assert (await gateway.get())[0] == 503
        assert gateway.events("filter_failed")[0]["reason"] == "start"
