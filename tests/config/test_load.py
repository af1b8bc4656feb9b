"""Config files against what they load as, or what is wrong with them.

Each file in cases/ is a config, a line of dashes, and the expected result: the error lines (`c.yaml:LINE: ...`), or
`loads`. Beside the config there are a few files that it may name: see `site`.
"""

import pickle
from pathlib import Path

import pytest

from proxy.config.load import load
from proxy.config.model import Config
from proxy.config.problem import ConfigErrors

CASES = sorted((Path(__file__).parent / "cases").glob("*.case"))
ENVIRON = {
    "TOKEN": "hunter2",
    "PORT": "9000",
    "WORKERS": "4",
    "ON": "true",
    "DIGITS": "424242",
    "DROP": "drop",
    "BYTES": "caf\udce9",
}
SMALL = """\
listeners: [{address: "127.0.0.1:8080"}]
clusters: [{name: service, endpoints: ["127.0.0.1:9000"]}]
routes: [{match: {prefix: /}, cluster: service}]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a filter, TLS files, secrets, a directory of filters."""
    monkeypatch.chdir(tmp_path)
    for name, data in {
        "filter.wasm": b"\0asm",
        "tls/cert.pem": b"cert",
        "tls/key.pem": b"key",
        "secrets/token": b"s3cret\n",
        "secrets/crlf": b"s3cret\r\n",
        "secrets/binary": b"\xff\xfe",
        "drop/b.wasm": b"\0asm",
        "drop/b.yaml": b"fuel: 7\nconfig: ${file:../secrets/token}\n",
        "drop/a.wasm": b"\0asm",
        "drop/.hidden.wasm": b"",
        "drop/notes.txt": b"",
        "bad/a.wasm": b"\0asm",
        "bad/a.yaml": b"# settings\nfule: 7\nname: b\ncapabilities: {allowed_hosts: ['cluster:nope']}\n",
        "bad/service.wasm": b"\0asm",
        "bad/two words.wasm": b"\0asm",
        "bad/orphan.yaml": b"{}",
        "bad/c.yml": b"{}",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return tmp_path


def load_text(text: str) -> Config:
    path = Path("c.yaml")
    path.write_text(text)
    return load(path, ENVIRON)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_case(case: Path, site: Path) -> None:
    text, expected = case.read_text().split("----------\n")
    try:
        load_text(text)
        result = "loads\n"
    except ConfigErrors as errors:
        result = f"{errors}\n"
    assert result == expected


def test_there_are_cases() -> None:
    assert len(CASES) > 20


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"listeners: \xff", "c.yaml:1: (top level): is not UTF-8 text; save the file as UTF-8"),
        (b"", "c.yaml:1: (top level): is empty; write listeners, clusters and routes, as in config/quickstart.yaml"),
        (
            b"a: 1\nb: \x07",
            "c.yaml:2: (top level): holds a character that YAML does not allow; remove the control character",
        ),
        (b"[" * 5000, "c.yaml:1: (top level): is nested too deeply; write fewer levels"),
    ],
)
def test_what_a_text_file_can_not_hold(data: bytes, expected: str, site: Path) -> None:
    Path("c.yaml").write_bytes(data)
    with pytest.raises(ConfigErrors) as raised:
        load(Path("c.yaml"))
    assert str(raised.value) == expected


@pytest.mark.parametrize(("path", "reason"), [("none.yaml", "does not exist"), (".", "can not be read: Is a directory")])
def test_a_file_that_can_not_be_read(path: str, reason: str, site: Path) -> None:
    with pytest.raises(ConfigErrors) as raised:
        load(Path(path))
    assert str(raised.value).startswith(f"{path}:1: (top level): the file {reason}; ")


