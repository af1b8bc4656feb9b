"""Load for `penstock bench` and the benchmark suite, by generators that others keep: wrk as fast as it can be answered
(closed loop), h2load at a constant rate (open loop).

Why h2load for the constant rate: it costs some 5 us of CPU per request, so what it measures is the server. (k6 on the CPU
beside the server: 17 ms at the 99th percentile where h2load saw 0.7 ms.) Its connections are opened spread over the time
between two requests of one connection, so that requests come evenly and not in one burst of all connections.
"""

import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
SETTLING: Final = 0.5
"""Seconds at the start of a paced run that are not counted."""

INSTALL: Final = {
    "wrk": "wrk, the load generator: apt install wrk (macOS: brew install wrk)",
    "h2load": "h2load, the constant-rate load generator: apt install nghttp2-client (macOS: brew install nghttp2)",
}

# Exact figures, which wrk's own output rounds.
SCRIPT: Final = """
function done(summary, latency, requests)
  local e, found = summary.errors, {}
  for i, p in ipairs({PERCENTILES}) do
    found[i] = string.format('%d', p < 100 and latency:percentile(p) or latency.max)
  end
  io.write(string.format(
    '\\nFIGURES {"requests": %d, "seconds": %.6f, "bytes": %d, "latency": [%s], ' ..
    '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes, table.concat(found, ', '),
    e.connect, e.read, e.write, e.status, e.timeout))
end
""".replace("PERCENTILES", ", ".join(map(str, PERCENTILES)))


class LoadError(Exception):
    """The generator is missing or failed; the message says what to do, or what it printed."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a generator saw. `latency`: microseconds by percentile, 100 for the longest; the failed ones are in it too."""

    requests: int
    """That were answered, whatever the status."""
    seconds: float
    bytes: int
    errors: dict[str, int]
    """By kind, of the answered ones too: status is 400 and above for wrk, other than 2xx and 3xx for h2load."""
    latency: dict[float, float]
    asked: float | None = None
    """Requests per second that were to be sent; None: as many as were answered."""

    @property
    def rps(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def failed(self) -> dict[str, int]:
        """The errors that happened."""
        return {kind: count for kind, count in self.errors.items() if count}


def missing(rate: float | None) -> list[str]:
    """What has to be installed for a run of that kind."""
    tool = "wrk" if rate is None else "h2load"
    return [] if shutil.which(tool) else [INSTALL[tool]]


def fast(
    url: str,
    connections: int,
    seconds: int,
    headers: Sequence[tuple[str, str]] = (),
    launcher: Sequence[str] = (),
    threads: int = 1,
) -> Figures:
    """wrk: each of the connections sends when its last request was answered. Raises LoadError."""
    if not shutil.which("wrk"):
        raise LoadError(f"not installed: {INSTALL['wrk']}")
    with tempfile.NamedTemporaryFile("w", prefix="penstock-wrk-", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        command = [*launcher, "wrk", "-t", str(threads), "-c", str(max(connections, threads)), "-d", f"{seconds}s"]
        command += [word for name, value in headers for word in ("-H", f"{name}: {value}")]
        run = execute([*command, "--latency", "--timeout", "10s", "-s", script.name, url], seconds + 60)
    return wrk_figures(run)


def wrk_figures(output: str) -> Figures:
    """From the line that SCRIPT prints. Raises LoadError without one."""
    lines = [line for line in output.splitlines() if line.startswith("FIGURES ")]
    if not lines:
        raise LoadError(f"wrk said: {output[-800:].strip() or 'nothing'}")
    found = json.loads(lines[0].removeprefix("FIGURES "))
    latency = dict(zip(PERCENTILES, map(float, found["latency"]), strict=True))
    return Figures(found["requests"], found["seconds"], found["bytes"], found["errors"], latency)


def paced(
    url: str,
    connections: int,
    seconds: float,
    rate: float,
    headers: Sequence[tuple[str, str]] = (),
    launcher: Sequence[str] = (),
) -> Figures:
    """h2load: `rate` requests a second in all, whether they are answered or not, but one at a time on a connection: one
    that is late delays the next of its connection, which is seen as a rate that is not reached. Raises LoadError."""
    if not shutil.which("h2load"):
        raise LoadError(f"not installed: {INSTALL['h2load']}")
    requests = max(round(rate * (seconds + SETTLING)), 1)
    connections = min(connections, requests)
    batch, period = opening(rate)
    with tempfile.TemporaryDirectory(prefix="penstock-h2load-") as directory:
        log = Path(directory) / "requests"
        command = [*launcher, "h2load", "--h1", "-t", "1", "-c", str(connections), "-n", str(requests)]
        command += ["--rps", f"{rate / connections:.6f}", "-r", str(batch), "--rate-period", f"{period}ms"]
        command += [word for name, value in headers for word in ("-H", f"{name}: {value}")]
        output = execute([*command, "--log-file", str(log), url], seconds * 2 + 60)
        if not log.exists():
            raise LoadError(f"h2load said: {output[-800:].strip()}")
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    return h2load_figures([(int(row[0]), int(row[1]), int(row[2])) for row in rows], output, rate, seconds)


def opening(rate: float) -> tuple[int, int]:
    """How many connections to open at once, and every how many milliseconds: as requests are to come."""
    return (round(rate / 1000), 1) if rate >= 1000 else (1, max(round(1000 / rate), 1))


def h2load_figures(rows: Sequence[tuple[int, int, int]], output: str, rate: float, seconds: float) -> Figures:
    """From the rows of h2load's log: start in microseconds, status (-1 if there was no answer), microseconds. Counted are
    `seconds` from SETTLING after the first. Raises LoadError if there are none."""
    begin = min((start for start, _, _ in rows), default=0) + SETTLING * 1e6
    counted = [row for row in rows if begin <= row[0] < begin + seconds * 1e6]
    if not counted:
        raise LoadError(f"h2load got no answers: {output[-800:].strip()}")
    latencies = sorted(took for _, status, took in counted if status != -1)
    statuses = [status for _, status, _ in counted]
    errors = {
        "status": sum(status != -1 and not 200 <= status < 400 for status in statuses),
        "no answer": statuses.count(-1),
    }
    traffic = re.search(r"^traffic: \S+ \((\d+)\) total", output, re.MULTILINE)
    size = int(traffic[1]) * len(counted) // len(rows) if traffic else 0
    return Figures(len(latencies), seconds, size, errors, {one: percentile(latencies, one) for one in PERCENTILES}, asked=rate)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that is at least as large as `percent` of them (nearest rank); nan of none."""
    if not ordered:
        return math.nan
    return float(ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1])


def execute(command: Sequence[str], timeout: float) -> str:
    """The command's output. Raises LoadError if it fails or hangs."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise LoadError(f"did not end within {timeout:.0f} s: {' '.join(command)}") from None
    if run.returncode:
        raise LoadError(f"{command[0]} failed ({run.returncode}): {(run.stdout + run.stderr)[-800:].strip()}")
    return run.stdout + run.stderr
