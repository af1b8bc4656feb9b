"""A filter's manifest, filter.yaml, against its module or component: digest, ABI, imports and grants, configuration schema."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import yaml

from proxy.abi.component.inspect import ComponentFacts
from proxy.abi.component.worlds import EXPORTED, PREFIX, WORLDS, function_name
from proxy.abi.proxy_wasm.inspect import Inspection, check_limits, inspect
from proxy.config.filter import Filter, FilterLimits
from proxy.config.units import parse_size
from proxy.kit.case_file import FILE as CASES
from proxy.kit.case_file import read
from proxy.kit.cases import CaseError
from proxy.sources.asks import ENTRY, PLACEHOLDER
from proxy.sources.signature import SUFFIX
from proxy.wasm.module import ModuleError

FILE: Final = "filter.yaml"
NEEDED: Final = ("name", "version", "description", "abi", "grants")
KNOWN: Final = (*NEEDED, "language", "defaults", "config_schema", "sha256", "wasm", "penstock", "linked")
GRANTS: Final = ("host_functions", "allowed_hosts", "env")
SUMS: Final = "SHA256SUMS"
CALLS: Final = ("proxy_http_call", "proxy_grpc_call", "proxy_grpc_stream")
SCHEMAS: Final = "pip install 'penstock[kit]'"


class ManifestError(Exception):
    """There is no manifest, or it can not be read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`problems` and what holds, a line each; `notes`: what could not be looked at, or is for people to judge."""

    problems: Sequence[str]
    holds: Sequence[str]
    notes: Sequence[str]


@dataclass(slots=True)
class Findings:
    """What has been found so far."""

    problems: list[str]
    holds: list[str]
    notes: list[str]

    def hold(self, what: str, problems: Sequence[str]) -> None:
        """`what` holds, unless there are problems."""
        self.problems += problems
        if not problems:
            self.holds.append(what)


def find(path: Path) -> Path:
    """The manifest that a path means: itself, in a folder, or beside a module. Raises ManifestError."""
    found = path / FILE if path.is_dir() else path.parent / FILE if path.suffix == ".wasm" else path
    if not found.is_file():
        raise ManifestError(f"{found}: there is no such file; write a folder with a {FILE}")
    return found


def load(path: Path) -> dict[str, Any]:
    """Raises ManifestError."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ManifestError(f"{path}: can not be read: {error}") from None
    if not isinstance(data, dict):
        raise ManifestError(f"{path}: is not a mapping; write key: value lines")
    return data


def module_of(path: Path, data: Mapping[str, Any]) -> Path:
    """The module that a manifest is about. Raises ManifestError."""
    named = path.parent / str(data.get("wasm", f"{data.get('name')}.wasm"))
    if not named.is_file():
        raise ManifestError(f"{named}: there is no such file; build it, or write wasm: FILE.wasm")
    return named


def verify(path: Path) -> Verdict:
    """Raises ManifestError."""
    manifest = find(path)
    data = load(manifest)
    found = Findings([], [], [])
    found.hold("its keys", list(form(data)))
    module = path if path.suffix == ".wasm" else module_of(manifest, data)
    try:
        inspection = inspect(module)
    except (OSError, ModuleError) as error:
        raise ManifestError(f"{module}: {error}") from None
    digest(found, data, module, inspection.sha256)
    component = inspection.component
    abi = f"proxy-wasm {inspection.abi_version}" if component is None else abi_of(component)
    said = str(data.get("abi"))
    if abi:
        found.hold(f"ABI {abi}", [] if said == abi else [f"abi: is {said!r}, the module's is {abi!r}; write abi: {abi}"])
    grants = data.get("grants")
    if abi and isinstance(grants, dict):
        linked = [str(name) for name in data.get("linked") or ()]
        if component is None:
            imports(found, grants, linked, inspection)
        else:
            interfaces(found, grants, linked, component)
    limits = check_limits(inspection, FilterLimits(), parse_size(Filter.model_fields["memory"].default))
    found.hold("it loads under the default limits", [f"{inspection.kind}: {text}" for text in limits])
    schema(found, data, manifest.parent)
    if module.with_name(module.name + SUFFIX).is_file():
        found.notes.append("it has a signature, which was not looked at: write --key KEY")
    return Verdict(found.problems, found.holds, found.notes)


