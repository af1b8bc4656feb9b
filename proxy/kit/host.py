"""The host functions with a clock that is told what to say, and randomness that repeats; and the ear of a tracing bridge."""

import random
from collections.abc import Callable
from typing import Final

from proxy.abi.proxy_wasm.host import BAD_ARGUMENT, DENIED, MOST_RANDOM, OK, Host
from proxy.abi.proxy_wasm.slot import VmSlot
from proxy.kit.clock import Clock

TOLD: Final = 1 << 20
"""A `denied` call with a number above this is the tracer's (kit/tracing.py), not a refusal's."""

Listener = Callable[[VmSlot, int], None]
"""Told every word that a tracing bridge says."""


class KitHost(Host):
    """Answers the calls of one VM."""

    def __init__(self, slot: VmSlot, clock: Clock, source: random.Random, listener: Listener | None) -> None:
        super().__init__(slot)
        self.clock = clock
        self.source = source
        self.listener = listener
        self.operations |= {0: self.get_time, 1: self.get_random}

    def __call__(self, operation: int) -> int:
        if operation == DENIED and self.listener is not None:
            (word,) = self.words(1)
            self.listener(self.slot, word)
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
