"""Two versions of a filter side by side: which stream meets which, and when the newer one is taken back.

The choice is a hash of the filter's name and the client's key against a threshold, so a client stays where it is, canaries of
several filters are independent, and another weight moves only the difference. Each version is a filter of its own (NAME and
NAME@canary) with its own VM, budgets and quarantine. Every worker follows the decision (proxy/sharing/canaries.py) and judges
by the figures of all of them; routes without a canary have another plan and pay nothing.
"""

import hashlib
import random
import time
from collections import deque
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any, Final

import structlog

from proxy.abi.filter import FilterFactory
from proxy.abi.memory import REQUEST_HEADERS
from proxy.abi.reporting import Reporting
from proxy.chain.bystander import Bystander
from proxy.chain.chain import Chain
from proxy.config.versions import Canary as CanaryConfig
from proxy.config.versions import Rollback, Sticky
from proxy.sharing.canaries import (
    CANARY,
    ERRORS,
    FUEL,
    LIVE,
    SIDE_WORDS,
    SIDES,
    STREAMS,
    TIMES,
    TRAPS,
    CanaryFiles,
    Decision,
    Figures,
    bucket_of,
    key_of,
    now,
)
from proxy.telemetry.metrics import Counter, Registry
from proxy.telemetry.stream import StreamInfo

log = structlog.get_logger("canary")

WHOLE: Final = 1 << 64
CHANCE: Final = 4.0
"""Standard deviations: what is worse by less may be chance, and it is looked at four times a second."""
LOOKS: Final = 20
"""The window slides in so many steps."""

Key = Callable[[Chain], bytes | None]


# ---- Which side ----


def place(name: str, key: bytes) -> int:
    """Where a client stands for a filter, 0 to WHOLE - 1: it meets the canary if that is below the threshold."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, key=name.encode()[:64]).digest(), "little")


def threshold(weight: float) -> int:
    """0 for nobody, WHOLE for everybody."""
    return round(weight * (1 << 32)) << 32


def key_reader(sticky: Sticky | None) -> Key | None:
    """How a client is known; None: not at all, each stream is chosen for itself."""
    if sticky is None:
        return None
    if sticky.header is not None:
        header = sticky.header.lower().encode()
        return lambda chain: chain.memory.get(REQUEST_HEADERS, header)
    if sticky.cookie is not None:
        name = sticky.cookie.encode()
        return lambda chain: cookie(chain, name)
    return lambda chain: chain.info.source_address.rpartition(":")[0].encode()


def cookie(chain: Chain, name: bytes) -> bytes | None:
    """A cookie's value (RFC 6265 4.2.1); the first one of that name."""
    for key, value in chain.memory.pairs(REQUEST_HEADERS):
        if key == b"cookie":
            for each in value.split(b";"):
                found, equals, said = each.strip().partition(b"=")
                if equals and found == name:
                    return said
    return None


# ---- Is it worse? ----


def worse(live: Figures, canary: Figures, bounds: Rollback) -> list[str]:
    """By which bounds the canary is worse than the live version, as evidence for people; empty: by none."""
    found = []
    if bounds.traps is not None and canary.traps >= bounds.traps and canary.traps * live.streams >= live.traps * canary.streams:
        found.append(f"traps: {canary.traps} in {canary.streams} streams, live {live.traps} in {live.streams}")
    if canary.streams < bounds.after or live.streams < bounds.after:
        return found
    if bounds.errors_5xx is not None:
        own, other = canary.errors / canary.streams, live.errors / live.streams
        both = (canary.errors + live.errors) / (canary.streams + live.streams)
        deviation = sqrt(both * (1 - both) * (1 / canary.streams + 1 / live.streams))
        if own - other > max(bounds.errors_5xx, CHANCE * deviation):
            found.append(
                f"errors_5xx: {canary.errors} of {canary.streams} streams ({own:.2%}), "
                f"live {live.errors} of {live.streams} ({other:.2%})"
            )
    if bounds.p99 is not None and (total := sum(canary.times)) and sum(live.times) >= bounds.after:
        limit = bounds.p99 * live.percentile(0.99)
        # Not the percentile itself, which a few streams move: how many are beyond what one in a hundred may exceed.
        beyond = canary.slower(limit)
        if beyond > 0.01 * total + CHANCE * sqrt(total * 0.01 * 0.99):
            found.append(
                f"p99: {beyond} of {total} streams took longer than {bounds.p99:g} times the live version's p99 of "
                f"{live.percentile(0.99) * 1e3:.3g} ms; its own is {canary.percentile(0.99) * 1e3:.3g} ms"
            )
    if bounds.fuel is not None and live.fuel:
        own, other = canary.fuel / canary.streams, live.fuel / live.streams
        if own > bounds.fuel * other:
            found.append(f"fuel: {own:,.0f} a stream, live {other:,.0f}")
    return found


