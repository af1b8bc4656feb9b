"""What component filters cost: `python -m benchmarks.components [FILTER.wasm ...] [--write docs/components.md]`.

Without arguments: the same token check in every language (filters/component-*), and two filters that only give what they are
asked for, in C and JavaScript: their times are the host's, and an engine's least. `--write` puts the tables between the page's
marks. The least of many short rounds, the filters by turns, since other work on the machine only ever adds. The bars: a headers
callback with ten headers in and two edits out 40 us in C and QuickJS, a log line 3 us, 64 KiB of text 60 us of the host's time.
"""

from __future__ import annotations

import argparse
import os
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wasmtime.component import Component

from proxy.abi.component import world
from proxy.abi.component.instance import Instance, Linked
from proxy.abi.memory import memory_type
from proxy.wasm.engine import Engine
from tests.abi.component import toolchains
from tests.guests.toolchains import MissingError

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
INSTANCES = 16
"""Held at once, to see what memory one takes."""

TOKEN_CHECK: Final[Mapping[str, Callable[[], Path]]] = {
    "C": lambda: toolchains.component_of(toolchains.C / "filter.c"),
    "Rust": lambda: toolchains.RUST_FILTER,
    "Go": toolchains.go_filter,
    "JavaScript (QuickJS)": toolchains.js_filter,
    "Python": toolchains.python_filter,
}
BARE: Final[Mapping[str, Callable[[], Path]]] = {
    "C": lambda: toolchains.component_of(ROOT / "benchmarks" / "component.c"),
    "JavaScript (QuickJS)": lambda: toolchains.js_filter(ROOT / "benchmarks" / "component.js"),
}
Column = dict[str, float]
"""Figures by row; times in microseconds."""


def answers() -> dict[tuple[str, str], Callable[..., Any]]:
    """Host functions that cost nothing: what is measured is the way to them."""
    silent = {(interface, name): lambda *_: None for interface, found in world.IMPORTS.items() for name in found}
    for name in ("now-ns", "monotonic-ns"):
        silent[world.interface("clock"), name] = time.monotonic_ns
    silent[world.interface("random"), "get-u64"] = lambda: 7
    silent[world.interface("config"), "get"] = lambda key: {b"token": b"sesame", b"client": b"ada"}.get(key)
    return silent


class Filter:
    """A component that has been compiled, with one instance. Close it."""

    def __init__(self, path: Path, engine: Engine) -> None:
        began = time.process_time()
        self.component = Component(engine.wasmtime, path.read_bytes())
        self.compiled = time.process_time() - began
        """Seconds of CPU."""
        self.size = path.stat().st_size
        self.linked = Linked(
            engine, self.component, world.IMPORTS, world.FILTER, world.EXPORTS[world.FILTER], answers(), 4 << 20
        )
        self.instance = self.fresh()

    def fresh(self) -> Instance:
        made = Instance(self.linked, memory_limit=64 << 20, memories=4, deadline=5.0, fuel=PLENTY)
        made.call("configure", (CONFIG,), PLENTY)
        return made

    def headers(self) -> object:
        return self.instance.call("on-request-headers", (1, HEAD, True), PLENTY)

    def nothing(self) -> object:
        return self.instance.call("on-log", (1,), PLENTY)

    def text(self) -> object:
        return self.instance.call("on-request-body", (1, (world.TEXT, TEXT), True), PLENTY)

    def binary(self) -> object:
        return self.instance.call("on-request-body", (1, (world.BINARY, BINARY), True), PLENTY)

    def logs(self) -> object:
        """Only of component.c: LOGS lines."""
        return self.instance.call("on-response-headers", (1, [], True), PLENTY)

    def memory(self) -> float:
        """Bytes of an instance that has answered a call."""
        before = resident()
        held = [self.fresh() for _ in range(INSTANCES)]
        for one in held:
            one.call("on-request-headers", (1, HEAD, True), PLENTY)
        found = (resident() - before) / INSTANCES
        for one in held:
            one.close()
        return found

    def close(self) -> None:
        self.instance.close()
        self.linked.close()


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(filters: Mapping[str, Filter], rounds: int = 60) -> dict[str, Column]:
    """Columns by name: rounds of a few milliseconds, the filters by turns, the least of each."""
    columns: dict[str, Column] = {name: {} for name in filters}
    for _ in range(rounds):
        for name, one in filters.items():
            column = columns[name]
            tries = {
                "instance": (lambda one=one: one.fresh().close(), 3),
                "call": (one.nothing, 300), "headers": (one.headers, 50), "text": (one.text, 20), "binary": (one.binary, 2),
            }  # fmt: skip
            for row, (call, number) in tries.items():
                took = timeit.timeit(call, number=number) / number * 1e6
                column[row] = min(took, column.get(row, took))
    for name, one in filters.items():
        one.headers()
        columns[name] |= {"fuel": one.instance.used, "size": one.size, "compiled": one.compiled, "memory": one.memory()}
    return columns


