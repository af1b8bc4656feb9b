"""Local replies: whose callbacks see them, by the phase they are made in. Each case is what Envoy 1.40 does, unless its
name says otherwise."""

import pytest

from tests.chain.doubles import (
    CLOSE0,
    CLOSE1,
    CONT1,
    GO,
    HOLD,
    Case,
    Scripted,
    Stage,
    edit,
    name_of,
    play,
    says,
)

BEFORE_THE_RESPONSE = [
    Case("from request headers: B and A see it, all headers first; C never saw the request", [
            Scripted(), Scripted(rqh=[says(403)]), Scripted()], """
        rq!     > A.rqh! B.rqh! B.rsh A.rsh B.rsb:body! A.rsb:body! | answer=d down=403 down:body!
        finish  > A.finish B.finish C.finish |
        """),
    Case("the action returned with it changes nothing", [Scripted(rqh=[says(403, action=0)]), Scripted()], """
        rq!     > A.rqh! A.rsh A.rsb:body! | answer=d down=403 down:body!
        """),
    Case("an empty body: the headers end it", [Scripted(rqh=[says(403, b"")])], """
        rq!     > A.rqh! A.rsh! | answer=d down=403!
        """),
    Case("HEAD", [Scripted(rqh=[says(403)])], """
        rq!     > A.rqh! A.rsh! | answer=d down=403!
        """, {"method": "HEAD"}),
    Case("gRPC: 200 without a body", [Scripted(rqh=[says(403)])], """
        rq!     > A.rqh! A.rsh! | answer=d down=200!
        """, {"content_type": b"application/grpc"}),
    Case("204 keeps its body callback; the server drops the body", [Scripted(rqh=[says(204)])], """
        rq!     > A.rqh! A.rsh A.rsb:body! | answer=d down=204 down:body!
        """),
    Case("the rest of the request has no reader", [Scripted(), Scripted(rqh=[says(403)])], """
        rq       > A.rqh B.rqh B.rsh A.rsh B.rsb:body! A.rsb:body! | answer=d down=403 down:body!
        rq:one!  > |
        """),
    Case("from request data: the headers are upstream, C takes part", [
            Scripted(), Scripted(rqb=[says(403)]), Scripted()], """
        rq      > A.rqh B.rqh C.rqh | up
        rq:one  > A.rqb:one B.rqb:one C.rsh B.rsh A.rsh C.rsb:body! B.rsb:body! A.rsb:body! | answer=d down=403 down:body!
        rq:two! > |
        """),
    Case("from request data, the headers held: C takes no part", [
            Scripted(), Scripted(allow=True, rqh=[HOLD], rqb=[says(403)]), Scripted()], """
        rq      > A.rqh B.rqh |
        rq:one  > A.rqb:one B.rqb:one B.rsh A.rsh B.rsb:body! A.rsb:body! | answer=d down=403 down:body!
        """),
    Case("from request data at its end, after buffering", [
            Scripted(), Scripted(rqb=[HOLD, HOLD, says(403)]), Scripted()], """
        rq      > A.rqh B.rqh C.rqh | up
        rq:one  > A.rqb:one B.rqb:one |
        rq:two! > A.rqb:two B.rqb:onetwo A.rqb:! B.rqb:onetwo! C.rsh B.rsh A.rsh C.rsb:body! B.rsb:body! A.rsb:body! \
                | answer=d down=403 down:body!
        """),
    Case("from request headers that A's data took along", [
            Scripted(allow=True, rqh=[HOLD]), Scripted(rqh=[says(403)])], """
        rq      > A.rqh |
        rq:one! > A.rqb:one B.rqh B.rsh A.rsh B.rsb:body! A.rsb:body! | answer=d down=403 down:body!
        """),
    Case("from request headers that A has let go of, with data", [Scripted(rqh=[HOLD]), Scripted(rqh=[says(403)])], """
        rq      > A.rqh | clock=15
        rq:one! > |
        cont0:A > B.rqh B.rsh A.rsh B.rsb:body! A.rsb:body! | unclock answer=d down=403 down:body!
        """),
    Case("from outside, the request paused", [Scripted(), Scripted(rqh=[HOLD], tick=says(403)), Scripted()], """
        rq      > A.rqh B.rqh | clock=15
        reply:B > B.rsh A.rsh B.rsb:body! A.rsb:body! | answer=d unclock down=403 down:body!
        cont0:B > |
        """),
    Case("from outside, waiting for the upstream", [Scripted(), Scripted(tick=says(403)), Scripted()], """
        rq!     > A.rqh! B.rqh! C.rqh! | up!
        reply:B > C.rsh B.rsh A.rsh C.rsb:body! B.rsb:body! A.rsb:body! | answer=d down=403 down:body!
        """),
    Case("the gateway's own: the filters that saw the request", [Scripted(), Scripted()], """
        rq!       > A.rqh! B.rqh! | up!
        local:504 > B.rsh A.rsh B.rsb:body! A.rsb:body! | answer=local down=504 down:body!
        """),
    Case("the gateway's own, no filter reached", [Scripted()], """
        local:413 > | answer=local down=413 down:body!
        finish    > A.finish |
        """),
    Case("the gateway's own, one filter reached", [Scripted(rqh=[HOLD]), Scripted()], """
        rq!       > A.rqh! | clock=15
        local:408 > A.rsh A.rsb:body! | answer=local unclock down=408 down:body!
        """),
    Case("without filters", [], """
        rq!       > | up!
        local:504 > | answer=local down=504 down:body!
        """),
    Case("A edits the body of B's", [Scripted(rsb=[edit(b"edit")]), Scripted(rqh=[says(403)])], """
        rq! > A.rqh! B.rqh! B.rsh A.rsh B.rsb:body! A.rsb:body! | answer=d down=403 down:edit!
        """),
    Case("A pauses the headers of B's", [Scripted(rsh=[HOLD]), Scripted(rqh=[says(403)])], """
        rq!     > A.rqh! B.rqh! B.rsh A.rsh B.rsb:body! | answer=d clock=15
        cont1:A > A.rsb:body! | unclock down=403 down:body!
        """),
    Case("A pauses the body of B's", [Scripted(rsb=[HOLD]), Scripted(rqh=[says(403)])], """
        rq!     > A.rqh! B.rqh! B.rsh A.rsh B.rsb:body! A.rsb:body! | answer=d down=403 clock=15
        cont1:A > | unclock down:body!
        """),
]  # fmt: skip

