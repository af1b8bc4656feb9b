#!/usr/bin/env python3
"""Builds the benchmarks' filters: `pip install ziglang==0.17.0`, then

python benchmarks/filters/build.py            all, or those named
python benchmarks/filters/build.py --check    build elsewhere and compare bit for bit with what is here
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NAMES = tuple(sorted(path.stem for path in HERE.glob("*.zig")))
# Fast, not safe: what is measured is the host. The sources are read with the root as the current folder, so that no path
# of this machine can get into a module.
OPTIONS = "-target wasm32-freestanding -OReleaseFast -fno-entry -rdynamic -fstrip -fsingle-threaded --stack 65536"


class BuildError(Exception):
    """Zig is missing or did not compile; the message is what it said."""


def build(name: str, output: Path) -> None:
    """Compiles NAME.zig. Raises BuildError."""
    modules = ["--dep", "proxy_wasm", f"-Mroot=benchmarks/filters/{name}.zig", "-Mproxy_wasm=filters/zig/proxy_wasm.zig"]
    command = [sys.executable, "-m", "ziglang", "build-exe", *OPTIONS.split(), f"-femit-bin={output}", *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{name}: {done.stderr or done.stdout}")
    output.chmod(0o644)


def differs(name: str) -> bool:
    """Whether a fresh build differs from NAME.wasm. Raises BuildError."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / f"{name}.wasm"
        build(name, fresh)
        kept = HERE / f"{name}.wasm"
        return not kept.exists() or fresh.read_bytes() != kept.read_bytes()


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--check", is_flag=True, help="Compare instead of keeping.")
def main(names: Sequence[str], check: bool) -> None:
    for name in names or NAMES:
        try:
            if not check:
                build(name, HERE / f"{name}.wasm")
            elif differs(name):
                raise click.ClickException(f"{name}: a fresh build differs from {name}.wasm")
        except BuildError as error:
            raise click.ClickException(str(error)) from None
        click.echo(f"{name}.wasm: {(HERE / f'{name}.wasm').stat().st_size} bytes")


if __name__ == "__main__":
    main()
