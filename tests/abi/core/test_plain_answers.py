"""Whole answers to calls that the core reads past the parser: a filter finds in them what it would find behind the parser."""

import asyncio
import struct
from typing import Any

import pytest
from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.abi.memory import CALL_HEADERS, StreamMemory, decode_pairs
from proxy.abi.proxy_wasm import load
from proxy.capabilities.allowed_hosts import AllowedHosts
from proxy.upstream.callout import CalloutHandle, CalloutPolicy, CalloutResult
from proxy.upstream.connection import MAX_HEADERS, NO_FLOW_CONTROL, READ_LIMIT
from tests.abi.core.mutations import mutated
from tests.abi.core.test_plain_responses import LIKELY, PIECES, PLAIN
from tests.abi.guest import OUT, Script, Worker, compiled

Seen = tuple[int, list[tuple[bytes, bytes]], bytes]
LOOP = asyncio.new_event_loop()
CALLBACK = "proxy_on_http_call_response"
# Each answer to the same place: what came before is overwritten.
TOLD = Script({CALLBACK: [("proxy_get_header_map_pairs", CALL_HEADERS, OUT, OUT)]}, allocator="zero is deadly")


def handle(results: list[CalloutResult], memory: StreamMemory | None) -> CalloutHandle:
    """A call that waits for its response."""
    caller = CalloutPolicy("f", AllowedHosts())
    caller.load_plain = None if memory is None else memory.load_plain_answer
    nowhere: Any = None  # it is only asked when a call fails
    return CalloutHandle(caller, nowhere, LOOP, b"GET", results.append)


def parsed(data: bytes) -> Seen | str:
    """What the parser's way gives a filter; or why it gives nothing."""
    flow: Any = NO_FLOW_CONTROL
    parser = HttpResponseParser(flow, LOOP, READ_LIMIT, max_headers=MAX_HEADERS, read_until_eof=True, auto_decompress=False)
    results: list[CalloutResult] = []
    try:
        messages, upgraded, _ = parser.feed_data(data)
        if len(messages) != 1 or upgraded:
            return f"{len(messages)} messages"
        message, payload = messages[0]
        if not payload.is_eof() or message.chunked or message.should_close or parser.feed_eof() is not None:
            return "more than this is needed"
    except HttpProcessingError as error:
        return repr(error)
    call = handle(results, None)
    call.on_upstream_head(message.code, message.raw_headers, False)
    call.on_upstream_data(payload.read_nowait(), True)
    return results[0].status, results[0].headers, results[0].body


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """A filter that looks at all answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "load_or_compile", compiled)
        made = Worker(tmp_path_factory.mktemp("answers"), (TOLD, {}))
    made.start()
    yield made
    made.close()


def taken(worker: Any, data: bytes) -> Seen | None:
    """What the filter is given when the core takes the answer; None: it leaves it to the parser."""
    size = data.find(b"\r\n\r\n") + 4
    if size < 4:
        return None
    results: list[CalloutResult] = []
    call = handle(results, worker.memory)
    loaded = call.load_plain(data[:size], len(data) - size)
    if not loaded:
        return None
    call.on_upstream_plain(loaded, data[size:])
    (result,) = results
    (slot,) = worker.slots
    slot.answered(worker.plugins[0].root, 4, result)
    assert struct.unpack_from("<4I", worker.memory.buffer, worker.memory.at.arguments) == (
        4, len(result.headers), len(result.body), 0,
    )  # fmt: skip
    (run,) = worker.runs(CALLBACK)
    block = run.value
    assert run.status == 0
    assert block is not None
    assert decode_pairs(block) == result.headers
    return result.status, result.headers, result.body


def test_a_plain_answer_is_taken(worker: Any) -> None:
    kept = PLAIN.replace(b"X-A", b"Keep-Alive: 5\r\nConnection: keep-alive\r\nVia: a\r\nVia: b\r\nX-A")
    for data in (PLAIN, kept):
        found = taken(worker, data)
        assert found is not None
        assert found == parsed(data)
    assert found[1] == [
        (b":status", b"200"), (b"content-type", b"text/plain"), (b"connection", b"keep-alive"), (b"via", b"a"),
        (b"via", b"b"), (b"x-a", b"\xc3\xa9 \t b"), (b"content-length", b"2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b" 200 ", b" 101 "),
        (b" 200 ", b" 204 "),
        (b" 200 ", b" 600 "),
        (b" 200 ", b" 2000 "),
        (b" 200 OK", b" 200 O\x00K"),
        (b" 200 OK\r\n", b" 200 OK\n"),
        (b"X-A: ", b"X-A:"),
        (b"X-A: ", b"X-A:  "),
        (b"X-A: ", b"X-A : "),
        (b"X-A: ", b": "),
        (b"X-A: ", b" X-A: "),
        (b" b\r\n", b" b \r\n"),
        (b" b\r\n", b" b\r"),
        (b" b\r\n", b" b\n"),
        (b" b\r\n", b" b\x7f\r\n"),
        (b" b\r\n", b" b\r\n folded\r\n"),
        (b" b\r\n", b" b\r\nX-Empty: \r\n"),
        (b" b\r\n", b" b\r\nContent-Length: 2\r\n"),
        (b" b\r\n", b" b\r\ntransfer-encoding: chunked\r\n"),
        (b" b\r\n", b" b\r\nConnection: close\r\n"),
        (b" b\r\n", b" b\r\nUpgrade: h2c\r\n"),
        (b" b\r\n", b" b\r\nProxy-Connection: close\r\n"),
        (b"length: 2", b"length: 1"),
        (b"length: 2", b"length: 3"),
        (b"length: 2", b"length: +2"),
        (b"length: 2", b"length: 4294967298"),
        (b"content-length: 2\r\n", b""),
        (b"\r\n\r\nok", b"\r\n\r\no"),
        (b"\r\n\r\nok", b"\r\n\r\nokk"),
        (b"X-A", b"X-A: 1\r\n" * 98 + b"X-A"),
        (b"X-A: ", b"X-A: " + b"a" * 9000),
    ],
)
def test_what_is_unusual_is_the_parser_s(worker: Any, old: bytes, new: bytes) -> None:
    assert old in PLAIN
    assert taken(worker, PLAIN.replace(old, new, 1)) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.lists(PIECES, max_size=8).map(lambda pieces: b"".join([b"HTTP/1.1 200 OK\r\n", *pieces])),
        LIKELY,
        st.builds(mutated, LIKELY, st.integers(0, 400), st.integers(0, 3), st.one_of(PIECES, st.binary(max_size=3))),
    )
)
def test_the_parser_finds_the_same(worker: Any, data: bytes) -> None:
    found = taken(worker, data)
    if found is not None:
        assert found == parsed(data)


def test_an_answer_that_was_held_up_is_loaded_again(worker: Any) -> None:
    """Between a plain answer's coming in and its filter's callback another call's may come."""
    (slot,) = worker.slots
    results: list[CalloutResult] = []
    first, second = PLAIN[:-2], PLAIN.replace(b"X-A", b"X-Other")[:-2]
    for head in (first, second):
        call = handle(results, worker.memory)
        call.on_upstream_plain(call.load_plain(head, 2), b"ok")
    for result in (*results, CalloutResult(200, [(b":status", b"200")], b""), results[0]):
        slot.answered(worker.plugins[0].root, 4, result)
        (run,) = worker.runs(CALLBACK)
        assert decode_pairs(run.value or b"") == result.headers
    assert results[0].headers != results[1].headers
