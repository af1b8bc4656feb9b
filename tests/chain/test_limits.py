"""What filters may hold: 413, 500 and cuts where a filter asked for a whole body, and no more reading where it did not.
Each filter may hold 16 bytes. Each case is what Envoy 1.40 does, unless its name says otherwise."""

import pytest

from tests.chain.doubles import (
    DROP,
    GO,
    HOLD,
    WATERMARK,
    Case,
    Scripted,
    Step,
    edit,
    name_of,
    play,
    says,
)

BUFFERS = [
    Case("request: 413 for all filters, behind the callback that saw too much", [Scripted(rqb=[HOLD] * 9), Scripted()], """
        rq             > A.rqh B.rqh | up
        rq:0123456789  > A.rqb:0123456789 |
        rq:0123456789  > A.rqb:01234567890123456789 B.rsh A.rsh B.rsb:Payload_Too_Large! A.rsb:Payload_Too_Large! \
                       | answer=request_payload_too_large down=413 down:Payload_Too_Large!
        rq:0123456789! > |
        finish         > A.finish B.finish |
        """),
    Case("request: as much as may be", [Scripted(rqb=[HOLD] * 9)], """
        rq                 > A.rqh | up
        rq:0123456789      > A.rqb:0123456789 |
        rq:012345          > A.rqb:0123456789012345 |
        rq:!               > A.rqb:0123456789012345! | clock=15
        cont0:A            > | unclock up:0123456789012345!
        """),
    Case("request: too much, though the filter continues", [Scripted(rqb=[HOLD, GO])], """
        rq             > A.rqh | up
        rq:0123456789  > A.rqb:0123456789 |
        rq:0123456789  > A.rqb:01234567890123456789 A.rsh A.rsb:Payload_Too_Large! \
                       | answer=request_payload_too_large down=413 down:Payload_Too_Large!
        """),
    Case("request: too much, but not held", [Scripted()], """
        rq                       > A.rqh | up
        rq:01234567890123456789  > A.rqb:01234567890123456789 | up:01234567890123456789
        """),
    Case("request: one piece", [Scripted(rqb=[HOLD])], """
        rq                       > A.rqh | up
        rq:01234567890123456789  > A.rqb:01234567890123456789 A.rsh A.rsb:Payload_Too_Large! \
                                 | answer=request_payload_too_large down=413 down:Payload_Too_Large!
        """),
    Case("request: grown by an edit", [Scripted(rqb=[edit(b"01234567890123456789", 1)])], """
        rq    > A.rqh | up
        rq:a  > A.rqb:a A.rsh A.rsb:Payload_Too_Large! | answer=request_payload_too_large down=413 down:Payload_Too_Large!
        """),
    Case("request: held into an early response: straight to the client", [
            Scripted(rqb=[HOLD] * 2, rsh=[HOLD])], """
        rq             > A.rqh | up
        rs             > A.rsh | clock=15
        rq:0123456789  > A.rqb:0123456789 |
        rq:0123456789  > A.rqb:01234567890123456789 \
                       | answer=request_payload_too_large unclock down=413 down:Payload_Too_Large!
        """),
    Case("request: a filter's own reply comes before the 413", [Scripted(rqb=[HOLD, says(403)])], """
        rq             > A.rqh | up
        rq:0123456789  > A.rqb:0123456789 |
        rq:0123456789  > A.rqb:01234567890123456789 A.rsh A.rsb:body! | answer=d down=403 down:body!
        """),
    Case("response: cut, before the filter has seen too much", [Scripted(rsb=[HOLD] * 9), Scripted()], """
        rq!            > A.rqh! B.rqh! | up!
        rs             > B.rsh A.rsh | down=200
        rs:0123456789  > B.rsb:0123456789 A.rsb:0123456789 |
        rs:0123456789  > B.rsb:0123456789 | reset=response_payload_too_large
        """),
    Case("response: one piece", [Scripted(rsb=[HOLD])], """
        rq!                      > A.rqh! | up!
        rs                       > A.rsh | down=200
        rs:01234567890123456789  > A.rsb:01234567890123456789 | reset=response_payload_too_large
        """),
    Case("response, its head held: 500 straight to the client", [
            Scripted(allow=True, rsh=[HOLD], rsb=[HOLD] * 9), Scripted()], """
        rq!            > A.rqh! B.rqh! | up!
        rs             > B.rsh A.rsh |
        rs:0123456789  > B.rsb:0123456789 A.rsb:0123456789 |
        rs:0123456789  > B.rsb:0123456789 | answer=response_payload_too_large down=500 down:Internal_Server_Error!
        """),
    Case("a local reply that is too large to be held", [Scripted(rsb=[HOLD]), Scripted(rqh=[says(403, b"b" * 17)])], """
        rq! > A.rqh! B.rqh! B.rsh A.rsh B.rsb:bbbbbbbbbbbbbbbbb! A.rsb:bbbbbbbbbbbbbbbbb! \
            | answer=d down=403 reset=response_payload_too_large
        """),
    Case("more than it may hold waited for its headers, and now it wants the rest (Envoy: never reads on)", [
            Scripted(rqh=[HOLD], rqb=[HOLD])], """
        rq                       > A.rqh | clock=15
        rq:01234567890123456789  > | stop0
        cont0:A > A.rqb:01234567890123456789 A.rsh A.rsb:Payload_Too_Large! \
                | unclock read0 up answer=request_payload_too_large down=413 down:Payload_Too_Large!
        """),
    Case("each filter has its own limit", [Scripted(rqb=[HOLD, HOLD, GO], limit=4), Scripted(rqb=[HOLD] * 2, limit=5)], """
        rq      > A.rqh B.rqh | up
        rq:one  > A.rqb:one |
        rq:4    > A.rqb:one4 |
        rq:!    > A.rqb:one4! B.rqb:one4! | clock=15
        """),
]  # fmt: skip

