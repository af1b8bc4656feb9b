"""What each callback took: read from the counters that the gateway keeps anyway, so that nothing runs slower for it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from proxy.abi.proxy_wasm.context import NAMES
from proxy.abi.proxy_wasm.plugin import Plugin


class Callback(NamedTuple):
    """One call into a filter. `memory`: bytes of its linear memory afterwards."""

    filter: str
    name: str
    fuel: int
    seconds: float
    memory: int


class Total:
    """In the place of a counter: tells what is added to it."""

    def __init__(self, counter: Any, tell: Callable[[Any], None]) -> None:
        self.counter = counter
        self.tell = tell

    @property
    def value(self) -> Any:
        return self.counter.value

    @value.setter
    def value(self, value: Any) -> None:
        added = value - self.counter.value
        self.counter.value = value
        self.tell(added)


def nothing() -> None:
    """Nobody looks."""


class Meter:
    """The callbacks of filters, in their order."""

    def __init__(self) -> None:
        self.callbacks: list[Callback] = []
        self.after: Callable[[], None] = nothing
        """Called after each callback, while its stream's heads are as it left them."""

    def watch(self, plugin: Plugin) -> None:
        """From now on, every call into this filter (its start is over)."""
        running: dict[str, Any] = {"name": "", "fuel": 0}

        def entered(name: str) -> Callable[[Any], None]:
            return lambda added: running.update(name=name)

        def paid(fuel: int) -> None:
            running["fuel"] = fuel

        def took(seconds: float) -> None:
            vm = plugin.slot.vm
            memory = vm.store.guest_memory() if vm is not None else 0
            self.callbacks.append(Callback(plugin.name, running["name"], running["fuel"], seconds, memory))
            self.after()

        own: Any = plugin
        own.calls = {number: Total(counter, entered(NAMES[number])) for number, counter in plugin.calls.items()}
        own.fuel_used = Total(plugin.fuel_used, paid)
        own.seconds = Total(plugin.seconds, took)
