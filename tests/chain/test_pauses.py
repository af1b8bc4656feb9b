"""Pauses on headers, and what continues them: both settings of allow_on_headers_stop_iteration, both directions, from
callbacks and from outside. Each case is what Envoy 1.40 does, unless its name says otherwise."""

import pytest

from proxy.abi.memory import RESPONSE_HEADERS
from tests.chain.doubles import (
    CONT0,
    CONT1,
    DROP,
    GO,
    HOLD,
    HOLD_CONT0,
    HOLD_CONT1,
    WATERMARK,
    Case,
    Scripted,
    Stage,
    Step,
    edit,
    name_of,
    play,
    says,
)

BY_DEFAULT = [
    Case("GET held until it is continued", [Scripted(rqh=[HOLD]), Scripted()], """
        rq!     > A.rqh! | clock=15
        cont0:A > B.rqh! | unclock up!
        """),
    Case("what waited is shown in one piece with its end", [Scripted(rqh=[HOLD]), Scripted()], """
        rq       > A.rqh | clock=15
        rq:one   > |
        rq:two!  > |
        cont0:A  > B.rqh A.rqb:onetwo! B.rqb:onetwo! | unclock up up:onetwo!
        """),
    Case("continued before the body: pieces as they come", [Scripted(rqh=[HOLD])], """
        rq       > A.rqh | clock=15
        cont0:A  > | unclock up
        rq:one!  > A.rqb:one A.rqb:! | up:one up:!
        """),
    Case("continued in the middle", [Scripted(rqh=[HOLD])], """
        rq       > A.rqh | clock=15
        rq:one   > |
        cont0:A  > A.rqb:one | unclock up up:one
        rq:two!  > A.rqb:two A.rqb:! | up:two up:!
        """),
    Case("an empty body: the headers did not end the stream, and their filter gets its last call", [
            Scripted(rqh=[HOLD]), Scripted()], """
        rq       > A.rqh | clock=15
        rq:!     > |
        cont0:A  > B.rqh A.rqb:! B.rqb:! | unclock up up:!
        """),
    Case("filters before the one that pauses go on seeing data", [Scripted(), Scripted(rqh=[HOLD])], """
        rq        > A.rqh B.rqh | clock=15
        rq:one    > A.rqb:one |
        rq:two!   > A.rqb:two A.rqb:! |
        cont0:B   > B.rqb:onetwo! | unclock up up:onetwo!
        """),
    Case("paused on the response: filters nearer the upstream go on", [Scripted(rsh=[HOLD]), Scripted()], """
        rq!      > A.rqh! B.rqh! | up!
        rs       > B.rsh A.rsh | clock=15
        rs:one   > B.rsb:one |
        rs:two   > B.rsb:two |
        cont1:A  > A.rsb:onetwo | unclock down=200 down:onetwo
        rs:!     > B.rsb:! A.rsb:! | down:!
        """),
    Case("headers, then body", [Scripted(rqh=[HOLD], rqb=[HOLD, GO])], """
        rq       > A.rqh | clock=15
        rq:one   > |
        cont0:A  > A.rqb:one | unclock up
        rq:two!  > A.rqb:onetwo A.rqb:! | up:onetwo up:!
        """),
    Case("one after the other", [Scripted(rqh=[HOLD]), Scripted(rqh=[HOLD])], """
        rq       > A.rqh | clock=15
        rq:one!  > |
        cont0:A  > B.rqh A.rqb:one! | unclock clock=15
        cont0:B  > B.rqb:one! | unclock up up:one!
        """),
    Case("A without body callbacks holds data all the same", [Scripted(rqh=[HOLD], bodies=False)], """
        rq       > A.rqh | clock=15
        rq:one!  > |
        cont0:A  > | unclock up up:one!
        """),
    Case("actions 3, 4, 9 pause, 2 goes on", [
            Scripted(rqh=[Step(2)], rsh=[Step(2)]), Scripted(rqh=[Step(3)], rsh=[Step(4)]), Scripted(rqh=[Step(9)])], """
        rq!      > A.rqh! B.rqh! | clock=15
        cont0:B  > C.rqh! | unclock clock=15
        cont0:C  > | unclock up!
        rs!      > C.rsh! B.rsh! | clock=15
        cont1:B  > A.rsh! | unclock down=200!
        """),
    Case("continued in the callback that pauses: it goes on (Envoy hangs)", [
            Scripted(rqh=[HOLD_CONT0], rsh=[HOLD_CONT1])], """
        rq       > A.rqh | up
        rq:one!  > A.rqb:one A.rqb:! | up:one up:!
        rs!      > A.rsh! | down=200!
        """),
    Case("never continued: only the end of the stream", [Scripted(rqh=[HOLD]), Scripted()], """
        rq      > A.rqh | clock=15
        rq:one! > |
        finish  > A.finish B.finish |
        """),
]  # fmt: skip

