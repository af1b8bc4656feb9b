"""docs/hostile.md, written from the cases: `python -m tests.hostile.page`; `--check` fails if the page is another.

`--measure` runs the cases that serve once more, one after the other, and keeps what the innocent client saw in figures.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.hostile.arena import Arena, Figures
from tests.hostile.case import FAMILIES, Case
from tests.hostile.corpus import CASES, GATEWAYS
from tests.hostile.interpreter import ALLOCATOR_MODES, CALLBACKS, FUNCTIONS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "hostile.md"
FIGURES = Path(__file__).with_name("figures.json")
BUDGETS = {"fuel", "deadline"}
SECONDS = 1.5
"""Of each case, when it is measured."""
AGAIN = 2
"""So often is a case that moves the p99 too far tried once more, in a new gateway: what other processes add is not the filter's."""
P99_MOVES, LONGEST_WAIT = 2.0, 50.0
"""Milliseconds."""
HEAD = """\
# Hostile filters

<!-- Written by `python -m tests.hostile.page` from the cases in tests/hostile: change them. -->

What filters have been made to try against Penstock, and what holds. Each case is a module of its own, in `tests/hostile`, written
for this purpose; `make test` runs all of them.

A filter that serves runs in a real gateway with one worker, on a route of its own, beside an innocent route with an innocent
filter that is asked all the time. In every case the worker goes on, no innocent request fails or misses its filter, nobody hangs,
the worker's memory stays in a bound, every failure is in the log and in `penstock_filter_failures_total` under the
filter's name and with its reason, and nothing else is. A module that is refused never gets that far: `penstock check` and `penstock run` say
why, with the place in the config, and name the setting that admits more where there is one.
"""
WHY = """\
A worker runs Wasm on its one thread, so a call that is under way is waited for. A call that ends well and takes 4 ms makes others wait
for 4 ms, as often as it is made: who raises `fuel` and `deadline` raises that. By default 5,000,000 units of fuel are 1 to 5 ms. Calls that fail
are another matter: they burn a deadline at once, then a two hundredth of the time ([limits](limits.md#probation)).
"""
FUZZING = """\
## Host functions with made-up arguments

`python -m tests.hostile.fuzz --seconds 3600 --seed 1` makes calls of all {count} functions that can be linked, by hypothesis, over raw
memory, from {callbacks} callbacks and with {allocators} kinds of lying allocators; a few thousand of them run in every `make test`. What holds: the
status is one of the ABI's; no exception in Python; the filter's memory never holds a byte that is another filter's, the
gateway's, or of a stream before; none of those changes; the VM, or the one after it, answers as ever.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, summary()]
    for family, title in FAMILIES.items():
        name, _, what = title.partition(": ")
        cases = [case for case in CASES if case.family == family]
        parts += [
            f"## {name}\n\n{what[0].upper()}{what[1:]}.\n\n| case | what it tries | what holds |\n|---|---|---|\n" + rows(cases)
        ]
    parts.append(FUZZING.format(count=len(FUNCTIONS), callbacks=len(CALLBACKS), allocators=len(ALLOCATOR_MODES) - 1))
    return "\n".join(parts)


def summary() -> str:
    count = Counter(case.family for case in CASES)
    lines = ["| family | cases | refused at load | serve |", "|---|--:|--:|--:|"]
    for family, title in FAMILIES.items():
        refused = sum(bool(case.refused) for case in CASES if case.family == family)
        lines.append(f"| {title.partition(':')[0]} | {count[family]} | {refused} | {count[family] - refused} |")
    refused = sum(bool(case.refused) for case in CASES)
    lines.append(f"| all | {len(CASES)} | {refused} | {len(CASES) - refused} |")
    return "\n".join(lines) + "\n" + measured()


def measured() -> str:
    """What the innocent client saw, as it was measured last."""
    if not FIGURES.exists():
        return ""
    kept = json.loads(FIGURES.read_text())
    lines = [
        "",
        "What the innocent client waited for, in milliseconds of the worker's CPU between question and answer: so the machine's other work is",
        f"not in it ({kept['machine']}; a request every 4 ms). Each case's clients ask for {SECONDS:g} s, again and again.",
        "`default`: every case, with the `fuel` and `deadline` that a filter has by default. `raised`: the cases that give their filter more,",
        "up to a hundred times, to let it go further; such a call holds the worker for longer. `quiet` is the same client before any attack.",
        f"Of a case that moved the p99 by more than 2 ms, the best of {1 + AGAIN} runs: other processes, which cost it caches, only add.",
        "",
        "| gateway, budgets | cases | quiet: p99, longest | p99 of the median case | p99 of the worst case | p99 over 2 ms more "
        "| longest wait of all | over 50 ms |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    slow: dict[str, dict[str, float]] = {}
    for name, figures in kept["gateways"].items():
        cases, quiet = figures["cases"], figures["quiet"]
        p99 = {case: one["p99_cpu"] for case, one in cases.items()}
        longest = {case: one["longest_cpu"] for case, one in cases.items()}
        ranked = sorted(p99, key=p99.__getitem__)
        last = max(longest, key=longest.__getitem__)
        slow[name] = {case: p99[case] for case in ranked[::-1] if moved(figures, case)}
        stalled = sum(one > LONGEST_WAIT for one in longest.values())
        lines.append(
            f"| {name} | {len(cases)} | {quiet['p99_cpu']}, {quiet['longest_cpu']} | {p99[ranked[len(ranked) // 2]]} "
            f"| {p99[ranked[-1]]} ({ranked[-1]}) | {len(slow[name])} | {longest[last]} ({last}) | {stalled} |"
        )
    lines += ["", "Those whose p99 moves by more than 2 ms:", ""]
    lines += [
        f"- {name}: {', '.join(f'`{case}` {one}' for case, one in cases.items())}" for name, cases in slow.items() if cases
    ]
    return "\n".join(lines) + "\n\n" + WHY


def rows(cases: list[Case]) -> str:
    return "".join(f"| {case.name} | {cell(case.tries)} | {cell(case.outcome)} |\n" for case in cases)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


async def measure(seconds: float) -> dict[str, object]:
    """The innocent client's figures in every case, in milliseconds."""
    gateways: dict[str, object] = {}
    for name, cases in GATEWAYS.items():
        raised = [case for case in cases if BUDGETS & case.settings.keys()]
        for budgets, some in (("default", [with_defaults(case) for case in cases]), ("raised", raised)):
            figures = await look(some, seconds) if some else {}
            for _ in range(AGAIN):
                if slow := [case for case in some if moved(figures, case.name)]:
                    once_more = await look(slow, seconds)
                    figures["cases"] |= {
                        case: min(found, figures["cases"][case], key=lambda one: (one["p99_cpu"], one["longest_cpu"]))
                        for case, found in once_more["cases"].items()
                    }
            if some:
                gateways[f"{name}, {budgets}"] = figures
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    machine = f"{cores} shared cores, load average {load:.0f}, {platform.system()}, Python {platform.python_version()}"
    return {"machine": machine, "gateways": gateways}


