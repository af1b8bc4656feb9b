"""The cases of the filters in filters/; proxy/kit/case_file.py describes their form and reads it."""

from __future__ import annotations

from pathlib import Path

from proxy.kit.case_file import as_json, read
from proxy.kit.cases import Case, CaseError, Cases, Fields, Refusal, Sent
from proxy.kit.expected import Wanted

__all__ = ["FILTERS", "Case", "CaseError", "Cases", "Fields", "Refusal", "Sent", "Wanted", "as_json", "filter_names", "load"]

FILTERS = Path(__file__).resolve().parents[2] / "filters"


def filter_names() -> list[str]:
    """The filters that have cases."""
    return sorted(path.parent.name for path in FILTERS.glob("*/cases.yaml"))


def load(name: str) -> Cases:
    """The cases of a filter. Raises CaseError."""
    return read(FILTERS / name / "cases.yaml")
