"""The admin address: readiness, metrics, effective configuration."""
