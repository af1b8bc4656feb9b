"""Laws of the chain that hold for every script of every filter and every order of events."""

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.chain import commands
from proxy.chain.commands import Command
from proxy.chain.path import Stop
from tests.chain.doubles import (
    CLOSE0,
    CLOSE1,
    CONT0,
    CONT1,
    DROP,
    FAIL,
    GO,
    HOLD,
    HOLD_CONT0,
    HOLD_CONT1,
    WATERMARK,
    Scripted,
    Stage,
    Step,
    begins,
    edit,
    says,
)

PASSING = [GO, HOLD, WATERMARK, CONT0, CONT1, HOLD_CONT0, HOLD_CONT1, Step(2, CONT0.flags | CONT1.flags)]
"""Data callbacks' answers that lose nothing and change nothing."""
ON_HEADERS = [*PASSING, Step(3), Step(9)]
MEDDLING = [DROP, edit(b""), edit(b"new"), edit(b"new", 1), edit(b"new", 2)]
BEGINNING = [begins(b"own"), begins(b""), begins(b"own", 1), begins(b"own", 2), begins(b"own", 3)]
"""Of a body's last callback; elsewhere they mean nothing."""
ENDING = [FAIL, CLOSE0, CLOSE1, says(403), says(403, b""), says(500, action=0)]
PIECE = 12
"""Most bytes in a piece; the filters' limits are 8, 16 or 40."""


def steps(answers: list[Step]) -> st.SearchStrategy[list[Step]]:
    return st.lists(st.sampled_from(answers), max_size=5)


def scripted(headers: list[Step], data: list[Step], limits: list[int]) -> st.SearchStrategy[Scripted]:
    return st.builds(
        Scripted,
        rqh=steps(headers),
        rqb=steps(data),
        rsh=steps(headers),
        rsb=steps(data),
        rqt=steps([step for step in data if step.trailers is None]),
        rst=steps([step for step in data if step.trailers is None]),
        tick=st.sampled_from([says(403), says(503, b"")]),
        allow=st.booleans(),
        limit=st.sampled_from(limits),
        fails_open=st.booleans(),
        bodies=st.booleans(),
    )


class Wire:
    """What the commands mean to the server; refuses those that make no sense."""

    def __init__(self) -> None:
        self.begun = [False, False]
        self.ended = [False, False]
        self.sent = [b"", b""]
        self.trailers: list[list[bytes] | None] = [None, None]
        self.stopped = [False, False]
        self.clock = False
        self.answered = False
        self.reset = False

    @property
    def over(self) -> bool:
        return self.reset or self.ended[1]

    def take(self, command: Command) -> None:
        if self.reset:
            return
        match command:
            case commands.SendRequestHeaders(end):
                self.headers(0, end)
            case commands.SendRequestData(data, end):
                self.data(0, data, end)
            case commands.SendResponseHeaders(end):
                self.headers(1, end)
            case commands.SendResponseData(data, end):
                self.data(1, data, end)
            case commands.SendRequestTrailers(pairs):
                self.end_with(0, [name for name, _ in pairs])
            case commands.SendResponseTrailers(pairs):
                self.end_with(1, [name for name, _ in pairs])
            case commands.PauseRequest() | commands.PauseResponse():
                side = int(isinstance(command, commands.PauseResponse))
                assert not self.stopped[side], "stopped twice"
                self.stopped[side] = True
            case commands.ResumeRequest() | commands.ResumeResponse():
                side = int(isinstance(command, commands.ResumeResponse))
                assert self.stopped[side], "read on without having stopped"
                self.stopped[side] = False
            case commands.PauseBegan(_):
                assert not self.clock, "two deadlines at once"
                self.clock = True
            case commands.PauseEnded():
                assert self.clock, "no deadline to end"
                self.clock = False
            case commands.AnswerLocally(_):
                assert not self.begun[1], "answered over a response"
                self.answered = True
            case commands.Reset(_):
                assert not self.ended[1], "a complete response was cut"
                self.reset = True

    def headers(self, side: int, end: bool) -> None:
        assert not self.begun[side], "headers twice"
        assert side or not self.answered, "a request after its answer"
        self.begun[side] = True
        self.ended[side] = end

    def data(self, side: int, data: bytes, end: bool) -> None:
        assert self.begun[side], "data before headers"
        assert not self.ended[side], "data after the end"
        assert data or end, "a piece of nothing"
        assert side or not self.answered, "a request after its answer"
        self.sent[side] += data
        self.ended[side] = end

    def end_with(self, side: int, trailers: list[bytes]) -> None:
        assert self.begun[side], "trailers before headers"
        assert not self.ended[side], "trailers after the end"
        assert side or not self.answered, "a request after its answer"
        self.trailers[side] = trailers
        self.ended[side] = True