ALLOWED = [
    Case("GET held until it is continued", [Scripted(allow=True, rqh=[HOLD]), Scripted()], """
        rq!     > A.rqh! | clock=15
        cont0:A > B.rqh! | unclock up!
        """),
    Case("data that goes on takes the headers along", [Scripted(allow=True, rqh=[HOLD]), Scripted()], """
        rq       > A.rqh |
        rq:one   > A.rqb:one B.rqh B.rqb:one | up up:one
        rq:two!  > A.rqb:two B.rqb:two A.rqb:! B.rqb:! | up:two up:!
        """),
    Case("held by B, A before it", [Scripted(), Scripted(allow=True, rqh=[HOLD])], """
        rq       > A.rqh B.rqh |
        rq:one   > A.rqb:one B.rqb:one | up up:one
        """),
    Case("headers and body held to the end", [
            Scripted(allow=True, rqh=[HOLD], rqb=[HOLD, HOLD, GO], rsh=[HOLD], rsb=[HOLD, HOLD, edit(b"NEW")]),
            Scripted()], """
        rq       > A.rqh |
        rq:one   > A.rqb:one |
        rq:two!  > A.rqb:onetwo A.rqb:onetwo! B.rqh B.rqb:onetwo! | up up:onetwo!
        rs       > B.rsh A.rsh |
        rs:one   > B.rsb:one A.rsb:one |
        rs:two!  > B.rsb:two A.rsb:onetwo B.rsb:! A.rsb:onetwo! | down=200 down:NEW!
        """),
    Case("headers and body held, continued from outside", [
            Scripted(allow=True, rqh=[HOLD], rqb=[HOLD] * 3), Scripted()], """
        rq       > A.rqh |
        rq:one   > A.rqb:one |
        rq:two!  > A.rqb:onetwo A.rqb:onetwo! | clock=15
        cont0:A  > B.rqh B.rqb:onetwo! | unclock up up:onetwo!
        """),
    Case("continued from outside while the body comes", [
            Scripted(allow=True, rqh=[HOLD], rqb=[HOLD]), Scripted()], """
        rq       > A.rqh |
        rq:one   > A.rqb:one |
        cont0:A  > B.rqh B.rqb:one | up up:one
        rq:two!  > A.rqb:two B.rqb:two A.rqb:! B.rqb:! | up:two up:!
        """),
    Case("an empty body that goes on", [Scripted(allow=True, rqh=[HOLD]), Scripted()], """
        rq     > A.rqh |
        rq:!   > A.rqb:! B.rqh B.rqb:! | up up:!
        """),
    Case("an empty body that is held", [Scripted(allow=True, rqh=[HOLD], rqb=[HOLD]), Scripted()], """
        rq      > A.rqh |
        rq:!    > A.rqb:! | clock=15
        cont0:A > B.rqh B.rqb:! | unclock up up:!
        """),
    Case("data dropped while the headers wait", [Scripted(allow=True, rqh=[HOLD], rqb=[DROP, DROP])], """
        rq        > A.rqh |
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:two |
        rq:three! > A.rqb:three A.rqb:! | up up:three up:!
        """),
    Case("data under watermark while the headers wait", [Scripted(allow=True, rqh=[HOLD], rqb=[WATERMARK] * 2)], """
        rq      > A.rqh |
        rq:one! > A.rqb:one A.rqb:! | clock=15
        cont0:A > | unclock up up:one!
        """),
    Case("without body callbacks the first data takes the headers along", [
            Scripted(allow=True, rqh=[HOLD], bodies=False), Scripted()], """
        rq      > A.rqh |
        rq:one  > B.rqh B.rqb:one | up up:one
        """),
    Case("action 3 on headers holds everything, allowed or not", [Scripted(allow=True, rqh=[DROP])], """
        rq       > A.rqh | clock=15
        rq:one!  > |
        cont0:A  > A.rqb:one! | unclock up up:one!
        """),
    Case("a later filter pauses on the headers that data took along", [
            Scripted(allow=True, rqh=[HOLD]), Scripted(rqh=[HOLD])], """
        rq       > A.rqh |
        rq:one!  > A.rqb:one B.rqh A.rqb:! | clock=15
        cont0:B  > B.rqb:one! | unclock up up:one!
        """),
]  # fmt: skip

