"""Guests of both kinds, and gateways to run them in."""

import os
import subprocess
import sys
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
from tests.guests import build
from tests.guests.toolchains import BuildError, MissingError
from tests.integration.conftest import service
from tests.server.conftest import bench, endpoint

__all__ = ["bench", "endpoint", "service"]

GUESTS = Path(__file__).with_name("guests")
ROOT = Path(__file__).parents[3]
C_FOLDER = ROOT / "filters" / "component-c"

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


def component_of(source: Path) -> Path:
    """The component of one C file. Raises MissingError without its toolchain."""
    if build.is_missing("ziglang"):
        raise MissingError("zig is not installed: pip install ziglang==0.17.0")

    def make(output: Path) -> None:
        command = [sys.executable, C_FOLDER / "build.py", source, output]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(done.stderr)

    made_of = [source, *sorted(C_FOLDER.glob("*.[ch]")), C_FOLDER / "build.py", ROOT / "proxy/abi/component/wrap.py",
               ROOT / "proxy/abi/component/world.py"]  # fmt: skip
    return build.cached(f"component-{source.stem}", made_of, make)


@pytest.fixture(scope="session")
def guest() -> Callable[[str, str], Path]:
    """`guest(name, kind)`: the filter of guests/NAME_KIND.c; kind is component or proxy_wasm."""

    def built(name: str, kind: str) -> Path:
        source = GUESTS / f"{name}_{kind}.c"
        try:
            return component_of(source) if kind == "component" else build.c_filter(source)
        except MissingError as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))

    return built
