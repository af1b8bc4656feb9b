"""filter.yaml says what the module is: checked against the module itself."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import wasmtime
import yaml

from tests.filters import cases

NAMES = cases.filter_names()
KEYS = {"name", "version", "description", "abi", "language", "grants", "defaults", "config_schema"}


def manifest(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((cases.FILTERS / name / "filter.yaml").read_text())
    return data


def module(name: str) -> wasmtime.Module:
    return wasmtime.Module.from_file(wasmtime.Engine(), str(cases.load(name).wasm))


def test_there_are_filters() -> None:
    """The tables below are not empty."""
    assert {"basic-auth", "body-rewrite", "header-rewrite", "rate-limit"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_form(name: str) -> None:
    """Every key is there, and the name is the folder's."""
    data = manifest(name)
    assert set(data) == KEYS
    assert data["name"] == name
    assert set(data["grants"]) == {"host_functions", "allowed_hosts", "env"}


@pytest.mark.parametrize("name", NAMES)
def test_grants_are_the_imports(name: str) -> None:
    """The host functions granted, with a reason each, are those that the module imports: none less, none more."""
    granted = manifest(name)["grants"]["host_functions"]
    assert all(grant["reason"] for grant in granted)
    imports = [(one.module, one.name) for one in module(name).imports]
    assert sorted(imports) == sorted(("env", grant["name"]) for grant in granted)


@pytest.mark.parametrize("name", NAMES)
def test_abi_and_memory(name: str) -> None:
    """The module is marked for the ABI that the manifest names, and starts small."""
    exports = {one.name: one.type for one in module(name).exports}
    marker = "proxy_abi_version_" + manifest(name)["abi"].removeprefix("proxy-wasm ").replace(".", "_")
    assert marker in exports
    memory = exports["memory"]
    assert isinstance(memory, wasmtime.MemoryType)
    assert memory.limits.min <= 16  # pages of 64 KiB


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_those_of_the_schema(name: str) -> None:
    """Defaults are keys of the schema, and agree with what it says."""
    properties = manifest(name)["config_schema"]["properties"]
    for key, value in manifest(name)["defaults"].items():
        assert properties[key].get("default", value) == value
    assert {key for key, value in properties.items() if "default" in value} <= set(manifest(name)["defaults"])


@pytest.mark.parametrize("name", NAMES)
def test_sum(name: str) -> None:
    """SHA256SUMS has the module that is there."""
    digest = hashlib.sha256(cases.load(name).wasm.read_bytes()).hexdigest()
    assert f"{digest}  {name}/{name}.wasm" in (cases.FILTERS / "SHA256SUMS").read_text().splitlines()
