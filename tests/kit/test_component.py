"""The kit with components: as with modules, through their own ABI."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from proxy.abi.component import world
from proxy.cli.main import main
from proxy.kit import project
from proxy.kit.play import Player, cases_of
from proxy.kit.typed import text_of
from tests import requires
from tests.abi.component import toolchains

HERE = Path(__file__).parent


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    return done.exit_code, done.output


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A folder with the component of component.c and its cases."""
    with requires.toolchain():
        shutil.copy(toolchains.component_of(HERE / "component.c"), tmp_path / "component.wasm")
    shutil.copy(HERE / "component_cases.yaml", tmp_path / "cases.yaml")
    return tmp_path


@pytest.fixture
def cases_in_go(tmp_path: Path) -> Path:
    """The same cases with the same filter in Go."""
    folder = tmp_path / "kit"
    shutil.copytree(HERE / "component_go", folder)
    shutil.copy(toolchains.GO / "go.mod", folder)
    shutil.copytree(toolchains.GO / "penstock", folder / "penstock")
    with requires.toolchain():
        shutil.copy(toolchains.go_filter(folder), tmp_path / "component.wasm")
    data = yaml.safe_load((HERE / "component_cases.yaml").read_text())
    # Its runtime takes random numbers of its own before, and more fuel.
    data["cases"] = [one for one in data["cases"] if one["name"] != "randomness repeats"]
    large = {"response": {"body": {"text": "x", "times": 65536}}, "expect": {"response": {"status": 200}}}
    data["cases"].append({"name": "its collector runs while memory is allocated for the host", "exchanges": [large] * 100})
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(data))
    return tmp_path


def test_cases_in_go(cases_in_go: Path) -> None:
    """Every function of filters/component-go/penstock, and WASI's that its runtime calls (abi/component/stubs.py)."""
    assert [(one.name, one.problems) for one in Player(cases_of(cases_in_go)).run() if one.problems] == []


def test_cases(cases: Path) -> None:
    """Clock, seed, shared data, metrics, calls and their answers, faults, a refused config."""
    assert [(one.name, one.problems) for one in Player(cases_of(cases)).run() if one.problems] == []


def test_a_wrong_expectation_is_a_failure(cases: Path) -> None:
    file = cases / "cases.yaml"
    file.write_text(
        yaml.safe_dump({
            "cases": [
                {"name": "wrong", "expect": {"upstream": {"headers": {"x-time": "1"}}, "memory": "1MiB", "metrics": {"m": 1}}}
            ],
            "refused": [{"name": "taken", "text": "yes", "reason": "no"}, {"name": "other", "text": "no", "reason": "blue"}],
        })
    )  # fmt: skip
    status, text = run("filter", "test", file)
    assert status == 1
    for said in (
        "request x-time", "memory: how much a component has can not be told", "no such metric", "the filter took it",
        "+ filter filter did not start: configure: the config says no",
    ):  # fmt: skip
        assert said in text, text


def test_trace(cases: Path) -> None:
    """Callbacks and what they import, with arguments and results; a trap."""
    _, text = run("filter", "test", cases, "--trace")
    at = -1
    for line in (
        '-> {name: "kit", version: "1.0", wants: request-headers|response-headers|response-body}',
        'configure(config="")',
        'on-request-headers(id=1, headers={":authority": "test", ":path": "/", ',
        "  clock.now-ns() -> 1767225601000000000",
        'kv.get("n") -> ok none',
        'kv.set("n", text("I"), none) -> ok',
        'metrics.gauge-set("level", -3)\n',
        'http-client.send({upstream: "auth", headers: {":method": "GET", ":path": "/check", ":authority": "auth"}, body: none',
        "-> {edits: [], action: pause}",
        'on-http-response(id=1, call=1, response=ok {headers: {":status": "204"',
        '-> {edits: [add("x-call", "204")], replace: none, action: continue}',
        "-> did not return: trap",
        'logging.log(info, "nothing to do")',
    ):
        assert text.find(line, at + 1) > at, (line, text)
        at = text.find(line, at + 1)


def test_values_of_every_form() -> None:
    error = world.IMPORTS[world.interface("kv")]["get"].result
    assert text_of(error, (False, (world.CONFLICT, None))) == "error conflict"
    assert text_of(error, (True, ((world.BINARY, b"\xff"), 7))) == 'ok {value: binary("\\xff"), version: 7}'
    assert text_of(world.HEADERS, [(b"a", b"b")] * 100).endswith('"a": "b", ... (100 in all)}')
    assert text_of(world.INFO, (b"n", b"v", 0)) == '{name: "n", version: "v", wants: none}'


