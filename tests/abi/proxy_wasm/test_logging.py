import pytest

from proxy.abi.proxy_wasm import host, load
from tests.abi.guest import OUT, Script
from tests.abi.proxy_wasm.test_pointers import CALLS, with_bad_pointers

HEADERS = "proxy_on_request_headers"
ALL = ("debug", "debug", "info", "warning", "error", "critical")


def test_levels(run, lines):
    found = run(HEADERS, *[("proxy_log", level, b"at %d" % level) for level in range(8)], ("proxy_log", -1, b"x"))
    assert [one.status for one in found] == [0] * 6 + [2] * 3
    assert lines.said() == [(name, f"at {level}") for level, name in enumerate(ALL)]


@pytest.mark.parametrize(("log_level", "number"), [("debug", 0), ("info", 2), ("warning", 3), ("error", 4)])
def test_what_is_not_logged_is_not_copied_and_the_level_can_be_asked_for(start_filters, lines, log_level, number):
    rows = [*[("proxy_log", level, b"x") for level in range(6)], ("proxy_get_log_level", OUT)]
    worker = start_filters(Script({HEADERS: rows}), log_level=log_level)
    found = worker.open().runs(HEADERS)
    assert [one.status for one in found] == [0] * 7
    assert found[-1].u32() == number
    assert [level for level, _ in lines.said()] == list(ALL[number:])


@pytest.mark.parametrize(
    ("message", "shown"),
    [(b"", ""), (b"\xff\n", "\\xff\n"), ("é".encode(), "é"), (b"x" * 1024, "x" * 1024), (b"x" * 1025, "x" * 1024)],
)
def test_messages(run, lines, message, shown):
    assert run(HEADERS, ("proxy_log", 2, message))[0].status == 0
    assert lines.said() == [("info", shown)]


def test_a_line_names_filter_callback_and_request(start_filters, lines):
    worker = start_filters(Script({HEADERS: [("proxy_log", 2, b"hi")], "proxy_on_configure": [("proxy_log", 3, b"start")]}))
    opened = worker.open()
    opened.stream.info.request_id = "id-1"
    opened.call(HEADERS)
    assert lines.of("filter_log") == [
        {"filter": "f0", "callback": "proxy_on_configure", "message": "start"},
        {"filter": "f0", "callback": HEADERS, "message": "hi", "request_id": "id-1"},
    ]


@pytest.mark.parametrize("callback", ["proxy_on_context_create", "proxy_on_log", "proxy_on_done", "proxy_on_delete"])
def test_every_callback_may_log(start_filters, lines, callback):
    worker = start_filters(Script({"proxy_on_log": [], callback: [("proxy_log", 2, b"here")]}))
    lines.kept.clear()
    worker.open().call("proxy_on_log")
    assert lines.said() == [("info", "here")]


def test_what_was_refused_is_told_at_debug_and_counted(run, start_filters, lines):
    worker = start_filters(Script({HEADERS: [("proxy_get_header_map_value", 9, b"a", OUT, OUT)] * 3}))
    worker.open().call(HEADERS)
    told = lines.of("host_call_refused")
    assert told[0] == {
        "filter": "f0",
        "function": "proxy_get_header_map_value",
        "status": "BadArgument",
        "argument": "map",
        "reason": "there is no such number",
    }
    errors = worker.instruments.host_call_errors.child(("f0", "proxy_get_header_map_value", "BadArgument"))
    assert errors.value == 3


def test_what_is_merely_not_there_is_no_refusal(start_filters, lines):
    worker = start_filters(Script({HEADERS: [("proxy_get_header_map_value", 0, b"none", OUT, OUT)]}))
    worker.open().call(HEADERS)
    assert lines.of("host_call_refused") == []


@pytest.fixture
def unlimited(monkeypatch):
    """Every refusal is told."""
    monkeypatch.setattr(host, "limited", lambda *key: False)


POINTERS = [row for row in CALLS if any(with_bad_pointers(row))]


@pytest.mark.parametrize("row", POINTERS, ids=[row[0] for row in POINTERS])
def test_a_bad_pointer_is_told_with_its_argument(start_filters, lines, unlimited, row):
    calls = list(with_bad_pointers(row))
    before = [("proxy_define_metric", 0, b"first", OUT), ("proxy_add_header_map_value", 1, b"a", b"b")]
    worker = start_filters(Script({"proxy_on_request_body": [*before, *calls]}))
    worker.open().call("proxy_on_request_body", b"body", True)
    told = lines.of("host_call_refused")
    assert len(told) == len(calls)
    assert {(line["function"], line["status"]) for line in told} == {(row[0], "InvalidMemoryAccess")}
    assert {line["reason"] for line in told} == {"is not in the filter's memory, or has more than 4 MiB"}
    assert all(line["argument"] for line in told)
    assert worker.instruments.host_call_errors.child(("f0", row[0], "InvalidMemoryAccess")).value == len(calls)


