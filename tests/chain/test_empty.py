"""A stream without filters: the same commands as from a chain whose list of filters is empty."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.abi.memory import Region
from proxy.chain.chain import NO_PARTS, Chain
from proxy.chain.commands import AnswerLocally, Command
from proxy.chain.empty import EmptyChain
from proxy.telemetry.stream import StreamInfo
from tests.chain.doubles import Memory, Scripted, Stage

PIECES = st.lists(st.sampled_from([b"", b"a", b"bc"]), max_size=3)


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """What a server tells a chain: both messages in order, mixed, perhaps an answer of its own, the end."""
    sides = []
    for side in ("request", "response"):
        pieces = draw(PIECES)
        events: list[tuple[Any, ...]] = [(f"{side}_headers", not pieces)]
        sides.append(events + [(f"{side}_data", data, i == len(pieces) - 1) for i, data in enumerate(pieces)])
    told = [sides[0].pop(0)]
    while sides[0] or sides[1]:
        side = draw(st.sampled_from([one for one in sides if one]))
        told.append(side.pop(0))
        if told[-1] and not sides[1]:
            break
    if draw(st.booleans()):
        cut = draw(st.integers(1, len(told)))
        if ("response_headers", True) not in told[:cut] and not any(e[0] == "response_data" and e[2] for e in told[:cut]):
            told = [*told[:cut], ("local_reply", 503, draw(st.sampled_from([b"", b"sorry"])), "why")]
    return [*told, ("finish",)]


def commands_of(kind: type[Chain], told: list[tuple[Any, ...]]) -> list[list[Command]]:
    memory: Any = Memory()
    info = StreamInfo()
    chain = kind(memory, Region(), info, lambda: None)
    if kind is Chain:
        chain.take_part([], NO_PARTS)
    outbox = chain.outbox
    found = []
    for name, *arguments in told:
        getattr(chain, name)(*arguments)
        assert chain.outbox is outbox, "the server may hold on to it"
        found.append(list(outbox))
        outbox.clear()
    return found


@given(streams())
def test_as_a_chain_of_no_filters(told: list[tuple[Any, ...]]) -> None:
    assert commands_of(EmptyChain, told) == commands_of(Chain, told)


def test_the_gateway_answers() -> None:
    told = [("request_headers", True), ("local_reply", 503, b"sorry", "why"), ("finish",)]
    (_, answer, end) = commands_of(EmptyChain, told)
    assert isinstance(answer[0], AnswerLocally)
    assert len(answer) == 3
    assert not end


def test_who_is_named() -> None:
    """Those that look on are no filters of anybody's."""
    stage = Stage([Scripted(), Scripted(), Scripted()])
    stage.filters[1].name = ""
    assert stage.chain.names() == ["A", "C"]
    assert EmptyChain(stage.chain.memory, Region(), StreamInfo(), stage.wake).names() == []
