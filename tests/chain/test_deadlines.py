"""Pause deadlines: a filter may hold a stream up for so long, and then its policy decides. Envoy has none of this."""

import pytest

from tests.chain.doubles import FAIL, GO, HOLD, Case, Machine, Scripted, Stage, name_of, play

CLOSED = [
    Case("on request headers", [Scripted(), Scripted(rqh=[HOLD]), Scripted()], """
        rq!    > A.rqh! B.rqh! | clock=15
        expire > B.rsh! A.rsh! | answer=filter_pause_timeout unclock down=503!
        """),
    Case("on request data, at its end", [Scripted(rqb=[HOLD] * 2), Scripted()], """
        rq      > A.rqh B.rqh | up
        rq:one  > A.rqb:one |
        rq:!    > A.rqb:one! | clock=15
        expire  > B.rsh! A.rsh! | answer=filter_pause_timeout unclock down=503!
        """),
    Case("on response headers: straight to the client", [Scripted(rsh=[HOLD])], """
        rq!    > A.rqh! | up!
        rs     > A.rsh | clock=15
        expire > | answer=filter_pause_timeout unclock down=503!
        """),
    Case("on response data: cut", [Scripted(rsb=[HOLD] * 2)], """
        rq!    > A.rqh! | up!
        rs     > A.rsh | down=200
        rs:ok! > A.rsb:ok A.rsb:ok! | clock=15
        expire > | reset=filter_pause_timeout unclock
        """),
    Case("it pauses its own 503 too: straight to the client", [Scripted(rqh=[HOLD], rsh=[HOLD])], """
        rq!    > A.rqh! | clock=15
        expire > A.rsh! | answer=filter_pause_timeout unclock clock=15
        expire > | answer=filter_pause_timeout unclock down=503!
        """),
    Case("gRPC", [Scripted(rqh=[HOLD])], """
        rq!    > A.rqh! | clock=15
        expire > A.rsh! | answer=filter_pause_timeout unclock down=200!
        """, {"content_type": b"application/grpc"}),
]  # fmt: skip

OPEN = [
    Case("on request headers", [Scripted(rqh=[HOLD], fails_open=True), Scripted()], """
        rq      > A.rqh | clock=15
        rq:one! > |
        expire  > B.rqh A.rqb:one! B.rqb:one! | unclock up up:one!
        rs!     > B.rsh! A.rsh! | down=200!
        """),
    Case("on response data, at its end", [Scripted(rsb=[HOLD] * 2, fails_open=True)], """
        rq!     > A.rqh! | up!
        rs      > A.rsh | down=200
        rs:one! > A.rsb:one A.rsb:one! | clock=15
        expire  > | unclock down:one!
        """),
    Case("it pauses again: time starts again", [Scripted(rqh=[HOLD], rqb=[HOLD], fails_open=True)], """
        rq      > A.rqh | clock=15
        rq:one! > |
        expire  > A.rqb:one! | unclock up clock=15
        expire  > | unclock up:one!
        """),
    Case("its VM is gone meanwhile", [Scripted(rqh=[HOLD], rsh=[FAIL], fails_open=True, vm=Machine())], """
        rq!    > A.rqh! | clock=15
        expire > | unclock up!
        rs!    > A.rsh! | down=200!
        """),
]  # fmt: skip

WHEN = [
    Case("not while more of the body may come", [Scripted(rqb=[HOLD] * 3)], """
        rq      > A.rqh | up
        rq:one  > A.rqb:one |
        rq:two  > A.rqb:onetwo |
        rq:!    > A.rqb:onetwo! | clock=15
        """),
    Case("let go in time", [Scripted(rqh=[HOLD])], """
        rq!     > A.rqh! | clock=15
        cont0:A > | unclock up!
        expire  > |
        """),
    Case("each filter has its own", [Scripted(rqh=[HOLD], seconds=1), Scripted(rqh=[HOLD], seconds=2.5)], """
        rq!     > A.rqh! | clock=1
        cont0:A > B.rqh! | unclock clock=2.5
        cont0:B > | unclock up!
        """),
    Case("two at once: each in its turn, the one that is late alone pays", [
            Scripted(rqb=[GO, HOLD], fails_open=True, seconds=1), Scripted(rsh=[HOLD], fails_open=True, seconds=2)], """
        rq      > A.rqh B.rqh | up
        rq:one! > A.rqb:one B.rqb:one A.rqb:! | up:one clock=1
        rs      > B.rsh |
        expire  > B.rqb:! | unclock clock=2 up:!
        expire  > A.rsh | unclock down=200
        """),
    Case("two at once, the first let go", [
            Scripted(rqb=[GO, HOLD], seconds=1), Scripted(rsh=[HOLD], fails_open=True, seconds=2)], """
        rq      > A.rqh B.rqh | up
        rq:one! > A.rqb:one B.rqb:one A.rqb:! | up:one clock=1
        rs      > B.rsh |
        cont0:A > B.rqb:! | unclock clock=2 up:!
        cont1:B > A.rsh | unclock down=200
        """),
    Case("two at once, the second let go", [
            Scripted(rqb=[GO, HOLD], seconds=1), Scripted(rsh=[HOLD], fails_open=True, seconds=2)], """
        rq      > A.rqh B.rqh | up
        rq:one! > A.rqb:one B.rqb:one A.rqb:! | up:one clock=1
        rs      > B.rsh |
        cont1:B > A.rsh | down=200
        cont0:A > B.rqb:! | unclock up:!
        """),
]  # fmt: skip


@pytest.mark.parametrize("case", CLOSED, ids=name_of)
def test_fail_closed(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", OPEN, ids=name_of)
def test_fail_open(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", WHEN, ids=name_of)
def test_when_it_runs(case: Case) -> None:
    play(case)


def test_the_late_filter_is_told_on() -> None:
    a, b = Scripted(rqb=[GO, HOLD], fails_open=True), Scripted(rsh=[HOLD], fails_open=True)
    stage = Stage([a, b])
    for event in ("rq", "rq:one!", "rs", "expire"):
        stage.line(event)
    assert (a.complaints, b.complaints) == (1, 0)
    stage.line("expire")
    stage.line("expire")
    assert (a.complaints, b.complaints) == (1, 1)
