"""What `penstock filter new` makes builds, does what its cases say, and is what its manifest says."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from proxy.cli.main import main
from proxy.kit import manifest, project
from tests import requires
from tests.guests import toolchains

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["filter", *map(str, arguments)])
    return done.exit_code, done.output


SLOW = {"assemblyscript", "rust"}
"""They fetch packages."""
ROUTES = """
listeners: [{address: "127.0.0.1:8080"}]
clusters: [{name: service, endpoints: ["127.0.0.1:9000"]}]
routes:
  - {match: {prefix: /own}, cluster: service, filters: {my-filter: {config: you}}}
  - {match: {prefix: /}, cluster: service}
filters: [{name: my-filter, wasm: my-filter.wasm, config: all}]
"""
"""Two configurations in one VM."""
BUILT = [name for name, language in project.LANGUAGES.items() if name != "rust" or not language.missing()]
"""Where cargo has no library for wasm32, Rust's source is compiled by test_rust_s_source instead."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in BUILT])
def test_new_build_test_verify(language: str, tmp_path: Path) -> None:
    """As a new user would, in each language whose tools are here."""
    missing = project.LANGUAGES[language].missing()
    if missing:
        pytest.skip(missing)
    if language in SLOW:
        requires.patience()
    assert run("new", "my-filter", "--lang", language, "--in", tmp_path)[0] == 0
    folder = tmp_path / "my-filter"
    status, output = run("build", folder)
    assert status == 0, output
    status, output = run("test", folder)
    assert (status, "4 cases, 0 failed" in output) == (0, True), output
    status, output = run("verify", folder)
    assert status == 0, output
    (folder / "routes.yaml").write_text(ROUTES)
    for path, greeting in (("/own", "you"), ("/", "all")):
        output = CliRunner().invoke(main, ["explain", str(folder / "routes.yaml"), path]).output
        assert f"response + x-hello: {greeting}\n" in output


def test_rust_s_source(tmp_path: Path) -> None:
    """By Debian's old compiler and the oldest SDK that it takes: three seconds, where the build of today takes a minute."""
    if not toolchains.rust_folder().exists():
        pytest.skip("the Rust SDK is not installed: python tests/guests/build.py sdks")
    folder = project.create("my-filter", "rust", tmp_path)
    toolchains.compile_rust(
        toolchains.rust_folder(), "filter", folder / "src" / "lib.rs", "2021",
        ["--crate-type", "cdylib", "-C", "lto=fat", "-C", "strip=symbols", "-o", folder / "my-filter.wasm"],
    )  # fmt: skip
    status, output = run("test", folder)
    assert (status, "4 cases, 0 failed" in output) == (0, True), output
    status, output = run("verify", folder)
    assert status == 0, output


