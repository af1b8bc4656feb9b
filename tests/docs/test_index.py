"""docs/README.md leads to every page, and docs/commands.md is what the command line is."""

import re
from pathlib import Path

import pytest

from docs import build_commands

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md") if path.name != "README.md")
LINKED = set(re.findall(r"\]\(([\w.-]+\.md)\)", (DOCS / "README.md").read_text()))


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_in_the_index(page: str) -> None:
    assert page in LINKED


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_links_to_headings_lead_somewhere(page: str) -> None:
    """In this page and in others."""
    lost = []
    for file, anchor in re.findall(r"\]\(([\w./-]*\.md)?#([\w-]+)\)", (DOCS / page).read_text()):
        target = DOCS / (file or page)
        if target.exists() and anchor not in anchors(target.read_text()):
            lost.append(f"{file}#{anchor}")
    assert lost == []


def anchors(text: str) -> set[str]:
    """As GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_commands_are_those_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert build_commands.main(["--check"]) == 0, capsys.readouterr().err
