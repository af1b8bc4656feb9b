"""For all tests."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def engines_are_freed() -> Iterator[None]:
    """A worker's engine and memories hang in cycles of few Python objects, too few to make the collector look: 8 GB of them."""
    yield
    gc.collect()
