"""Which route takes which request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.route import Match, Route
from proxy.server.router import Router, bare_host, bare_path


def router(*matches: dict[str, object]) -> Router:
    """A router whose routes are named r0, r1, ..."""
    routes = [{"name": f"r{index}", "match": match, "cluster": "c"} for index, match in enumerate(matches)]
    return Router([Route.model_validate(route) for route in routes])


def matched(
    router: Router,
    method: str = "GET",
    authority: str = "example.com",
    path: str = "/",
    headers: dict[str, str] | None = None,
) -> str | None:
    route = router.match(method, authority, path, (headers or {}).get)
    return None if route is None else route.name


@pytest.mark.parametrize(
    ("match", "path", "takes"),
    [
        ({"prefix": "/"}, "/", True),
        ({"prefix": "/"}, "/any?x=1", True),
        ({"prefix": "/"}, "*", False),
        ({"prefix": "/"}, "example.com:443", False),
        ({"prefix": "/api"}, "/api", True),
        ({"prefix": "/api"}, "/apix", True),
        ({"prefix": "/api"}, "/API", False),
        ({"prefix": "/api/"}, "/api", False),
        ({"prefix": "/api/"}, "/api/x", True),
        ({"prefix": "/api/"}, "/x?/api/", False),
        ({"prefix": "/a/b"}, "/a?/b", False),
        ({"path": "/health"}, "/health", True),
        ({"path": "/health"}, "/health?verbose", True),
        ({"path": "/health"}, "/health#top", True),
        ({"path": "/health"}, "/health/", False),
        ({"path": "/health"}, "/healthy", False),
        ({"path": "/health"}, "/%68ealth", False),
        ({"regex": "/v[0-9]+"}, "/v12", True),
        ({"regex": "/v[0-9]+"}, "/v12?q=/x", True),
        ({"regex": "/v[0-9]+"}, "/v12/x", False),
        ({"regex": "/v[0-9]+"}, "x/v12", False),
        ({"regex": "/a|/b"}, "/b", True),
        ({"regex": "/a|/b"}, "/bc", False),
        ({"regex": "/a$"}, "/a\n", False),
        ({"regex": "/(?i)caf."}, "/CAFé", True),
        ({"regex": "/caf."}, "/caf\udce9", False),
    ],
)
def test_paths(match: dict[str, object], path: str, takes: bool) -> None:
    assert matched(router(match), path=path) == ("r0" if takes else None)


@pytest.mark.timeout(10)
def test_no_regex_takes_longer_than_its_text_is_long() -> None:
    """A backtracking engine needs 2^8000 steps for these."""
    text = "/" + "a" * 8000
    one = router({"regex": "/(a+)+x"}, {"prefix": "/", "headers": {"h": {"regex": "/(a|a)*x"}}})
    assert matched(one, path=text, headers={"h": text}) is None


@pytest.mark.parametrize(
    ("host", "authority", "takes"),
    [
        ("example.com", "example.com", True),
        ("example.com", "EXAMPLE.com:8080", True),
        ("Example.COM", "example.com", True),
        ("example.com", "example.com.", True),
        ("example.com", "example.com.:80", True),
        ("example.com", "www.example.com", False),
        ("example.com", "example.com.evil.test", False),
        ("example.com", "", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.Example.com:1", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "badexample.com", False),
        ("[::1]", "[::1]:8080", True),
        ("[::1]", "[::1]", True),
        ("127.0.0.1", "127.0.0.1:80", True),
    ],
)
def test_hosts(host: str, authority: str, takes: bool) -> None:
    assert matched(router({"prefix": "/", "host": host}), authority=authority) == ("r0" if takes else None)


@pytest.mark.parametrize(("method", "takes"), [("GET", True), ("HEAD", True), ("POST", False), ("get", False)])
def test_methods(method: str, takes: bool) -> None:
    assert matched(router({"prefix": "/", "methods": ["GET", "HEAD"]}), method=method) == ("r0" if takes else None)


@pytest.mark.parametrize(
    ("condition", "value", "takes"),
    [
        ("v2", "v2", True),
        ("v2", "V2", False),
        ("v2", None, False),
        ("", "", True),
        ("", None, False),
        ({"exact": "v2"}, "v2", True),
        ({"regex": "v[0-9]"}, "v2", True),
        ({"regex": "v[0-9]"}, "v22", False),
        ({"regex": ".*"}, None, False),
        ({"present": True}, "", True),
        ({"present": True}, None, False),
        ({"present": False}, None, True),
        ({"present": False}, "x", False),
    ],
)
def test_headers(condition: object, value: str | None, takes: bool) -> None:
    headers = {} if value is None else {"x-version": value}
    found = matched(router({"prefix": "/", "headers": {"X-Version": condition}}), headers=headers)
    assert found == ("r0" if takes else None)


def test_all_conditions_must_hold() -> None:
    one = router({"prefix": "/a", "host": "h", "methods": ["GET"], "headers": {"x": "1", "y": {"present": True}}})
    request = {"method": "GET", "authority": "h", "path": "/a", "headers": {"x": "1", "y": ""}}
    assert matched(one, **request) == "r0"
    for change in (
        {"method": "PUT"},
        {"authority": "g"},
        {"path": "/b"},
        {"headers": {"x": "1"}},
        {"headers": {"y": "1"}},
    ):
        assert matched(one, **{**request, **change}) is None


def test_the_first_match_wins() -> None:
    routes = router({"path": "/a"}, {"prefix": "/a"}, {"prefix": "/", "methods": ["PUT"]}, {"prefix": "/"})
    found = [matched(routes, method, path=path) for method, path in
             [("GET", "/a"), ("GET", "/ab"), ("PUT", "/b"), ("GET", "/b"), ("GET", "*")]]  # fmt: skip
    assert found == ["r0", "r1", "r2", "r3", None]


def test_a_catch_all_in_front_shadows_the_rest_only_for_paths() -> None:
    routes = router({"prefix": "/"}, {"path": "/a"}, {"regex": r"\*"})
    assert [matched(routes, path=path) for path in ("/a", "*")] == ["r0", "r2"]


def test_no_routes_match_nothing() -> None:
    assert matched(router()) is None


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("a", "a"),
        ("A:1", "a"),
        ("a:", "a"),
        ("[::1]:1", "[::1]"),
        ("[::1]", "[::1]"),
        ("::1", "::1"),
        ("", ""),
        ("a.:1", "a"),
    ],
)
def test_bare_host(authority: str, host: str) -> None:
    assert bare_host(authority) == host


@given(st.text(), st.text(), st.text())
def test_any_request_is_matched_or_not(method: str, authority: str, path: str) -> None:
    routes = router({"path": "/a", "host": "*.a.com"}, {"regex": "/(a|b)*", "methods": ["GET"]}, {"prefix": "/c"})
    assert matched(routes, method, authority, path) in ("r0", "r1", "r2", None)


@given(st.text(alphabet="/a?#"))
def test_bare_path_is_what_comes_before_query_and_fragment(path: str) -> None:
    bare = bare_path(path)
    assert path.startswith(bare)
    assert not {"?", "#"} & set(bare)
    assert path == bare or path[len(bare)] in "?#"


def test_a_match_must_name_a_path() -> None:
    with pytest.raises(ValueError, match="needs one of"):
        Match.model_validate({"host": "a"})
