"""Whether a module may be a filter of this config: its pin, its signature, what was accepted of it, what it asks for."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import structlog

from proxy.config.filter import Filter
from proxy.config.model import Config
from proxy.config.remote import Remote
from proxy.sources import asks, grants_lock
from proxy.sources.asks import Manifest, ManifestError
from proxy.sources.grants_lock import Accepted, LockError
from proxy.sources.signature import SUFFIX, SignatureError, Signed, verify
from proxy.sources.store import Ref
from proxy.wasm.module import ModuleError

log = structlog.get_logger("sources")


class SourceProblem(NamedTuple):
    """What stands in a filter's way: the key at fault, what is wrong, what to write."""

    key: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.mend}"


@dataclass(frozen=True, slots=True)
class Examined:
    """A module that was looked at, and all that was found against it."""

    data: bytes
    digest: str
    manifest: Manifest | None
    signed: Signed | None
    problems: list[SourceProblem]

    @property
    def name(self) -> str:
        return self.signed.statement.name if self.signed else self.manifest.name if self.manifest else ""

    @property
    def version(self) -> str:
        return self.signed.statement.version if self.signed else self.manifest.version if self.manifest else ""

    @property
    def signer(self) -> str:
        return self.signed.signer if self.signed else ""


class Policy:
    """What one config demands of its filters."""

    def __init__(self, config: Config, locked: bool = True) -> None:
        """`locked` False: without looking at what was accepted, as for the command that asks for it. Raises LockError."""
        self.config = config
        self.lock_path = None if config.file is None else grants_lock.path_of(config.file)
        self.lock: Mapping[str, Accepted] | None = None
        if locked and self.lock_path is not None:
            self.lock = grants_lock.load(self.lock_path)

    def examine(self, filter_: Filter, parts: Mapping[str, bytes], kept: Ref | None = None) -> Examined:
        """`parts`: module, signature, manifest. `kept`: what the same source gave last."""
        data = parts["module"]
        digest = hashlib.sha256(data).hexdigest()
        problems: list[SourceProblem] = []
        if len(data) > filter_.limits.module:
            problems.append(too_large(len(data), filter_))
        if filter_.sha256 is not None and filter_.sha256.lower() != digest:
            mend = "take that, if the file is the one you mean"
            problems.append(SourceProblem("sha256", f"the file's SHA-256 is {digest}", mend))
        if problems:
            return Examined(data, digest, None, None, problems)
        manifest = self.manifest(filter_, parts.get("manifest"))
        signed = self.signed(filter_, parts, problems)
        found = Examined(data, digest, manifest, signed, problems)
        if kept is not None:
            problems += self.downgrades(found, kept)
        if manifest is not None:
            problems += too_new(manifest)
            problems += self.unmet(filter_, manifest)
        if self.lock is not None and (differences := self.differences(filter_, found)):
            assert self.lock_path is not None
            assert self.config.file is not None
            mend = f"look at it and run penstock filter accept {self.config.file}"
            problems.append(SourceProblem("wasm", f"not what was accepted: {', '.join(differences)}", mend))
        return found

    def manifest(self, filter_: Filter, data: bytes | None) -> Manifest | None:
        if data is None:
            return None
        try:
            return asks.parse(data)
        except ManifestError as error:
            log.warning("manifest_unreadable", filter=filter_.name, reason=str(error))
            return None

    def signed(self, filter_: Filter, parts: Mapping[str, bytes], problems: list[SourceProblem]) -> Signed | None:
        """The signature that holds, None without one; a problem if there must be one."""
        required = filter_.require_signature
        required = self.config.require_signature if required is None else required
        trusted, signature = self.config.trusted_keys, parts.get("signature")
        if not required and (signature is None or not trusted):
            return None
        key = "require_signature"
        if not trusted:
            problems.append(
                SourceProblem(
                    key, "no signature can count: trusted_keys is empty", "write trusted_keys: [{name: ..., key: ...}]"
                )
            )
        elif signature is None:
            mend = f"put the signature beside the module, as {stem_of(filter_)}.wasm{SUFFIX}, or write require_signature: false"
            problems.append(SourceProblem(key, "it is not signed", mend))
        else:
            try:
                found = verify(signature, parts["module"], parts.get("manifest"), trusted)
                check_name(filter_, found)
                return found
            except SignatureError as error:
                if required:
                    problems.append(SourceProblem(key, error.problem, error.mend))
                else:
                    log.warning("signature_does_not_count", filter=filter_.name, reason=error.problem)
        return None

    def downgrades(self, found: Examined, kept: Ref) -> list[SourceProblem]:
        """Signed once, a source may not go back: else whoever holds it could serve an old version with known faults."""
        if not kept.signer:
            return []
        mend = "to have it all the same, name it by its sha256"
        if found.signed is None:
            return [SourceProblem("wasm", f"it is not signed, and was by {kept.signer}", mend)]
        if found.name != kept.name:
            return [SourceProblem("wasm", f"it is signed as {found.name}, and was as {kept.name}", mend)]
        if found.version != kept.version and not grants_lock.newer(found.version, kept.version):
            return [SourceProblem("wasm", f"its version {found.version} is older than {kept.version}, which was had", mend)]
        return []

    def unmet(self, filter_: Filter, manifest: Manifest) -> list[SourceProblem]:
        """One problem for all, with the line to write."""
        capabilities = filter_.capabilities
        missing = asks.unmet(asks.asks_of(manifest, filter_.config), capabilities)
        if not missing:
            return []
        said = ", ".join(f"{ask.kind} {ask.what}{f' ({ask.reason})' if ask.reason else ''}" for ask in missing)
        refused = asks.flow([*capabilities.refused, *(ask.what for ask in missing)])
        mend = f"write {asks.lines(missing, capabilities)}, or to refuse it capabilities: {{refused: {refused}}}"
        return [SourceProblem("capabilities", f"its manifest asks for what it does not get: {said}", mend)]

    def differences(self, filter_: Filter, found: Examined) -> list[str]:
        assert self.lock is not None
        try:
            return grants_lock.differences(self.lock.get(filter_.name), accepted(filter_, found))
        except ModuleError:
            return []  # no module: told where it is read


