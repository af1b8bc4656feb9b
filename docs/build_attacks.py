#!/usr/bin/env python3
"""Writes the tables of docs/attacks.md from the cases in tests/attacks/cases.

    python docs/build_attacks.py             write the tables
    python docs/build_attacks.py --measure   run the slow clients too, and write their figures (a minute)
    python docs/build_attacks.py --check     fail if a table is not what would be written; figures are left alone

What stands outside the markers `<!-- NAME -->` ... `<!-- end -->` is written by hand and kept.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "attacks.md"
END = "<!-- end -->"
sys.path.insert(0, str(DOCS.parent))

from tests.attacks.cases import client, filter, upstream  # noqa: E402


def table(families: Mapping[str, Sequence[Any]], columns: Mapping[str, Callable[[Any], bool]]) -> str:
    """A row for each family: what is tried, by which clauses, how many cases, and how many end in which way."""
    rows = [("what is tried", "after", "cases", *columns), ("---", "---", *["--:"] * (1 + len(columns)))]
    for name, cases in families.items():
        rows.append((name, clauses(cases), str(len(cases)), *counts(cases, columns)))
    every = [case for cases in families.values() for case in cases]
    rows.append(("**all**", "", f"**{len(every)}**", *(f"**{count}**" for count in counts(every, columns))))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def counts(cases: Sequence[Any], columns: Mapping[str, Callable[[Any], bool]]) -> Iterable[str]:
    found = [sum(map(holds, cases)) for holds in columns.values()]
    assert sum(found) == len(cases), "each case ends in one way"
    return map(str, found)


def clauses(cases: Sequence[Any]) -> str:
    """`RFC 9110 5.1, 7.6.1; RFC 9112 3`, each once, in order."""
    found: dict[str, set[str]] = {}
    for case in cases:
        document, _, section = case.clause.rpartition(" ")
        found.setdefault(document, set()).add(section)
    return "; ".join(f"{document} {', '.join(sorted(found[document], key=by_number))}" for document in sorted(found))


def by_number(section: str) -> list[int]:
    return [int(part) for part in section.split(".")]


def client_table() -> str:
    def refused(case: client.Case) -> bool:
        return not case.reached and case.answers[0] >= 400

    def closed(case: client.Case) -> bool:
        return not refused(case) and (not case.reached or case.bytewise == (200,))

    return table(
        client.FAMILIES,
        {
            "refused": refused,
            "served, what is behind it is not": closed,
            "served, in one sound form": lambda case: not refused(case) and not closed(case),
        },
    )


def filter_table() -> str:
    def passed(case: filter.Case) -> bool:
        if case.script.startswith("rqh: call"):
            return bool(case.callee)
        return bool(case.answers) and case.answers[0] not in (500, 503)

    return table(
        filter.FAMILIES,
        {
            "one sound message leaves": passed,
            "an error": lambda case: bool(case.answers) and not passed(case),
            "cut": lambda case: not case.answers,
        },
    )


def upstream_table() -> str:
    return table(
        upstream.FAMILIES,
        {
            "502, 503 or 504": lambda case: bool(case.answers) and case.answers[0] >= 500,
            "cut": lambda case: not case.answers,
            "the response alone": lambda case: bool(case.answers) and case.answers[0] < 500,
        },
    )


def figures() -> str:
    """Runs the slow clients."""
    from tests.attacks.slow import slow_clients, slow_readers

    run = asyncio.run(slow_clients(2000))
    reader = asyncio.run(slow_readers(100))
    rows = [
        ("slow clients at once", f"{run.clients:,}"),
        ("of these closed by the gateway", f"{sum(run.closed.values()):,}"),
        ("until the last was closed, with timeouts of 2 s", f"{run.last_closed:.1f} s"),
        ("requests of the innocent client meanwhile, all answered", f"{run.innocent:,}"),
        ("the longest of them", f"{run.longest * 1000:.0f} ms"),
        ("memory for each slow client", f"{run.idle_bytes / 1024:.1f} KiB"),
        ("memory for each client that does not read its 64 MiB", f"{reader / 1024:.0f} KiB"),
    ]
    return "| | |\n|---|--:|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


TABLES = {"clients": client_table, "filters": filter_table, "upstreams": upstream_table}


def page(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with these tables as they should be."""
    for name, write in tables.items():
        begin = f"<!-- {name} -->\n"
        before, found, rest = text.partition(begin)
        assert found, name
        text = before + begin + write() + END + rest.partition(END)[2]
    return text


def main(arguments: list[str]) -> int:
    """0 if the page was written or is right, 1 if it is not, 2 for wrong arguments."""
    text = PAGE.read_text()
    if arguments == ["--check"]:
        if page(text, TABLES) != text:
            print(f"{PAGE} does not match tests/attacks/cases; run python docs/build_attacks.py", file=sys.stderr)
            return 1
        return 0
    if arguments not in ([], ["--measure"]):
        print(__doc__, file=sys.stderr)
        return 2
    PAGE.write_text(page(text, {**TABLES, "figures": figures} if arguments else TABLES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
