"""Answers to the calls that a filter makes, from a script: what stands where the gateway has upstream/callout.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from proxy.kit.cases import Fields, ScriptedCall, Sent
from proxy.kit.clock import Clock, Timer
from proxy.upstream.callout import BAD_ARGUMENT, CalloutError, CalloutPolicy, CalloutResult
from proxy.upstream.callout_head import MissingError, RequestHead

Pairs = Sequence[tuple[bytes, bytes]]

UNREACHABLE = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"
TIMED_OUT = b"upstream request timeout"
SHORTEST_DELAY = 0.000001
"""Seconds: an answer never comes inside the call."""


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A call as the filter made it. `timeout` in seconds."""

    cluster: str
    method: str
    path: str
    headers: Pairs
    body: bytes
    timeout: float


class Handle:
    """A call under way."""

    def __init__(self, timer: Timer) -> None:
        self.timer = timer

    def cancel(self) -> None:
        self.timer.cancel()


@dataclass(slots=True)
class ScriptedCalls:
    """The calls of one VM: `script` is taken in its order, for each cluster, and what comes of it noted in `problems`."""

    clock: Clock
    script: list[ScriptedCall] = field(default_factory=list)
    made: list[MadeCall] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    known: frozenset[str] = frozenset()
    """The clusters that there are: a call to another is refused, as in a gateway without it."""
    default: ScriptedCall | None = None
    """The answer to calls that nobody scripted; None: they are refused, and a problem if the cluster is known."""

    def start(
        self,
        policy: CalloutPolicy,
        upstream: str,
        headers: Pairs,
        body: bytes,
        trailers: Pairs,
        timeout: float,
        done: Callable[[CalloutResult], None],
    ) -> Handle:
        """As Callouts.start. Raises CalloutError."""
        try:
            head = RequestHead(headers)
        except MissingError as error:
            raise CalloutError(BAD_ARGUMENT, str(error)) from None
        # Under both of its names: as the filter wrote it, and as the service would see it.
        fields = [(b":authority", head.authority), (b"host", head.authority), *head.fields]
        call = MadeCall(upstream, text(head.method), text(head.path), fields, body, timeout)
        self.made.append(call)
        scripted = self.take(call)
        if scripted is None or scripted.answer == "unknown":
            raise CalloutError(BAD_ARGUMENT, f"no cluster is called {upstream}")
        delay, result = answer(scripted, timeout)
        return Handle(self.clock.later(max(delay, SHORTEST_DELAY), done, result))

    def take(self, call: MadeCall) -> ScriptedCall | None:
        shown = f"{call.method} {call.path} to {call.cluster}"
        place = next((i for i, one in enumerate(self.script) if one.cluster == call.cluster), None)
        if place is None:
            if self.default is None and call.cluster in self.known:
                wanted_one = f"one to {self.script[0].cluster}" if self.script else "none"
                self.problems.append(f"call: expected {wanted_one}, got {shown}")
            return self.default
        scripted = self.script.pop(place)
        wanted = scripted.wanted
        for name, value, actual in (("method", wanted.method, call.method), ("path", wanted.path, call.path)):
            if value is not None and value != actual:
                self.problems.append(f"call to {call.cluster}: {name}: expected {value}, got {actual}")
        found = wanted.problems(call.headers, call.body)
        self.problems += [f"call to {call.cluster}: {line}" for line in found]
        return scripted

    def over(self) -> list[str]:
        """What was wrong since the last time it was asked, calls that were not made included."""
        left = [f"call: expected one to {one.cluster}, got none" for one in self.script]
        problems, self.problems = self.problems + left, []
        self.script.clear()
        return problems


def answer(scripted: ScriptedCall, timeout: float) -> tuple[float, CalloutResult]:
    """The seconds until the filter is told, and what; as upstream/callout.py tells it."""
    said, delay = scripted.answer, scripted.delay
    if said == "timeout" or (timeout and delay > timeout):
        return timeout or delay, own(504, TIMED_OUT, "timeout")
    if said == "reset":
        return delay, CalloutResult(0, [], b"", [], "reset")
    if isinstance(said, str):
        return delay, own(503, UNREACHABLE, "connection")
    return delay, CalloutResult(said.status, head(said), said.body, encoded(said.trailers))


def own(status: int, body: bytes, failure: str) -> CalloutResult:
    fields = [(":status", str(status)), ("content-length", str(len(body))), ("content-type", "text/plain")]
    return CalloutResult(status, encoded(fields), body, [], failure)


def head(said: Sent) -> list[tuple[bytes, bytes]]:
    fields = [(b":status", b"%d" % said.status), *encoded(said.headers)]
    if not any(name == b"content-length" for name, _ in fields) and not said.trailers:
        fields.append((b"content-length", b"%d" % len(said.body)))
    return fields


def encoded(fields: Fields) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in fields]


def text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
