"""What `penstock filter inspect` found, as text for people."""

from collections.abc import Iterable, Iterator

from proxy.abi.component.inspect import ComponentFacts
from proxy.abi.proxy_wasm.inspect import ExportedCallback, ImportedFunction, Inspection, check_limits, show_size
from proxy.config.filter import Filter, FilterLimits
from proxy.config.units import parse_size

LABEL_WIDTH = 13
GROUPS = {
    "host": "proxy-wasm host functions",
    "wasi": "WASI functions",
    "environment": "other functions that hosts offer",
    "unknown": "functions that no host offers",
}


def report(name: str, found: Inspection) -> str:
    """The whole report, ending with a line end."""
    return "\n".join(lines(name, found)) + "\n"


def lines(name: str, found: Inspection) -> Iterator[str]:
    yield name
    yield field("size", f"{show_size(found.size)}, SHA-256 {found.sha256}")
    if found.component is not None:
        yield from component(found, found.component)
        return
    markers = f" (exports {', '.join(found.abi_markers)})" if found.abi_markers else ""
    yield field("ABI", f"proxy-wasm {found.abi_version}{markers}" if found.abi_version else "none that is known")
    yield field("made with", ", ".join(filter(None, (found.language, found.sdk))) or "can not be told")
    if found.producers:
        yield field("producers", ", ".join(found.producers))
    yield field("memory", memory(found))
    largest = show_size(found.largest_function_body)
    yield field("code", f"{found.functions} functions, {show_size(found.code_size)}; the largest {largest}")
    starts = [start for start in ("start section" if found.start_section else None, found.start_export) if start]
    yield field("starts with", ", ".join(starts) or "nothing")
    yield field("allocator", found.allocator or "none")
    imports = found.imports or {}
    for group, functions in imports.items():
        yield from section(f"imports: {GROUPS.get(group, group)}", map(imported, functions))
    yield from section("imports that are not functions", found.imported_externs)
    yield from section("callbacks", (callback.name for callback in found.callbacks))
    yield from section("callbacks that are never called", map(unreachable, found.unreachable))
    yield from section("grants it will need", (f"{grant.grant}: {grant.because}" for grant in found.grants))
    yield from section("would not load", refusals(found))


def component(found: Inspection, facts: ComponentFacts) -> Iterator[str]:
    yield field("kind", "component")
    yield field("world", facts.world or "none that is served")
    yield field("memory", f"{facts.memories}, the largest starts with {show_size(facts.memory_minimum)}")
    largest = show_size(facts.largest_function_body)
    code = f"{facts.functions} functions, {show_size(facts.code_size)}; the largest {largest}"
    yield field("code", f"{code}, in {facts.modules} core modules")
    yield from section("imports", facts.imports)
    yield from section("exports", facts.exports)
    yield from section("grants it will need", (f"{grant.grant}: {grant.because}" for grant in found.grants))
    yield from section("would not load", refusals(found))


def refusals(found: Inspection) -> list[str]:
    """Why it would not load under the default limits; empty if it would."""
    return check_limits(found, FilterLimits(), default_memory())


def default_memory() -> int:
    return parse_size(Filter.model_fields["memory"].default)


def field(label: str, text: str) -> str:
    return f"  {label:<{LABEL_WIDTH}} {text}"


def section(title: str, items: Iterable[str]) -> Iterator[str]:
    """A blank line, the title and the items, one a line; nothing if there are none."""
    listed = list(items)
    if listed:
        yield ""
        yield f"  {title} ({len(listed)})"
        yield from (f"    {item}" for item in listed)


def memory(found: Inspection) -> str:
    if not found.memories:
        return "none"
    most = "no maximum of its own" if found.memory_maximum is None else f"at most {show_size(found.memory_maximum)}"
    kinds = [kind for kind, is_so in (("64-bit", found.memory_is_64_bit), ("shared", found.shared_memory)) if is_so]
    exported = f"exported as {found.memory_export}" if found.memory_export else "not exported"
    return ", ".join((f"starts with {show_size(found.memory_minimum)}", most, exported, *kinds))


def imported(function: ImportedFunction) -> str:
    return f"{function.name} {function.problem}".rstrip()


def unreachable(callback: ExportedCallback) -> str:
    return f"{callback.name}: {callback.why}"
