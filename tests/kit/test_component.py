"""The kit with components: as with modules, through their own ABI."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime
import yaml
from click.testing import CliRunner

from proxy.abi.component import world
from proxy.abi.component.denied import TRAPS, refusal
from proxy.abi.component.worlds import function_name
from proxy.cli.main import main
from proxy.kit import project
from proxy.kit.cases import Sent
from proxy.kit.play import Player, cases_of
from proxy.kit.stream import Stream
from proxy.kit.typed import text_of
from proxy.wasm.linear_memory import Mapped, come, memories
from tests import requires
from tests.abi.component import toolchains, wat
from tests.abi.component.test_guests import BUILDS

HERE = Path(__file__).parent
FILTERS = HERE.parents[1] / "filters"


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
                {"name": "wrong", "expect": {"upstream": {"headers": {"x-time": "1"}}, "memory": "64KiB", "metrics": {"m": 1}}}
            ],
            "refused": [{"name": "taken", "text": "yes", "reason": "no"}, {"name": "other", "text": "no", "reason": "blue"}],
        })
    )  # fmt: skip
    status, text = run("filter", "test", file)
    assert status == 1
    for said in (
        "request x-time", "at most 65,536 bytes\n       + 131,072\n", "no such metric", "the filter took it",
        "+ filter filter did not start: configure: the config says no",
    ):  # fmt: skip
        assert said in text, text


@pytest.mark.parametrize("isolation", ["shared", "request"])
def test_memory(isolation: str, tmp_path: Path) -> None:
    """What the file declares and what the filter takes while it runs, each page."""
    grown = "(drop (memory.grow (i32.const 7))) (i32.const 96)"
    (tmp_path / "one.wasm").write_bytes(wat.component({"on-request-headers": grown}, pages="5"))
    case = {"name": "it grows", "filter": {"isolation": isolation}, "exchanges": [{"expect": {"memory": 12 << 16}}]}
    for more in (0, 1):
        (tmp_path / "cases.yaml").write_text(yaml.safe_dump({"cases": [case]}))
        (result,) = Player(cases_of(tmp_path)).run()
        assert [one.memory for one in result.played] == [12 << 16] + [(12 if isolation == "request" else 19) << 16] * more
        assert bool(result.problems) is (more > 0 and isolation == "shared")
        case["exchanges"] = [{"expect": {}}, {"expect": {"memory": 12 << 16}}]


def test_the_gauge_of_a_component_s_memory(tmp_path: Path) -> None:
    """penstock_filter_memory_bytes, of the instances that serve all streams."""
    (tmp_path / "one.wasm").write_bytes(wat.component({"on-log": "(drop (memory.grow (i32.const 3)))"}, wants=64, pages="5"))
    (tmp_path / "cases.yaml").write_text("cases: [{name: a, expect: {}}]")
    player = Player(cases_of(tmp_path))
    with player.runtime({}, b"", 0.0, 1) as runtime:
        (plugin,) = runtime.plugins
        seen = []
        for _ in range(2):
            plugin.refresh()
            seen.append(plugin.instruments.memory.value)
            Stream(runtime, Sent((), b"", None), Sent((), b"", None)).run()
        assert seen == [5 << 16, 8 << 16]
    with player.runtime({"isolation": "request"}, b"", 0.0, 1) as runtime:
        assert runtime.plugins[0].memory_bytes() == 0


def test_mapped_places() -> None:
    """Memories that share a border with what was there, that are in pieces, or empty, and what only looks like one."""
    gib = 1 << 30
    before = [Mapped(0, 10, "rw-p"), Mapped(20, 20 + 4 * gib, "---p")]
    top = 20 + 4 * gib
    after = [
        Mapped(0, 12, "rw-p"), Mapped(12, 12 + 8, "r--p"), Mapped(20, top + 40, "---p"), Mapped(top + 40, top + 50, "rw-p"),
        Mapped(top + 50, top + 53, "rw-p"), Mapped(top + 53, top + 5 * gib, "---p"),
        Mapped(top + 5 * gib, top + 6 * gib, "rw-p"), Mapped(top + 6 * gib, top + 6 * gib + 4096, "---p"),
        Mapped(top + 7 * gib, top + 9 * gib, "---p"),
    ]  # fmt: skip
    new = come(before, after)
    assert new[:3] == [(10, 12), (12, 20), (top, top + 40)]
    assert list(memories(new, after)) == [13]
    assert list(memories(come(after, after), after)) == []


def test_denied_functions(cases: Path) -> None:
    """By the names of the trace. An error, nothing, or a trap where only a value could come back."""
    file = cases / "cases.yaml"

    def case(do: str, allowed: list[str], expect: dict[str, object]) -> dict[str, object]:
        given = {
            "filter": {"capabilities": {"host_functions": allowed}},
            "request": {"headers": {"x-do": do}},
            "expect": expect,
        }
        return {"name": f"{do} {allowed}", **given}

    found = [
        case("call", ["logging.*"], {"upstream": {"headers": {"x-call": "refused"}}}),
        case("log", ["kv.*"], {"no_log": ["nothing to do"]}),
        case("log", ["logging.log"], {"log": ["nothing to do"]}),
        case("time", ["random.*"], {"failure": "trap", "upstream": "none", "response": {"status": 503}}),
        case("time", ["clock.now-*", "clock.monotonic-ns"], {"reply": "none"}),
        case("random", ["proxy_*"], {"failure": "trap", "upstream": "none", "response": {"status": 503}}),
    ]
    file.write_text(yaml.safe_dump({"cases": found}))
    assert [(one.name, one.problems) for one in Player(cases_of(cases)).run() if one.problems] == []


def test_every_function_can_be_denied() -> None:
    for interface, functions in world.IMPORTS.items():
        for name, function in functions.items():
            answer = refusal(function.result)
            match function_name(interface, name).split("."):
                case ["kv", _]:
                    assert answer == (False, (world.REFUSED, b"capabilities.host_functions does not list it"))
                case ["http-client", _]:
                    assert answer == (False, b"capabilities.host_functions does not list it")
                case ["clock" | "random", _]:
                    assert answer is TRAPS
                case _:
                    assert answer is None


def test_learn(cases: Path) -> None:
    status, text = run("filter", "test", cases, "--case", "shared data", "--learn")
    assert status == 0, text
    assert "# imported and never called: clock.*, http-client.*, logging.*, random.*\n" in text
    learned = yaml.safe_load(text.partition("\n/")[0])["capabilities"]
    functions = ["kv.get", "kv.set", "metrics.counter-add", "metrics.gauge-set", "metrics.histogram-record"]
    assert learned == {"allowed_hosts": [], "host_functions": functions}


# ---- Manifests ----


def verified(component: Path, language: str, change: Callable[[dict[str, Any]], object] = lambda data: None) -> tuple[int, str]:
    """What `verify` says of a component and the manifest of filters/component-LANGUAGE, changed."""
    data = yaml.safe_load((FILTERS / f"component-{language}" / "filter.yaml").read_text())
    change(data)
    folder = component.parent
    (folder / "filter.yaml").write_text(yaml.safe_dump(data))
    shutil.copy(component, folder / "token-check.wasm")
    return run("filter", "verify", folder)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("language", BUILDS)
def test_manifests(language: str, tmp_path: Path) -> None:
    """Those of the components in this repository, each against what its toolchain makes."""
    with requires.toolchain():
        component = Path(shutil.copy(BUILDS[language](), tmp_path / "built.wasm"))
    status, text = verified(component, {"javascript": "js"}.get(language, language))
    assert (status, "ok   ABI penstock:filter@0.1.0" in text) == (0, True), text


def test_the_kept_component_is_of_its_sources() -> None:
    """CI does not build it (filters/component-rust/README.md)."""
    folder = FILTERS / "component-rust"
    listed = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in listed} == {
        "Cargo.lock",
        "Cargo.toml",
        "src/lib.rs",
        "../../wit/filter.wit",
        "token-check.wasm",
    }
    stale = [name for found, name in listed if hashlib.sha256((folder / name).read_bytes()).hexdigest() != found]
    assert stale == [], "python filters/component-rust/build.py"
    status, text = run("filter", "verify", folder)
    assert (status, "(SHA256SUMS)" in text) == (0, True), text
    status, text = run("filter", "test", folder / "token-check.wasm")
    assert (status, ": 6 cases, 0 failed" in text, "note" in text) == (0, True, False), text


def test_what_verify_finds(tmp_path: Path) -> None:
    component = Path(shutil.copy(toolchains.RUST_FILTER, tmp_path / "built.wasm"))

    def change(data: dict[str, Any]) -> None:
        data["grants"]["host_functions"] = [
            {"name": name, "reason": "why not"} for name in ("logging.*", "kv.get", "proxy_log")
        ]
        data |= {"abi": "proxy-wasm 0.2.1", "linked": ["random.*"], "sha256": "0" * 64}

    status, text = verified(component, "rust", change)
    assert status == 1
    for said in (
        "FAIL abi: is 'proxy-wasm 0.2.1', the module's is 'penstock:filter@0.1.0'; write abi: penstock:filter@0.1.0",
        "FAIL grants.host_functions: penstock:filter/config@0.1.0 is imported, and nothing of it is asked for; "
        "add { name: config.get, reason: ... }",
        "FAIL grants.host_functions: kv.get is asked for, and is of no interface that is imported; remove it",
        "FAIL grants.host_functions: proxy_log is asked for", "FAIL linked: random.* is of no interface", "FAIL sha256: ",
    ):  # fmt: skip
        assert said in text, text


def test_a_manifest_of_what_would_not_load(tmp_path: Path) -> None:
    """A component for a version that is not served, and one that is no filter: nothing of its manifest could be right."""
    (tmp_path / "built.wasm").write_bytes(wasmtime.wat2wasm('(component (import "wasi:cli/stdout@0.2.0" (instance)))'))
    status, text = verified(tmp_path / "built.wasm", "c")
    assert (status, [line for line in text.splitlines() if line.startswith("FAIL")]) == (
        1, ["FAIL component: the component exports no filter; export penstock:filter/http-filter@0.1.0 (docs/components.md)"],
    )  # fmt: skip
    newer = {name.replace("0.1.0", "0.9.0"): functions for name, functions in world.EXPORTS.items()}
    (tmp_path / "built.wasm").write_bytes(wat.component(exports=newer))
    status, text = verified(tmp_path / "built.wasm", "c", lambda data: data.update(grants={"host_functions": []}))
    assert (status, "FAIL component: the component is built for version 0.9.0" in text) == (1, True), text


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
    assert found["memory"] == 2 << 16


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
    status, text = run("filter", "verify", folder)
    assert status == 0, text


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
    status, text = run("filter", "verify", folder)
    assert status == 0, text


@pytest.mark.parametrize("language", list(project.COMPONENT_LANGUAGES))
def test_templates_leave_nothing_open(language: str, tmp_path: Path) -> None:
    folder = project.create("some-name", language, tmp_path, "component")
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        assert not any(f"@{key}@" in path.read_text() for key in ("NAME", "LANGUAGE", "NEEDS", "GRANTS", "LINKED")), path
    names = {path.relative_to(folder).as_posix() for path in files}
    mark = project.COMPONENT_LANGUAGES[language].mark
    assert {"README.md", "cases.yaml", "filter.yaml", "gateway.yaml", ".gitignore", "wit/filter.wit", mark} <= names
    assert project.language_of(folder) is project.COMPONENT_LANGUAGES[language]


def test_what_there_is_not(cases: Path, tmp_path: Path) -> None:
    """A language without a template for this kind; a component in Envoy."""
    for kind, language in (("component", "zig"), ("proxy-wasm", "python")):
        status, text = run("filter", "new", "a", "--kind", kind, "--lang", language, "--in", tmp_path)
        assert (status, f"a {kind} filter in {language} has no template; write --lang with one of " in text) == (2, True)
    status, text = run("filter", "test", cases, "--envoy", "--case", "a trap")
    assert (status, "is a component, which Envoy does not run" in text) == (2, True), text
    assert os.listdir(tmp_path)  # what was there is untouched
