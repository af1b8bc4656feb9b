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

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["filter", *map(str, arguments)])
    return done.exit_code, done.output


SLOW = {"assemblyscript", "rust"}
"""They fetch packages."""
BUILT = [name for name, language in project.LANGUAGES.items() if name != "rust" or not language.missing()]
"""Rust's SDK of today needs rustup's compiler, which a bare Debian does not have."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in BUILT])
def test_new_build_test_verify(language: str, tmp_path: Path) -> None:
    """As a new user would, in each language whose tools are here."""
    missing = project.LANGUAGES[language].missing()
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    if language in SLOW and not os.environ.get("CI"):
        pytest.skip("fetches packages; CI=1 runs it")
    assert run("new", "my-filter", "--lang", language, "--in", tmp_path)[0] == 0
    folder = tmp_path / "my-filter"
    status, output = run("build", folder)
    assert status == 0, output
    status, output = run("test", folder)
    assert (status, "4 cases, 0 failed" in output) == (0, True), output
    status, output = run("verify", folder)
    assert status == 0, output


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


@pytest.mark.parametrize("path", sorted((ROOT / "filters").glob("*/filter.yaml")), ids=lambda path: path.parent.name)
def test_filters_are_what_they_say(path: Path) -> None:
    """The manifests of the filters in this repository."""
    assert list(manifest.verify(path).problems) == []


def test_no_manifest(tmp_path: Path) -> None:
    """A line that says what to write."""
    assert run("verify", tmp_path)[0] == 2


def test_schemas(tmp_path: Path) -> None:
    """A default and a case's configuration that are not of the schema's form, and a schema that is none."""
    pytest.importorskip("jsonschema")

    def change(data: dict[str, object]) -> None:
        data["defaults"] = {"realm": 7}
        data["config_schema"] = {"type": "object", "properties": {"realm": {"type": "string"}}, "required": ["realm"]}

    (tmp_path / "basic-auth").mkdir()
    (tmp_path / "basic-auth" / "cases.yaml").write_text("cases: [{name: a, config: {users: {}}, expect: {}}]")
    found = "\n".join(changed(change, tmp_path))
    assert "defaults.realm: 7 is not of type 'string'" in found
    assert "the configuration of case 'a': 'realm' is a required property" in found
    assert "config_schema: " in "\n".join(changed(lambda data: data.update(config_schema={"type": "thing"}), tmp_path))
