"""Compares outcomes: the difference of a case as lines, `-` for what only Envoy has and `+` for what only Penstock has."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.case import Case, Outcome
from tests.conformance.sides import on_envoy, on_penstock

WAIVED = Path(__file__).parent / "waived"
BATCH = 40
AGAIN = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """`difference` is empty where both sides agree."""

    case: Case
    difference: tuple[str, ...]
    envoy: Outcome
    penstock: Outcome


def difference(envoy: Outcome, penstock: Outcome) -> tuple[str, ...]:
    """Section by section, so that a line is not taken for another's."""
    found: list[str] = []
    for ours, theirs in (
        (penstock.client, envoy.client),
        (penstock.upstream, envoy.upstream),
        (penstock.log, envoy.log),
        (penstock.access, envoy.access),
        (penstock.metrics, envoy.metrics),
    ):
        matcher = difflib.SequenceMatcher(None, theirs, ours, autojunk=False)
        for tag, a, b, c, d in matcher.get_opcodes():
            if tag != "equal":
                found += [f"- {line}" for line in theirs[a:b]] + [f"+ {line}" for line in ours[c:d]]
    return tuple(line.replace("\n", "\\n").replace("\r", "\\r").replace("\ufffd", "?") for line in found)


async def judge(cases: Sequence[Case]) -> list[Verdict]:
    """Runs the cases on both sides. What depends on which packets arrive together, and on how busy the machine is, is asked
    up to twice more: a difference counts if it shows each time."""
    verdicts = await ask(cases)
    for _ in range(AGAIN):
        doubtful = [i for i, one in enumerate(verdicts) if one.difference != pinned(one.case)]
        for i, one in zip(doubtful, await ask([verdicts[i].case for i in doubtful]), strict=True):
            verdicts[i] = one
    return verdicts


async def ask(cases: Sequence[Case]) -> list[Verdict]:
    """Once, in batches."""
    verdicts = []
    for start in range(0, len(cases), BATCH):
        batch = cases[start : start + BATCH]
        envoy = await on_envoy(batch)
        penstock = await on_penstock(batch)
        verdicts += [
            Verdict(case, difference(theirs, ours), theirs, ours)
            for case, theirs, ours in zip(batch, envoy, penstock, strict=True)
        ]
    return verdicts


def pinned(case: Case) -> tuple[str, ...]:
    """The difference that the case's waiver allows: all of it, and nothing else."""
    if not case.waiver:
        return ()
    path = WAIVED / f"{case.slug}.diff"
    return tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n")) if path.exists() else ()
