"""The table of quarantines: what outlives workers, and what a killed writer leaves."""

import os
import time

import pytest

from proxy.sharing.quarantine import RECORD, TRAPS, QuarantineBoard, Trap


@pytest.fixture
def board():
    return QuarantineBoard(["auth", "limit"], 3)


def trap(number, message="unreachable"):
    return Trap(float(number), "proxy_on_request_headers", "trap", message)


def test_any_worker_takes_a_filter_out_and_a_resume_lets_it_in(board):
    assert board.quarantined("auth") is None
    before = time.time()
    board.take_out(2, "auth", "10 faults")
    found = board.quarantined("auth")
    assert (found.worker, found.reason) == (2, "10 faults")
    assert before <= found.since <= time.time()
    assert not board.is_out("limit")
    assert board.resume("auth")
    assert board.quarantined("auth") is None
    assert not board.resume("auth")
    board.take_out(0, "auth", "again")
    assert board.quarantined("auth")[1:] == (0, "again")


def test_two_workers_take_it_out_and_one_resume_is_enough(board):
    board.take_out(0, "limit", "one")
    board.take_out(1, "limit", "two")
    assert board.quarantined("limit").reason == "two"
    board.resume("limit")
    assert not board.is_out("limit")


def test_unknown_names_are_errors(board):
    for ask in (board.is_out, board.resume, board.quarantined, lambda name: board.note(0, name, trap(1))):
        with pytest.raises(ValueError):
            ask("nobody")


def test_the_last_traps_of_all_workers(board):
    for number in range(20):
        board.note(number % 2, "auth", trap(number))
    board.note(0, "limit", trap(99))
    found = board.traps("auth")
    assert [(slot, each.time) for slot, each in found] == [(number % 2, float(number)) for number in range(19, 3, -1)]
    assert len(found) == 2 * TRAPS
    assert board.traps("limit") == [(0, trap(99))]


@pytest.mark.parametrize("message", ["x" * 10_000, "\0" * 10_000, "\u20ac" * 1000, '"\\' * 5000, "\ud800"])
def test_a_long_or_strange_message_is_cut(board, message):
    board.note(1, "auth", trap(1, message))
    board.note(1, "limit", trap(2))
    ((_, found),) = board.traps("auth")
    assert found[:3] == trap(1)[:3]
    assert 0 < len(found.message) < RECORD
    assert board.traps("limit") == [(1, trap(2))]


def test_half_a_record_is_not_read(board):
    """A worker killed inside a write."""
    board.note(0, "auth", trap(1))
    board.note(0, "auth", trap(2))
    at = board.records_at + 2 * RECORD + 20
    board.memory[at : at + 4] = b"\0\0\0\0"
    assert [each.time for _, each in board.traps("auth")] == [1.0]
    board.take_out(0, "auth", "r")
    board.memory[board.records_at + 10] ^= 0xFF
    assert board.quarantined("auth") == (0.0, 0, "")


def test_it_outlives_the_process_that_wrote(board):
    pid = os.fork()
    if not pid:
        board.note(1, "auth", trap(5))
        board.take_out(1, "auth", "gone")
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert board.quarantined("auth").reason == "gone"
    assert board.traps("auth") == [(1, trap(5))]
    board.note(1, "auth", trap(6))  # its successor goes on where it was
    assert [each.time for _, each in board.traps("auth")] == [6.0, 5.0]


def test_a_gateway_without_filters():
    board = QuarantineBoard([], 2)
    assert not board.served
    board.served = True
    assert board.served
