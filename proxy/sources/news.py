"""What the filters of a config are now, at their sources, before anybody has said yes to it."""

from proxy.config.filter import with_versions
from proxy.config.model import Config
from proxy.config.remote import Remote
from proxy.sources.fetch import fetch_all
from proxy.sources.grants_lock import Accepted
from proxy.sources.guard import FetchError
from proxy.sources.obtain import UnreadableError, file_parts, judge, key_of, moves, opened, order, save
from proxy.sources.policy import Examined, Policy, SourceProblem, accepted
from proxy.wasm.module import ModuleError


def news(config: Config) -> list[Accepted | list[SourceProblem]]:
    """For each filter, other versions included, what would be accepted of it, or why not. What is fetched is kept in the store,
    so that a reload after a yes finds it there; signatures and asks are held against the config as ever."""
    policy = Policy(config, locked=False)
    filters = with_versions(config.filters)
    found: list[Accepted | list[SourceProblem]] = []
    with opened(config) as store:
        remote = [filter_ for filter_ in filters if isinstance(filter_.wasm, Remote)]
        kept = [store.kept(key_of(filter_)) if store is not None else None for filter_ in remote]
        asked = [
            (filter_, known) for filter_, known in zip(remote, kept, strict=True) if known is None or moves(filter_)
        ]  # fmt: skip
        orders = [order(policy, filter_, known, config.sources.timeout) for filter_, known in asked]
        outcomes = {filter_.name: one for (filter_, _), one in zip(asked, fetch_all(orders), strict=True)}
        by_name = {filter_.name: known for filter_, known in zip(remote, kept, strict=True)}
        for filter_ in filters:
            outcome, known = outcomes.get(filter_.name), by_name.get(filter_.name)
            if isinstance(outcome, FetchError):
                found.append([SourceProblem("wasm", f"cannot be fetched: {outcome.problem}", outcome.mend)])
                continue
            try:
                if outcome is not None:
                    judged = judge(policy, filter_, known, outcome)
                    examined = judged.found
                    if not examined.problems:
                        save(store, filter_, judged)
                else:
                    examined = policy.examine(filter_, known.parts if known is not None else file_parts(filter_))
                found.append(examined.problems or accepted(filter_, examined))
            except UnreadableError as error:
                found.append([error.problem])
            except ModuleError as error:
                found.append([SourceProblem("wasm", error.problem, "name a WebAssembly module built for proxy-wasm")])
    return found


def at_hand(config: Config) -> list[Examined | list[SourceProblem]]:
    """For each filter, other versions included, what its file or the store has, and all that is against it."""
    policy = Policy(config)
    found: list[Examined | list[SourceProblem]] = []
    with opened(config) as store:
        for filter_ in with_versions(config.filters):
            if isinstance(filter_.wasm, Remote):
                kept = store.kept(key_of(filter_)) if store is not None else None
                never = [SourceProblem("wasm", "was never fetched", "run penstock check with the network")]
                found.append(policy.examine(filter_, kept.parts) if kept is not None else never)
                continue
            try:
                found.append(policy.examine(filter_, file_parts(filter_)))
            except UnreadableError as error:
                found.append([error.problem])
    return found
