"""What `penstock check` and the start of `penstock run` refuse beyond the config's own text."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.chain.chains import FilterStartError
from proxy.config.load import load
from proxy.server.assembly import prepare_filters, start_filters, start_problem
from proxy.server.check import check, prepare

ROOT = Path(__file__).parents[2]
PROBE = ROOT / "tests/conformance/probe/probe.wasm"
CONFIG = """\
listeners:
  - address: "127.0.0.1:0"
    tls:
      certificate: {certificate}
      private_key: {private_key}
clusters:
  - name: service
    endpoints: ["127.0.0.1:9000"]
    tls:
      ca: {ca}
routes: [{{match: {{prefix: /}}, cluster: service}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two certificates with their keys, an encrypted key, and files that are neither."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("a", "b"):
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", *files]
        subprocess.run(command, check=True, capture_output=True)
    command = ["openssl", "rsa", "-aes128", "-passout", "pass:secret", "-in", "a.key", "-out", "locked.key"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    (folder / "text").write_text("cert")
    (folder / "empty").write_text("")
    (folder / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return folder


GOOD = {"certificate": "a.pem", "private_key": "a.key", "ca": "b.pem"}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, None),
        ({"certificate": "text"}, ":4: listeners[0].tls.certificate: holds no usable certificate"),
        ({"certificate": "empty"}, ":4: listeners[0].tls.certificate: holds no usable certificate"),
        ({"certificate": "broken"}, ":4: listeners[0].tls.certificate: holds no usable certificate"),
        ({"certificate": "a.key"}, ":4: listeners[0].tls.certificate: holds no usable certificate"),
        ({"private_key": "b.key"}, ":5: listeners[0].tls.private_key: is not the key of the certificate; name"),
        ({"private_key": "a.pem"}, ":5: listeners[0].tls.private_key: holds no usable key"),
        ({"private_key": "text"}, ":5: listeners[0].tls.private_key: holds no usable key"),
        ({"private_key": "locked.key"}, ":5: listeners[0].tls.private_key: is encrypted; name a key without passphrase"),
        ({"ca": "text"}, ":10: clusters[0].tls.ca: holds no usable certificate"),
        ({"ca": "empty"}, ":10: clusters[0].tls.ca: holds no usable certificate"),
        ({"ca": "a.key"}, ":10: clusters[0].tls.ca: holds no usable certificate"),
    ],
)
def test_tls_files(folder: Path, change: dict[str, str], found: str | None) -> None:
    path = folder / "c.yaml"
    path.write_text(CONFIG.format(**{**GOOD, **change}))
    problems = [str(problem) for problem in prepare(load(path))]
    assert len(problems) == (found is not None)
    if found is not None:
        assert problems[0].startswith(f"{path}{found}")
        assert "; name " in problems[0]


def load_with_filter(folder: Path, settings: str) -> Any:
    path = folder / "c.yaml"
    text = CONFIG.replace("    tls:\n      certificate: {certificate}\n      private_key: {private_key}\n", "")
    text = text.replace("    tls:\n      ca: {ca}\n", "").replace("{{", "{").replace("}}", "}")
    path.write_text(f"{text}filters:\n  - name: probe\n    wasm: {PROBE}\n    capabilities: {{host_functions: {settings}}}\n")
    return load(path)


@pytest.mark.parametrize(
    ("pattern", "mend"),
    [
        ("proxy_get_*", None),
        ("proxy_on_request_headers", None),
        ("fd_write", None),
        ("'*'", None),
        ("proxy_lgo", "write proxy_log"),
        ("proxy_get_hedaer_map_value", "write proxy_get_header_map_value"),
        ("kv.*", None),
        ("http-client.send", None),
        ("kv.gett", "write kv.get"),
        ("prxy_*", "write a function of the proxy-wasm ABI, of WASI or of components, such as proxy_get_* or kv.*"),
    ],
)
def test_host_functions_that_do_not_exist(tmp_path: Path, pattern: str, mend: str | None) -> None:
    config = load_with_filter(tmp_path, f"[proxy_log, {pattern}]")
    place = f"{tmp_path / 'c.yaml'}:10: filters[0].capabilities.host_functions[1]"
    expected = [] if mend is None else [f'{place}: "{pattern}" is no host function; {mend}']
    assert [str(one) for one in prepare(config)] == expected
    if mend is not None:
        assert check(config) == expected


def test_the_configuration_of_a_route_that_a_filter_refuses(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "listeners: [{address: '127.0.0.1:8080'}]\n"
        "clusters: [{name: service, endpoints: ['127.0.0.1:9000']}]\n"
        "routes:\n"
        "  - {match: {prefix: /a}, cluster: service, filters: {probe: {config: name A}}}\n"
        "  - {match: {prefix: /}, cluster: service, filters: {probe: {config: 'configure: ret 0'}}}\n"
        f"filters: [{{name: probe, wasm: {PROBE}}}]\n"
    )
    config = load(path)
    assert not prepare_filters(config)
    (problem,) = start_filters(config)
    place = f"{path}:5: routes[1].filters.probe: "
    assert str(problem) == f"{place}filter probe did not start: proxy_on_configure returned false; mend the filter's config"


@pytest.mark.parametrize(
    ("cause", "mend"),
    [
        ("", "mend the filter's config"),
        ("fuel", "mend the filter or its config, or raise limits.start_fuel"),
        ("deadline", "mend the filter or its config, or raise limits.start_deadline"),
        ("trap", "mend the filter or its config"),
    ],
)
def test_what_to_do_about_a_filter_that_does_not_start(tmp_path: Path, cause: str, mend: str) -> None:
    config = load_with_filter(tmp_path, "['*']")
    error = FilterStartError(0, "probe", "proxy_on_configure: why", ["said"], cause)
    text = str(start_problem(config, error))
    assert text == (
        f"{tmp_path / 'c.yaml'}:8: filters[0]: filter probe did not start: proxy_on_configure: why; it logged: said; {mend}"
    )
