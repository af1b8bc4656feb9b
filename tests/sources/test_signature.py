"""Signatures: what they bind, who may make them, and what a config does with them, wherever the filter comes from."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli.main import main
from proxy.config.model import Config
from proxy.config.sources import TrustedKey
from proxy.sources import signature
from proxy.sources.obtain import obtain
from proxy.sources.signature import SignatureError, statement_of, verify
from tests.sources.conftest import Make, Registry, Site, manifest, module, sha

MODULE = module("proxy_log")
OTHER = module("proxy_log", mark="another")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of acme and of evil."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("acme", "evil"):
        assert invoke("keygen", str(folder / name)).exit_code == 0
    return folder


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["filter", *arguments], prog_name="penstock")


def trusted(keys: Path, name: str = "acme", **more: Any) -> dict[str, Any]:
    return {"name": name, "key": (keys / f"{name}.pub").read_text().strip(), **more}


def signed(
    keys: Path, data: bytes, name: str = "one", version: str = "1.0.0", asks: bytes | None = None, by: str = "acme"
) -> bytes:
    return signature.sign(statement_of(name, version, data, asks), signature.load_key(keys / f"{by}.key"))


def said(config: Config) -> str:
    """What stands in the way of the first filter; "" for nothing."""
    found, troubles = obtain(config, config.filters)
    assert (found[0] is None) == bool(troubles)
    return "\n".join(str(problem) for _, problem in troubles)


def test_the_commands(keys: Path, tmp_path: Path) -> None:
    assert (keys / "acme.key").stat().st_mode & 0o777 == 0o600
    assert "write another name" in invoke("keygen", str(keys / "acme")).output
    wasm = tmp_path / "one.wasm"
    wasm.write_bytes(MODULE)
    assert "write --name" in invoke("sign", str(wasm), "--key", str(keys / "acme.key")).output
    (tmp_path / "filter.yaml").write_bytes(manifest(version="1.2.3"))
    result = invoke("sign", str(wasm), "--key", str(keys / "acme.key"))
    assert result.exit_code == 0
    assert f"one 1.2.3, SHA-256 {sha(MODULE)}, with {tmp_path / 'filter.yaml'}" in result.output
    good = invoke("verify", str(wasm), "--key", str(keys / "evil.pub"), "--key", str(keys / "acme.pub"))
    assert (good.exit_code, good.output[:24]) == (0, "ok   signed as one 1.2.3")
    bad = invoke("verify", str(wasm), "--key", str(keys / "evil.pub"))
    assert (bad.exit_code, "no trusted key has signed it" in bad.output) == (1, True)
    wasm.write_bytes(OTHER)
    assert "the signature is of another file" in invoke("verify", str(wasm), "--key", str(keys / "acme.pub")).output
    assert "is no private key" in invoke("sign", str(wasm), "--key", str(keys / "acme.pub")).output


def test_every_part_of_the_envelope_is_bound(keys: Path) -> None:
    """Whatever is changed of what is signed, or of the kind that it is signed as, the signature does not count."""
    key = [TrustedKey(**trusted(keys))]
    asks = manifest()
    good = json.loads(signed(keys, MODULE, asks=asks))
    assert verify(json.dumps(good).encode(), MODULE, asks, key).statement.version == "1.0.0"
    payload = json.loads(base64.b64decode(good["payload"]))
    changes: list[dict[str, Any]] = [
        {
            "payload": base64.b64encode(
                json.dumps({**payload, name: value}, sort_keys=True, separators=(",", ":")).encode()
            ).decode()
        }
        for name, value in (("name", "two"), ("version", "9.0.0"), ("sha256", sha(OTHER)), ("manifest", ""))
    ]
    changes += [
        {"payloadType": "application/vnd.other"},
        {"signatures": []},
        {"payload": "!"},
        {"signatures": [{"sig": "AAAA"}]},
    ]
    for change in changes:
        with pytest.raises(SignatureError):
            verify(json.dumps({**good, **change}).encode(), MODULE, asks, key)
    for wrong in ((OTHER, asks), (MODULE, None), (MODULE, manifest(version="2"))):
        with pytest.raises(SignatureError):
            verify(json.dumps(good).encode(), *wrong, key)
    private = signature.load_key(keys / "acme.key")
    raw = base64.b64decode(good["payload"])
    plain = {**good, "signatures": [{"sig": base64.b64encode(private.sign(raw)).decode()}]}
    with pytest.raises(SignatureError, match="no trusted key"):
        verify(json.dumps(plain).encode(), MODULE, asks, key)
    for junk in (b"", b"[]", b"{}", b"\xff", b"[" * 60000, json.dumps(good).encode() + b" " * 70000):
        with pytest.raises(SignatureError):
            verify(junk, MODULE, asks, key)


def test_a_file_that_must_be_signed(keys: Path, make: Make, tmp_path: Path) -> None:
    (tmp_path / "one.wasm").write_bytes(MODULE)
    (tmp_path / "one.wasm.sig").write_bytes(signed(keys, MODULE))
    only = {"trusted_keys": [trusted(keys)], "require_signature": True}
    assert said(make({"wasm": "one.wasm"}, **only)) == ""
    assert "trusted_keys is empty" in said(make({"wasm": "one.wasm"}, require_signature=True))
    assert "no trusted key has signed it" in said(
        make({"wasm": "one.wasm"}, trusted_keys=[trusted(keys, "evil")], require_signature=True)
    )
    may = trusted(keys, filters=["acme-*"])
    assert "may not sign for that name" in said(make({"wasm": "one.wasm"}, trusted_keys=[may], require_signature=True))
    (tmp_path / "filter.yaml").write_bytes(manifest())
    assert "its filter.yaml is not the one that was signed" in said(make({"wasm": "one.wasm"}, **only))
    (tmp_path / "filter.yaml").unlink()
    (tmp_path / "two.wasm").write_bytes(MODULE)
    (tmp_path / "two.wasm.sig").write_bytes(signed(keys, MODULE))
    wrong_name = {"name": "two", "wasm": "two.wasm"}
    assert "it is signed as one; write signed_as: one" in said(make(wrong_name, **only))
    assert said(make({**wrong_name, "signed_as": "one"}, **only)) == ""
    (tmp_path / "one.wasm.sig").unlink()
    assert "it is not signed; put the signature beside the module, as one.wasm.sig" in said(make({"wasm": "one.wasm"}, **only))
    assert said(make({"wasm": "one.wasm", "require_signature": False}, **only)) == ""


def test_sources_give_signatures_and_do_not_go_back(keys: Path, site: Site, registry: Registry, make: Make) -> None:
    """By https beside the module, in a registry in the same artifact; an older version, though signed, is not taken again."""
    only = {"trusted_keys": [trusted(keys)], "require_signature": True}
    new, old = signed(keys, OTHER, version="1.10.0"), signed(keys, MODULE, version="1.9.0")
    site.files.update({"/one.wasm": OTHER, "/one.wasm.sig": new})
    config = make({"wasm": site.url("/one.wasm")}, **only)
    assert said(config) == ""
    site.files.update({"/one.wasm": MODULE, "/one.wasm.sig": old})
    found, troubles = obtain(config, config.filters)
    assert troubles == []
    assert found[0] is not None
    assert (found[0].found.version, found[0].origin, found[0].found.data) == ("1.10.0", "kept", OTHER)
    site.files.update({"/one.wasm": OTHER, "/one.wasm.sig": signed(keys, OTHER, version="9.0.0", by="evil")})
    found, _ = obtain(config, config.filters)
    assert found[0] is not None
    assert (found[0].found.version, found[0].origin) == ("1.10.0", "kept")
    pinned = make({"wasm": site.url("/one.wasm"), "sha256": sha(MODULE)}, **only)
    site.files.update({"/one.wasm": MODULE, "/one.wasm.sig": old})
    assert said(pinned) == "", "a pin is a yes"

    registry.push("filters/one:1.9.0", MODULE, old)
    assert said(make({"wasm": f"oci://{registry.address}/filters/one:1.9.0"}, **only)) == ""
    registry.push("filters/one:2.0.0", MODULE, old)
    assert "its tag says version 2.0.0, its signature 1.9.0" in said(
        make({"wasm": f"oci://{registry.address}/filters/one:2.0.0"}, **only)
    )
    registry.push("filters/one:none", MODULE)
    assert "it is not signed" in said(make({"wasm": f"oci://{registry.address}/filters/one:none"}, **only))
