"""The versions of dependencies: what pyproject.toml admits, what SECURITY.md says of it, what is installed."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}
SECURITY = (ROOT / "SECURITY.md").read_text()
ROWS = re.findall(r"^\| ([a-z0-9-]+) \| ([0-9.]+) \| (.+) \|$", SECURITY, re.MULTILINE)


def floor(requirement: Requirement) -> Version:
    (least,) = [Version(each.version) for each in requirement.specifier if each.operator == ">="]
    return least


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_each_has_a_floor_and_a_cap(name: str) -> None:
    requirement = REQUIREMENTS[name]
    assert {each.operator for each in requirement.specifier} == {">=", "<"}
    assert floor(requirement)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_what_is_installed_is_admitted(name: str) -> None:
    requirement = REQUIREMENTS[name]
    if requirement.marker is None or requirement.marker.evaluate():
        assert requirement.specifier.contains(importlib.metadata.version(name))


@pytest.mark.parametrize(("name", "least", "why"), ROWS)
def test_the_table_of_floors(name: str, least: str, why: str) -> None:
    """A floor is as high as the table says, and as high as each fix that it names."""
    assert floor(REQUIREMENTS[name]) == Version(least)
    # Of a fix that several branches have, the newest: older branches are not admitted anyway.
    for versions in re.findall(r": ([0-9][0-9., ]*[0-9])(?=\.|$)", why):
        assert max(map(Version, versions.split(", "))) <= Version(least)


def test_the_table_is_found() -> None:
    assert {name for name, _, _ in ROWS} >= {"aiohttp", "idna", "wasmtime", "pyyaml"}
    assert len(re.findall(r"CVE-\d{4}-\d+", SECURITY)) >= 8
