"""What is wrong with a config: where, what, and what to write instead."""

from collections.abc import Iterable
from dataclasses import dataclass

from proxy.config.secrets import Secret

KeyPath = tuple[str | int, ...]
"""The way from the top of a config document to one value: mapping keys and list indexes (from 0)."""

LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in a config. `line` counts from 1; `path` is as `path_text` makes it."""

    file: str
    line: int
    path: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.path}: {self.problem}; {self.mend}"


class ConfigErrors(Exception):
    """Everything that is wrong with a config, in file and line order; `str()` gives one line per problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem.line))
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class WrongValueError(ValueError):
    """One value is wrong; whoever knows its place makes a `Problem` of it."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(problem, mend)
        self.problem = problem
        self.mend = mend


def path_text(path: KeyPath) -> str:
    """`("routes", 0, "match")` -> `routes[0].match`; the document itself is `(top level)`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text or "(top level)"


def show(value: object) -> str:
    """The value as an error may show it: short, on one line, and `***` when it holds a secret."""
    match value:
        case Secret():
            return "***"
        case str():
            clean = value.encode("unicode_escape").decode("ascii") if not value.isprintable() else value
            return f'"{clean}"' if len(clean) <= LONGEST_SHOWN else f'"{clean[:LONGEST_SHOWN]}..."'
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            text = repr(value)
            return text if len(text) <= LONGEST_SHOWN else "a number of that many digits"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return "a value of another kind"
