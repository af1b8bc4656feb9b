"""Canaries without a gateway: who meets which side, what is worse, what processes and restarts share."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chain.canary import WHOLE, place, threshold, worse
from proxy.config.filter import Filter
from proxy.config.secrets import Secret
from proxy.config.versions import Rollback
from proxy.sharing.canaries import BUCKETS, CANARY, LIVE, SIDE_WORDS, STREAMS, CanaryFiles, Decision, Figures, bucket_of, key_of

KEYS = [f"client-{i}".encode() for i in range(20_000)]
BOUNDS = Rollback.model_validate({})


def chosen(name: str, weight: float, keys: Sequence[bytes] = KEYS) -> set[bytes]:
    return {key for key in keys if place(name, key) < threshold(weight)}


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.lists(st.binary(max_size=20), max_size=50))
def test_another_weight_moves_only_the_difference(one: float, other: float, keys: list[bytes]) -> None:
    small, large = sorted((one, other))
    assert chosen("auth", small, keys) <= chosen("auth", large, keys)
    assert not chosen("auth", 0.0, keys)
    assert chosen("auth", 1.0, keys) == set(keys)
    assert 0 <= threshold(one) <= WHOLE


@pytest.mark.parametrize("weight", [0.01, 0.05, 0.5])
def test_shares_are_what_they_say_and_independent_between_filters(weight: float) -> None:
    auth, limit = chosen("auth", weight), chosen("limit", weight)
    n = len(KEYS)
    for share, expected in ((len(auth), weight), (len(limit), weight), (len(auth & limit), weight * weight)):
        # 4.5 standard deviations of a binomial distribution: fixed keys, so this holds for ever or never.
        assert abs(share - n * expected) <= 4.5 * (n * expected * (1 - expected)) ** 0.5


def figures(streams: int, errors: int = 0, traps: int = 0, fuel: int = 1000, seconds: Sequence[float] = ()) -> Figures:
    times = [0] * BUCKETS
    for one in seconds or [0.01] * streams:
        times[bucket_of(one)] += 1
    return Figures(streams, errors, traps, fuel * streams, tuple(times))


def words(evidence: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in evidence]


def test_what_is_worse() -> None:
    live = figures(2000, errors=20)
    assert worse(live, figures(200, errors=2), BOUNDS) == []
    assert words(worse(live, figures(200, errors=40), BOUNDS)) == ["errors_5xx"]
    assert words(worse(figures(500), figures(5, traps=3), BOUNDS)) == ["traps"]
    assert worse(figures(500, traps=500), figures(500, traps=400), BOUNDS) == []  # the live one traps more
    assert words(worse(live, figures(200, fuel=2100), BOUNDS)) == ["fuel"]
    assert words(worse(live, figures(200, seconds=[0.01] * 180 + [0.05] * 20), BOUNDS)) == ["p99"]
    assert worse(live, figures(200, seconds=[0.01] * 199 + [5.0]), BOUNDS) == []  # one slow stream is no percentile
    too_few = figures(99, errors=99, fuel=10**6)
    assert worse(live, too_few, BOUNDS) == []
    assert worse(live, figures(200, errors=200), Rollback.model_validate({"errors_5xx": None})) == []


def test_equal_versions_are_hardly_ever_found_worse() -> None:
    """A look after every 50 streams, 30 canaries: with 5xx at 3 %, and times that are far apart."""
    source = random.Random(1)
    found = 0
    for _ in range(30):
        live, canary = figures(0), figures(0)
        for _ in range(12):
            live, canary = more(live, source, 950), more(canary, source, 50)
            found += bool(worse(live, canary, BOUNDS))
    assert found <= 1


def more(before: Figures, source: random.Random, streams: int) -> Figures:
    times = list(before.times)
    for _ in range(streams):
        times[bucket_of(source.lognormvariate(-4, 1))] += 1
    errors = sum(source.random() < 0.03 for _ in range(streams))
    return Figures(before.streams + streams, before.errors + errors, 0, before.fuel + 1000 * streams, tuple(times))


def test_figures_add_up_over_processes_and_decisions_outlive_them(tmp_path: Path) -> None:
    first = CanaryFiles(tmp_path, "auth", "k")
    assert first.decision() is None
    for count in (3, 4):
        child = os.fork()
        if child == 0:
            try:
                own = CanaryFiles(tmp_path, "auth", "k")
                own.words[own.claim() + CANARY * SIDE_WORDS + STREAMS] += count
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    row = first.claim()
    first.words[row + LIVE * SIDE_WORDS + STREAMS] += 5
    assert first.claim() == row
    assert [side.streams for side in first.figures()] == [5, 7]
    first.decide(Decision("promoted", 1.0, 12.5, "ada", ["all is well"]))
    first.close()
    again = CanaryFiles(tmp_path, "auth", "k")
    assert again.decision() == Decision("promoted", 1.0, 12.5, "ada", ["all is well"])
    assert [side.streams for side in again.figures()] == [5, 7]
    again.decide(Decision("running", 0.1, 13.0, "ada"))
    assert again.decision() == Decision("running", 0.1, 13.0, "ada")
    again.close()
    assert sorted(path.name for path in (tmp_path / "canaries").iterdir()) == ["auth-k.figures", "auth-k.json"]


def test_another_version_config_or_weight_is_another_canary() -> None:
    keys = {key_of("auth", d, c, w) for d in ("a", "b") for c in (b"", b"x") for w in (0.05, 0.1)}
    assert len(keys) == 8


def test_a_version_hides_its_own_secrets_and_a_state_written_by_hand_changes_nothing(tmp_path: Path) -> None:
    wasm = tmp_path / "filter.wasm"
    wasm.write_bytes(b"")
    filter_ = Filter.model_validate({
        "name": "auth", "wasm": str(wasm), "config": "plain",
        "canary": {"wasm": str(wasm), "config": Secret("hunter2")}, "shadow": {"wasm": str(wasm)},
    })  # fmt: skip
    canary, shadow = filter_.version("canary"), filter_.version("shadow")
    assert canary is not None
    assert shadow is not None
    assert (canary.name, canary.config_bytes(), shadow.config_bytes()) == ("auth@canary", b"hunter2", b"plain")
    assert "hunter2" not in str(canary.redacted()) + str(filter_.redacted())
    assert shadow.redacted()["config"] == "plain"

    files = CanaryFiles(tmp_path, "auth", "k")
    files.decide(Decision("running", 0.2, 1.0, "ada"))
    before = files.decision()
    for text in ("{", "[]", '{"state": "running"}', '{"state": "x", "weight": 9, "since": 1, "by": "", "evidence": []}'):
        files.decision_file.write_text(text)
        assert files.decision() == before
    files.close()
