"""The batch of a turn's writes: order, limits, and what closes in between."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.write_batch import MOST_BYTES, MOST_WRITES, WriteBatch


class Transport:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.sent = b""
        self.writes = 0
        self.pieces = 0
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data
        self.writes += 1

    def writelines(self, pieces: list[bytes]) -> None:
        self.pieces += len(pieces)
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closed


@pytest.fixture
def loop() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


def test_writes_leave_at_the_end_of_the_turn(loop: asyncio.AbstractEventLoop) -> None:
    batch, transport = WriteBatch(loop), Transport()
    batch.write(transport, b"a")  # type: ignore[arg-type]
    assert not transport.writes
    turn(loop)
    assert transport.sent == b"a"


def test_many_writes_do_not_wait(loop: asyncio.AbstractEventLoop) -> None:
    batch, transport = WriteBatch(loop), Transport()
    for _ in range(MOST_WRITES):
        batch.write(transport, b"a")  # type: ignore[arg-type]
    assert transport.sent == b"a" * MOST_WRITES
    turn(loop)
    assert transport.writes == 1, "pieces that follow each other on one transport go out together"


def test_much_data_does_not_wait(loop: asyncio.AbstractEventLoop) -> None:
    batch, transport = WriteBatch(loop), Transport()
    batch.write(transport, bytes(MOST_BYTES))  # type: ignore[arg-type]
    assert transport.writes == 1


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_pieces_are_not_joined_where_the_loop_can_do_without(kind: str) -> None:
    loop = pytest.importorskip(kind).new_event_loop()
    batch, transport, other = WriteBatch(loop), Transport(), Transport()
    for to, data in ((transport, b"head"), (transport, b"body"), (other, b"x"), (transport, b"y")):
        batch.write(to, data)  # type: ignore[arg-type]
    turn(loop)
    loop.close()
    assert (transport.sent, other.sent) == (b"headbodyy", b"x")
    assert (transport.writes, transport.pieces) == (2, 2 if kind == "uvloop" else 0)


def test_what_closes_first_is_not_written_to(loop: asyncio.AbstractEventLoop) -> None:
    batch, gone, other = WriteBatch(loop), Transport(), Transport()
    batch.write(gone, b"a")  # type: ignore[arg-type]
    batch.write(other, b"b")  # type: ignore[arg-type]
    gone.closed = True
    turn(loop)
    assert (gone.sent, other.sent) == (b"", b"b")


def test_a_transport_that_calls_back_in_the_flush(loop: asyncio.AbstractEventLoop) -> None:
    """pause_writing may make its protocol write more, to itself and to others, and close."""
    batch, other = WriteBatch(loop), Transport()

    class Full(Transport):
        def write(self, data: bytes) -> None:
            super().write(data)
            if self.writes == 1:
                batch.write(other, b"x")  # type: ignore[arg-type]
                batch.write(self, b"c")  # type: ignore[arg-type]
                batch.flush()

    full = Full()
    for data in (b"a", b"b"):
        batch.write(full, data)  # type: ignore[arg-type]
    turn(loop)
    assert (full.sent, other.sent) == (b"abc", b"x")


def test_one_broken_transport_costs_the_others_nothing(loop: asyncio.AbstractEventLoop) -> None:
    batch, other = WriteBatch(loop), Transport()

    class Broken(Transport):
        def write(self, data: bytes) -> None:
            raise RuntimeError("a defect of the transport")

        def abort(self) -> None:
            self.closed = True

    broken = Broken()
    batch.write(broken, b"a")  # type: ignore[arg-type]
    batch.write(other, b"b")  # type: ignore[arg-type]
    turn(loop)
    assert broken.closed
    assert other.sent == b"b"


@given(
    st.lists(
        st.one_of(st.tuples(st.integers(0, 3), st.integers(0, MOST_BYTES // 2).map(bytes)), st.sampled_from(["flush", "turn"])),
        max_size=80,
    )
)
def test_every_transport_gets_its_bytes_in_order(steps: list[Any]) -> None:
    loop = asyncio.new_event_loop()
    try:
        batch, transports = WriteBatch(loop), [Transport() for _ in range(4)]
        given_to = [b""] * 4
        for i, step in enumerate(steps):
            if step == "flush":
                batch.flush()
            elif step == "turn":
                turn(loop)
            else:
                which, data = step
                data = b"%d," % i + data
                given_to[which] += data
                batch.write(transports[which], data)  # type: ignore[arg-type]
            assert batch.size < MOST_BYTES
        turn(loop)
        assert [transport.sent for transport in transports] == given_to
    finally:
        loop.close()
