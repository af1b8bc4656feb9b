"""What the gateway's parts log while the kit runs them: kept, and nothing written to stderr."""

import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from proxy.telemetry import logging as logs
from proxy.telemetry.writer import Writer


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a filter's log."""

    filter: str
    level: str
    message: str
    callback: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A callback that was ended. `reason`: fuel, deadline, trap, memory, pause, body_buffer, start."""

    filter: str
    callback: str
    reason: str
    message: str


class Hearing(Writer):
    """While it is entered, the process's log is kept here."""

    def __init__(self, level: str = "debug") -> None:
        super().__init__()
        self.level = level
        self.logged: list[Line] = []
        self.faults: list[Fault] = []
        self.remarks: list[dict[str, Any]] = []
        """The gateway's own lines: refused host calls, denied ones, warnings."""
        self.before = (logs.output.writer, logs.output.level, logs.output.json)

    def __enter__(self) -> Self:
        self.before = (logs.output.writer, logs.output.level, logs.output.json)
        logs.configure(self.level, "json", self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        writer, level, as_json = self.before
        name = {10: "debug", 20: "info", 30: "warning"}.get(level, "error")
        logs.configure(name, "json" if as_json else "console", writer)

    def write(self, line: str) -> None:
        fields = json.loads(line)
        match fields["event"]:
            case "filter_log":
                self.logged.append(Line(fields["filter"], fields["level"], fields["message"], fields["callback"]))
            case "filter_failed":
                self.faults.append(Fault(fields["filter"], fields["callback"], fields["reason"], fields["message"]))
            case _:
                self.remarks.append(fields)

    def flush(self) -> None:
        """Lines are kept, not written."""
