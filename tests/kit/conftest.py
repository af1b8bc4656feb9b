"""The guest of these tests, built once."""

import shutil
from pathlib import Path

import pytest

from tests import requires
from tests.guests import build

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def guest() -> Path:
    """The module of guest.c."""
    with requires.toolchain():
        return build.c_filter(HERE / "guest.c")


@pytest.fixture
def folder(guest: Path, tmp_path: Path) -> Path:
    """A folder with the guest and its cases."""
    shutil.copy(guest, tmp_path / "guest.wasm")
    shutil.copy(HERE / "cases.yaml", tmp_path / "cases.yaml")
    return tmp_path
