"""What a filter does to a stream from outside of the stream's callbacks, beside continuing and answering: it reads and edits
the body that it holds, and closes the stream."""

import pytest

from proxy.abi.filter import LocalReply
from proxy.abi.memory import Region
from tests.chain.doubles import DROP, GO, HOLD, WATERMARK, Scripted, Stage


@pytest.mark.parametrize(
    ("filter_", "events", "held"),
    [
        (Scripted(), ["rq", "rq:one"], None),
        (Scripted(rqh=[HOLD]), ["rq", "rq:one"], None),  # it has not seen this data
        (Scripted(rqb=[HOLD, HOLD]), ["rq", "rq:one", "rq:two"], b"onetwo"),
        (Scripted(rqb=[WATERMARK, WATERMARK]), ["rq", "rq:one", "rq:two"], b"onetwo"),
        (Scripted(rqb=[DROP]), ["rq", "rq:one"], b""),
        (Scripted(rqb=[HOLD, GO]), ["rq", "rq:one", "rq:two"], None),
        (Scripted(rqb=[HOLD]), ["rq", "rq:one", "cont0:A"], None),
        (Scripted(allow=True, rqh=[HOLD], rqb=[HOLD]), ["rq", "rq:one"], b"one"),
        (Scripted(rqb=[HOLD]), ["rq", "rq:one", "local:504"], None),
        (Scripted(rqb=[HOLD]), ["rq", "rq:one", "finish"], None),
    ],
)
def test_held(filter_: Scripted, events: list[str], held: bytes | None) -> None:
    stage = Stage([filter_])
    for event in events:
        stage.line(event)
    assert stage.chain.held(filter_, 0) == held
    assert stage.chain.held(filter_, 1) is None


@pytest.mark.parametrize(
    ("filter_", "events", "holds"),
    [
        (Scripted(), ["rq", "rq:one"], False),
        (Scripted(rqh=[HOLD]), ["rq"], True),
        (Scripted(rqb=[HOLD]), ["rq", "rq:one"], True),
        (Scripted(rsh=[HOLD]), ["rq!", "rs"], True),
        (Scripted(rqh=[HOLD]), ["rq", "cont0:A"], False),
        (Scripted(rqh=[HOLD]), ["rq", "finish"], False),
    ],
)
def test_holds(filter_: Scripted, events: list[str], holds: bool) -> None:
    stage = Stage([filter_])
    for event in events:
        stage.line(event)
    assert stage.chain.holds(filter_) is holds


def test_edited_bytes_go_on() -> None:
    stage = Stage([a := Scripted(rqb=[HOLD, HOLD])])
    stage.line("rq")
    stage.line("rq:one")
    stage.chain.replace_held(a, 0, b"yone")
    stage.chain.replace_held(a, 1, b"nothing is held there")
    assert stage.line("rq:two") == "rq:two > A.rqb:yonetwo |"
    stage.chain.replace_held(a, 0, b"new")
    assert stage.line("cont0:A") == "cont0:A > | up:new"


def test_what_it_has_not_seen_is_not_its_to_edit() -> None:
    stage = Stage([a := Scripted(rqh=[HOLD])])
    stage.line("rq")
    stage.line("rq:one")
    stage.chain.replace_held(a, 0, b"new")
    assert stage.line("cont0:A") == "cont0:A > A.rqb:one | unclock up up:one"


def test_an_edit_beyond_the_limit_of_a_buffer() -> None:
    stage = Stage([a := Scripted(rqb=[HOLD])])
    stage.line("rq")
    stage.line("rq:one")
    stage.chain.replace_held(a, 0, b"x" * 17)
    assert stage.woken == 1
    assert [stage.word(command) for command in stage.chain.outbox] == [
        "answer=request_payload_too_large",
        "down=413",
        "down:Payload_Too_Large!",
    ]


def test_an_edit_moves_the_watermark() -> None:
    stage = Stage([a := Scripted(rsb=[WATERMARK])])
    for event in ("rq!", "rs", "rs:ok"):
        stage.line(event)
    stage.chain.replace_held(a, 1, b"x" * 17)
    stage.chain.replace_held(a, 1, b"x" * 16)
    assert [stage.word(command) for command in stage.chain.outbox] == ["stop1", "read1"]
    assert stage.woken == 2


@pytest.mark.parametrize("events", [["rq!"], ["rq!", "rs"]])
def test_close(events: list[str]) -> None:
    stage = Stage([Scripted()])
    for event in events:
        stage.line(event)
    stage.chain.close()
    assert [stage.word(command) for command in stage.chain.outbox] == ["reset=wasm_close_stream"]
    assert stage.woken == 1
    stage.chain.outbox.clear()
    stage.chain.close()
    assert stage.chain.outbox == []
    assert stage.woken == 1


def test_close_after_the_response() -> None:
    stage = Stage([Scripted()])
    stage.line("rq!")
    stage.line("rs!")
    stage.chain.close()
    assert stage.chain.outbox == []
    assert stage.woken == 0


def test_a_finished_stream_is_left_alone() -> None:
    """Its region has been released: attaching it would take another stream's memory."""
    stage = Stage([a := Scripted(rqh=[HOLD])])
    stage.line("rq!")
    stage.line("finish")
    stage.memory.attach(other := Region())
    stage.chain.resume(a, 0)
    stage.chain.reply(a, LocalReply(403, "d", b"", (), None))
    stage.chain.replace_held(a, 0, b"new")
    stage.chain.close()
    stage.chain.finish()
    stage.chain.pause_expired()
    stage.chain.local_reply(504, b"", "late")
    assert stage.chain.outbox == []
    assert stage.woken == 0
    assert stage.memory.live is other