# ---- For people ----

ROWS: Final = {
    "size": ("file", lambda n: f"{n / 1e6:.1f} MB" if n > 1e6 else f"{n / 1e3:.0f} KB"),
    "compiled": ("compiled, once (then cached), CPU", lambda n: f"{n:.1f} s" if n >= 0.1 else f"{n * 1000:.0f} ms"),
    "memory": ("memory of an instance", lambda n: f"{max(n, 1e4) / 1e6:.1f} MB" if n > 1e5 else "below 0.1 MB"),
    "instance": ("a new instance, configured", lambda n: f"{n / 1000:.2f} ms"),
    "call": ("a call without values", lambda n: f"{n:.1f} us"),
    "headers": ("request headers: 10 in, 2 edits out", lambda n: f"{n:.0f} us"),
    "fuel": ("fuel of that call", lambda n: f"{n:,.0f}"),
    "text": ("64 KiB of text through a body callback", lambda n: f"{n:.0f} us"),
    "binary": ("64 KiB that are no text", lambda n: f"{n:.0f} us"),
}
BARE_ROWS: Final = ("headers", "text", "binary")


def table(columns: Mapping[str, Column], rows: Sequence[str]) -> Iterator[str]:
    """Markdown, a line each."""
    yield f"| | {' | '.join(columns)} |"
    yield "|---|" + "--:|" * len(columns)
    for row in rows:
        title, form = ROWS[row]
        yield f"| {title} | {' | '.join(form(column[row]) for column in columns.values())} |"


def of_languages(engine: Engine) -> Iterator[str]:
    """The page's text between its marks."""
    check = measured(engine, found(TOKEN_CHECK))
    yield from table(check, list(ROWS))
    bare = {name: Filter(path, engine) for name, path in found(BARE).items()}
    columns = measure(bare)
    yield ""
    yield "Filters that only give two edits, and a body back as it came, without a look at anything:"
    yield ""
    yield from table(columns, BARE_ROWS)
    line = min(timeit.repeat(bare["C"].logs, number=1, repeat=60)) / LOGS * 1e6
    yield ""
    yield f"A log line takes {line:.1f} us of the host's time, what the log itself does not counted."
    for one in bare.values():
        one.close()


def found(builds: Mapping[str, Callable[[], Path]]) -> dict[str, Path]:
    """Those whose tools are here."""
    paths = {}
    for name, build in builds.items():
        try:
            paths[name] = build()
        except MissingError as error:
            print(f"{name}: {error}")
    return paths


def measured(engine: Engine, paths: Mapping[str, Path]) -> dict[str, Column]:
    filters = {name: Filter(path, engine) for name, path in paths.items()}
    columns = measure(filters)
    for one in filters.values():
        one.close()
    return columns


BEGIN, END = "<!-- measured: python -m benchmarks.components --write docs/components.md -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filters", nargs="*", type=Path, metavar="FILTER.wasm")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace what the page has between its marks")
    given = parser.parse_args()
    engine = Engine(memory_type())
    if given.filters:
        lines = list(table(measured(engine, {path.name: path for path in given.filters}), list(ROWS)))
    else:
        lines = list(of_languages(engine))
    engine.close()
    print("\n".join(lines))
    if given.write:
        text = given.write.read_text()
        before, mark, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (mark and end):
            parser.error(f"{given.write}: has no marks; write {BEGIN} and {END}")
        given.write.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]))


if __name__ == "__main__":
    main()
