"""Durations, sizes and rates: what is written, what is read, and back."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.config.problem import WrongValueError
from proxy.config.secrets import Secret
from proxy.config.units import (
    BYTES,
    LARGEST,
    LONGEST,
    SECONDS,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("10s", 10.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1us", 1e-6),
        ("0.1s", 0.1),
        ("1.5m", 90.0),
        ("0s", 0.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "250ms"), (60.0, "1m"), (90.0, "90s"), (0.0, "0s"), (1e-6, "1us"), (1e-7, "0.0000001s")],
)
def test_durations_are_written_with_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("text", "size"), [("0B", 0), ("8KiB", 8192), ("16MiB", 1 << 24), ("1.5KiB", 1536), ("1GiB", 1 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


NONSENSE = ["", " ", "s", "10", "-1s", "-1B", "+1s", "1e3s", "1 s", " 1s", "1s ", "1s\n", ".5s", "5.s"]
NONSENSE += ["\N{ARABIC-INDIC DIGIT THREE}s", "1,5s", "infs", "nan", "9" * 30 + "s"]


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_rate])
@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_refused(parse: object, text: str) -> None:
    with pytest.raises(WrongValueError):
        parse(text)  # type: ignore[operator]


@given(st.floats(0, LONGEST).filter(lambda seconds: seconds == 0 or seconds >= 1e-12))
@example(0.1)
@example(LONGEST)
def test_every_duration_survives_being_written(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 8760), st.sampled_from(sorted(SECONDS)))
def test_written_durations_keep_their_worth(count: int, unit: str) -> None:
    seconds = parse_duration(f"{count}{unit}")
    assert seconds == float(count * SECONDS[unit])
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, LARGEST))
def test_every_size_survives_being_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 1024), st.sampled_from(sorted(BYTES)))
def test_written_sizes_keep_their_worth(count: int, unit: str) -> None:
    assert parse_size(f"{count}{unit}") == count * BYTES[unit]


@given(st.integers(0, 10**12 - 1))
def test_every_rate_survives_being_written(rate: int) -> None:
    assert parse_rate(format_rate(rate)) == rate


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_rate):
        try:
            amount, said = parse(text), ""
        except WrongValueError as error:
            amount, said = 0, error.problem + error.mend
        assert amount >= 0
        assert "\n" not in said


def test_the_digits_of_a_secret_are_not_shown() -> None:
    with pytest.raises(WrongValueError) as raised:
        parse_duration(Secret("4711"))
    assert "4711" not in raised.value.problem + raised.value.mend
