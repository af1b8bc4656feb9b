"""Which versions of the world are served, and which one a component was built for.

An interface's name has its version: `penstock:filter/kv@0.1.0`. Under 0.x the minor number is the one that breaks (semver):
what was built for 0.1.0 runs on every later 0.1, in which functions to import may have been added. 0.2 is another world, served
beside 0.1 for as long as there are filters built for it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from proxy.abi.component import world as world_0_1
from proxy.abi.component.types import Interfaces


class Export(NamedTuple):
    """A callback that a version has otherwise than 0.1: its own name there, its arguments of the filter's Host and 0.1's
    arguments, and 0.1's result of its own."""

    name: str
    arguments: Callable[[Any, Sequence[Any]], Sequence[Any]]
    result: Callable[[Any], Any]


NO_ANSWERS: Final[Mapping[tuple[str, str], Callable[..., Any]]] = {}
NO_CHANGES: Final[Mapping[str, Export]] = {}


class World(NamedTuple):
    """One version: `filter` is the interface that a filter exports. `answers`: of the functions to import those that this
    version has alone, or has otherwise than host.py, by interface (without package and version) and name; called with the
    filter's Host first. `changes`: of the callbacks those that it has otherwise, by their names in 0.1."""

    version: str
    imports: Interfaces
    exports: Interfaces
    answers: Mapping[tuple[str, str], Callable[..., Any]] = NO_ANSWERS
    changes: Mapping[str, Export] = NO_CHANGES

    @property
    def filter(self) -> str:
        (name,) = self.exports
        return name


WORLDS: Final[list[World]] = [World(world_0_1.VERSION, world_0_1.IMPORTS, world_0_1.EXPORTS)]
"""The newest last."""

PREFIX: Final = f"{world_0_1.PACKAGE}/"
EXPORTED: Final = f"{PREFIX}http-filter@"
MEND_WASI: Final = (
    "build it without WASI: componentize-py with --stub-wasi, jco with --backend-qjs-stub-wasi, C for wasm32-freestanding"
)


class WorldError(Exception):
    """The component is for no world that is served: what is wrong, and what to do."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}; {mend}")
        self.problem = problem
        self.mend = mend


def world_of(imports: Iterable[str], exports: Iterable[str]) -> World:
    """The world that a component with these imports and exports was built for. Raises WorldError."""
    filters = [name for name in exports if name.startswith(EXPORTED)]
    if len(filters) != 1:
        found = "the component exports " + (", ".join(map(shown, filters)) if filters else "no filter")
        raise WorldError(found, f"export {EXPORTED}{WORLDS[-1].version} (docs/components.md)")
    version = filters[0].removeprefix(EXPORTED)
    world = next((world for world in WORLDS if compatible(version, world.version)), None)
    if world is None:
        served = ", ".join(world.version for world in WORLDS)
        raise WorldError(
            f"the component is built for version {shown(version)} of {PREFIX}http-filter", f"build it for one of: {served}"
        )
    foreign = [name for name in imports if not name.startswith(PREFIX)]
    if foreign:
        mend = MEND_WASI if any(name.startswith("wasi:") for name in foreign) else "build it without them"
        raise WorldError(f"the component imports what is not {PREFIX}*: {', '.join(map(shown, foreign[:5]))}", mend)
    for name in imports:
        interface, _, own = name.partition("@")
        if not any(known.partition("@")[0] == interface and compatible(own, world.version) for known in world.imports):
            raise WorldError(
                f"the component imports {shown(name)}, which world {world.version} does not have", "build it without"
            )
    return world


def compatible(guest: str, host: str) -> bool:
    """May what was built for version `guest` run on `host`? Major and minor agree, and the host's patch is as high."""
    try:
        (a, b, c), (x, y, z) = (tuple(int(part) for part in version.split(".")) for version in (guest, host))
    except ValueError:
        return False
    return (a, b) == (x, y) and c <= z


def function_name(interface: str, name: str) -> str:
    """What people call a function to import: `kv.get`, whatever its version."""
    return f"{interface.partition('@')[0].removeprefix(PREFIX)}.{name}"


def function_names() -> list[str]:
    """All functions to import, of every version that is served."""
    imports = [pair for world in WORLDS for pair in world.imports.items()]
    return sorted({function_name(interface, name) for interface, found in imports for name in found})


def shown(name: str) -> str:
    """A name from an untrusted file."""
    return name[:100].encode("unicode_escape").decode()
