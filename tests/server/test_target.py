"""One form of a path. The cases marked in ENVOY were asked of Envoy 1.40 with normalize_path."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.server.target import TargetError, is_plain, normalised

ENVOY: dict[str, str] = {
    "/a/../b": "/b",
    "/a/./b": "/a/b",
    "/a/b/..": "/a/",
    "/a/b/.": "/a/b/",
    "/../a": "/a",
    "/..": "/",
    "/a/%2e%2e/b": "/b",
    "/a/%2E/b": "/a/b",
    "/a/.%2e/b": "/b",
    "/%61dmin": "/admin",
    "/a%2fb": "/a%2fb",
    "/a%5cb": "/a%5cb",
    "/a%zz": "/a%zz",
    "/a%2": "/a%2",
    "/a//b": "/a//b",
    "//a": "//a",
    "/a//../b": "/a/b",
    "/a;x/../b": "/b",
    "/a?x=/../y": "/a?x=/../y",
    "/a/b/...": "/a/b/...",
    "/a/..b/c": "/a/..b/c",
    "/%7euser": "/~user",
    "/a%41": "/aA",
    "/a%20b": "/a%20b",
    "/a%3fb": "/a%3fb",
    "/a%c3%a9": "/a%c3%a9",
    "/a/%2e": "/a/",
    "/a?%00": "/a?%00",
    "/a%27b": "/a%27b",
    "/a%252e%252e/b": "/a%252e%252e/b",
}
OURS: dict[str, str] = {
    "http://h/a/../b?c": "http://h/b?c",
    "http://h": "http://h",
    "http://h?x=/../%41": "http://h?x=/../%41",
    "*": "*",
    "a:80": "a:80",
    "/a?b\\c": "/a?b\\c",
}
REFUSED = [
    "/a%00b", "/a%0ab", "/a%0Db", "/a\\b", "/a\\..\\b", "/a/..;/b", "/a/.;x/b", "/a/..%2fb", "/%2e%2e%2Fb", "/a/%2e%5cb",
    "/a%2f../b", "/%%32e%%32e/b", "/%2%65", "/a%5C..", "/caf\udcc3\udca9", "/a?\udcff", "http://h/a\\b", "http://h/%00",
]  # fmt: skip


@pytest.mark.parametrize(("target", "wanted"), [*ENVOY.items(), *OURS.items()])
def test_normalised(target: str, wanted: str) -> None:
    assert normalised(target) == wanted
    assert not is_plain(target) or target == wanted


@pytest.mark.parametrize("target", REFUSED)
def test_refused(target: str) -> None:
    assert not is_plain(target)
    with pytest.raises(TargetError) as refused:
        normalised(target)
    assert "%" not in str(refused.value)


TEXTS = ["/", ".", "..", "%2e", "%2E", "%2f", "%5c", ";", "a", "%61", "%25", "?", "%", "2", "%32", "%65"]
PIECES = st.lists(st.sampled_from(TEXTS), max_size=12)


@given(PIECES)
def test_laws(pieces: list[str]) -> None:
    """What comes out is what comes out of it again, has no dot segment in any reading, and keeps its query."""
    target = "/" + "".join(pieces)
    try:
        found = normalised(target)
    except TargetError:
        return
    assert normalised(found) == found
    path, question, query = found.partition("?")
    assert (question, query) == target.partition("?")[1:]
    assert path.startswith("/")
    read = re.split(r"/|%2f|%5c", re.sub("%2e", ".", path, flags=re.IGNORECASE), flags=re.IGNORECASE)
    assert not {".", ".."} & {segment.partition(";")[0] for segment in read}
