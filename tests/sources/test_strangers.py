"""What strangers write: names that lead elsewhere, and files of any form."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.config.filter import Capabilities
from proxy.sources import asks, grants_lock, oci
from proxy.sources.guard import FetchError, Guard
from proxy.sources.signature import KIND, SignatureError, opened, read_statement

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "reason", "sig"]), inner, max_size=3),
    max_leaves=6,
)
TEXTS = st.fixed_dictionaries({"name": VALUES, "version": VALUES, "sha256": VALUES, "manifest": VALUES})
FORMS = st.one_of(
    VALUES,
    TEXTS,
    st.fixed_dictionaries({"name": VALUES, "wasm": VALUES, "grants": st.dictionaries(st.sampled_from(asks.KINDS), VALUES)}),
    st.fixed_dictionaries({"defaults": VALUES, "grants": st.fixed_dictionaries({"env": st.lists(VALUES, max_size=3)})}),
    st.fixed_dictionaries({"filters": st.dictionaries(st.text(max_size=5), VALUES | TEXTS, max_size=2)}),
    st.fixed_dictionaries({"payloadType": st.just(KIND), "payload": VALUES, "signatures": VALUES}),
    st.fixed_dictionaries({"layers": st.lists(VALUES | TEXTS, max_size=2)}),
)
FEW = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@FEW
@given(FORMS)
def test_no_form_is_more_than_refused(tmp_path: Path, form: Any) -> None:
    data = json.dumps(form).encode()
    with contextlib.suppress(asks.ManifestError):
        found = asks.parse(data)
        for ask in asks.unmet(asks.asks_of(found, form), Capabilities()):
            assert ask.what.isprintable()
            assert ask.reason.isprintable()
    with contextlib.suppress(SignatureError):
        opened(data)
    with contextlib.suppress(SignatureError):
        read_statement(data)
    with contextlib.suppress(FetchError):
        oci.one_of(oci.layers_of(data), oci.MODULES)
    (tmp_path / "x.lock").write_bytes(data)
    with contextlib.suppress(grants_lock.LockError):
        grants_lock.load(tmp_path / "x.lock")


@pytest.mark.parametrize("order", [("93.184.215.14", "10.1.2.3"), ("10.1.2.3", "93.184.215.14")])
def test_a_name_with_one_private_address_is_refused_whole(monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]) -> None:
    """Else a name server could have the guard look at one and the dialling take the other."""
    dialled: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", (one, 443)) for one in order])
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: dialled.append(address))
    with pytest.raises(FetchError, match=r"leads to 10\.1\.2\.3, a private address"):
        Guard([], time.monotonic() + 5).dial("filters.example.com", 443)
    assert dialled == []
    Guard(["10.1.0.0/16"], time.monotonic() + 5).dial("filters.example.com", 443)
    assert dialled == [(order[0], 443)], "an address is dialled, never the name"


@pytest.mark.parametrize(
    "host", ["0x7f.1", "127.1", "2130706433", "localhost.", "[::ffff:127.0.0.1]", "::1%lo", "a\x00b", "ⓛocalhost"]
)
def test_odd_spellings_of_here(host: str) -> None:
    with pytest.raises((FetchError, OSError)):
        Guard([], time.monotonic() + 5).dial(host.strip("[]"), 9)
