"""What a filter asks for, in its filter.yaml and by what it imports, against what the config gives it.

An ask under `allowed_hosts` may hold `{key}` or `{key.key}`: the value there in the filter's config, else in the manifest's
defaults; without a value the ask does not count. `cluster:{jwks.cluster}` asks for whatever cluster the operator configured.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from proxy.config.filter import Capabilities, Filter
from proxy.sources.signature import NAME, VERSION
from proxy.telemetry.logging import printable
from proxy.wasm.component import read_component
from proxy.wasm.module import format_of, read

FILE: Final = "filter.yaml"
LARGEST: Final = 64 << 10
"""Bytes of a manifest: it may come from a stranger, and YAML is slow to read."""
KINDS: Final = ("host_functions", "allowed_hosts", "env")
PLACEHOLDER: Final = re.compile(r"\{([A-Za-z0-9_.-]+)\}")
ENTRY: Final = re.compile(r"[!-~]+")
LONGEST: Final = 200
"""Characters of a text."""


class Ask(NamedTuple):
    """`kind`: host_functions, allowed_hosts or env. `what`: what to write there. `reason`: the author's, "" without one."""

    kind: str
    what: str
    reason: str = ""


class ManifestError(Exception):
    """A manifest that cannot be read."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is used here of a filter.yaml. `data` is all of it."""

    name: str
    version: str
    wasm: str
    data: Mapping[str, Any] = field(repr=False)


@lru_cache(maxsize=64)
def parse(data: bytes) -> Manifest:
    """Raises ManifestError. What is in it is not to be changed: the same bytes give the same object."""
    if len(data) > LARGEST:
        raise ManifestError(f"it is larger than {LARGEST >> 10} KiB")
    try:
        found = yaml.safe_load(data)  # in Python: libyaml's parser crashes on deep nesting
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(str(error).partition("\n")[0]) from None
    if not isinstance(found, dict):
        raise ManifestError("it is not a mapping")
    name, version = text(found.get("name")), text(found.get("version"))
    return Manifest(
        name if NAME.fullmatch(name) else "",
        version if VERSION.fullmatch(version) else "",
        text(found.get("wasm")) or f"{name}.wasm",
        found,
    )


def text(value: object) -> str:
    """The text or number, short and on one line, "" for all else: a list may be endless, once aliases are followed."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return printable(" ".join(str(value)[:LONGEST].split()))


def beside(wasm: Path) -> Path | None:
    """The filter.yaml in the module's folder; None if there is none, or one of another module."""
    path = wasm.parent / FILE
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None
        # It may name its module in a folder below, such as build/.
        return path if Path(parse(path.read_bytes()).wasm).name == wasm.name else None
    except (OSError, ManifestError):
        return None


def asks_of(manifest: Manifest, config: Any) -> list[Ask]:
    """What the manifest asks for, of a filter with this config. What is prose instead of an entry is left to people."""
    grants = manifest.data.get("grants")
    asks = []
    for kind in KINDS:
        listed = grants.get(kind) if isinstance(grants, Mapping) else None
        for item in listed if isinstance(listed, list) else ():
            what, reason = (item.get("name"), item.get("reason", "")) if isinstance(item, Mapping) else (item, "")
            filled = fill(text(what), config, manifest.data.get("defaults"))
            if filled is not None and ENTRY.fullmatch(filled):
                asks.append(Ask(kind, filled, text(reason)))
    return asks


def fill(template: str, *configs: Any) -> str | None:
    """The text with the configs' values in the place of `{key}`; None if one has no value."""
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        for found in configs:
            for key in match[1].split("."):
                found = found.get(key) if isinstance(found, Mapping) else None
            if isinstance(found, str) and found:
                return found
        missing = True
        return ""

    filled = PLACEHOLDER.sub(value, template)
    return None if missing else filled


