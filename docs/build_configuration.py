#!/usr/bin/env python3
"""Writes the reference part of docs/configuration.md, every key of a config file, from config/penstock.schema.json.

    python docs/build_configuration.py             write it
    python docs/build_configuration.py --check     fail if what is there is not what would be written

What stands above the marker in the page is written by hand and kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "configuration.md"
SCHEMA = DOCS.parent / "config" / "penstock.schema.json"
BEGIN = "<!-- From here on written by docs/build_configuration.py: change the descriptions in proxy/config. -->"
TOP = "Config"
REFERENCE_START = r"\$\{(env|file):"

Schema = dict[str, Any]


def sections(schema: Schema) -> Iterator[tuple[str, str]]:
    """(path in the config, name of its definition), each definition once, as the config file's order meets them."""
    seen: set[str] = set()

    def walk(path: str, section: Schema) -> Iterator[tuple[str, str]]:
        for key, value in properties(section).items():
            suffix, name = target(value)
            if name and name not in seen:
                seen.add(name)
                below = f"{path}{key}{suffix}"
                yield below, name
                yield from walk(f"{below}.", schema["$defs"][name])

    yield "", TOP
    yield from walk("", schema)


def properties(section: Schema) -> Schema:
    """The keys of a section; of one with a short form, those of its long form."""
    for form in section.get("anyOf", [section]):
        if "properties" in form:
            found: Schema = form["properties"]
            return found
    return {}


def target(value: Schema) -> tuple[str, str]:
    """How a value leads to another section ("", "[]" or ".NAME") and that section's definition; "" for none."""
    for form in (value, *value.get("anyOf", ())):
        if "$ref" in form:
            return "", form["$ref"].rpartition("/")[2]
    if "$ref" in value.get("items", {}):
        return "[]", value["items"]["$ref"].rpartition("/")[2]
    patterns = [value.get("additionalProperties"), *value.get("patternProperties", {}).values()]
    for form in patterns:
        if isinstance(form, dict) and "$ref" in form:
            return ".NAME", form["$ref"].rpartition("/")[2]
    return "", ""


def is_reference(form: Schema) -> bool:
    """The alternative that admits `${env:}` and `${file:}`, which every value has."""
    pattern: str = form.get("pattern", "")
    return pattern.startswith(REFERENCE_START)


def kind(value: Schema) -> str:
    """What may be written, in a word or two."""
    forms = [form for form in (*value.get("anyOf", ()), value) if not is_reference(form)]
    for form in forms:
        if "enum" in form:
            return ", ".join(f"`{choice}`" for choice in form["enum"])
        if "(us|ms|s|m|h)" in form.get("pattern", ""):
            return "duration"
        if "KiB" in form.get("pattern", ""):
            return "size"
        if "[0-9]+/s" in form.get("pattern", ""):
            return "rate"
    names = {"integer": "number", "boolean": "`true`, `false`", "array": "list", "object": "mapping", "string": "text"}
    if isinstance(value.get("type"), list):
        return "mapping, list or text"
    found = [names[form["type"]] for form in forms if form.get("type") in names]
    words = ["`auto`" for form in forms if form.get("const") == "auto"]
    return " or ".join(dict.fromkeys(found[:1] + words)) or "mapping"


def inline(value: Any) -> str:
    """A value as one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def anchor(heading: str) -> str:
    """The fragment that GitHub gives a heading."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def heading_of(path: str, name: str) -> str:
    return "The file" if name == TOP else path


def section_text(path: str, name: str, schema: Schema, places: dict[str, str]) -> str:
    """One section: heading, description, a row for each key."""
    section = schema if name == TOP else schema["$defs"][name]
    long_form = next((form for form in section.get("anyOf", [section]) if "properties" in form), section)
    required = set(long_form.get("required", ()))
    lines = [f"## {heading_of(path, name)}", ""]
    description = long_form.get("description") or section.get("description")
    if description:
        lines += [description, ""]
    lines += ["| key | value | default | meaning | example |", "|---|---|---|---|---|"]
    for key, value in properties(section).items():
        _, below = target(value)
        what = kind(value)
        if below:
            what = f"[{'list' if value.get('type') == 'array' else 'mapping'}](#{anchor(places[below])})"
        default = "**required**" if key in required else default_text(value)
        # A model's own description stands in for a field's where the schema has only a reference.
        meaning = value.get("description") or schema["$defs"].get(below, {}).get("description", "")
        example = f"`{key}: {inline(value['examples'][0])}`"
        lines.append(f"| `{key}` | {cell(what)} | {default} | {cell(meaning)} | {cell(example)} |")
    return "\n".join(lines) + "\n"


def default_text(value: Schema) -> str:
    default = value.get("default")
    if default is None:
        return "none"
    if default == "":
        return "empty"
    return f"`{inline(default)}`"


def reference(schema: Schema) -> str:
    """The generated part of the page, from its marker to its end."""
    found = list(sections(schema))
    places = {name: heading_of(path, name) for path, name in found}
    return "\n".join([BEGIN + "\n", *(section_text(path, name, schema, places) for path, name in found)])


def page() -> str:
    """The page as it should be: what people wrote as it stands, then the reference."""
    written, marker, _ = PAGE.read_text().partition(BEGIN)
    if not marker:
        raise SystemExit(f"{PAGE}: the line {BEGIN} is missing; put it where the reference shall begin")
    return written + reference(json.loads(SCHEMA.read_text()))


def main(arguments: list[str]) -> int:
    """0 if the page was written or is right, 1 if it is not, 2 for wrong arguments."""
    if arguments == ["--check"]:
        if PAGE.read_text() != page():
            print(f"{PAGE} does not match {SCHEMA.name}; run python docs/build_configuration.py", file=sys.stderr)
            return 1
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
