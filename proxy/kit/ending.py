"""How the kit, `penstock bench`, the benchmarks and the tests end what they have started."""

import subprocess
from typing import Any


def end(process: "subprocess.Popen[Any]", seconds: float) -> None:
    """SIGTERM, and SIGKILL for a process that has not ended `seconds` later. It is reaped; one that has ended is left alone."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
