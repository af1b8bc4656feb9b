"""Bodies on their way: order, pauses on data, edits. Each case is what Envoy 1.40 does, unless its name says otherwise."""

import pytest

from tests.chain.doubles import (
    DROP,
    GO,
    HOLD,
    HOLD_CONT0,
    HOLD_CONT1,
    WATERMARK,
    Case,
    Scripted,
    edit,
    name_of,
    play,
)

CASES = [
    Case("no filters", [], """
        rq       > | up
        rq:one   > | up:one
        rq:two!  > | up:two!
        rs       > | down=200
        rs:ok!   > | down:ok!
        finish   > |
        """),
    Case("the request walks A B, the response B A; the end is a piece of its own", [Scripted(), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one B.rqb:one | up:one
        rq:two!  > A.rqb:two B.rqb:two A.rqb:! B.rqb:! | up:two up:!
        rs       > B.rsh A.rsh | down=200
        rs:ok!   > B.rsb:ok A.rsb:ok B.rsb:! A.rsb:! | down:ok down:!
        finish   > A.finish B.finish |
        """),
    Case("no bodies: the headers end the stream", [Scripted(), Scripted()], """
        rq!  > A.rqh! B.rqh! | up!
        rs!  > B.rsh! A.rsh! | down=200!
        """),
    Case("a filter without body callbacks is passed by", [Scripted(bodies=False), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one!  > B.rqb:one B.rqb:! | up:one up:!
        """),
    Case("no filter with body callbacks: pieces stay whole", [Scripted(bodies=False)], """
        rq       > A.rqh | up
        rq:one!  > | up:one!
        rs       > A.rsh | down=200
        rs:ok!   > | down:ok!
        """),
    Case("a piece of nothing is nothing", [Scripted()], """
        rq   > A.rqh | up
        rq:  > |
        rq:! > A.rqb:! | up:!
        """),
    Case("buffer all but the end: the last call has the whole body", [Scripted(rqb=[HOLD, HOLD, HOLD, GO])], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:onetwo |
        rq:three! > A.rqb:onetwothree A.rqb:onetwothree! | up:onetwothree!
        """),
    Case("buffer the first piece only: what follows is new pieces", [Scripted(rqb=[HOLD, GO])], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:onetwo | up:onetwo
        rq:three! > A.rqb:three A.rqb:! | up:three up:!
        """),
    Case("buffer the response: its head has gone", [Scripted(rsb=[HOLD, HOLD, GO])], """
        rq!      > A.rqh! | up!
        rs       > A.rsh | down=200
        rs:one   > A.rsb:one |
        rs:two!  > A.rsb:onetwo A.rsb:onetwo! | down:onetwo!
        """),
    Case("A buffers: B sees one piece", [Scripted(rqb=[HOLD, HOLD, HOLD, GO]), Scripted()], """
        rq        > A.rqh B.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:onetwo |
        rq:three! > A.rqb:onetwothree A.rqb:onetwothree! B.rqb:onetwothree! | up:onetwothree!
        """),
    Case("B buffers: A sees each piece once", [Scripted(), Scripted(rqb=[HOLD, HOLD, GO])], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one B.rqb:one |
        rq:two!  > A.rqb:two B.rqb:onetwo A.rqb:! B.rqb:onetwo! | up:onetwo!
        """),
    Case("watermark: each call has what is new, all goes on in one piece", [Scripted(rqb=[WATERMARK] * 3)], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:two |
        rq:three! > A.rqb:three A.rqb:! | up:onetwothree!
        """),
    Case("watermark, then buffer: from then on all of it is shown", [Scripted(rqb=[WATERMARK, HOLD, GO])], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:two |
        rq:three! > A.rqb:onetwothree A.rqb:! | up:onetwothree up:!
        """),
    Case("buffer, then watermark: from then on what is new is shown", [Scripted(rqb=[HOLD, WATERMARK, GO])], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:onetwo |
        rq:three! > A.rqb:three A.rqb:! | up:onetwothree up:!
        """),
    Case("action 3 drops what it saw", [Scripted(rqb=[DROP, DROP, GO])], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:two |
        rq:three! > A.rqb:three A.rqb:! | up:three up:!
        """),
    Case("higher actions are action 3", [Scripted(rqb=[DROP._replace(action=9), GO])], """
        rq       > A.rqh | up
        rq:one   > A.rqb:one |
        rq:two!  > A.rqb:two A.rqb:! | up:two up:!
        """),
    Case("action 3 behind a buffer drops nothing", [Scripted(rqb=[HOLD, DROP, GO]), Scripted()], """
        rq        > A.rqh B.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:onetwo |
        rq:three! > A.rqb:three B.rqb:onetwothree A.rqb:! B.rqb:! | up:onetwothree up:!
        """),
    Case("buffer, action 3, buffer", [Scripted(rqb=[HOLD, DROP, HOLD, GO])], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:onetwo |
        rq:three! > A.rqb:three A.rqb:onetwothree! | up:onetwothree!
        """),
    Case("action 3 behind a watermark drops the new piece alone", [Scripted(rqb=[WATERMARK, DROP, GO])], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:two |
        rq:three! > A.rqb:three A.rqb:! | up:onethree up:!
        """),
    Case("edits go on to the next filter", [Scripted(rqb=[edit(b"ONE!?"), edit(b"tail")]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one!  > A.rqb:one B.rqb:ONE!? A.rqb:! B.rqb:tail! | up:ONE!? up:tail!
        """),
    Case("an emptied piece still reaches the next filter", [Scripted(rqb=[edit(b"")]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one B.rqb: |
        rq:two!  > A.rqb:two B.rqb:two A.rqb:! B.rqb:! | up:two up:!
        """),
    Case("the next filter fills an emptied piece", [Scripted(rsb=[edit(b"new")]), Scripted(rsb=[edit(b"")])], """
        rq!     > A.rqh! B.rqh! | up!
        rs      > B.rsh A.rsh | down=200
        rs:one  > B.rsb:one A.rsb: | down:new
        """),
    Case("edits while buffering: the next call has the edited bytes", [
            Scripted(rqb=[edit(b"X", 1), edit(b"YXtwo", 1), HOLD, edit(b"FINAL")])], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:Xtwo |
        rq:three! > A.rqb:YXtwothree A.rqb:YXtwothree! | up:FINAL!
        """),
    Case("emptied while buffering", [Scripted(rqb=[HOLD, edit(b"", 1), HOLD, GO])], """
        rq        > A.rqh | up
        rq:one    > A.rqb:one |
        rq:two    > A.rqb:onetwo |
        rq:three! > A.rqb:three A.rqb:three! | up:three!
        """),
    Case("an edit under watermark is what is held", [Scripted(rqb=[edit(b"X", 2), edit(b"Y", 2)])], """
        rq       > A.rqh | up
        rq:one   > A.rqb:one |
        rq:two   > A.rqb:two |
        rq:!     > A.rqb:! | up:XY!
        """),
    Case("both filters edit both pieces", [Scripted(rsb=[edit(b"AA")] * 2), Scripted(rsb=[edit(b"BBB")] * 2)], """
        rq!     > A.rqh! B.rqh! | up!
        rs      > B.rsh A.rsh | down=200
        rs:ok!  > B.rsb:ok A.rsb:BBB B.rsb:! A.rsb:BBB! | down:AA down:AA!
        """),
    Case("continue in the callback that pauses: it goes on (Envoy: lost unless there is a hold)", [
            Scripted(rqb=[HOLD_CONT0, HOLD, HOLD_CONT0], rsb=[HOLD_CONT1])], """
        rq      > A.rqh | up
        rq:one  > A.rqb:one | up:one
        rq:two  > A.rqb:two |
        rq:!    > A.rqb:two! | up:two!
        rs      > A.rsh | down=200
        rs:ok   > A.rsb:ok | down:ok
        """),
    Case("a response that is complete ends the stream, whatever the request does", [Scripted(rqb=[HOLD] * 9)], """
        rq      > A.rqh | up
        rq:one  > A.rqb:one |
        rs      > A.rsh | down=200
        rs:ok!  > A.rsb:ok A.rsb:! | down:ok down:!
        rq:two! > |
        cont0:A > |
        finish  > A.finish |
        """),
    Case("while an early response is under way the request goes on", [Scripted()], """
        rq      > A.rqh | up
        rs      > A.rsh | down=200
        rq:one  > A.rqb:one | up:one
        rs:ok   > A.rsb:ok | down:ok
        rq:!    > A.rqb:! | up:!
        rs:!    > A.rsb:! | down:!
        """),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_bodies(case: Case) -> None:
    play(case)
