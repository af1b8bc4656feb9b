"""For all tests."""

import gc
import os
from collections.abc import Iterator

import pytest

from tests.requires import OF_THE_MACHINE


def pytest_collection_finish() -> None:
    """What is there before the first test stays until the end: no collection has to walk it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def engines_are_freed() -> Iterator[None]:
    """A worker's engine and memories hang in cycles of few Python objects, too few to make the collector look: 8 GB of them."""
    yield
    gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    return failed_if_skipped(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    return failed_if_skipped(report)


def failed_if_skipped(report):
    """In CI all is installed that tests may need: a skip there is a hole."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if OF_THE_MACHINE not in reason:
            report.outcome = "failed"
            report.longrepr = f"in CI a skip is a failure: {reason}"
    return report
