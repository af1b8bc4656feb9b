"""What docs/migrating.md converts is real: Envoy takes its config, and the others are documents of their kinds."""

import re
import subprocess
from pathlib import Path

import yaml

from tests import requires

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migrating.md").read_text()


def original(before: str) -> str:
    """The block behind a sentence."""
    found = re.search(rf"{before}\n\n```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_envoy_takes_the_original(tmp_path: Path) -> None:
    """With a module and a digest where the page has a path and dots."""
    envoy = requires.envoy()
    text = original("This Envoy config").replace("sha256:...", f"sha256:{'5e' * 32}")
    config = tmp_path / "envoy.yaml"
    config.write_text(text.replace("/etc/filters/key-auth.wasm", str(ROOT / "filters" / "key-auth" / "key-auth.wasm")))
    done = subprocess.run([envoy, "--mode", "validate", "-c", config], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_others_are_what_they_say() -> None:
    plugin, kong = yaml.safe_load(original("This plugin")), yaml.safe_load(original(r".*This `kong.yml`"))
    assert (plugin["kind"], kong["_format_version"]) == ("WasmPlugin", "3.0")
    converted = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1])
    assert converted["filters"][0]["config"] == plugin["spec"]["pluginConfig"]
