"""Canaries in a gateway as its user runs it: the split, what takes a canary back, what the operator decides, restarts."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from proxy.chain.canary import place, threshold
from tests.integration.conftest import Service
from tests.integration.gateway import ROOT, Gateway, filter_of
from tests.versions.guests import ANSWERS, BURNS, TRAPS, version


def gateway(folder: Path, service: Service, extra: str = "", workers: int = 1, **canary: Any) -> Gateway:
    filter_ = filter_of(
        version(folder, 1), "guard",
        canary={"wasm": str(version(folder, 2, extra)), "weight": "20%", "sticky": {"cookie": "who"}, **canary},
    )  # fmt: skip
    return Gateway([filter_], {"service": service.port}, workers, state_directory=str(folder / "state"))


async def cli(gateway: Gateway, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "canary", *arguments, "--admin", f"127.0.0.1:{gateway.admin_port}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    assert process.returncode == 0, said
    return said.decode()


async def met(gateway: Gateway, client: int) -> str:
    """The version of `guard` that a client meets."""
    async with gateway.client.get("/", headers={"cookie": f"theme=dark; who=client-{client}"}) as response:
        return response.headers.getall("x-version")[-1]


async def canary(gateway: Gateway) -> dict[str, Any]:
    async with gateway.client.get(f"http://127.0.0.1:{gateway.admin_port}/canaries/guard") as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def followed(gateway: Gateway, state: str, weight: float, workers: int) -> None:
    """Wait until all workers follow that decision; the one that has judged does without a word."""

    def done() -> bool:
        told = [line for line in gateway.events("canary_changed") if (line["state"], line["weight"]) == (state, weight)]
        return len(told) + (len(gateway.events("canary_rolled_back")) if state == "rolled_back" else 0) >= workers

    await gateway.until(done, 30)


async def counted(gateway: Gateway, live: int, other: int) -> dict[str, Any]:
    """What is known of the canary, once so many streams are counted."""
    async with asyncio.timeout(30):
        while True:
            found = await canary(gateway)
            if (found["live"]["streams"], found["canary"]["streams"]) == (live, other) and found["canary"]["fuel_per_stream"]:
                return found
            await asyncio.sleep(0.1)


async def test_split_operator_and_restart(tmp_path: Path, service: Service) -> None:
    expected = {i: "2" if place("guard", f"client-{i}".encode()) < threshold(0.2) else "1" for i in range(120)}
    async with gateway(tmp_path, service, workers=2) as running:
        assert {i: await met(running, i) for i in expected} == expected
        assert {await met(running, 7) for _ in range(10)} == {expected[7]}
        assert (await running.get())[1]["x-version"] == "1"  # nobody knows who it is
        # By side, over both workers.
        canaries = sum(one == "2" for one in expected.values()) + (10 if expected[7] == "2" else 0)
        found = await counted(running, 131 - canaries, canaries)
        metrics = await running.metrics()
        assert metrics['penstock_canary_streams_total{filter="guard",side="canary"}'] == canaries

        assert "weight 60%" in await cli(running, "set", "guard", "60%", "--by", "ada")
        await followed(running, "running", 0.6, 2)
        now = {i: await met(running, i) for i in expected}
        assert all(now[i] == "2" for i, one in expected.items() if one == "2")  # nobody went back
        assert 0.4 < sum(one == "2" for one in now.values()) / len(now) < 0.8
        (line,) = running.events("canary_decided")
        assert (line["by"], line["weight"], line["before"]["weight"]) == ("ada (127.0.0.1)", 0.6, 0.2)

        # A reload with another filter in the chain: everybody stays where they are.
        file = Path(running.folder.name) / "config.yaml"
        running.config["filters"].append(filter_of(version(tmp_path, 3), "other"))
        file.write_text(json.dumps(running.config))
        running.process.send_signal(signal.SIGHUP)
        await running.until(lambda: running.events("reloaded"), 30)
        assert {i: await met(running, i) for i in expected} == now
        assert (await canary(running))["weight"] == 0.6

        said = await cli(running, "promote", "guard", "--by", "ada")
        assert f"wasm: {tmp_path}/version-2.wasm, sha256: {found['sha256']}" in said
        async with asyncio.timeout(30):
            while {await met(running, i) for i in range(20)} != {"2"}:
                await asyncio.sleep(0.1)
        async with running.client.post(
            f"http://127.0.0.1:{running.admin_port}/canaries/guard/rollback", headers={"Origin": "http://evil.example"}
        ) as response:
            assert response.status == 403
        assert await running.stop() == 0
    async with gateway(tmp_path, service) as running:
        assert {await met(running, i) for i in range(20)} == {"2"}
        assert (await canary(running))["state"] == "promoted"
        await cli(running, "rollback", "guard", "--reason", "tickets 12", "--by", "ada")
        await followed(running, "rolled_back", 0.0, 1)
        assert {await met(running, i) for i in range(20)} == {"1"}
        assert "evidence: tickets 12" in await cli(running, "status")
        assert await running.stop() == 0
    # Another weight in the config: another canary.
    async with gateway(tmp_path, service, weight="100%") as running:
        assert {await met(running, i) for i in range(20)} == {"2"}


@pytest.mark.parametrize(
    ("extra", "bound", "status"),
    [(TRAPS, "traps", 503), (ANSWERS.replace("{status}", "500"), "errors_5xx", 500), (BURNS, "fuel", 200)],
)
async def test_a_worse_canary_is_taken_back(tmp_path: Path, service: Service, extra: str, bound: str, status: int) -> None:
    others = {name: None for name in ("traps", "errors_5xx", "p99", "fuel") if name != bound}
    rollback = {"after": 20, **others}
    async with gateway(tmp_path, service, extra, 2, weight="40%", rollback=rollback) as running:
        end = time.monotonic() + 30
        for i in itertools.count():
            answer = await running.get(cookie=f"who={i}")
            assert answer[0] in (200, status)
            assert answer[0] == 200 or place("guard", str(i).encode()) < threshold(0.4)  # the others meet the live one only
            if running.events("canary_rolled_back") or time.monotonic() > end:
                break
        await followed(running, "rolled_back", 0.0, 2)
        async with asyncio.timeout(30):
            while (found := await canary(running))["state"] != "rolled_back":
                await asyncio.sleep(0.1)
        assert any(line.startswith(f"{bound}: ") for line in found["evidence"]), found
        line = running.events("canary_rolled_back")[0]
        assert line["canary"]["streams"] >= 1
        answers = {(await running.get(cookie=f"who={i}"))[:2][0] for i in range(40)}
        assert answers == {200}
        (file,) = (tmp_path / "state" / "canaries").glob("guard-*.json")
        assert json.loads(file.read_text())["state"] == "rolled_back"
        assert await running.stop() == 0
    if bound != "traps":
        return
    async with gateway(tmp_path, service, extra, 1, weight="40%", rollback=rollback) as running:
        assert {(await running.get(cookie=f"who={i}"))[1]["x-version"] for i in range(20)} == {"1"}