def with_defaults(case: Case) -> Case:
    """The case with the budgets that a filter has by default."""
    return replace(case, settings={key: value for key, value in case.settings.items() if key not in BUDGETS})


def moved(figures: Mapping[str, Any], case: str) -> bool:
    """Does the innocent client's p99 of the case differ by more than it should?"""
    return bool(figures["cases"][case]["p99_cpu"] > figures["quiet"]["p99_cpu"] + P99_MOVES)


async def look(cases: Sequence[Case], seconds: float) -> dict[str, Any]:
    """The figures of the cases of one gateway process."""
    async with Arena(cases) as arena:
        found = {}
        for case in cases:
            figures = (await arena.attack(case.name, seconds)).figures
            found[case.name] = shown_figures(figures)
            print(f"{case.name}: {found[case.name]}", flush=True)
        return {"quiet": shown_figures(arena.quiet), "cases": found}


def shown_figures(figures: Figures) -> dict[str, float]:
    return {name: milliseconds(getattr(figures, name)) for name in ("p99", "longest", "p99_cpu", "longest_cpu")}


def milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    if options.measure:
        FIGURES.write_text(json.dumps(asyncio.run(measure(SECONDS)), indent=1) + "\n")
    text = page()
    if options.check:
        if PAGE.read_text() != text:
            print("docs/hostile.md is not what would be written: python -m tests.hostile.page", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
