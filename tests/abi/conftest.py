import tempfile
from pathlib import Path

import pytest

from proxy.abi import recovery, reporting
from proxy.abi.proxy_wasm import host, load, plugin
from proxy.telemetry import logging as logs
from tests.abi.guest import Lines, Script, Worker, compiled


@pytest.fixture
def lines(monkeypatch):
    """What filters and the ABI's code log."""
    kept = Lines()
    for module in (recovery, reporting, plugin, host):
        monkeypatch.setattr(module, "log", kept)
    logs.buckets.clear()
    return kept


@pytest.fixture
def load_filters(tmp_path, monkeypatch, lines):
    """`load_filters(filter, ...)`: a Worker; a filter is WAT or a Script, or (that, settings)."""
    monkeypatch.setattr(load, "load_or_compile", compiled)
    workers = []

    def make(*filters, log_level="debug"):
        pairs = [one if isinstance(one, tuple) else (one, {}) for one in filters]
        place = Path(tempfile.mkdtemp(dir=tmp_path))
        workers.append(Worker(place, *pairs, log_level=log_level))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


@pytest.fixture
def start_filters(load_filters):
    """As `load_filters`, and started."""
    return lambda *filters, **options: load_filters(*filters, **options).start()


@pytest.fixture
def run(start_filters):
    """`run(callback, row, ...)`: the outcome of host calls made in one callback of a stream's filter, each callback before it
    having run without calls."""

    def run(callback, *rows, data=b"", end=False, action=0, settings=None, fields=None, **options):
        worker = start_filters((Script({callback: rows}, actions={callback: action}, **options), settings or {}))
        opened = worker.open() if fields is None else worker.open(fields=fields)
        if "response" in callback:
            worker.respond(opened.stream)
        return opened.runs(callback, data, end)

    return run
