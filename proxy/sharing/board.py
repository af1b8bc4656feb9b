"""What the processes of a gateway tell each other about queues: a table in shared memory and a bell for each worker.

A bell is an eventfd: ringing adds to a counter, an event loop can wait for it, and rings that nobody has heard yet
become one. It only says "look"; what there is to do follows from the table and the queues.

Every word of the table has one writer at a time or is advice, so it needs no lock: a slot's registrations are written by
its worker (by the supervisor once that is dead), `owner` and `notified` by the queue's consumer.
"""

import mmap
import os
import time


class Board:
    """Create before forking. `rows` is the number of queues there can be."""

    def __init__(self, slots: int, rows: int) -> None:
        self.slots = slots
        self.rows = rows
        self.width = 2 + slots
        self.memory = mmap.mmap(-1, 8 * (1 + rows * self.width))
        self.words = memoryview(self.memory).cast("Q")
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(slots)]

    def close(self) -> None:
        """Give up this process's descriptors and memory."""
        self.words.release()
        self.memory.close()
        for bell in self.bells:
            os.close(bell)

    # Bells

    def ring(self, slot: int) -> None:
        try:
            os.eventfd_write(self.bells[slot], 1)
        except BlockingIOError:  # the counter is at its end: it has been rung
            return

    def silence(self, slot: int) -> None:
        try:
            os.eventfd_read(self.bells[slot])
        except BlockingIOError:  # heard already
            return

    # The counter behind compare-and-swap values

    @property
    def cas(self) -> int:
        """About the last value given out. Writers of different namespaces may set it back; see Namespace.next_cas."""
        return self.words[0]

    @cas.setter
    def cas(self, value: int) -> None:
        self.words[0] = value

    # A queue's row: who told it last, how many of its items have been told, when each slot registered

    def owner(self, row: int) -> int:
        """The registration that last told items of this queue."""
        return self.words[1 + row * self.width]

    def set_owner(self, row: int, registration: int) -> None:
        self.words[1 + row * self.width] = registration

    def notified(self, row: int) -> int:
        """How many items, of all that were ever put into the queue, have been told to a consumer."""
        return self.words[2 + row * self.width]

    def set_notified(self, row: int, count: int) -> None:
        self.words[2 + row * self.width] = count

    def registration(self, row: int, slot: int) -> int:
        """When the slot's worker registered (time.monotonic_ns()); 0 if it has not."""
        return self.words[3 + row * self.width + slot]

    def register(self, row: int, slot: int) -> int:
        stamp = time.monotonic_ns()
        self.words[3 + row * self.width + slot] = stamp
        return stamp

    def withdraw(self, row: int, slot: int) -> None:
        self.words[3 + row * self.width + slot] = 0

    def withdraw_all(self, slot: int) -> None:
        for row in range(self.rows):
            self.withdraw(row, slot)

    def consumer(self, row: int) -> int | None:
        """The slot whose worker is told of items: the last that registered, as in proxy-wasm-cpp-host."""
        first = 3 + row * self.width
        registrations = self.words[first : first + self.slots].tolist()
        latest = max(registrations)
        return registrations.index(latest) if latest else None
