"""docs/attacks.md has the tables that the cases of tests/attacks give, and there are as many cases as it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.cases import client, filter, upstream

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "attacks.md").read_text()


def test_the_page_matches_the_cases() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build_attacks.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("families", "least"), [(client.FAMILIES, 150), (filter.FAMILIES, 120), (upstream.FAMILIES, 100)])
def test_cases_are_many_and_each_is_its_own(families: dict[str, list[client.Case]], least: int) -> None:
    names = [(family, case.name) for family, cases in families.items() for case in cases]
    assert len(names) >= least
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"RFC \d{4} [\d.]+", case.clause) for cases in families.values() for case in cases)


def test_figures_were_measured() -> None:
    assert re.search(r"^\| memory for each slow client \| [\d.]+ KiB \|$", PAGE, re.MULTILINE)