def unmet(asks: Sequence[Ask], capabilities: Capabilities) -> list[Ask]:
    """Those that the config neither grants nor refuses."""
    return [ask for ask in asks if ask.what not in capabilities.refused and not granted(ask, capabilities)]


def granted(ask: Ask, capabilities: Capabilities) -> bool:
    match ask.kind:
        case "host_functions":
            patterns = capabilities.host_functions
            return patterns is None or any(covers(pattern, ask.what) for pattern in patterns)
        case "allowed_hosts":
            return any(host_covers(entry, ask.what) for entry in capabilities.allowed_hosts)
        case _:
            return ask.what in capabilities.env


def covers(pattern: str, what: str) -> bool:
    """Of host functions; an ask may be a pattern itself."""
    return pattern == what or fnmatchcase(what, pattern)


def host_covers(entry: str, ask: str) -> bool:
    """Whether what is allowed holds all that is asked for: equal, or a host without scheme or under a wildcard."""
    if entry.lower() == ask.lower():
        return True
    if "/" in ask.rpartition("://")[2] or ask.startswith("cluster:") or entry.startswith("cluster:"):
        return False
    scheme, _, host = ask.lower().rpartition("://")
    allowed_scheme, _, allowed_host = entry.lower().rpartition("://")
    if allowed_scheme and allowed_scheme != scheme:
        return False
    if allowed_host.startswith("*."):
        return host.removeprefix("*.").endswith(allowed_host[1:]) or host == allowed_host
    return host == allowed_host


def lines(asks: Sequence[Ask], capabilities: Capabilities | None = None) -> str:
    """What to write under the filter, as YAML on one line, with what it has already."""
    given = capabilities or Capabilities()
    wanted = {kind: [ask.what for ask in asks if ask.kind == kind] for kind in KINDS}
    parts = []
    if wanted["allowed_hosts"]:
        parts.append(f"allowed_hosts: {flow([*given.allowed_hosts, *wanted['allowed_hosts']])}")
    if wanted["host_functions"]:
        parts.append(f"host_functions: {flow([*(given.host_functions or ()), *wanted['host_functions']])}")
    if wanted["env"]:
        known = [f"{name}: ..." for name in given.env]
        parts.append(f"env: {{{', '.join([*known, *(f'{name}: VALUE' for name in wanted['env'])])}}}")
    return f"capabilities: {{{', '.join(parts)}}}"


def flow(items: Sequence[str]) -> str:
    """A YAML list on one line; plain words stay plain."""
    return f"[{', '.join(item if re.fullmatch('[a-z0-9_]+', item) else json.dumps(item) for item in items)}]"


COMPONENT_PACKAGE: Final = "penstock:filter/"
TYPES: Final = f"{COMPONENT_PACKAGE}types"
"""An interface without functions, which some toolchains import."""


def imports_of(data: bytes) -> list[str]:
    """The functions that a module imports, escaped and cut; of a component, which imports whole interfaces, `kv.*` for each.
    Raises ModuleError."""
    if format_of(data) == "component":
        names = {shortened(name) for name in read_component(data).imports if name.partition("@")[0] != TYPES}
    else:
        names = {item.name for item in read(data).imports if item.function is not None}
    return sorted({printable(name[:LONGEST]) for name in names})


def shortened(interface: str) -> str:
    """Its functions as `capabilities.host_functions` has them; as it is if it is no filter's."""
    name = interface.partition("@")[0]
    return f"{name.removeprefix(COMPONENT_PACKAGE)}.*" if name.startswith(COMPONENT_PACKAGE) else interface


def all_asks(data: bytes, manifest: Manifest | None, filter_: Filter) -> dict[str, list[str]]:
    """By kind, sorted: what the module imports and what its manifest asks for. Raises ModuleError."""
    asks = asks_of(manifest, filter_.config) if manifest is not None else []
    found = {kind: {ask.what for ask in asks if ask.kind == kind} for kind in KINDS}
    found["host_functions"] |= set(imports_of(data))
    return {kind: sorted(what) for kind, what in found.items()}