DATA = [
    Case("continued from outside: the filter does not see again what it held", [Scripted(rqb=[HOLD, GO, HOLD]), Scripted()], """
        rq      > A.rqh B.rqh | up
        rq:one  > A.rqb:one |
        cont0:A > B.rqb:one | up:one
        rq:two! > A.rqb:two B.rqb:two A.rqb:! | up:two clock=15
        cont0:A > B.rqb:! | unclock up:!
        """),
    Case("the end held by action 3 is not lost", [Scripted(rqb=[GO, DROP]), Scripted()], """
        rq      > A.rqh B.rqh | up
        rq:one! > A.rqb:one B.rqb:one A.rqb:! | up:one clock=15
        cont0:A > B.rqb:! | unclock up:!
        """),
    Case("a body emptied at its end", [Scripted(rqb=[HOLD, edit(b"", 1)]), Scripted()], """
        rq      > A.rqh B.rqh | up
        rq:one! > A.rqb:one A.rqb:one! | clock=15
        cont0:A > B.rqb:! | unclock up:!
        """),
    Case("the response paused in the middle", [Scripted(), Scripted(rsb=[HOLD])], """
        rq!     > A.rqh! B.rqh! | up!
        rs      > B.rsh A.rsh | down=200
        rs:one  > B.rsb:one |
        cont1:B > A.rsb:one | down:one
        rs:two! > B.rsb:two A.rsb:two B.rsb:! A.rsb:! | down:two down:!
        """),
    Case("held by A into what B holds", [Scripted(rqb=[HOLD]), Scripted(rqb=[HOLD, HOLD])], """
        rq      > A.rqh B.rqh | up
        rq:one  > A.rqb:one |
        cont0:A > B.rqb:one |
        rq:two  > A.rqb:two B.rqb:onetwo |
        cont0:B > | up:onetwo
        """),
]  # fmt: skip

OTHER_WAY = [
    Case("a response callback continues the request", [Scripted(rqb=[HOLD], rsh=[CONT0]), Scripted()], """
        rq      > A.rqh B.rqh | up
        rq:one  > A.rqb:one |
        rs      > B.rsh A.rsh B.rqb:one | up:one down=200
        rq:!    > A.rqb:! B.rqb:! | up:!
        rs:ok!  > B.rsb:ok A.rsb:ok B.rsb:! A.rsb:! | down:ok down:!
        """),
    Case("a request callback continues the response", [Scripted(rqb=[CONT1], rsh=[HOLD])], """
        rq      > A.rqh | up
        rs      > A.rsh | clock=15
        rs:ok   > |
        rq:one  > A.rqb:one A.rsb:ok | unclock down=200 down:ok up:one
        """),
    Case("with the response complete the request's walk is over", [Scripted(rqb=[CONT1], rsh=[HOLD]), Scripted()], """
        rq      > A.rqh B.rqh | up
        rs      > B.rsh A.rsh | clock=15
        rs:ok!  > B.rsb:ok B.rsb:! |
        rq:one! > A.rqb:one A.rsb:ok! | unclock down=200 down:ok!
        """),
    Case("nothing to continue in the other direction (Envoy crashes)", [Scripted(rqh=[CONT1], rsh=[CONT0])], """
        rq! > A.rqh! | up!
        rs! > A.rsh! | down=200!
        """),
    Case("what A lets go of does not overtake what walks already", [
            Scripted(rqb=[GO, HOLD], rsh=[CONT0]), Scripted(rqb=[HOLD]), Scripted(rqb=[CONT1], rsh=[HOLD])], """
        rq      > A.rqh B.rqh C.rqh | up
        rs      > C.rsh | clock=15
        rq:one  > A.rqb:one B.rqb:one |
        rq:two  > A.rqb:two |
        cont0:B > C.rqb:one B.rsh A.rsh B.rqb:two C.rqb:two | unclock down=200 up:one up:two
        """),
]  # fmt: skip


