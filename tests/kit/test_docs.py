"""docs/kit.md has the form of a case file as the reader describes it, and every command."""

import textwrap
from pathlib import Path

from proxy.cli.filter_kit import COMMANDS
from proxy.kit import case_file

PAGE = (Path(__file__).parents[2] / "docs" / "kit.md").read_text()


def test_the_form_of_a_case_file() -> None:
    text = case_file.__doc__ or ""
    block = textwrap.dedent(text[text.index("    wasm:") : text.index("Cases of one")].rstrip())
    assert f"```yaml\n{block}\n```" in PAGE


def test_every_command() -> None:
    for command in COMMANDS:
        assert f"`penstock filter {command.name}" in PAGE
