"""A shadow in a gateway as its user runs it: clients get the live version's answers, the differences are counted and told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.integration.conftest import Service
from tests.integration.gateway import ROOT, Gateway, filter_of
from tests.versions.guests import ADDS, ANSWERS, BURNS, CALLS, TRAPS, version

BODY_REWRITE = ROOT / "filters" / "body-rewrite" / "body-rewrite.wasm"


FORBIDS, REFUSES = ANSWERS.replace("{status}", "403"), ANSWERS.replace("{status}", "401")
CASES = {
    "adds": ("", ADDS, {"request_headers", "response_headers"}),
    "traps": (ADDS, TRAPS, {"fault", "answer"}),
    "answers": ("", FORBIDS, {"answer"}),
    "refuses": (FORBIDS, REFUSES, {"response_headers"}),
    "burns": ("", BURNS, {"response_headers"}),
    "calls": ("", CALLS, {"response_headers"}),
}
"""By filter: what the live version does, what the shadow does, and what differs; each version marks responses."""


async def seen(gateway: Gateway, streams: int) -> dict[str, Any]:
    """What the worker says of the shadows, once each has seen so many streams."""
    async with asyncio.timeout(30):
        while True:
            async with gateway.client.get(f"http://127.0.0.1:{gateway.admin_port}/ready") as response:
                (worker,) = (await response.json())["workers"]
            found = {name: one["shadow"] for name, one in worker["filters"].items() if "shadow" in one}
            if all(sum(one["streams"].values()) >= streams for one in found.values()):
                return found
            await asyncio.sleep(0.05)


async def test_differences(tmp_path: Path, service: Service) -> None:
    filters, routes = [], []
    for number, (name, (live, shadow, _)) in enumerate(CASES.items()):
        other = {"wasm": str(version(tmp_path, 5, shadow).rename(tmp_path / f"{name}.wasm")), "sample": "100%"}
        wasm = version(tmp_path, 1, live).rename(tmp_path / f"{number}.wasm")
        filters.append(filter_of(wasm, name, shadow=other, capabilities={"allowed_hosts": ["cluster:service"]}))
        off = {one: {"enabled": False} for one in CASES if one != name}
        routes.append({"match": {"prefix": f"/{name}"}, "cluster": "service", "filters": off})
    async with Gateway(filters, {"service": service.port}, routes=routes) as gateway:
        for name in CASES:
            for _ in range(2):
                status, headers, _ = await gateway.get(f"/{name}", authorization="secret-word")
                assert (status, headers["x-version"]) == (403 if name == "refuses" else 200, "1")
        found = await seen(gateway, 2)
        for name, (_, _, kinds) in CASES.items():
            assert found[name]["streams"] == {"different": 2}, name
            assert set(found[name]["differences"]) == kinds, name
            assert {count for kind, count in found[name]["differences"].items() if kind != "fault"} == {2}  # it rests after one
            assert found[name]["calls_refused"] == (2 if name == "calls" else 0)
            assert "secret-word" not in str(found[name]["last"])
        assert found["answers"]["last"][0]["differences"] == {"answer": ["live: lets it pass", "shadow: answers 403"]}
        assert found["adds"]["last"][0]["differences"]["request_headers"] == ["+ x-added: 5"]
        # Nothing of a shadow has left the gateway.
        assert {request.path for request in service.requests} == {f"/{name}" for name in CASES if name != "refuses"}
        assert [request.path for request in service.requests if "x-added" in request.headers] == ["/traps"] * 2
        await gateway.until(lambda: gateway.events("shadow_differs"))
        metrics = await gateway.metrics()
        assert metrics['penstock_shadow_streams_total{filter="adds",result="different"}'] == 2
        assert metrics['penstock_filter_failures_total{filter="traps@shadow",reason="trap"}'] >= 1


async def test_bodies_in_pieces_and_an_equal_version(tmp_path: Path, service: Service) -> None:
    config, other = ({"request": [{"find": "cat", "replace": to}], "types": ["text/*"]} for to in ("dog", "fish"))
    shadow = {"wasm": str(BODY_REWRITE), "sample": "100%"}
    equal = filter_of(BODY_REWRITE, "guard", config, shadow=shadow)
    unequal = filter_of(BODY_REWRITE, "guard", config, shadow={**shadow, "config": other})

    async def pieces() -> Any:
        for _ in range(5):
            yield b"x" * 20_000 + b"ca"
            yield b"t"

    for filter_, expected, kinds in ((equal, {"same": 2}, {}), (unequal, {"different": 2}, {"request_body": 2})):
        async with Gateway([filter_], {"service": service.port}) as gateway:
            for _ in range(2):
                async with gateway.client.post("/", data=pieces(), headers={"content-type": "text/plain"}) as response:
                    assert response.status == 200
            found = (await seen(gateway, 2))["guard"]
            assert (found["streams"], found["differences"]) == (expected, kinds)