def accepted(filter_: Filter, found: Examined) -> Accepted:
    """As the lock file holds it. Raises ModuleError."""
    wants = asks.all_asks(found.data, found.manifest, filter_)
    return Accepted(found.name, found.version, found.signer, found.digest, wants)


def check_name(filter_: Filter, signed: Signed) -> None:
    """The signed name must be one that the operator wrote, and the version the tag's if that is one: else a signed filter could
    be passed off as another. Raises SignatureError."""
    statement = signed.statement
    names = {filter_.signed_as} if filter_.signed_as is not None else {filter_.name.partition("@")[0], stem_of(filter_)}
    if statement.name not in names:
        raise SignatureError(
            f"it is signed as {statement.name}", f"write signed_as: {statement.name}, if that is the one you mean"
        )
    tagged = filter_.wasm.version if isinstance(filter_.wasm, Remote) else None
    if tagged is not None and tagged != statement.version:
        raise SignatureError(f"its tag says version {tagged}, its signature {statement.version}", "look at the registry")


def stem_of(filter_: Filter) -> str:
    return filter_.wasm.stem if isinstance(filter_.wasm, Remote) else Path(filter_.wasm).stem


def too_new(manifest: Manifest) -> list[SourceProblem]:
    """`penstock: ">=1.2.0"` of a manifest, against this Penstock."""
    match = re.fullmatch(r">= *([0-9.]+)", asks.text(manifest.data.get("penstock")))
    try:
        here = version("penstock")
    except PackageNotFoundError:  # run from its source
        return []
    if match is None or match[1] == here or not grants_lock.newer(match[1], here):
        return []
    mend = f"pip install -U 'penstock>={match[1]}', or take an older version of the filter"
    return [SourceProblem("wasm", f"its manifest wants Penstock {match[1]} or newer, this is {here}", mend)]


def too_large(size: int, filter_: Filter) -> SourceProblem:
    return SourceProblem(
        "wasm",
        f"the module has {size} bytes, more than limits.module {filter_.limits.module}",
        f"write limits: {{module: {-(-size // (1 << 20))}MiB}}",
    )


def open_policy(config: Config, problems: list[SourceProblem]) -> Policy:
    """The config's policy; a lock file that cannot be read is a problem, not a missing one."""
    try:
        return Policy(config)
    except LockError as error:
        problems.append(SourceProblem("wasm", str(error), "restore the file, or accept anew"))
        return Policy(config, locked=False)
