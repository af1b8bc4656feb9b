"""Results of cases, for people and for machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from proxy.kit.play import Result

DIFFERENCE = re.compile(r"(?P<what>.*?): expected (?P<expected>.*), got (?P<got>.*)", re.DOTALL)
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MOST_LINES = 20
"""Log lines shown of a case that failed."""


def text_of(result: Result, trace: bool = False) -> Iterator[str]:
    """A case that failed, or whose trace was asked for, a line each."""
    took = f" ({result.seconds * 1000:.0f} ms)"
    yield f"{'ok   ' if result.passed else 'FAIL '}{result.name}{took}"
    if trace:
        yield from (f"       {line}" for line in result.trace)
    for problem in result.problems:
        yield from difference(problem)
    if result.problems and result.lines:
        yield "     it logged:"
        yield from (f"       {line.level}: {line.message}" for line in result.lines[-MOST_LINES:])


def difference(problem: str) -> Iterator[str]:
    """`what: expected A, got B` on three lines; anything else as it stands."""
    found = DIFFERENCE.fullmatch(problem)
    if found is None:
        yield f"     {problem}"
        return
    yield f"     {found['what']}"
    yield f"       - {found['expected']}"
    yield f"       + {found['got']}"


def summary(results: Sequence[Result]) -> str:
    failed = sum(not one.passed for one in results)
    seconds = sum(one.seconds for one in results)
    return f"{len(results)} case{'' if len(results) == 1 else 's'}, {failed} failed, {seconds:.1f} s"


def write_junit(path: Path, suites: Sequence[tuple[str, Sequence[Result]]]) -> None:
    """JUnit's XML, as CI systems read it: a testsuite for each case file. Raises OSError."""
    root = ElementTree.Element("testsuites")
    for name, results in suites:
        failures = sum(not one.passed for one in results)
        suite = ElementTree.SubElement(
            root, "testsuite", name=clean(name), tests=str(len(results)), failures=str(failures), errors="0", skipped="0",
            time=f"{sum(one.seconds for one in results):.3f}",
        )  # fmt: skip
        for one in results:
            case = ElementTree.SubElement(
                suite, "testcase", classname=clean(name), name=clean(one.name), time=f"{one.seconds:.3f}"
            )
            if one.problems:
                failure = ElementTree.SubElement(case, "failure", message=clean(one.problems[0]))
                failure.text = clean("\n".join(one.problems))
            if one.lines:
                output = ElementTree.SubElement(case, "system-out")
                output.text = clean("\n".join(f"{line.level}: {line.message}" for line in one.lines))
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def clean(text: str) -> str:
    """Without what XML 1.0 can not hold."""
    return NOT_XML.sub("?", text)
