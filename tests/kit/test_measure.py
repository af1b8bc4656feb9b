"""Figures of a filter's callbacks."""

import json
from pathlib import Path

from click.testing import CliRunner

from proxy.cli.main import main
from proxy.kit.measure import percentile, rounded


def test_bench(folder: Path) -> None:
    """Each callback with its fuel, and a budget of twice the dearest one's."""
    done = CliRunner().invoke(main, ["filter", "bench", str(folder), "--rounds", "5", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    by_name = {one["callback"]: one for one in found["callbacks"]}
    assert by_name["proxy_on_request_headers"]["calls"] == 5 * 8
    assert by_name["proxy_on_http_call_response"]["calls"] == 5 * 4
    dearest = max(one["fuel_p999"] for one in found["callbacks"])
    assert 2 * dearest <= found["suggested_fuel"] <= 2.2 * dearest
    assert found["memory"] >= 131072
    text = CliRunner().invoke(main, ["filter", "bench", str(folder), "--rounds", "1"]).output
    assert f"suggested: fuel: {found['suggested_fuel']} " in text


def test_percentiles() -> None:
    """Nearest rank."""
    ordered = list(range(1, 1001))
    assert [percentile(ordered, part) for part in (0.5, 0.99, 0.999)] == [500, 990, 999]
    assert [percentile([7], part) for part in (0.5, 0.999)] == [7, 7]
    assert [rounded(fuel) for fuel in (0, 7, 123, 1_200, 98_001)] == [0, 7, 130, 1_200, 99_000]
