#!/usr/bin/env python3
"""The table of filters in docs/filters.md: language, size, fuel and memory, from the manifests, the modules and the cases.

    python filters/figures.py            write it
    python filters/figures.py --check    exit status 1 if it is not what it would be

Fuel is the median over the cases of each filter, so it is a property of the cases as well; but it is the same on every machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from proxy.kit.case_file import read
from proxy.kit.measure import measure
from proxy.kit.play import Player

FILTERS = Path(__file__).resolve().parent
PAGE = FILTERS.parent / "docs" / "filters.md"
BEGIN = "<!-- filters/figures.py writes this table -->\n"
END = "<!-- up to here -->\n"
ROUNDS = 2


def row(name: str) -> str:
    """A line of the table."""
    manifest = yaml.safe_load((FILTERS / name / "filter.yaml").read_text())
    size = (FILTERS / name / f"{name}.wasm").stat().st_size / 1000
    found = measure(Player(read(FILTERS / name / "cases.yaml")), ROUNDS)
    by_name = {one.callback: one for one in found.callbacks}
    medians = [
        f"{by_name[callback].fuel_median:,}" if callback in by_name else ""
        for callback in ("proxy_on_request_headers", "proxy_on_response_headers")
    ]
    most = max(one.fuel_most for one in found.callbacks)
    cells = [f"[{name}](../filters/{name}/README.md)", manifest["language"], f"{size:,.0f}", *medians, f"{most:,}"]
    return "| " + " | ".join([*cells, f"{found.memory / (1 << 20):.1f}"]) + " |\n"


def table() -> str:
    """All filters that have cases, by name."""
    names = sorted(path.parent.name for path in FILTERS.glob("*/cases.yaml"))
    lines = [
        "| filter | in | KB | fuel: request head | response head | most | MiB |\n",
        "|---|---|--:|--:|--:|--:|--:|\n",
        *map(row, names),
    ]
    return "".join(lines)


def main(arguments: list[str]) -> int:
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    fresh = before + BEGIN + table() + END + after
    if arguments == ["--check"]:
        return 0 if fresh == text else 1
    PAGE.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
