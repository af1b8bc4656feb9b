"""A short real run: wrk against the compiled upstream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.load import Load, LoadError, measure
from benchmarks.machine import cpu_seconds, tree
from benchmarks.servers import Upstream, build_upstream, fetch, free_port
from tests import requires


def test_measure_counts_requests_and_cpu(tmp_path: Path) -> None:
    requires.load_tools()
    upstream = Upstream.start(build_upstream(tmp_path), [])
    try:
        assert fetch(upstream.port)[::2] == (200, b"Hello, world\n")
        found = measure(upstream.port, upstream.pid, upstream.pid, Load(1, 8))
    finally:
        upstream.stop()
    assert found.rps > 1000
    assert 0 < found.cpu_us < 1e6 / found.rps
    assert 0 < found.p50_us <= found.p99_us
    assert found.server_busy == found.upstream_busy > 0


def test_measure_refuses_a_run_without_a_server() -> None:
    requires.load_tools()
    with pytest.raises(LoadError):
        measure(free_port(), os.getpid(), os.getpid(), Load(1, 2))


def test_cpu_seconds_counts_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ntime.sleep(30)"
    shell = subprocess.Popen(["sh", "-c", '"$0" -c "$1" & wait', sys.executable, burn], stdout=subprocess.PIPE)
    try:
        assert shell.stdout is not None
        shell.stdout.readline()
        assert len(tree(shell.pid)) == 2
        assert 0.25 <= cpu_seconds(shell.pid) < 3
    finally:
        for pid in reversed(tree(shell.pid)):
            os.kill(pid, 9)
        shell.wait()
    assert cpu_seconds(shell.pid) == 0