INTO_A_RESPONSE = [
    Case("from response headers: straight to the client", [Scripted(), Scripted(rsh=[says(403)]), Scripted()], """
        rq!    > A.rqh! B.rqh! C.rqh! | up!
        rs     > C.rsh B.rsh | answer=d down=403 down:body!
        rs:ok! > |
        """),
    Case("from response data, the head held: straight to the client", [
            Scripted(), Scripted(allow=True, rsh=[HOLD], rsb=[says(403)]), Scripted()], """
        rq!   > A.rqh! B.rqh! C.rqh! | up!
        rs    > C.rsh B.rsh |
        rs:ok > C.rsb:ok B.rsb:ok | answer=d down=403 down:body!
        """),
    Case("from response data, the head sent: the stream is cut", [Scripted(), Scripted(rsb=[says(403)])], """
        rq!    > A.rqh! B.rqh! | up!
        rs     > B.rsh A.rsh | down=200
        rs:ok! > B.rsb:ok | reset=d
        finish > A.finish B.finish |
        """),
    Case("from outside, the response paused", [Scripted(), Scripted(rsh=[HOLD], tick=says(403)), Scripted()], """
        rq!     > A.rqh! B.rqh! C.rqh! | up!
        rs      > C.rsh B.rsh | clock=15
        rs:ok   > C.rsb:ok |
        reply:B > | answer=d unclock down=403 down:body!
        """),
    Case("from outside, the head sent", [Scripted(tick=says(403))], """
        rq!     > A.rqh! | up!
        rs      > A.rsh | down=200
        reply:A > | reset=d
        """),
    Case("from outside, the response complete", [Scripted(tick=says(403))], """
        rq!     > A.rqh! | up!
        rs!     > A.rsh! | down=200!
        reply:A > |
        """),
    Case("from request data while the response is held: straight to the client", [
            Scripted(rqb=[says(403)], rsh=[HOLD])], """
        rq     > A.rqh | up
        rs     > A.rsh | clock=15
        rq:one > A.rqb:one | answer=d unclock down=403 down:body!
        """),
    Case("from request data while the response is on its way: cut", [Scripted(rqb=[says(403)])], """
        rq     > A.rqh | up
        rs     > A.rsh | down=200
        rq:one > A.rqb:one | reset=d
        """),
    Case("a second reply in the headers of the first replaces it", [
            Scripted(rqh=[says(403)], rsh=[says(500, b"two", "x")]), Scripted()], """
        rq! > A.rqh! A.rsh | answer=d answer=x down=500 down:two!
        """),
    Case("a second reply in the body of the first cuts it", [
            Scripted(rqh=[says(403)], rsb=[says(500, b"two", "x")]), Scripted()], """
        rq! > A.rqh! A.rsh A.rsb:body! | answer=d down=403 reset=x
        """),
    Case("the gateway's own into a response: straight to the client", [Scripted(rsh=[HOLD])], """
        rq!       > A.rqh! | up!
        rs        > A.rsh | clock=15
        local:504 > | answer=local unclock down=504 down:body!
        local:504 > |
        """),
    Case("HEAD, into a response", [Scripted(rsh=[says(403)])], """
        rq!    > A.rqh! | up!
        rs!    > A.rsh! | answer=d down=403!
        """, {"method": "HEAD"}),
    Case("a reply that the other direction let loose ends both walks", [
            Scripted(rqb=[CONT1], rsh=[HOLD], rsb=[says(500)]), Scripted()], """
        rq     > A.rqh B.rqh | up
        rs     > B.rsh A.rsh | clock=15
        rs:ok  > B.rsb:ok |
        rq:one > A.rqb:one A.rsb:ok | unclock down=200 reset=d
        """),
]  # fmt: skip

