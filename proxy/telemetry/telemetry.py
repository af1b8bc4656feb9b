"""What one worker reports with: its metrics and its access log, bound once, handed to everything that serves."""

import time

from proxy.telemetry.access import AccessLog
from proxy.telemetry.instruments import Instruments, StreamInstruments
from proxy.telemetry.logging import output
from proxy.telemetry.metrics import Registry
from proxy.telemetry.stream import StreamInfo


class Telemetry:
    """One per worker process."""

    def __init__(self, access: bool = True) -> None:
        self.registry = Registry()
        self.instruments = Instruments(self.registry)
        self.access = AccessLog(access)
        self.streams: dict[tuple[str, str], StreamInstruments] = {}
        dropped = self.instruments.log_lines_dropped.child(())

        def refresh() -> None:
            dropped.value = output.writer.dropped

        self.registry.before_snapshot(refresh)

    def forget(self, label: str, value: str) -> None:
        """Drop the metrics of a filter, cluster or route that is no longer configured."""
        self.instruments.forget(label, value)
        place = ("route", "cluster").index(label) if label != "filter" else -1
        for key in [key for key in self.streams if place >= 0 and key[place] == value]:
            del self.streams[key]

    def stream_finished(self, info: StreamInfo) -> None:
        """Count and log a stream that is over; call once per stream, after its last byte or its abort."""
        duration = time.monotonic() - info.start_monotonic
        key = (info.route_name, info.cluster_name)
        instruments = self.streams.get(key)
        if instruments is None:
            # Names come from the config, or are "" before routing; so the number of pairs is bounded.
            instruments = self.streams[key] = self.instruments.stream(*key)
        instruments.record(info, duration)
        self.access.write(info, duration)
