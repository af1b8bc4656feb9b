"""The JSON Schema of the config file: `python -m proxy.config.schema` prints it, config/penstock.schema.json holds it.

Editors use it by `# yaml-language-server: $schema=penstock.schema.json` in the first line of a config.
"""

import json

from proxy.config.model import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_text() -> str:
    """The schema as JSON, stable from run to run, with a line end."""
    schema = {"$schema": DIALECT, **Config.model_json_schema(mode="validation")}
    schema["title"] = "Penstock config"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
