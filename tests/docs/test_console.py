"""What the pages tell their readers to do works, and says what they say it does."""

from pathlib import Path

import pytest

from tests import requires
from tests.docs import console
from tests.docs.console import ROOT, Session, Step, commands, matches, steps

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TOLD = {path.relative_to(ROOT).as_posix(): list(steps(path.read_text())) for path in PAGES}

RUNNING = {"README.md": "penstock run --demo config/quickstart.yaml"}
"""What a page's `make run` is."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page, told in TOLD.items() if any(step.command for step in told)])
def test_page(page: str, tmp_path: Path) -> None:
    told = " ".join(step.command for step in TOLD[page])
    if "curl " in told:
        requires.command("curl")
    if "--lang zig" in told:
        requires.zig()
    session = Session(tmp_path)
    try:
        for step in [*(Step(0, command) for command in [RUNNING.get(page)] if command), *TOLD[page]]:
            wrong = session.do(step)
            assert not wrong, f"{page}:{step.line}: {step.command}\n{wrong}"
    finally:
        session.stop()


def test_what_a_page_tells() -> None:
    """Commands, continued ones, files, and what is not run."""
    page = (
        "`a/b.yaml`:\n\n```yaml\nx: 1\n```\n\ntext\n\n```console\n$ one \\\n> two\nsaid\n$ three\n```\n\n"
        "<!-- not run: it never ends -->\n```console\n$ four\n```\n<!-- fails -->\n```console\n$ five\n```\n"
    )
    assert list(steps(page)) == [
        Step(4, file="a/b.yaml", text="x: 1\n"),
        Step(10, "one two", "said"),
        Step(13, "three"),
        Step(22, "five", fails=True),
    ]
    assert list(commands("$ a\nb\n", 1, False)) == [Step(1, "a", "b")]


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("one\n...\nfour", "one\ntwo\nthree\nfour", True),
        ("one\n...\nfour", "one\nfour", True),
        ("one\n...", "one\ntwo", True),
        ("one", "one\ntwo", False),
        ("took 3.5 s, 1,234 fuel", "took 12 s, 98,765 fuel", True),
        ("3 cases, 0 failed, 1 s", "3 cases, 1 failed, 1 s", False),
        ("a ... c", "a b c", True),
        ("x-hello: world", "x-hello: you", False),
    ],
)
def test_comparison(expected: str, got: str, same: bool) -> None:
    assert matches(expected, got) == same


def test_a_step_that_goes_wrong(tmp_path: Path) -> None:
    """A wrong status and another output are told."""
    session = Session(tmp_path)
    assert "exit status 2" in session.do(Step(1, "penstock check nowhere.yaml"))
    assert session.do(Step(1, "penstock check nowhere.yaml", "...does not exist; check the path", fails=True)) == ""
    assert "got:\nyes" in session.do(Step(1, "echo yes", "no"))
    assert console.PORTS[0] in session.ports
