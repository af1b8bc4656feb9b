"""Runs in a child of the supervisor: reads the changed config, checks it as a whole, and leaves a revision for the workers.

What is checked is what `penstock check` checks: the files, the grants, that every filter compiles and starts. So what can be
wrong is found before any worker hears of it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxy.config.load import load
from proxy.config.model import Config
from proxy.config.problem import ConfigErrors
from proxy.server.assembly import NOTHING, prepared, spaces_of, start_filters
from proxy.server.check import prepare
from proxy.server.differences import differences, unchangeable
from proxy.server.revision import Revision, save
from proxy.sharing.limits import Limits


def prepare_reload(
    path: Path,
    now: Config,
    fingerprint: str,
    spaces: Mapping[bytes, Limits],
    memory: int,
    number: int,
    must_differ: bool,
) -> dict[str, Any]:
    """Prepare revision `number` of the config at `path`, into `memory`.

    `now`, `fingerprint`, `spaces`: of the one that serves. `must_differ`: without a difference do nothing. Gives JSON: `result`
    ("ok", "unchanged", "refused"), `problems` and `changes`, a line each.
    """
    try:
        config = load(path)
    except ConfigErrors as errors:
        return refused(errors.problems)
    except (OSError, ValueError) as error:  # a file that changes while it is read
        return refused([f"{path}: {error}"])
    if problems := unchangeable(now, config):
        return refused(problems)
    if problems := prepare(config):
        return refused(problems)
    changes = differences(now, config)
    found = fingerprint_of(config)
    if found != fingerprint:
        changes.append("files that the config names")
    if must_differ and not changes and config.__dict__ == now.__dict__:
        return {"result": "unchanged", "problems": [], "changes": []}
    wanted = spaces_of(config)
    for space, limits in wanted.items():
        known = spaces.get(space)
        if known is not None and known != limits:
            shown = space.removeprefix(b"\0").decode(errors="replace")
            problem = f"limits.shared_data or limits.queued_items of {shown} are others than in the gateway that runs"
            return refused([config.problem(("filters",), problem, "restart to change them")])
    if problems := start_filters(config):
        return refused(problems)
    save(memory, Revision(number, config, wanted, found), prepared[id(config)])
    return {"result": "ok", "problems": [], "changes": changes}


def refused(problems: Any) -> dict[str, Any]:
    return {"result": "refused", "problems": list(map(str, problems)), "changes": []}


def fingerprint_of(config: Config) -> str:
    """Of what is in the files that the config names: prepared filters, certificates, keys."""
    found = hashlib.sha256()
    for one in prepared.get(id(config), NOTHING).filters:
        found.update(one.digest.encode())
    paths = [path for one in config.listeners if one.tls is not None for path in (one.tls.certificate, one.tls.private_key)]
    paths += [one.tls.ca for one in config.clusters if one.tls is not None and one.tls.ca is not None]
    for path in paths:
        try:
            found.update(hashlib.sha256(Path(path).read_bytes()).digest())
        except OSError:
            found.update(b"unreadable")
    return found.hexdigest()
