"""`penstock bench`: what it makes of generators' output and of the metrics, and one real run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli import bench_gateway, bench_load, bench_report
from proxy.cli.bench_gateway import GatewayError
from proxy.cli.bench_load import Figures, LoadError
from proxy.cli.main import main
from tests import requires
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
LATENCY = dict(zip(bench_load.PERCENTILES, (500.0, 800.0, 1200.0, 2000.0, 5000.0, 20000.0, 2_500_000.0), strict=True))
WRK = (
    "Running 1s test\n"
    'FIGURES {"requests": 1000, "seconds": 2.0, "bytes": 4000000, "latency": [500, 800, 1200, 2000, 5000, 20000, 2500000], '
    '"errors": {"connect": 0, "read": 2, "write": 0, "status": 3, "timeout": 0}}\n'
)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments], prog_name="penstock")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A gateway on ports that the kernel chooses, in front of its own demo service."""
    service, listener, admin = free_ports(3)
    path = tmp_path / "gateway.yaml"
    path.write_text(
        json.dumps(
            {
                "listeners": [{"address": f"127.0.0.1:{listener}"}],
                "clusters": [{"name": "service", "endpoints": [f"127.0.0.1:{service}"]}],
                "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
                "filters": [{"name": name, "wasm": str(ROOT / "benchmarks/filters/probe.wasm")} for name in ("one", "two")],
                "admin": {"address": f"127.0.0.1:{admin}"},
            }
        )
    )
    return path


# ---- The generators ----


def test_wrk_s_figures() -> None:
    found = bench_load.wrk_figures(WRK)
    assert (found.requests, found.rps, found.bytes) == (1000, 500.0, 4_000_000)
    assert found.latency == LATENCY
    assert found.failed == {"read": 2, "status": 3}


def test_output_without_figures_is_an_error_that_shows_it() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        bench_load.wrk_figures("unable to connect to 127.0.0.1")
    with pytest.raises(LoadError, match="connection refused"):
        bench_load.h2load_figures([], "connection refused", 10, 1)


def test_h2load_s_log_is_counted_once_it_has_settled() -> None:
    rows = [(10_000_000 + i * 10_000, 200 if i % 50 else 503, 100 + i) for i in range(200)]
    rows[120] = (rows[120][0], -1, 0)
    found = bench_load.h2load_figures(rows, "traffic: 2.00KB (2000) total, 1KB", 100, 1.0)
    # Half a second is left out at the start, and what comes after the second that counts.
    assert sum((found.requests, found.errors["no answer"])) == 100
    assert found.failed == {"status": 2, "no answer": 1}
    assert found.latency[100.0] == 100 + 149
    assert found.latency[50.0] == pytest.approx(200, abs=2)
    assert (found.rps, found.asked, found.bytes) == (99.0, 100, 1000)


@pytest.mark.parametrize(("rate", "opened"), [(7200, (7, 1)), (1000, (1, 1)), (100, (1, 10)), (3, (1, 333))])
def test_connections_are_opened_as_fast_as_requests_are_to_come(rate: float, opened: tuple[int, int]) -> None:
    assert bench_load.opening(rate) == opened


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (90, 9), (99, 10), (100, 10), (1, 1)])
def test_percentile_is_the_nearest_rank(percent: float, value: float) -> None:
    assert bench_load.percentile(list(range(1, 11)), percent) == value


# ---- The metrics ----


def samples(requests: float, seconds: float) -> bench_gateway.Samples:
    labels = {"filter": "auth"}
    found = {
        ("penstock_requests_total", frozenset({"route": "r", "code": "200"}.items())): requests,
        ("penstock_requests_total", frozenset({"route": "r", "code": "503"}.items())): requests / 10,
        ("penstock_request_duration_seconds_sum", frozenset({"route": "r"}.items())): requests * 0.01,
        ("penstock_upstream_duration_seconds_sum", frozenset({"cluster": "c"}.items())): requests * 0.005,
        ("penstock_filter_seconds_total", frozenset(labels.items())): seconds,
        ("penstock_filter_fuel_total", frozenset(labels.items())): requests * 550,
    }
    for callback in ("proxy_on_request_headers", "proxy_on_response_headers"):
        found["penstock_filter_calls_total", frozenset({**labels, "callback": callback}.items())] = requests * 1.1
    found["penstock_filter_failures_total", frozenset({**labels, "reason": "fuel"}.items())] = requests / 100
    return found