# ---- In one worker ----


class Canary:
    """The two versions of one filter in one worker. Until `attach` everybody meets the live one (a check, the kit)."""

    def __init__(
        self, config: CanaryConfig, name: str, digest: str, configuration: bytes, sides: tuple[Reporting, Reporting]
    ) -> None:
        self.config = config
        self.name = name
        self.sides = sides
        self.key = key_reader(config.sticky)
        self.digest = digest
        self.identity = key_of(name, digest, configuration, config.weight)
        self.threshold = 0
        self.files: CanaryFiles | None = None
        self.row = 0
        self.words: Any = [0] * (2 * SIDE_WORDS)
        self.published = [[side.faults, int(side.fuel_used.value)] for side in sides]
        """Of each side: the traps and the fuel that are in the table."""
        self.decision = Decision("running", 0.0, now(), "check")
        self.history: deque[tuple[float, tuple[Figures, Figures]]] = deque()
        self.streams: tuple[Counter, Counter] = (Counter(), Counter())

    def attach(self, directory: Path, registry: Registry) -> None:
        """Begin to serve: follow the decision, count where all workers do. Raises OSError."""
        self.files = CanaryFiles(directory, self.name, self.identity)
        self.row = self.files.claim()
        self.words = self.files.words
        family = registry.counter(
            "penstock_canary_streams_total", "Streams of filters with a canary, by side", ("filter", "side")
        )
        self.streams = family.child((self.name, "live")), family.child((self.name, "canary"))
        self.follow(self.decided())
        self.history.append((time.monotonic(), self.files.figures()))

    def decided(self) -> Decision:
        """What holds: the last decision, or what the config says."""
        found = self.files.decision() if self.files is not None else None
        return found or Decision("running", self.config.weight, self.decision.since, "config")

    def follow(self, decision: Decision) -> None:
        self.decision = decision
        self.threshold = threshold(decision.weight)

    def choose(self, chain: Chain) -> int:
        """LIVE or CANARY for a new stream."""
        if not self.threshold:
            return LIVE
        if self.threshold == WHOLE:
            return CANARY
        if self.key is None:
            return int(random.getrandbits(64) < self.threshold)
        key = self.key(chain)
        return int(key is not None and place(self.name, key) < self.threshold)

    def count(self, side: int, seconds: float, failed: bool, timed: bool) -> None:
        """A stream is over."""
        words, at = self.words, self.row + side * SIDE_WORDS
        words[at + STREAMS] += 1
        if failed:
            words[at + ERRORS] += 1
        if timed:
            words[at + TIMES + bucket_of(seconds)] += 1
        self.streams[side].value += 1

    def publish(self) -> None:
        """Put into the table what the versions count of themselves."""
        for side, plugin in enumerate(self.sides):
            traps, fuel = plugin.faults, int(plugin.fuel_used.value)
            before = self.published[side]
            at = self.row + side * SIDE_WORDS
            self.words[at + TRAPS] += traps - before[0]
            self.words[at + FUEL] += fuel - before[1]
            self.published[side] = [traps, fuel]

    def watch(self) -> None:
        """A few times a second: publish, follow what has been decided, judge."""
        files = self.files
        if files is None:
            return
        self.publish()
        decision = self.decided()
        time_now = time.monotonic()
        figures = files.figures()
        if (decision.state, decision.weight, decision.since) != (
            self.decision.state,
            self.decision.weight,
            self.decision.since,
        ):
            log.info("canary_changed", filter=self.name, state=decision.state, weight=decision.weight, by=decision.by)
            self.follow(decision)
            # What was before does not count against it.
            self.history.clear()
        self.remember(time_now, figures)
        if decision.state == "running" and decision.weight > 0 and self.config.rollback is not None:
            self.judge(figures, self.config.rollback)

    def remember(self, time_now: float, figures: tuple[Figures, Figures]) -> None:
        history, bounds = self.history, self.config.rollback
        window = bounds.window if bounds is not None else 0.0
        if not history or time_now - history[-1][0] >= window / LOOKS:
            history.append((time_now, figures))
        while len(history) > 1 and history[1][0] <= time_now - window:
            history.popleft()

    def judge(self, figures: tuple[Figures, Figures], bounds: Rollback) -> None:
        then = self.history[0][1]
        live, canary = (side.less(before) for side, before in zip(figures, then, strict=True))
        evidence = worse(live, canary, bounds)
        if self.sides[CANARY].slot.out:
            evidence.append(f"quarantine: {self.sides[CANARY].slot.last_fault}")
        if not evidence:
            return
        decision = Decision("rolled_back", 0.0, now(), "bounds", evidence)
        log.error(
            "canary_rolled_back", filter=self.name, evidence=evidence, live=live.shown(), canary=canary.shown(),
            weight_was=self.decision.weight,
        )  # fmt: skip
        self.follow(decision)
        self.history.clear()
        assert self.files is not None
        try:
            self.files.decide(decision)
        except OSError as error:
            # This worker has taken it back; the others come to the same finding by the same figures.
            log.error("canary_state_not_written", filter=self.name, file=str(self.files.decision_file), error=str(error))
            self.files = None

    def state(self) -> dict[str, Any]:
        """For the admin API."""
        decision = self.decision
        shown: dict[str, Any] = {
            "state": decision.state, "weight": decision.weight, "since": decision.since, "by": decision.by,
            "evidence": decision.evidence, "sha256": self.digest, "wasm": str(self.config.wasm), "key": self.identity,
            "sticky": self.config.sticky.redacted() if self.config.sticky is not None else None,
            "config_weight": self.config.weight, "config_differs": "config" in self.config.model_fields_set,
        }  # fmt: skip
        if self.files is not None:
            shown["directory"] = str(self.files.directory.parent)
            shown |= dict(zip(SIDES, (side.shown() for side in self.files.figures()), strict=True))
        return shown

    def close(self) -> None:
        if self.files is not None:
            self.publish()
            self.words = [0] * (self.row + 2 * SIDE_WORDS)  # streams that end later
            self.files.close()
            self.files = None


class Split:
    """A filter with a canary, on one route: two factories for it."""

    def __init__(self, canary: Canary, live: FilterFactory, other: FilterFactory) -> None:
        self.canary = canary
        self.sides = live, other


class SideCounter(Bystander):
    """Stands before the version that a stream meets, and counts the stream when it is over, if it came so far."""

    __slots__ = ("canary", "info", "reached", "side")

    name = ""

    def __init__(self, info: StreamInfo, canary: Canary, side: int) -> None:
        self.info = info
        self.canary = canary
        self.side = side
        self.reached = False

    def request_headers(self, end_stream: bool) -> int:
        self.reached = True
        return 0

    def finish(self) -> None:
        if not self.reached:
            return
        info = self.info
        failed = info.status >= 500 or (not info.status and "DC" not in info.flags)
        self.canary.count(self.side, time.monotonic() - info.start_monotonic, failed, info.status != 101)
