"""What filters ask for, what they get, what was accepted of them, and what they turn out to need."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from proxy.abi.proxy_wasm.load import LoadError, prepare
from proxy.cli.learn import Denials, hear
from proxy.cli.main import main
from proxy.config.filter import Capabilities
from proxy.sources import asks, grants_lock
from proxy.sources.asks import Ask
from proxy.sources.grants_lock import newer
from tests.sources.conftest import Make, Site, manifest, module

ROOT = Path(__file__).parents[2]
LOG = {"name": "proxy_log", "reason": "says what it does"}


def invoke(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="penstock", input=text)


def test_an_unmet_ask_is_an_error_with_the_lines_to_add(make: Make, tmp_path: Path) -> None:
    (tmp_path / "one.wasm").write_bytes(module("proxy_log"))
    wants = {
        "host_functions": [LOG],
        "allowed_hosts": [{"name": "cluster:{auth.cluster}", "reason": "is asked"}, "https://api.example.com"],
        "env": ["MODE"],
    }
    (tmp_path / "filter.yaml").write_bytes(manifest(**wants))
    entry: dict[str, Any] = {"wasm": "one.wasm", "config": {"auth": {"cluster": "service"}}}
    capabilities: dict[str, Any] = {"host_functions": ["proxy_get_*"], "allowed_hosts": ["https://other.example.com"]}
    make({**entry, "capabilities": capabilities})
    result = invoke("check", str(tmp_path / "gateway.yaml"))
    assert result.exit_code == 2
    lines = (tmp_path / "gateway.yaml").read_text().splitlines()
    place = next(number for number, line in enumerate(lines, 1) if "capabilities" in line)
    assert result.output == (
        f"{tmp_path / 'gateway.yaml'}:{place}: filters[0].capabilities: its manifest asks for what it does not get: "
        "host_functions proxy_log (says what it does), allowed_hosts cluster:service (is asked), "
        "allowed_hosts https://api.example.com, env MODE; "
        'write capabilities: {allowed_hosts: ["https://other.example.com", "cluster:service", "https://api.example.com"], '
        'host_functions: ["proxy_get_*", proxy_log], env: {MODE: VALUE}}, or to refuse it '
        'capabilities: {refused: [proxy_log, "cluster:service", "https://api.example.com", "MODE"]}\n'
    )
    written = yaml.safe_load(result.output.partition("write capabilities: ")[2].partition(", or to refuse")[0])
    make({**entry, "capabilities": written})
    assert invoke("check", str(tmp_path / "gateway.yaml")).exit_code == 0, "what it says to write is what is missing"
    make(
        {
            **entry,
            "capabilities": {**capabilities, "refused": ["proxy_log", "cluster:service", "https://api.example.com", "MODE"]},
        }
    )
    assert invoke("check", str(tmp_path / "gateway.yaml")).exit_code == 0
    make({"wasm": "one.wasm", "capabilities": {"allowed_hosts": ["api.example.com"], "env": {"MODE": "x"}}})
    assert invoke("check", str(tmp_path / "gateway.yaml")).exit_code == 0, "a cluster that is not configured is not asked for"


@pytest.mark.parametrize(
    ("entry", "ask", "covered"),
    [
        ("https://a.example", "https://a.example", True),
        ("a.example", "https://a.example", True),
        ("http://a.example", "https://a.example", False),
        ("https://a.example", "a.example", False),
        ("*.example", "https://a.example", True),
        ("*.example", "*.a.example", True),
        ("*.example", "example", False),
        ("*.a.example", "*.example", False),
        ("https://a.example:8443", "https://a.example", False),
        ("cluster:a", "cluster:a", True),
        ("cluster:a", "a", False),
        ("10.0.0.0/8", "10.0.0.0/8", True),
        ("10.0.0.0/8", "10.0.0.1", False),
    ],
)
def test_what_an_allowed_host_covers(entry: str, ask: str, covered: bool) -> None:
    capabilities = Capabilities.model_validate({"allowed_hosts": [entry]})
    assert (asks.unmet([Ask("allowed_hosts", ask)], capabilities) == []) is covered


def test_more_than_was_accepted_needs_a_yes(make: Make, tmp_path: Path) -> None:
    path, wasm = tmp_path / "gateway.yaml", tmp_path / "one.wasm"
    wasm.write_bytes(module("proxy_log", "proxy_get_status"))
    (tmp_path / "filter.yaml").write_bytes(manifest(version="1.1.0"))
    make({"wasm": "one.wasm"})
    assert invoke("check", str(path)).exit_code == 0, "without a lock nothing is compared"
    said = invoke("filter", "accept", str(path), text="y\n")
    assert said.exit_code == 0
    assert "+ it asks for host_functions: proxy_log" in said.output
    assert invoke("check", str(path)).exit_code == 0

    wasm.write_bytes(module("proxy_log"))
    (tmp_path / "filter.yaml").write_bytes(manifest(version="1.2.0"))
    assert invoke("check", str(path)).exit_code == 0, "a newer one that asks for less"
    wasm.write_bytes(module("proxy_log", "proxy_remove_header_map_value"))
    refused = invoke("check", str(path))
    assert refused.exit_code == 2
    more = "it asks for host_functions: proxy_remove_header_map_value"
    assert f"not what was accepted: {more}; look at it and run penstock filter accept" in refused.output
    with pytest.raises(LoadError):
        prepare(make({"wasm": "one.wasm"}).filters, make({"wasm": "one.wasm"}))
    before = (tmp_path / "gateway.lock").read_text()
    assert invoke("filter", "accept", str(path), "--show").exit_code == 1
    assert invoke("filter", "accept", str(path), text="n\n").exit_code == 2
    assert (tmp_path / "gateway.lock").read_text() == before, "a no changes nothing"
    yes = invoke("filter", "accept", str(path), "--yes")
    assert f"  + {more}\n  - it asks no more for host_functions: proxy_get_status\n" in yes.output
    assert invoke("check", str(path)).exit_code == 0
    (tmp_path / "filter.yaml").write_bytes(manifest(version="1.0.9"))
    assert "its version was 1.2.0, and is 1.0.9" in invoke("check", str(path)).output
    (tmp_path / "filter.yaml").write_bytes(manifest(version="2.0.0", allowed_hosts=["https://x.example"]))
    make({"wasm": "one.wasm", "capabilities": {"allowed_hosts": ["https://x.example"]}})
    assert "it asks for allowed_hosts: https://x.example" in invoke("check", str(path)).output, "though it is granted"
    (tmp_path / "gateway.lock").write_text("filters: 3\n")
    assert "is not what penstock filter accept writes" in invoke("check", str(path)).output


def test_a_source_that_asks_for_more_waits_for_the_yes(site: Site, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    first, second = module("proxy_log"), module("proxy_log", "proxy_remove_header_map_value")
    site.files["/one.wasm"] = first
    config = make({"wasm": site.url("/one.wasm")})
    assert invoke("filter", "accept", str(path), "--yes").exit_code == 0
    site.files["/one.wasm"] = second
    assert prepare(config.filters, config).filters[0].digest == grants_lock.load(tmp_path / "gateway.lock")["one"].sha256  # type: ignore[index]
    assert invoke("filter", "accept", str(path), "--yes").exit_code == 0
    assert prepare(config.filters, config).filters[0].digest == grants_lock.load(tmp_path / "gateway.lock")["one"].sha256  # type: ignore[index]
    assert "proxy_remove_header_map_value" in (tmp_path / "gateway.lock").read_text()


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=2, max_size=2), st.sampled_from(["", "-a.1", "-a.b", "-2"]))
def test_versions_are_ordered(numbers: list[tuple[int, int, int]], tail: str) -> None:
    left, right = (".".join(map(str, one)) for one in numbers)
    assert newer(left, right) is (numbers[0] > numbers[1])
    if tail:
        assert newer(left, left + tail), "a release is newer than what came before it"
        assert not newer(left + tail, left)
    assert newer("1.0.0-a.10", "1.0.0-a.9")
    assert not newer("nonsense", left)


def test_a_manifest_of_a_stranger(tmp_path: Path) -> None:
    """Aliases that would be endless once written out, nesting, escape sequences, and other kinds than were expected."""
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    bomb = "\n".join([*lines, "name: *a59", "version: *a59", "grants: {allowed_hosts: [*a59, {name: *a59, reason: *a59}]}"])
    found = asks.parse(bomb.encode())
    assert (found.name, found.version, asks.asks_of(found, None)) == ("", "", [])
    sly = asks.parse(b'name: "one\\e[2J"\nversion: 1.0\ngrants: {env: [{name: A, reason: "x\\e[2J\\ny"}], allowed_hosts: 3}')
    assert (sly.name, sly.version) == ("", "1.0")
    assert asks.asks_of(sly, None) == [Ask("env", "A", "x\\x1b[2J y")]
    for wrong in (b"[" * 60_000, b"- 1", b"\xff", b"a: &x [*x", b"!!python/object:os.system {}", b"#" * (65 << 10)):
        with pytest.raises(asks.ManifestError):
            asks.parse(wrong)


def test_what_lies_beside_a_module(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that wants a newer Penstock, one of another module, and a signature that is no file."""
    (tmp_path / "one.wasm").write_bytes(module("proxy_log"))
    (tmp_path / "filter.yaml").write_bytes(manifest() + b"penstock: '>=1.10.0'\n")
    make({"wasm": "one.wasm"})
    for here, refused in (("1.9.0", True), ("1.10.0", False), ("2.0.0", False)):
        monkeypatch.setattr("proxy.sources.policy.version", lambda name, here=here: here)
        result = invoke("check", str(tmp_path / "gateway.yaml"))
        assert ("wants Penstock 1.10.0 or newer" in result.output, result.exit_code) == ((True, 2) if refused else (False, 0))
    (tmp_path / "filter.yaml").write_bytes(manifest("another", allowed_hosts=["https://x.example"]))
    assert invoke("check", str(tmp_path / "gateway.yaml")).exit_code == 0
    (tmp_path / "one.wasm.sig").mkdir()
    assert "one.wasm.sig beside it cannot be read: Is a directory" in invoke("check", str(tmp_path / "gateway.yaml")).output


