"""What a worker takes on: so many streams at a time, and none while its memory is near its cap.

A stream too many is answered 503 with `connection: close` before anything is made of its request, so that shedding costs
little; Envoy's overload manager does the same (envoy.overload_actions.stop_accepting_requests).
"""

import asyncio
import ctypes
import gc
import os
import resource
from collections.abc import Sequence
from pathlib import Path

from proxy.config.cluster import Cluster
from proxy.config.listener import Listener
from proxy.config.operation import Overload as OverloadConfig
from proxy.telemetry.instruments import Instruments
from proxy.telemetry.logging import get_logger

log = get_logger("overload")

WATCH_SECONDS = 1.0
SHED_SHARE, RESUME_SHARE = 0.95, 0.90
"""Of the memory cap: from the first on streams are shed, below the second they are taken again."""
STATM = Path("/proc/self/statm")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAPPED_FROM, KEPT = 16 << 20, 16 << 20
"""Bytes of an allocation that is given back at once, and of free memory that may stay."""
PAGE_BYTES = resource.getpagesize()
SPARE_FILES = 256
"""Descriptors for everything that is no connection."""

libc = ctypes.CDLL(None)


class Overload:
    """Compare `streams` with `limit` before a stream begins; count it up, and down at its end."""

    def __init__(self, config: OverloadConfig, instruments: Instruments) -> None:
        self.most = self.limit = config.streams
        self.memory = config.memory
        self.instruments = instruments
        self.streams = 0
        """Running now."""
        self.reason = "max_streams"
        """Why a stream is shed, for the metric and the log."""
        self.timer: asyncio.TimerHandle | None = None
        instruments.registry.before_snapshot(self.refresh)

    def configure(self, config: OverloadConfig) -> None:
        """Take other settings, after a reload."""
        if self.limit:
            self.limit = config.streams
        self.most = config.streams
        self.memory = config.memory
        if self.memory is None:
            self.limit = self.most
            self.stop()
        elif self.timer is None:
            self.start(asyncio.get_running_loop())

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the memory now, and every second from then on."""
        if self.memory is not None:
            self.look(self.memory)
            self.timer = loop.call_later(WATCH_SECONDS, self.start, loop)

    def look(self, cap: int) -> None:
        used = resident_bytes()
        if self.limit:
            if used < SHED_SHARE * cap:
                return
            # Before anybody is turned away: what is garbage, and what the allocator keeps.
            gc.collect()
            give_back()
            used = resident_bytes()
            if used >= SHED_SHARE * cap:
                self.limit, self.reason = 0, "memory"
                log.error("memory is short: new streams get 503", resident_bytes=used, cap_bytes=cap, streams=self.streams)
            return
        give_back()
        used = resident_bytes()
        if used < RESUME_SHARE * cap:
            self.limit, self.reason = self.most, "max_streams"
            log.info("memory is free again", resident_bytes=used, cap_bytes=cap)

    def refresh(self) -> None:
        """Before a snapshot of the metrics."""
        self.instruments.streams.child(()).value = self.streams
        self.instruments.resident_bytes.child(()).value = resident_bytes()
        self.instruments.tasks.child(()).value = len(asyncio.all_tasks())

    def stop(self) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def resident_bytes() -> int:
    """This process's memory in RAM (proc(5), statm), what it shares with the other processes included."""
    return int(STATM.read_bytes().split()[1]) * PAGE_BYTES


def give_back() -> None:
    """Have glibc return free memory to the system (malloc_trim(3)); other C libraries do so on their own."""
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def keep_freed() -> None:
    """Have glibc keep freed memory for what comes next (mallopt(3)); other C libraries have rules of their own.

    A piece of a body that a filter has grown is copied several times on its way out. By default each copy of 128 KiB or more is
    mapped and unmapped: 4 MiB take 2.5 ms of page faults where 0.3 ms copy them.
    """
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)


def take_files() -> None:
    """Raise this process's limit of open files as far as it may: a connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_each(listeners: Sequence[Listener], clusters: Sequence[Cluster]) -> list[int]:
    """Each listener's `max_connections`, less if the process may not open as many files. Accepting beyond that would fail
    for everybody, upstream connections included."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = [listener.max_connections for listener in listeners]
    upstream = sum(cluster.max_connections for cluster in clusters)
    room = files - min(SPARE_FILES, files // 4)
    room -= min(upstream, room // 2)
    if files == resource.RLIM_INFINITY or sum(wanted) <= room:
        return wanted
    admitted = [max(1, count * room // sum(wanted)) for count in wanted]
    log.warning(
        "fewer connections than max_connections: too few open files are allowed", open_files=files, listeners=sum(wanted),
        clusters=upstream, admitted=sum(admitted), pid=os.getpid(),
    )  # fmt: skip
    return admitted
