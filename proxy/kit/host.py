"""The host functions with a clock that is told what to say, and randomness that repeats; and the ear of a tracing bridge."""

import random
from collections.abc import Callable

from proxy.abi.proxy_wasm.host import DENIED, OK, Host
from proxy.abi.proxy_wasm.slot import VmSlot
from proxy.kit.clock import Clock

Listener = Callable[[VmSlot, int], bool]
"""Told every word that a tracing module says; False: it is the number of a refused function."""


class KitHost(Host):
    """Answers the calls of one VM."""

    def __init__(self, slot: VmSlot, clock: Clock, source: random.Random, listener: Listener | None) -> None:
        super().__init__(slot)
        self.now = clock.nanoseconds
        self.random_bytes = source.randbytes
        self.listener = listener
        self.refusal = ""
        """Why the last host function refused, if a trace has not told it yet."""

    def __call__(self, operation: int) -> int:
        if operation == DENIED and self.listener is not None and self.listener(self.slot, self.words(1)[0]):
            return OK
        return super().__call__(operation)

    def note_error(self) -> int:
        argument, why = self.memory.words_at(self.memory.at.arguments + 48, 2)
        self.refusal = f"{self.core_text(argument)}: {self.core_text(why)}" if why else self.reason
        return super().note_error()
