"""The filters' modules, wherever they come from: for the process that prepares a gateway, never for one that serves.

A source that does not answer, or gives what the config's policy refuses, does not stop a gateway that had something good from
it before: that is served, and the log says so.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

import structlog

from proxy.config.filter import Filter
from proxy.config.model import Config
from proxy.config.remote import Remote
from proxy.sources import asks
from proxy.sources.fetch import Fetched, Order, fetch_all
from proxy.sources.guard import FetchError
from proxy.sources.policy import Examined, Policy, SourceProblem, open_policy, too_large
from proxy.sources.signature import LARGEST as LARGEST_SIGNATURE
from proxy.sources.signature import SUFFIX, sha256
from proxy.sources.store import Kept, Ref, Store
from proxy.wasm.cache import CacheError

log = structlog.get_logger("sources")

SHORT_SECONDS: Final = 5.0
"""How long a start waits for a source of which something is kept."""

Origin = Literal["file", "fetched", "kept"]


@dataclass(frozen=True, slots=True)
class Obtained:
    """A filter's module that may be loaded."""

    found: Examined
    origin: Origin


class Trouble(NamedTuple):
    """A filter, by its place, that cannot be had."""

    filter: int
    problem: SourceProblem


@dataclass(frozen=True, slots=True)
class Judged:
    """What a source gave, after the policy looked at it. `changed`: it is not what was kept."""

    found: Examined
    ref: Ref
    parts: Mapping[str, bytes]
    changed: bool


def obtain(config: Config, filters: Sequence[Filter], offline: bool = False) -> tuple[list[Obtained | None], list[Trouble]]:
    """For each filter its module or, as None, troubles that say why not. `offline`: only files and what is kept.

    Blocks for up to `sources.timeout` for each four sources. Leaves no child and no thread behind.
    """
    if not filters:
        return [], []
    found: list[SourceProblem] = []
    policy = open_policy(config, found)
    troubles = [Trouble(0, problem) for problem in found]
    obtained: list[Obtained | None] = [None] * len(filters)
    remote = [index for index, filter_ in enumerate(filters) if isinstance(filter_.wasm, Remote)]
    for index in sorted(set(range(len(filters))) - set(remote)):
        obtained[index] = of_file(policy, index, filters[index], troubles)
    if remote:
        with opened(config) as store:
            for index, got in zip(
                remote, of_sources(policy, store, [filters[index] for index in remote], offline), strict=True
            ):
                if isinstance(got, Obtained):
                    obtained[index] = got
                else:
                    troubles += [Trouble(index, problem) for problem in got]
    return obtained, troubles


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Store | None]:
    """The store, or None with a warning if it cannot be used."""
    try:
        store = Store(config.sources.store)
    except (CacheError, OSError) as error:
        log.warning("store_is_off", reason=str(error), so="filters do not start while their source is down")
        yield None
        return
    with store:
        yield store


# ---- Files ----


def of_file(policy: Policy, index: int, filter_: Filter, troubles: list[Trouble]) -> Obtained | None:
    try:
        found = policy.examine(filter_, file_parts(filter_))
    except UnreadableError as error:
        troubles.append(Trouble(index, error.problem))
        return None
    troubles += [Trouble(index, problem) for problem in found.problems]
    return None if found.problems else Obtained(found, "file")


class UnreadableError(Exception):
    """A file that cannot be read, or is too large to be."""

    def __init__(self, problem: SourceProblem) -> None:
        super().__init__(problem)
        self.problem = problem


def read_module(filter_: Filter) -> bytes:
    """The module's file. Raises UnreadableError."""
    if isinstance(filter_.wasm, Remote):
        raise UnreadableError(SourceProblem("wasm", "is no file, and nothing is fetched here", "name a file"))
    path = Path(filter_.wasm)
    try:
        size = path.stat().st_size
        if size > filter_.limits.module:
            raise UnreadableError(too_large(size, filter_))
        return path.read_bytes()
    except OSError as error:
        raise UnreadableError(
            SourceProblem("wasm", f"cannot be read: {error.strerror}", "name a readable file")
        ) from None  # fmt: skip


def file_parts(filter_: Filter) -> dict[str, bytes]:
    """The module, and what lies beside it. Raises UnreadableError."""
    path = Path(filter_.wasm)
    parts = {"module": read_module(filter_)}
    try:
        with contextlib.suppress(FileNotFoundError), path.with_name(path.name + SUFFIX).open("rb") as file:
            parts["signature"] = file.read(LARGEST_SIGNATURE + 1)
        manifest = asks.beside(path)
        if manifest is not None:
            parts["manifest"] = manifest.read_bytes()
    except OSError as error:
        problem = f"{Path(str(error.filename)).name} beside it cannot be read: {error.strerror}"
        raise UnreadableError(SourceProblem("wasm", problem, "make it readable, or remove it")) from None
    return parts


# ---- Sources ----


def key_of(filter_: Filter) -> str:
    """What a source gave is kept for each source and pin."""
    return f"{filter_.wasm}|{filter_.sha256 or ''}"


def moves(filter_: Filter) -> bool:
    """Whether its source may give something else tomorrow."""
    return isinstance(filter_.wasm, Remote) and filter_.sha256 is None and filter_.wasm.digest is None


