"""Laws of edits: two streams that take turns, and calls that are stopped wherever fuel may run out."""

import contextlib
import itertools
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.abi import recovery
from proxy.abi.filter import FAILED
from proxy.abi.memory import END_STREAM, HeadError, HeadOptions, encode_pairs
from tests.abi.proxy_wasm.editor import ADD, EDITOR, REMOVE, REPLACE, ROOMY, SET, body_of, edited

HEADERS, BODY = "proxy_on_request_headers", "proxy_on_request_body"

names = st.sampled_from([b"x-a", b"X-B", b"accept", b"host", b":path", b":new", b"", b"x-" + b"long" * 20])
values = st.one_of(st.binary(max_size=12), st.integers(1, 90_000).map(lambda n: b"%d," % n * (n // 6 + 1)))
small_pairs = st.lists(st.tuples(names, st.binary(max_size=8)), max_size=5).map(encode_pairs)
edits = st.one_of(
    st.tuples(st.sampled_from([ADD, REPLACE, REMOVE]), st.sampled_from([0, 0, 1]), names, values),
    st.tuples(st.just(SET), st.sampled_from([0, 1]), st.just(b""), st.one_of(small_pairs, st.binary(max_size=20))),
)
turns = st.lists(st.tuples(st.integers(0, 1), st.lists(edits, max_size=8)), max_size=8)


@pytest.fixture
def editor(start_filters):
    worker = start_filters((EDITOR, ROOMY))
    worker.adding = worker.memory.options(HeadOptions())
    return worker


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(turns)
def test_two_streams_that_take_turns(editor, turns):
    """Pairs in = pairs out, whatever was edited in between in the other stream; compaction included."""
    memory = editor.memory
    streams = [editor.open(fields=((b"host", b"h%d" % i), (b"x-a", b"%d" % i), (b"accept", b"t"))) for i in range(2)]
    for stream in streams:
        stream.call(HEADERS)
    model = []
    for stream in streams:
        memory.attach(stream.stream.region)
        model.append({0: memory.pairs(0), 1: []})
    for i, one_turn in turns:
        streams[i].call(BODY, body_of(one_turn), end=True)
        for edit in one_turn:
            model[i][edit[1]] = edited(model[i][edit[1]], edit)
        assert {m: memory.pairs(m) for m in (0, 1)} == model[i]
        sound(memory)
    for i, stream in enumerate(streams):
        memory.attach(stream.stream.region)
        assert {m: memory.pairs(m) for m in (0, 1)} == model[i]
        memory.release(stream.stream.region)
    assert editor.failures() == {}


def sound(memory):
    """The structure of the live stream's maps: every address is in the arena, or a constant's; every sum is right."""
    at = memory.at
    top, _, torn = memory.words_at(at.stream, 3)
    assert torn == 0
    assert at.arena <= top <= at.arena + at.arena_size
    for m in range(4):
        entries, n, capacity, size = memory.words_at(at.stream + 12 + 16 * m, 4)
        assert n <= capacity
        if capacity:
            assert entries % 4 == 0
            assert at.arena <= entries <= entries + 16 * capacity <= top
        total = 0
        for k, k_size, v, v_size in memory.entries(m):
            for address, length in ((k, k_size), (v, v_size)):
                in_arena = at.arena <= address <= address + length <= top
                assert in_arena or length <= 16, (address, length)  # names of pseudo headers are constants of the core
            total += k_size + v_size
        assert size == total


LINES = [
    b"Accept: a\r\n", b"accept: b\r\n", b"X-A: 1\r\n", b"x-b: \xc3\xa9\t2\r\n", b"Connection: Keep-Alive\r\n",
    b"Via: 1.0 v\r\n", b"X-Forwarded-For: 192.0.2.1\r\n", b"X-Long: %s\r\n" % (b"l" * 70),
]  # fmt: skip
sent = st.tuples(
    st.sampled_from([ADD, REPLACE, REMOVE]),
    st.just(0),
    st.sampled_from([b"x-a", b"X-B", b"accept", b"x-new", b"via", b"expect", b"x-long", b":path"]),
    st.sampled_from([b"/v", b"", b"/" + b"w" * 40, b"/%s" % (b"z" * 90_000), b"/\n"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.sampled_from(LINES), max_size=12), st.lists(st.lists(sent, max_size=4), max_size=4), st.booleans())
def test_lines_that_leave_as_they_came(editor, lines, turns, listener_adds):
    """However a head was read, what the same edits make of it leaves as the same bytes."""
    memory = editor.memory
    options = editor.adding if listener_adds else editor.options
    texts = []
    for plain in (True, False):
        stream = editor.open_stream()
        if plain:
            head = b"GET /p HTTP/1.1\r\nHost: test\r\n%s\r\n" % b"".join(lines)
            assert memory.load_plain_request(head, options, b"192.0.2.7", b"made-here")
        else:
            fields = [(name, value[:-2]) for name, _, value in (line.partition(b": ") for line in [b"Host: test\r\n", *lines])]
            memory.load_request(fields, b"GET", b"/p", options, b"192.0.2.7", b"made-here")
        opened = editor.open(stream=stream)
        opened.call(HEADERS)
        for edits_of_one in turns:
            opened.call(BODY, body_of(edits_of_one), end=True)
        sound(memory)
        try:
            texts.append(memory.emit_request(END_STREAM).data)
        except HeadError as error:
            texts.append(error.reason)
        memory.release(stream.region)
    assert texts[0] == texts[1]


STOPPED = [
    (ADD, 0, b"x-new", b"1" * 40), (REPLACE, 0, b"x-a", b"2" * 30), (ADD, 0, b"accept", b"3"), (REMOVE, 0, b"x-b", b""),
    (REPLACE, 0, b"host", b"other"), (ADD, 0, b":extra", b"4"), *[(ADD, 1, b"t%d" % i, b"5" * i) for i in range(26)],
    (SET, 0, b"", encode_pairs([(b":authority", b"set"), (b":path", b"/set"), (b":method", b"GET"), (b"x-set", b"6" * 20)])),
    (REPLACE, 0, b":path", b"/last"), (REMOVE, 1, b"t3", b""), (REPLACE, 1, b"t4", b"7" * 60),
]  # fmt: skip
FIELDS = ((b"host", b"one"), (b"x-a", b"1"), (b"x-b", b"b"), (b"x-a", b"2"), (b"accept", b"t"), (b"x-b", b"c"))


@pytest.mark.parametrize(
    ("room", "step"), [(None, 23), (3000, 37), (300, 61)], ids=["roomy", "compacts later", "compacts at once"]
)
@pytest.mark.parametrize("policy", ["closed", "open"])
def test_a_stop_at_any_point_leaves_sound_streams(start_filters, monkeypatch, policy, room, step):
    """Fuel runs out at every `step`th unit of an edit-heavy callback, with the arena `room` bytes short of full."""
    monkeypatch.setattr(recovery, "BACKOFF_FIRST", 0.0)
    monkeypatch.setattr(recovery, "START_REST", 0)
    worker = start_filters((EDITOR, {**ROOMY, "on_failure": policy}))
    memory, at = worker.memory, worker.memory.at
    other = worker.open(fields=((b"host", b"other"), (b"x-secret", b"s" * 100)))
    others = memory.pairs(0)
    states, body = states_of(STOPPED), body_of(STOPPED)
    plugin = worker.plugins[0]
    stops = 0
    for fuel in itertools.count(2000, step):
        opened = worker.open(fields=FIELDS)
        plugin.fuel = 10**9
        opened.call(HEADERS)
        if room is not None:  # as edits would have left it
            struct.pack_into("<I", memory.buffer, at.stream, at.arena + at.arena_size - room & ~3)
        plugin.fuel = fuel
        result = opened.call(BODY, body, end=True)
        sound(memory)
        if not opened.context.down:
            break
        stops += 1
        assert result == (FAILED if policy == "closed" else 0)
        found = memory.pairs(0)
        assert set(found) <= states, set(found) - states
        with contextlib.suppress(HeadError):
            assert memory.emit_request(END_STREAM).data.startswith((b"POST /", b"GET /"))
        memory.load_response(200, ((b"x-r", b"v"),))
        assert memory.pairs(2) == [(b":status", b"200"), (b"x-r", b"v")]
        sound(memory)
        memory.release(opened.stream.region)
        if stops % 50 == 0:
            memory.attach(other.stream.region)
            assert memory.pairs(0) == others
            sound(memory)
    assert stops > 100
    assert worker.failures() == {"fuel": stops}
    assert memory.pairs(1)[-1] == (b"t4", b"7" * 60)
    memory.attach(other.stream.region)
    assert memory.pairs(0) == others


def states_of(every):
    """Every pair that map 0 holds at some point."""
    pairs = [(b":authority", b"one"), (b":path", b"/p?q=1"), (b":method", b"POST"), (b":scheme", b"http")]
    pairs += [(name.lower(), value) for name, value in FIELDS[1:]]
    seen = set(pairs)
    for edit in every:
        if edit[1] == 0:
            pairs = edited(pairs, edit)
            seen |= set(pairs)
    return seen
