"""docs/operating.md and docs/limits.md name every log event, every metric, every detail and every limit that there is."""

import re
from pathlib import Path

import pytest

from proxy.config.model import FilterLimits, ListenerLimits
from proxy.telemetry.instruments import Instruments, ProcessInstruments
from proxy.telemetry.metrics import Registry

ROOT = Path(__file__).parents[2]
OPERATING = (ROOT / "docs" / "operating.md").read_text()
LIMITS = (ROOT / "docs" / "limits.md").read_text()
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "proxy").rglob("*.py")))

LOGGED = r'\b(?:log\.(?:info|warning|error|critical|exception)|complain)\(\s*"([^"]+)"'
OURS_ALONE = {
    "asking the workers failed",
    "admin page failed",
    "process failed",
    "on_queue_ready failed",
    "host_function_failed",
}
"""Defects, with a traceback: nothing that an operator could look up."""


@pytest.mark.parametrize("event", sorted(set(re.findall(LOGGED, SOURCES)) - OURS_ALONE))
def test_every_event_is_explained(event: str) -> None:
    assert f"`{event}`" in OPERATING or f"`{event.partition(':')[0]}: ...`" in OPERATING


def test_every_metric_is_listed() -> None:
    registry = Registry()
    Instruments(registry)
    ProcessInstruments(registry)
    names = [name.removeprefix("penstock_") for name, _ in registry.families]
    assert names
    assert [name for name in names if f"`{name}`" not in OPERATING] == []


@pytest.mark.parametrize("limit", sorted(FilterLimits.model_fields))
def test_every_limit_of_a_filter_has_its_row(limit: str) -> None:
    assert f"`limits.{limit}`" in LIMITS


@pytest.mark.parametrize("limit", sorted(ListenerLimits.model_fields))
def test_every_limit_of_a_listener_is_named(limit: str) -> None:
    assert re.search(rf"`(listeners\[\]\.limits\.)?{limit}`", LIMITS)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_to_files_lead_somewhere(page: str) -> None:
    here = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert [link for link in links if not (here / link).exists()] == []
