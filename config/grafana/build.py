#!/usr/bin/env python3
"""Writes penstock.json, a Grafana dashboard of the metrics that Penstock has.

python config/grafana/build.py             write it
python config/grafana/build.py --check     fail if what is there is not what would be written
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("penstock.json")
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
RATE: Final = "[$__rate_interval]"
HALF: Final = 12
"""Of the 24 columns that Grafana's grid has."""
HEIGHT: Final = 8


def quantile(part: float, metric: str, by: str) -> str:
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({part}, sum by ({labels}) (rate({metric}_bucket{RATE})))"


def rate(metric: str, by: str, matching: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{matching}{RATE}))"


PANELS: Final[list[tuple[str, str, str, dict[str, str]]]] = [
    ("row", "Traffic", "", {}),
    ("timeseries", "Requests by status", "reqps", {"{{code}}": rate("penstock_requests_total", "code")}),
    (
        "timeseries", "Errors by route", "reqps",
        {"{{route}} {{code}}": rate("penstock_requests_total", "route, code", '{code=~"5..|0"}')},
    ),
    (
        "timeseries", "Duration of requests", "s",
        {f"p{part * 100:g}": quantile(part, "penstock_request_duration_seconds", "") for part in (0.5, 0.9, 0.99)},
    ),
    (
        "timeseries", "Where the time goes: mean per request", "s",
        {
            name: f"sum(rate(penstock_{metric}_duration_seconds_sum{RATE})) / sum(rate(penstock_requests_total{RATE}))"
            for name, metric in (("Penstock and client", "own"), ("filters", "filters"), ("upstream", "upstream"))
        },
    ),
    ("timeseries", "Streams and connections", "short", {
        "streams": "penstock_streams", "connections {{listener}}": "penstock_connections",
        "upstream {{cluster}}": "penstock_upstream_connections",
    }),
    ("timeseries", "Body bytes", "Bps", {
        "received": f"sum(rate(penstock_bytes_received_total{RATE}))", "sent": f"sum(rate(penstock_bytes_sent_total{RATE}))",
    }),
    ("timeseries", "Upstream attempts that failed", "ops", {
        "{{cluster}} {{reason}}": rate("penstock_upstream_failures_total", "cluster, reason"),
    }),
    ("timeseries", "Requests refused before they were streams", "ops", {
        "{{listener}} {{reason}}": rate("penstock_rejected_requests_total", "listener, reason"),
    }),
    ("row", "Filters", "", {}),
    ("timeseries", "Calls", "ops", {"{{filter}}": rate("penstock_filter_calls_total", "filter")}),
    ("timeseries", "Time inside filters: share of a CPU", "percentunit", {
        "{{filter}}": rate("penstock_filter_seconds_total", "filter"),
    }),
    ("timeseries", "Time of a call, p99", "s", {"{{filter}}": quantile(0.99, "penstock_filter_call_seconds", "filter")}),
    ("timeseries", "Fuel of a call, p99", "short", {"{{filter}}": quantile(0.99, "penstock_filter_call_fuel", "filter")}),
    ("timeseries", "Faults", "ops", {"{{filter}} {{reason}}": rate("penstock_filter_failures_total", "filter, reason")}),
    ("timeseries", "Host calls that answered with an error", "ops", {
        "{{filter}} {{function}} {{status}}": rate("penstock_host_call_errors_total", "filter, function, status"),
    }),
    ("timeseries", "Memory of filters", "bytes", {"{{filter}}": "penstock_filter_memory_bytes"}),
    ("timeseries", "VMs built anew, and what was cut to a limit", "ops", {
        "{{filter}} rebuilt": rate("penstock_vm_rebuilds_total", "filter"),
        "{{filter}} {{limit}}": rate("penstock_filter_limited_total", "filter, limit"),
    }),
    ("row", "Versions", "", {}),
    ("timeseries", "Canaries: streams by side", "ops", {
        "{{filter}} {{side}}": rate("penstock_canary_streams_total", "filter, side"),
    }),
    ("timeseries", "Shadows: streams, and what they would have done otherwise", "ops", {
        "{{filter}} {{result}}": rate("penstock_shadow_streams_total", "filter, result"),
        "{{filter}} {{kind}}": rate("penstock_shadow_differences_total", "filter, kind"),
    }),
    ("timeseries", "Probes", "ops", {"{{filter}} {{result}}": rate("penstock_probe_total", "filter, result")}),
    ("timeseries", "Reloads, and the generation that serves", "short", {
        "{{result}}": f"increase(penstock_reloads_total{RATE})", "generation": "penstock_config_generation",
    }),
    ("row", "Processes", "", {}),
    ("timeseries", "Workers by state", "short", {"{{state}}": "penstock_workers"}),
    ("timeseries", "Memory of the workers", "bytes", {"memory": "penstock_worker_memory_bytes"}),
    ("timeseries", "VMs and tasks", "short", {"VMs": "penstock_vms", "tasks": "penstock_tasks"}),
    ("timeseries", "Restarts, filters in quarantine, lost log lines", "short", {
        "restarts": f"increase(penstock_worker_restarts_total{RATE})",
        "{{filter}} in quarantine": "penstock_filter_quarantined",
        "lost log lines": f"sum(increase(penstock_log_lines_dropped_total{RATE}))",
    }),
]  # fmt: skip


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    x = y = 0
    for number, (kind, title, unit, queries) in enumerate(PANELS, 1):
        if kind == "row":
            y += HEIGHT if x else 0
            panels.append({"id": number, "type": "row", "title": title, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
            x, y = 0, y + 1
            continue
        panels.append(
            {
                "id": number,
                "type": kind,
                "title": title,
                "datasource": SOURCE,
                "gridPos": {"x": x, "y": y, "w": HALF, "h": HEIGHT},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
                "targets": [
                    {"refId": chr(65 + i), "datasource": SOURCE, "expr": query, "legendFormat": legend}
                    for i, (legend, query) in enumerate(queries.items())
                ],
            }
        )
        x, y = (HALF, y) if x == 0 else (0, y + HEIGHT)
    return {
        "uid": "penstock",
        "title": "Penstock",
        "tags": ["penstock"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


def main(arguments: list[str]) -> int:
    """0 if the file was written or is right, 1 if it is not."""
    if arguments == ["--check"]:
        return int(not FILE.exists() or FILE.read_text() != text())
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