def form(data: Mapping[str, Any]) -> Iterator[str]:
    for key in NEEDED:
        if key not in data:
            yield f"{key}: is missing"
    for key in data:
        if key not in KNOWN:
            yield f"{key}: is no key of a manifest; the keys are {', '.join(KNOWN)}"
    grants = data.get("grants", {})
    if not isinstance(grants, dict):
        yield "grants: is not a mapping"
        return
    for key in grants:
        if key not in GRANTS:
            yield f"grants.{key}: is no grant; the grants are {', '.join(GRANTS)}"
    for index, grant in enumerate(grants.get("host_functions", ())):
        if not isinstance(grant, dict) or not grant.get("name"):
            yield f"grants.host_functions[{index}]: has no name; write {{ name: proxy_log, reason: ... }}"
        elif not grant.get("reason"):
            yield f"grants.host_functions[{index}]: {grant['name']} has no reason; say what it is for"
    for index, grant in enumerate(grants.get("allowed_hosts") or ()):
        name = grant.get("name") if isinstance(grant, dict) else grant
        if not ENTRY.fullmatch(PLACEHOLDER.sub("x", str(name))):
            yield f"grants.allowed_hosts[{index}]: {name!r} is no entry; write https://api.example.com, or cluster:{{key}}"


def digest(found: Findings, data: Mapping[str, Any], module: Path, actual: str) -> None:
    """Against the manifest's sha256, else against a SHA256SUMS beside the module or one folder up."""
    if "sha256" in data:
        wrong = str(data["sha256"]).lower() != actual
        found.hold(f"SHA-256 {actual}", [f"sha256: the file's is {actual}"] if wrong else [])
        return
    for folder in (module.parent, module.parent.parent):
        name = module.resolve().relative_to(folder.resolve()).as_posix()
        sums = folder / SUMS
        lines = sums.read_text().splitlines() if sums.is_file() else []
        listed = [line.split()[0] for line in lines if line.split()[1:] == [name]]
        if listed:
            wrong = listed != [actual]
            found.hold(
                f"SHA-256 {actual} ({SUMS})", [f"{sums}: says {listed[0]} of {name}, the file's is {actual}"] if wrong else []
            )
            return
    found.notes.append(f"no digest to compare with; the file's is sha256: {actual}")


def imports(found: Findings, grants: Mapping[str, Any], linked: Sequence[str], inspection: Inspection) -> None:
    """What the module imports has to be asked for, and nothing else; but for what is `linked`: an SDK brings it along and the
    filter never calls it."""
    patterns = asked(grants)
    imported = sorted({one.name.partition(".")[2] for group in (inspection.imports or {}).values() for one in group})
    unmet = [name for name in imported if name not in linked and not any(fnmatchcase(name, pattern) for pattern in patterns)]
    surplus = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in imported)]
    problems = [
        f"grants.host_functions: {name} is imported and not asked for; add {{ name: {name}, reason: ... }}" for name in unmet
    ]
    problems += [f"grants.host_functions: {name} is asked for and not imported; remove it" for name in surplus]
    problems += [f"linked: {name} is asked for as well; remove it here" for name in linked if name in patterns]
    problems += [f"linked: {name} is not imported; remove it" for name in linked if name not in imported]
    besides = f", but for {len(linked)} that it does not call" if linked else ""
    found.hold(f"{len(imported)} imports, each of them asked for{besides}", problems)
    if any(name in CALLS and name not in linked for name in imported) and not grants.get("allowed_hosts"):
        found.notes.append("it can make calls, and grants.allowed_hosts names nobody")


def asked(grants: Mapping[str, Any]) -> list[str]:
    """The host functions that a manifest asks for; an entry without a name is `form`'s."""
    return [str(one["name"]) for one in grants.get("host_functions", ()) if isinstance(one, dict) and one.get("name")]


def abi_of(component: ComponentFacts) -> str:
    """The package and version that a component was built for, as `penstock:filter@0.1.0`; "" of one that is no filter, which
    would not load."""
    exported = next((name for name in component.exports if name.startswith(EXPORTED)), None)
    return "" if exported is None else f"{PREFIX[:-1]}@{exported.removeprefix(EXPORTED)}"