CLOSED = [
    Case("in request headers", [Scripted(), Scripted(rqh=[CLOSE0]), Scripted()], """
        rq!       > A.rqh! B.rqh! | reset=wasm_close_stream
        local:503 > |
        finish    > A.finish B.finish C.finish |
        """),
    Case("in request data", [Scripted(rqb=[HOLD, CLOSE1])], """
        rq       > A.rqh | up
        rq:one!  > A.rqb:one A.rqb:one! | reset=wasm_close_stream
        """),
    Case("in response headers", [Scripted(), Scripted(rsh=[CLOSE1])], """
        rq!    > A.rqh! B.rqh! | up!
        rs     > B.rsh | reset=wasm_close_stream
        rs:ok! > |
        """),
    Case("in response data", [Scripted(rsb=[GO, CLOSE0])], """
        rq!    > A.rqh! | up!
        rs     > A.rsh | down=200
        rs:ok! > A.rsb:ok A.rsb:! | down:ok reset=wasm_close_stream
        """),
    Case("with a reply: the reply stands", [Scripted(rqh=[says(403, b"")._replace(flags=CLOSE0.flags)])], """
        rq! > A.rqh! A.rsh! | answer=d down=403!
        """),
]  # fmt: skip


@pytest.mark.parametrize("case", BEFORE_THE_RESPONSE, ids=name_of)
def test_before_the_response(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", INTO_A_RESPONSE, ids=name_of)
def test_into_a_response(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", CLOSED, ids=name_of)
def test_close_stream(case: Case) -> None:
    play(case)


def test_details_are_the_last_reply_s() -> None:
    stage = Stage([Scripted(rqh=[says(403, details="first")], rsh=[says(500, details="second")])])
    stage.line("rq!")
    assert stage.info.details == "second"


def test_details_of_a_cut_stream() -> None:
    stage = Stage([Scripted(rsb=[CLOSE1])])
    for event in ("rq!", "rs", "rs:ok"):
        stage.line(event)
    assert stage.info.details == "wasm_close_stream"


def test_a_reply_from_outside_wakes_the_server() -> None:
    stage = Stage([Scripted(rqh=[HOLD], tick=says(403))])
    stage.line("rq!")
    stage.line("reply:A")
    stage.line("reply:A")
    assert stage.woken == 1
