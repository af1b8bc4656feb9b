"""What RE2 refuses is an error of the config."""

import pytest

from proxy.config.regex import RegexError, compile_regex


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"/(a)\1", r"invalid escape sequence: \1"),
        ("/(?=a)", "invalid perl operator: (?="),
        ("/(?<!a)b", "invalid perl operator: (?<!"),
        ("/a{2000}", "invalid repetition size: {2000}"),
        ("/\udce9", "invalid UTF-8"),
    ],
)
def test_what_re2_refuses(pattern: str, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RegexError) as error:
        compile_regex(pattern)
    assert str(error.value) == why
    assert capfd.readouterr().err == ""
