"""Shared data and queues over several workers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

from tests.integration.conftest import Service
from tests.integration.gateway import Gateway, filter_of

Guest = Callable[[str], Path]
REQUESTS = 300


async def many(gateway: Gateway, paths: list[str], at_once: int = 24) -> list[tuple[int, dict[str, str], str]]:
    """Requests, `at_once` of them at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(path: str) -> tuple[int, dict[str, str], str]:
        async with gate:
            return await gateway.get(path)

    return await asyncio.gather(*(one(path) for path in paths))


async def test_a_counter_incremented_by_all_workers_ends_exact(guest: Guest, service: Service) -> None:
    wasm = guest("counter")
    async with Gateway([filter_of(wasm, "counter", "count", vm_id="shared")], {"service": service.port}, 3) as gateway:
        answers = await many(gateway, ["/"] * REQUESTS)
        assert {status for status, _, _ in answers} == {200}
        assert len({headers["x-vm"] for _, headers, _ in answers}) > 1, "one worker did it all"
        counts = sorted(int(headers["x-count"]) for _, headers, _ in answers)
        assert counts[-1] == REQUESTS
        for _ in range(8):
            assert (await gateway.get("/read"))[1]["x-count"] == str(REQUESTS)
        assert gateway.events("filter_failed") == []


async def test_filters_share_by_vm_id_and_without_one_with_nobody(guest: Guest, service: Service) -> None:
    """In Envoy all filters without a vm_id share; here none does (docs: each has a space of its own)."""
    wasm = guest("counter")
    filters = [
        filter_of(wasm, "own-1", "own-1"),
        filter_of(wasm, "own-2", "own-2"),
        filter_of(wasm, "both-1", "both-1", vm_id="s", vm_config="1"),
        filter_of(wasm, "both-2", "both-2", vm_id="s", vm_config="2"),
        filter_of(wasm, "other", "other", vm_id="t"),
    ]
    async with Gateway(filters, {"service": service.port}, 2) as gateway:
        await many(gateway, ["/"] * 20)
        _, headers, _ = await gateway.get("/read")
    names = ("own-1", "own-2", "both-1", "both-2", "other")
    assert {name: int(headers[f"x-{name}"]) for name in names} == {
        "own-1": 20, "own-2": 20, "both-1": 40, "both-2": 40, "other": 20,
    }  # fmt: skip


async def test_each_queue_item_arrives_once_wherever_it_was_put(guest: Guest) -> None:
    """Every worker registers the queue; the last to do so is its consumer, in Envoy as well."""
    paths = [f"/{number}" for number in range(REQUESTS)]
    async with Gateway([filter_of(guest("queue"), "queue", vm_id="q")], workers=3) as gateway:
        answers = await many(gateway, paths)
        assert {body for _, _, body in answers} == {"put"}
        await gateway.until(lambda: len(gateway.said("queue", "took /")) >= REQUESTS)
        await asyncio.sleep(0.1)
        took = [line.split() for line in gateway.said("queue", "took")]
        put = [line.split() for line in gateway.said("queue", "put")]
    assert sorted(words[1] for words in took) == sorted(paths)
    assert len({words[2] for words in put}) > 1, "one worker did it all"
    assert len({words[2] for words in took}) == 1
    assert {re.sub(r"\d+", "", words[3]) for words in took} == {"root="}
