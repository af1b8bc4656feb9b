"""docs/operating.md, docs/metrics.md and docs/limits.md name every log event, every metric, every detail and every
limit that there is."""

import re
from pathlib import Path

import pytest

from proxy.config.cluster import Cluster
from proxy.config.filter import Filter, FilterLimits, Quarantine
from proxy.config.listener import Listener, ListenerLimits
from proxy.config.operation import Overload
from proxy.telemetry.instruments import Instruments, ProcessInstruments
from proxy.telemetry.metrics import Registry

ROOT = Path(__file__).parents[2]
OPERATING = (ROOT / "docs" / "operating.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
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
    assert [name for name in names if f"`{name}`" not in METRICS] == []


def rows(section: str) -> dict[str, list[str]]:
    """The table of a section of limits.md: its first column, unquoted, to the others."""
    text = LIMITS.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| `")]
    return {name.strip("` "): others for name, *others in cells}


def plain(text: object) -> str:
    return str(text).replace(" ", "").replace(",", "")


AT_LOAD = {"module", "functions", "function_body", "compile_time", "compile_memory"}
RUNTIME = {f"limits.{name}": field.default for name, field in FilterLimits.model_fields.items() if name not in AT_LOAD}
RUNTIME |= {name: Filter.model_fields[name].default for name in ("fuel", "deadline", "memory")}


@pytest.mark.parametrize("limit", sorted(RUNTIME))
def test_every_limit_of_a_filter_has_its_row(limit: str) -> None:
    """Its default, what happens, what the client gets, what counts it."""
    row = rows("A filter at run time")[limit]
    assert len(row) == 4
    assert all(row)
    default = RUNTIME[limit]
    assert plain(row[0]).startswith("none" if default is None else plain(default))


@pytest.mark.parametrize("limit", sorted(AT_LOAD))
def test_every_limit_at_load_has_its_row(limit: str) -> None:
    (default,) = rows("Loading a filter")[f"limits.{limit}"]
    assert plain(default).startswith(plain(FilterLimits.model_fields[limit].default))


def test_the_quarantine_s_row() -> None:
    faults, window = (Quarantine.model_fields[name].default for name in ("faults", "window"))
    assert plain(rows("A filter at run time")["quarantine"][0]).startswith(f"{faults}faultswithin{window}")


@pytest.mark.parametrize(
    ("limit", "default"),
    [
        ("listeners[].max_connections", Listener.model_fields["max_connections"].default),
        ("clusters[].max_pending", Cluster.model_fields["max_pending"].default),
        *((f"overload.{name}", field.default) for name, field in Overload.model_fields.items()),
    ],
)
def test_every_limit_of_overload_has_its_row(limit: str, default: object) -> None:
    row = rows("Overload")[limit]
    assert len(row) == 3
    assert plain(row[0]) == ("none" if default is None else plain(default))


@pytest.mark.parametrize("limit", sorted(ListenerLimits.model_fields))
def test_every_limit_of_a_listener_is_named(limit: str) -> None:
    assert re.search(rf"`(listeners\[\]\.limits\.)?{limit}`", LIMITS)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_links_to_files_lead_somewhere(page: str) -> None:
    here = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert [link for link in links if not (here / link).exists()] == []
