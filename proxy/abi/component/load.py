"""From a component's file to what a worker instantiates: checked and compiled before the workers, deserialised in each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import wasmtime
from wasmtime import component

from proxy.abi.component.inspect import facts_of, refusals
from proxy.abi.component.types import differences
from proxy.abi.component.worlds import EXPORTED, World, WorldError, world_of
from proxy.config.filter import Filter
from proxy.wasm.component import Component, read_component
from proxy.wasm.engine import Engine

Refuse = Callable[[str, str, str], None]
"""(key at fault in the filter's config, what is wrong, what to write)."""


class ComponentDraft(NamedTuple):
    """A component that has been read and checked, and is yet to be compiled."""

    place: int
    filter: Filter
    outline: Component
    world: World
    digest: str
    modules: list[bytes]


@dataclass(frozen=True, slots=True)
class PreparedComponent:
    """A component's outline and its serialised code."""

    filter: Filter
    outline: Component
    world: World
    digest: str
    code: bytes

    def imports(self, interface: str) -> bool:
        return any(name.startswith(f"penstock:filter/{interface}@") for name in self.outline.imports)


def draft(place: int, filter_: Filter, data: bytes, digest: str, refuse: Refuse) -> ComponentDraft | None:
    """Check a component's outline; None if it was refused. Raises ModuleError."""
    outline = read_component(data)
    refused = refusals(facts_of(outline), filter_.limits, filter_.memory)
    for problem, mend in refused:
        refuse("wasm", problem, mend)
    if refused:
        return None
    return ComponentDraft(place, filter_, outline, world_of(outline.imports, outline.exports), digest, [data])


def checked(engine: Engine, prepared: PreparedComponent) -> component.Component:
    """The component, loaded. Raises WorldError if a function that it exports or imports is not of the world's type."""
    loaded = engine.load_component(prepared.code)
    type_ = loaded.type
    world = prepared.world
    wrong = wrong_types(engine.wasmtime, type_, world)
    if wrong:
        raise WorldError(
            f"the component is not of the world {world.filter}: {wrong[0]}"
            + (f", and {len(wrong) - 1} more differences" if len(wrong) > 1 else ""),
            "build it with wit/filter.wit of this version",
        )
    return loaded


def wrong_types(engine: wasmtime.Engine, type_: component.ComponentType, world: World) -> list[str]:
    imports = {at_version(name, world): extern for name, extern in type_.imports(engine).items()}
    exports = {at_version(name, world): extern for name, extern in type_.exports(engine).items()}
    return differences(engine, exports, world.exports, True) + differences(engine, imports, world.imports, False)


def interface_of(exports: Sequence[str]) -> str:
    """The name under which a component exports its filter."""
    return next(name for name in exports if name.startswith(EXPORTED))


def at_version(name: str, world: World) -> str:
    """An interface's name, in the version of the world instead of its own: the two were found compatible."""
    return f"{name.partition('@')[0]}@{world.version}"
