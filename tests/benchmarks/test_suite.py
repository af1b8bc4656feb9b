"""Short real runs of the suite: two servers, a second of load. Timing fails nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import metering, suite
from benchmarks.peers import PEERS
from benchmarks.runner import Place, check, run
from benchmarks.scenarios import BY_NAME, LoadSpec, Scenario, Variant, chain
from benchmarks.servers import ServerError, Setup, Upstream, build_upstream, fetch
from proxy.kit.envoy import binary
from tests import requires

TINY = Scenario(
    "tiny",
    "one second",
    (Variant("1", 1, chain(1)),),
    (LoadSpec("4", 4), LoadSpec("70 %", 8, share=0.2)),
    runs=1,
)


@pytest.mark.envoy
@pytest.mark.timeout(180)
def test_a_tiny_scenario_against_the_real_envoy(tmp_path: Path) -> None:
    requires.load_tools()
    installed = ("envoy", "penstock") if binary() else ("penstock",)
    upstream = Upstream.start(build_upstream(tmp_path), [])
    said: list[str] = []
    try:
        found = run(TINY, installed, Place(upstream), said.append)
    finally:
        upstream.stop()
    assert {(row["system"], row["load"]) for row in found["rows"]} == {
        (name, load) for name in installed for load in ("4", "70 %")
    }
    for row in found["rows"]:
        assert row["median"]["rps"] > 0
        assert row["median"]["p50_us"] <= row["median"]["p99_us"] <= row["median"]["max_us"]
        assert row["rss"] > 1e6
    assert said == [f"{len(installed)} servers are up", "round 1 of 1"]
    json.dumps(found)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory):
    requires.c_compiler()
    server = Upstream.start(build_upstream(tmp_path_factory.mktemp("upstream")), [])
    yield server
    server.stop()


@pytest.mark.parametrize("name", [name for name in PEERS if not PEERS[name].filters])
def test_a_peer_without_filters_passes_everything_on(upstream: Upstream, name: str) -> None:
    peer = PEERS[name]
    if peer.version() is None:
        pytest.skip(f"{name} is not installed: {peer.get}")
    with pytest.raises(ServerError, match="only envoy and penstock"):
        peer.start(Setup(upstream.port, chain(1)), ())
    server = peer.start(Setup(upstream.port), ())
    try:
        assert fetch(server.port)[::2] == (200, b"Hello, world\n")
        assert fetch(server.port, "/bytes/2000000")[2] == fetch(upstream.port, "/bytes/2000000")[2]
        check(name, Variant("0", 0), server.port, LoadSpec())
    finally:
        server.stop()
    assert not server.directory.exists()


@pytest.mark.parametrize("name", ["stream-100k", "buffer-100k", "callout", "sha256", "json", "rs256", "host-calls"])
@pytest.mark.timeout(120)
def test_the_filters_of_a_scenario_do_their_work_in_penstock(upstream: Upstream, name: str) -> None:
    scenario = BY_NAME[name]
    load, variant = scenario.loads[0], scenario.variants[-1]
    server = PEERS["penstock"].start(Setup(upstream.port, variant.filters, path=load.path), ())
    try:
        check("penstock", variant, server.port, load)
        if name == "rs256":
            token = load.headers[0][1]
            assert fetch(server.port, "/", (("authorization", token[:-8] + "AAAAAAAA"),))[0] == 401
            assert fetch(server.port, "/")[0] == 401
        if name in ("sha256", "json"):
            assert fetch(server.port, "/bytes/70000")[0] == 0
    finally:
        server.stop()


def test_metering_is_told_apart() -> None:
    found = metering.measure(1)
    assert set(found) == set(metering.WORK)
    for modes in found.values():
        assert set(modes) == {"neither", "fuel", "epochs", "both"}
        assert modes["neither"]["ratio"] == 1.0
        assert all(mode["us"] > 0 for mode in modes.values())


@pytest.mark.timeout(180)
def test_the_command_writes_json_and_a_page_and_goes_on_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requires.load_tools()
    wrong = Scenario("wrong", "no such path", (Variant("0", 0),), (LoadSpec("x", 1, headers=(("host", "a b"),)),), runs=1)
    tiny = Scenario("tiny", "one second", (Variant("0", 0),), (LoadSpec("4", 4),), systems=("penstock",), runs=1)
    monkeypatch.setattr(suite, "choose", lambda *_: [wrong, tiny])
    monkeypatch.setattr(suite, "preflight", lambda _: ([], ["nginx: apt install nginx-light"], ("penstock",)))
    result = CliRunner().invoke(suite.main, ["--output", str(tmp_path / "a.b")])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "a.b.json").read_text())
    assert list(record["scenarios"]) == ["tiny"]
    assert any(doubt.startswith("wrong was not measured") for doubt in record["doubts"])
    assert "left out: nginx" in result.output
    assert (tmp_path / "a.b.html").read_text().startswith("<!doctype html>")


def test_the_micro_benchmarks_exchange_does_what_a_gateway_does() -> None:
    requires.module("pytest_benchmark", "pip install penstock[bench]")
    from benchmarks.micro.worker import Worker

    worker = Worker([("probe", "")] * 2)
    try:
        worker.exchange()
        worker.request()
    finally:
        worker.close()


def test_two_commits_are_compared_line_by_line() -> None:
    from benchmarks.micro.compare import keep_least, table

    kept = {"a": 2e-6}
    keep_least(kept, {"a": 1e-6, "b": 3e-6})
    assert kept == {"a": 1e-6, "b": 3e-6}
    lines = table({"a": 2e-6, "gone": 1e-6}, {"a": 1e-6, "new": 4e-6}, "HEAD~1")
    assert [line.split() for line in lines[1:]] == [
        ["a", "2.00", "us", "1.00", "us", "0.50"],
        ["new", "-", "4.00", "us", "-"],
        ["gone", "1.00", "us", "-", "-"],
    ]
