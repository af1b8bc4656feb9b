"""Runs cases on both sides: Envoy with a listener for each, and a Penstock for each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tests.conformance import normal
from tests.conformance.case import Case, Outcome, converse, show_access, show_requests
from tests.conformance.envoy import EnvoyError
from tests.conformance.fleet import EnvoyFleet, Lane
from tests.conformance.penstock import Penstock
from tests.conformance.upstream import Upstream

AT_ONCE = 12
SETTLE_SECONDS = 0.4


@dataclass(slots=True)
class Ground:
    """The upstreams of one case on one side."""

    service: Upstream
    two: Upstream

    def ports(self, tag: str) -> dict[str, int]:
        return {f"service-{tag}": self.service.port, f"two-{tag}": self.two.port, f"dead-{tag}": 1}


def common_names(tag: str) -> dict[str, str]:
    """What a side calls things by the case's tag."""
    return {f"service-{tag}": "service", f"two-{tag}": "two", f"dead-{tag}": "dead", **{f"{tag}{n}": n for n in "ABCDEFGH"}}


async def ground(stack: AsyncExitStack, case: Case) -> Ground:
    return Ground(await stack.enter_async_context(Upstream(list(case.answers))), await stack.enter_async_context(Upstream()))


async def play(case: Case, port: int, gate: asyncio.Semaphore) -> list[str]:
    async with gate:
        shown = await converse(port, case.part())
        await asyncio.sleep(case.settle)
        return shown


def routes_of(case: Case, tag: str) -> list[tuple[str, str]]:
    return [(prefix, f"{role}-{tag}") for prefix, role in case.routes]


async def on_envoy(cases: Sequence[Case]) -> list[Outcome]:
    """The outcomes of the cases, in their order, from one Envoy."""
    outcomes = []
    async with AsyncExitStack() as stack:
        grounds = [await ground(stack, case) for case in cases]
        tags = [f"k{index}" for index in range(len(cases))]
        lanes = [
            Lane(tag, case.filters(tag), place.ports(tag), routes_of(case, tag), case.limit, case.trailers, case.timeout)
            for case, place, tag in zip(cases, grounds, tags, strict=True)
        ]
        fleet = await stack.enter_async_context(EnvoyFleet(lanes=lanes))
        gate = asyncio.Semaphore(AT_ONCE)
        clients = await asyncio.gather(*(play(case, fleet.ports[tag], gate) for case, tag in zip(cases, tags, strict=True)))
        await asyncio.sleep(SETTLE_SECONDS)
        if fleet.process is None or fleet.process.poll() is not None:
            raise EnvoyError(crashed(fleet.raw_log()))
        by_tag: dict[str, list[str]] = {}
        for line in fleet.worker_lines():
            plugin = line.prefix.split(" ")[0]
            shown = line.message + ("" if line.level == "info" else f" <{line.level}>")
            by_tag.setdefault(plugin.rstrip("ABCDEFGH"), []).append(shown)
        metrics = fleet.metrics()
        for case, place, tag, client in zip(cases, grounds, tags, clients, strict=True):
            names = common_names(tag)
            outcomes.append(
                outcome(case, client, place, by_tag.get(tag, []), names, show_access(fleet.accesses(tag), names), metrics)
            )
    return outcomes


async def on_penstock(cases: Sequence[Case]) -> list[Outcome]:
    """The same from Penstock."""
    outcomes = []
    async with AsyncExitStack() as stack:
        grounds = [await ground(stack, case) for case in cases]
        tags = [f"k{index}" for index in range(len(cases))]
        gateways = []
        for case, place, tag in zip(cases, grounds, tags, strict=True):
            options = {"limits": {"body_buffer": case.limit}} if case.limit is not None else {}
            side = Penstock(
                case.filters(tag), place.ports(tag), routes_of(case, tag), options,
                route_options={"timeout": f"{round(case.timeout * 1000)}ms"}, trailers=case.trailers,
            )  # fmt: skip
            gateways.append(await stack.enter_async_context(side))
        gate = asyncio.Semaphore(AT_ONCE)
        clients = await asyncio.gather(*(play(case, side.port, gate) for case, side in zip(cases, gateways, strict=True)))
        await asyncio.sleep(SETTLE_SECONDS)
        for case, place, tag, client, side in zip(cases, grounds, tags, clients, gateways, strict=True):
            names = common_names(tag)
            lines = [line.message + ("" if line.level == "info" else f" <{line.level}>") for line in side.lines]
            outcomes.append(outcome(case, client, place, lines, names, show_access(side.accesses, names), side.metrics()))
    return outcomes


def crashed(log: str) -> str:
    """Envoy has crashed: the last streams that it served."""
    return "Envoy crashed; it last wrote:\n" + "\n".join(line for line in log.splitlines() if "|wasm|" in line)[-3000:]


def outcome(
    case: Case,
    client: list[str],
    place: Ground,
    lines: list[str],
    names: dict[str, str],
    access: list[str],
    metrics: dict[str, int],
) -> Outcome:
    defined = sorted(
        name for name in metrics if any(name in script.split() for text in case.scripts for script in [text.replace(";", " ")])
    )
    return Outcome(
        client,
        [*show_requests("service", place.service.requests, names), *show_requests("two", place.two.requests, names)],
        normal.ends([f"log: {normal.line(line, names)}" for line in lines]),
        access,
        [f"metric: {name} {metrics[name]}" for name in defined],
    )


def dump(outcomes: Sequence[Outcome]) -> str:
    return json.dumps([one.lines() for one in outcomes], indent=1)
