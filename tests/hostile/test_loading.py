"""Every hostile module that is refused before it serves: with a reason, at a bounded cost, by the limit that admits more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.abi.proxy_wasm import load
from proxy.config.filter import Filter
from proxy.config.load import load as load_config
from proxy.server.check import check
from tests.hostile.arena import entry, wasm
from tests.hostile.case import Case
from tests.hostile.corpus import LOADING
from tests.integration.gateway import ROOT

READ = [case for case in LOADING if case.family != "start"]
STARTED = [case for case in LOADING if case.family == "start"]
COMMANDED = [case for case in LOADING if case.name in ("functions-200k", "block-nest", "mistyped-import", "initialize-loop")]
"""Those that `penstock check` is shown as well."""
LONGEST_READING = 5.0
"""Seconds of CPU for what the supervisor does itself; measured: 0.2 at most."""
LONGEST_PROBLEM = 4000
"""Characters."""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[str, float]]:
    """What is wrong with each module of READ, and the seconds of CPU that this process spent on it.

    All that pass the reading are compiled together, as `penstock run` does.
    """
    folder = tmp_path_factory.mktemp("hostile")
    filters = [Filter.model_validate(entry(folder, case.name, wasm(case), dict(case.settings))) for case in READ]
    problems: dict[int, list[str]] = {i: [] for i in range(len(READ))}
    spent = {}
    for i, filter_ in enumerate(filters):
        begun = time.process_time()
        found: list[load.LoadProblem] = []
        load.outline(i, filter_, found)
        spent[i] = time.process_time() - begun
        problems[i] += [f"{one.problem}; {one.mend}" for one in found]
    left = [i for i in problems if not problems[i]]
    with pytest.raises(load.LoadError) as caught:
        load.prepare([filters[i] for i in left])
    for one in caught.value.problems:
        problems[left[one.filter]].append(f"{one.problem}; {one.mend}")
    return {case.name: ("; ".join(problems[i]), spent[i]) for i, case in enumerate(READ)}


@pytest.mark.parametrize("case", READ, ids=lambda case: case.name)
def test_a_module_is_refused(refusals: Mapping[str, tuple[str, float]], case: Case) -> None:
    problem, seconds = refusals[case.name]
    assert re.search(case.refused, problem), problem
    assert len(problem) < LONGEST_PROBLEM
    assert problem.isprintable()
    assert seconds < LONGEST_READING


def config_file(folder: Path, case: Case) -> Path:
    """A config with this filter."""
    config = {
        "listeners": [{"address": "127.0.0.1:0"}],
        "clusters": [{"name": "service", "endpoints": ["127.0.0.1:9"]}],
        "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
        "filters": [entry(folder, case.name, wasm(case), dict(case.settings))],
    }
    file = folder / f"{case.name}.yaml"
    file.write_text(json.dumps(config))
    return file


@pytest.mark.parametrize("case", STARTED, ids=lambda case: case.name)
def test_a_filter_that_does_not_start(tmp_path: Path, case: Case) -> None:
    (problem,) = check(load_config(config_file(tmp_path, case)))
    assert re.search(case.refused, problem), problem
    assert f"{case.name}.yaml:1: filters[0]: filter {case.name} did not start: " in problem


@pytest.mark.parametrize("case", COMMANDED, ids=lambda case: case.name)
def test_the_command_refuses(tmp_path: Path, case: Case) -> None:
    command = [sys.executable, "-m", "proxy", "check", str(config_file(tmp_path, case))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert re.search(case.refused, done.stderr), done.stderr
    assert f"{case.name}.yaml:1: filters[0]" in done.stderr
    assert "Traceback" not in done.stderr
