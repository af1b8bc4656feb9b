"""What each callback took: read from the counters that the gateway keeps anyway, so that nothing runs slower for it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from proxy.abi.component.plugin import ComponentPlugin
from proxy.abi.proxy_wasm.context import NAMES
from proxy.abi.proxy_wasm.plugin import Plugin


class Callback(NamedTuple):
    """One call into a filter."""

    filter: str
    name: str
    fuel: int
    seconds: float


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


class Edited:
    """In the place of a component's stream memory: tells when its edits have been written there."""

    def __init__(self, memory: Any, tell: Callable[[], None]) -> None:
        self.memory = memory
        self.tell = tell

    def set_pairs(self, map_: int, pairs: Any) -> None:
        self.memory.set_pairs(map_, pairs)
        self.tell()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)


def nothing() -> None:
    """Nobody looks."""


class Meter:
    """The callbacks of filters, in their order."""

    def __init__(self) -> None:
        self.callbacks: list[Callback] = []
        self.after: Callable[[], None] = nothing
        """Called after each callback, while its stream's heads are as it left them."""
        self.edited: Callable[[], None] = nothing
        """Called after that, when the edits that a component gave back have been done."""

    def watch(self, plugin: Plugin | ComponentPlugin) -> None:
        """From now on, every call into this filter (its start is over)."""
        running: dict[str, Any] = {"name": "", "fuel": 0}

        def entered(name: str) -> Callable[[Any], None]:
            return lambda added: running.update(name=name)

        def paid(fuel: int) -> None:
            running["fuel"] = fuel

        def took(seconds: float) -> None:
            self.callbacks.append(Callback(plugin.name, running["name"], running["fuel"], seconds))
            self.after()

        own: Any = plugin
        names: Callable[[Any], str] = NAMES.__getitem__ if isinstance(plugin, Plugin) else str
        calls: Mapping[Any, Any] = plugin.calls
        own.calls = {key: Total(counter, entered(names(key))) for key, counter in calls.items()}
        own.fuel_used = Total(plugin.fuel_used, paid)
        own.seconds = Total(plugin.seconds, took)
        if isinstance(plugin, ComponentPlugin):
            own.memory = Edited(plugin.memory, lambda: self.edited())