def test_rust_builds_its_library_where_only_the_source_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Debian's rustc-web; and what to install is said where neither is."""
    for name, text in (("rustc", f"echo {tmp_path}"), ("cargo", "env > said; exit 7")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    folder = project.create("my-filter", "rust", tmp_path)
    with pytest.raises(project.ProjectError, match="rustup target add wasm32-unknown-unknown; or, on Debian 12, apt-get"):
        project.build(folder)
    project.rust_source().parent.mkdir(parents=True)
    project.rust_source().touch()
    with pytest.raises(project.ProjectError, match="cargo build"):
        project.build(folder)
    assert "CARGO_UNSTABLE_BUILD_STD=std,panic_abort\n" in (folder / "said").read_text()
    project.rust_library().mkdir()
    with pytest.raises(project.ProjectError, match="cargo build"):
        project.build(folder)
    assert "CARGO_UNSTABLE_BUILD_STD" not in (folder / "said").read_text()


@pytest.mark.parametrize("language", list(project.LANGUAGES))
def test_templates_leave_nothing_open(language: str, tmp_path: Path) -> None:
    """Every placeholder is filled in, and what is YAML can be read."""
    folder = project.create("some-name", language, tmp_path)
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not any(f"@{key}@" in text for key in ("NAME", "LANGUAGE", "NEEDS", "GRANTS")), path
            if path.suffix == ".yaml":
                assert yaml.safe_load(text)
    assert (folder / ".gitignore").exists()
    assert (folder / project.LANGUAGES[language].mark).exists()


def test_refusals(tmp_path: Path) -> None:
    """A wrong name, a folder that is there, a folder that is no project, a build that fails."""
    assert run("new", "My Filter", "--lang", "c", "--in", tmp_path)[0] == 2
    (tmp_path / "there").mkdir()
    assert run("new", "there", "--lang", "c", "--in", tmp_path) == (
        2, f"{tmp_path}/there: is there already; choose another name\n",
    )  # fmt: skip
    assert run("build", tmp_path / "there")[0] == 1


def test_a_module_that_is_older_than_its_source(tmp_path: Path) -> None:
    """Whoever forgets to build is told; a filter that is no project of the kit's is none of its business."""
    folder = project.create("my-filter", "c", tmp_path)
    module = folder / "my-filter.wasm"
    assert project.newer_than(module) == ""
    module.touch()
    os.utime(folder / "src" / "filter.c", (0, 0))
    assert project.newer_than(module) == ""
    os.utime(module, (1, 1))
    os.utime(folder / "src" / "filter.c", (2, 2))
    assert project.newer_than(module) == "src/filter.c"
    shutil.copy(ROOT / "filters" / "cors" / "cors.wasm", module)
    os.utime(module, (1, 1))
    assert "note: src/filter.c is newer than my-filter.wasm; build first" in run("test", folder)[1]
    assert project.newer_than(ROOT / "filters" / "cors" / "cors.wasm") == ""


def changed(change: Callable[[dict[str, object]], object], tmp_path: Path) -> list[str]:
    """The problems of basic-auth's manifest after a change to it."""
    folder = tmp_path / "basic-auth"
    folder.mkdir(exist_ok=True)
    source = ROOT / "filters" / "basic-auth"
    data = yaml.safe_load((source / "filter.yaml").read_text())
    change(data)
    (folder / "filter.yaml").write_text(yaml.safe_dump(data))
    shutil.copy(source / "basic-auth.wasm", folder)
    return list(manifest.verify(folder).problems)


def test_what_verify_finds(tmp_path: Path) -> None:
    """A grant too few and one too many, another ABI, another digest, a default that is none, keys."""

    def change(data: dict[str, object]) -> None:
        grants = data["grants"]
        assert isinstance(grants, dict)
        grants["host_functions"] = [one for one in grants["host_functions"] if one["name"] != "proxy_log"]
        grants["host_functions"].append({"name": "proxy_http_call", "reason": "why not"})
        data |= {"abi": "proxy-wasm 0.2.0", "sha256": "0" * 64, "defaults": {"nothing": 1}, "licence": "?"}
        del data["version"]

    found = "\n".join(changed(change, tmp_path))
    for said in (
        "version: is missing", "licence: is no key", "write abi: proxy-wasm 0.2.1", "sha256: the file's is",
        "proxy_log is imported and not asked for", "proxy_http_call is asked for and not imported",
        "defaults.nothing: is not among the schema's properties",
    ):  # fmt: skip
        assert said in found


MODULES = sorted(path for path in (ROOT / "filters").glob("*/filter.yaml") if not path.parent.name.startswith("component-"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.parent.name)
def test_filters_are_what_they_say(path: Path) -> None:
    """The manifests of the filters in this repository whose modules are in it; test_component.py has the others."""
    assert list(manifest.verify(path).problems) == []


def test_no_manifest(tmp_path: Path) -> None:
    """A line that says what to write."""
    assert run("verify", tmp_path)[0] == 2


def test_schemas(tmp_path: Path) -> None:
    """A default and a case's configuration that are not of the schema's form, and a schema that is none."""
    requires.module("jsonschema", "pip install penstock[kit]")

    def change(data: dict[str, object]) -> None:
        data["defaults"] = {"realm": 7}
        data["config_schema"] = {"type": "object", "properties": {"realm": {"type": "string"}}, "required": ["realm"]}

    (tmp_path / "basic-auth").mkdir()
    (tmp_path / "basic-auth" / "cases.yaml").write_text("cases: [{name: a, config: {users: {}}, expect: {}}]")
    found = "\n".join(changed(change, tmp_path))
    assert "defaults.realm: 7 is not of type 'string'" in found
    assert "the configuration of case 'a': 'realm' is a required property" in found
    assert "config_schema: " in "\n".join(changed(lambda data: data.update(config_schema={"type": "thing"}), tmp_path))
