"""The chunk tracker by itself: what it takes, what it refuses, and that it does not matter how the bytes are cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http1.chunks import LONGEST_SIZE_LINE, ChunkTracker, FramingError

END = b"0\r\n\r\n"


def tracked(data: bytes, cuts: int = 0, max_fields: int = 10, max_bytes: int = 1000) -> tuple[ChunkTracker, int]:
    """The tracker after `data`, in pieces of `cuts` bytes (0: in one), and how many bytes it took."""
    tracker = ChunkTracker(max_fields, max_bytes)
    taken = 0
    for start in range(0, len(data), cuts or len(data)):
        piece = data[start : start + (cuts or len(data))]
        taken += tracker.feed(piece)
    return tracker, taken


@pytest.mark.parametrize(
    ("data", "body", "trailers"),
    [
        (END, 0, []),
        (b"3\r\nabc\r\n" + END, 3, []),
        (b"3\r\nabc\r\n00a\r\n0123456789\r\n000\r\n\r\n", 13, []),
        (b"A\r\n0\r\n\r\n01234\r\n" + END, 10, []),
        (b"3;a=b;c=\"d e\"\r\nabc\r\n0;last\r\n\r\n", 3, []),
        (b"3 \t\r\nabc\r\n" + END, 3, []),
        (
            b"0\r\nX-A: 1\r\nx-b:\t two \t\r\nx-c:\r\nx-a: \xff\r\n\r\n",
            0,
            [(b"x-a", b"1"), (b"x-b", b"two"), (b"x-c", b""), (b"x-a", b"\xff")],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cuts", [0, 1, 2, 3, 7])
def test_takes(data: bytes, body: int, trailers: list[tuple[bytes, bytes]], cuts: int) -> None:
    tracker, taken = tracked(data, cuts)
    assert (tracker.done, tracker.body, tracker.trailers, taken) == (True, body, trailers, len(data))


def test_stops_behind_the_message() -> None:
    tracker, taken = tracked(b"1\r\na\r\n" + END + b"GET /")
    assert tracker.done
    assert taken == 6 + len(END)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b" 3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"-1\r\n",
        b"3\nabc\r\n",
        b"3\r\r\nabc",
        b"3;\x00\r\nabc\r\n",
        b"3 a\r\nabc\r\n",
        b"11111111111111111\r\n",
        b"3;" + b"e" * LONGEST_SIZE_LINE,
        b"3\r\nabcd\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r0",
        b"0\r\nx-a: 1\n\r\n",
        b"0\r\nx-a: 1\r\n folded\r\n\r\n",
        b"0\r\n\tx: 1\r\n\r\n",
        b"0\r\nx-a : 1\r\n\r\n",
        b"0\r\nx a: 1\r\n\r\n",
        b"0\r\n: 1\r\n\r\n",
        b"0\r\nx-a\r\n\r\n",
        b"0\r\nx-a: 1\x00\r\n\r\n",
        b"0\r\nx-a: 1\r2\r\n\r\n",
        b"0\r\nx-\xe4: 1\r\n\r\n",
        b"0\r\n\n",
    ],
)
@pytest.mark.parametrize("cuts", [0, 1])
def test_refuses(data: bytes, cuts: int) -> None:
    with pytest.raises(FramingError) as caught:
        tracked(data, cuts)
    assert not caught.value.too_large


@pytest.mark.parametrize("cuts", [0, 1, 50])
@pytest.mark.parametrize(
    "section", [b"x: " + b"a" * 1000, b"x: 1\r\n" * 11, b"x: 1234\r\n" * 9 + b"y: " + b"1" * 990 + b"\r\n"]
)
def test_a_trailer_section_has_limits(section: bytes, cuts: int) -> None:
    with pytest.raises(FramingError) as caught:
        tracked(b"0\r\n" + section + b"\r\n\r\n", cuts)
    assert caught.value.too_large


def test_up_to_its_limits_a_section_passes() -> None:
    section = b"x: 1\r\n" * 9 + b"x: " + b"1" * (1000 - 54 - 7) + b"\r\n"
    tracker, _ = tracked(b"0\r\n" + section + b"\r\n")
    assert tracker.done
    assert len(tracker.trailers) == 10
    assert tracker.size == 1000


def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    tracker = ChunkTracker(100, 1 << 20)
    tracker.feed(b"0\r\n")
    with pytest.raises(FramingError):
        for _ in range(2000):
            tracker.feed(b"x" * 1024)
            assert len(tracker.line) <= 1 << 16


chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@settings(max_examples=200, deadline=None)
@given(chunks=chunks, cuts=st.lists(st.integers(1, 20), max_size=60))
def test_cuts_do_not_matter(chunks: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nx: y\r\n\r\n"
    tracker = ChunkTracker(10, 100)
    for cut in cuts:
        assert tracker.done is False or not data
        tracker.feed(data[:cut])
        data = data[cut:]
    tracker.feed(data)
    assert (tracker.done, tracker.body, tracker.trailers) == (True, sum(map(len, chunks)), [(b"x", b"y")])
