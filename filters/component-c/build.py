#!/usr/bin/env python3
"""Builds a C filter into a component: `python filters/component-c/build.py FILTER.c OUTPUT.wasm`.

Needs `pip install ziglang==0.17.0`. Takes a second. What wraps the core module is proxy/abi/component/wrap.py; jco's
`componentNew(componentEmbed(...))` and `wasm-tools component embed` and `new` do the same from wit/.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def build(source: Path, output: Path) -> None:
    """Raises CalledProcessError with what the compiler says."""
    sys.path.insert(0, str(HERE.parents[1]))
    from proxy.abi.component.wrap import wrap
    from proxy.kit.project import COMPONENT_C

    with tempfile.TemporaryDirectory() as folder:
        core = Path(folder) / "core.wasm"
        command = [sys.executable, "-m", "ziglang", "cc", *COMPONENT_C, f"-I{HERE}", "-o", core, source, HERE / "penstock.c"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        output.write_bytes(wrap(core.read_bytes()))


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]), Path(sys.argv[2]))
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
