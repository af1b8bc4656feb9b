"""The suite runs on uvloop, as workers do; modules that say BOTH_LOOPS on asyncio too."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops of a test."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if getattr(item.module, "BOTH_LOOPS", False):  # type: ignore[attr-defined]
        loops["asyncio"] = asyncio.new_event_loop
    return loops
