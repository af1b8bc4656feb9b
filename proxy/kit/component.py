"""Components in the kit: the kit's clock and randomness in what they import, and what a trace tells of their calls."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from proxy.abi.component.changed import ChangedInstance
from proxy.abi.component.host import Host, HostFunction
from proxy.abi.component.instance import Linked
from proxy.abi.component.types import Function
from proxy.abi.component.worlds import World
from proxy.kit.clock import Clock
from proxy.kit.typed import arguments_text, text_of
from proxy.wasm.fault import GuestFault

Say = Callable[[str], object]
"""Takes a line of a trace."""


class KitComponentHost(Host):
    """Answers one component's instances. `say` None: nothing is traced, and nothing stands between."""

    def __init__(self, world: World, clock: Clock, source: random.Random, say: Say | None) -> None:
        super().__init__(world)
        self.now = clock.nanoseconds
        self.monotonic = clock.nanoseconds
        self.random_bytes = source.randbytes
        if say is not None:
            self.instance_of = partial(TracedInstance, say, self, world)
            self.functions = {
                (interface, name): traced(say, interface, name, world.imports[interface][name], answer)
                for (interface, name), answer in self.functions.items()
            }


class TracedInstance(ChangedInstance):
    """An instance that tells of every call into it, in the words of its own version."""

    def __init__(self, say: Say, host: Host, world: World, linked: Linked, **limits: Any) -> None:
        super().__init__(host, world, linked, **limits)
        self.say = say
        self.types = world.exports[world.filter]

    def export(self, name: str, arguments: Sequence[Any], fuel: int) -> Any:
        function = self.types[name]
        self.say(f"{name}({arguments_text(function, arguments, names=True)})")
        try:
            result = super().export(name, arguments, fuel)
        except GuestFault as fault:
            self.say(f"  -> did not return: {fault.reason}")
            raise
        if function.result is not None:
            self.say(f"  -> {text_of(function.result, result)}")
        return result


def traced(say: Say, interface: str, name: str, function: Function, answer: HostFunction) -> HostFunction:
    """A host function that tells of each call, as `kv.get("key") -> ok none`."""
    shown = f"{interface.partition('@')[0].partition('/')[2]}.{name}"

    def call(*values: Any) -> Any:
        result = answer(*values)
        given = f"  {shown}({arguments_text(function, values, names=False)})"
        say(given if function.result is None else f"{given} -> {text_of(function.result, result)}")
        return result

    return call
