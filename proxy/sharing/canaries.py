"""What processes and restarts share of a canary: the decision, a small file, and the figures of both sides, a mapped table.

Both lie in the state directory, named by the filter and a key made of what the config says of the canary: another module,
config or weight there is another canary, and begins anew. Every worker counts in a row of its own, so no lock is needed; a row
whose process is gone is taken over as it is. The decision is replaced as a whole (rename), by whoever decides last.
"""

import fcntl
import hashlib
import json
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import log2
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy.sharing.state_file import StateFile

LIVE: Final = 0
CANARY: Final = 1
SIDES: Final = ("live", "canary")

ROWS: Final = 128
"""Worker processes that count at a time."""
BUCKETS: Final = 84
"""Of a stream's time: four to an octave, from 0.1 ms to 200 s; so a percentile is known to a fifth of it."""
SHORTEST: Final = 1e-4
STREAMS, ERRORS, TRAPS, FUEL, TIMES = range(5)
SIDE_WORDS: Final = TIMES + BUCKETS
ROW_WORDS: Final = 1 + 2 * SIDE_WORDS


class Figures(NamedTuple):
    """Of one side: streams, those that ended in a 5xx or broken, faults of the filter, fuel, streams by time."""

    streams: int
    errors: int
    traps: int
    fuel: int
    times: tuple[int, ...]

    def less(self, before: "Figures") -> "Figures":
        """What was counted since."""
        return Figures(
            self.streams - before.streams, self.errors - before.errors, self.traps - before.traps, self.fuel - before.fuel,
            tuple(now - then for now, then in zip(self.times, before.times, strict=True)),
        )  # fmt: skip

    def percentile(self, share: float) -> float:
        """Seconds: the upper bound of the bucket with the percentile; 0.0 without streams."""
        total = sum(self.times)
        count = 0
        for bucket, here in enumerate(self.times):
            count += here
            if total and count >= share * total:
                return upper(bucket)
        return 0.0

    def slower(self, seconds: float) -> int:
        """Streams that took longer than `seconds` for certain."""
        return sum(self.times[bucket_of(seconds) + 1 :])

    def shown(self) -> dict[str, Any]:
        """For people and the admin API; times in seconds."""
        streams = self.streams
        return {
            "streams": streams,
            "errors_5xx": self.errors,
            "traps": self.traps,
            "fuel_per_stream": round(self.fuel / streams) if streams else 0,
            "p50_seconds": round(self.percentile(0.5), 6),
            "p99_seconds": round(self.percentile(0.99), 6),
        }


NOTHING: Final = Figures(0, 0, 0, 0, (0,) * BUCKETS)


def bucket_of(seconds: float) -> int:
    return min(max(int(4 * log2(seconds / SHORTEST)), 0), BUCKETS - 1) if seconds > SHORTEST else 0


def upper(bucket: int) -> float:
    return SHORTEST * float(2 ** ((bucket + 1) / 4))


@dataclass(frozen=True, slots=True)
class Decision:
    """What holds for a canary. `state`: running, rolled_back or promoted; `weight`: 0 to 1; `since`: seconds since 1970; `by`:
    who decided; `evidence`: why, a line each."""

    state: str
    weight: float
    since: float
    by: str
    evidence: list[str] = field(default_factory=list)


class CanaryFiles:
    """The two files of one canary. Raises OSError where the directory can not be written."""

    def __init__(self, directory: Path, filter_: str, key: str) -> None:
        self.directory = directory / "canaries"
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.decision_file = self.directory / f"{filter_}-{key}.json"
        self.figures_file = self.directory / f"{filter_}-{key}.figures"
        self.decided = StateFile(self.decision_file, decision_of)
        size = 8 * ROWS * ROW_WORDS
        with self.figures_file.open("a+b") as file:
            # A hole in a mapped file would be a SIGBUS when the disk is full.
            os.posix_fallocate(file.fileno(), 0, size)
            self.memory = mmap.mmap(file.fileno(), size)
        self.words = memoryview(self.memory).cast("Q")

    # ---- The decision ----

    def decision(self) -> Decision | None:
        """The last one; None if nobody has decided anything."""
        return self.decided.read()

    def decide(self, decision: Decision) -> None:
        """Write it, for all processes and for the next start. Raises OSError."""
        self.decided.write({name: getattr(decision, name) for name in Decision.__slots__})

    # ---- The figures ----

    def claim(self) -> int:
        """Where this process's row begins. Raises OSError if there are too many processes."""
        own = os.getpid()
        with self.locked():
            owners = [self.words[row * ROW_WORDS] for row in range(ROWS)]
            free = next((row for row, owner in enumerate(owners) if owner == own), None)
            if free is None:
                free = next((row for row, owner in enumerate(owners) if not owner or not lives(owner)), None)
            if free is None:
                raise OSError(f"{ROWS} processes count for this canary already")
            self.words[free * ROW_WORDS] = own
        return free * ROW_WORDS + 1

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self.figures_file.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def figures(self) -> tuple[Figures, Figures]:
        """The sums over all processes: live, canary."""
        sums = [0] * (2 * SIDE_WORDS)
        for row in range(ROWS):
            start = row * ROW_WORDS
            if self.words[start]:
                own = self.words[start + 1 : start + ROW_WORDS].tolist()
                sums = [a + b for a, b in zip(sums, own, strict=True)]
        return figures_of(sums[:SIDE_WORDS]), figures_of(sums[SIDE_WORDS:])

    def close(self) -> None:
        self.words.release()
        self.memory.close()


def decision_of(said: Any) -> Decision:
    """Raises ValueError, TypeError, KeyError."""
    weight = float(said["weight"])
    if said["state"] not in ("running", "rolled_back", "promoted") or not 0 <= weight <= 1:
        raise ValueError(f"{said['state']}, {weight}")
    return Decision(said["state"], weight, float(said["since"]), str(said["by"]), [str(line) for line in said["evidence"]])


def figures_of(words: list[int]) -> Figures:
    return Figures(words[STREAMS], words[ERRORS], words[TRAPS], words[FUEL], tuple(words[TIMES:]))


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def key_of(name: str, digest: str, config: bytes, weight: float) -> str:
    """Names a canary as the config describes it."""
    said = json.dumps([name, digest, hashlib.sha256(config).hexdigest(), weight])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def state_directory(configured: Path | None) -> Path:
    """The config's, else $PENSTOCK_STATE, else penstock in $XDG_STATE_HOME (if absolute) or ~/.local/state."""
    if configured is not None:
        return configured.absolute()
    if given := os.environ.get("PENSTOCK_STATE"):
        return Path(given).absolute()
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        with suppress(RuntimeError):  # a user without a home
            base = Path.home() / ".local" / "state"
    return base.absolute() / "penstock"


def now() -> float:
    return round(time.time(), 3)
