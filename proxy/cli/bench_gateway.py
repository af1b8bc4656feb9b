"""The gateway that `penstock bench` loads: one that it starts, or one that runs already; and what its admin port tells."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from proxy.kit.ending import end

TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
START_SECONDS: Final = 120.0
"""Until a gateway must serve: it may have to compile its filters first."""

STOP_SECONDS: Final = 15.0

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Value by metric name and labels."""


class GatewayError(Exception):
    """The gateway can't be started or asked; the message says why."""


@contextlib.contextmanager
def started(config: Path, demo: bool) -> Iterator[tuple[str, str | None]]:
    """`penstock run CONFIG` until the block ends: URL of the first listener, URL of the admin port (None if off)."""
    with tempfile.TemporaryFile("w+", prefix="penstock-bench-") as log:
        command = [sys.executable, "-m", "proxy", "run", str(config), *(["--demo"] if demo else [])]
        # What is on our path now, also where the current folder is how `proxy` was found.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, ["", *sys.path])))}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            yield wait(process, log.fileno())
        finally:
            end(process, STOP_SECONDS)


def wait(process: "subprocess.Popen[bytes]", log: int) -> tuple[str, str | None]:
    """The gateway's line that it serves. Raises GatewayError with what it said instead."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        text = os.pread(log, 1 << 20, 0).decode(errors="replace")
        if found := re.search(r"^serving on ([^,;\s]+)[^;\n]*(?:; admin on (\S+))?$", text, re.MULTILINE):
            return found[1], found[2]
        if process.poll() is not None or time.monotonic() > deadline:
            raise GatewayError(f"the gateway did not start:\n{text[-2000:]}")
        time.sleep(0.05)


def get(url: str) -> bytes:
    """The body of an admin page. Raises GatewayError."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise GatewayError(f"{url} does not answer: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise GatewayError(f"{url} answers {response.status}: {body[:200].decode(errors='replace')}")
    return body


def metrics(admin: str) -> Samples:
    """All that /metrics shows. Raises GatewayError."""
    found: Samples = {}
    for family in text_string_to_metric_families(get(f"{admin}/metrics").decode()):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def worker_cpu(admin: str) -> float | None:
    """User and system seconds of the workers so far; None if they are not on this machine. Raises GatewayError."""
    pids = [entry["pid"] for entry in json.loads(get(f"{admin}/ready"))["workers"]]
    used = [process_cpu(pid) for pid in pids if pid]
    return None if None in used else sum(one for one in used if one is not None)


def process_cpu(pid: int) -> float | None:
    """User and system seconds of one process; granularity 10 ms."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * TICK