def test_list_shows_what_is_there(make: Make, tmp_path: Path) -> None:
    (tmp_path / "one.wasm").write_bytes(module("proxy_log"))
    (tmp_path / "filter.yaml").write_bytes(manifest(allowed_hosts=["https://x.example"]))
    make({"wasm": "one.wasm", "capabilities": {"host_functions": ["proxy_log"]}})
    result = invoke("filter", "list", str(tmp_path / "gateway.yaml"), "--json")
    (row,) = json.loads(result.output)["filters"]
    assert row.pop("problems")[0].startswith("its manifest asks for what it does not get")
    assert row == {
        "name": "one",
        "version": "1.0.0",
        "sha256": asks_sha(tmp_path / "one.wasm"),
        "source": str(tmp_path / "one.wasm"),
        "signer": "",
        "grants": "1 host functions",
        "state": "not running",
    }
    assert invoke("filter", "list", str(tmp_path / "gateway.yaml")).output.splitlines()[0].split() == [
        "NAME", "VERSION", "SHA256", "SOURCE", "SIGNER", "GRANTS", "STATE",
    ]  # fmt: skip


def asks_sha(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_gateway_that_learns_denies_and_tells(tmp_path: Path) -> None:
    """A real gateway: the filter's call is denied, not sent, and told at the end; meanwhile `filter list` shows its state."""
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        admin, auth = a.getsockname()[1], b
        config = {
            "listeners": [{"address": "127.0.0.1:0"}],
            "clusters": [
                {"name": "service", "endpoints": ["127.0.0.1:9"]},
                {"name": "auth", "endpoints": [f"127.0.0.1:{auth.getsockname()[1]}"]},
            ],
            "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
            "filters": [
                {
                    "name": "ext-auth",
                    "wasm": str(ROOT / "filters/ext-auth/ext-auth.wasm"),
                    "config": {"cluster": "auth"},
                    "capabilities": {"refused": ["cluster:auth"]},
                }
            ],
            "admin": {"address": f"127.0.0.1:{admin}", "token": "a-token-that-is-long-enough"},
        }
        path = tmp_path / "gateway.yaml"
        path.write_text(yaml.safe_dump(config))
        a.close()
        with (tmp_path / "log").open("wb") as log:
            gateway = subprocess.Popen(
                [sys.executable, "-m", "proxy", "run", str(path), "--learn"], stdout=subprocess.PIPE, stderr=log, cwd=ROOT
            )
        assert gateway.stdout is not None
        try:
            url = gateway.stdout.readline().decode().split()[2].rstrip(";")
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(url, timeout=10)
            result = invoke("filter", "list", str(path), "--json")
            assert json.loads(result.output)["filters"][0]["state"] == "ready"
        finally:
            gateway.send_signal(signal.SIGTERM)
            said = gateway.communicate(timeout=30)[0].decode()
        auth.setblocking(False)
        with pytest.raises(BlockingIOError):
            auth.accept()
    assert gateway.returncode == 0
    assert said.startswith('# ext-auth: 1 denied\ncapabilities:\n  allowed_hosts: ["cluster:auth"]\n  host_functions:\n')
    learned = yaml.safe_load(said)["capabilities"]
    assert "proxy_http_call" in learned["host_functions"]
    config["filters"][0]["capabilities"] = learned  # type: ignore[index]
    path.write_text(yaml.safe_dump(config))
    assert invoke("check", str(path)).exit_code == 0, "what was learned is enough"


def test_what_a_log_says_of_denials() -> None:
    denials: dict[str, Denials] = {}
    for line in (
        '{"event":"host_call_denied","filter":"one","function":"proxy_log"}',
        '{"event":"callout denied","filter":"one","reason":"x","to_allow":"capabilities: {allowed_hosts: [\\"cluster:a\\"]}"}',
        '{"event":"callout denied","filter":"one","reason":"the gateway itself","to_allow":null}',
        '{"event":"filter_log","filter":"one","message":"callout denied"}',
        "not json",
        "[]",
    ):
        hear(line, denials)
    assert denials == {"one": Denials({"cluster:a"}, {"proxy_log"}, {"the gateway itself"})}


def test_cases_tell_what_they_need() -> None:
    result = invoke("filter", "test", str(ROOT / "filters/ext-auth"), "--learn")
    assert result.exit_code == 0
    learned = yaml.safe_load(result.output.partition("\n/")[0])["capabilities"]
    assert learned["allowed_hosts"] == ["cluster:auth", "cluster:nowhere"]
    manifested = yaml.safe_load((ROOT / "filters/ext-auth/filter.yaml").read_text())["grants"]["host_functions"]
    assert learned["host_functions"] == sorted(one["name"] for one in manifested)
