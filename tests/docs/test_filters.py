"""The sources shown in docs/filters.md are those that `penstock filter new` makes, and it names every language."""

import re
from pathlib import Path

import pytest

from proxy.kit.project import LANGUAGES, TEMPLATES

PAGE = (Path(__file__).parents[2] / "docs" / "filters.md").read_text()
SHOWN = {
    "zig": "zig/src/filter.zig",
    "ts": "assemblyscript/src/filter.ts",
    "rust": "rust/src/lib.rs",
    "go": "go/main.go",
    "c": "c/src/filter.c",
}


@pytest.mark.parametrize("language", sorted(SHOWN))
def test_sources_are_those_of_the_template(language: str) -> None:
    (shown,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown in (TEMPLATES / SHOWN[language]).read_text()


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_is_there(language: str) -> None:
    """With a row and a section of its own."""
    assert re.search(rf"^\| \[`{language}`\]\(#{language}\) \|", PAGE, re.MULTILINE)
    assert f"\n## {LANGUAGES[language].title}\n" in PAGE
