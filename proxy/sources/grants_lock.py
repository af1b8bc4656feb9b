"""What of each filter was accepted: its version, who signed it and what it asks for, in a file next to the config.

`gateway.yaml` has `gateway.lock`, written by `penstock filter accept` and kept with the config. While there is such a file, a
filter that asks for more than was accepted, is of an older version, of another name or by another signer does not load. Less,
or the same from a newer version, needs no yes. Without the file nothing of this is looked at.
"""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from proxy.sources.asks import KINDS

HEAD = "# What penstock filter accept was told yes to. Keep it with the config; change it by that command.\n"
LARGEST = 4 << 20


class LockError(Exception):
    """The lock file cannot be read, or holds something else."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One filter, as it is or as it was accepted. `name`, `version` and `signer`: of the signature, or of the manifest with ""
    as signer; "" where there is neither."""

    name: str
    version: str
    signer: str
    sha256: str
    asks: Mapping[str, Sequence[str]]


def path_of(config: Path) -> Path:
    return config.with_suffix(".lock")


def load(path: Path) -> dict[str, Accepted] | None:
    """By the filters' names in the config; None without the file. Raises LockError."""
    try:
        if path.stat().st_size > LARGEST:
            raise LockError(f"{path}: is larger than {LARGEST >> 20} MiB")
        data = yaml.safe_load(path.read_bytes())
        return {str(name): accepted(entry) for name, entry in data["filters"].items()}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockError(f"{path}: can not be read: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise LockError(f"{path}: is not what penstock filter accept writes") from None


def accepted(entry: Mapping[str, Any]) -> Accepted:
    asks = {kind: [str(one) for one in entry["asks"].get(kind, ())] for kind in KINDS}
    return Accepted(str(entry["name"]), str(entry["version"]), str(entry["signer"]), str(entry["sha256"]), asks)


def save(path: Path, filters: Mapping[str, Accepted]) -> None:
    """Replaces the file as a whole. Raises OSError."""
    tree = {
        "filters": {
            name: {
                "name": one.name,
                "version": one.version,
                "signer": one.signer,
                "sha256": one.sha256,
                "asks": {kind: list(one.asks[kind]) for kind in KINDS if one.asks.get(kind)},
            }
            for name, one in filters.items()
        }
    }
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("x") as file:
            file.write(HEAD + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def differences(before: Accepted | None, now: Accepted) -> list[str]:
    """What needs a yes, a line each; none if nothing does."""
    if before is None:
        return ["it was never accepted", *more({}, now.asks)]
    found = more(before.asks, now.asks)
    if before.name and now.name != before.name:
        found.append(f"its name was {before.name}, and is {now.name or 'not stated'}")
    if before.version and now.version != before.version and not newer(now.version, before.version):
        found.append(f"its version was {before.version}, and is {now.version or 'not stated'}")
    if before.signer and now.signer != before.signer:
        found.append(f"it was signed by {before.signer}, and is {f'by {now.signer}' if now.signer else 'not signed'}")
    return found


def more(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"it asks for {kind}: {what}" for kind in KINDS for what in now.get(kind, ()) if what not in before.get(kind, ())]


def less(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> list[str]:
    return [line.replace("asks for", "asks no more for", 1) for line in more(now, before)]


def newer(version: str, than: str) -> bool:
    """By semantic versioning 2.0, section 11; a version of another form is newer than none."""
    return precedence(version) > precedence(than)


def precedence(version: str) -> tuple[Any, ...]:
    match = re.fullmatch(r"v?([0-9]{1,9})(?:\.([0-9]{1,9}))?(?:\.([0-9]{1,9}))?(?:-([0-9A-Za-z.-]+))?(?:\+.*)?", version)
    if match is None:
        return (-1,)
    numbers = tuple(int(part or 0) for part in match.groups()[:3])
    if match[4] is None:
        return (*numbers, 1, ())
    parts = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in match[4].split("."))
    return (*numbers, 0, parts)
