import json

import pytest

from proxy.telemetry.access import MAX_TEXT, AccessLog
from proxy.telemetry.stream import StreamInfo


def stream(**fields):
    info = StreamInfo()
    values = {
        "request_id": "4f1c",
        "method": "GET",
        "path": "/things?x=1",
        "authority": "example.com",
        "protocol": "HTTP/1.1",
        "source_address": "127.0.0.1:40000",
        "route_name": "api",
        "cluster_name": "service",
        "upstream_address": "127.0.0.1:9000",
        "status": 200,
        "details": "via_upstream",
        "flags": "",
        "bytes_received": 3,
        "bytes_sent": 5,
        "upstream_seconds": 0.0015,
        "filter_seconds": 0.00002,
        **fields,
    }
    for name, value in values.items():
        setattr(info, name, value)
    return info


EXPECTED = {
    "level": "info",
    "event": "request",
    "logger": "access",
    "request_id": "4f1c",
    "method": "GET",
    "path": "/things?x=1",
    "authority": "example.com",
    "protocol": "HTTP/1.1",
    "route": "api",
    "cluster": "service",
    "upstream": "127.0.0.1:9000",
    "client": "127.0.0.1:40000",
    "status": 200,
    "details": "via_upstream",
    "flags": "",
    "bytes_received": 3,
    "bytes_sent": 5,
    "duration_ms": 2.5,
    "upstream_ms": 1.5,
    "filters_ms": 0.02,
}


def test_json(logged):
    lines = logged()
    AccessLog().write(stream(), 0.0025)
    [line] = lines
    entry = json.loads(line)
    assert len(entry.pop("time")) == len("2026-01-01T00:00:00.000000Z")
    assert list(entry.items()) == list(EXPECTED.items())


def test_console_has_the_same_fields(logged):
    lines = logged(format="console")
    AccessLog().write(stream(), 0.0025)
    for name in EXPECTED.keys() - {"level", "event", "logger"}:
        assert f" {name}=" in lines[0]


@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize("field", ["method", "path", "authority", "request_id", "details", "protocol"])
def test_hostile_text(logged, format, field):
    lines = logged(format=format)
    AccessLog().write(stream(**{field: 'x"\r\n\x1b[2J\x00\udcff","status":1'}), 0.1)
    [line] = lines
    assert line.isprintable()
    if format == "json":
        assert json.loads(line)["status"] == 200


def test_long_text_is_cut(logged):
    lines = logged()
    AccessLog().write(stream(path="/" * 8000), 0.1)
    assert json.loads(lines[0])["path"] == "/" * MAX_TEXT + "..."


@pytest.mark.parametrize(("level", "enabled"), [("warning", True), ("info", False)])
def test_nothing_written(logged, level, enabled):
    lines = logged(level)
    AccessLog(enabled).write(stream(), 0.1)
    assert lines == []
