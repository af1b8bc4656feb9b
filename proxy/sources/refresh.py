"""Looks again, in the background, at sources that may change: a process of its own beside the workers.

The hook for whoever runs the processes: if `needed(config)`, run `run(config, changed)` in a child. It never returns; SIGTERM
and SIGUSR1 end it. `changed(names)` is called, in that child, after a source gave something new that the config's policy
accepts and the store holds: a reload then prepares from the store. What it calls is the runner's choice, such as a byte down
a pipe, or SIGHUP to the supervisor. After a reload it is started anew with the new config.

A source that fails is asked again after 1 s, doubling up to `sources.refresh`; what is kept of it goes on serving meanwhile.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from proxy.config.filter import Filter, with_versions
from proxy.config.model import Config
from proxy.config.remote import Remote
from proxy.sources.fetch import Fetched, fetch_all
from proxy.sources.grants_lock import LockError
from proxy.sources.guard import FetchError
from proxy.sources.obtain import judge, key_of, moves, opened, order, save
from proxy.sources.policy import Policy
from proxy.sources.store import Kept, Store

log = structlog.get_logger("sources")

FIRST_BACKOFF = 1.0
JITTER = 0.1
"""Of the time between two looks: gateways that were started together should not all ask at once."""


@dataclass(slots=True)
class Watched:
    """A source. Times are time.monotonic's."""

    filter: Filter
    due: float
    failures: int = 0
    refused: str = ""
    """What to ask with, so that what the policy refused is not fetched again and again."""
    seen: Mapping[str, str] = field(default_factory=dict)
    """The digests of what was accepted last, for want of a store."""


def needed(config: Config) -> bool:
    return config.sources.refresh > 0 and any(moves(filter_) for filter_ in with_versions(config.filters))


def run(config: Config, changed: Callable[[Sequence[str]], object], sleep: Callable[[float], object] = time.sleep) -> int:
    """See above. The number is there for the runner's sake."""
    with opened(config) as store:
        watched = start(config, store)
        while True:
            sleep(max(0.0, min(one.due for one in watched) - time.monotonic()))
            if names := look(config, store, watched):
                changed(names)


def start(config: Config, store: Store | None) -> list[Watched]:
    """One for each source; those that did not answer at the start are due soon."""
    watched = {}
    for filter_ in with_versions(config.filters):
        if moves(filter_):
            kept = store.kept(key_of(filter_)) if store is not None else None
            age = time.time() - kept.ref.checked if kept is not None else float("inf")
            wait = config.sources.refresh - age if 0 <= age < config.sources.refresh else FIRST_BACKOFF
            watched[key_of(filter_)] = Watched(filter_, time.monotonic() + wait)
    return list(watched.values())


def look(config: Config, store: Store | None, watched: Sequence[Watched]) -> list[str]:
    """Ask the sources that are due; gives the names of the filters that changed."""
    now = time.monotonic()
    due = [one for one in watched if one.due <= now]
    try:
        policy = Policy(config)
    except LockError as error:
        log.error("sources_not_looked_at", reason=str(error))
        for one in due:
            one.due = later(config)
        return []
    kept = [store.kept(key_of(one.filter)) if store is not None else None for one in due]
    orders = [
        order(policy, one.filter, known, config.sources.timeout, one.refused or None)
        for one, known in zip(due, kept, strict=True)
    ]
    names = []
    for one, known, outcome in zip(due, kept, fetch_all(orders), strict=True):
        assert isinstance(one.filter.wasm, Remote)
        if isinstance(outcome, FetchError):
            one.failures += 1
            wait = min(config.sources.refresh, FIRST_BACKOFF * 2.0 ** min(one.failures - 1, 30))
            one.due = time.monotonic() + wait
            log.warning(
                "source_unavailable", filter=one.filter.name, source=one.filter.wasm.shown, reason=str(outcome), again_in_s=wait
            )
            continue
        one.failures = 0
        one.due = later(config)
        if one.refused and "module" in outcome.same:
            continue
        if settled(policy, store, one, known, outcome):
            names += [filter_.name for filter_ in with_versions(config.filters) if key_of(filter_) == key_of(one.filter)]
    return names


def settled(policy: Policy, store: Store | None, one: Watched, kept: Kept | None, outcome: Fetched) -> bool:
    """Whether the source gave something new, which is kept now."""
    judged = judge(policy, one.filter, kept, outcome)
    assert isinstance(one.filter.wasm, Remote)
    shown = one.filter.wasm.shown
    if judged.found.problems:
        one.refused = outcome.tag
        reasons = list(map(str, judged.found.problems))
        log.error("source_refused", filter=one.filter.name, source=shown, sha256=judged.found.digest, reasons=reasons)
        return False
    one.refused = ""
    save(store, one.filter, judged)
    changed = judged.changed and judged.ref.parts != one.seen
    one.seen = judged.ref.parts
    if changed:
        log.info(
            "source_changed", filter=one.filter.name, source=shown, sha256=judged.found.digest, version=judged.found.version
        )
    return changed


def later(config: Config) -> float:
    return time.monotonic() + config.sources.refresh * (1 + random.uniform(-JITTER, JITTER))
