"""proxy_get_property and proxy_set_property: values, encodings and times as measured on Envoy 1.40."""

import struct

import pytest

from proxy.abi.memory import decode_pairs
from tests.abi.guest import OUT, Script

HEADERS = "proxy_on_request_headers"
FIELDS = (
    (b"host", b"test"), (b"user-agent", b"ua"), (b"referer", b"r"), (b"x-request-id", b"id"), (b"x-a", b"1"), (b"x-a", b"2"),
    (b"content-length", b"5"),
)  # fmt: skip


def get(path):
    return ("proxy_get_property", path, OUT, OUT)


def i64(number):
    return struct.pack("<q", number)


@pytest.fixture
def ask(start_filters):
    """The outcomes of asking for paths in a callback, by path."""

    def ask(callback, paths, settings=None, prepare=lambda stream: None):
        rows = [get(path) for path in paths]
        others = {HEADERS: []} if callback != HEADERS else {}
        worker = start_filters((Script({callback: rows, **others}), settings or {}))
        opened = worker.open(fields=FIELDS)
        info = opened.stream.info
        info.protocol, info.source_address, info.destination_address = "HTTP/1.1", "192.0.2.1:1234", "[::1]:80"
        info.connection_id, info.cluster_name, info.start = 7, "service", 1.5
        prepare(opened.stream)
        if callback not in (HEADERS, "proxy_on_request_body"):
            opened.call(HEADERS)
            worker.respond(opened.stream)
        found = opened.runs(callback)
        return {path: (one.status, one.value) for path, one in zip(paths, found, strict=True)}

    return ask


def test_the_request(ask):
    expected = {
        b"request\0path": b"/p?q=1",
        b"request\0path\0": b"/p?q=1",  # edge case 32
        b"request\0url_path": b"/p",
        b"request\0host": b"test",
        b"request\0scheme": b"http",
        b"request\0method": b"POST",
        b"request\0query": b"q=1",
        b"request\0useragent": b"ua",
        b"request\0referer": b"r",
        b"request\0id": b"id",
        b"request\0headers\0x-a": b"1,2",
        b"request\0headers\0X-A": b"1,2",
        b"request\0protocol": b"HTTP/1.1",
        b"request\0time": i64(1_500_000_000),
        b"request\0size": i64(5),
        b"source\0address": b"192.0.2.1:1234",
        b"source\0port": i64(1234),
        b"destination\0address": b"[::1]:80",
        b"destination\0port": i64(80),
        b"connection\0id": i64(7),
        b"connection_id": i64(7),
        b"connection\0mtls": b"\0",
        b"connection\0requested_server_name": b"",
        b"xds\0cluster_name": b"service",
        b"xds\0listener_direction": i64(0),
        b"upstream\0request_attempt_count": i64(0),
        b"response\0flags": i64(0),
        b"metadata": b"",
        b"plugin_name": b"f0",
        b"plugin_root_id": b"",
        b"plugin_vm_id": b"",
    }
    assert ask(HEADERS, list(expected)) == {path: (0, value) for path, value in expected.items()}


def test_what_there_is_not(ask):
    missing = [
        b"request\0headers\0none", b"request\0none", b"request\0duration", b"response\0code", b"response\0code_details",
        b"upstream\0address", b"upstream\0port", b"connection\0tls_version",
        b"none", b"a\0b", b"\xff", b"node", b"cluster_name",
        b"x" * 5000, b"\0", b"request\0path\0x", b"response\0backend_latency", b"response\0grpc_status", b"wasm.none",
    ]  # fmt: skip
    assert ask(HEADERS, missing) == dict.fromkeys(missing, (1, None))


@pytest.mark.parametrize("path", [b"", b"request", b"request\0", b"response", b"filter_state", b"source", b"xds"])
def test_what_is_no_value_is_status_3(ask, path):
    """Edge case 45 among them."""
    assert ask(HEADERS, [path]) == {path: (3, None)}


def test_request_headers_as_a_map(ask):
    status, value = ask(HEADERS, [b"request\0headers"])[b"request\0headers"]
    assert status == 0
    found = dict(decode_pairs(value))
    assert (found[b"x-a"], found[b":path"], found[b":authority"]) == (b"1,2", b"/p?q=1", b"test")


def test_where_the_request_s_map_is_shut(ask):
    """Edge case 10."""
    paths = [
        b"request\0path",
        b"request\0host",
        b"request\0method",
        b"request\0headers\0x-a",
        b"request\0query",
        b"request\0headers",
        b"request\0protocol",
    ]
    found = ask("proxy_on_response_headers", paths)
    assert [found[path] for path in paths] == [(1, None)] * 5 + [(0, bytes(4)), (0, b"HTTP/1.1")]