def test_aliases_that_stand_for_billions(site: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(ConfigErrors) as raised:
        load_text("\n".join(lines))
    assert "stands for more than 200000 values; use fewer aliases" in str(raised.value)


def test_defaults_are_those_of_the_design(site: Path) -> None:
    config = load_text(SMALL + "filters: [{name: f, wasm: filter.wasm}]")
    listener, filter = config.listeners[0], config.filters[0]
    assert (listener.head_timeout, listener.body_timeout, listener.keepalive_timeout) == (10.0, 30.0, 60.0)
    assert (listener.via, listener.forwarded, listener.request_id) == ("penstock", "append", "keep")
    assert listener.limits.model_dump() == {
        "line": "8KiB", "field": "8KiB", "headers": 100, "head": "60KiB", "body": None
    }  # fmt: skip
    assert (filter.fuel, filter.memory, filter.deadline, filter.on_failure) == (5_000_000, 16 << 20, 0.025, "closed")
    assert (filter.limits.module, filter.limits.log_lines, filter.limits.tick) == (32 << 20, 100, 0.01)
    assert config.admin is not None
    assert (config.admin.address, config.admin.address.host, config.admin.address.port) == (
        "127.0.0.1:9901",
        "127.0.0.1",
        9901,
    )
    assert (config.workers, config.shutdown_grace, config.event_loop) == (1, 10.0, "auto")
    assert config.worker_count() == 1


def test_paths_are_relative_to_the_config_file(site: Path) -> None:
    nested = site / "etc"
    nested.mkdir()
    (nested / "c.yaml").write_text(SMALL + "filters: [{name: f, wasm: ../filter.wasm}]")
    assert load(Path("etc/c.yaml")).filters[0].wasm == Path("filter.wasm"), "and shown without etc/.."
    (site / "links").mkdir()
    (site / "links" / "filter.wasm").write_bytes(b"\0asm")
    (site / "linked").symlink_to(nested)
    (site / "links" / "etc").symlink_to(nested)
    assert load(Path("linked/c.yaml")).filters[0].wasm == Path("filter.wasm")
    beyond = load(Path("links/etc/c.yaml")).filters[0].wasm
    assert beyond == Path("links/etc/../filter.wasm"), "links/filter.wasm is another file"
    assert beyond.samefile(site / "filter.wasm")


def test_what_yaml_1_1_would_read_otherwise(site: Path) -> None:
    config = load_text(
        SMALL
        + "filters: [{name: f, wasm: filter.wasm, fuel: 5_000_000, config: "
        + "{a: off, b: 12:30, c: 2024-01-01, d: 010, e: 0x10, f: 1e3, g: null, h: yes, 404: .5, true: 'x', n: 1.5e-3}}]"
    )
    assert config.filters[0].fuel == 5_000_000
    assert config.filters[0].config_bytes() == (
        b'{"a":"off","b":"12:30","c":"2024-01-01","d":10,"e":16,"f":1000.0,"g":null,"h":"yes","404":0.5,"true":"x","n":0.0015}'
    )


def test_anchors_and_merge_keys(site: Path) -> None:
    config = load_text(
        "listeners:\n"
        "  - &one {address: '127.0.0.1:8080', head_timeout: 1s, via: one}\n"
        "  - {<<: *one, address: '127.0.0.1:8081', via: two}\n"
        "clusters: [{name: service, endpoints: ['127.0.0.1:9000']}]\n"
        "routes: [{match: {prefix: /}, cluster: service}]\n"
    )
    assert [(x.address, x.head_timeout, x.via) for x in config.listeners] == [
        ("127.0.0.1:8080", 1.0, "one"),
        ("127.0.0.1:8081", 1.0, "two"),
    ]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", b""),
        ("config:", b""),
        ("config: as it stands", b"as it stands"),
        ("config: ''", b""),
        ("config: {a: [1, 2.5, true, null], ü: é}", '{"a":[1,2.5,true,null],"ü":"é"}'.encode()),
        ("config: []", b"[]"),
        ("config: {a: 'x ${env:TOKEN} y'}", b'{"a":"x hunter2 y"}'),
        ("config: '$${env:TOKEN} ${other} $5'", b"${env:TOKEN} ${other} $5"),
        ("config: '${file:secrets/token}${env:TOKEN}'", b"s3crethunter2"),
        ("config: '${file:secrets/crlf}'", b"s3cret"),
    ],
)
def test_the_bytes_that_a_filter_reads(written: str, expected: bytes, site: Path) -> None:
    text = SMALL + f"filters:\n  - name: f\n    wasm: filter.wasm\n    {written}\n"
    assert load_text(text).filters[0].config_bytes() == expected
    assert load_text(text.replace("config:", "vm_config:")).filters[0].vm_config_bytes() == expected