WATERMARKS = [
    Case("all waits at the headers: reading stops, and goes on when it is let go", [Scripted(rqh=[HOLD])], """
        rq             > A.rqh | clock=15
        rq:0123456789  > |
        rq:0123456789  > | stop0
        rq:more        > |
        cont0:A        > A.rqb:01234567890123456789more | unclock read0 up up:01234567890123456789more
        rq:!           > A.rqb:! | up:!
        """),
    Case("the response likewise", [Scripted(rsh=[HOLD])], """
        rq!                     > A.rqh! | up!
        rs                      > A.rsh | clock=15
        rs:01234567890123456789 > | stop1
        cont1:A                 > A.rsb:01234567890123456789 | unclock read1 down=200 down:01234567890123456789
        """),
    Case("under watermark the filter sees each piece, and its deadline runs once nothing more can come", [
            Scripted(rqb=[WATERMARK] * 3)], """
        rq             > A.rqh | up
        rq:0123456789  > A.rqb:0123456789 |
        rq:0123456789  > A.rqb:0123456789 | stop0 clock=15
        cont0:A        > | unclock read0 up:01234567890123456789
        """),
    Case("let go by the next piece", [Scripted(rqb=[WATERMARK, GO])], """
        rq                       > A.rqh | up
        rq:01234567890123456789  > A.rqb:01234567890123456789 | stop0 clock=15
        rq:x                     > A.rqb:x | unclock read0 up:01234567890123456789x
        """),
    Case("from A's watermark into B's", [Scripted(rqb=[WATERMARK]), Scripted(rqb=[WATERMARK])], """
        rq                       > A.rqh B.rqh | up
        rq:01234567890123456789  > A.rqb:01234567890123456789 | stop0 clock=15
        cont0:A                  > B.rqb:01234567890123456789 | unclock read0 stop0 clock=15
        cont0:B                  > | unclock read0 up:01234567890123456789
        """),
    Case("two over their limits: reading goes on when both are let go (a piece was under way)", [
            Scripted(rqb=[GO, WATERMARK]), Scripted(rqh=[HOLD])], """
        rq                       > A.rqh B.rqh | clock=15
        rq:01234567890123456789  > A.rqb:01234567890123456789 | stop0
        rq:01234567890123456789  > A.rqb:01234567890123456789 |
        cont0:B                  > B.rqb:01234567890123456789 | unclock clock=15 up up:01234567890123456789
        cont0:A                  > B.rqb:01234567890123456789 | unclock read0 up:01234567890123456789
        """),
    Case("dropped data does not count", [Scripted(rqb=[DROP] * 9)], """
        rq                       > A.rqh | up
        rq:01234567890123456789  > A.rqb:01234567890123456789 |
        rq:01234567890123456789! > A.rqb:01234567890123456789 A.rqb:! | clock=15
        cont0:A                  > | unclock up:!
        """),
    Case("a watermark that turns into a buffer is held to the buffer's limit", [Scripted(rqb=[WATERMARK, HOLD])], """
        rq                       > A.rqh | up
        rq:01234567890123456789  > A.rqb:01234567890123456789 | stop0 clock=15
        rq:x                     > A.rqb:x A.rsh A.rsb:Payload_Too_Large! \
                                 | answer=request_payload_too_large unclock read0 down=413 down:Payload_Too_Large!
        """),
    Case("answered: what was held is dropped, and reading goes on, to throw away", [
            Scripted(rqh=[HOLD], tick=says(403), rsh=[HOLD])], """
        rq                       > A.rqh | clock=15
        rq:01234567890123456789  > | stop0
        reply:A                  > A.rsh | answer=d unclock read0 clock=15
        rq:more                  > |
        cont1:A                  > A.rsb:body! | unclock down=403 down:body!
        """),
    Case("an early response: what was held of the request is dropped", [Scripted(allow=True, rqb=[Step(2)])], """
        rq                       > A.rqh | up
        rq:01234567890123456789  > A.rqb:01234567890123456789 | stop0 clock=15
        rs!                      > A.rsh! | down=200! unclock read0
        """),
]  # fmt: skip


@pytest.mark.parametrize("case", BUFFERS, ids=name_of)
def test_buffers(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", WATERMARKS, ids=name_of)
def test_watermarks(case: Case) -> None:
    play(case)
