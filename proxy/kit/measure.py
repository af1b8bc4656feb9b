"""What a filter's callbacks take: its cases played again and again, watched only by the gateway's own counters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from proxy.kit.calls import ScriptedCalls
from proxy.kit.cases import CaseError, ScriptedCall
from proxy.kit.expected import Wanted
from proxy.kit.hearing import Hearing
from proxy.kit.meter import Callback
from proxy.kit.play import Player
from proxy.kit.stream import Stream

STEADY: Final = 0.95
"""The part of the calls that tells how fast the machine is: the others met a page fault, or another process."""
HEADROOM: Final = 2
"""The suggested budget over the 99.9th percentile."""
UNSCRIPTED: Final = ScriptedCall("", "unreachable", Wanted({}, None))


@dataclass(frozen=True, slots=True)
class Measured:
    """One callback. Times in microseconds."""

    callback: str
    calls: int
    fuel_median: int
    fuel_p99: int
    fuel_p999: int
    fuel_most: int
    microseconds_median: float
    microseconds_p99: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """All callbacks. `memory`: most bytes of linear memory; `fuel_per_millisecond` on this machine, of
    nearly all; `suggested_fuel` for the filter's `fuel`, 0 if nothing was called."""

    callbacks: Sequence[Measured]
    exchanges: int
    memory: int
    fuel_per_millisecond: int
    suggested_fuel: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(player: Player, rounds: int) -> Measurement:
    """Raises CaseError, SetupError, RefusedError; cases that expect a fault are left out."""
    callbacks: list[Callback] = []
    exchanges = memory = 0
    with Hearing("error"):
        for case in player.cases.cases:
            if any(one.expected.failure is not None for one in case.exchanges):
                continue
            with player.runtime(case.settings, player.configuration_of(case), case.clock, case.seed) as runtime:
                calls: ScriptedCalls = runtime.calls
                calls.default = UNSCRIPTED
                for _ in range(rounds):
                    for one in case.exchanges:
                        calls.script = list(one.calls)
                        Stream(runtime, one.request, one.response).run()
                        exchanges += 1
                    calls.over()
                callbacks += runtime.meter.callbacks
                memory = max(memory, runtime.used_memory())  # it never shrinks
    if not exchanges:
        raise CaseError(f"{player.cases.file}: has no case that could be measured")
    names = sorted({one.name for one in callbacks})
    found = [measured(name, [one for one in callbacks if one.name == name]) for name in names]
    timed = sorted((one for one in callbacks if one.seconds), key=lambda one: one.fuel / one.seconds, reverse=True)
    steady = timed[: math.ceil(STEADY * len(timed))]
    seconds = sum(one.seconds for one in steady)
    return Measurement(
        found,
        exchanges,
        memory,
        round(sum(one.fuel for one in steady) / seconds / 1000) if seconds else 0,
        rounded(HEADROOM * max((one.fuel_p999 for one in found), default=0)),
    )


def measured(name: str, calls: Sequence[Callback]) -> Measured:
    fuel = sorted(one.fuel for one in calls)
    times = sorted(one.seconds * 1e6 for one in calls)
    return Measured(
        name, len(calls), percentile(fuel, 0.5), percentile(fuel, 0.99), percentile(fuel, 0.999), fuel[-1],
        round(percentile(times, 0.5), 1), round(percentile(times, 0.99), 1),
    )  # fmt: skip


def percentile(ordered: Sequence[Any], part: float) -> Any:
    """The least value that at least `part` of them do not exceed (nearest rank)."""
    return ordered[max(math.ceil(part * len(ordered)) - 1, 0)]


def rounded(fuel: int) -> int:
    """Up to two significant digits: a budget is no measurement."""
    step = max(10 ** (len(str(fuel)) - 2), 1)
    up: int = -(-fuel // step) * step
    return up


def report(found: Measurement) -> Iterator[str]:
    """A table and the suggestion, a line each."""
    width = max([len(one.callback) for one in found.callbacks] + [len("callback")])
    yield f"{'callback':<{width}} {'calls':>8} {'fuel p50':>10} {'p99':>10} {'p99.9':>10} {'most':>10} {'us p50':>8} {'p99':>8}"
    for one in found.callbacks:
        numbers = f"{one.fuel_median:>10,} {one.fuel_p99:>10,} {one.fuel_p999:>10,} {one.fuel_most:>10,}"
        times = f"{one.microseconds_median:>8.1f} {one.microseconds_p99:>8.1f}"
        yield f"{one.callback:<{width}} {one.calls:>8,} {numbers} {times}"
    yield ""
    memory = f"; at most {found.memory / (1 << 20):.1f} MiB of memory" if found.memory else ""
    yield f"{found.exchanges:,} exchanges{memory}"
    yield f"a millisecond on this machine is about {found.fuel_per_millisecond:,} fuel, in these callbacks"
    yield f"suggested: fuel: {found.suggested_fuel} (p99.9 of the dearest callback, times {HEADROOM})"
