"""What libc shows a filter of its surroundings."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.gateway import Gateway, filter_of


async def test_environment_clocks_and_random_numbers(guest: Callable[[str], Path]) -> None:
    """The environment is what the config grants and nothing of the gateway's own; files are out of reach."""
    filters = [
        filter_of(guest("wasi"), "with", capabilities={"env": {"MODE": "strict", "OTHER": "1"}}),
        filter_of(guest("wasi"), "without"),
    ]
    async with Gateway(filters) as gateway:
        await gateway.until(lambda: "random" in "\n".join(gateway.said("without")))
    told = gateway.said("with")
    assert [gateway.said(name, lines)[0] for name, lines in (("with", "2 "), ("without", "0 "))] == [
        "2 variables, MODE=strict, HOME=none", "0 variables, MODE=none, HOME=none",
    ]  # fmt: skip
    clock = re.search(r"epoch (\d+), host agrees, monotonic grows", "\n".join(told))
    assert clock is not None
    assert abs(int(clock[1]) - time.time()) < 30
    assert "random differs" in "\n".join(told)
    errors = [line for line in gateway.events("filter_log") if line["filter"] == "with" and line["level"] == "error"]
    assert [line["message"] for line in errors] == ["open refused"]
