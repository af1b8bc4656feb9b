"""Sums over workers that never go backwards, whichever worker dies."""

import json
from collections.abc import Iterable
from pathlib import Path

from proxy.telemetry.metrics import Snapshot, merge, without_gauges

WorkerKey = tuple[int, float]
"""A worker's pid and start time."""

EMPTY: Snapshot = {"families": []}


class Aggregate:
    """The last snapshot of each living worker, and the sum of what the dead ones had counted.

    That sum is written to `file`, so that it outlives the admin process. What a worker counted between its last
    snapshot and its death is lost: at most one poll's worth.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.last: dict[WorkerKey, Snapshot] = {}
        self.living: set[WorkerKey] = set()
        self.base = json.loads(file.read_bytes()) if file.exists() else EMPTY

    def follow(self, living: Iterable[WorkerKey]) -> None:
        """Say which workers live; the counters of those that no longer do go into the base."""
        self.living = set(living)
        dead = [key for key in self.last if key not in self.living]
        if not dead:
            return
        self.base = merge([self.base, *(without_gauges(self.last.pop(key)) for key in dead)])
        written = self.file.with_suffix(".new")
        written.write_text(json.dumps(self.base))
        written.replace(self.file)

    def update(self, key: WorkerKey, snapshot: Snapshot) -> None:
        """Take a worker's snapshot; one that arrives after its worker's death is counted already and is left out."""
        if key in self.living:
            self.last[key] = snapshot

    def total(self) -> Snapshot:
        return merge([self.base, *self.last.values()])
