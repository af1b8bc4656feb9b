"""Trailer maps and their callbacks: windows, the body that is held, and trailers that the last body callback begins.

What Envoy does with the same calls is in tests/conformance/cases/trailers.py.
"""

import pytest

from proxy.abi.filter import BODY, TRAILERS
from proxy.abi.memory import REQUEST_TRAILERS, RESPONSE_TRAILERS, decode_pairs
from tests.abi.guest import OUT, Script

LOADED = [(b"x-t", b"1"), (b"x-u", b"two")]
SIDES = [("request", REQUEST_TRAILERS, 0), ("response", RESPONSE_TRAILERS, 1)]


def get(key, map_):
    return ("proxy_get_header_map_value", map_, key, OUT, OUT)


def pairs(map_):
    return ("proxy_get_header_map_pairs", map_, OUT, OUT)


def size(map_):
    return ("proxy_get_header_map_size", map_, OUT)


def add(key, value, map_):
    return ("proxy_add_header_map_value", map_, key, value)


def opened(start_filters, script, **settings):
    worker = start_filters((script, settings))
    stream = worker.open()
    stream.call("proxy_on_request_headers")
    worker.respond(stream.stream)
    return worker, stream


@pytest.mark.parametrize(("side", "map_", "buffer"), SIDES)
def test_the_callback_reads_and_edits_its_map(start_filters, side, map_, buffer):
    callback = f"proxy_on_{side}_trailers"
    rows = [
        get(b"X-T", map_),
        size(map_),
        add(b"X-New", b"v", map_),
        ("proxy_remove_header_map_value", map_, b"x-u"),
        pairs(map_),
    ]
    rows += [get(b":path", 0), get(b":status", 2), get(b"x", 4 - map_)]
    worker, stream = opened(start_filters, Script({callback: rows, "proxy_on_request_headers": []}))
    worker.memory.set_pairs(map_, LOADED)
    found = stream.runs(callback)
    assert found[0].value == b"1"
    assert found[1].u32() == 10
    assert [one.status for one in found[:5]] == [0] * 5
    assert decode_pairs(found[4].value) == [(b"x-t", b"1"), (b"x-new", b"v")]
    assert [one.status for one in found[5:]] == [2, 2, 2]
    assert worker.memory.pairs(map_) == [(b"x-t", b"1"), (b"x-new", b"v")]


@pytest.mark.parametrize(("side", "map_", "buffer"), SIDES)
def test_a_body_that_is_held_is_there(start_filters, side, map_, buffer):
    callback = f"proxy_on_{side}_trailers"
    rows = [
        ("proxy_get_buffer_bytes", buffer, 0, 99, OUT, OUT),
        ("proxy_set_buffer_bytes", buffer, 0, 99, b"new"),
        ("proxy_get_buffer_bytes", 1 - buffer, 0, 99, OUT, OUT),
    ]
    _, stream = opened(start_filters, Script({callback: rows, "proxy_on_request_headers": []}))
    found = stream.runs(callback, b"held")
    assert found[0].value == b"held"
    assert (found[1].status, found[2].value) == (0, b"")
    assert stream.result & BODY
    assert stream.context.body == b"new"


@pytest.mark.parametrize(("side", "map_", "buffer"), SIDES)
def test_without_one_there_is_nothing_to_edit(start_filters, side, map_, buffer):
    callback = f"proxy_on_{side}_trailers"
    rows = [("proxy_get_buffer_bytes", buffer, 0, 99, OUT, OUT), ("proxy_set_buffer_bytes", buffer, 0, 0, b"new")]
    _, stream = opened(start_filters, Script({callback: rows, "proxy_on_request_headers": []}))
    found = stream.runs(callback)
    assert (found[0].status, found[0].value) == (0, b"")
    assert found[1].status == 2
    assert not stream.result & BODY


@pytest.mark.parametrize(("side", "map_", "buffer"), SIDES)
@pytest.mark.parametrize("act", ["add", "set", "remove", "size"])
def test_the_last_body_callback_begins_trailers(start_filters, side, map_, buffer, act):
    callback = f"proxy_on_{side}_body"
    acts = {
        "add": add(b"x", b"1", map_),
        "set": ("proxy_set_header_map_pairs", map_, b""),
        "remove": ("proxy_remove_header_map_value", map_, b"x"),
        "size": size(map_),
    }
    rows = [get(b"x", map_), pairs(map_), acts[act], get(b"x", map_)]
    worker, stream = opened(start_filters, Script({callback: rows, "proxy_on_request_headers": []}))
    found = stream.runs(callback, b"data")
    assert [one.status for one in found] == [2, 0, 2, 2]
    assert not stream.result & TRAILERS
    found = stream.runs(callback, b"", end=True)
    assert [one.status for one in found] == [2, 0, 0, 0 if act == "add" else 1]
    assert stream.result & TRAILERS
    assert worker.memory.pairs(map_) == ([(b"x", b"1")] if act == "add" else [])


@pytest.mark.parametrize(("side", "map_", "buffer"), SIDES)
def test_reading_begins_none(start_filters, side, map_, buffer):
    callback = f"proxy_on_{side}_body"
    _, stream = opened(start_filters, Script({callback: [get(b"x", map_), pairs(map_)], "proxy_on_request_headers": []}))
    stream.runs(callback, b"", end=True)
    assert not stream.result & TRAILERS


@pytest.mark.parametrize(("side", "map_", "buffer"), SIDES)
def test_a_filter_without_the_callback_lets_them_pass(start_filters, side, map_, buffer):
    _, stream = opened(start_filters, Script({"proxy_on_request_headers": []}))
    assert stream.call(f"proxy_on_{side}_trailers", b"held") == 0


def test_they_may_be_what_creates_the_context(start_filters):
    callback = "proxy_on_request_trailers"
    worker = start_filters(Script({callback: [get(b"x-t", 1)], "proxy_on_context_create": [get(b"x-t", 1)]}))
    stream = worker.open()
    worker.memory.set_pairs(1, LOADED)
    assert [one.value for one in stream.runs(callback)] == [b"1"]
    assert worker.runs("proxy_on_context_create")[0].status == 2


def test_a_pause_leaves_the_request_s_open_until_it_is_continued(start_filters):
    script = Script(
        {"proxy_on_request_trailers": [], "proxy_on_request_body": [get(b"x-t", 1)], "proxy_on_request_headers": []},
        actions={"proxy_on_request_trailers": 1},
    )
    worker, stream = opened(start_filters, script)
    worker.memory.set_pairs(1, LOADED)
    assert stream.call("proxy_on_request_trailers") == 1
    assert stream.runs("proxy_on_request_body", b"x")[0].status == 0
    stream.context.continued()
    assert stream.runs("proxy_on_request_body", b"x")[0].status == 2
