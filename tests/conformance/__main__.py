"""`python -m tests.conformance [--programs N] [--seed S] [--batch B]`: generated programs on Envoy and on Penstock.

Prints progress, every difference in full, and the command that repeats its batch. Exit status 1 if there is one.
`--cases` runs the written cases instead, `--pin` writes down the differences that waivers allow. `--table` writes what the docs say
of the cases: docs/abi.md and the table of waivers in docs/conformance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from tests.conformance import generated, support, verdict
from tests.conformance.cases.table import CASES
from tests.conformance.programs import generate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--programs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--cases", nargs="?", const="", metavar="NAME", help="the written cases (with NAME in their name)")
    parser.add_argument("--pin", action="store_true", help="with --cases: write tests/conformance/waived")
    parser.add_argument("--table", action="store_true", help="write docs/abi.md and the table of waivers")
    options = parser.parse_args()
    if options.table:
        support.write()
        return 0
    if options.cases is not None:
        return asyncio.run(run_cases(options.cases, options.pin))
    return run_programs(options.programs, options.seed, options.batch)


def run_programs(count: int, seed: int, batch: int) -> int:
    """Batch by batch; batch k of seed s is the programs of seed s + k."""
    started, done, different = time.monotonic(), 0, 0
    while done < count:
        size, number = min(batch, count - done), seed + done // batch
        found = asyncio.run(generated.compare(generate(size, number)))
        done += size
        different += len(found)
        for one in found:
            print(f"\nprogram {one.number} of seed {number}:\n{one.program}")
            print("\n".join(f"    {line}" for line in one.lines))
            print(f"  again: python -m tests.conformance --programs {size} --seed {number} --batch {size}", flush=True)
        rate = done / (time.monotonic() - started)
        print(f"{done}/{count} programs, {different} different, {rate:.0f}/s, seed {number}", flush=True)
    return 1 if different else 0


async def run_cases(part: str, pin: bool) -> int:
    bad = 0
    for one in await verdict.judge([case for case in CASES if part in case.name]):
        if pin and one.case.waiver:
            verdict.WAIVED.mkdir(exist_ok=True)
            path = verdict.WAIVED / f"{one.case.slug}.diff"
            if one.difference:
                path.write_text("".join(f"{line}\n" for line in one.difference), encoding="utf-8")
            else:
                path.unlink(missing_ok=True)
        elif one.difference != verdict.pinned(one.case):
            bad += 1
            print(f"\n{one.case.name} {one.case.scripts}")
            print("\n".join(f"    {line}" for line in one.difference) or "    no difference; the waiver is out of date")
    print(f"{bad} cases differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
