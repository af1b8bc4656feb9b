"""Whether a case held: what is wrong with an outcome, in words."""

from __future__ import annotations

import json

from tests.hostile.arena import FEWEST, Outcome
from tests.hostile.case import Case

LONGEST_WAIT = 1.0
"""Seconds that the innocent client may ever wait. What is promised is 0.05: a busy machine makes its clients wait, too, so the
test allows more, and figures.json keeps what was measured on a quiet one."""
LONGEST_LINE = 8192
"""Characters of a log line, as JSON: a filter's is cut at 1 KiB, and a control character is six of these."""
DEFECTS = ("host_function_failed", "stream failed by a defect", "on_queue_ready failed", "process died", "worker hangs: killed")


def problems(case: Case, outcome: Outcome) -> list[str]:
    """What does not hold; empty if everything does."""
    found = []
    if not outcome.alive:
        found.append("the worker died")
    figures = outcome.figures
    if figures.failures:
        found.append(f"{len(figures.failures)} innocent requests failed: {figures.failures[0]}")
    if figures.requests < FEWEST:
        found.append(f"the innocent client got only {figures.requests} answers")
    if figures.longest > LONGEST_WAIT:
        found.append(f"the innocent client waited {figures.longest:.3f} s")
    if figures.growth > case.growth:
        found.append(f"the worker grew by {figures.growth:.0f} MiB, more than {case.growth}")
    wrong = [answer for answer in outcome.answers if answer not in case.answers]
    if wrong:
        found.append(f"the guilty client got {wrong[0]}, not one of {sorted(case.answers)}")
    if set(outcome.reasons) - case.reasons or bool(outcome.reasons) != bool(case.reasons):
        found.append(f"failures were counted as {outcome.reasons}, expected {sorted(case.reasons)}")
    if outcome.logged != outcome.reasons:
        found.append(f"failures were logged as {outcome.logged}, counted as {outcome.reasons}")
    for name in case.counted:
        if not any(risen.startswith(name) for risen in outcome.risen):
            found.append(f"{name} did not rise; what rose: {sorted(outcome.risen)}")
    for event in case.logged:
        if event not in outcome.events:
            found.append(f"{event} was not logged; what was: {sorted(outcome.events)}")
    for line in outcome.lines:
        if "level" not in line:
            found.append(f"a line of the log is no JSON: {line['event'][:100]!r}")
        elif line["event"] in DEFECTS:
            found.append(f"logged: {line}")
        elif len(json.dumps(line)) > LONGEST_LINE:
            found.append(f"a line of the log has {len(json.dumps(line))} characters: {str(line)[:200]}")
    return found
