"""A filter's own metrics: cells in the stream memory that guests add to, and their names on /metrics."""

import re
import struct
from itertools import chain, count, repeat
from typing import Final

from proxy.abi.memory import StreamMemory
from proxy.telemetry.instruments import FilterInstruments
from proxy.telemetry.metrics import Counter, Gauge, Histogram

COUNTER: Final = 0
GAUGE: Final = 1
HISTOGRAM: Final = 2
KINDS: Final = 3


IS: Final = "=.="
NEXT: Final = ";.;"
LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,63}")
RESERVED: Final = frozenset({"filter", "le", "quantile"})
"""Labels that have a meaning on /metrics already."""
MOST_LABELS: Final = 10
LONGEST_VALUE: Final = 128
MOST: Final = (1 << 63) - 1


def parse(name: str) -> tuple[str, dict[str, str]]:
    """A metric's name and its labels, in their alphabetical order.

    `KEY=.=VALUE;.;KEY=.=VALUE;.;NAME`, the parts in any order, is how Istio's filters write the tags of a metric. What is
    not exactly of this form is a name without labels, whatever it holds.
    """
    parts = name.split(NEXT)
    names = [part for part in parts if IS not in part]
    if len(parts) - 1 > MOST_LABELS or len(names) != 1 or not names[0]:
        return name, {}
    labels = {}
    for part in parts:
        key, separator, value = part.partition(IS)
        if not separator:
            continue
        if LABEL.fullmatch(key) is None or key in RESERVED or key in labels or len(value) > LONGEST_VALUE:
            return name, {}
        labels[key] = value
    return names[0], dict(sorted(labels.items()))


class GuestMetrics:
    """Cells of one filter. They outlive its VM: a rebuilt VM that defines the same names goes on counting.

    The core finds a metric by id in a table of (kind, cell address), at id // 4 * 3 + id % 4; ids step by 4 and hold the
    kind in their low bits, as Envoy's do (counters 4, 8 ..., gauges 5, 9 ..., histograms 6, 10 ...).
    """

    def __init__(self, memory: StreamMemory, instruments: FilterInstruments, limit: int) -> None:
        self.memory = memory
        self.instruments = instruments
        self.limit = limit
        self.capacity = KINDS * (limit + 2)
        self.table = memory.keep(bytes(8 * self.capacity))
        self.cells = memory.keep(bytes(8 * max(limit, 1)))
        self.used = 0
        self.defined: dict[tuple[int, str], int] = {}
        self.next_id = [4, 5, 6]
        self.shown: dict[int, Counter | Gauge] = {}
        self.known: dict[int, int] = {}
        """What was in the cells of `shown` at the last refresh."""
        self.histograms: dict[int, Histogram] = {}
        self.histogram_of: dict[int, Histogram] = {}

    def forget_ids(self) -> None:
        """A new VM counts its ids from the start; values stay."""
        self.next_id = [4, 5, 6]
        self.memory.buffer[self.table : self.table + 8 * self.capacity] = bytes(8 * self.capacity)
        self.histogram_of.clear()

    def define(self, kind: int, name: str) -> int | None:
        """The id of a metric; None when the filter has as many as it may."""
        metric = self.next_id[kind]
        index = metric // 4 * KINDS + metric % 4
        key = (kind, name)
        cell = self.defined.get(key)
        if index >= self.capacity or (cell is None and self.used >= self.limit):
            return None
        if cell is None:
            cell = self.cells + 8 * self.used
            self.used += 1
            self.defined[key] = cell
            self.show(kind, cell, name)
        if kind == HISTOGRAM:
            self.histogram_of[metric] = self.histograms[cell]
        struct.pack_into("<2I", self.memory.buffer, self.table + 8 * index, kind, cell)
        self.next_id[kind] = metric + 4
        return metric

    def show(self, kind: int, cell: int, name: str) -> None:
        """Put a new metric on /metrics: with its labels, unless the name is there with others; then under all that was
        defined as its name, with a number behind it if that is there with labels as well."""
        base, labels = parse(name)
        numbered = (f"{name}_{number}" for number in count(2))
        for shown, own in chain([(base, labels), (name, {})], zip(numbered, repeat({}))):
            try:
                if kind == COUNTER:
                    self.shown[cell] = self.instruments.guest_counter(shown, own)
                elif kind == GAUGE:
                    self.shown[cell] = self.instruments.guest_gauge(shown, own)
                else:
                    self.histograms[cell] = self.instruments.guest_histogram(shown, own)
            except ValueError:
                continue
            if kind != HISTOGRAM:
                # As in Envoy, a metric outlives the VM that defined it: another generation's VM finds what it has come to.
                value = int(self.shown[cell].value)
                value = self.known[cell] = max(-MOST - 1, min(value, MOST)) if kind == GAUGE else value & 2 * MOST + 1
                struct.pack_into("<q" if kind == GAUGE else "<Q", self.memory.buffer, cell, value)
            return

    def sample(self, metric: int, value: int) -> None:
        self.histogram_of[metric].observe(value)

    def refresh(self) -> None:
        """Bring /metrics up to date with the cells. Another generation's VM may be counting too: counts add up, and of a gauge
        the last change holds."""
        for cell, shown in self.shown.items():
            gauge = isinstance(shown, Gauge)
            value = struct.unpack_from("<q" if gauge else "<Q", self.memory.buffer, cell)[0]
            known = self.known[cell]
            if value != known:
                self.known[cell] = value
                shown.value = value if gauge else shown.value + value - known
