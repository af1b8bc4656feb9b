"""What filters count, on /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.integration.gateway import Gateway, filter_of

REQUESTS = 40


async def test_metrics_of_the_three_kinds_are_summed_over_workers(guest: Callable[[str], Path]) -> None:
    filters = [filter_of(guest("metrics"), name) for name in ("one", "two")]
    async with Gateway(filters, workers=3) as gateway:
        fresh = await gateway.metrics()
        assert fresh['penstock_guest_shop_orders_total{filter="one"}'] == 0
        answers = await asyncio.gather(*(gateway.get() for _ in range(REQUESTS)))
        assert {body for _, _, body in answers} == {"counted"}
        found = await gateway.metrics()
    ours = {name: value for name, value in found.items() if name.startswith("penstock_guest_") and "_bucket" not in name}
    assert ours == {
        'penstock_guest_shop_orders_total{filter="one"}': 2 * REQUESTS,
        'penstock_guest_shop_open{filter="one"}': 3 * REQUESTS,
        'penstock_guest_shop_items_count{filter="one"}': REQUESTS,
        'penstock_guest_shop_items_sum{filter="one"}': 7 * REQUESTS,
        # The first filter answers, so the second never sees a request.
        'penstock_guest_shop_orders_total{filter="two"}': 0,
        'penstock_guest_shop_open{filter="two"}': 0,
        'penstock_guest_shop_items_count{filter="two"}': 0,
        'penstock_guest_shop_items_sum{filter="two"}': 0,
    }
    buckets = [found[f'penstock_guest_shop_items_bucket{{filter="one",le="{bound}"}}'] for bound in ("5.0", "10.0", "+Inf")]
    assert buckets == [0, REQUESTS, REQUESTS]
