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
from pathlib import Path

from tests.hostile.arena import Arena
from tests.hostile.case import FAMILIES, Case
from tests.hostile.corpus import CASES, GATEWAYS
from tests.hostile.interpreter import ALLOCATOR_MODES, CALLBACKS, FUNCTIONS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "hostile.md"
FIGURES = Path(__file__).with_name("figures.json")
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
        f"What the innocent client saw ({kept['machine']}; milliseconds; a request every 4 ms).",
        "Budgets were the cases' own: some give their filter a hundred times the default, to let it go further. By default a callback may",
        "take 25 ms of CPU, and others wait for so long. The column `quiet` is the same client before any attack: what the machine added.",
        "",
        "| gateway | quiet: p99, longest | p99 of the median case | of the worst case | longest wait of all |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, figures in kept["gateways"].items():
        p99 = sorted(one["p99"] for one in figures["cases"].values())
        worst = max(figures["cases"], key=lambda case: figures["cases"][case]["p99"])
        longest = max(figures["cases"], key=lambda case: figures["cases"][case]["longest"])
        lines.append(
            f"| {name} | {figures['quiet']['p99']}, {figures['quiet']['longest']} | {p99[len(p99) // 2]} | {p99[-1]} ({worst}) "
            f"| {figures['cases'][longest]['longest']} ({longest}) |"
        )
    return "\n".join(lines) + "\n"


def rows(cases: list[Case]) -> str:
    return "".join(f"| {case.name} | {cell(case.tries)} | {cell(case.outcome)} |\n" for case in cases)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


async def measure() -> dict[str, object]:
    """The innocent client's figures in every case, in milliseconds."""
    gateways: dict[str, object] = {}
    for name, cases in GATEWAYS.items():
        async with Arena(cases) as arena:
            found = {}
            for case in cases:
                figures = (await arena.attack(case.name)).figures
                found[case.name] = {"p99": milliseconds(figures.p99), "longest": milliseconds(figures.longest)}
                print(f"{name}: {case.name}: {found[case.name]}", flush=True)
            quiet = {"p99": milliseconds(arena.quiet.p99), "longest": milliseconds(arena.quiet.longest)}
            gateways[name] = {"quiet": quiet, "cases": found}
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    machine = f"{cores} shared cores, load average {load:.0f}, {platform.system()}, Python {platform.python_version()}"
    return {"machine": machine, "gateways": gateways}


def milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    if options.measure:
        FIGURES.write_text(json.dumps(asyncio.run(measure()), indent=1) + "\n")
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
