"""The metrics as Prometheus sees them: promtool finds nothing wrong, a real Prometheus scrapes them, the dashboard asks for
what there is."""

import importlib.util
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.telemetry.instruments import Instruments, ProcessInstruments
from proxy.telemetry.metrics import Registry
from tests.admin.conftest import Running, fetch
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "config" / "grafana" / "penstock.json"


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus")
    assert found is not None
    return found


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"].replace("$__rate_interval", "30s") for panel in panels for target in panel.get("targets", ())]


def names() -> set[str]:
    """Of all samples that there can be, less those of filters' own metrics: what is declared once, and the chain's."""
    registry = Registry()
    Instruments(registry)
    ProcessInstruments(registry)
    sources = "".join(path.read_text() for path in (ROOT / "proxy" / "chain").glob("*.py"))
    found = set(re.findall(r'"(penstock_\w+_total)"', sources))
    for name, kind in registry.families:
        found |= {name} if kind != "histogram" else {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return found


def test_dashboard_is_built_and_asks_for_what_there_is():
    build = importlib.util.spec_from_file_location("build", DASHBOARD.with_name("build.py"))
    assert build is not None
    assert build.loader is not None
    module = importlib.util.module_from_spec(build)
    build.loader.exec_module(module)
    assert module.main(["--check"]) == 0, "run python config/grafana/build.py"
    asked = {name for query in queries() for name in re.findall(r"penstock_\w+", query)}
    assert asked - names() == set()
    assert len(asked) > 25


def test_promtool_finds_nothing(running: Running) -> None:
    promtool = tool("promtool")
    running.traffic(0.3).join()
    running.get("/status/200", x_trap="1")
    text = running.ask("/metrics")[2]
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=30, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


class Prometheus:
    """A Prometheus that scrapes the gateway twice a second."""

    def __init__(self, folder: Path, target: int) -> None:
        binary = tool("prometheus")
        self.port = free_port()
        config = folder / "prometheus.yml"
        job = {"job_name": "penstock", "scrape_interval": "500ms", "scrape_timeout": "500ms"}
        config.write_text(json.dumps({"scrape_configs": [{**job, "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}]}))
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [
                binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The vector that a query gives."""
        text = urllib.parse.urlencode({"query": query})
        status, _, body = fetch(f"http://127.0.0.1:{self.port}/api/v1/query?{text}", "GET", None, {})
        answer = json.loads(body)
        assert status == 200, (query, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def number(self, name: str) -> float:
        """The sum of a family; of the last scrape that came in time, on a machine that is busy."""
        found = self.ask(f"sum(last_over_time({name}[30s]))")
        return float(found[0]["value"][1]) if found else 0.0

    def up(self) -> bool:
        try:
            return [one["value"][1] for one in self.ask("up")] == ["1"]
        except (urllib.error.URLError, AssertionError, ValueError):  # it starts
            return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def prometheus(running: Running, tmp_path: Path) -> Iterator[Prometheus]:
    found = Prometheus(tmp_path, running.admin)
    yield found
    found.stop()


def test_prometheus_scrapes_and_the_dashboard_shows(running: Running, prometheus: Prometheus) -> None:
    running.until(prometheus.up, 20)
    running.traffic(1.5).join()
    total = sum(
        float(line.rpartition(" ")[2])
        for line in running.ask("/metrics")[2].decode().splitlines()
        if line.startswith("penstock_requests_total{")
    )
    running.until(lambda: prometheus.number("penstock_requests_total") == total)
    empty = [query for query in queries() if not prometheus.ask(query)]
    # Nothing was refused, cut to a limit or answered with an error: there is no such series yet, and no other panel is empty.
    assert all(re.search("rejected|limited|host_call_errors|shadow|probe|reloads", query) for query in empty), empty
    parts = {
        part: prometheus.number(f"penstock_{part}_duration_seconds_sum") for part in ("own", "filters", "upstream", "request")
    }
    assert parts["own"] + parts["filters"] + parts["upstream"] == pytest.approx(parts["request"], rel=0.02)
