"""A small JSON file that several processes follow, and that outlives them: replaced as a whole, read when it is another one."""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

log = structlog.get_logger("state")

Value = TypeVar("Value")


class StateFile(Generic[Value]):
    """`parse` makes the value of what the JSON says; ValueError, TypeError and KeyError of it mean that the file is no good."""

    def __init__(self, path: Path, parse: Callable[[Any], Value]) -> None:
        self.path = path
        self.parse = parse
        self.seen: tuple[int, int] | None = None
        self.known: Value | None = None

    def read(self) -> Value | None:
        """What it says; None without a file. A stat (3 us) unless there is a new one; what cannot be read changes nothing."""
        try:
            found = self.path.stat()
        except OSError:
            self.seen = self.known = None
            return None
        seen = (found.st_mtime_ns, found.st_ino)
        if seen != self.seen:
            self.seen = seen
            try:
                self.known = self.parse(json.loads(self.path.read_text()))
            except (OSError, ValueError, TypeError, KeyError) as error:
                log.error("state_file_unreadable", file=str(self.path), error=str(error))
        return self.known

    def write(self, said: Any) -> None:
        """For all processes and for the next start. Raises OSError; then the old one is still there."""
        descriptor, name = tempfile.mkstemp(prefix=".", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(said, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self.path.unlink()
