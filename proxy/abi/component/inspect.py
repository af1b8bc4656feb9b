"""What a component says about itself, without compiling or running it, and whether the limits let it pass."""

from dataclasses import dataclass
from typing import Protocol

from proxy.abi.component.worlds import PREFIX, WorldError, shown, world_of
from proxy.config.units import format_size
from proxy.wasm.component import Component, read_component

MOST_LISTED = 20


class Limits(Protocol):
    """What is read of a filter's `limits`: a count, bytes."""

    @property
    def functions(self) -> int: ...
    @property
    def function_body(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """Names are escaped and cut. `world` is empty for a component that is of none that is served: `problem` and `mend` say
    why. `memory_minimum` is the largest of its memories' in bytes."""

    world: str
    problem: str
    mend: str
    imports: tuple[str, ...]
    exports: tuple[str, ...]
    modules: int
    memories: int
    memory_minimum: int
    shared_memory: bool
    functions: int
    largest_function_body: int
    code_size: int
    grants: tuple[tuple[str, str], ...]
    """Settings that the filter's config may have to give, and what shows it."""


GRANTS = (
    ("capabilities.allowed_hosts", "http-client"),
    ("limits.calls", "http-client"),
    ("limits.shared_data", "kv"),
)


def facts(data: bytes) -> ComponentFacts:
    """Raises ModuleError if the component cannot be read."""
    return facts_of(read_component(data))


def facts_of(outline: Component) -> ComponentFacts:
    world = problem = mend = ""
    try:
        found = world_of(outline.imports, outline.exports)
        world = f"{PREFIX}filter@{found.version}"
    except WorldError as error:
        problem, mend = error.problem, error.mend
    memories = [memory for module in outline.modules for memory in module.memories]
    imported = [(interface, name) for interface in outline.imports for name in (interface.partition("@")[0],)]
    return ComponentFacts(
        world=world,
        problem=problem,
        mend=mend,
        imports=tuple(map(shown, outline.imports[:MOST_LISTED])),
        exports=tuple(map(shown, outline.exports[:MOST_LISTED])),
        modules=len(outline.modules),
        memories=outline.memories,
        memory_minimum=max((memory.minimum for memory in memories), default=0),
        shared_memory=any(memory.shared for memory in memories),
        functions=sum(module.functions for module in outline.modules),
        largest_function_body=max((module.largest_body for module in outline.modules), default=0),
        code_size=sum(module.code_size for module in outline.modules),
        grants=tuple(
            (grant, f"imports {shown(interface)}")
            for grant, wanted in GRANTS
            for interface, name in imported
            if name == PREFIX + wanted
        ),
    )


def refusals(found: ComponentFacts, limits: Limits, memory: int | None) -> list[tuple[str, str]]:
    """Why the component cannot be loaded, everything at once, each as (problem, what to write). `memory`: the filter's limit in
    bytes; None leaves it unchecked."""
    problems = []
    if found.problem:
        problems.append((found.problem, found.mend))
    if found.functions > limits.functions:
        problems.append((
            f"the component has {found.functions} functions, more than limits.functions {limits.functions}",
            f"write limits: {{functions: {found.functions}}}",
        ))  # fmt: skip
    largest = found.largest_function_body
    if largest > limits.function_body:
        problems.append((
            f"the largest function's body is {largest} bytes, more than limits.function_body "
            f"{format_size(limits.function_body)}",
            f"write limits: {{function_body: {-(-largest // 1024)}KiB}}",
        ))  # fmt: skip
    if found.shared_memory:
        problems.append(("a shared memory is declared, and is never allowed", "build without threads"))
    if memory is not None and found.memory_minimum > memory:
        problems.append((
            f"a memory starts with {found.memory_minimum} bytes, more than memory {format_size(memory)}",
            f"write memory: {-(-found.memory_minimum // (1 << 20))}MiB or more",
        ))  # fmt: skip
    return problems