@pytest.mark.parametrize(
    ("written", "enabled", "expected"),
    [
        ("{}", True, None),
        ("{enabled: false}", False, None),
        ("{config: }", True, b""),
        ("{config: {a: 1}}", True, b'{"a":1}'),
        ("{config: plain}", True, b"plain"),
    ],
)
def test_a_route_s_own_filter_config(written: str, enabled: bool, expected: bytes | None, site: Path) -> None:
    config = load_text(
        "listeners: [{address: '127.0.0.1:8080'}]\n"
        "clusters: [{name: service, endpoints: ['127.0.0.1:9000']}]\n"
        f"routes: [{{match: {{prefix: /}}, cluster: service, filters: {{f: {written}}}}}]\n"
        "filters: [{name: f, wasm: filter.wasm}]\n"
    )
    own = config.routes[0].filters["f"]
    assert (own.enabled, own.config_bytes()) == (enabled, expected)


def test_references_also_give_numbers_and_switches(site: Path) -> None:
    config = load_text(
        "listeners: [{address: '127.0.0.1:${env:PORT}'}]\n"
        "clusters: [{name: service, endpoints: ['127.0.0.1:1']}]\n"
        "routes: []\nworkers: ${env:WORKERS}\nlog: {access: '${env:ON}'}\n"
        "filters: [{name: f, wasm: filter.wasm, fuel: '${env:PORT}'}]\n"
    )
    assert (config.listeners[0].address.port, config.workers, config.log.access) == (9000, 4, True)
    assert config.filters[0].fuel == 9000


def test_the_filters_directory(site: Path) -> None:
    config = load_text(SMALL + "filters: [{name: z, wasm: filter.wasm}]\nfilters_directory: drop")
    assert [(filter.name, filter.fuel) for filter in config.filters] == [("z", 5_000_000), ("a", 5_000_000), ("b", 7)]
    assert config.filters[2].config_bytes() == b"s3cret"
    assert config.filters[1].wasm == Path("drop/a.wasm")
    assert "s3cret" not in f"{config!r}{config.redacted()}"
    assert str(config.problem(("filters", 2, "fuel"), "p", "m")) == "drop/b.yaml:1: filters[2].fuel: p; m"
    assert str(config.problem(("filters", 1, "wasm"), "p", "m")) == "drop/a.wasm:1: filters[1].wasm: p; m"
    assert str(config.problem(("filters", 0, "wasm"), "p", "m")) == "c.yaml:4: filters[0].wasm: p; m"
    assert str(config.problem(("shutdown_grace",), "p", "m")) == "c.yaml:1: shutdown_grace: p; m"


def test_a_filters_directory_that_is_a_secret(site: Path) -> None:
    config = load_text(SMALL + "filters_directory: ${env:DROP}")
    assert [filter.wasm for filter in config.filters] == [Path("drop/a.wasm"), Path("drop/b.wasm")]
    assert "drop" not in f"{config!r}{config.problem(('filters', 1, 'fuel'), '', '')}"


SECRETIVE = """\
listeners:
  - address: 127.0.0.1:${env:PORT}
    tls: {certificate: tls/cert.pem, private_key: tls/key.pem}
clusters:
  - name: service
    endpoints: ["127.0.0.1:1", "h-${env:TOKEN}:80"]
routes:
  - match: {prefix: "/${env:TOKEN}", headers: {x-key: "${env:TOKEN}", x-other: plain}}
    cluster: service
    filters: {f: {config: {key: "${env:TOKEN}"}}}
filters:
  - name: f
    wasm: filter.wasm
    config: {users: {ada: "${env:TOKEN}", bob: open}, list: [a, "${file:secrets/token}"]}
    vm_config: ${env:TOKEN}
    capabilities: {env: {KEY: "${env:TOKEN}", MODE: strict}}
"""


