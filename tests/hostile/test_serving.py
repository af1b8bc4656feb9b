"""Every hostile filter that serves, in a real gateway beside an innocent route: it costs only itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.hostile.arena import Arena
from tests.hostile.case import Case
from tests.hostile.corpus import GATEWAYS
from tests.hostile.verdict import problems

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Arenas:
    """One running gateway at a time, of GATEWAYS."""

    def __init__(self) -> None:
        self.name = ""
        self.running: Arena | None = None

    async def enter(self, name: str) -> Arena:
        """The gateway of that name; another one is stopped first."""
        if self.running is None or self.name != name:
            await self.leave()
            arena = Arena(GATEWAYS[name])
            self.running, self.name = await arena.__aenter__(), name
            assert arena.quiet.failures == []
        return self.running

    async def leave(self) -> None:
        if self.running is not None:
            running, self.running = self.running, None
            await running.__aexit__(None, None, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def arenas() -> AsyncIterator[Arenas]:
    every = Arenas()
    yield every
    await every.leave()


CASES = [pytest.param(gateway, case, id=case.name) for gateway, cases in GATEWAYS.items() for case in cases]


@pytest.mark.parametrize(("gateway", "case"), CASES)
async def test_a_hostile_filter_costs_only_itself(arenas: Arenas, gateway: str, case: Case) -> None:
    arena = await arenas.enter(gateway)
    assert problems(case, await arena.attack(case.name)) == []


async def test_metric_names_of_filters_leave_the_page_readable(arenas: Arenas) -> None:
    """Two names of the flood become one name for Prometheus, others would end its line."""
    arena = await arenas.enter("floods")
    await arena.attack("metrics-names")
    families = {family.name: family for family in text_string_to_metric_families(await arena.page("/metrics"))}
    mine = [name for name, family in families.items() if any(s.labels.get("filter") == "metrics-names" for s in family.samples)]
    assert "penstock_guest_a_b" in mine
    assert all(family.samples[0].labels.get("filter") != "metrics-names" for family in families.values() if family.name == "x")
