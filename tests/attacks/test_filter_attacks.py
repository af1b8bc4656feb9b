"""What filters write: one unambiguous message leaves the gateway on either side, or an error, or the connection is cut."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.attacks.cases.filter import FAMILIES, Case, request
from tests.attacks.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROBE = Path(__file__).parents[1] / "conformance" / "probe" / "probe.wasm"
FILTER = {
    "name": "attacker",
    "wasm": str(PROBE),
    "config": "name A\nfrom x-script\ncalled: eff stream; cont 0",
    "fuel": 10**9,
    "deadline": "10s",
    "limits": {"header_bytes": "1MiB", "headers": 1000, "log_lines": "100000/s", "pause": "3s"},
    "capabilities": {"allowed_hosts": ["cluster:callee"]},
}
LARGE = {"limits": {"field": "128KiB", "line": "128KiB", "head": "256KiB"}}
CASES = [pytest.param(family, case, id=f"{family}: {case.name}") for family, cases in FAMILIES.items() for case in cases]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    """One gateway with the attacker in its chain."""
    async with Stage(filters=[FILTER], listener=LARGE) as started:
        yield started


@pytest.mark.parametrize(("family", "case"), CASES)
async def test_filter(stage: Stage, family: str, case: Case) -> None:
    """The answer, what the origin got, and what the origin of the filter's calls got."""
    stage.callee.forget()
    sent, method = request(case.sent, case.target, case.script)
    outcome = await stage.play(sent, [method])
    assert tuple(outcome.statuses) == case.answers, outcome.raw
    assert tuple(outcome.lines) == case.reached
    if not case.answers:
        # What came of the response is no whole one, whichever way its end is read.
        assert outcome.ended == "reset"
    await stage.callee.settled()
    assert [recording.error for recording in stage.callee.connections if recording.error] == []
    assert tuple(message.line for message in stage.callee.requests) == case.callee
    for message in outcome.reached if family.startswith("Request") else outcome.answers:
        for line in case.has:
            assert line in message.head
        for text in case.lacks:
            assert text not in message.head.lower()
        if case.body is not None:
            assert message.body == case.body
