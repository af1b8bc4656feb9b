"""A gateway whose filter comes from a source: what changes there is served soon, and what is refused is not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import wasmtime

from tests.sources.conftest import Make, Site

ROOT = Path(__file__).parents[2]


def marking(version: str) -> bytes:
    """A filter that answers every request with its version in x-version."""
    return bytes(
        wasmtime.wat2wasm(
            f"""(module
            (import "env" "proxy_send_local_response" (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1) (data (i32.const 0) "{version}")
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
              (drop (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {len(version)})
                (i32.const 0) (i32.const 0) (i32.const -1)))
              (i32.const 1)))"""
        )
    )


def test_a_change_at_the_source_is_served_and_a_bad_one_is_not(site: Site, make: Make, tmp_path: Path) -> None:
    site.files["/one.wasm"] = marking("1")
    make({"wasm": site.url("/one.wasm")}, sources={"refresh": "300ms"})
    with (tmp_path / "log").open("wb") as log:
        gateway = subprocess.Popen(
            [sys.executable, "-m", "proxy", "run", str(tmp_path / "gateway.yaml")], stdout=subprocess.PIPE, stderr=log, cwd=ROOT
        )
    assert gateway.stdout is not None
    try:
        url = gateway.stdout.readline().decode().split()[2].rstrip(";")

        def served() -> str:
            with urllib.request.urlopen(url, timeout=10) as response:
                return str(response.read().decode())

        def becomes(version: str) -> bool:
            return any(served() == version or time.sleep(0.05) for _ in range(400))

        assert served() == "1"
        site.files["/one.wasm"] = marking("2")
        assert becomes("2")
        site.files["/one.wasm"] = b"\0asm, or something else"
        asked = len(site.asked)
        while len(site.asked) < asked + 8:
            time.sleep(0.05)
        assert served() == "2"
        assert gateway.poll() is None
        site.files["/one.wasm"] = marking("3")
        assert becomes("3")
    except BaseException:
        print((tmp_path / "log").read_text())
        raise
    finally:
        gateway.send_signal(signal.SIGTERM)
        gateway.communicate(timeout=30)
    assert gateway.returncode == 0


@pytest.mark.parametrize("down", [503, b"\0asm, or something else"])
def test_a_gateway_starts_while_its_source_is_down_or_gives_what_does_not_load(
    site: Site, make: Make, tmp_path: Path, down: int | bytes
) -> None:
    site.files["/one.wasm"] = marking("1")
    make({"wasm": site.url("/one.wasm")})
    command = [sys.executable, "-m", "proxy", "check", str(tmp_path / "gateway.yaml")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    site.files["/one.wasm"] = down
    result = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert result.returncode == 0
    assert "last_good_kept" in result.stdout + result.stderr
