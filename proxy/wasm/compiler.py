"""The child process that compiles one module or component: `python -m proxy.wasm.compiler SECONDS BYTES THREADS`.

The module comes on standard input, the serialised code goes to standard output, what is wrong to standard error. The
limits are put on just before compiling, so that they count the module and not this interpreter's start. Compiling an
untrusted module may take any time and memory and is allowed to crash: nothing else lives in this process.
"""

import math
import os
import resource
import signal
import sys

from wasmtime import Engine, Module, WasmtimeError
from wasmtime.component import Component

from proxy.wasm.module import COMPONENT_PREAMBLE, MODULE_PREAMBLE
from proxy.wasm.settings import engine_config

INVALID = 65  # exit codes, as in sysexits.h
OUT_OF_MEMORY = 71
OUTPUT_TOO_LARGE = 73
LARGEST_OUTPUT = 1 << 30  # bytes


def main(arguments: list[str]) -> int:
    """Compiles. Exits 0, or with a code above; a signal means a limit, see `proxy.wasm.compile`."""
    seconds, memory, threads = float(arguments[0]), int(arguments[1]), int(arguments[2])
    wasm = sys.stdin.buffer.read()
    if not wasm.startswith((MODULE_PREAMBLE, COMPONENT_PREAMBLE)):  # wasmtime-py would take text, too
        sys.stderr.write("neither a core module nor a component in the binary format")
        return INVALID
    engine = Engine(engine_config(parallel=threads > 1))
    limit(seconds, memory)
    try:
        kind = Module if wasm.startswith(MODULE_PREAMBLE) else Component
        code = kind(engine, wasm).serialize()
    except MemoryError:
        return OUT_OF_MEMORY
    except WasmtimeError as error:
        sys.stderr.write(str(error))
        return INVALID
    try:
        sys.stdout.buffer.write(code)
        sys.stdout.buffer.flush()
    except OSError as error:
        sys.stderr.write(str(error))
        os._exit(OUTPUT_TOO_LARGE)  # not through the buffers' second try to flush
    return 0


def limit(seconds: float, memory: int) -> None:
    """CPU seconds of all threads together, bytes of address space; no core dump of what a stranger sent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_OUTPUT, LARGEST_OUTPUT))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # The kernel's limit counts whole seconds from the process's start: the timer is exact, the limit can't be undone.
    spent = math.ceil(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + 1
    hard = math.ceil(seconds) + spent
    resource.setrlimit(resource.RLIMIT_CPU, (hard, hard + 1))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
