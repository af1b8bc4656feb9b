"""The published JSON Schema is that of the code, and describes every key."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.config.filter import Capabilities, FilterLimits
from proxy.config.listener import ListenerLimits
from proxy.config.operation import Admin, Log
from proxy.config.schema import schema_text
from proxy.config.section import Model
from proxy.config.yaml import parse

PUBLISHED = Path(__file__).parents[2] / "config" / "penstock.schema.json"
SCHEMA: dict[str, Any] = json.loads(schema_text())
SECTIONS = Model.__subclasses__()


def test_the_published_schema_is_that_of_the_code() -> None:
    message = "run python -m proxy.config.schema > config/penstock.schema.json"
    assert PUBLISHED.read_text() == schema_text(), message


def test_the_command_prints_it() -> None:
    printed = subprocess.run([sys.executable, "-m", "proxy.config.schema"], capture_output=True, text=True, check=True)
    assert printed.stdout == schema_text()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_has_a_description_and_an_example_that_is_valid(section: type[Model]) -> None:
    for name, field in section.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert field.examples, name
        if name not in ("certificate", "private_key", "ca", "wasm", "filters_directory"):
            for example in field.examples:
                validate_alone(section, name, example)


def validate_alone(section: type[Model], name: str, example: object) -> None:
    """Other fields may be missing; this one must not be wrong."""
    try:
        section.model_validate({name: example})
    except ValueError as error:
        wrong = [one["loc"] for one in error.errors() if one["loc"][:1] == (name,)]  # type: ignore[attr-defined]
        assert wrong == [], (section, name, example)


def test_unknown_keys_are_errors_in_every_section() -> None:
    for name, section in SCHEMA["$defs"].items():
        mapping = section["anyOf"][1] if name == "HeaderMatch" else section
        assert mapping["additionalProperties"] is False, name
    assert SCHEMA["additionalProperties"] is False


@pytest.mark.parametrize(
    ("section", "key", "good", "bad"),
    [
        ("Filter", "memory", ["16MiB", "1.5GiB", "${env:MEMORY}"], ["16", "16MB", "MiB", "16 MiB"]),
        ("Filter", "deadline", ["25ms", "1.5s", "${file:deadline}"], ["25", "25 ms", "1h30m", "ms"]),
        ("Listener", "address", ["127.0.0.1:80", "[::1]:80", "a:${env:PORT}"], ["80", "a", "a b:80"]),
    ],
)
def test_units_are_strings_with_pattern_and_example(section: str, key: str, good: list[str], bad: list[str]) -> None:
    schema = SCHEMA["$defs"][section]["properties"][key]
    assert schema["type"] == "string"
    assert schema["examples"]
    for text in good:
        assert re.search(schema["pattern"], text), text
    for text in bad:
        assert not re.search(schema["pattern"], text), text


def test_defaults_are_written_as_a_config_writes_them() -> None:
    filter = SCHEMA["$defs"]["Filter"]["properties"]
    assert [filter[key]["default"] for key in ("memory", "deadline", "fuel", "on_failure")] == [
        "16MiB",
        "25ms",
        5000000,
        "closed",
    ]


def test_defaults_are_valid_config() -> None:
    text = f"listeners: {json.dumps(SCHEMA['properties']['listeners']['examples'][0])}".encode()
    assert parse(text, "f").value == {"listeners": [{"address": "127.0.0.1:8080"}]}
    for section in (FilterLimits, ListenerLimits, Capabilities, Log, Admin):
        section.model_validate(section().redacted())
