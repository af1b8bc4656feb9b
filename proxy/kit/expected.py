"""What a case expects of an exchange, and of the messages in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is expected of a message: the values of these headers (none for an absent one), the body if it is given."""

    headers: Mapping[str, Sequence[bytes]]
    body: bytes | None
    status: int = 200
    method: str | None = None
    path: str | None = None
    trailers: Mapping[str, Sequence[bytes]] | None = None

    def problems(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> list[str]:
        """What differs in a message, a line each."""
        found = field_problems(self.headers, headers)
        if self.body is not None and body != self.body:
            found.append(f"body: expected {self.body[:500]!r}, got {body[:500]!r}")
        return found


@dataclass(frozen=True, slots=True)
class WantedLine:
    """A log line that holds `text`, at `level` if it is not None."""

    text: str
    level: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What an exchange must come to. `upstream` None: the request must not get there; `downstream` None: the client gets no
    response. `reply`: the details of a local reply, none or any; None: it is not looked at."""

    upstream: Wanted | None
    downstream: Wanted | None
    reply: str | None = None
    log: Sequence[WantedLine] = ()
    no_log: Sequence[str] = ()
    metrics: Mapping[str, int] | None = None
    failure: str | None = None
    fuel: int | None = None
    memory: int | None = None


def field_problems(wanted: Mapping[str, Sequence[bytes]], fields: Sequence[tuple[bytes, bytes]]) -> list[str]:
    """What differs in header or trailer fields, a line each."""
    found = []
    for name, values in wanted.items():
        actual = [value for key, value in fields if key.lower() == name.encode()]
        if actual != list(values):
            found.append(f"{name}: expected {values_text(values)}, got {values_text(actual)}")
    return found


def values_text(values: Sequence[bytes]) -> str:
    """The values of a field, for people."""
    shown = [repr(value.decode("utf-8", "backslashreplace")) for value in values]
    return ", then ".join(shown) or "no such field"
