import pytest

from tests.abi.guest import OUT, Script

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
    assert told[0] == {"filter": "f0", "function": "proxy_get_header_map_value", "status": "BadArgument"}
    errors = worker.instruments.host_call_errors.child(("f0", "proxy_get_header_map_value", "BadArgument"))
    assert errors.value == 3


def test_what_is_merely_not_there_is_no_refusal(start_filters, lines):
    worker = start_filters(Script({HEADERS: [("proxy_get_header_map_value", 0, b"none", OUT, OUT)]}))
    worker.open().call(HEADERS)
    assert lines.of("host_call_refused") == []
