"""Filters from https and from a registry: what is fetched, what is refused, what serves while the source is down."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from proxy.config.model import Config
from proxy.sources import obtain as sources
from proxy.sources import refresh
from proxy.sources.fetch import Fetched, fetch_all
from proxy.sources.guard import FetchError
from proxy.sources.obtain import Obtained, obtain
from proxy.sources.store import Store
from tests.sources.conftest import LOGIN, Make, Registry, Site, module, sha, start_registry, stop

MODULE = module("proxy_log")
OTHER = module("proxy_log", mark="another version")


def one(config: Config, offline: bool = False) -> Obtained:
    found, troubles = obtain(config, config.filters, offline)
    assert troubles == []
    assert found[0] is not None
    return found[0]


def trouble(config: Config) -> str:
    found, troubles = obtain(config, config.filters)
    assert found == [None]
    return "\n".join(str(problem) for _, problem in troubles)


def order(config: Config, **changes: Any) -> sources.Order:
    policy = sources.open_policy(config, [])
    return sources.order(policy, config.filters[0], None, changes.get("seconds", 20.0))


def test_https_is_asked_again_and_serves_from_the_store_when_the_site_is_down(site: Site, make: Make) -> None:
    site.files["/one.wasm"] = MODULE
    config = make({"wasm": site.url("/one.wasm?token=secret")})
    assert (one(config).found.data, one(config).origin) == (MODULE, "fetched")
    assert site.sent["/one.wasm"] == 304, "what was had is not sent again"
    assert site.asked[:3] == ["/one.wasm", "/one.wasm.sig", "/filter.yaml"]
    site.files["/one.wasm"] = OTHER
    assert one(config).found.data == OTHER
    site.files["/one.wasm"] = 503
    kept = one(config)
    assert (kept.found.data, kept.origin) == (OTHER, "kept")
    assert one(config, offline=True).found.digest == sha(OTHER)


def test_a_pin_is_kept_to_and_needs_no_network_again(site: Site, make: Make) -> None:
    site.files["/one.wasm"] = MODULE
    config = make({"wasm": site.url("/one.wasm"), "sha256": sha(MODULE)})
    assert one(config).origin == "fetched"
    asked = len(site.asked)
    assert one(config).origin == "kept"
    assert len(site.asked) == asked
    wrong = make({"wasm": site.url("/one.wasm"), "sha256": sha(OTHER)})
    assert f"the file's SHA-256 is {sha(MODULE)}" in trouble(wrong)


def test_addresses_that_are_not_public_are_refused_also_behind_a_redirect(site: Site, make: Make) -> None:
    site.files["/one.wasm"] = MODULE
    for host in ("localhost", "127.0.0.1"):
        said = trouble(make({"wasm": f"https://{host}:{site.port}/one.wasm"}, sources={"allowed_networks": []}))
        assert "a loopback address" in said
        assert re.search(r'to allow it: sources: {allowed_networks: \["(127.0.0.1/32|::1/128)"\]}', said)
    assert site.asked == [], "nothing is sent to an address that was refused"
    site.files["/away.wasm"] = f"https://127.0.0.2:{site.port}/one.wasm"
    said = trouble(make({"wasm": site.url("/away.wasm")}, sources={"allowed_networks": ["127.0.0.1/32", "::1/128"]}))
    assert "127.0.0.2, a loopback address" in said
    site.files["/meta.wasm"] = "https://169.254.169.254/latest"
    assert "a cloud's metadata service" in trouble(make({"wasm": site.url("/meta.wasm")}))
    site.files["/plain.wasm"] = f"http://localhost:{site.port}/one.wasm"
    assert "is no https URL" in trouble(make({"wasm": site.url("/plain.wasm")}))
    site.files["/round.wasm"] = "/round.wasm"
    assert "redirects more than 5 times" in trouble(make({"wasm": site.url("/round.wasm")}))
    site.files["/moved.wasm"] = "/one.wasm"
    assert one(make({"wasm": site.url("/moved.wasm")})).found.data == MODULE


def test_size_time_and_certificate_are_bounded(site: Site, make: Make, tmp_path: Path) -> None:
    large = b"\0asm" + bytes(3 << 20)
    site.files["/one.wasm"] = large
    config = make({"wasm": site.url("/one.wasm"), "limits": {"module": "1MiB"}})
    assert "over the limit of 1048576; write limits: {module: 4MiB}" in trouble(config)

    def endless(handler: Any) -> bool:
        """No length, and no end."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            handler.wfile.write(bytes(65536))

    def slow(handler: Any) -> bool:
        """A byte now and then: each of them would push a plain timeout further away."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.1)
        return True

    site.behave = endless
    assert "over the limit of 1048576" in trouble(config)
    site.behave = slow
    started = time.monotonic()
    (outcome,) = fetch_all([order(config, seconds=1.0)])
    assert isinstance(outcome, FetchError)
    assert "took too long" in outcome.problem
    print(f"given up after {time.monotonic() - started:.1f} s")
    site.behave = None
    site.files["/one.wasm"] = MODULE
    assert "its certificate is refused" in trouble(make({"wasm": site.url("/one.wasm")}, sources={"ca": None}))
    named = make({"wasm": f"https://ip6-localhost:{site.port}/one.wasm"})
    assert "its certificate is refused" in trouble(named) or "cannot be reached" in trouble(named)


def test_a_registry_s_tag_is_followed_and_a_digest_is_not(registry: Registry, make: Make) -> None:
    digest = registry.push("filters/one:1.0.0", MODULE)
    tagged = make({"wasm": f"oci://{registry.address}/filters/one:1.0.0"})
    pinned = make({"wasm": f"oci://{registry.address}/filters/one:1.0.0@{digest}"})
    assert one(tagged).found.data == MODULE
    assert one(pinned).found.data == MODULE
    assert one(tagged).origin == "fetched"
    moved = registry.push("filters/one:1.0.0", OTHER)
    assert moved != digest
    assert one(tagged).found.data == OTHER
    assert (one(pinned).found.data, one(pinned).origin) == (MODULE, "kept")
    assert "the registry has no" in trouble(make({"wasm": f"oci://{registry.address}/filters/two:1.0.0"}))
    said = trouble(
        make({"wasm": f"oci://{registry.address}/filters/one:1.0.0"}, sources={"allowed_networks": [], "store": "s"})
    )
    assert "a loopback address" in said
    registry.push("filters/large:1.0.0", module(mark="x" * 2000))
    large = make({"wasm": f"oci://{registry.address}/filters/large:1.0.0", "limits": {"module": "1KiB"}})
    assert "over the limit of 1024" in trouble(large)


def test_a_registry_that_lies(site: Site, make: Make) -> None:
    """What it names is compared, and where it leads is checked as any other address."""
    config = make({"wasm": f"oci://localhost:{site.port}/one:1.0.0"}, sources={"allowed_networks": ["127.0.0.1/32", "::1/128"]})
    manifest = {"schemaVersion": 2, "layers": [{"mediaType": "application/wasm", "digest": f"sha256:{sha(MODULE)}"}]}
    site.files["/v2/one/manifests/1.0.0"] = json.dumps(manifest).encode()
    site.files[f"/v2/one/blobs/sha256:{sha(MODULE)}"] = OTHER
    assert "the registry gives other bytes" in trouble(config)
    site.files[f"/v2/one/blobs/sha256:{sha(MODULE)}"] = f"https://127.0.0.2:{site.port}/elsewhere"
    assert "127.0.0.2, a loopback address" in trouble(config)
    site.files[f"/v2/one/blobs/sha256:{sha(MODULE)}"] = f"http://localhost:{site.port}/elsewhere"
    assert "leads to what is not https" in trouble(config)
    site.files[f"/v2/one/blobs/sha256:{sha(MODULE)}"] = "/moved"
    site.files["/moved"] = MODULE
    assert one(config).found.data == MODULE
    digest = make({"wasm": f"oci://localhost:{site.port}/one@sha256:{sha(OTHER)}"})
    site.files[f"/v2/one/manifests/sha256:{sha(OTHER)}"] = json.dumps(manifest).encode()
    assert "the registry's manifest has digest" in trouble(digest)
    manifest["mediaType"] = "application/vnd.oci.image.index.v1+json"
    site.files["/v2/one/manifests/1.0.0"] = json.dumps(manifest).encode()
    assert "no manifest with layers" in trouble(
        make({"wasm": f"oci://localhost:{site.port}/one:1.0.0"}, sources={"store": "new"})
    )

    def challenge(handler: Any) -> bool:
        handler.send_response(401)
        handler.send_header("www-authenticate", f'Bearer realm="http://localhost:{site.port}/token",service="x"')
        handler.send_header("content-length", "0")
        handler.end_headers()
        return True

    site.behave = challenge
    assert "leads to what is not https" in trouble(
        make({"wasm": f"oci://localhost:{site.port}/one:1.0.0"}, sources={"store": "n"})
    )


def test_a_registry_that_wants_a_login(closed_registry: Registry, make: Make) -> None:
    closed_registry.push("one:1.0.0", MODULE)
    wasm = f"oci://{closed_registry.address}/one:1.0.0"
    assert "the registry wants a login" in trouble(make({"wasm": wasm}))
    login = dict(zip(("username", "password"), LOGIN, strict=True))
    assert one(make({"wasm": wasm}, sources={"registries": {closed_registry.address: login}})).found.data == MODULE
    login["password"] = "wrong"
    wrong = make({"wasm": wasm}, sources={"registries": {closed_registry.address: login}, "store": "other"})
    assert "the registry refuses us" in trouble(wrong)


def test_a_registry_that_is_down(tmp_path: Path, certificates: Any, make: Make) -> None:
    registry, process = start_registry(tmp_path, certificates, login=False)
    try:
        registry.push("one:1.0.0", MODULE)
        config = make({"wasm": f"oci://{registry.address}/one:1.0.0"})
        assert one(config).origin == "fetched"
    finally:
        stop(process)
    assert (one(config).found.data, one(config).origin) == (MODULE, "kept")
    assert "Connection refused" in trouble(make({"wasm": f"oci://{registry.address}/one:2.0.0"}))


def test_the_store_gives_back_only_what_was_put_in(site: Site, make: Make, tmp_path: Path) -> None:
    site.files["/one.wasm"] = MODULE
    config = make({"wasm": site.url("/one.wasm")})
    one(config)
    store = tmp_path / "store"
    assert store.stat().st_mode & 0o777 == 0o700
    (blob,) = store.glob("*.blob")
    assert blob.read_bytes() == MODULE
    blob.write_bytes(MODULE[:-1] + b"!")
    site.files["/one.wasm"] = 503
    assert "cannot be fetched: the source answers 503" in trouble(config)
    assert not blob.exists(), "what was changed is deleted"
    site.files["/one.wasm"] = MODULE
    assert one(config).origin == "fetched"
    (ref,) = store.glob("*.ref")
    ref.write_bytes(ref.read_bytes().replace(sha(MODULE).encode(), sha(OTHER).encode()))
    site.files["/one.wasm"] = 503
    assert "cannot be fetched" in trouble(config), "a ref is believed only as it was written"
    os.chmod(store, 0o777)
    site.files["/one.wasm"] = MODULE
    assert one(config).origin == "fetched", "without a store filters are fetched all the same"
    assert "cannot be fetched" not in str(sorted(store.iterdir()))


def test_what_nothing_names_is_deleted_from_the_store(site: Site, make: Make, tmp_path: Path) -> None:
    config = make({"wasm": site.url("/one.wasm")})
    for data in (MODULE, OTHER):
        site.files["/one.wasm"] = data
        one(config)
    old = tmp_path / "store" / f"{sha(MODULE)}.blob"
    assert old.exists(), "it is young: another process may be about to name it"
    os.utime(old, (0, 0))
    with Store(tmp_path / "store") as store:
        store.prune()
    assert [path.name for path in (tmp_path / "store").glob("*.blob")] == [f"{sha(OTHER)}.blob"]


def test_the_background_tells_of_a_change_and_backs_off(site: Site, make: Make) -> None:
    site.files["/one.wasm"] = MODULE
    config = make({"wasm": site.url("/one.wasm")})
    one(config)
    assert refresh.needed(config)
    assert not refresh.needed(make({"wasm": site.url("/one.wasm"), "sha256": sha(MODULE)}))
    with sources.opened(config) as store:
        (watched,) = refresh.start(config, store)
        assert watched.due > time.monotonic() + 200, "asked just now"

        def look() -> list[str]:
            watched.due = 0.0
            return refresh.look(config, store, [watched])

        assert look() == []
        site.files["/one.wasm"] = 503
        for least in (1, 2, 4):
            before = time.monotonic()
            assert look() == []
            assert watched.due >= before + least
        watched.failures = 30
        assert look() == []
        assert watched.due <= time.monotonic() + config.sources.refresh, "no longer than between two looks"
        site.files["/one.wasm"] = OTHER
        assert look() == ["one"]
        assert one(config, offline=True).found.data == OTHER
        assert look() == []


def test_without_a_store_a_change_is_told_once(site: Site, make: Make) -> None:
    site.files["/one.wasm"] = MODULE
    config = make({"wasm": site.url("/one.wasm")})
    (watched,) = refresh.start(config, None)
    told = []
    for data in (MODULE, MODULE, OTHER, OTHER):
        site.files["/one.wasm"] = data
        watched.due = 0.0
        told.append(refresh.look(config, None, [watched]))
    assert told == [["one"], [], ["one"], []]


def test_nothing_of_the_gateway_s_environment_reaches_the_fetcher(
    monkeypatch: pytest.MonkeyPatch, site: Site, make: Make
) -> None:
    """A proxy named there would be told what is fetched, and see past the guard."""
    site.files["/one.wasm"] = MODULE
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    (outcome,) = fetch_all([order(make({"wasm": site.url("/one.wasm")}))])
    assert isinstance(outcome, Fetched)
    assert outcome.parts == {"module": MODULE}
