"""A watched stream goes as one that nobody watches: the same callbacks, the same commands, in the same order."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.abi.filter import Callbacks, LocalReply
from proxy.abi.memory import REQUEST_HEADERS, RESPONSE_HEADERS
from proxy.chain.chain import Parts
from proxy.chain.tap import MOST_TEXT, Tap
from proxy.chain.watched import WatchedChain
from proxy.chain.watching import Watching
from proxy.telemetry.metrics import Counter
from proxy.telemetry.stream import StreamInfo
from tests.chain.doubles import FAIL, GO, HOLD, LIMIT, Scripted, Stage, Step, edit, says
from tests.chain.test_laws import BEGINNING, ENDING, MEDDLING, ON_HEADERS, PASSING, steps


def watch(stage: Stage, tap: Tap) -> Any:
    """Have the stage's filters walked by a watched chain instead."""
    for filter_ in stage.filters:
        cast(Any, filter_).plugin = SimpleNamespace(fuel_used=Counter(), seconds=Counter(), faults=0)
    record = tap.record(stage.info, cast(Any, stage.memory))
    assert record is not None
    stage.chain = WatchedChain(cast(Any, stage.memory), stage.region, stage.info, stage.wake, record)
    stage.chain.take_part(
        list(stage.filters), Parts([Callbacks(True, one.bodies, True, one.bodies, True, True) for one in stage.filters])
    )
    return record


SCRIPT = st.fixed_dictionaries(
    {
        "rqh": steps([*ON_HEADERS, *ENDING]),
        "rqb": steps([*PASSING, *MEDDLING, *BEGINNING, *ENDING]),
        "rsh": steps([*ON_HEADERS, *ENDING]),
        "rsb": steps([*PASSING, *MEDDLING, *BEGINNING]),
        "rqt": steps([GO, HOLD, FAIL, edit(b"new")]),
        "rst": steps([GO, HOLD, edit(b"new")]),
        "allow": st.booleans(),
        "limit": st.sampled_from([8, LIMIT]),
        "fails_open": st.booleans(),
        "bodies": st.booleans(),
        "tick": st.sampled_from([says(403), says(503, b"")]),
    }
)
OUTSIDE = st.lists(st.sampled_from(["cont0:A", "cont1:A", "cont0:B", "cont1:B", "reply:B", "expire"]), max_size=2)
REQUEST = st.sampled_from([["rq!"], ["rq", "rq:one", "rq:two!"], ["rq", "rq:one", "rq:!"], ["rq", "rq:one", "rqt:x"]])
RESPONSE = st.sampled_from([["rs!"], ["rs", "rs:ok", "rs:!"], ["rs", "rs:ok", "rst:x"], ["local:413"], []])


@settings(max_examples=400, deadline=None)
@given(st.lists(SCRIPT, min_size=1, max_size=3), REQUEST, RESPONSE, st.lists(OUTSIDE, min_size=8, max_size=8))
def test_watching_changes_nothing(
    scripts: list[dict[str, Any]], request: list[str], response: list[str], between: list[list[str]]
) -> None:
    events = [each for event, more in zip([*request, *response], between, strict=False) for each in (event, *more)]
    names = "ABC"[: len(scripts)]
    plain, watched = (Stage([Scripted(**script) for script in scripts]) for _ in range(2))
    watch(watched, Tap(()))
    for event in [*(one for one in events if one[-1] not in "AB" or one[-1] in names), "finish"]:
        assert watched.line(event) == plain.line(event)
    assert (watched.woken, watched.info.details, watched.info.answered_by) == (
        plain.woken, plain.info.details, plain.info.answered_by
    )  # fmt: skip


def test_what_a_record_holds() -> None:
    stage = Stage(
        [Scripted(rqb=[edit(b"12")]), Scripted(rqh=[HOLD], rsh=[Step(1, reply=LocalReply(403, "no", b"b", (), None))])]
    )
    record = watch(stage, Tap(["Cookie"]))
    secret = (b"cookie", b"id=1")
    stage.memory.attach(stage.region)
    stage.memory.set_pairs(REQUEST_HEADERS, [(b":path", b"/"), secret])
    edits = {"A.rqh": [(b":path", b"/new"), (b"x-new", b"\xff<b>")]}

    def edit_head(callback: str) -> None:
        if callback == "rqh" and not stage.calls:
            stage.memory.set_pairs(REQUEST_HEADERS, edits["A.rqh"])

    stage.filters[0].check = edit_head
    for event in ("rq", "rq:1!", "cont0:B", "rs!", "finish"):
        stage.event(event)
    found = record.detail()
    (first, *_) = found["steps"]
    assert first["changes"] == [] or "request - cookie: ***" in first["changes"]
    everything = [change for step in found["steps"] for change in step.get("changes", ())]
    assert sorted(everything)[:3] == ["request + :path: /new", "request + x-new: \\xff<b>", "request - :path: /"]
    assert "request - cookie: ***" in everything
    assert found["heads"]["request"]["before"] == [[":path", "/"], ["cookie", "***"]]
    assert found["heads"]["request"]["after"] == [[":path", "/new"], ["x-new", "\\xff<b>"]]
    bodies = {
        (step["filter"], step["body"]["bytes_before"], step["body"]["changed"]) for step in found["steps"] if step.get("body")
    }
    assert ("A", 1, True) in bodies
    assert [step["callback"] for step in found["steps"] if "held_seconds" in step] == ["continues the request"]
    replies = [(step["filter"], step["reply"]["status"]) for step in found["steps"] if step.get("reply")]
    assert replies == [("B", 403), ("B", 403)]
    assert (found["running"], found["filters"][1]["held_seconds"] > 0) == (False, True)


async def test_what_is_not_watched_is_opened_as_ever() -> None:
    """No request asks whether somebody watches."""

    def plain(*arguments: object) -> str:
        return "plain"

    chains = SimpleNamespace(open=plain, memory=None)
    watching = Watching(cast(Any, chains), ())
    assert chains.open is plain
    watching.tap_on(60, 0.0, False)
    assert chains.open == watching.open
    assert cast(Any, watching.open(None, StreamInfo(), cast(Any, None), lambda: None)) == "plain"  # not in the sample
    watching.tap_off()
    assert chains.open is plain
    watching.tap_on(0.01, 1.0, False)
    await asyncio.sleep(0.05)
    assert chains.open is plain


def test_a_record_is_bounded() -> None:
    tap = Tap(())
    stage = Stage([Scripted(rqb=[HOLD, *[edit(b"x", 2)] * 400], limit=1 << 20)])
    record = watch(stage, tap)
    stage.memory.attach(stage.region)
    stage.memory.set_pairs(REQUEST_HEADERS, [(b"x-%d" % i, b"v" * 4000) for i in range(200)])
    stage.memory.set_pairs(RESPONSE_HEADERS, [])
    stage.event("rq")
    for _ in range(400):
        stage.event("rq:1")
    found = record.detail()
    assert len(str(found)) < 2 * MOST_TEXT
    assert found["steps_left_out"] > 0
    for _ in range(300):
        tap.record(stage.info, cast(Any, stage.memory))
    assert len(tap.streams()) == 100
