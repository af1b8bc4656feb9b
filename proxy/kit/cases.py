"""Cases: what a filter must do, as data, for any host that plays them. `case_file` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from proxy.kit.expected import Expected, Wanted

Fields = Sequence[tuple[str, str]]

CLOCK: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
NO_ANSWERS: Final = ("timeout", "reset", "unreachable", "unknown")


class CaseError(Exception):
    """A case file is not of the form described above, or what it names is not there."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message to send. `chunks` is None for a sized body; `delay` in seconds."""

    headers: Fields
    body: bytes
    chunks: Sequence[bytes] | None
    method: str = "GET"
    path: str = "/"
    status: int = 200
    trailers: Fields = ()
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """A call that the filter is expected to make, and its answer: a message, or one of NO_ANSWERS. `method` and `path` None,
    headers that are not named and a `body` None are not looked at."""

    cluster: str
    answer: Sent | str
    wanted: Wanted
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, what meets it, and what must come of it. `wait` in seconds."""

    request: Sent
    response: Sent
    expected: Expected
    calls: Sequence[ScriptedCall] = ()
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """Exchanges through one filter, one after the other. `clock` in seconds since the epoch."""

    name: str
    configuration: bytes | None
    """None: the case file gives none."""
    exchanges: Sequence[Exchange]
    settings: Mapping[str, Any]
    clock: float = CLOCK
    seed: int = 1
    own_vm: bool = False
    portable: bool = True
    """It can run in any host: it asks for no clock, randomness, settings or faults."""

    @property
    def request(self) -> Sent:
        return self.exchanges[0].request

    @property
    def response(self) -> Sent:
        return self.exchanges[0].response

    @property
    def upstream(self) -> Wanted | None:
        return self.exchanges[0].expected.upstream

    @property
    def downstream(self) -> Wanted | None:
        return self.exchanges[0].expected.downstream

    @property
    def services(self) -> Mapping[str, Sequence[Sent | None]]:
        """What each service that the filter calls answers, in turn; None: it closes the connection."""
        found: dict[str, list[Sent | None]] = {}
        for call in self.exchanges[0].calls:
            said = call.answer
            found.setdefault(call.cluster, []).append(None if isinstance(said, str) else replace(said, delay=call.delay))
        return found

    @property
    def calls(self) -> Mapping[str, Sequence[Wanted]]:
        """The calls that are expected, by the service."""
        found: dict[str, list[Wanted]] = {}
        for call in self.exchanges[0].calls:
            found.setdefault(call.cluster, []).append(call.wanted)
        return found


@dataclass(frozen=True, slots=True)
class Refusal:
    """A configuration that must be refused, and what the filter must say about it."""

    name: str
    configuration: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Cases:
    """All of one filter. `settings` are the filter's, as a gateway's config has them."""

    wasm: Path
    cases: Sequence[Case]
    refusals: Sequence[Refusal]
    file: Path
    settings: Mapping[str, Any]
