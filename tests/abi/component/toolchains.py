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

from tests.guests.build import cached
from tests.guests.toolchains import BuildError, MissingError, cache_folder, digest, install, run

ROOT = Path(__file__).resolve().parents[3]
WIT = ROOT / "wit"
JS = ROOT / "filters" / "component-js"
PYTHON = ROOT / "filters" / "component-python"
INSTALL = "python tests/abi/component/toolchains.py"


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


def js_filter() -> Path:
    """The JavaScript guest. Takes 3 s."""
    folder = js_folder()
    if not folder.exists():
        raise MissingError(f"jco is not installed: {INSTALL}")
    source = JS / "filter.js"

    def build(output: Path) -> None:
        options = ["--wit", WIT, "-n", "filter", "--backend", "quickjs", "--backend-qjs-stub-wasi"]
        run([folder / "node_modules" / ".bin" / "jco", "componentize", source, *options, "-o", output], folder)

    return cached("component-js", [source, WIT / "filter.wit", folder.name], build)


def python_filter() -> Path:
    """The Python guest. Takes 10 to 40 s."""
    folder = python_folder()
    if not folder.exists():
        raise MissingError(f"componentize-py is not installed: {INSTALL}")
    source = PYTHON / "app.py"

    def build(output: Path) -> None:
        command = [folder / "bin" / "componentize-py", "-d", WIT, "-w", "filter", "componentize", "app", "-p", PYTHON, "-s"]
        run([*command, "-o", output], folder, PYTHONPATH=str(folder))

    return cached("component-python", [source, WIT / "filter.wit", folder.name], build)


def main() -> int:
    try:
        install_js()
        install_python()
        for build in (js_filter, python_filter):
            print(build())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
