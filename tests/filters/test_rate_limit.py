"""rate-limit over several workers, as its user runs it: not one request more than the bucket holds."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.upstream import Upstream
from tests.filters import cases
from tests.integration.gateway import Gateway, filter_of

REQUESTS = 120
BURST = 50


def limiter(filter_name: str, limits: dict[str, str] | None = None, clients: int = 8192, **limit: Any) -> dict[str, Any]:
    """A filter with one limit, of the `vm_id` that all of them have."""
    config = {"clients": clients, "limits": [{"rate": 1, "per": "day", "burst": BURST, **limit}]}
    return filter_of(cases.load("rate-limit").wasm, filter_name, config, limits, vm_id="limits")


async def answered(filters: list[dict[str, Any]], workers: int, count: int, at_once: int = 24) -> list[int]:
    """The statuses of so many requests, so many of them at once, each with another x-key."""
    gate = asyncio.Semaphore(at_once)
    async with Upstream() as upstream, Gateway(filters, {"service": upstream.port}, workers) as gateway:

        async def one(number: int) -> int:
            async with gate, gateway.client.get("/", headers={"x-key": str(number)}) as response:
                return response.status

        found = await asyncio.gather(*(one(number) for number in range(count)))
        assert [line for line in gateway.events("filter_log") if line["level"] == "error"] == []
    return found


async def test_a_bucket_holds_what_it_holds_over_all_workers() -> None:
    """Three workers change the same row at the same time: the sum is exact, no update is lost."""
    found = await answered([limiter("limit", by="all")], 3, REQUESTS)
    assert (found.count(200), found.count(429)) == (BURST, REQUESTS - BURST)


async def test_equal_limits_with_one_vm_id_are_one_limit() -> None:
    """Two filters of a chain with an equal limit take from one bucket; one with another name has its own.

    One request at a time: two at once can each take a last token at the first filter, and both go without at the second.
    """
    filters = [limiter("one", by="all", burst=10), limiter("two", by="all", burst=10), limiter("own", by="all", name="own")]
    found = await answered(filters, 2, 8, at_once=1)
    assert (found.count(200), found.count(429)) == (5, 3)


async def test_clients_without_number_take_no_more_memory() -> None:
    """The table forgets clients rather than grow: 1,000 keys in 64 places, in the least room, and each is served."""
    found = await answered([limiter("limit", {"shared_data": "4KiB"}, 64, by="header x-key", burst=1)], 2, 1000)
    assert set(found) == {200}
