"""The scenarios as data: they fit their time, name files that exist, and say what the upstream really sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import suite
from benchmarks.filters import build
from benchmarks.peers import PEERS, configuration_of
from benchmarks.scenarios import BY_NAME, JSON_OBJECTS, SCENARIOS, body_digest
from benchmarks.servers import Setup, Upstream, build_upstream, fetch
from proxy.config.load import load
from tests import requires

EVERYTHING = tuple(PEERS)


def test_the_whole_suite_takes_less_than_ten_minutes_and_the_quick_one_two() -> None:
    assert suite.estimate(suite.choose(False, (), None), EVERYTHING) < 600
    assert suite.estimate(suite.choose(True, (), None), EVERYTHING) < 120


def test_only_and_runs_choose() -> None:
    chosen = suite.choose(False, ("latency", "chain"), 7)
    assert [(one.name, one.runs) for one in chosen] == [("chain", 7), ("latency", 7)]
    assert [variant.label for variant in suite.choose(True, ("chain",), None)[0].variants] == ["0", "3", "10"]


def test_quick_mode_names_variants_and_loads_that_there_are() -> None:
    for scenario in SCENARIOS:
        assert set(scenario.quick_variants) <= {variant.label for variant in scenario.variants}
        assert set(scenario.quick_loads) <= {load.label for load in scenario.loads}
        quick = scenario.in_quick_mode()
        assert quick.variants
        assert quick.loads


def test_only_envoy_and_penstock_are_given_filters() -> None:
    for scenario in SCENARIOS:
        for variant in scenario.variants:
            if variant.filters:
                assert all(PEERS[name].filters for name in scenario.who(variant, EVERYTHING))


@pytest.mark.parametrize("name", list(BY_NAME))
def test_penstock_accepts_the_config_of_every_variant(tmp_path: Path, name: str) -> None:
    for variant in BY_NAME[name].variants:
        path = tmp_path / "penstock.yaml"
        path.write_text(json.dumps(configuration_of(Setup(9000, variant.filters, variant.workers), 8080)))
        config = load(path)
        assert len(config.filters) == len(variant.filters)
        assert config.workers == variant.workers


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    requires.c_compiler()
    server = Upstream.start(build_upstream(tmp_path_factory.mktemp("upstream")), [])
    yield server
    server.stop()


def test_the_upstream_sends_what_the_scenarios_expect(upstream: Upstream) -> None:
    import hashlib

    for size in (0, 1, 65536, 3_000_000):
        body = fetch(upstream.port, f"/bytes/{size}")[2]
        assert (len(body), hashlib.sha256(body).hexdigest()) == (size, body_digest(size))
    assert len(json.loads(fetch(upstream.port, "/json")[2])) == JSON_OBJECTS
    assert fetch(upstream.port, "/auth")[::2] == (200, b"Hello, world\n")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", build.NAMES)
def test_a_rebuilt_filter_is_the_same_to_the_byte(name: str) -> None:
    requires.zig()
    assert not build.differs(name)


def test_every_filter_of_a_scenario_has_its_source() -> None:
    used = {plugin.wasm.stem for one in SCENARIOS for variant in one.variants for plugin in variant.filters}
    assert used == set(build.NAMES)
