"""From a filter's file to what a worker instantiates, in two steps.

`prepare` runs once, in the process that starts the workers: it reads the files, checks them, writes the modules that link
them to the core, and compiles (in children, through the cache). `Loader` runs in each worker: it deserialises.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import wasmtime

from proxy.abi.component.load import ComponentDraft, PreparedComponent, draft
from proxy.abi.component.probe import probe, self_test
from proxy.abi.memory import EMPTY_LINK, StreamMemory, memory_type
from proxy.abi.proxy_wasm.foreign import EXTRAS
from proxy.abi.proxy_wasm.grpc import EXTRA, GRPC_FUNCTIONS, installed
from proxy.abi.proxy_wasm.host import SHARING_FUNCTIONS
from proxy.abi.proxy_wasm.inspect import MOST_LISTED, check_limits, inspect_bytes
from proxy.abi.proxy_wasm.link import LINK, bridge_text, denied_functions, exported_callbacks, stubs_text
from proxy.abi.proxy_wasm.vm import Compiled
from proxy.config.filter import Filter, with_versions
from proxy.config.model import Config
from proxy.sources.obtain import UnreadableError, confirm, good_ones, obtain, read_module
from proxy.wasm.cache import CompileErrors, load_or_compile
from proxy.wasm.compile import Request
from proxy.wasm.engine import Engine, Process
from proxy.wasm.module import Module, ModuleError, format_of, read

log = structlog.get_logger("filter")

CORE: Final = Path(__file__).parents[1] / "core" / "core.wasm"


class LoadProblem(NamedTuple):
    """Why a filter cannot be loaded: the filter's place in the config, the key at fault, what is wrong, what to write."""

    filter: int
    key: str
    problem: str
    mend: str


