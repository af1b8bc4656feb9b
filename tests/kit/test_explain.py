"""One request through a config's chain, told callback by callback."""

from pathlib import Path

import yaml
from click.testing import CliRunner

from proxy.cli.main import main

QUICKSTART = Path(__file__).parents[2] / "config" / "quickstart.yaml"


def explain(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["explain", *map(str, arguments)])
    return done.exit_code, done.output


def test_quickstart() -> None:
    """Each filter's callbacks in order, with host calls, changes of heads, and both messages."""
    answer = ("--answer-header", "content-type: text/html", "--answer", "<body>hi</body>")
    status, text = explain(QUICKSTART, "/x?y", "-u", "ada:lovelace", *answer)
    assert status == 0, text
    at = -1
    for part in (
        "GET /x?y for 127.0.0.1:8080",
        "basic-auth  proxy_on_request_headers  fuel ",
        'proxy_remove_header_map_value(request_headers, "authorization") -> Ok',
        "request - authorization: Basic YWRhOmxvdmVsYWNl",
        "request + x-auth-user: ada",
        "header-rewrite  proxy_on_request_headers",
        "request + x-greeting: hello ada",
        "body-rewrite  proxy_on_response_headers",
        "response - content-length: 15",
        "response body - '<body>hi</body>' (15 bytes)",
        "response body + '<body>hi<p>This line is from body-rewrite.</p>",
        "upstream gets\n    GET /x?y HTTP/1.1",
        "client gets\n    HTTP/1.1 200 OK",
        "<body>hi<p>This line is from body-rewrite.</p>",
        "outcome: answered by the service",
    ):
        assert text.find(part, at + 1) > at, (part, text)
        at = text.find(part, at + 1)


def test_local_reply() -> None:
    """Who answered, and that the service got nothing."""
    status, text = explain(QUICKSTART, "http://example.com/")
    assert status == 0
    assert "GET / for example.com" in text
    assert "upstream gets nothing" in text
    assert "outcome: answered here of basic-auth (basic_auth_no_credentials)" in text


def test_calls_routes_and_pauses(guest: Path, tmp_path: Path) -> None:
    """A filter's call is answered as the options say; a route may switch a filter off."""
    config = tmp_path / "gateway.yaml"
    routes = [
        {"name": "bare", "match": {"prefix": "/bare"}, "cluster": "service", "filters": {"guest": {"enabled": False}}},
        {"name": "all", "match": {"prefix": "/all"}, "cluster": "service"},
    ]
    whole = {
        "listeners": [{"address": "127.0.0.1:8080"}],
        "clusters": [{"name": name, "endpoints": ["127.0.0.1:9"]} for name in ("service", "auth")],
        "routes": routes,
        "filters": [{"name": "guest", "wasm": str(guest)}],
    }
    config.write_text(yaml.safe_dump(whole))
    asks = ("-H", "x-do: call")
    _, text = explain(config, "/all", *asks, "--call", "auth=200:yes")
    assert "calls\n    GET /check to auth" in text
    assert "outcome: answered by the service; held " in text
    _, text = explain(config, "/all", *asks)
    assert "guest: warning: answer: 503" in text
    assert "outcome: answered here of guest (refused)" in text
    _, text = explain(config, "/bare")
    assert "guest  was not called" in text
    _, text = explain(config, "/none")
    assert "route none, cluster none" in text
    assert "outcome: answered here (route_not_found)" in text


def test_a_config_that_does_not_load(guest: Path, tmp_path: Path) -> None:
    """As `penstock check` says it: the line, the key, what to write."""
    config = tmp_path / "gateway.yaml"
    start = "listeners: [{address: '127.0.0.1:8080'}]\nclusters: [{name: a, endpoints: ['127.0.0.1:9']}]\n"
    routes = "routes: [{match: {prefix: /}, cluster: a}]\n"
    config.write_text(start + routes + f"filters: [{{name: g, wasm: {config}}}]\n")
    status, text = explain(config, "/")
    assert (status, text.startswith(f"{config}:4: filters[0].wasm: not a WebAssembly file")) == (2, True), text
    config.write_text(start + routes + f"filters: [{{name: g, wasm: {guest}, config: 'no'}}]\n")
    status, text = explain(config, "/")
    assert (status, f"{config}:4: filters[0]: filter g did not start" in text) == (2, True), text
    assert text.endswith("; mend the filter's config\n")


def test_wrong_use() -> None:
    """Exit status 2."""
    wrong = (("x",), ("/", "-H", "x"), ("/", "--call", "x"), ("/", "-H", "host: a", "-H", "host: b"))
    assert [explain(QUICKSTART, *one)[0] for one in wrong] == [2, 2, 2, 2]
