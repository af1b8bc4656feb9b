"""allowed_hosts: what an entry means, what a filter may write, and where a name may lead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.capabilities.addresses import OwnAddresses
from proxy.capabilities.allowed_hosts import AllowedHosts, DeniedError, EntryError

PUBLIC = "93.184.216.34"


def verdict(entries: list[str], upstream: str, scheme: str | None = None) -> str:
    """What is called, "" if nothing is."""
    try:
        target = AllowedHosts(entries).target(upstream, scheme)
    except DeniedError:
        return ""
    return f"{target.scheme}://{target.endpoint}"


API = "https://api.example.com"
API_443 = "https://api.example.com:443"
API_80 = "http://api.example.com:80"


@pytest.mark.parametrize(
    ("entry", "upstream", "called"),
    [
        # scheme and port are part of the entry
        (API, API, API_443),
        (API, "api.example.com", API_443),
        (API, "api.example.com:443", API_443),
        (API, "https://api.example.com/", API_443),
        (API, "HTTPS://API.EXAMPLE.COM", API_443),
        (API, "http://api.example.com", ""),
        (API, "http://api.example.com:443", ""),
        (API, "https://api.example.com:8443", ""),
        (API, "api.example.com:80", ""),
        ("api.example.com", "api.example.com", API_443),
        ("api.example.com", "http://api.example.com", API_80),
        ("api.example.com", "api.example.com:80", API_80),
        ("api.example.com", "api.example.com:8080", ""),
        ("api.example.com", "https://api.example.com:80", ""),
        ("api.example.com:8443", "https://api.example.com:8443", "https://api.example.com:8443"),
        ("api.example.com:8443", "api.example.com:8443", "http://api.example.com:8443"),
        ("https://api.example.com:8443", "api.example.com:8443", "https://api.example.com:8443"),
        ("api.example.com:8443", "api.example.com", ""),
        ("http://api.example.com", "api.example.com", API_80),
        # one form of a name
        (API, "Api.Example.COM.", API_443),
        ("https://API.example.com.", "https://api.example.com", API_443),
        (API, "https://api.example.com..", ""),
        (API, "https://api。example.com", API_443),
        ("https://bücher.example", "https://xn--bcher-kva.example", "https://xn--bcher-kva.example:443"),
        ("https://xn--bcher-kva.example", "https://BÜCHER.example", "https://xn--bcher-kva.example:443"),
        ("https://straße.example", "https://strasse.example", ""),
        (API, "https://apі.example.com", ""),  # a Cyrillic letter
        (API, "https://api.example.com.evil.test", ""),
        (API, "https://evil-api.example.com", ""),
        (API, "https://x.api.example.com", ""),
        # wildcards
        ("https://*.example.com", "https://a.example.com", "https://a.example.com:443"),
        ("https://*.example.com", "https://a.b.c.example.com", "https://a.b.c.example.com:443"),
        ("https://*.example.com", "https://example.com", ""),
        ("https://*.example.com", "https://aexample.com", ""),
        ("https://*.example.com", "https://.example.com", ""),
        ("https://*.example.com", "https://a..example.com", ""),
        ("https://*.example.com", "https://a.example.com.evil.test", ""),
        ("https://*.example.com", "http://a.example.com", ""),
        ("*.internal.example.com:8443", "https://a.internal.example.com:8443", "https://a.internal.example.com:8443"),
        ("*.example.com", "https://*.example.com", ""),
        # what a host cannot have
        (API, "https://api.example.com@evil.test", ""),
        (API, "https://evil.test@api.example.com", ""),
        (API, "https://user:password@api.example.com", ""),
        (API, "https://api.example.com\t.evil.test", ""),
        (API, "https://api.example.com\r\nhost: evil.test", ""),
        (API, "https://api.example.com\0.evil.test", ""),
        (API, "https://api.example.com\\@evil.test", ""),
        (API, "https://api.example.com#@evil.test", ""),
        (API, "https://api.example.com?x", ""),
        (API, "https://api.example.com/path", ""),
        (API, "https://api%2eexample.com", ""),
        (API, "https://api.example.com%00", ""),
        (API, " https://api.example.com", ""),
        (API, "https://api.example.com ", ""),
        (API, "//api.example.com/", ""),
        (API, "//api.example.com", ""),
        (API, "https:api.example.com", ""),
        (API, "https:///api.example.com", ""),
        (API, "ftp://api.example.com", ""),
        (API, "unix:///run/socket", ""),
        (API, "https://", ""),
        (API, "", ""),
        (API, "https://api.example.com:0", ""),
        (API, "https://api.example.com:", ""),
        (API, "https://api.example.com:0443", ""),
        (API, "https://api.example.com:65979", ""),
        (API, "https://api.example.com:443:443", ""),
        (API, "https://api.example.com:+443", ""),
        (API, "https://api.example.com:４４３", ""),
        (API, "https://" + "a." * 200 + "example.com", ""),
        ("*.example.com", "https://" + "a" * 64 + ".example.com", ""),
        (API, "https://api.example.com\udcff", ""),
        # addresses are listed as themselves, spelt plainly
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001", ""),
        ("http://127.0.0.1", "http://127.1", ""),
        ("http://127.0.0.1", "http://127.0.1", ""),
        ("http://127.0.0.1", "http://0177.0.0.1", ""),
        ("http://127.0.0.1", "http://127.0.0.01", ""),
        ("http://127.0.0.1", "http://0x7f.0.0.1", ""),
        ("http://127.0.0.1", "http://0x7f000001", ""),
        ("http://127.0.0.1", "http://2130706433", ""),
        ("http://127.0.0.1", "http://127.0.0.1.", ""),
        ("http://127.0.0.1", "http://①②⑦.⓪.⓪.①", ""),
        ("http://127.0.0.1", "http://127。0。0。1", ""),
        ("http://127.0.0.1", "http://１２７.0.0.1", ""),
        ("http://127.0.0.1", "http://[::ffff:127.0.0.1]", ""),
        ("http://[::1]", "http://[::1]", "http://[::1]:80"),
        ("http://[::1]", "http://[0:0:0:0:0:0:0:1]", "http://[::1]:80"),
        ("http://[::1]", "http://::1", ""),
        ("http://[fe80::1]", "http://[fe80::1%25eth0]", ""),
        ("http://[::1]", "http://[::1]x", ""),
        ("http://[::1]", "http://[::1", ""),
        ("http://[::1]:80", "[::1]:80", "http://[::1]:80"),
        ("10.0.0.0/8", "http://10.0.0.1", ""),
        ("*.0.0.127.example", "http://127.0.0.1", ""),
        ("*.com", "https://0", ""),
    ],
)
def test_what_may_be_called(entry: str, upstream: str, called: str) -> None:
    assert verdict([entry], upstream) == called


@pytest.mark.parametrize(
    ("upstream", "scheme", "called"),
    [
        ("api.example.com", "http", API_80),
        ("api.example.com", "https", API_443),
        ("api.example.com", "ftp", API_443),
        ("api.example.com", "", API_443),
        ("https://api.example.com", "http", API_443),
    ],
)
def test_the_request_may_give_the_scheme(upstream: str, scheme: str, called: str) -> None:
    assert verdict(["api.example.com"], upstream, scheme) == called


def test_nothing_is_allowed_without_an_entry() -> None:
    allowed = AllowedHosts()
    with pytest.raises(DeniedError):
        allowed.check_cluster("auth")
    with pytest.raises(DeniedError):
        allowed.target("https://api.example.com")


def test_a_cluster_is_allowed_by_its_exact_name() -> None:
    allowed = AllowedHosts(["cluster:auth"])
    allowed.check_cluster("auth")
    with pytest.raises(DeniedError) as denied:
        allowed.check_cluster("Auth")
    assert denied.value.line == 'capabilities: {allowed_hosts: ["cluster:Auth"]}'


@pytest.mark.parametrize(
    ("entries", "upstream", "line"),
    [
        ([], "https://api.example.com", 'capabilities: {allowed_hosts: ["https://api.example.com"]}'),
        ([], "api.example.com:8080", 'capabilities: {allowed_hosts: ["http://api.example.com:8080"]}'),
        ([API], "http://API.example.com.", 'capabilities: {allowed_hosts: ["http://api.example.com"]}'),
        ([], "http://[2600::1]:9000", 'capabilities: {allowed_hosts: ["http://[2600::1]:9000"]}'),
        ([], "http://[::1]:9000", ""),
        ([], "http://169.254.169.254", ""),
        ([], "a@b", ""),
    ],
)
def test_a_denial_carries_the_line_that_allows(entries: list[str], upstream: str, line: str) -> None:
    with pytest.raises(DeniedError) as denied:
        AllowedHosts(entries).target(upstream)
    assert denied.value.line == line
    assert ("to allow it" in str(denied.value)) == bool(line)


def test_a_denial_keeps_what_the_filter_wrote_on_one_line() -> None:
    with pytest.raises(DeniedError) as denied:
        AllowedHosts().target("a\r\nlevel: error " + "x" * 400)
    assert "\n" not in str(denied.value)
    assert len(str(denied.value)) < 250


@pytest.mark.parametrize(
    "entry",
    [
        "*", "*.", "a.*.com", "*a.com", "*.*.com", "ftp://a", "user@a", "a:0", "a:65536", "127.1", "*.127.0.0.1", "*.[::1]",
        "10.0.0.1/8", "10.0.0.0/33", "https://10.0.0.0/8", "", "a b", "https://a/b", "[::1", "a..b",
    ],
)  # fmt: skip
def test_an_entry_that_says_nothing_is_refused(entry: str) -> None:
    with pytest.raises(EntryError):
        AllowedHosts([entry])


@pytest.mark.parametrize(
    ("authority", "fits"),
    [
        ("api.example.com", True),
        ("API.example.com.", True),
        ("api.example.com:8443", True),
        ("api.example.com:443", False),
        ("evil.test", False),
        ("api.example.com,evil.test", False),
        ("x@api.example.com", False),
        ("https://api.example.com", False),
        ("", False),
    ],
)
def test_the_authority_must_be_the_host_that_is_called(authority: str, fits: bool) -> None:
    allowed = AllowedHosts(["https://api.example.com:8443"])
    target = allowed.target("https://api.example.com:8443")
    if fits:
        allowed.check_authority(target, authority)
    else:
        with pytest.raises(DeniedError):
            allowed.check_authority(target, authority)


@pytest.mark.parametrize(
    ("entries", "addresses", "entry"),
    [
        ([], [PUBLIC], None),
        ([], [PUBLIC, "2606:2800:220:1::1"], None),
        ([], ["10.1.2.3"], "10.1.2.3/32"),
        ([], [PUBLIC, "10.1.2.3"], "10.1.2.3/32"),
        ([], ["10.1.2.3", PUBLIC], "10.1.2.3/32"),
        (["10.0.0.0/8"], ["10.1.2.3"], None),
        (["10.0.0.0/8"], ["10.1.2.3", "192.168.0.1"], "192.168.0.1/32"),
        (["10.0.0.0/8"], ["::ffff:10.1.2.3"], "::ffff:a01:203/128"),
        (["::ffff:0:0/96"], ["::ffff:10.1.2.3"], "::ffff:a01:203/128"),
        (["::ffff:0:0/96", "10.0.0.0/8"], ["::ffff:10.1.2.3"], None),
        (["64:ff9b::/96"], ["64:ff9b::5db8:d822"], None),
        (["64:ff9b::/96"], ["64:ff9b::7f00:1"], "64:ff9b::7f00:1/128"),
        (["64:ff9b::/96", "169.254.0.0/16"], ["64:ff9b::a9fe:a9fe"], "64:ff9b::a9fe:a9fe/128"),
        (["2002::/16"], ["2002:7f00:1::"], "2002:7f00:1::/128"),
        (["0.0.0.0/0"], ["127.0.0.1"], None),
        (["0.0.0.0/0"], ["169.254.169.254"], "169.254.169.254/32"),
        (["169.254.169.254/32"], ["169.254.169.254"], None),
        (["0.0.0.0/0"], ["0.0.0.0"], ""),
        (["0.0.0.0/0"], ["224.0.0.1"], ""),
        (["0.0.0.0/0"], ["255.255.255.255"], ""),
        (["::/0"], ["fe80::1"], None),
        (["::/0"], ["fe80::1%eth0"], ""),
        (["::/0"], ["10.0.0.1"], "10.0.0.1/32"),
        (["0.0.0.0/0"], [], ""),
        (["0.0.0.0/0"], ["nonsense"], ""),
    ],
)
def test_where_a_name_may_lead(entries: list[str], addresses: list[str], entry: str | None) -> None:
    allowed = AllowedHosts(["https://api.example.com", *entries])
    target = allowed.target("https://api.example.com")
    if entry is None:
        allowed.check(target, addresses, OwnAddresses())
        return
    with pytest.raises(DeniedError) as denied:
        allowed.check(target, addresses, OwnAddresses())
    assert denied.value.entry == entry
    if entry and len(addresses) == 1:
        AllowedHosts(["https://api.example.com", *entries, entry]).check(target, addresses, OwnAddresses())


def test_an_address_that_is_listed_is_admitted_as_itself_only() -> None:
    allowed = AllowedHosts(["http://127.0.0.1:9000", "http://api.example.com:9000", "http://0.0.0.0"])
    allowed.check(allowed.target("http://127.0.0.1:9000"), ["127.0.0.1"], OwnAddresses())
    with pytest.raises(DeniedError):
        allowed.check(allowed.target("http://api.example.com:9000"), ["127.0.0.1"], OwnAddresses())
    with pytest.raises(DeniedError):
        allowed.check(allowed.target("http://0.0.0.0"), ["0.0.0.0"], OwnAddresses())


def test_the_gateway_itself_is_never_called() -> None:
    allowed = AllowedHosts(["http://127.0.0.1:8080", "http://127.0.0.1:8081"])
    own = OwnAddresses([("127.0.0.1", 8080)])
    with pytest.raises(DeniedError) as denied:
        allowed.check(allowed.target("http://127.0.0.1:8080"), ["127.0.0.1"], own)
    assert denied.value.entry == ""
    allowed.check(allowed.target("http://127.0.0.1:8081"), ["127.0.0.1"], own)


ALLOWED = AllowedHosts(["https://api.example.com", "*.example.org", "http://127.0.0.1:9000"])


@given(st.text(max_size=60) | st.text("aip.exmlcog:/@[]%\\*017 \t\r\n①。", max_size=60))
def test_whatever_a_filter_writes_is_denied_or_one_of_the_entries(upstream: str) -> None:
    try:
        target = ALLOWED.target(upstream)
    except DeniedError:
        return
    assert target.host == "api.example.com" or target.host.endswith(".example.org") or target.host == "127.0.0.1"
    assert ALLOWED.target(target.entry) == target


@given(st.sampled_from(["https://{}.example.org", "{}.example.org:443"]), st.text("ab-_9ßéÄ。.", min_size=1, max_size=20))
def test_a_denial_names_an_entry_that_allows(form: str, label: str) -> None:
    upstream = form.format(label)
    with pytest.raises(DeniedError) as denied:
        AllowedHosts().target(upstream)
    entry = denied.value.entry
    assert not entry or AllowedHosts([entry]).target(upstream).entry == entry