def test_secrets_are_never_shown(site: Path) -> None:
    config = load_text(SECRETIVE)
    copies = (config, pickle.loads(pickle.dumps(config)), config.model_copy())
    for shown in copies:
        texts = (repr(shown), str(shown), str(shown.redacted()), str(shown.model_dump()), shown.model_dump_json())
        texts += (repr(shown.filters[0]), repr(shown.filters[0].config), repr(shown.routes), repr(shown.clusters[0]))
        for text in texts:
            assert "hunter2" not in text
            assert "s3cret" not in text
            assert "***" in text
    assert config.filters[0].config_bytes() == (b'{"users":{"ada":"hunter2","bob":"open"},"list":["a","s3cret"]}')


def test_redacted_shows_everything_else_in_the_config_s_own_notation(site: Path) -> None:
    redacted = load_text(SECRETIVE).redacted()
    assert redacted["listeners"][0]["address"] == "***"
    assert redacted["listeners"][0]["tls"] == {"certificate": "tls/cert.pem", "private_key": "tls/key.pem"}
    assert redacted["listeners"][0]["head_timeout"] == "10s"
    assert redacted["clusters"][0]["endpoints"] == ["127.0.0.1:1", "***"]
    assert redacted["routes"][0]["match"]["prefix"] == "***"
    assert redacted["routes"][0]["match"]["headers"]["x-key"]["exact"] == "***"
    assert redacted["routes"][0]["match"]["headers"]["x-other"]["exact"] == "plain"
    assert redacted["routes"][0]["filters"]["f"] == {"enabled": True, "config": {"key": "***"}}
    filter = redacted["filters"][0]
    assert filter["config"] == {"users": {"ada": "***", "bob": "open"}, "list": ["a", "***"]}
    assert (filter["vm_config"], filter["memory"], filter["limits"]["log_lines"]) == ("***", "16MiB", "100/s")
    assert filter["capabilities"]["env"] == {"KEY": "***", "MODE": "strict"}


@pytest.mark.parametrize(
    "line",
    [
        "workers: x${env:TOKEN}",
        "shutdown_grace: ${env:TOKEN}",
        "shutdown_grace: ${env:DIGITS}",
        "filters: [{name: f, wasm: filter.wasm, memory: '${env:DIGITS} MB'}]",
        "event_loop: ${env:TOKEN}",
        "admin: {address: '${env:TOKEN}'}",
        "filters_directory: ${env:TOKEN}",
        "filters: [{name: '${env:TOKEN} ', wasm: '${env:TOKEN}', memory: '${env:TOKEN}', sha256: '${env:TOKEN}'}]",
        "filters: [{name: f, wasm: filter.wasm, capabilities: {allowed_hosts: ['${env:TOKEN}/x']}}]",
        "filters: [{name: f, wasm: filter.wasm, capabilities: {allowed_hosts: ['cluster:${env:TOKEN}']}}]",
        "log: {access: '${env:TOKEN}'}",
        "log: ${env:TOKEN}",
        "filters: ${env:TOKEN}",
        "filters: [{name: '${env:TOKEN}', wasm: filter.wasm}, {name: '${env:TOKEN}', wasm: filter.wasm}]",
    ],
)
def test_errors_never_show_secrets(line: str, site: Path) -> None:
    with pytest.raises(ConfigErrors) as raised:
        load_text(SMALL + line)
    assert "***" in str(raised.value)
    shown = f"{raised.value}{raised.value!r}{raised.value.__context__!r}{raised.value.__cause__!r}"
    assert "hunter2" not in shown
    assert "424242" not in shown


def test_models_are_frozen(site: Path) -> None:
    config = load_text(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        config.workers = 2


@pytest.mark.parametrize(
    ("match", "label"),
    [
        ("{prefix: /}", "prefix:/"),
        ("{path: /x, host: A.example}", "a.example+path:/x"),
        ("{regex: '/v[0-9]'}", "regex:/v[0-9]"),
    ],
)
def test_a_route_without_a_name_is_called_by_its_match(match: str, label: str, site: Path) -> None:
    config = load_text(SMALL.replace("{prefix: /}", match))
    assert config.routes[0].label == label
    assert load_text(SMALL.replace("cluster: service", "cluster: service, name: api")).routes[0].label == "api"