def test_bench(cases: Path) -> None:
    status, text = run("filter", "bench", cases, "--rounds", "5", "--json")
    assert status == 0, text
    found = json.loads(text)
    by_name = {one["callback"]: one for one in found["callbacks"]}
    assert set(by_name) == {"on-request-headers", "on-http-response", "on-response-headers", "on-response-body"}
    assert by_name["on-http-response"]["calls"] == 5 * 2
    assert found["suggested_fuel"] >= 2 * by_name["on-request-headers"]["fuel_p999"] > 0
    assert "MiB" not in run("filter", "bench", cases, "--rounds", "1")[1], "a component's memory can not be told"


def test_explain(cases: Path) -> None:
    """Edits are told with the callback that gave them."""
    filters = [{"name": "kit", "wasm": str(cases / "component.wasm"), "capabilities": {"allowed_hosts": ["cluster:auth"]}}]
    config = cases / "gateway.yaml"
    config.write_text(
        yaml.safe_dump({
            "listeners": [{"address": "127.0.0.1:8080"}],
            "clusters": [{"name": name, "endpoints": ["127.0.0.1:9"]} for name in ("service", "auth")],
            "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
            "filters": filters,
        })
    )  # fmt: skip
    status, text = run("explain", config, "/x", "-H", "x-do: call", "--call", "auth=200:yes")
    assert status == 0, text
    at = -1
    for part in (
        "kit  on-request-headers  fuel ", "http-client.send(", "-> {edits: [], action: pause}", "kit  on-http-response  fuel ",
        "request + x-call: 200", "kit  on-response-headers", "response - content-length", "kit  on-response-body",
        'replace: text("<hello\\n>")', "calls\n    GET /check to auth", "outcome: answered by the service; held ",
    ):  # fmt: skip
        assert text.find(part, at + 1) > at, (part, text)
        at = text.find(part, at + 1)


# ---- New projects ----


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", ["c", pytest.param("javascript", marks=pytest.mark.slow)])
def test_new_build_test(language: str, tmp_path: Path) -> None:
    """As a new user would; npm's packages are those of filters/component-js."""
    with requires.toolchain():
        if language == "javascript":
            (tmp_path / "node_modules").symlink_to(toolchains.needed_js() / "node_modules")
        elif project.COMPONENT_LANGUAGES[language].missing():
            pytest.skip(project.COMPONENT_LANGUAGES[language].missing())
    assert run("filter", "new", "my-filter", "--kind", "component", "--lang", language, "--in", tmp_path)[0] == 0
    folder = tmp_path / "my-filter"
    if language == "javascript":
        shutil.move(tmp_path / "node_modules", folder)
    status, text = run("filter", "build", folder)
    assert status == 0, text
    status, text = run("filter", "test", folder)
    assert (status, "4 cases, 0 failed" in text) == (0, True), text
    assert "world         penstock:filter/filter@0.1.0" in run("filter", "inspect", folder / "my-filter.wasm")[1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", ["go", pytest.param("python", marks=pytest.mark.slow)])
def test_new_and_build(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their cases would take the compiling of two runtimes, which other tests do once already."""
    with requires.toolchain():
        if language == "python":
            tools = toolchains.needed_python()
            monkeypatch.setenv("PYTHONPATH", str(tools))
            monkeypatch.setattr(project, "command", lambda name: str(tools / "bin" / name))
    if missing := project.COMPONENT_LANGUAGES[language].missing():
        pytest.skip(missing)
    folder = project.create("my-filter", language, tmp_path, "component")
    status, text = run("filter", "build", folder)
    assert status == 0, text
    assert "world         penstock:filter/filter@0.1.0" in run("filter", "inspect", folder / "my-filter.wasm")[1]


@pytest.mark.parametrize("language", list(project.COMPONENT_LANGUAGES))
def test_templates_leave_nothing_open(language: str, tmp_path: Path) -> None:
    folder = project.create("some-name", language, tmp_path, "component")
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        assert not any(f"@{key}@" in path.read_text() for key in ("NAME", "LANGUAGE", "NEEDS", "GRANTS")), path
    names = {path.relative_to(folder).as_posix() for path in files}
    mark = project.COMPONENT_LANGUAGES[language].mark
    assert {"README.md", "cases.yaml", "gateway.yaml", ".gitignore", "wit/filter.wit", mark} <= names
    assert project.language_of(folder) is project.COMPONENT_LANGUAGES[language]


def test_what_there_is_not(cases: Path, tmp_path: Path) -> None:
    """A language without a template for this kind; a component in Envoy."""
    for kind, language in (("component", "zig"), ("proxy-wasm", "python")):
        status, text = run("filter", "new", "a", "--kind", kind, "--lang", language, "--in", tmp_path)
        assert (status, f"a {kind} filter in {language} has no template; write --lang with one of " in text) == (2, True)
    status, text = run("filter", "test", cases, "--envoy", "--case", "a trap")
    assert (status, "is a component, which Envoy does not run" in text) == (2, True), text
    assert os.listdir(tmp_path)  # what was there is untouched
