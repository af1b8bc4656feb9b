"""Stores that are removed afterwards."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.sharing.limits import Limits
from proxy.sharing.store import SharedStore
from tests.sharing.processes import Process


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., SharedStore]]:
    """Makes a store for some slots and vm_ids."""
    made = []

    def make(slots: int = 1, **limits: Limits) -> SharedStore:
        made.append(
            SharedStore(slots, {vm_id.encode(): one for vm_id, one in (limits or {"vm": Limits()}).items()}, [tmp_path])
        )
        return made[-1]

    yield make
    for store in made:
        store.close()
        assert list(tmp_path.iterdir()) == []


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    """A test that fails leaves no worker behind."""
    yield
    for process in Process.running[:]:
        process.kill()
