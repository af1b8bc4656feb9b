"""What a component filter costs the host: `python -m benchmarks.components [FILTER.wasm ...]`.

Without arguments a C filter is built (ziglang) that edits two headers, gives a body back and logs. Best of many rounds, since
other work on the machine only ever adds. The bars: a headers callback with ten headers in and two edits out 40 us, a log call
3 us, a text body of 64 KiB 60 us.
"""

import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wasmtime.component import Component

from proxy.abi.component import world
from proxy.abi.component.instance import Instance, Linked
from proxy.abi.memory import memory_type
from proxy.wasm.engine import Engine

ROOT = Path(__file__).resolve().parents[1]

HEAD = [
    (b":method", b"GET"), (b":path", b"/a/path?q=1"), (b":scheme", b"http"), (b":authority", b"example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"), (b"accept", b"*/*"), (b"x-b", b"to be removed"),
    (b"cookie", b"a=b; c=d; session=0123456789abcdef"), (b"authorization", b"Bearer sesame"),
    (b"x-request-id", b"0f3a1c20-1111-2222-3333-444444444444"),
]  # fmt: skip
TEXT = b"x" * (64 << 10)
BINARY = bytes(range(256)) * 256
LOGS = 1000
PLENTY = 10**10
CONFIG = b'{"token": "sesame", "client": "ada"}'


def answers() -> dict[tuple[str, str], Callable[..., Any]]:
    """Host functions that cost nothing: what is measured is the way to them."""
    silent = {(interface, name): lambda *_: None for interface, found in world.IMPORTS.items() for name in found}
    silent[world.interface("config"), "get"] = lambda key: {b"token": b"sesame", b"client": b"ada"}.get(key)
    return silent


def best(call: Callable[[], object], number: int, rounds: int = 15) -> float:
    """Microseconds of one call."""
    return min(timeit.repeat(call, number=number, repeat=rounds)) / number * 1e6


def measure(path: Path, logs: bool) -> None:
    engine = Engine(memory_type())
    loaded = Component(engine.wasmtime, path.read_bytes())
    linked = Linked(engine, loaded, world.IMPORTS, world.FILTER, world.EXPORTS[world.FILTER], answers(), 4 << 20)

    def fresh() -> Instance:
        made = Instance(linked, memory_limit=64 << 20, memories=4, deadline=5.0, fuel=PLENTY)
        made.call("configure", (CONFIG,), PLENTY)
        return made

    def once() -> None:
        fresh().close()

    instance = fresh()
    rows = {
        "a new instance, configured": best(once, 20),
        "on-log: a call without values": best(lambda: instance.call("on-log", (1,), PLENTY), 2000),
        "on-request-headers: 10 in, 2 edits out": best(
            lambda: instance.call("on-request-headers", (1, HEAD, True), PLENTY), 1000
        ),
        "on-request-body: 64 KiB of text": best(lambda: instance.call("on-request-body", (1, (0, TEXT), True), PLENTY), 100),
        "on-request-body: 64 KiB binary": best(lambda: instance.call("on-request-body", (1, (1, BINARY), True), PLENTY), 20),
    }
    if logs:
        thousand = best(lambda: instance.call("on-response-headers", (1, [], True), PLENTY), 5)
        rows["log: one line"] = thousand / LOGS
    print(path.name)
    for name, microseconds in rows.items():
        print(f"  {name:<42} {microseconds:9.1f} us")
    instance.close()
    linked.close()
    engine.close()


def main() -> None:
    given = [Path(argument) for argument in sys.argv[1:]]
    if given:
        for path in given:
            measure(path, logs=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "component.wasm"
        command = [sys.executable, ROOT / "filters/component-c/build.py", ROOT / "benchmarks/component.c", output]
        subprocess.run(command, check=True)
        measure(output, logs=True)


if __name__ == "__main__":
    main()
