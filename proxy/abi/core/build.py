"""Builds the ABI core: `python -m proxy.abi.core.build` writes core.wasm, `--check` compares it bit for bit instead.

The compiler is the Zig distribution's clang from PyPI (`pip install ziglang==0.17.0`, in the extra `build`): one version and
one set of flags give equal bytes on every machine.
"""

import argparse
import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from proxy.abi.memory import PAGES

FOLDER: Final = Path(__file__).parent
CORE: Final = FOLDER / "core.wasm"
SOURCES: Final = ("maps.c", "heads.c", "abi.c", "properties.c", "wasi.c")
ZIG_VERSION: Final = "0.17.0"
PAGE: Final = 65536
STACK: Final = 65536
"""Bytes of the stack in the stream memory. All core instances share it: one of them runs at a time."""

FLAGS: Final = (
    "-target", "wasm32-freestanding", "-mcpu=generic+atomics+bulk_memory+multivalue+mutable_globals+sign_ext",
    "-O2", "-s", "-std=c2x", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-braces",
    "-nostdlib", "-ffreestanding",
    "-Wl,--no-entry", f"-Wl,-z,stack-size={STACK}", "-Wl,--import-memory", "-Wl,--shared-memory",
    f"-Wl,--initial-memory={PAGES[0] * PAGE}", f"-Wl,--max-memory={PAGES[1] * PAGE}",
)  # fmt: skip


class BuildError(Exception):
    """The compiler is missing or refused the source; the message says what to do."""


def build(output: Path, folder: Path = FOLDER) -> None:
    """Compile the core's sources in `folder` to `output`. Raises BuildError."""
    try:
        version = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version.split(".post")[0] != ZIG_VERSION:
        raise BuildError(f"ziglang {version} is installed, needed is: pip install ziglang=={ZIG_VERSION}")
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *SOURCES, "-o", str(output.absolute())]
    # In the sources' folder and with their bare names: no path of this machine gets into the module.
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    output.chmod(0o644)


def check() -> bool:
    """Is core.wasm what its sources give?"""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "core.wasm"
        build(built)
        return built.read_bytes() == CORE.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the ABI core.")
    parser.add_argument("--check", action="store_true", help="compare with core.wasm instead of writing it")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            if check():
                return 0
            print("core.wasm differs from its sources; run python -m proxy.abi.core.build", file=sys.stderr)
            return 1
        build(CORE)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{hashlib.sha256(CORE.read_bytes()).hexdigest()}  {CORE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
