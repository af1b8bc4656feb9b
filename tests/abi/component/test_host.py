"""What a component imports, and what becomes of its edits: the parts that the contract suite does not reach."""

from typing import Any

import pytest

from proxy.abi.component.host import keys_of
from proxy.abi.component.properties import BOOLEANS, MAPS, NUMBERS
from proxy.abi.component.values import data_of, edited
from proxy.abi.component.world import ADD, BINARY, REMOVE, SET, TEXT
from proxy.abi.proxy_wasm.properties import GROUPS
from proxy.chain.chains import settings_of
from proxy.config.filter import Filter

HEAD = [(b":path", b"/"), (b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]
SET_A, ADD_A, DROP_A = (SET, (b"X-A", b"new")), (ADD, (b"x-a", b"more")), (REMOVE, b"x-A")


@pytest.mark.parametrize(
    ("edits", "after"),
    [
        ([], HEAD),
        ([SET_A], [(b":path", b"/"), (b"x-a", b"new"), (b"x-b", b"2")]),
        ([ADD_A], [*HEAD, (b"x-a", b"more")]),
        ([DROP_A], [(b":path", b"/"), (b"x-b", b"2")]),
        ([DROP_A, ADD_A], [(b":path", b"/"), (b"x-b", b"2"), (b"x-a", b"more")]),
        ([(SET, (b"x-c", b""))], [*HEAD, (b"x-c", b"")]),
        ([(ADD, (b":path", b"/new"))], [(b":path", b"/new"), *HEAD[1:]]),
        ([(REMOVE, b"x-none")], HEAD),
    ],
)
def test_edits(edits: Any, after: Any) -> None:
    refused: list[str] = []
    assert edited(HEAD, edits, settings(), refused.append) == after
    assert not refused


def settings(**limits: Any) -> Any:
    return settings_of(Filter.model_validate({"name": "f", "wasm": "f.wasm", "limits": limits}), "info")


def test_edits_over_the_limits_are_left_out() -> None:
    refused: list[str] = []
    edits = [(ADD, (b"x-1", b"")), (ADD, (b"x-2", b"")), (SET, (b"x-b", b"22"))]
    after = edited(HEAD, edits, settings(headers=5), refused.append)
    assert after == [(b":path", b"/"), (b"x-a", b"1"), (b"x-b", b"22"), (b"x-a", b"3"), (b"x-1", b"")]
    assert refused == ["more than limits.headers 5"]
    refused.clear()
    assert edited(HEAD, [(SET, (b"x-b", bytes(100)))], settings(header_bytes=64), refused.append) == HEAD
    assert refused == ["more than limits.header_bytes 64"]


def test_content_is_text_where_it_is_utf_8() -> None:
    assert data_of(b"plain") == (TEXT, b"plain")
    assert data_of("ü".encode()) == (TEXT, "ü".encode())
    assert data_of("ü".encode()[:1]) == (BINARY, "ü".encode()[:1])
    assert data_of(b"") == (TEXT, b"")


def test_keys_of_a_config() -> None:
    config = b'{"text": "as it stands", "list": [1, 2], "no": null, "yes": true, "n": 1.5, "deep": {"a": "b"}}'
    assert keys_of(config) == {
        "text": b"as it stands", "list": b"[1,2]", "no": b"null", "yes": b"true", "n": b"1.5", "deep": b'{"a":"b"}',
    }  # fmt: skip
    for other in (b"", b"text", b"[1]", b"{", b'"text"'):
        assert keys_of(other) == {}


def test_every_property_has_a_known_form() -> None:
    """A number that were taken for text would come as its bytes."""
    texts = {
        "request.path", "request.url_path", "request.host", "request.scheme", "request.method", "request.referer",
        "request.useragent", "request.id", "request.query", "request.protocol", "response.code_details", "source.address",
        "destination.address", "connection.requested_server_name", "upstream.address", "upstream.locality",
        "upstream.transport_failure_reason", "xds.cluster_name", "xds.route_name", "xds.filter_chain_name",
        "xds.listener_metadata", "xds.cluster_metadata", "xds.route_metadata", "xds.virtual_host_metadata",
        "xds.upstream_host_metadata", "xds.upstream_host_locality_metadata",
    }  # fmt: skip
    names = {f"{group.decode()}.{name.decode()}" for group, readers in GROUPS.items() for name in readers} | {"connection_id"}
    assert names == texts | NUMBERS | BOOLEANS | MAPS
