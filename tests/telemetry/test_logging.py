import json
import logging
import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.telemetry import logging as logs

HOSTILE = "a\r\n\x1b[31m\x00\x7f\x9b\u2028\u202e\ud800 b"


def test_json_line(logged):
    lines = logged()
    logs.get_logger("part", fixed=1).warning("it happened", detail="x", nothing=None)
    [line] = lines
    entry = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry.pop("time"))
    assert list(entry.items()) == [
        ("level", "warning"),
        ("event", "it happened"),
        ("logger", "part"),
        ("fixed", 1),
        ("detail", "x"),
        ("nothing", None),
    ]


@pytest.mark.parametrize("format", ["json", "console"])
def test_hostile_text_stays_on_one_printable_line(logged, format):
    lines = logged(format=format)
    logs.get_logger(HOSTILE).error(HOSTILE, value=HOSTILE, listed=[HOSTILE], **{HOSTILE: 1})
    [line] = lines
    assert line.isprintable()


@given(text=st.text(st.characters()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_round_trip(logged, text):
    lines = logged()
    logs.get_logger("x").info(text, value=text)
    assert lines[-1].isascii()
    entry = json.loads(lines[-1])
    assert (entry["event"], entry["value"]) == (text, text)


@given(text=st.text(st.characters()))
def test_printable_has_no_controls_and_keeps_the_rest(text):
    escaped = logs.printable(text)
    assert all(unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in escaped)
    if text.isprintable():
        assert escaped == text


def test_exception_text_cannot_pass_for_a_line(logged):
    for format in ("json", "console"):
        lines = logged(format=format)
        try:
            raise ValueError("x\n2026-01-01T00:00:00Z [info] forged\x1b")
        except ValueError:
            logs.get_logger("x").exception("failed")
        [entry] = lines
        if format == "json":
            assert "\n" not in entry
            assert "forged" in json.loads(entry)["exception"]
        else:
            first, *rest = entry.split("\n")
            assert "failed" in first
            assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_level(logged):
    lines = logged("warning")
    log = logs.get_logger("x")
    log.info("no")
    log.warning("yes")
    assert [json.loads(line)["event"] for line in lines] == ["yes"]


def test_unknown_level():
    with pytest.raises(ValueError, match="unknown log level"):
        logs.configure("loud")


def test_stdlib_is_routed_here_and_limited(logged):
    lines = logged()
    for number in range(500):
        logging.getLogger("aiohttp.server").error("Error handling request %s", f"{number}\x1b")
    assert len(lines) == logs.STDLIB_PER_SECOND
    entry = json.loads(lines[0])
    assert (entry["logger"], entry["level"], entry["event"]) == (
        "aiohttp.server",
        "error",
        "Error handling request 0\x1b",
    )


def test_stdlib_record_with_wrong_arguments(logged):
    lines = logged()
    logging.getLogger("x").error("%d and %d", "one")
    assert json.loads(lines[0])["event"] == "%d and %d"


def test_limited(logged, monkeypatch):
    lines = logged()
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    assert [logs.limited("a", 2) for _ in range(4)] == [False, False, True, True]
    assert not logs.limited("b", 2)
    now[0] += 0.5
    assert not logs.limited("a", 2)
    assert [(json.loads(line)["event"], json.loads(line)["count"]) for line in lines] == [("log lines held back", 2)]
    assert logs.limited("a", 2)


def test_limited_below_one_per_second(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    assert not logs.limited("slow", 0.1)
    now[0] += 5
    assert logs.limited("slow", 0.1)
    now[0] += 6
    logs.buckets["slow"].held_back = 0
    assert not logs.limited("slow", 0.1)


def test_limited_forgets_old_keys():
    for number in range(5000):
        logs.limited(number, 1)
    assert len(logs.buckets) <= logs.MAX_LIMITED_KEYS
    logs.buckets.clear()
