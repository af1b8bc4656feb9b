"""Fixtures for the upstream side's tests."""

from collections.abc import Iterator

import pytest

from tests.upstream.callouts import Spy, spies


@pytest.fixture
def spy() -> Iterator[Spy]:
    """What the process connects to and resolves during the test."""
    spy = Spy()
    spies.append(spy)
    yield spy
    spies.remove(spy)
