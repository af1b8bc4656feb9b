"""The `penstock` command: what it prints and how it exits."""

import json
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli.main import main
from proxy.config.model import Config

ROOT = Path(__file__).parents[2]
GOOD = """\
listeners: [{address: "127.0.0.1:8080"}]
clusters: [{name: service, endpoints: ["127.0.0.1:9000"]}]
routes:
  - {match: {path: /x}, cluster: service}
  - {match: {prefix: /}, cluster: service}
"""
BAD = GOOD + "workers: many\ncolour: red\n"
BAD_LINES = [
    'c.yaml:6: workers: "many" is not a number of workers; write a number from 1 to 1024, or auto',
    'c.yaml:7: colour: unknown key "colour"; remove it; the keys here are',
]
# The smallest module: one memory that holds a page, exported.
WASM = b"\0asm\x01\0\0\0\x05\x03\x01\0\x01\x07\x0a\x01\x06memory\x02\0"
COMPONENT = b"\0asm\x0d\0\x01\0"


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(GOOD)
    Path("c.yaml").write_text(BAD)
    Path("none.yaml").write_text(GOOD.split("clusters")[0] + "clusters: []\nroutes: []\n")
    Path("filter.wasm").write_bytes(WASM)
    Path("component.wasm").write_bytes(COMPONENT)
    Path("text.wasm").write_text("(module)")
    return tmp_path


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **contents: object) -> None:
    """Put a module of ours in the place of one that the command imports when it runs."""
    module = types.ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    package, _, attribute = name.rpartition(".")
    monkeypatch.setattr(sys.modules.get(package) or __import__(package, fromlist=["x"]), attribute, module, raising=False)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="penstock")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["check"],
        ["filter"],
        ["filter", "inspect"],
        ["bench"],
        ["demo"],
        ["explain"],
        ["reload"],
        ["diff"],
        *(["filter", name] for name in ("new", "build", "test", "verify", "bench", "keygen", "sign", "list", "accept")),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_every_help_says_what_it_does_with_an_example(arguments: list[str]) -> None:
    result = invoke(*arguments, "--help")
    assert result.exit_code == 0
    assert f"  penstock {' '.join(arguments)}".rstrip() in result.output
    assert "xample" in result.output or "Start with" in result.output
    assert not any(line.endswith("...") for line in result.output.splitlines()[3:])


def test_version() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output.startswith("penstock ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["rum"],
        ["run"],
        ["run", "a.yaml", "b.yaml"],
        ["run", "good.yaml", "--demon"],
        ["check"],
        ["filter"],
        ["filter", "inspect"],
        ["filter", "inspekt", "filter.wasm"],
        ["demo", "x"],
        ["demo", "--address", "nowhere"],
        ["demo", "--address", "127.0.0.1:0"],
        ["demo", "--address"],
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_wrong_use_exits_2_and_says_how(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: penstock" in result.output or "Error: Option '--address' requires" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_wrong_config_exits_2_with_every_error_on_stderr(command: str) -> None:
    result = invoke(command, "c.yaml")
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == len(BAD_LINES)
    for line, expected in zip(lines, BAD_LINES, strict=True):
        assert line.startswith(expected)


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_missing_config_exits_2(command: str) -> None:
    result = invoke(command, "nowhere.yaml")
    assert result.exit_code == 2
    assert result.stderr == "nowhere.yaml:1: (top level): the file does not exist; check the path\n"


@pytest.mark.parametrize("arguments", [["good.yaml"], ["--demo", "good.yaml"], ["good.yaml", "--demo"]])
@pytest.mark.parametrize("status", [0, 1, 2])
def test_run_serves_and_exits_as_the_supervisor_says(
    arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Config, Path, bool]] = []

    def run(config: Config, config_path: Path, demo: bool, hint: str | None, takeover: bool) -> int:
        calls.append((config, config_path, demo))
        return status

    stand_in(monkeypatch, "proxy.server.supervisor", run=run)
    assert invoke("run", *arguments).exit_code == status
    [(config, path, demo)] = calls
    assert (config.routes[0].match.path, path, demo) == ("/x", Path("good.yaml"), "--demo" in arguments)


def test_a_demo_needs_a_cluster_to_stand_for() -> None:
    result = invoke("run", "--demo", "none.yaml")
    assert result.exit_code == 2
    assert result.stderr == "none.yaml:2: clusters: is empty: --demo has nothing to stand for; add a cluster\n"


def test_check_prints_a_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "proxy.server.check", check=lambda config: [])
    result = invoke("check", "good.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "good.yaml: all is well: 1 listener, 1 cluster, 2 routes, 0 filters\n"


def test_check_tells_what_the_filters_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "proxy.server.check", check=lambda config: ["first", "second"])
    result = invoke("check", "good.yaml")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "first\nsecond\n")


def test_demo_serves_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    stand_in(monkeypatch, "proxy.demo", run=calls.append)
    assert invoke("demo").exit_code == 0
    assert invoke("demo", "--address", "[::1]:9001").exit_code == 0
    assert calls == ["127.0.0.1:9000", "[::1]:9001"]


def test_demo_on_a_taken_address_exits_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = invoke("demo", "--address", address)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"penstock: can not serve on {address}: ")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("nowhere.wasm", "can not be read: No such file or directory"),
        (".", "can not be read: Is a directory"),
        ("text.wasm", "this is WebAssembly text; convert it to binary first"),
        ("c.yaml", "not a WebAssembly file: it does not begin with \\0asm; write the path of a .wasm file"),
    ],
)
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_inspecting_what_is_no_filter_exits_2(file: str, reason: str, option: list[str]) -> None:
    result = invoke("filter", "inspect", file, *option)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{file}: {reason}")
    assert len(result.stderr.splitlines()) == 1


def test_inspecting_as_json() -> None:
    result = invoke("filter", "inspect", "--json", "filter.wasm")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert (found["kind"], found["abi_version"], found["memory_minimum"]) == ("module", None, 65536)


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env={"PYTHONPATH": str(ROOT)}, check=False)


@pytest.mark.parametrize(
    ("arguments", "status", "stream", "text"),
    [
        (["--help"], 0, "stdout", "Usage: penstock [OPTIONS] COMMAND"),
        (["--version"], 0, "stdout", "penstock "),
        (["rum"], 2, "stderr", "No such command 'rum'"),
        (["check", "c.yaml"], 2, "stderr", BAD_LINES[0]),
        (["run", "c.yaml"], 2, "stderr", BAD_LINES[1]),
        (["filter", "inspect", "c.yaml"], 2, "stderr", "not a WebAssembly file"),
        (["filter", "inspect", "/dev/zero"], 2, "stderr", "/dev/zero: is no regular file; write the path of a .wasm file"),
        (["filter", "inspect", "filter.wasm"], 2, "stdout", "would not load"),
        (["filter", "inspect", str(ROOT / "tests/conformance/probe/probe.wasm")], 0, "stdout", "callbacks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_as_a_process(arguments: list[str], status: int, stream: str, text: str) -> None:
    done = run_command(*arguments)
    assert done.returncode == status
    assert text in getattr(done, stream)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_what_answers_at_once_imports_nothing_heavy(argument: str) -> None:
    code = (
        "import sys\nfrom proxy.cli.main import main\n"
        f"try: main([{argument!r}])\nexcept SystemExit: pass\n"
        "print(sorted({'pydantic', 'aiohttp', 'wasmtime', 'yaml', 'structlog'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
