"""Calls into component filters that do next to nothing: what the way there and back costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.components import BARE, Filter
from proxy.abi.memory import memory_type
from proxy.wasm.engine import Engine
from tests.guests.toolchains import MissingError


@pytest.fixture(scope="module", params=list(BARE))
def filter_(request: pytest.FixtureRequest) -> Iterator[Filter]:
    """In C and in JavaScript."""
    try:
        path = BARE[request.param]()
    except MissingError as error:
        pytest.skip(str(error))
    engine = Engine(memory_type())
    made = Filter(path, engine)
    yield made
    made.close()
    engine.close()


def test_component_call(benchmark: Any, filter_: Filter) -> None:
    """Without values."""
    benchmark(filter_.nothing)


def test_component_headers(benchmark: Any, filter_: Filter) -> None:
    """Ten in, two edits out."""
    assert benchmark(filter_.headers)[1] == (0, None)


def test_component_text(benchmark: Any, filter_: Filter) -> None:
    """64 KiB there and back."""
    benchmark(filter_.text)


def test_component_instance(benchmark: Any, filter_: Filter) -> None:
    """A new one, configured: what isolation: request costs each request."""
    benchmark(lambda: filter_.fresh().close())
