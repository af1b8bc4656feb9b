"""The files that a config depends on, found by reading it as it stands: also of one that is not valid, or half written."""

import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proxy.config.secrets import REFERENCE
from proxy.config.yaml import parse

FILE_KEYS = frozenset({"wasm", "certificate", "private_key", "ca"})
LARGEST_CONFIG = 16 << 20

Signature = Mapping[str, tuple[int, ...]]
"""By path: modification time in ns, size, inode; of a directory its entries' names too; nothing if it is not there."""


def watched_files(config: Path) -> set[Path]:
    """The config, and what it names: filters, certificates, keys, secrets; the filters directory and all in it."""
    found = {config.absolute(), config.absolute().with_suffix(".lock")}
    base = config.absolute().parent
    for path in [config, *directory_settings(found, config, base)]:
        found.update(named(path))
    return found


def directory_settings(found: set[Path], config: Path, base: Path) -> Iterator[Path]:
    tree = tree_of(config)
    written = tree.get("filters_directory") if isinstance(tree, dict) else None
    if not isinstance(written, str) or "${" in written or "\0" in written:
        return
    directory = base / written
    found.add(directory)
    if directory.is_dir():
        for entry in directory.iterdir():
            if entry.suffix in (".wasm", ".yaml"):
                found.add(entry)
                if entry.suffix == ".yaml":
                    yield entry


def named(config: Path) -> Iterator[Path]:
    base = config.absolute().parent
    for key, value in texts(None, tree_of(config)):
        for reference in REFERENCE.finditer(value):
            if reference["kind"] == "file" and reference["name"] and "\0" not in reference["name"]:
                yield base / reference["name"]
        if key in FILE_KEYS and value and "://" not in value and "${" not in value and "\0" not in value:
            yield base / value
            if key == "wasm":  # what is read with it (proxy/sources)
                yield base / f"{value}.sig"
                yield (base / value).parent / "filter.yaml"


def texts(key: object, tree: Any) -> Iterator[tuple[object, str]]:
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from texts(name, value)
    elif isinstance(tree, list):
        for value in tree:
            yield from texts(key, value)


def tree_of(config: Path) -> Any:
    try:
        with config.open("rb") as file:
            return parse(file.read(LARGEST_CONFIG), str(config)).value
    except OSError:
        return None


def signature(paths: set[Path]) -> Signature:
    """What the files look like now."""
    found = {}
    for path in paths:
        try:
            status = path.stat()
            entries = sorted(entry.name for entry in os.scandir(path)) if path.is_dir() else []
        except OSError:
            found[str(path)] = ()
            continue
        listed = (zlib.crc32("\0".join(entries).encode("utf-8", "surrogateescape")),) if entries else ()
        found[str(path)] = (status.st_mtime_ns, status.st_size, status.st_ino, *listed)
    return found
