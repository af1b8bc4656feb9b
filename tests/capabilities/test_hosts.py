"""Hosts brought into one form, or refused with the reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.capabilities.hosts import HostError, join, normalise, split


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", (None, "a", None)),
        ("A.b:80", (None, "a.b", 80)),
        ("HTTPS://A.b./", ("https", "a.b", None)),
        ("http://[2001:DB8:0::1]:65535", ("http", "2001:db8::1", 65535)),
        ("http://bücher.example:1", ("http", "xn--bcher-kva.example", 1)),
        ("10.0.0.1", (None, "10.0.0.1", None)),
        ("a_b.1x", (None, "a_b.1x", None)),
    ],
)
def test_split(text: str, parts: tuple[str | None, str, int | None]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a" * 600, "too long"),
        ("a" * 300, "not a host"),
        ("user@a", "character"),
        ("a\tb", "character"),
        ("a\0", "character"),
        ("a\\b", "character"),
        ("a%62", "character"),
        ("a b", "character"),
        ("é\r\nb", "character"),
        ("ftp://a", "scheme"),
        ("://a", "scheme"),
        ("http://a//", "path"),
        ("a/", "path"),
        ("//a", "path"),
        ("http://a/b", "path"),
        ("a:0", "port"),
        ("a:", "port"),
        ("a:65536", "port"),
        ("::1", "port"),
        ("[::1]1", "behind its bracket"),
        ("[::1", "IPv6|not a host"),
        ("[10.0.0.1]", "IPv6"),
        ("[v1.a]", "IPv6"),
        ("127.1", "odd spelling"),
        ("127.0.0.1.", "odd spelling"),
        ("0x7f000001", "odd spelling"),
        ("0X7F.1", "odd spelling"),
        ("a.0x", "odd spelling"),
        ("2130706433", "odd spelling"),
        ("127.0.0.256", "odd spelling"),
        ("①②⑦.⓪.⓪.①", "odd spelling"),
        ("127。0。0。1", "odd spelling"),
        ("a..b", "not a host"),
        ("-a", "not a host"),
        ("", "not a host"),
        (".", "not a host"),
        ("é..b", "international"),
        ("\udcff", "international"),
    ],
)
def test_what_is_no_host(text: str, reason: str) -> None:
    with pytest.raises(HostError, match=reason):
        split(text)


@given(st.text("aB1.-_é。①ßx:[]f0", max_size=20))
def test_the_form_is_final(text: str) -> None:
    """What was normalised is normalised to itself, and is plain ASCII."""
    try:
        host = normalise(text)
    except HostError:
        return
    assert host.isascii()
    assert host == host.lower()
    assert normalise(join(host)) == host
    assert split(join(host, 443)) == (None, host, 443)
