#!/usr/bin/env python3
"""Builds the Rust filter into a component: `python filters/component-rust/build.py [OUTPUT.wasm]`.

Needs cargo with rustc 1.88 or later and either `rustup target add wasm32-unknown-unknown` or the standard library's source, as
Debian's rust-web-src has it; the crates come from crates.io. Takes a minute and a half the first time. What makes a component
of the core module is proxy/abi/component/wrap.py, as `wasm-tools component new` would.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = "wasm32-unknown-unknown"
BUILT = HERE / "token-check.wasm"
SUMS = HERE / "SHA256SUMS"
MADE_OF = ("Cargo.lock", "Cargo.toml", "src/lib.rs", "../../wit/filter.wit")


def build(output: Path) -> None:
    """Raises CalledProcessError with what cargo says."""
    sys.path.insert(0, str(HERE.parents[1]))
    from proxy.abi.component.wrap import wrap
    from proxy.kit.project import rust_environment, rustlib

    target = Path(os.environ.get("CARGO_TARGET_DIR") or HERE / "target")
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    # No place of this machine gets into the file.
    subprocess.run(["cargo", "fetch", "--locked"], cwd=HERE, check=True, capture_output=True, text=True)
    crates = dict.fromkeys((cargo / "registry" / "src").glob("*"), "crates")
    places = {HERE: ".", rustlib().parents[1]: "rust", **crates}
    flags = " ".join(f"--remap-path-prefix={place}={name}" for place, name in places.items())
    environment = {**os.environ, **rust_environment(), "RUSTFLAGS": flags}
    command = ["cargo", "build", "--locked", "--release", "--target", TARGET]
    subprocess.run(command, cwd=HERE, env=environment, check=True, capture_output=True, text=True)
    output.write_bytes(wrap((target / TARGET / "release" / "token_check.wasm").read_bytes()))


def sums() -> str:
    """What is kept, and what it was built from: `sha256sum -c` form. CI has no time to build it, but sees that it is stale."""
    names = (*MADE_OF, BUILT.name)
    return "".join(f"{hashlib.sha256((HERE / name).read_bytes()).hexdigest()}  {name}\n" for name in names)


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]) if len(sys.argv) > 1 else BUILT)
        if len(sys.argv) == 1:
            SUMS.write_text(sums())
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