def order(policy: Policy, filter_: Filter, kept: Kept | None, seconds: float, known: str | None = None) -> Order:
    assert isinstance(filter_.wasm, Remote)
    if known is None:
        known = kept.ref.tag if kept is not None else ""
    return Order(filter_.wasm, filter_.limits.module, seconds, policy.config.sources, known)


def of_sources(
    policy: Policy, store: Store | None, filters: Sequence[Filter], offline: bool
) -> Iterator[Obtained | list[SourceProblem]]:
    kept = [store.kept(key_of(filter_)) if store is not None else None for filter_ in filters]
    timeout = policy.config.sources.timeout
    asked = [
        index
        for index, (filter_, known) in enumerate(zip(filters, kept, strict=True))
        if not offline and (known is None or moves(filter_))
    ]
    orders = [
        order(policy, filters[index], kept[index], timeout if kept[index] is None else min(timeout, SHORT_SECONDS))
        for index in asked
    ]
    outcomes = dict(zip(asked, fetch_all(orders), strict=True))
    for index, filter_ in enumerate(filters):
        yield settle(policy, store, filter_, kept[index], outcomes.get(index))


def settle(
    policy: Policy, store: Store | None, filter_: Filter, kept: Kept | None, outcome: Fetched | FetchError | None
) -> Obtained | list[SourceProblem]:
    """What is served of a source's answer and of what is kept."""
    shown = filter_.wasm.shown if isinstance(filter_.wasm, Remote) else str(filter_.wasm)
    refused: list[SourceProblem] = []
    if isinstance(outcome, Fetched):
        judged = judge(policy, filter_, kept, outcome)
        if not judged.found.problems:
            save(store, filter_, judged)
            return Obtained(judged.found, "fetched")
        refused = judged.found.problems
    elif isinstance(outcome, FetchError):
        refused = [SourceProblem("wasm", f"cannot be fetched: {outcome.problem}", outcome.mend)]
    elif kept is None:
        refused = [SourceProblem("wasm", "was never fetched", "run penstock check with the network")]
    if kept is None:
        return refused
    found = policy.examine(filter_, kept.parts)
    if found.problems:
        return refused or found.problems
    if refused:
        log.warning(
            "last_good_kept", filter=filter_.name, source=shown, reason=str(refused[0]), sha256=found.digest,
            checked_seconds_ago=round(max(0.0, time.time() - kept.ref.checked)),
        )  # fmt: skip
    return Obtained(found, "kept")


def judge(policy: Policy, filter_: Filter, kept: Kept | None, outcome: Fetched) -> Judged:
    """What was fetched, whole, as the policy sees it."""
    parts = dict(outcome.parts)
    if kept is not None:
        parts.update({name: kept.parts[name] for name in outcome.same if name in kept.parts})
    found = policy.examine(filter_, parts, kept.ref if kept is not None else None)
    now = time.time()
    digests = {name: sha256(data) for name, data in parts.items()}
    shown = filter_.wasm.shown if isinstance(filter_.wasm, Remote) else ""
    ref = Ref(shown, digests, outcome.tag, now, now, found.name, found.version, found.signer)
    changed = kept is None or dict(kept.ref.parts) != digests
    if not changed:
        assert kept is not None
        ref = replace(ref, fetched=kept.ref.fetched)
    return Judged(found, ref, parts, changed)


def save(store: Store | None, filter_: Filter, judged: Judged) -> None:
    if store is None:
        return
    try:
        store.keep(key_of(filter_), judged.ref, judged.parts)
    except OSError as error:
        log.warning("not_kept", filter=filter_.name, reason=str(error))


# ---- Good ones ----


def good_key(filter_: Filter) -> str:
    return f"{key_of(filter_)}|good"


def confirm(config: Config, filters: Sequence[Filter], digests: Sequence[str]) -> None:
    """These modules have loaded, in the filters' order: note those that the store has as good."""
    if not any(isinstance(filter_.wasm, Remote) for filter_ in filters):
        return
    with opened(config) as store:
        if store is None:
            return
        for filter_, digest in zip(filters, digests, strict=True):
            kept, good = store.kept(key_of(filter_)), store.kept(good_key(filter_))
            if kept is None or kept.ref.parts["module"] != digest or (good is not None and good.ref.parts == kept.ref.parts):
                continue
            with contextlib.suppress(OSError):  # told when it was fetched
                store.put_ref(good_key(filter_), kept.ref)


def good_ones(config: Config, filters: Sequence[Filter], bad: Mapping[int, tuple[str, str]]) -> dict[int, bytes]:
    """For filters that do not load, what loaded before from the same source, by their places.

    `bad`: place to the digest of what does not load, and why.
    """
    found: dict[int, bytes] = {}
    remote = [index for index in bad if isinstance(filters[index].wasm, Remote)]
    if not remote:
        return found
    policy = open_policy(config, [])
    with opened(config) as store:
        if store is None:
            return found
        for index in remote:
            filter_ = filters[index]
            good = store.kept(good_key(filter_))
            if good is None:
                continue
            examined = policy.examine(filter_, good.parts)
            digest, reason = bad[index]
            if not examined.problems and examined.digest != digest:
                log.error("last_good_kept", filter=filter_.name, reason=reason, sha256=examined.digest, refused=digest)
                found[index] = examined.data
    return found
