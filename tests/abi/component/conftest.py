"""Guests of both kinds, and gateways to run them in."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from wasmtime.component import Component

from proxy.abi.proxy_wasm import load
from proxy.telemetry import logging as logs
from proxy.wasm.module import COMPONENT_PREAMBLE
from proxy.wasm.settings import engine_config
from tests import requires
from tests.abi.component.toolchains import component_of
from tests.guests import build
from tests.integration.conftest import service
from tests.server.conftest import bench, endpoint

__all__ = ["bench", "endpoint", "service"]

GUESTS = Path(__file__).with_name("guests")

codes: dict[bytes, bytes] = {}


def compiled(requests: Sequence[Any], *args: Any, **kwargs: Any) -> list[bytes]:
    """What `load_or_compile` gives, without its child processes and its folder."""
    engine = wasmtime.Engine(engine_config())
    found = []
    for request in requests:
        wasm = request.wasm
        if wasm not in codes:
            kind = Component if wasm.startswith(COMPONENT_PREAMBLE) else wasmtime.Module
            codes[wasm] = bytes(kind(engine, wasm).serialize())
        found.append(codes[wasm])
    return found


@pytest.fixture
def compiled_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "load_or_compile", compiled)
    logs.buckets.clear()


@pytest.fixture(scope="session")
def guest() -> Callable[[str, str], Path]:
    """`guest(name, kind)`: the filter of guests/NAME_KIND.c; kind is component or proxy_wasm."""

    def built(name: str, kind: str) -> Path:
        source = GUESTS / f"{name}_{kind}.c"
        with requires.toolchain():
            return component_of(source) if kind == "component" else build.c_filter(source)

    return built
