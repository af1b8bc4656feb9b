"""The service behind the gateway."""

from tests.integration.conftest import service

__all__ = ["service"]
