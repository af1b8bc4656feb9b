"""Every edge case of the ABI digest (1 to 45) has a test that names it: in its text, or as a conformance case's `edge`."""

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conformance.cases.table import CASES

TESTS = Path(__file__).parents[1]
NAMED = re.compile(r"edge cases? (\d+(?:(?:-|, | and |, and )\d+)*)", re.IGNORECASE)


def numbers(text):
    """The numbers that a text names: `edge case 5`, `edge cases 1-3 and 7`."""
    found = set()
    for match in NAMED.finditer(text):
        for part in re.findall(r"\d+(?:-\d+)?", match[1]):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found


@functools.cache
def index():
    """Number -> the tests that name it."""
    found = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        if path == Path(__file__):
            continue
        source = path.read_text()
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                for number in numbers("\n".join(lines[first - 1 : node.end_lineno])):
                    found[number].append(f"{path.relative_to(TESTS)}::{node.name}")
    for case in CASES:
        for number in case.edge:
            found[number].append(f"conformance case {case.name!r}")
    return found


def test_how_numbers_are_read():
    assert numbers("Edge case 5. And edge cases 1-3, 7 and 9; 11 is none") == {1, 2, 3, 5, 7, 9}
    assert numbers("no edge, no case 4") == set()


@pytest.mark.parametrize("number", range(1, 46))
def test_has_a_test(number):
    assert index().get(number)


def test_there_are_no_others():
    assert set(index()) <= set(range(1, 46))
