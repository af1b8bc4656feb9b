"""The overload run in small: it tells what it is made for, and what is shed is counted."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from benchmarks.overload import main


@pytest.mark.slow
def test_a_short_run() -> None:
    run = CliRunner().invoke(main, ["--seconds", "1", "--times", "4"], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    found = {name: int(rate) for name, rate in re.findall(r"^(.*): (\d+) good answers/s", run.output, re.MULTILINE)}
    assert list(found) == ["peak", "4 x 32 clients", "after it"]
    assert all(found.values())
    shed = int(re.findall(r"others \{503: (\d+)\}", run.output)[0])
    assert int(re.findall(r'reason="overflow"}\': (\d+)', run.output)[0]) >= shed > 0
