"""The reference in docs/configuration.md is what the schema gives, and its worked example is a valid config."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config.load import load

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "build_configuration.py"
PAGE = (ROOT / "docs" / "configuration.md").read_text()
SCHEMA = json.loads((ROOT / "config" / "penstock.schema.json").read_text())


def test_the_page_matches_the_schema() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_key_has_its_row() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \|", PAGE, re.MULTILINE)
    keys = list(SCHEMA["properties"])
    for definition in SCHEMA["$defs"].values():
        for form in definition.get("anyOf", [definition]):
            keys += form.get("properties", {})
    assert sorted(rows) == sorted(keys)


def test_links_inside_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= anchors


def test_the_worked_example_is_a_valid_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert example is not None
    monkeypatch.setenv("TOKEN", "hush")
    (tmp_path / "config").mkdir()
    (tmp_path / "filters").symlink_to(ROOT / "filters")
    (tmp_path / "config" / "example.yaml").write_text(example[1])
    config = load(tmp_path / "config" / "example.yaml")
    assert [filter_.name for filter_ in config.filters] == ["header-rewrite", "body-rewrite"]