@pytest.mark.parametrize("case", BY_DEFAULT, ids=name_of)
def test_headers_paused_by_default(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", ALLOWED, ids=name_of)
def test_headers_paused_with_allow_on_headers_stop_iteration(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", DATA, ids=name_of)
def test_data_paused(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", OTHER_WAY, ids=name_of)
def test_continued_from_the_other_direction(case: Case) -> None:
    play(case)


def test_double_resume_is_harmless() -> None:
    stage = Stage([Scripted(rqh=[HOLD], rsh=[HOLD]), Scripted()])
    assert stage.line("rq!") == "rq! > A.rqh! | clock=15"
    assert stage.line("cont1:A") == "cont1:A > |"
    assert stage.line("cont0:B") == "cont0:B > |"
    assert stage.line("cont0:A") == "cont0:A > B.rqh! | unclock up!"
    assert stage.line("cont0:A") == "cont0:A > |"
    assert stage.line("rs!") == "rs! > B.rsh! A.rsh! | clock=15"
    assert stage.line("cont1:A") == "cont1:A > | unclock down=200!"
    assert stage.line("cont1:A") == "cont1:A > |"
    stage.line("finish")
    assert stage.line("cont1:A") == "cont1:A > |"


def test_the_server_is_woken_when_there_is_something_to_do() -> None:
    stage = Stage([Scripted(rqh=[HOLD])])
    stage.line("rq!")
    stage.line("cont1:A")
    assert stage.woken == 0
    stage.line("cont0:A")
    assert stage.woken == 1


def test_a_filter_is_told_of_releases_from_outside() -> None:
    """A body callback of its own that lets the headers go leaves their window open, as in Envoy."""
    a = Scripted(allow=True, rqh=[HOLD], rqb=[HOLD, GO], rsh=[HOLD])
    b = Scripted(rsb=[HOLD])
    stage = Stage([a, b])
    for event in ("rq", "rq:one!", "rs", "rs:ok", "cont1:B", "rs:!"):
        stage.line(event)
    assert a.released == 0
    assert b.released == 1


def test_continuing_one_direction_is_told_even_if_nothing_is_held_there() -> None:
    """Envoy's continueStream shuts the request's maps, whatever comes of it."""
    stage = Stage([a := Scripted(rqh=[HOLD])])
    stage.line("rq!")
    stage.line("cont1:A")
    assert a.released == 1
    assert stage.line("cont0:A") == "cont0:A > | unclock up!"
    assert a.released == 2


def test_the_status_with_which_a_response_entered_is_kept_while_its_head_is_in_the_chain() -> None:
    stage = Stage([Scripted(rsh=[HOLD]), Scripted(rqh=[says(403)])])
    stage.line("rq!")
    assert stage.chain.info.entered_status == 403
    stage.memory.set_pairs(RESPONSE_HEADERS, [(b":status", b"201")])
    assert stage.chain.info.entered_status == 403
    stage.line("cont1:A")
    assert stage.chain.info.entered_status == 201  # its body is behind it: filters may edit the head, which has gone on
