"""What the SDK guests are built with, installed into the cache folder by registry clients: npm, apt-get, cargo and go.

Each `install_*` returns at once if its work was done before, and otherwise takes seconds; `*_folder` tell where to find it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

GUESTS = Path(__file__).resolve().parent

RUST_PACKAGES = (
    "rustc", "libstd-rust-1.63", "libstd-rust-dev-wasm32", "lld-14",
    "libllvm14", "libbsd0", "libedit2", "libicu72", "libxml2", "libz3-4",
    "cargo", "libgit2-1.5", "libhttp-parser2.9", "libmbedcrypto7", "libmbedtls14", "libmbedx509-1", "libssh2-1",
)  # fmt: skip
"""Debian 12's compiler, its libraries as far as a bare system lacks them, and its cargo to fetch the crates: 120 MB. cargo
also needs libcurl3-gnutls, which comes with git."""

CRATES = (
    ("cfg-if", "1.0.5", "2018", ()),
    ("once_cell", "1.20.3", "2021", ("alloc", "race")),
    ("zerocopy", "0.7.35", "2018", ("simd",)),
    ("ahash", "0.8.11", "2018", ()),
    ("hashbrown", "0.14.5", "2021", ("ahash", "inline-more")),
    ("log", "0.4.28", "2021", ()),
    ("proxy-wasm", "0.2.2", "2018", ()),
    ("itoa", "1.0.6", "2018", ()),
    ("ryu", "1.0.13", "2018", ()),
    ("serde", "1.0.163", "2015", ("std",)),
    ("serde_json", "1.0.96", "2018", ("std",)),
)
"""What rust/Cargo.lock has for wasm32, in the order of their dependence: name, version, edition, features. The last four are
for the Rust filters in filters/."""

RUST_CFG = ("--cfg=folded_multiply", "--cfg=limb_width_32")
"""What build scripts of these crates would have set for wasm32."""


class BuildError(Exception):
    """A toolchain is missing or failed; the message says what to do."""


class MissingError(BuildError):
    """A toolchain is missing."""


def run(arguments: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """Runs a command in `folder`, quietly unless it fails; what it printed."""
    done = subprocess.run(arguments, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
    return done.stdout


def cache_folder() -> Path:
    """Where built guests and what builds them are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-guests"


def digest(made_of: Sequence[Path | str]) -> str:
    """A short name for those files and texts."""
    found = hashlib.sha256()
    for one in made_of:
        data = one.read_bytes() if isinstance(one, Path) else one.encode()
        found.update(b"%d:" % len(data) + data)
    return found.hexdigest()[:16]


def install(folder: Path, fill: Callable[[Path], None]) -> Path:
    """The folder, made by `fill` unless it is there; half a one is never left behind."""
    if not folder.exists():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        fresh.mkdir(parents=True)
        try:
            fill(fresh)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


# ---- AssemblyScript ----


def npm_folder(sdk: str) -> Path:
    """Where the SDK and its compiler are, or would be."""
    files = [GUESTS / "assemblyscript" / sdk / name for name in ("package.json", "package-lock.json")]
    return cache_folder() / f"as-{sdk}-{digest(files)}"


def install_npm(sdk: str) -> Path:
    """`npm ci` for one SDK. 2 s, 100 MB."""
    if shutil.which("npm") is None:
        raise MissingError("npm is not installed: node >= 20")

    def fill(folder: Path) -> None:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(GUESTS / "assemblyscript" / sdk / name, folder)
        run(["npm", "ci", "--silent"], folder)

    return install(npm_folder(sdk), fill)


# ---- Go ----


def go_folder() -> Path:
    """Where the SDK's modules are, or would be."""
    return cache_folder() / f"go-{digest([GUESTS / 'go-sdk' / name for name in ('go.mod', 'go.sum')])}"


def go_environment(folder: Path) -> dict[str, str]:
    """Nothing but what is in `folder`."""
    return {"GOTOOLCHAIN": "local", "GOFLAGS": "-modcacherw", "GOMODCACHE": str(folder), "GOWORK": "off"}


