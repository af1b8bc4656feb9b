"""A config file read, checked and made into a `Config`, or everything that is wrong with it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.config import references
from proxy.config.fields import NAME_PATTERN, NAME_RULE, Place
from proxy.config.filter import Filter
from proxy.config.model import Config
from proxy.config.problem import ConfigErrors, KeyPath, show
from proxy.config.secrets import MASK, Secret, SecretError, resolve
from proxy.config.validation import validate
from proxy.config.yaml import Document, parse

LARGEST_FILE = 16 << 20  # bytes
OPAQUE = frozenset(("config", "vm_config"))
"""Keys whose values are a filter's own."""
SMALLEST_CONFIG = "listeners, clusters and routes, as in config/quickstart.yaml"


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """The config in the file. Raises ConfigErrors with every problem in it and in the filters directory."""
    document = read(path, str(path), environ)
    place = Place(path.parent)
    if document.value is None and not document.problems:
        document.report((), "is empty", f"write {SMALLEST_CONFIG}")
    if document.problems and document.value is None:
        raise ConfigErrors(document.problems)
    found = find_filters(document, place, environ)
    references.check(document, document.value, [filter.name for filter in found])
    config = validate(Config, document, document.value, place)
    filters = [filter.validate(document) for filter in found]
    problems = [*document.problems, *(problem for filter in found for problem in filter.document.problems)]
    if config is None or problems:
        raise ConfigErrors(problems)
    return assemble(config, document, found, [filter for filter in filters if filter is not None], path)


def assemble(config: Config, document: Document, found: list["DirectoryFilter"], filters: list[Filter], file: Path) -> Config:
    positions = {path: (document.file, line) for path, line in document.lines.items()}
    for index, filter in enumerate(found, len(config.filters)):
        positions[("filters", index)] = (filter.document.file, 1)
        for path, line in filter.document.lines.items():
            positions[("filters", index, *path)] = (filter.document.file, line)
    return config.completed(tuple(filters), positions, file)


def read(path: Path, shown: str, environ: Mapping[str, str]) -> Document:
    """The YAML document with its secrets resolved; `file` in its problems is `shown`."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        document = Document(shown)
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"can not be read: {error.strerror}"
        document.report((), f"the file {reason}", "check the path")
        return document
    if len(data) > LARGEST_FILE:
        document = Document(shown)
        document.report((), "the file is larger than 16 MiB", "name a config file")
        return document
    document = parse(data, shown)
    document.value = resolved(document, document.value, (), path.parent, environ)
    return document


def resolved(document: Document, tree: object, path: KeyPath, base: Path, environ: Mapping[str, str]) -> object:
    """The tree with `${env:}` and `${file:}` replaced in every text; what can not be is reported."""
    if isinstance(tree, str):
        try:
            return resolve(tree, base, environ, template=not OPAQUE.isdisjoint(path))
        except SecretError as error:
            document.report(path, error.problem, error.mend)
            return tree
    if isinstance(tree, dict):
        return {key: resolved(document, item, (*path, key), base, environ) for key, item in tree.items()}
    if isinstance(tree, list):
        return [resolved(document, item, (*path, index), base, environ) for index, item in enumerate(tree)]
    return tree


@dataclass(slots=True)
class DirectoryFilter:
    """A NAME.wasm of the filters directory, with the settings in NAME.yaml beside it.

    `secret`: the directory's own path came through a reference.
    """

    name: str
    wasm: Path
    secret: bool
    document: Document

    def validate(self, main: Document) -> Filter | None:
        """The filter; None if the file's problems, which go to its own document, stand in the way."""
        settings = {} if self.document.value is None else self.document.value
        if not isinstance(settings, dict):
            mend = "write a filter's settings, such as fuel: 5000000"
            self.document.report((), f"{show(settings)} is not a mapping", mend)
            return None
        for key in ("name", "wasm"):
            if key in settings:
                self.document.report((key,), "is given by the file's own name", "remove the key")
        named = (cluster.get("name") for _, cluster in references.items(tree_of(main), "clusters"))
        clusters = {name for name in named if isinstance(name, str)}
        references.check_capabilities(self.document, (), settings, clusters)
        place = Place(self.wasm.parent)
        return validate(
            Filter,
            self.document,
            {**settings, "name": self.name, "wasm": Secret(self.wasm.name) if self.secret else self.wasm},
            place,
        )


def find_filters(document: Document, place: Place, environ: Mapping[str, str]) -> list[DirectoryFilter]:
    """The filters of `filters_directory`, in name order. A missing directory is left to the model to report."""
    written = document.value.get("filters_directory") if isinstance(document.value, dict) else None
    if not isinstance(written, str) or not written or "\0" in written:
        return []
    directory = place.directory / written
    path: KeyPath = ("filters_directory",)
    try:
        entries = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        if directory.is_dir():
            document.report(path, f"the directory can not be read: {error.strerror}", "make it readable")
        return []
    modules = {entry.stem: entry for entry in entries if entry.suffix == ".wasm"}
    settings = {entry.stem: entry for entry in entries if entry.suffix == ".yaml"}
    for entry in entries:
        if entry.suffix == ".yml":
            document.report(path, f"{show(entry.name)} is not read", f"rename it to {entry.stem}.yaml")
    taken = {item.get("name") for _, item in references.items(tree_of(document), "filters")}
    found = []
    for name, wasm in modules.items():
        if not re.fullmatch(NAME_PATTERN, name):
            document.report(path, f"the file {show(wasm.name)} gives no filter name", f"rename it: {NAME_RULE}")
            continue
        if name in taken:
            document.report(path, f"the file {show(wasm.name)} has the name of a filter", "rename one of the two")
            continue
        if not wasm.is_file():
            document.report(path, f"{show(wasm.name)} is not a file", "remove it, or mend the link")
            continue
        own = settings.get(name)
        shown = f"{MASK}/{(own or wasm).name}" if isinstance(written, Secret) else str(own or wasm)
        found.append(
            DirectoryFilter(name, wasm, isinstance(written, Secret), read(own, shown, environ) if own else Document(shown))
        )
    for name, file in settings.items():
        if name not in modules:
            problem = f"{show(file.name)} has no {show(name + '.wasm')} beside it"
            document.report(path, problem, "add the module, or remove the file")
    return found


def tree_of(document: Document) -> dict[str, object]:
    return document.value if isinstance(document.value, dict) else {}
