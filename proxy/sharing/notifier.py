"""Tells a worker's VMs that items were put into the queues they registered: on_queue_ready, once per item.

A queue's row on the board says how many of the items ever put into it have been told; the queue itself says how many
were put. The difference is what the queue's one consumer has to be told, so no notification lies in a pipe that could
fill up or in a process that could die. The bell says when to look.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.sharing.board import Board
from proxy.sharing.limits import MOST_QUEUES
from proxy.sharing.namespace import Namespace
from proxy.telemetry.logging import get_logger

log = get_logger("sharing")

OnReady = Callable[[int], None]
"""Called with a queue's token, on the event loop."""

TURN_SECONDS = 0.001
"""How long one turn of the event loop may go on telling; a callback that has begun is let finish."""
LONG_TURN_SECONDS = 0.003
REST = 4
"""A turn that has taken longer is followed by so many times its seconds without one."""


def token_of(namespace: Namespace, number: int) -> int:
    """A queue's token: the same in every worker, never 0, and 1, 2, 3... in the first namespace."""
    return 1 + namespace.index * MOST_QUEUES + number


@dataclass(slots=True)
class Registered:
    """A queue that this worker consumes. Of its callbacks the last is called."""

    namespace: Namespace
    number: int
    row: int
    registration: int = 0
    callbacks: list[OnReady] = field(default_factory=list)


class Notifier:
    """One worker's registered queues."""

    def __init__(self, board: Board, slot: int) -> None:
        self.board = board
        self.slot = slot
        self.queues: dict[int, Registered] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.next_turn: asyncio.Handle | None = None
        self.first = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver from now on; what was put before is delivered too."""
        self.loop = loop
        loop.add_reader(self.board.bells[self.slot], self.on_bell)
        self.board.ring(self.slot)

    def stop(self) -> None:
        """Deliver no more: the queues go to other workers that registered them."""
        if self.loop is not None:
            self.loop.remove_reader(self.board.bells[self.slot])
            self.loop = None
        if self.next_turn is not None:
            self.next_turn.cancel()
            self.next_turn = None
        for token in list(self.queues):
            self.withdraw(token)

    def register(self, namespace: Namespace, number: int, on_ready: OnReady) -> None:
        """Make this worker the queue's consumer, and `on_ready` what it calls.

        Items that lie in the queue and belonged to a consumer that is gone are told again; a consumer that lives has
        been told of them.
        """
        row = token_of(namespace, number) - 1
        registered = self.queues.setdefault(row + 1, Registered(namespace, number, row))
        registered.callbacks.append(on_ready)
        orphaned = self.board.consumer(row) is None
        registered.registration = self.board.register(row, self.slot)
        if not orphaned:
            self.board.set_owner(row, registered.registration)
        self.board.ring(self.slot)

    def unregister(self, token: int, on_ready: OnReady) -> None:
        """Forget one callback. Without any left, another worker that registered becomes the consumer."""
        registered = self.queues.get(token)
        if registered is None:
            return  # withdrawn by stop()
        registered.callbacks.remove(on_ready)
        if not registered.callbacks:
            self.withdraw(token)

    def withdraw(self, token: int) -> None:
        registered = self.queues.pop(token)
        self.board.withdraw(registered.row, self.slot)
        successor = self.board.consumer(registered.row)
        if successor is not None:
            self.board.ring(successor)

    def on_bell(self) -> None:
        self.board.silence(self.slot)
        if self.next_turn is None:
            self.tell()

    def tell(self) -> None:
        """One turn: tell what there is to tell, and leave to the next turn what takes too long."""
        self.next_turn = None
        begun = time.monotonic()
        give_up = begun + TURN_SECONDS
        tokens = list(self.queues)
        # Each turn starts with another queue, so that a busy one can't keep the others waiting.
        self.first = (self.first + 1) % max(1, len(tokens))
        left = False
        for token in tokens[self.first :] + tokens[: self.first]:
            left |= self.tell_queue(token, give_up)
        taken = time.monotonic() - begun
        if self.loop is None or not (left or taken > LONG_TURN_SECONDS):
            return
        # A callback may put into the queue that it is called for, without end: the loop belongs to others, too.
        rest = REST * taken if taken > LONG_TURN_SECONDS else 0.0
        self.next_turn = self.loop.call_later(rest, self.tell) if rest else self.loop.call_soon(self.tell)

    def tell_queue(self, token: int, give_up: float) -> bool:
        """Tell of one queue's items; gives whether there are more to tell."""
        registered = self.queues.get(token)
        if registered is None:
            return False  # a callback just called has unregistered it
        row = registered.row
        counts = registered.namespace.counts(registered.number)
        assert counts is not None  # queues are never removed
        taken, put = counts
        consumer = self.board.consumer(row)
        if consumer != self.slot:
            if consumer is not None and put > self.board.notified(row):
                self.board.ring(consumer)
            return False
        if self.board.owner(row) != registered.registration:
            # The consumer before is gone, and what it left in the queue may have been told to nobody who lives.
            self.board.set_owner(row, registered.registration)
            self.board.set_notified(row, min(taken, self.board.notified(row)))
        # A filter that puts and takes in a loop can't pile up more than the queue itself may hold.
        notified = max(self.board.notified(row), put - registered.namespace.limits.items)
        while notified < put:
            if time.monotonic() >= give_up:
                return True
            notified += 1
            self.board.set_notified(row, notified)
            try:
                registered.callbacks[-1](token)
            except Exception:
                log.exception("on_queue_ready failed", token=token)
            if not registered.callbacks:
                return False
        return False
