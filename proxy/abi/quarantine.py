"""When a filter that keeps failing is taken out, and when it is let in again (proxy/sharing/quarantine.py has the state)."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from proxy.abi.settings import Settings
from proxy.sharing.quarantine import QuarantineBoard, Trap

MOST_FAULTS: Final = 1000
"""Faults remembered, whatever the config says."""


class Quarantine:
    """The quarantine of the filters in one VM, seen from one worker. One of them is enough to take the VM out."""

    def __init__(self, board: QuarantineBoard, worker: int) -> None:
        self.board = board
        self.worker = worker
        self.names: list[str] = []
        self.faults: deque[float] = deque(maxlen=MOST_FAULTS)
        """When the VM failed, in seconds of time.monotonic()."""

    def note(self, name: str, callback: str, reason: str, message: str) -> None:
        """Keep what happened for the admin pages."""
        self.board.note(self.worker, name, Trap(round(time.time(), 3), callback, reason, message))

    def fault(self, settings: Settings, now: float, last: str) -> str:
        """The VM has failed in a callback of the filter with these settings; the reason if it is taken out now, else ""."""
        faults = self.faults
        faults.append(now)
        while faults[0] < now - settings.quarantine_window:
            faults.popleft()
        if not settings.quarantine_faults or len(faults) < settings.quarantine_faults:
            return ""
        reason = f"{len(faults)} faults within {settings.quarantine_window:g} s, the last: {last}"
        self.board.take_out(self.worker, settings.name, reason)
        faults.clear()
        return reason

    def take_out(self, name: str, reason: str) -> None:
        """The operator takes the filter out."""
        self.board.take_out(self.worker, name, reason)

    def who(self) -> str:
        """The filter for which the VM is out, whichever worker has found so; "" if none is."""
        return next((name for name in self.names if self.board.is_out(name)), "")

    def reason(self, name: str) -> tuple[float, str]:
        """Since when (seconds since 1970) and why the filter is out."""
        found = self.board.quarantined(name)
        return (found.since, found.reason) if found is not None else (0.0, "")


def alone(names: Sequence[str]) -> QuarantineBoard:
    """The board of a gateway of one process."""
    return QuarantineBoard(names, 1)
