"""What a configured filter counts and logs of itself, whatever its ABI."""

import time
from typing import Any

import structlog

from proxy.abi.filter import StreamHost
from proxy.abi.recovery import Slot
from proxy.abi.services import Http
from proxy.abi.settings import Allowance, Settings
from proxy.telemetry.instruments import FilterInstruments

log = structlog.get_logger("filter")


class Reporting:
    """One configured filter in one worker: its settings and its figures."""

    slot: Slot
    """Where it runs."""

    def __init__(self, settings: Settings, instruments: FilterInstruments) -> None:
        self.name = settings.name
        self.settings = settings
        self.instruments = instruments
        self.lines = Allowance(settings.log_lines)
        self.last_lines: list[str] = []
        """What it logged last outside of streams."""
        self.http: Http | None = None
        """How it calls other services; None: not at all."""
        self.fuel = settings.fuel
        self.fuel_used = instruments.fuel
        self.fuel_counts = [0] * 64
        """Calls by the bit length of the fuel that they took."""
        self.seconds = instruments.seconds
        self.errors: dict[tuple[str, str], Any] = {}

    def refresh(self) -> None:
        """Before a snapshot of the metrics: what is counted elsewhere."""
        histogram = self.instruments.call_fuel
        first = int(histogram.bounds[0]).bit_length()
        last = first + len(histogram.bounds)
        counts = self.fuel_counts
        histogram.counts = [sum(counts[: first + 1]), *counts[first + 1 : last], sum(counts[last:])]
        histogram.sum = self.fuel_used.value

    def state(self) -> dict[str, Any]:
        """For /ready: ready; failed, with the reason and the seconds until it is built again; or quarantined."""
        slot = self.slot
        if slot.ready:
            return {"state": "ready"}
        policy = "open" if self.settings.fail_open else "closed"
        if slot.out and slot.quarantine is not None:
            since, reason = slot.quarantine.reason(slot.out)
            return {
                "state": "quarantined", "reason": reason, "since": since, "resume": f"POST /filters/{slot.out}/resume",
                "on_failure": policy,
            }  # fmt: skip
        return {
            "state": "failed",
            "reason": slot.last_fault,
            "rebuilt_in_seconds": round(max(slot.rebuild_at - time.monotonic(), 0.0), 1),
            "on_failure": policy,
        }

    def count_error(self, function: str, status: str) -> None:
        counter = self.errors.get((function, status))
        if counter is None:
            counter = self.errors[function, status] = self.instruments.host_call_errors(function, status)
        counter.value += 1

    def failed(self, callback: str, reason: str, message: str, stream: StreamHost | None, fuel: int) -> None:
        """Log and count what ended a call."""
        self.instruments.failures(reason).value += 1
        slot = self.slot
        slot.last_fault = f"{callback}: {reason}: {message}"
        slot.failing = self.settings
        if slot.quarantine is not None:
            slot.quarantine.note(self.name, callback, reason, message)
        log.error(
            "filter_failed",
            filter=self.name,
            callback=callback,
            reason=reason,
            message=message,
            fuel_used=fuel,
            on_failure="open" if self.settings.fail_open else "closed",
            request_id=stream.info.request_id if stream is not None else None,
        )
