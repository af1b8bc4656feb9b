"""Every `penstock ...` that a page names is a command, with options that it has."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from proxy.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "filters").glob("*/README.md")),
]
NAMED = re.compile(r"(?:`|^\$ |^(?:\.venv/bin/)?)(penstock [^`#|\n]+)", re.MULTILINE)


def wrong(text: str) -> Iterator[str]:
    """What is no command, or no option of it."""
    for command in NAMED.findall(text):
        words = command.split()[1:]
        found: click.Command = main
        while isinstance(found, click.Group) and words and words[0] in found.commands:
            found = found.commands[words.pop(0)]
        if isinstance(found, click.Group):
            if words and words[0] not in ("--version", "--help", "-h", "...", "…"):
                yield command
            continue
        known = {name for one in found.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
        yield from (f"{command}: {word}" for word in words if re.match("--[a-z]", word) and word.rstrip(",.;") not in known)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_commands_exist(page: Path) -> None:
    assert list(wrong(page.read_text())) == []


def test_what_is_wrong() -> None:
    text = "`penstock check`, `penstock filter …`, `penstock fly`\n$ penstock run --dmeo x.yaml\n$ penstock run x --demo\n"
    assert list(wrong(text)) == ["penstock fly", "penstock run --dmeo x.yaml: --dmeo"]