def interfaces(found: Findings, grants: Mapping[str, Any], linked: Sequence[str], component: ComponentFacts) -> None:
    """A component imports whole interfaces: of each it has to ask for a function at least, by names such as `kv.get`, and for
    none of an interface that it does not import."""
    known = {interface.partition("@")[0]: found for world in WORLDS for interface, found in world.imports.items()}
    imported = {name: [function_name(name, one) for one in known.get(name.partition("@")[0], ())] for name in component.imports}
    imported = {name: names for name, names in imported.items() if names}  # `types` has no functions
    functions = [name for names in imported.values() for name in names]
    patterns = asked(grants)

    def any_of(names: Sequence[str], patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

    problems = [
        f"grants.host_functions: {name} is imported, and nothing of it is asked for; add {{ name: {names[0]}, reason: ... }}"
        for name, names in imported.items()
        if not any_of(names, [*patterns, *linked])
    ]
    problems += [
        f"grants.host_functions: {pattern} is asked for, and is of no interface that is imported; remove it"
        for pattern in patterns
        if not any_of(functions, [pattern])
    ]
    problems += [f"linked: {pattern} is asked for as well; remove it here" for pattern in linked if pattern in patterns]
    problems += [
        f"linked: {pattern} is of no interface that is imported; remove it"
        for pattern in linked
        if not any_of(functions, [pattern])
    ]
    besides = sum(not any_of(names, patterns) for names in imported.values())
    but = f", but for {besides} that it does not call" if besides else ""
    plural = "" if len(imported) == 1 else "s"
    found.hold(f"{len(imported)} imported interface{plural}, each of them asked for{but}", problems)
    if any_of(["http-client.send"], patterns) and not grants.get("allowed_hosts"):
        found.notes.append("it can make calls, and grants.allowed_hosts names nobody")


def schema(found: Findings, data: Mapping[str, Any], folder: Path) -> None:
    """The schema is one; the defaults, and the configurations of the cases, are of its form."""
    described = data.get("config_schema")
    if described is None:
        found.notes.append("no config_schema")
        return
    if not isinstance(described, dict):
        found.problems.append("config_schema: is not a mapping; write a JSON Schema")
        return
    defaults, properties = data.get("defaults") or {}, described.get("properties", {})
    problems = [f"defaults.{key}: is not among the schema's properties" for key in defaults if key not in properties]
    problems += [
        f"defaults.{key}: is {value!r}, the schema's default is {properties[key]['default']!r}"
        for key, value in defaults.items()
        if isinstance(properties.get(key), dict) and properties[key].get("default", value) != value
    ]
    found.hold("defaults are the schema's", problems)
    if importlib.util.find_spec("jsonschema") is None:
        found.notes.append(f"the schema itself was not looked at: {SCHEMAS}")
        return
    found.hold("config_schema, and the configurations of the cases by it", list(by_schema(described, defaults, folder)))


def by_schema(described: Mapping[str, Any], defaults: Mapping[str, Any], folder: Path) -> Iterator[str]:
    jsonschema: Any = importlib.import_module("jsonschema")  # an extra
    kind = jsonschema.validators.validator_for(described, jsonschema.Draft202012Validator)
    try:
        kind.check_schema(described)
    except jsonschema.SchemaError as error:
        yield f"config_schema: {error.message}"
        return
    validator = kind(described)
    for key, value in defaults.items():
        # By the whole schema, for its references; what it misses beside this key is not the default's fault.
        for found in validator.iter_errors({key: value}):
            if list(found.absolute_path)[:1] == [key]:
                yield f"defaults.{key}: {found.message}"
    if (folder / CASES).is_file():
        try:
            cases = read(folder / CASES).cases
        except CaseError as error:
            yield str(error)
            return
        for case in cases:
            if case.configuration:
                for found in validator.iter_errors(parsed(case.configuration)):
                    yield f"config_schema: the configuration of case {case.name!r}: {found.message}"


def parsed(configuration: bytes) -> Any:
    """What the gateway's config would hold for these bytes: JSON's value, else the text."""
    try:
        return json.loads(configuration)
    except ValueError:
        return configuration.decode("utf-8", "replace")
