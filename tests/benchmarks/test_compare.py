"""The comparison's own parts: what it asks for, and that a chain which did not run is not measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.compare import check, preflight
from benchmarks.load import LoadError
from benchmarks.peers import configuration_of, start_penstock
from benchmarks.servers import Plugin, ServerError, Setup
from proxy.config.load import load

# Stands in for Penstock: serves the config that it is given, with as many markers as the config has filters.
STAND_IN = """
import http.server, json, sys
config = json.load(open(sys.argv[1]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        for _ in config["filters"][MISSING:]:
            self.send_header("x-probe", "1")
        self.send_header("content-length", "13")
        self.end_headers()
        self.wfile.write(b"Hello, world\\n")
    def log_message(self, *words): pass
host, port = config["listeners"][0]["address"].split(":")
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


def stand_in(directory: Path, missing: int = 0) -> tuple[str, str]:
    """The stand-in's command."""
    script = directory / "stand_in.py"
    script.write_text(STAND_IN.replace("MISSING", str(missing)))
    return sys.executable, str(script)


@pytest.mark.parametrize(("missing", "wrong"), [(0, None), (1, "sent x-probe 2 times")])
def test_a_chain_that_did_not_run_is_refused(tmp_path: Path, missing: int, wrong: str | None) -> None:
    server = start_penstock(Setup(1, (Plugin(compare.FILTER),) * 3), (), stand_in(tmp_path, missing))
    try:
        if wrong is None:
            check({("penstock", 3): server}, "x-probe")
        else:
            with pytest.raises(LoadError, match=wrong):
                check({("penstock", 3): server}, "x-probe")
    finally:
        server.stop()
    assert server.process.returncode is not None
    assert not server.directory.exists()


def test_a_server_that_ends_says_what_it_printed(tmp_path: Path) -> None:
    script = tmp_path / "ends.py"
    script.write_text("raise SystemExit('no such thing')")
    with pytest.raises(ServerError, match="no such thing"):
        start_penstock(Setup(1), (), (sys.executable, str(script)))


def test_the_generated_config_is_one_that_penstock_accepts(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text(json.dumps(configuration_of(Setup(9000, (Plugin(compare.FILTER, '{"a": 1}'),) * 2), 8080), indent=1))
    config = load(path)
    assert [one.config_bytes() for one in config.filters] == [b'{"a": 1}'] * 2
    assert (config.workers, config.admin, config.log.access) == (1, None, False)


def test_preflight_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(compare, "binary", lambda: None)
    monkeypatch.setattr(compare, "compiler", lambda: None)
    assert [line.split(":")[0] for line in preflight(["envoy", "penstock"])] == [
        "wrk, the load generator",
        "the real Envoy",
        "a C compiler for the upstream",
    ]
    assert len(preflight(["penstock"])) == 2