class LoadError(Exception):
    """One or more filters cannot be loaded."""

    def __init__(self, problems: Sequence[LoadProblem]) -> None:
        super().__init__("; ".join(f"{problem.problem}; {problem.mend}" for problem in problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class PreparedFilter:
    """A filter's outline and its modules' serialised code."""

    filter: Filter
    outline: Module
    abi: str
    digest: str
    guest: bytes
    bridge: bytes
    stubs: bytes | None
    memory_export: str
    start_export: str | None
    foreign: tuple[bytes, ...]
    """The foreign functions that need an extra and whose names are in the file: it may call them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that workers need: the core's modules and the filters'."""

    core: bytes
    link: bytes
    empty_link: bytes
    filters: tuple[PreparedFilter | PreparedComponent, ...]
    probe: bytes = b""
    """The component of the codec's self-test; empty without components."""


class Draft(NamedTuple):
    place: int
    filter: Filter
    outline: Module
    abi: str
    digest: str
    modules: list[bytes]
    has_stubs: bool
    memory_export: str
    start_export: str | None
    foreign: tuple[bytes, ...]


def prepare(filters: Sequence[Filter], config: Config | None = None) -> Prepared:
    """Check and compile all filters. Raises LoadError with every problem of every filter.

    With `config` modules are also fetched, and held against its policy: signatures, what was accepted, what manifests ask for
    (proxy/sources). Without it filters are files, and are taken as they are. Leaves no threads behind: the caller may fork.
    """
    chain, filters = filters, with_versions(filters)
    if config is None:
        prepared, problems = build(filters, dict.fromkeys(range(len(filters))))
    else:
        obtained, troubles = obtain(config, filters)
        modules: dict[int, bytes | None] = {i: one.found.data for i, one in enumerate(obtained) if one is not None}
        digests = {i: one.found.digest for i, one in enumerate(obtained) if one is not None}
        prepared, problems = build(filters, modules)
        bad = {one.filter: (digests[one.filter], one.problem) for one in problems}
        if bad and (good := good_ones(config, filters, bad)):
            prepared, problems = build(filters, modules | good)
        problems = [LoadProblem(index, *problem) for index, problem in troubles] + problems
    if problems or prepared is None:
        raise LoadError([placed(chain, filters, problem) for problem in problems])
    if config is not None:
        confirm(config, filters, [one.digest for one in prepared.filters])
    return prepared


def build(filters: Sequence[Filter], modules: Mapping[int, bytes | None]) -> tuple[Prepared | None, list[LoadProblem]]:
    """Check and compile. `modules`: of the filters at these places; None for one that is to be read from its file."""
    problems: list[LoadProblem] = []
    drafts = [found for i, data in modules.items() if (found := outline(i, filters[i], problems, data)) is not None]
    own = [CORE.read_bytes(), bytes(wasmtime.wat2wasm(LINK)), bytes(wasmtime.wat2wasm(EMPTY_LINK))]
    if any(isinstance(one, ComponentDraft) for one in drafts):
        own.append(probe())
    requests = [Request(wasm) for wasm in own]
    places: list[int | None] = [None] * len(own)
    for one in drafts:
        limits = one.filter.limits
        for module in one.modules:
            requests.append(Request(module, seconds=limits.compile_time, memory=limits.compile_memory))
            places.append(one.place)
    try:
        codes = load_or_compile(requests)
    except CompileErrors as errors:
        for at, failure in errors.failures.items():
            place = places[at]
            if place is None:
                raise
            problems.append(LoadProblem(place, "wasm", failure.reason, failure.mend))
        codes = []
    if problems:
        return None, problems
    rest = iter(codes[len(own) :])
    prepared: list[PreparedFilter | PreparedComponent] = []
    for one in drafts:
        if isinstance(one, ComponentDraft):
            prepared.append(PreparedComponent(one.filter, one.outline, one.world, one.digest, next(rest)))
            continue
        guest, bridge = next(rest), next(rest)
        stubs = next(rest) if one.has_stubs else None
        prepared.append(
            PreparedFilter(
                one.filter, one.outline, one.abi, one.digest, guest, bridge, stubs, one.memory_export,
                one.start_export, one.foreign,
            )
        )  # fmt: skip
    return Prepared(codes[0], codes[1], codes[2], tuple(prepared), *codes[3 : len(own)]), []


def placed(chain: Sequence[Filter], filters: Sequence[Filter], problem: LoadProblem) -> LoadProblem:
    """The problem at its place in the config: another version's is its filter's."""
    if problem.filter < len(chain):
        return problem
    name, _, kind = filters[problem.filter].name.partition("@")
    place = next(i for i, one in enumerate(chain) if one.name == name)
    return problem._replace(filter=place, key=kind, problem=f"{problem.key}: {problem.problem}")


def outline(
    index: int, filter_: Filter, problems: list[LoadProblem], data: bytes | None = None
) -> Draft | ComponentDraft | None:
    """Check one filter's module, its file's content without `data`, without compiling it."""

    def refuse(key: str, problem: str, mend: str) -> None:
        problems.append(LoadProblem(index, key, problem, mend))

    if data is None:
        try:
            data = read_module(filter_)
        except UnreadableError as error:
            refuse(*error.problem)
            return None
    digest = hashlib.sha256(data).hexdigest()
    if filter_.sha256 is not None and filter_.sha256.lower() != digest:
        refuse("sha256", f"the file's SHA-256 is {digest}", "take that, if the file is the one you mean")
        return None
    try:
        if format_of(data) == "component":
            return draft(index, filter_, data, digest, refuse)
        inspection = inspect_bytes(data)
        refused = check_limits(inspection, filter_.limits, filter_.memory)
    except ModuleError as error:
        refuse("wasm", error.problem, "name a WebAssembly module built for proxy-wasm")
        return None
    if filter_.isolation == "request":
        refuse("isolation", "a proxy-wasm module keeps one VM for all streams", "leave isolation out, or build a component")
        return None
    for text in refused:
        problem, _, mend = text.rpartition("; ")
        refuse("wasm", problem, mend)
    if refused or inspection.abi_version is None or inspection.allocator is None:
        return None
    module = read(data)
    memory_export = next(export.name for export in module.exports if export.kind == "memory")
    allowed = filter_.capabilities.host_functions
    callbacks = exported_callbacks(module, inspection.abi_version, allowed)
    modules = [data, bytes(wasmtime.wat2wasm(bridge_text(module, callbacks, inspection.allocator, memory_export)))]
    stubs = stubs_text(module, allowed)
    if stubs is not None:
        modules.append(bytes(wasmtime.wat2wasm(stubs)))
    warn(filter_, module, [callback.name + " " + callback.why for callback in inspection.unreachable])
    # Foreign functions are no imports: their names lie in the data.
    calls = any(item.name == "proxy_call_foreign_function" for item in module.imports)
    foreign = tuple(name for name in EXTRAS if calls and name in data)
    warn_of_foreign(filter_, foreign)
    return Draft(
        index, filter_, module, inspection.abi_version, digest, modules, stubs is not None, memory_export,
        inspection.start_export, foreign,
    )  # fmt: skip


def shares(prepared: PreparedFilter | PreparedComponent) -> bool:
    """Does the filter use shared data or queues?"""
    if isinstance(prepared, PreparedComponent):
        return prepared.imports("kv")
    return any(item.name in SHARING_FUNCTIONS for item in prepared.outline.imports)


def calls_grpc(prepared: "PreparedFilter") -> bool:
    """Does the filter make gRPC calls?"""
    return any(item.name in GRPC_FUNCTIONS for item in prepared.outline.imports)


def warn(filter_: Filter, module: Module, unreachable: Sequence[str]) -> None:
    """What its author should know although it loads."""
    grpc = sorted({item.name for item in module.imports if item.name in GRPC_FUNCTIONS})
    if grpc and not installed():
        log.warning(
            "host_functions_unimplemented", filter=filter_.name, functions=grpc, answer="12 (Unimplemented)", install=EXTRA
        )
    if unreachable:
        more = len(unreachable) - MOST_LISTED
        listed = [*unreachable[:MOST_LISTED], *([f"and {more} more"] if more > 0 else [])]
        log.warning("callbacks_never_called", filter=filter_.name, callbacks=listed)


def warn_of_foreign(filter_: Filter, names: Sequence[bytes]) -> None:
    """Foreign functions that are not there for want of an extra."""
    missing = [name for name in names if EXTRAS[name].distinctive and not EXTRAS[name].installed()]
    if missing:
        log.warning(
            "foreign_functions_missing",
            filter=filter_.name,
            functions=[name.decode() for name in missing],
            answer="1 (NotFound)",
            install=sorted({EXTRAS[name].install for name in missing}),
        )


class Loader:
    """In a worker: the stream memory of one generation, and each filter's modules. Without `process` it has one of its own."""

    def __init__(self, prepared: Prepared, process: Process | None = None) -> None:
        self.prepared = prepared
        self.engine = Engine(memory_type(), process)
        self.link = self.engine.load(prepared.link)
        self.memory = StreamMemory(self.engine, self.engine.load(prepared.core), self.engine.load(prepared.empty_link))
        self.loaded: dict[bytes, wasmtime.Module] = {}
        if prepared.probe and not self.engine.process.tested:
            self_test(self.engine, prepared.probe)
            self.engine.process.tested = True

    def compiled(self, filter_: PreparedFilter) -> Compiled:
        """Modules that several filters share are loaded once."""
        for name in filter_.foreign:
            EXTRAS[name].load()
        return Compiled(
            filter_.outline,
            self.module(filter_.guest),
            self.module(filter_.bridge),
            self.link,
            self.module(filter_.stubs) if filter_.stubs is not None else None,
            filter_.memory_export,
            filter_.start_export,
            denied_functions(filter_.outline, filter_.filter.capabilities.host_functions),
        )

    def module(self, code: bytes) -> wasmtime.Module:
        found = self.loaded.get(code)
        if found is None:
            found = self.loaded[code] = self.engine.load(code)
        return found

    def close(self) -> None:
        self.memory.close()
        self.engine.close()