def install_go(compiler: str) -> Path:
    """The modules that go.sum names. 2 s, 1 MB."""

    def fill(folder: Path) -> None:
        run(
            [compiler, "mod", "download", "github.com/proxy-wasm/proxy-wasm-go-sdk"],
            GUESTS / "go-sdk",
            **go_environment(folder),
        )

    return install(go_folder(), fill)


# ---- Rust ----


def rust_folder() -> Path:
    """Where the compiler, the SDK's crates and their libraries for wasm32 are, or would be."""
    files = [GUESTS / "rust" / name for name in ("Cargo.toml", "Cargo.lock")]
    return cache_folder() / f"rust-{digest([*files, repr(RUST_PACKAGES), repr(CRATES)])}"


def rust_environment(folder: Path) -> dict[str, str]:
    """What the unpacked compiler needs to be set."""
    usr = folder / "root" / "usr"
    return {
        "LD_LIBRARY_PATH": f"{usr}/lib/x86_64-linux-gnu:{usr}/lib/llvm-14/lib",
        "PATH": f"{usr}/bin:{usr}/lib/llvm-14/bin:{os.environ['PATH']}",
    }


def install_rust() -> Path:
    """Packages by apt-get download and dpkg (nothing is installed, no root), crates by cargo. 15 s, 500 MB."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise MissingError("the Rust guest needs apt-get and Debian 12's packages (or its folder in the cache)")
    return install(rust_folder(), fill_rust)


def fill_rust(folder: Path) -> None:
    packages = folder / "packages"
    packages.mkdir()
    run(["apt-get", "download", *RUST_PACKAGES], packages)
    for package in packages.glob("*.deb"):
        run(["dpkg", "-x", package, folder / "root"], folder)
    shutil.rmtree(packages)
    environment = rust_environment(folder)
    project = folder / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "lib.rs").touch()
    for name in ("Cargo.toml", "Cargo.lock"):
        shutil.copy(GUESTS / "rust" / name, project)
    usr = folder / "root" / "usr" / "bin"
    # Debian's cargo knows the registry's protocol but hides it behind this option.
    run(
        [usr / "cargo", "-Z", "sparse-registry", "fetch", "--locked", "--target", "wasm32-unknown-unknown"], project,
        **environment, CARGO_HOME=str(folder / "cargo"), RUSTC=str(usr / "rustc"), RUSTC_BOOTSTRAP="1",
    )  # fmt: skip
    (sources,) = (folder / "cargo" / "registry" / "src").iterdir()
    for name, version, edition, features in CRATES:
        compile_rust(
            folder, name.replace("-", "_"), sources / f"{name}-{version}" / "src" / "lib.rs", edition,
            ["--crate-type", "rlib", "--cap-lints", "allow", *RUST_CFG, "--out-dir", folder / "libraries"],
            features, CARGO_PKG_VERSION=version,
        )  # fmt: skip


def compile_rust(
    folder: Path,
    name: str,
    source: Path,
    edition: str,
    options: Sequence[str | Path],
    features: Sequence[str] = (),
    **environment: str,
) -> None:
    """rustc on one crate for wasm32, with the libraries that are there."""
    libraries = folder / "libraries"
    libraries.mkdir(exist_ok=True)
    externs = [f"--extern={one.stem.removeprefix('lib')}={one}" for one in libraries.glob("lib*.rlib")]
    run(
        [
            folder / "root" / "usr" / "bin" / "rustc", "--crate-name", name, "--edition", edition,
            "--target", "wasm32-unknown-unknown", "-C", "opt-level=s", "-C", "panic=abort", "-C", "codegen-units=1",
            "-L", libraries, f"--remap-path-prefix={source.parent}=src", *externs,
            *(f'--cfg=feature="{feature}"' for feature in features), *options, source,
        ],
        source.parent, **{**rust_environment(folder), **environment},
    )  # fmt: skip
