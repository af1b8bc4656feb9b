"""waf-lite against its payloads: each as a query parameter, a form field and a JSON string. The README's figures are these."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from proxy.kit.case_file import read
from proxy.kit.play import Player
from tests.filters import cases

FOLDER = cases.FILTERS / "waf-lite"
PAYLOADS: dict[str, Any] = yaml.safe_load((FOLDER / "payloads.yaml").read_text())


def requests(payload: str) -> list[dict[str, Any]]:
    """The places where it can stand."""
    encoded = quote(payload, safe="")
    post = {"method": "POST", "path": "/"}
    return [
        {"path": f"/?q={encoded}&page=2"},
        {**post, "headers": [["content-type", "application/x-www-form-urlencoded"]], "body": f"page=2&q={encoded}"},
        {**post, "headers": [["content-type", "application/json"]], "body": json.dumps({"q": payload, "page": 2})},
    ]


def refused(folder: Path, payloads: list[str]) -> dict[str, list[bool]]:
    """For each payload in which of the places it was refused, by the defaults."""
    listed = [
        {
            "name": f"{number} {place}",
            "config": {},
            "request": request,
            "expect": {"upstream": "none", "response": {"status": 403}},
        }
        for number, payload in enumerate(payloads)
        for place, request in enumerate(requests(payload))
    ]
    file = folder / "cases.yaml"
    file.write_text(json.dumps({"wasm": str(FOLDER / "waf-lite.wasm"), "cases": listed}))
    found = [not one.problems for one in Player(read(file)).run()]
    return {payload: found[3 * number : 3 * number + 3] for number, payload in enumerate(payloads)}


@pytest.mark.parametrize("name", PAYLOADS["attacks"])
def test_attacks_are_refused(tmp_path: Path, name: str) -> None:
    found = refused(tmp_path, PAYLOADS["attacks"][name])
    assert [payload for payload, places in found.items() if not all(places)] == []


def test_what_is_harmless_passes(tmp_path: Path) -> None:
    found = refused(tmp_path, PAYLOADS["benign"])
    assert [payload for payload, places in found.items() if any(places)] == []


def test_what_is_known_to_be_missed(tmp_path: Path) -> None:
    """So that the README stays true when rules are added."""
    found = refused(tmp_path, PAYLOADS["missed"])
    assert [payload for payload, places in found.items() if any(places)] == []


def test_the_readme_lists_the_rules() -> None:
    rules = re.findall(r'\.id = "([a-z-]+)"', (FOLDER / "rules.zig").read_text())
    assert len(rules) > 20
    assert re.findall(r"^\| `([a-z]+-[a-z]+)` \|", (FOLDER / "README.md").read_text(), re.MULTILINE) == rules
