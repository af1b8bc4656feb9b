"""The last log lines about each filter, for the admin pages. Its cost is a copied mapping for each line that is written."""

from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

LINES: Final = 100
"""Kept for each filter."""
MOST_FILTERS: Final = 1000
LONGEST: Final = 1024
"""Characters of a field that are kept."""


class RecentLines:
    """One per process. Each line has a number, so that whoever looks again asks only for what is new."""

    def __init__(self) -> None:
        self.lines: dict[str, deque[dict[str, Any]]] = {}
        self.numbers = count(1)

    def keep(self, name: str, fields: Mapping[str, Any]) -> None:
        """Take a line about the filter `name`: the fields of a log line."""
        kept = self.lines.get(name)
        if kept is None:
            if len(self.lines) >= MOST_FILTERS:
                return
            kept = self.lines[name] = deque(maxlen=LINES)
        line: dict[str, Any] = {"number": next(self.numbers)}
        for key, value in fields.items():
            line[key] = value if value is None or isinstance(value, int | float) else str(value)[:LONGEST]
        kept.append(line)

    def of(self, name: str) -> list[dict[str, Any]]:
        """The filter's lines, oldest first."""
        return list(self.lines.get(name, ()))
