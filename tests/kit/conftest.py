"""The guest of these tests, built once."""

import os
import shutil
from pathlib import Path

import pytest

from tests.guests import build
from tests.guests.toolchains import MissingError

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def guest() -> Path:
    """The module of guest.c."""
    try:
        return build.c_filter(HERE / "guest.c")
    except MissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def folder(guest: Path, tmp_path: Path) -> Path:
    """A folder with the guest and its cases."""
    shutil.copy(guest, tmp_path / "guest.wasm")
    shutil.copy(HERE / "cases.yaml", tmp_path / "cases.yaml")
    return tmp_path
