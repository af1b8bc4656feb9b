"""What a configured filter counts and logs of itself, whatever its ABI."""

import time
from typing import Any

import structlog

from proxy.abi.filter import StreamHost
from proxy.abi.recovery import Slot
from proxy.abi.services import Http
from proxy.abi.settings import Allowance, Settings
from proxy.telemetry.instruments import FUEL_BITS, TIME_BITS, FilterInstruments
from proxy.telemetry.metrics import Histogram

log = structlog.get_logger("filter")

SETTINGS = {
    "fuel": "filters[].fuel",
    "deadline": "filters[].deadline",
    "memory": "filters[].memory",
    "pause": "filters[].limits.pause",
    "body_buffer": "filters[].limits.body_buffer",
}
"""Of each reason that a limit is: the key that admits more (docs/limits.md)."""


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
        self.fuel_counts = instruments.fuel_counts
        """Calls by the bit length of the fuel that they took."""
        self.time_counts = instruments.time_counts
        """Calls by the bit length of the nanoseconds that they took."""
        self.seconds = instruments.seconds
        self.errors: dict[tuple[str, str], Any] = {}
        self.faults = 0

    def spent(self, fuel: int, seconds: float) -> None:
        """Count what one call took. The streams of proxy-wasm filters have it written out (context.py)."""
        self.fuel_used.value += fuel
        self.fuel_counts[fuel.bit_length()] += 1
        self.time_counts[int(seconds * 1e9).bit_length()] += 1
        self.seconds.value += seconds

    def refresh(self) -> None:
        """Before a snapshot of the metrics: what is counted elsewhere."""
        fill(self.instruments.call_fuel, self.fuel_counts, FUEL_BITS, self.fuel_used.value)
        fill(self.instruments.call_seconds, self.time_counts, TIME_BITS, self.seconds.value)
        self.instruments.memory.value = self.memory_bytes()

    def memory_bytes(self) -> int:
        """Linear memory of what serves; 0 if nothing does, or if it is not known."""
        return 0

    def set_log_level(self, level: str) -> None:
        """debug, info, warning or error, from the next callback on."""
        self.settings = self.settings._replace(log_level=level)

    def state(self) -> dict[str, Any]:
        """For /ready: ready; failed, since when (seconds since 1970), with the reason and the seconds until it is built again;
        or quarantined."""
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
            "since": round(slot.down_since, 3),
            "rebuilt_in_seconds": round(max(slot.rebuild_at - time.monotonic(), 0.0), 1),
            "on_failure": policy,
        }

    def count_error(self, function: str, status: str) -> None:
        counter = self.errors.get((function, status))
        if counter is None:
            counter = self.errors[function, status] = self.instruments.host_call_errors(function, status)
        counter.value += 1

    def usual_fuel(self) -> int:
        """At least what each of its calls has taken that ended well, and less than twice that."""
        failed = self.instruments.failed_fuel_counts
        return next((1 << bits for bits in range(63, 0, -1) if self.fuel_counts[bits] > failed[bits]), 0)

    def failed(
        self, callback: str, reason: str, message: str, stream: StreamHost | None, fuel: int, seconds: float = 0.0
    ) -> None:
        """Log and count what ended a call. `seconds`: what it took; 0 if it was no callback that was stopped."""
        self.instruments.failures(reason).value += 1
        self.faults += 1
        slot = self.slot
        slot.last_fault = f"{callback}: {reason}: {message}"
        slot.failing = self.settings
        if slot.quarantine is not None:
            slot.quarantine.note(self.name, callback, reason, message)
        if seconds:
            self.instruments.failed_fuel_counts[fuel.bit_length()] += 1
            slot.burned(fuel, seconds)
        log.error(
            "filter_failed",
            filter=self.name,
            callback=callback,
            reason=reason,
            message=message,
            fuel_used=fuel,
            **({"setting": SETTINGS[reason]} if reason in SETTINGS else {}),
            on_failure="open" if self.settings.fail_open else "closed",
            request_id=stream.info.request_id if stream is not None else None,
        )


def fill(histogram: Histogram, counts: list[int], bits: range, total: float) -> None:
    """A histogram whose bounds are powers of two, from what was counted by bit length."""
    histogram.counts = [sum(counts[: bits[0] + 1]), *counts[bits[0] + 1 : bits[-1] + 1], sum(counts[bits[-1] + 1 :])]
    histogram.sum = total
