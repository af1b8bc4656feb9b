"""What clients send, whole and byte by byte: one unambiguous request reaches the origin, or none does."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.attacks.cases.client import FAMILIES, Case
from tests.attacks.stage import Stage

BOTH_LOOPS = True
pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = 1000
"""Bytes of a case that is also sent byte by byte."""


def size(case: Case) -> int:
    return (
        len(case.sent) if isinstance(case.sent, bytes) else sum(len(piece) for piece in case.sent if isinstance(piece, bytes))
    )


CASES = [pytest.param(case, id=f"{family}: {case.name}") for family, cases in FAMILIES.items() for case in cases]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    """One gateway for all cases: what one leaves behind, the next would meet."""
    async with Stage() as started:
        yield started


@pytest.mark.parametrize("case", CASES)
async def test_whole(stage: Stage, case: Case) -> None:
    """In one piece."""
    await judge(stage, case, case.answers, bytewise=False)


@pytest.mark.parametrize(
    "case", [param for param in CASES if size(param.values[0]) <= SHORT and param.values[0].bytewise != ()]
)
async def test_bytewise(stage: Stage, case: Case) -> None:
    """Byte by byte: no reading may depend on what arrives together."""
    await judge(stage, case, case.answers if case.bytewise is None else case.bytewise, bytewise=True)


async def judge(stage: Stage, case: Case, answers: tuple[int, ...], *, bytewise: bool) -> None:
    methods = case.methods or (b"GET",) * max(len(answers), 2 if case.bytewise else 1)
    outcome = await stage.play(case.sent, methods, len(answers), bytewise=bytewise, goes_on=case.bytewise is None)
    statuses = tuple(outcome.statuses)
    if bytewise and case.bytewise:
        # What is behind it may come late enough to be refused by itself, or to reset the connection before the answer is read;
        # or early enough after all for both to be refused.
        assert statuses in (answers, (*answers, 400), (), (400,)), outcome.raw
        if statuses == (400,):
            answers = statuses
    else:
        assert statuses == answers, outcome.raw
    if answers == (200,) and not case.reached:
        # The early answer overtakes the body, or on a busy machine does not: then the body is that request's.
        assert outcome.lines in ([], ["POST /early"])
    else:
        assert tuple(outcome.lines) == case.reached[: sum(status < 400 for status in answers)]
    for message in outcome.reached:
        # However often a client said them: the last member is ours.
        assert message.tokens(b"x-forwarded-for")[-1] == b"127.0.0.1"
        assert message.tokens(b"via")[-1] == b"1.1 penstock"
        for line in case.has:
            assert line in message.head
        for text in case.lacks:
            assert text not in message.head
    if case.body is not None and outcome.reached:
        assert outcome.reached[-1].body == case.body
    if not case.reached and len(answers) == 1 and answers[0] >= 400:
        # A refusal is short, closes, and repeats nothing of what was sent.
        assert b"close" in outcome.answers[0].tokens(b"connection")
        assert len(outcome.raw) < 300
