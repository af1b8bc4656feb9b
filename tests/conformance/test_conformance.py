"""Envoy is the judge: the written cases and a sample of generated programs, on both sides."""

from __future__ import annotations

import pytest

from tests.conformance import generated, verdict
from tests.conformance.case import Case
from tests.conformance.cases.table import CASES, WAIVERS
from tests.conformance.programs import generate

GROUPS = [CASES[start : start + verdict.BATCH] for start in range(0, len(CASES), verdict.BATCH)]


def test_the_table_is_sound() -> None:
    assert len({case.slug for case in CASES}) == len(CASES)
    unused = [one.name for one in WAIVERS if not any(one.holds_for(case) for case in CASES)]
    assert not unused


@pytest.mark.envoy
@pytest.mark.timeout(180)
@pytest.mark.parametrize("cases", GROUPS, ids=lambda group: group[0].slug)
async def test_written_cases(cases: list[Case]) -> None:
    verdicts = await verdict.judge(cases)
    wrong = [one for one in verdicts if one.difference != verdict.pinned(one.case)]
    assert not wrong, "\n\n".join(f"{one.case.name}\n" + "\n".join(one.difference) for one in wrong)


@pytest.mark.envoy
@pytest.mark.timeout(180)
async def test_generated_programs() -> None:
    # One seed, so that a run says something of the change that it runs for; `make conformance` looks further.
    number = 3
    found = await generated.compare(generate(300, number))
    assert not found, f"seed {number}\n" + "\n\n".join(f"{one.program}\n" + "\n".join(one.lines) for one in found)


def test_no_two_programs_are_alike() -> None:
    assert len(set(map(str, generate(100, 5)))) == 100


def test_the_same_seed_makes_the_same_programs() -> None:
    assert generate(20, 7) == generate(20, 7) != generate(20, 8)
