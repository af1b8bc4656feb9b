"""docs/errors.md is what the sources give, and what config and loader really say is in it."""

import ast
import re
from pathlib import Path

import pytest

from docs import build_errors

ROOT = Path(__file__).parents[2]
PATTERNS = [build_errors.pattern(entry) for entry in build_errors.entries()]
LINE = re.compile(r"[^ :]+:\d+: (?:\(top level\)|\S+): (?P<said>.*)")
CASES = sorted((ROOT / "tests" / "config" / "cases").glob("*.case"))


def test_the_page_matches_the_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert build_errors.main(["--check"]) == 0, capsys.readouterr().err


def test_every_problem_that_the_tests_know_is_in_it() -> None:
    """The expected lines of tests/config: whatever way a problem is made, the page has found it."""
    lines = [line for case in CASES for line in case.read_text().partition("----------\n")[2].splitlines()]
    said = [found["said"] for line in lines if (found := LINE.fullmatch(line)) is not None]
    assert len(said) > 150
    assert [text for text in said if not any(pattern.fullmatch(text) for pattern in PATTERNS)] == []


@pytest.mark.parametrize(
    "said",
    [
        "not a WebAssembly file: it does not begin with \\0asm; name a WebAssembly module built for proxy-wasm",
        "the module has 40,000 functions, more than limits.functions 100; write limits: {functions: 40000}",
        "is not the key of the certificate; name the PEM file with the certificate's key",
        "2 memories are declared; build the filter with one",
        "no memory is exported; export the filter's memory as memory",
    ],
)
def test_load_refusals_are_in_it(said: str) -> None:
    assert any(pattern.fullmatch(said) for pattern in PATTERNS)


MENDS = re.compile("(write|name|mend|remove|rename|raise|build|look at) ")
NO_MENDS = {"write failed", "name another host", "raise sources.timeout, or mend the source"}
"""A log event, and what the sources' fetcher says in answers of its own."""


def test_nothing_that_tells_what_to_write_is_missed() -> None:
    """Every literal of the gateway's code that begins as a mend does is in the mend of a problem that was found."""
    known = {entry.mend for entry in build_errors.entries()}
    missed = []
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        if path.relative_to(ROOT / "proxy").parts[0] in ("kit", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                texts = [text for text in build_errors.rendered(node, {}) if MENDS.match(text) and "\n" not in text]
                missed += [(path.name, text) for text in texts if not any(text in mend for mend in known | NO_MENDS)]
    assert missed == []


def test_no_pattern_takes_everything() -> None:
    assert not any(pattern.fullmatch("it went wrong; try again") for pattern in PATTERNS)
