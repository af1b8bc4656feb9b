"""The process that watches the config's files, and tells the supervisor when they look other than they did.

By watchfiles (inotify, kqueue; polling with WATCHFILES_FORCE_POLLING=1). Directories are watched, since files are replaced by
others of their name; what an event means is found by looking at the files, so events that change nothing of theirs end here.
"""

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from proxy.server.watched_files import Signature, signature

log = structlog.get_logger("reload")

QUIET_MS = 100
"""A burst of events is over when for so long there is no other ..."""
LONGEST_MS = 1000
"""... or after so long at most."""
LOOK_MS = 5000
"""Without any event the files are looked at so often: for changes that the system does not tell of (some network disks)."""


def run(paths: set[Path], known: Signature, channel: socket.socket) -> int:
    """Send a byte whenever the files have changed, at first since `known`. Ends with the supervisor."""
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    before = known
    while True:
        folders = directories(paths)
        for looks in changes(paths, folders):
            if looks != before:
                before = looks
                try:
                    channel.send(b"changed\n")
                except OSError:
                    return 0  # the supervisor is gone
            if directories(paths) != folders:
                break


def changes(paths: set[Path], folders: list[Path]) -> Iterator[Signature]:
    """How the files look: now, and after each event."""
    from watchfiles import watch  # in this process alone: 50 ms that no start should wait for

    yield signature(paths)
    try:
        for _ in watch(
            *folders, watch_filter=None, debounce=LONGEST_MS, step=QUIET_MS, rust_timeout=LOOK_MS, yield_on_timeout=True,
            raise_interrupt=False, recursive=False, ignore_permission_denied=True,
        ):  # fmt: skip
            yield signature(paths)
    except (OSError, RuntimeError) as error:
        log.warning("files cannot be watched, so they are looked at", every_s=LOOK_MS / 1000, reason=str(error))
        while True:
            time.sleep(LOOK_MS / 1000)
            yield signature(paths)


def directories(paths: set[Path]) -> list[Path]:
    """What has to be watched: of each path its folder, the folder of what it links to, and itself if it is one."""
    found = set()
    for path in paths:
        for place in (path.parent, path.resolve().parent):
            # Of a folder that is not there yet, the one where it will appear.
            while not place.is_dir() and place != place.parent:
                place = place.parent
            found.add(place)
        if path.is_dir():
            found.add(path)
    return sorted(found)