REFUSALS = (
    (("proxy_log", 9, b"x"), "level"),
    (("proxy_get_header_map_value", 2, b"a", OUT, OUT), "map"),
    (("proxy_add_header_map_value", 8, b"a", b"b"), "map"),
    (("proxy_set_header_map_pairs", 2, b"\0\0\0\0"), "map"),
    (("proxy_get_header_map_size", 5, OUT), "map"),
    (("proxy_get_header_map_pairs", 8, OUT, OUT), "map"),
    (("proxy_get_buffer_bytes", 9, 0, 1, OUT, OUT), "buffer"),
    (("proxy_get_buffer_status", 9, OUT, OUT), "buffer"),
    (("proxy_set_buffer_bytes", 0, 0, 0, b"x"), "buffer"),
    (("proxy_continue_stream", 3), "stream"),
    (("proxy_close_stream", 9), "stream"),
    (("proxy_define_metric", 3, b"m", OUT), "type"),
    (("proxy_increment_metric", 4, 0), "delta"),
    (("proxy_increment_metric", 6, 1), "metric"),
    (("proxy_get_metric", 6, OUT), "metric"),
    (("proxy_get_property", b"request", OUT, OUT), None),
    (("proxy_set_effective_context", 99), None),
    (("proxy_define_metric", 0, b"m" * 600, OUT), None),
    (("proxy_http_call", b"c", b"\0\0\0\0", b"", b"", 1, OUT), None),
    (("proxy_grpc_send", 4, b"m", 0), None),
    (("proxy_grpc_cancel", 4), None),
    (("proxy_get_shared_data", b"k", OUT, OUT, OUT), None),
    (("proxy_call_foreign_function", b"uncompress", b"no", OUT, OUT), None),
)


@pytest.mark.parametrize(("row", "argument"), REFUSALS, ids=lambda value: f"{value[0]}-{value[1]!r}"[:50] if value else "")
def test_every_refusal_has_a_reason(start_filters, lines, unlimited, row, argument):
    before = [("proxy_define_metric", 0, b"counter", OUT), ("proxy_define_metric", 2, b"histogram", OUT)]
    worker = start_filters(Script({HEADERS: [*before, row]}))
    worker.open().call(HEADERS)
    (told,) = lines.of("host_call_refused")
    assert (told["function"], told.get("argument")) == (row[0], argument)
    assert len(told["reason"]) > 5


def test_a_reason_is_not_told_twice(start_filters, lines, unlimited):
    """What the core said of one refusal is not said of the next, which Python explains."""
    worker = start_filters(Script({HEADERS: [("proxy_log", 9, b"x"), ("proxy_set_effective_context", 99)]}))
    worker.open().call(HEADERS)
    first, second = lines.of("host_call_refused")
    assert (first["reason"], "argument" in second) == ("there is no such number", False)
    assert second["reason"].startswith("context: 99 is no context")


def test_what_is_denied_is_told_and_counted(start_filters, lines, load_filters):
    rows = [("proxy_get_property", b"plugin_name", OUT, OUT)] * 5 + [("wasi_unstable.fd_write", 1, 0, 0, OUT)]
    settings = {"capabilities": {"host_functions": ["proxy_log", "proxy_on_*"]}}
    worker = start_filters((Script({"_initialize": [rows[-1]], HEADERS: rows}), settings))
    assert [one.status for one in worker.open().runs(HEADERS)] == [10] * 5 + [76]
    told = lines.of("host_call_denied")
    assert told[0] == {"filter": "f0", "function": "fd_write", "allow": "capabilities.host_functions: [fd_write]"}
    assert {line["function"] for line in told} == {"proxy_get_property", "fd_write"}
    assert len(told) < 7
    denied = worker.instruments.host_call_errors
    assert denied.child(("f0", "proxy_get_property", "Denied")).value == 5
    assert denied.child(("f0", "fd_write", "Denied")).value == 2
    assert lines.of("host_call_refused") == []


def test_callbacks_that_can_never_be_called_are_told_at_load(load_filters, lines, monkeypatch):
    monkeypatch.setattr(load, "log", lines)
    load_filters("""(module (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1")) (func (export "malloc") (param i32) (result i32) (i32.const 8))
      (func (export "proxy_on_request_header") (param i32 i32 i32) (result i32) (i32.const 0))
      (func (export "proxy_on_new_connection") (param i32) (result i32) (i32.const 0))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))""")
    (told,) = lines.of("callbacks_never_called")
    assert [name.split()[0] for name in told["callbacks"]] == ["proxy_on_request_header", "proxy_on_new_connection"]
