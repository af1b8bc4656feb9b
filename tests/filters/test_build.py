"""The committed modules are what their sources build to, bit for bit."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys

import pytest

from tests.filters import cases

BUILD = cases.FILTERS / "build.py"
TOOLCHAINS = {
    name: compiler.__name__.partition("_")[0] for name, (compiler, _) in runpy.run_path(str(BUILD))["RECIPES"].items()
}


def missing(toolchain: str) -> str:
    """What has to be installed before that toolchain builds; empty if nothing."""
    if toolchain == "zig":
        found = subprocess.run([sys.executable, "-c", "import ziglang"], capture_output=True, check=False)
        return "" if found.returncode == 0 else "pip install ziglang==0.17.0"
    if shutil.which("node") is None:
        return "node >= 20"
    if not (cases.FILTERS / "node_modules").exists() and not os.environ.get("CI"):
        return "npm ci in filters/"
    return ""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", cases.filter_names())
def test_rebuild_is_equal(name: str) -> None:
    """A fresh build equals the module in the repository and in SHA256SUMS."""
    needed = missing(TOOLCHAINS[name])
    if needed and os.environ.get("CI"):
        pytest.fail(f"needs {needed}")
    if needed:
        pytest.skip(f"needs {needed}")
    command = [sys.executable, str(BUILD), "--check", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
