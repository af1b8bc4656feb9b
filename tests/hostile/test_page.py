"""docs/hostile.md is what its generator writes, and there are as many cases as it says."""

from tests.hostile.case import FAMILIES
from tests.hostile.corpus import BY_NAME, CASES, SERVING
from tests.hostile.page import FIGURES, PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "python -m tests.hostile.page"


def test_every_family_has_cases_and_every_case_a_row() -> None:
    assert {case.family for case in CASES} == set(FAMILIES)
    text = PAGE.read_text()
    assert [name for name in BY_NAME if f"| {name} | " not in text] == []


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(CASES) >= 60
    assert len(SERVING) >= 60
    assert FIGURES.exists()
