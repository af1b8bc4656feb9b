"""What gRPC calls really dial, seen below grpcio: its sockets are C's, so Python's audit events do not show them.

The tests of callouts run again in a process of their own, with a library in front of libc that writes down every address
that is dialled or sent to. All their servers are on 127.0.0.1 and none of their names is in any DNS: whatever else shows up,
a name server's port among it, was dialled for nobody.
"""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests import requires

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROBE = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.9', 53))"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    requires.zig()
    built = tmp_path_factory.mktemp("dials") / "dials.so"
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1", str(HERE / "dials.c"), "-o", str(built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


def dialled(library: Path, record: Path, arguments: list[str], **more: str) -> set[tuple[str, int]]:
    """The addresses that a Python process dials; unix sockets of asyncio's own aside."""
    environment = {**os.environ, "LD_PRELOAD": str(library), "DIALS": str(record), "PYTHONPATH": str(ROOT), **more}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^\w+ (?:::ffff:)?(\S+) (\d+)$", record.read_text(), re.MULTILINE)  # grpcio's sockets are IPv6
    return {(host, int(port)) for host, port in found}


@pytest.mark.skipif(not sysconfig.get_platform().startswith("linux"), reason="LD_PRELOAD is Linux'")
def test_the_spy_sees(library: Path, tmp_path: Path) -> None:
    assert dialled(library, tmp_path / "record", ["-c", PROBE]) == {("127.0.0.9", 53)}


@pytest.mark.timeout(150)
@pytest.mark.skipif(not sysconfig.get_platform().startswith("linux"), reason="LD_PRELOAD is Linux'")
def test_calls_dial_nothing_but_what_was_checked(library: Path, tmp_path: Path) -> None:
    """Names, denials, rebinding, a proxy in the environment, TLS."""
    which = "host or denied or rebinding or proxy or gateway_itself or tls or unary"
    arguments = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / "test_grpc_callout.py"), "-k", which]
    found = dialled(library, tmp_path / "record", arguments, https_proxy="http://127.0.0.8:1", grpc_proxy="http://127.0.0.8:1")
    assert len(found) > 5, "the tests dial their servers"
    assert {host for host, _ in found} == {"127.0.0.1"}, found
    assert 53 not in {port for _, port in found}
