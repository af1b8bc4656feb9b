import os
import select

import pytest

from proxy.sharing.board import Board
from tests.sharing.processes import Process


def heard(board: Board, slot: int) -> bool:
    poll = select.poll()
    poll.register(board.bells[slot], select.POLLIN)
    return bool(poll.poll(0))


def test_a_bell_is_heard_in_another_process_until_silenced() -> None:
    board = Board(2, 1)
    assert Process(lambda: [board.ring(1) for _ in range(3)]).join() == 0
    assert (heard(board, 0), heard(board, 1)) == (False, True)
    board.silence(1)
    assert not heard(board, 1)
    board.silence(1)
    board.close()


def test_a_bell_can_be_rung_without_end() -> None:
    board = Board(1, 1)
    os.eventfd_write(board.bells[0], 2**64 - 2)
    board.ring(0)
    assert heard(board, 0)
    board.close()


@pytest.mark.parametrize(
    ("steps", "consumer"),
    [
        ([], None),
        ([("register", 1)], 1),
        ([("register", 1), ("register", 0)], 0),
        ([("register", 1), ("register", 0), ("register", 1)], 1),
        ([("register", 1), ("register", 0), ("withdraw", 0)], 1),
        ([("register", 1), ("register", 2), ("register", 0), ("withdraw", 0)], 2),
        ([("register", 1), ("withdraw", 1)], None),
    ],
)
def test_the_last_that_registered_consumes(steps: list[tuple[str, int]], consumer: int | None) -> None:
    board = Board(3, 4)
    for step, slot in steps:
        getattr(board, step)(2, slot)
    assert [board.consumer(row) for row in range(4)] == [None, None, consumer, None]
    board.close()


def test_rows_are_apart() -> None:
    board = Board(2, 3)
    board.cas = 7
    for row in range(3):
        board.set_owner(row, 10 + row)
        board.set_notified(row, 20 + row)
        board.register(row, 0)
        board.register(row, 1)
    board.withdraw_all(1)
    assert board.cas == 7
    assert [board.owner(row) for row in range(3)] == [10, 11, 12]
    assert [board.notified(row) for row in range(3)] == [20, 21, 22]
    assert [board.consumer(row) for row in range(3)] == [0, 0, 0]
    board.close()
