"""The host functions with a clock that is told what to say, and randomness that repeats; and the ear of a tracing bridge."""

import random
from collections.abc import Callable

from proxy.abi.proxy_wasm.host import BAD_ARGUMENT, DENIED, MOST_RANDOM, OK, Host
from proxy.abi.proxy_wasm.slot import VmSlot
from proxy.kit.clock import Clock

Listener = Callable[[VmSlot, int], bool]
"""Told every word that a tracing module says; False: it is the number of a refused function."""


class KitHost(Host):
    """Answers the calls of one VM."""

    def __init__(self, slot: VmSlot, clock: Clock, source: random.Random, listener: Listener | None) -> None:
        super().__init__(slot)
        self.clock = clock
        self.source = source
        self.listener = listener
        self.operations |= {0: self.get_time, 1: self.get_random}

    def __call__(self, operation: int) -> int:
        if operation == DENIED and self.listener is not None and self.listener(self.slot, self.words(1)[0]):
            return OK
        return super().__call__(operation)

    def get_time(self) -> int:
        step = self.context.plugin.settings.clock
        now = self.clock.nanoseconds()
        start = self.memory.at.time
        self.memory.buffer[start : start + 8] = (now - now % step).to_bytes(8, "little")
        self.set_words(step & 0xFFFFFFFF, step >> 32)
        return OK

    def get_random(self) -> int:
        address, size = self.words(2)
        if size > MOST_RANDOM:
            return BAD_ARGUMENT
        self.memory.write(address, self.source.randbytes(size))
        return OK