def test_the_response(ask):
    def prepare(stream):
        stream.info.details, stream.info.flags, stream.info.upstream_address = "via_upstream", "UF,UC", "127.0.0.1:9000"

    paths = {
        b"response\0code": i64(200), b"response\0code_details": b"via_upstream", b"response\0flags": i64(0x60),
        b"response\0grpc_status": i64(2), b"response\0headers\0x-r": b"one", b"upstream\0address": b"127.0.0.1:9000",
        b"upstream\0port": i64(9000),
    }  # fmt: skip
    for callback in ("proxy_on_response_headers", "proxy_on_log"):
        assert ask(callback, list(paths), prepare=prepare) == {path: (0, value) for path, value in paths.items()}
    assert ask("proxy_on_response_body", [b"response\0headers\0x-r", b"response\0code"]) == {
        b"response\0headers\0x-r": (1, None), b"response\0code": (0, i64(200)),
    }  # fmt: skip


def test_at_the_end_everything_is_known(ask):
    def prepare(stream):
        stream.info.over, stream.info.upstream_seconds = True, 0.25

    found = ask("proxy_on_log", [b"request\0path", b"request\0duration", b"response\0backend_latency"], prepare=prepare)
    assert found[b"request\0path"] == (0, b"/p?q=1")
    assert found[b"response\0backend_latency"] == (0, i64(250_000_000))
    assert struct.unpack("<q", found[b"request\0duration"][1])[0] > 0


def test_a_root_has_no_stream(start_filters):
    """Edge case 8 among them: plugin_root_id is there, even when it is empty."""
    paths = [b"plugin_name", b"plugin_root_id", b"request\0path", b"connection_id", b"source\0address", b"x", b""]
    rows = [*[get(path) for path in paths], ("proxy_set_property", b"x", b"y")]
    worker = start_filters((Script({"proxy_on_context_create": rows}), {"root_id": "root"}))
    found = worker.runs("proxy_on_context_create")
    assert [one.status for one in found] == [0, 0, 1, 1, 1, 1, 3, 1]
    assert [one.value for one in found[:2]] == [b"f0", b"root"]


def test_setting(run):
    rows = [
        ("proxy_set_property", b"x", b"1"), get(b"x"), get(b"x\0"), get(b"filter_state\0wasm.x"), get(b"wasm.x"),
        ("proxy_set_property", b"x", b""), get(b"x"),
        ("proxy_set_property", b"request\0path", b"/other"), get(b"request\0path"),
        ("proxy_set_property", b"wasm.z", b"z"), get(b"wasm.z"), get(b"z"),
        ("proxy_set_property", b"", b"e"), get(b""),
    ]  # fmt: skip
    found = [(one.status, one.value if one.slots else None) for one in run(HEADERS, *rows)]
    assert found == [
        (0, None), (0, b"1"), (0, b"1"), (0, b"1"), (1, None),
        (0, None), (0, b""),
        (0, None), (0, b"/p?q=1"),
        (0, None), (0, b"z"), (1, None),
        (0, None), (3, None),
    ]  # fmt: skip


def test_a_property_with_two_segments_does_not_read_back(run):
    """Edge case 25."""
    one, two = run(HEADERS, ("proxy_set_property", b"a\0b", b"1"), get(b"a\0b"))
    assert (one.status, two.status) == (0, 1)


def test_filters_of_a_stream_see_each_other_s(start_filters):
    one, two = Script({HEADERS: [("proxy_set_property", b"x", b"1")]}), Script({HEADERS: [get(b"x")]})
    worker = start_filters(one, two)
    first = worker.open()
    first.call(HEADERS)
    assert worker.open(1, stream=first.stream).runs(HEADERS)[0].value == b"1"
    assert worker.open(1).runs(HEADERS)[0].status == 1


def test_properties_are_limited(run):
    """64 KiB for each stream."""
    found = run(
        HEADERS,
        ("proxy_set_property", b"a", 0, 40_000),
        ("proxy_set_property", b"b", 0, 40_000),
        ("proxy_set_property", b"c", b"1"),
    )
    assert [one.status for one in found] == [0, 10, 0]


@pytest.mark.parametrize(("entered", "sent", "code"), [(0, 0, 200), (503, 0, 503), (503, 201, 201), (0, 201, 201)])
def test_the_response_s_code_is_as_it_came_and_then_as_it_was_sent(ask, entered, sent, code):
    """The map says 200: what filters make of it shows when the head has left the chain."""

    def prepare(stream):
        stream.info.entered_status, stream.info.status = entered, sent

    found = ask("proxy_on_response_headers", [b"response\0code"], prepare=prepare)
    assert found == {b"response\0code": (0, i64(code))}
