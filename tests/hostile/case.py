"""What a hostile filter is, as data: its module, what it tries, and what holds nevertheless."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

FAMILIES = {
    "compile": "Compile time: modules that cost more to read or to compile than they are worth",
    "format": "Format: truncated, malformed and mistyped modules",
    "start": "Start: modules that misbehave before they serve",
    "run": "Run time: callbacks that do not come back, or come back with a trap",
    "memory": "Memory: what the engine gives at one stroke",
    "allocator": "Allocator: what the filter's own malloc may do to the host",
    "arguments": "Arguments: what a host function is handed",
    "flood": "Floods: more of something than anybody needs",
}
"""The families, in the order of docs/hostile.md."""

RESET = 0
"""An answer: the connection was closed before or inside the response."""


@dataclass(frozen=True)
class Ask:
    """A request to the guilty filter's route: `body` bytes long, its answer's body `answer` bytes long."""

    method: str = "GET"
    body: int = 0
    answer: int = 2
    headers: Mapping[str, str] = field(default_factory=dict)


GET = Ask()


@dataclass(frozen=True)
class Case:
    """A hostile filter.

    `module`: WAT, or what makes the bytes. `settings`: keys of its entry in `filters`. `refused`: a pattern that the problem
    found at load matches, for filters that never serve. `answers`: the statuses that its client may get. `reasons`: the
    reasons of `filter_failed`, each of which is logged and counted; none may come that is not here. `counted`: further
    metrics, as `name{label="value"}` less the filter's label, that must rise. `logged`: events that must be logged with the filter's name.
    """

    name: str
    family: str
    tries: str
    module: str | Callable[[], bytes]
    settings: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    asks: tuple[Ask, ...] = (GET, GET)
    together: int = 1
    """So many clients do this at once."""
    answers: frozenset[int] = frozenset({503})
    reasons: frozenset[str] = frozenset()
    counted: tuple[str, ...] = ()
    logged: tuple[str, ...] = ()
    linger: float = 0.0
    """Seconds that it has after its answers, for what it does by itself."""
    growth: int = 64
    """MiB that the worker may have more afterwards."""
    holds: str = ""
    """What holds, in words, where the fields above do not say it."""

    def __post_init__(self) -> None:
        assert self.family in FAMILIES, self.family
        assert re.fullmatch(r"[a-z0-9-]+", self.name), self.name

    @property
    def outcome(self) -> str:
        """What holds, for the page."""
        if self.holds:
            return self.holds
        if self.refused:
            return f"refused at load: {shown(self.refused)}"
        statuses = " or ".join("reset" if one == RESET else str(one) for one in sorted(self.answers))
        parts = [statuses]
        if self.reasons:
            parts.append("reason " + ", ".join(f"`{reason}`" for reason in sorted(self.reasons)))
        parts += [f"counted in `{name.partition('{')[0].removeprefix('penstock_')}`" for name in self.counted]
        parts += [f"logged as `{event}`" for event in self.logged]
        return "; ".join(dict.fromkeys(parts))


def shown(pattern: str) -> str:
    """A pattern as one reads it."""
    text = re.sub(r"compile_\(time (\w+)\|memory (\w+)\)", r"compile_time \1 or limits.compile_memory \2", pattern)
    text = text.replace("\\d+", "N").replace(".*", " ... ").replace("|", " or ")
    return re.sub(r"\\(.)", r"\1", text).rstrip(" {_;").replace("  ", " ")