def settle(stage: Stage, wire: Wire) -> None:
    """Let go of everything, until nothing is held."""
    for _ in range(200):
        if not stage.chain.request.holds and not stage.chain.response.holds:
            return
        for filter_ in stage.filters:
            for side in "01":
                for command in stage.event(f"cont{side}:{filter_.name}"):
                    wire.take(command)
    raise AssertionError("still held")


class Stream(RuleBasedStateMachine):
    """A server that keeps to the rules, filters that do anything."""

    @initialize(
        filters=st.lists(
            scripted([*ON_HEADERS, *ENDING], [*PASSING * 2, *MEDDLING, *BEGINNING, *ENDING], [8, 16, 40]),
            min_size=1,
            max_size=3,
        )
    )
    def begin(self, filters: list[Scripted]) -> None:
        self.stage = Stage(filters)
        self.wire = Wire()
        self.fed = [0, 0]
        """0: nothing, 1: headers, 2: all, of the request and of the response."""
        self.calls: list[str] = []
        self.finished = False
        self.largest = 0

    def feed(self, event: str) -> None:
        answered = self.wire.answered
        ended = self.wire.over
        self.stage.calls.clear()
        for command in self.stage.event(event):
            self.wire.take(command)
        new = self.stage.calls.copy()
        self.calls += new
        if answered or ended:
            assert not [call for call in new if ".rq" in call], "a request callback after the answer"
        if ended:
            assert all(call.endswith(".finish") for call in new), "a callback after the end"

    def reads(self, side: int) -> bool:
        return self.fed[side] == 1 and not self.wire.stopped[side] and not self.wire.over and not self.finished

    @precondition(lambda self: not self.fed[0] and not self.wire.answered and not self.finished)
    @rule(end=st.booleans())
    def request_headers(self, end: bool) -> None:
        self.fed[0] = 2 if end else 1
        self.feed("rq!" if end else "rq")

    @precondition(lambda self: self.reads(0))
    @rule(size=st.integers(0, PIECE), end=st.booleans())
    def request_data(self, size: int, end: bool) -> None:
        self.fed[0] = 2 if end else 1
        self.feed(f"rq:{'q' * size}{'!' * end}")

    @precondition(lambda self: self.reads(0))
    @rule()
    def request_trailers(self) -> None:
        self.fed[0] = 2
        self.feed("rqt:t")

    def upstream_answers(self) -> bool:
        return self.wire.begun[0] and not self.wire.answered and not self.wire.over and not self.finished

    @precondition(lambda self: self.upstream_answers() and not self.fed[1])
    @rule(end=st.booleans())
    def response_headers(self, end: bool) -> None:
        self.fed[1] = 2 if end else 1
        self.feed("rs!" if end else "rs")

    @precondition(lambda self: self.upstream_answers() and self.reads(1))
    @rule(size=st.integers(0, PIECE), end=st.booleans())
    def response_data(self, size: int, end: bool) -> None:
        self.fed[1] = 2 if end else 1
        self.feed(f"rs:{'s' * size}{'!' * end}")

    @precondition(lambda self: self.upstream_answers() and self.reads(1))
    @rule()
    def response_trailers(self) -> None:
        self.fed[1] = 2
        self.feed("rst:t")

    @rule(name=st.sampled_from("ABC"), side=st.sampled_from("01"))
    def resume(self, name: str, side: str) -> None:
        if len(self.stage.filters) > "ABC".index(name):
            self.feed(f"cont{side}:{name}")
            held = self.stage.chain.request if side == "0" else self.stage.chain.response
            if not any(hold.filter.name == name for hold in held.holds.values()):
                out = len(self.stage.chain.outbox)
                self.feed(f"cont{side}:{name}")
                assert len(self.stage.chain.outbox) == out

    @rule()
    def expire(self) -> None:
        if self.wire.clock:
            self.feed("expire")

    @rule(name=st.sampled_from("ABC"))
    def reply(self, name: str) -> None:
        if len(self.stage.filters) > "ABC".index(name):
            self.feed(f"reply:{name}")

    @precondition(lambda self: self.fed[0])
    @rule()
    def gateway_answers(self) -> None:
        self.feed("local:504")

    @rule()
    def finish(self) -> None:
        self.feed("finish")
        self.finished = True

    @invariant()
    def callbacks_come_in_order(self) -> None:
        for filter_ in self.stage.filters:
            for headers, data, trailers in (("rqh", "rqb", "rqt"), ("rsh", "rsb", "rst")):
                calls = [c.split(".")[1] for c in self.calls if c[0] == filter_.name]
                kinds = [c for c in calls if c[:3] in (headers, data, trailers)]
                assert not [c for c in kinds[:-1] if c[:3] == trailers], "a callback after trailers"
                # Who held everything and begins trailers has both ends (Envoy).
                two = len(kinds) > 1 and kinds[-1][:3] == trailers and kinds[-2][-1] == "!"
                assert not two or filter_.held_all, "two ends"
                kinds = [c for c in kinds if c[:3] != trailers]
                assert [c[:3] for c in kinds].count(headers) <= 1, "headers twice"
                assert not kinds or kinds[0][:3] == headers, "data before headers"
                assert not [c for c in kinds[:-1] if c.endswith("!")], "a callback after the end"
                assert filter_.bodies or len(kinds) <= 1, "a callback that the filter does not have"

    @invariant()
    def reading_stops_while_too_much_is_held(self) -> None:
        if self.finished or self.wire.reset:
            return
        chain = self.stage.chain
        for side, path in enumerate((chain.request, chain.response)):
            too_much = [h for h in path.holds.values() if len(h.data) > h.filter.body_limit]
            assert self.wire.stopped[side] == bool(too_much)
            assert not [h for h in too_much if h.stop is Stop.BUFFER]

    @invariant()
    def held_bytes_are_bounded(self) -> None:
        chain = self.stage.chain
        for path in (chain.request, chain.response):
            held = sum(hold.size for hold in path.holds.values())
            # `edit` makes three bytes out of none, each time.
            edited = 3 * sum(c.startswith(("A.rqb", "B.rqb", "C.rqb", "A.rsb", "B.rsb", "C.rsb")) for c in self.calls)
            assert held <= sum(filter_.body_limit for filter_ in self.stage.filters) + PIECE + edited

    @invariant()
    def a_deadline_runs_while_a_filter_holds_the_stream_up(self) -> None:
        if self.finished or self.wire.reset:
            return
        holds = [*self.stage.chain.request.holds.values(), *self.stage.chain.response.holds.values()]
        assert self.wire.clock == any(hold.timed for hold in holds)
        for hold in holds:
            assert hold.timed == bool(hold.end or hold.headers_end or hold.stop is Stop.ALL or hold.over)

    @invariant()
    def filters_finish_once(self) -> None:
        for filter_ in self.stage.filters:
            count = self.calls.count(f"{filter_.name}.finish")
            assert count <= int(self.finished)
            assert filter_.down or count == int(self.finished)

    @invariant()
    def an_answer_comes_to_an_end(self) -> None:
        """Answered from here, and with nothing held, the response is complete or cut."""
        if self.wire.answered and not self.finished and not self.wire.reset:
            assert self.wire.ended[1] or self.stage.chain.response.holds

    def teardown(self) -> None:
        if hasattr(self, "stage") and not self.finished and not self.wire.over:
            settle(self.stage, self.wire)
            for side in (0, 1):
                if self.fed[side] == 2 and not self.wire.answered and not self.wire.over:
                    assert self.wire.ended[side], "the end was lost"


