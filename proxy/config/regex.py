"""Regular expressions of the config: RE2's, as in Envoy's `safe_regex`.

They meet what clients send, so they must not be able to run away: RE2 takes time that is linear in the text, where Python's
`re` may take time that is exponential in it. RE2 has no backreferences and no lookaround.
"""

from collections.abc import Callable

import re2  # type: ignore[import-untyped]


class RegexError(ValueError):
    """Not a regular expression of RE2; the text says why, and holds parts of it."""


def compile_regex(pattern: str) -> Callable[[str], object]:
    """A function that gives something true for a text that the expression matches as a whole.

    Expression and text are UTF-8, as Envoy's are: bytes of a text that are not (surrogates here) match nothing. Raises
    RegexError.
    """
    options = re2.Options()
    options.log_errors = False  # the library would write to stderr
    options.never_capture = True
    try:
        fullmatch = re2.compile(pattern.encode("utf-8", "surrogateescape"), options).fullmatch
    except re2.error as error:
        raise RegexError(reason(error)) from None
    return lambda text: fullmatch(text.encode("utf-8", "surrogateescape"))


def reason(error: Exception) -> str:
    [why] = error.args
    return why.decode("utf-8", "backslashreplace") if isinstance(why, bytes) else str(why)
