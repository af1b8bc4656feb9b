"""Components in the kit: the kit's clock and randomness in what they import, their memory, and what a trace tells of their
calls."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from proxy.abi.component.changed import ChangedInstance
from proxy.abi.component.host import Host, HostFunction
from proxy.abi.component.instance import Linked
from proxy.abi.component.types import Function
from proxy.abi.component.worlds import World, function_name
from proxy.kit.clock import Clock
from proxy.kit.typed import arguments_text, text_of
from proxy.wasm.fault import GuestFault
from proxy.wasm.linear_memory import come, mapped


class Trace(Protocol):
    """Takes lines, and the names of the functions that were called (tracing.Tracer)."""

    called: set[str]

    def say(self, line: str) -> None: ...


class KitComponentHost(Host):
    """Answers one component's instances. `trace` None: nothing is traced, and nothing stands between."""

    def __init__(self, world: World, clock: Clock, source: random.Random, trace: Trace | None) -> None:
        super().__init__(world)
        self.instances: set[WatchedInstance] = set()
        self.most_memory = 0
        """Bytes of the largest instance that is closed."""
        self.now = clock.nanoseconds
        self.monotonic = clock.nanoseconds
        self.random_bytes = source.randbytes
        self.instance_of = partial(WatchedInstance, self, world)
        if trace is not None:
            self.instance_of = partial(TracedInstance, trace, self, world)
            self.functions = {
                (interface, name): traced(trace, interface, name, world.imports[interface][name], answer)
                for (interface, name), answer in self.functions.items()
            }

    def memory(self) -> int:
        """Bytes of the largest instance, its linear memories together: the one that serves, unless a larger one has ended."""
        return max([self.most_memory, *(one.memory() for one in self.instances)])


class WatchedInstance(ChangedInstance):
    """An instance whose memory the kit can tell."""

    def __init__(self, host: KitComponentHost, world: World, linked: Linked, **limits: Any) -> None:
        self.kit = host
        before = mapped()
        super().__init__(host, world, linked, **limits)
        self.places = come(before, mapped())
        host.instances.add(self)

    def close(self) -> None:
        if self in self.kit.instances:
            self.kit.instances.remove(self)
            self.kit.most_memory = max(self.kit.most_memory, self.memory())
        super().close()


class TracedInstance(WatchedInstance):
    """An instance that tells of every call into it, in the words of its own version."""

    def __init__(self, trace: Trace, host: KitComponentHost, world: World, linked: Linked, **limits: Any) -> None:
        super().__init__(host, world, linked, **limits)
        self.say = trace.say
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


def traced(trace: Trace, interface: str, name: str, function: Function, answer: HostFunction) -> HostFunction:
    """A host function that tells of each call, as `kv.get("key") -> ok none`."""
    shown = function_name(interface, name)

    def call(*values: Any) -> Any:
        trace.called.add(shown)
        result = answer(*values)
        given = f"  {shown}({arguments_text(function, values, names=False)})"
        trace.say(given if function.result is None else f"{given} -> {text_of(function.result, result)}")
        return result

    return call