TestStream = pytest.mark.timeout(120)(Stream.TestCase)
TestStream.settings = settings(max_examples=300, stateful_step_count=25, deadline=None)


@settings(max_examples=300, deadline=None)
@given(
    filters=st.lists(scripted(ON_HEADERS, [*PASSING * 2, *BEGINNING[:4]], [1000]), max_size=3),
    request=st.lists(st.integers(0, 5), max_size=6),
    response=st.lists(st.integers(0, 5), max_size=6),
    ends=st.tuples(*[st.sampled_from(["data", "apart", "trailers"])] * 2),
    resumes=st.lists(st.sampled_from(["0:A", "0:B", "0:C", "1:A", "1:B", "1:C", "none", "none"]), max_size=30),
)
def test_bytes_pass_unchanged(
    filters: list[Scripted], request: list[int], response: list[int], ends: tuple[str, str], resumes: list[str]
) -> None:
    """Under any pieces and any pauses, what goes in comes out; and its end with it, once, by trailers if they came."""
    stage, wire = Stage(filters), Wire()
    alphabet = iter("abcdefghijklmnopqrstuvwxyz" * 4)
    sent = ["", ""]

    def feed(event: str) -> None:
        for command in stage.event(event):
            wire.take(command)

    def feed_side(side: int, sizes: list[int]) -> None:
        word = ("rq", "rs")[side]
        feed(word)
        for i, size in enumerate(sizes):
            piece = "".join(next(alphabet) for _ in range(size))
            sent[side] += piece
            feed(f"{word}:{piece}{'!' * (ends[side] == 'data' and i == len(sizes) - 1)}")
            between = resumes.pop() if resumes else "none"
            if between != "none" and "ABC".index(between[2]) < len(filters):
                feed(f"cont{between}")
        if ends[side] == "trailers":
            feed(f"{word}t:x")
        elif ends[side] == "apart" or not sizes:
            feed(f"{word}:!")

    feed_side(0, request)
    settle(stage, wire)
    assert wire.sent[0].decode() == sent[0]
    assert wire.ended[0]
    assert wire.trailers[0] == [b"x"] if ends[0] == "trailers" else wire.trailers[0] in (None, [], [b"own"])
    feed_side(1, response)
    settle(stage, wire)
    assert wire.sent[1].decode() == sent[1]
    assert wire.ended[1]
    assert wire.trailers[1] == [b"x"] if ends[1] == "trailers" else wire.trailers[1] in (None, [], [b"own"])
    assert not wire.answered
    assert not wire.reset
    assert not wire.clock
    for filter_ in filters:
        assert filter_.complaints == 0


def test_a_finished_stream_leaves_nothing_to_the_collector() -> None:
    """A worker makes many thousands of chains in a second."""
    gc.collect()
    gc.disable()
    try:
        stage = Stage([Scripted(), Scripted(rqb=[HOLD]), Scripted(rsh=[HOLD])])
        for event in ("rq", "rq:one!", "rs", "finish"):
            stage.line(event)
        filter_b = weakref.ref(stage.filters[1])
        for filter_ in stage.filters:
            del filter_.check
        stage.filters.clear()
        assert filter_b() is None
    finally:
        gc.enable()
