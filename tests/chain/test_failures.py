"""Filters that fail, and what the others notice. Each case is what Envoy 1.40 does, unless its name says otherwise."""

import pytest

from tests.chain.doubles import FAIL, HOLD, Case, Machine, Scripted, Stage, name_of, play, says


def shared(count: int, **first: list[object]) -> list[Scripted]:
    """Filters in one VM; `first` is the script of the first of them."""
    vm = Machine()
    return [Scripted(vm=vm, **(first if not i else {})) for i in range(count)]  # type: ignore[arg-type]


CLOSED = [
    Case("in request headers: 503 past B; C never saw the request", [Scripted(), Scripted(rqh=[FAIL]), Scripted()], """
        rq!    > A.rqh! B.rqh! A.rsh! | answer=wasm_fail_stream down=503!
        finish > A.finish C.finish |
        """),
    Case("in request data: the headers are upstream, C takes part", [Scripted(), Scripted(rqb=[FAIL]), Scripted()], """
        rq      > A.rqh B.rqh C.rqh | up
        rq:one  > A.rqb:one B.rqb:one C.rsh! A.rsh! | answer=wasm_fail_stream down=503!
        rq:two! > |
        """),
    Case("in response headers: straight to the client", [Scripted(), Scripted(rsh=[FAIL]), Scripted()], """
        rq!    > A.rqh! B.rqh! C.rqh! | up!
        rs     > C.rsh B.rsh | answer=wasm_fail_stream down=503!
        """),
    Case("in response data, the head sent: cut", [Scripted(), Scripted(rsb=[FAIL]), Scripted()], """
        rq!    > A.rqh! B.rqh! C.rqh! | up!
        rs     > C.rsh B.rsh A.rsh | down=200
        rs:ok! > C.rsb:ok B.rsb:ok | reset=wasm_fail_stream
        finish > A.finish C.finish |
        """),
    Case("in response data, the head held", [Scripted(allow=True, rsh=[HOLD], rsb=[FAIL])], """
        rq!   > A.rqh! | up!
        rs    > A.rsh |
        rs:ok > A.rsb:ok | answer=wasm_fail_stream down=503!
        """),
    Case("down before the stream", [Scripted(), Scripted(vm=(gone := Machine())), Scripted()], """
        rq! > A.rqh! A.rsh! | answer=wasm_fail_stream down=503!
        """),
    Case("gRPC: 14, unavailable", [Scripted(rqh=[FAIL])], """
        rq! > A.rqh! | answer=wasm_fail_stream down=200!
        """, {"content_type": b"application/grpc"}),
    Case("in the headers of another filter's reply", [Scripted(rsh=[FAIL]), Scripted(rqh=[says(403)])], """
        rq! > A.rqh! B.rqh! B.rsh A.rsh | answer=d answer=wasm_fail_stream down=503!
        """),
    Case("in the body of another filter's reply", [Scripted(rsb=[FAIL]), Scripted(rqh=[says(403)])], """
        rq! > A.rqh! B.rqh! B.rsh A.rsh B.rsb:body! A.rsb:body! | answer=d down=403 reset=wasm_fail_stream
        """),
    Case("filters in one VM are down together", shared(2, rqh=[FAIL]), """
        rq!    > A.rqh! | answer=wasm_fail_stream down=503!
        finish > |
        """),
    Case("the filters before, in the VM of the one that fails, are skipped too", [
            Scripted(vm=(vm := Machine())), Scripted(), Scripted(vm=vm, rqh=[FAIL])], """
        rq!    > A.rqh! B.rqh! C.rqh! B.rsh! | answer=wasm_fail_stream down=503!
        finish > B.finish |
        """),
    Case("while it holds the request: found out at the next touch, by the gateway's answer", [
            Scripted(rqh=[HOLD], rsh=[FAIL])], """
        rq!       > A.rqh! | clock=15
        local:408 > A.rsh | answer=local unclock answer=wasm_fail_stream down=503!
        """),
]  # fmt: skip
gone.dead = True

OPEN = [
    Case("in request headers (Envoy: 503 for this stream)", [Scripted(), Scripted(rqh=[FAIL], fails_open=True)], """
        rq!    > A.rqh! B.rqh! | up!
        rs!    > A.rsh! | down=200!
        finish > A.finish |
        """),
    Case("in data that it holds: all of it goes on (Envoy: 503)", [Scripted(rqb=[HOLD, FAIL], fails_open=True)], """
        rq      > A.rqh | up
        rq:one  > A.rqb:one |
        rq:two! > A.rqb:onetwo | up:onetwo up:!
        """),
    Case("in data with the headers held: they go on too (Envoy: 500)", [
            Scripted(allow=True, rsh=[HOLD], rsb=[HOLD, FAIL], fails_open=True)], """
        rq!    > A.rqh! | up!
        rs     > A.rsh |
        rs:one > A.rsb:one |
        rs:two > A.rsb:onetwo | down=200 down:onetwo
        """),
]  # fmt: skip


@pytest.mark.parametrize("case", CLOSED, ids=name_of)
def test_fail_closed(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", OPEN, ids=name_of)
def test_fail_open(case: Case) -> None:
    play(case)


def test_answered_for_while_down() -> None:
    """Its VM stops in another stream, while it holds this one: somebody answers for it, and it sees nothing of that."""
    b = Scripted(rqh=[HOLD], tick=says(503, b"", "wasm_fail_stream"))
    stage = Stage([Scripted(), b])
    assert stage.line("rq!") == "rq! > A.rqh! B.rqh! | clock=15"
    b.vm.dead = True
    assert stage.line("reply:B") == "reply:B > A.rsh! | answer=wasm_fail_stream unclock down=503!"
