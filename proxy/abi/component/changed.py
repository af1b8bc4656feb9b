"""Instances of filters whose version of the world has callbacks that 0.1 has otherwise (worlds.py): called as 0.1's are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxy.abi.component.instance import Instance, Linked
from proxy.abi.component.worlds import World

if TYPE_CHECKING:
    from proxy.abi.component.host import Host


class ChangedInstance(Instance):
    """What is chosen at load for such a version: an instance of 0.1 pays nothing for it."""

    def __init__(self, host: "Host", world: World, linked: Linked, **limits: Any) -> None:
        super().__init__(linked, **limits)
        self.host = host
        self.changes = world.changes

    def call(self, name: str, arguments: Sequence[Any], fuel: int) -> Any:
        change = self.changes.get(name)
        if change is None:
            return self.export(name, arguments, fuel)
        return change.result(self.export(change.name, change.arguments(self.host, arguments), fuel))

    def export(self, name: str, arguments: Sequence[Any], fuel: int) -> Any:
        """A function by the name that it has in its own version."""
        return super().call(name, arguments, fuel)
