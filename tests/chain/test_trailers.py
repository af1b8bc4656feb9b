"""Trailers on their way. Each case is what Envoy 1.40 does, unless its name says otherwise; those with a wire are in
tests/conformance/cases/trailers.py."""

import pytest

from tests.chain.doubles import (
    CONT1,
    DROP,
    FAIL,
    HOLD,
    HOLD_CONT0,
    WATERMARK,
    Case,
    Scripted,
    Step,
    begins,
    edit,
    name_of,
    play,
    says,
)

TOO_LARGE = """
    rq       > A.rqh B.rqh | up
    rq:one   > A.rqb:one |
    rqt:x    > A.rqt:x/one B.rsh A.rsh B.rsb:Payload_Too_Large! A.rsb:Payload_Too_Large! | \
        answer=request_payload_too_large down=413 down:Payload_Too_Large!
    """

CASES = [
    Case("no filters", [], """
        rq       > | up
        rq:one   > | up:one
        rqt:x    > | upt:x
        rs       > | down=200
        rst:y    > | downt:y
        """),
    Case("they walk as data does, and no data callback ends", [Scripted(), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one B.rqb:one | up:one
        rqt:x    > A.rqt:x B.rqt:x | upt:x
        rs       > B.rsh A.rsh | down=200
        rs:ok    > B.rsb:ok A.rsb:ok | down:ok
        rst:y    > B.rst:y A.rst:y | downt:y
        """),
    Case("right behind the headers", [Scripted()], """
        rq       > A.rqh | up
        rqt:x    > A.rqt:x | upt:x
        """),
    Case("filters without body callbacks see them", [Scripted(bodies=False)], """
        rq       > A.rqh | up
        rq:one   > | up:one
        rqt:x    > A.rqt:x | upt:x
        """),
    Case("a pause, continued from outside", [Scripted(rqt=[HOLD]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one B.rqb:one | up:one
        rqt:x    > A.rqt:x | clock=15
        cont0:A  > B.rqt:x | unclock upt:x
        cont0:A  > |
        """),
    Case("any other action is a pause", [Scripted(rqt=[Step(2)]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rqt:x    > A.rqt:x | clock=15
        cont0:A  > B.rqt:x | unclock upt:x
        """),
    Case("continued in the callback that pauses", [Scripted(rqt=[HOLD_CONT0])], """
        rq       > A.rqh | up
        rqt:x    > A.rqt:x | upt:x
        """),
    Case("they let go of a body that was buffered, which their callback may read", [Scripted(rqb=[HOLD, HOLD]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one |
        rq:two   > A.rqb:onetwo |
        rqt:x    > A.rqt:x/onetwo B.rqb:onetwo B.rqt:x | up:onetwo upt:x
        """),
    Case("and edit", [Scripted(rsb=[HOLD], rst=[edit(b"new")])], """
        rq!      > A.rqh! | up!
        rs       > A.rsh | down=200
        rs:ok    > A.rsb:ok |
        rst:y    > A.rst:y/ok | down:new downt:y
        """),
    Case("but not make larger than it may be", [Scripted(rqb=[HOLD], rqt=[edit(b"x" * 17)]), Scripted()], TOO_LARGE),
    Case("they let go of a body held by action 2, unseen", [Scripted(rqb=[WATERMARK]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one |
        rqt:x    > A.rqt:x B.rqb:one B.rqt:x | up:one upt:x
        """),
    Case("what was thrown away stays so", [Scripted(rqb=[DROP]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one |
        rqt:x    > A.rqt:x B.rqt:x | upt:x
        """),
    Case("body and trailers held", [Scripted(rqb=[HOLD], rqt=[HOLD]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one |
        rqt:x    > A.rqt:x/one | clock=15
        cont0:A  > B.rqb:one B.rqt:x | unclock up:one upt:x
        """),
    Case("unseen while headers are held", [Scripted(rqh=[HOLD]), Scripted()], """
        rq       > A.rqh | clock=15
        rq:one   > |
        rqt:x    > |
        cont0:A  > B.rqh A.rqb:one B.rqb:one A.rqt:x B.rqt:x | unclock up up:one upt:x
        """),
    Case("headers alone held: they let go of them", [Scripted(rqh=[HOLD], rqb=[HOLD], allow=True), Scripted()], """
        rq       > A.rqh |
        rq:one   > A.rqb:one |
        rqt:x    > A.rqt:x/one B.rqh B.rqb:one B.rqt:x | up up:one upt:x
        """),
    Case("headers alone held, no body", [Scripted(rqh=[HOLD], allow=True), Scripted()], """
        rq       > A.rqh |
        rqt:x    > A.rqt:x B.rqh B.rqt:x | up upt:x
        """),
    Case("a later filter holds what an earlier one lets go of", [Scripted(rqb=[HOLD]), Scripted(rqb=[HOLD])], """
        rq       > A.rqh B.rqh | up
        rq:one   > A.rqb:one |
        rqt:x    > A.rqt:x/one B.rqb:one B.rqt:x/one | up:one upt:x
        """),
    Case("begun in the last data callback: for the filters behind", [Scripted(rqb=[begins(b"own")]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:!     > A.rqb:! B.rqb: B.rqt:own | upt:own
        """),
    Case("begun and empty", [Scripted(rqb=[begins(b"")]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:!     > A.rqb:! B.rqb: B.rqt: | upt:
        """),
    Case("begun before a filter that holds the body", [Scripted(rqb=[Step(), begins(b"own")]), Scripted(rqb=[HOLD, HOLD])], """
        rq       > A.rqh B.rqh | up
        rq:one!  > A.rqb:one B.rqb:one A.rqb:! B.rqb:one B.rqt:own/one | up:one upt:own
        """),
    Case("begun before a filter that holds everything", [Scripted(rqb=[begins(b"own")]), Scripted(rqh=[HOLD])], """
        rq       > A.rqh B.rqh | clock=15
        rq:!     > A.rqb:! |
        cont0:B  > B.rqt:own | unclock up upt:own
        """),
    Case("begun in a response before a filter that holds: they wait, and pass it by", [
        Scripted(rsb=[HOLD, HOLD]), Scripted(rsb=[Step(), begins(b"own")]),
    ], """
        rq!      > A.rqh! B.rqh! | up!
        rs       > B.rsh A.rsh | down=200
        rs:one!  > B.rsb:one A.rsb:one B.rsb:! A.rsb:one | clock=15
        cont1:A  > | unclock down:one downt:own
        """),
    Case("or lets go of it", [Scripted(), Scripted(rsb=[HOLD]), Scripted(rsb=[Step(), begins(b"own")])], """
        rq!      > A.rqh! B.rqh! C.rqh! | up!
        rs       > C.rsh B.rsh A.rsh | down=200
        rs:one!  > C.rsb:one B.rsb:one C.rsb:! B.rsb:one A.rsb:one A.rst:own | down:one downt:own
        """),
    Case("begun by who held all: it has their callback too", [Scripted(rqh=[HOLD], rqb=[begins(b"own")]), Scripted()], """
        rq       > A.rqh | clock=15
        rq:one!  > |
        cont0:A  > B.rqh A.rqb:one! B.rqb:one A.rqt:own B.rqt:own | unclock up up:one upt:own
        """),
    Case("begun by who pauses: they wait (in Envoy they overtake)", [Scripted(rqb=[HOLD, begins(b"own", 1)]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rq:one!  > A.rqb:one A.rqb:one! | clock=15
        cont0:A  > B.rqb:one B.rqt:own | unclock up:one upt:own
        """),
    Case("begun in a local reply", [Scripted(), Scripted(rqh=[says(403, b"no")], rsb=[begins(b"own")])], """
        rq!      > A.rqh! B.rqh! B.rsh A.rsh B.rsb:no! A.rsb:no A.rst:own | answer=d down=403 down:no downt:own
        """),
    Case("a local reply from them", [Scripted(rqt=[says(403, b"no")]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rqt:x    > A.rqt:x B.rsh A.rsh B.rsb:no! A.rsb:no! | answer=d down=403 down:no!
        """),
    Case("a local reply from a response's: it is cut", [Scripted(rst=[says(403)])], """
        rq!      > A.rqh! | up!
        rs       > A.rsh | down=200
        rst:y    > A.rst:y | reset=d
        """),
    Case("a fault in them", [Scripted(rqt=[FAIL]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rqt:x    > A.rqt:x B.rsh! | answer=wasm_fail_stream down=503!
        """),
    Case("a fault in them, failing open", [Scripted(rqt=[FAIL], fails_open=True), Scripted()], """
        rq       > A.rqh B.rqh | up
        rqt:x    > A.rqt:x B.rqt:x | upt:x
        """),
    Case("they continue the response", [Scripted(rsh=[HOLD], rqt=[CONT1]), Scripted()], """
        rq       > A.rqh B.rqh | up
        rs       > B.rsh A.rsh | clock=15
        rqt:x    > A.rqt:x B.rqt:x | unclock down=200 upt:x
        """),
    Case("nothing after the answer", [Scripted()], """
        rq       > A.rqh | up
        local:413 > A.rsh A.rsb:body! | answer=local down=413 down:body!
        rqt:x    > |
        """),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_trailers(case: Case) -> None:
    play(case)