def test_where_the_time_goes() -> None:
    added = bench_report.difference(samples(100, 1.0), samples(1100, 1.11))
    found = bench_report.breakdown(added, ["auth", "idle"], cpu=0.22)
    assert found["requests"] == pytest.approx(1100)
    assert found["statuses"] == {"200": 1000, "503": 100}
    auth, idle = found["filters"]
    assert auth["calls_per_request"] == pytest.approx(2.0)
    assert auth["us_per_call"] == pytest.approx(50)
    assert auth["us_per_request"] == pytest.approx(100)
    assert auth["fuel_per_request"] == pytest.approx(500)
    assert auth["share_of_cpu"] == pytest.approx(0.5)
    assert auth["failures"] == {"fuel": 10}
    assert (idle["us_per_call"], idle["calls_per_request"]) == (0, 0)
    assert found["cpu_us_per_request"] == pytest.approx(200)


def test_the_report_says_all_of_it() -> None:
    found = bench_report.breakdown(bench_report.difference({}, samples(1000, 0.1)), ["auth"], cpu=0.2)
    figures = Figures(1000, 2.0, 4_000_000, {"read": 2, "status": 0}, LATENCY, asked=2000)
    text = "\n".join(bench_report.lines("http://127.0.0.1:1/", 32, figures, found))
    assert "requests   1,000, 500/s, 2.0 MB/s" in text
    assert "errors     2 read\n" in text
    assert "the rate was not reached" in text
    assert "p50 500.0 us" in text
    assert "longest 2.50 s" in text
    assert "503: 100" in text
    assert "failures: fuel: 10" in text
    row = next(line for line in text.splitlines() if line.startswith("auth"))
    assert row.split()[1:] == ["2.0", "45.5", "us", "90.9", "us", "50%", "500"]


def test_nothing_at_all_is_no_division_by_zero() -> None:
    found = bench_report.breakdown({}, ["auth"], cpu=None)
    figures = Figures(0, 1.0, 0, {}, LATENCY)
    text = "\n".join(bench_report.lines("http://127.0.0.1:1/", 1, figures, found))
    assert "\nCPU" not in text
    assert "nan" not in text
    assert text.splitlines()[-1].split() == ["auth", "0.0", "0.0", "us", "-", "?", "0"]


# ---- The command ----


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration", "1.5s"], "not a whole number of seconds"),
        (["--duration", "soon"], "such as 250ms, 10s or 5m"),
        (["--rate", "0"], "--rate"),
        (["--connections", "0"], "--connections"),
        (["--header", "nothing"], "write it as 'name: value'"),
        (["--path", "x"], "does not begin with /"),
        (["--url", "localhost:8080"], "write one such as http://127.0.0.1:8080"),
        (["--url", "http://127.0.0.1:1", "--demo"], "leave out --url"),
    ],
)
def test_wrong_use_exits_2_and_says_how(config: Path, arguments: list[str], said: str) -> None:
    result = invoke(str(config), *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


@pytest.mark.parametrize(("arguments", "tool"), [([], "apt install wrk"), (["--rate", "10"], "apt install nghttp2-client")])
def test_a_missing_generator_is_named_with_how_to_get_it(
    config: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], tool: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    result = invoke(str(config), *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("penstock: not installed: ")
    assert tool in result.stderr


def test_a_gateway_that_does_not_run_is_an_error(config: Path) -> None:
    requires.command("wrk")
    result = invoke(str(config), "--url", "http://127.0.0.1:1", "--duration", "1s")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "penstock: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_gateway_that_does_not_start_says_why(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("listeners: []\n")
    with pytest.raises(GatewayError, match=r"did not start:(.|\n)*listeners"), bench_gateway.started(path, demo=False):
        raise AssertionError("it started")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("tool", "arguments"), [("wrk", ("--connections", "4")), ("h2load", ("--rate", "100", "--header", "x-a: b"))]
)
def test_a_real_run_starts_the_gateway_and_tells_its_filters_apart(config: Path, tool: str, arguments: tuple[str, ...]) -> None:
    requires.command(tool)
    command = [sys.executable, "-m", "proxy", "bench", str(config), "--demo", "--duration", "1s", "--json", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["requests"] > 0
    assert not any(found["errors"].values())
    assert found["latency_us"]["p50"] <= found["latency_us"]["p99"] <= found["latency_us"]["p100"]
    gateway = found["gateway"]
    assert [row["filter"] for row in gateway["filters"]] == ["one", "two"]
    for row in gateway["filters"]:
        assert row["calls_per_request"] == pytest.approx(2, abs=0.2)
        assert row["fuel_per_request"] > 0
        assert 0 < row["us_per_request"] < gateway["us_per_request"]
        assert row["share_of_cpu"] is not None
