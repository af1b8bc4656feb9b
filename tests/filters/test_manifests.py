"""filter.yaml says what the module is: checked against the module itself."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import pytest
import wasmtime
import yaml

from tests.filters import cases

NAMES = cases.filter_names()
KEYS = {"name", "version", "description", "abi", "language", "penstock", "grants", "defaults", "config_schema"}


def manifest(name: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((cases.FILTERS / name / "filter.yaml").read_text())
    return data


@functools.cache
def module(name: str) -> wasmtime.Module:
    config = wasmtime.Config()
    config.cranelift_opt_level = "none"  # it is looked at, and never runs
    return wasmtime.Module.from_file(wasmtime.Engine(config), str(cases.load(name).wasm))


def test_there_are_filters() -> None:
    """The tables below are not empty."""
    assert {"basic-auth", "body-rewrite", "header-rewrite", "rate-limit"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_form(name: str) -> None:
    """Every key is there, and the name is the folder's."""
    data = manifest(name)
    assert set(data) - {"linked"} == KEYS
    assert data["name"] == name
    assert set(data["grants"]) == {"host_functions", "allowed_hosts", "env"}


@pytest.mark.parametrize("name", NAMES)
def test_grants_are_the_imports(name: str) -> None:
    """The host functions granted, with a reason each, are those that the module imports, none less, none more; but for what
    an SDK brings along."""
    granted = manifest(name)["grants"]["host_functions"]
    assert all(grant["reason"] for grant in granted)
    imports = [(one.module, one.name) for one in module(name).imports]
    assert {module for module, _ in imports} <= {"env", "wasi_snapshot_preview1"}
    assert sorted({function for _, function in imports}) == sorted(
        [grant["name"] for grant in granted] + manifest(name).get("linked", [])
    )


@pytest.mark.parametrize("name", NAMES)
def test_abi_and_memory(name: str) -> None:
    """The module is marked for the ABI that the manifest names, and starts small."""
    exports = {one.name: one.type for one in module(name).exports}
    marker = "proxy_abi_version_" + manifest(name)["abi"].removeprefix("proxy-wasm ").replace(".", "_")
    assert marker in exports
    memory = exports["memory"]
    assert isinstance(memory, wasmtime.MemoryType)
    assert memory.limits.min <= {"Go": 48, "Rust": 17}.get(manifest(name)["language"], 16)  # pages of 64 KiB


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


@pytest.mark.parametrize("name", NAMES)
def test_table_in_the_docs(name: str) -> None:
    """docs/filters.md has the filter, its language and its size (filters/figures.py writes the table)."""
    size = cases.load(name).wasm.stat().st_size / 1000
    row = f"| [{name}](../filters/{name}/README.md) | {manifest(name)['language']} | {size:,.0f} |"
    assert row in (cases.FILTERS.parent / "docs" / "filters.md").read_text()
