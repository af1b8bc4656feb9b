"""What became of the last reload, for whoever asks: a file in the gateway's private directory, written by the supervisor."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "reload.json"


@dataclass
class Outcome:
    """`result`: "ok"; "unchanged", nothing differs from what serves; "refused", what was found wrong is in `problems`, and what
    served before goes on; "diff", only asked for. `trigger`: "command", "signal", "files", "admin". `generation`: the one that
    serves now. `time`: seconds since 1970."""

    result: str
    trigger: str
    generation: int
    problems: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    time: float = field(default_factory=lambda: round(time.time(), 3))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def write(directory: Path, generation: int, last: Outcome | None, counts: dict[str, int]) -> None:
    """Raises OSError."""
    new = directory / f"{FILE}.new"
    body = {"generation": generation, "last": None if last is None else last.as_dict(), "counts": counts}
    new.write_text(json.dumps(body))
    new.replace(directory / FILE)


def read(directory: Path) -> dict[str, Any]:
    """`{"generation": 1, "last": null or an Outcome, "counts": {result: number}}`."""
    try:
        found: dict[str, Any] = json.loads((directory / FILE).read_text())
    except FileNotFoundError:
        return {"generation": 1, "last": None, "counts": {}}
    return found
