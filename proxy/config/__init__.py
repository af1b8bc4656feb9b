"""YAML configuration: reading, validating, and the typed model."""
