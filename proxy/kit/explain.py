"""What a config's filters do to one request: its way through the chain, callback by callback.

It is played twice: once as it is served, for the figures, and once traced, for the host calls. Nothing is sent anywhere: the
service's answer, and those to the filters' calls, are given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.abi.memory import REQUEST_HEADERS, RESPONSE_HEADERS, HeadOptions, Region
from proxy.abi.proxy_wasm.load import Prepared
from proxy.chain.chain import Chain
from proxy.chain.shown import difference, field_text
from proxy.chain.watched import WatchedChain
from proxy.config.listener import Listener
from proxy.config.model import Config
from proxy.config.route import Route
from proxy.kit.bodies import Bodies
from proxy.kit.calls import ScriptedCalls
from proxy.kit.cases import ScriptedCall, Sent
from proxy.kit.clock import Clock
from proxy.kit.expected import Wanted
from proxy.kit.hearing import Fault, Hearing, Line
from proxy.kit.meter import Callback
from proxy.kit.runtime import Runtime
from proxy.kit.stream import Message, Outcome, Stream
from proxy.kit.tracing import Tracer, traced
from proxy.server.router import Router
from proxy.telemetry.stream import StreamInfo

Pairs = list[tuple[bytes, bytes]]

LONGEST_BODY = 300
"""Bytes of a body that are shown."""


@dataclass(slots=True)
class Step:
    """A callback, what it called, and what it changed in heads and bodies: lines that begin with - or +."""

    callback: Callback
    calls: list[str]
    changes: list[str]


@dataclass(slots=True)
class Explanation:
    """The whole way."""

    info: StreamInfo
    outcome: Outcome
    steps: list[Step]
    lines: Sequence[Line]
    faults: Sequence[Fault]
    calls: ScriptedCalls


def explain(
    config: Config, prepared: Prepared, request: Sent, response: Sent, answers: Mapping[str, Sent], host: str
) -> Explanation:
    """Of `config`, whose filters are `prepared`. Raises RefusedError, HeadError."""
    with Hearing():
        tracing = traced(prepared)
    plain = play(config, prepared, request, response, answers, host, None)
    trace: list[str] = []
    detailed = play(config, tracing, request, response, answers, host, trace)
    for step, twin in zip(plain.steps, detailed.steps, strict=False):
        step.calls = twin.calls
    return plain


def play(
    config: Config,
    prepared: Prepared,
    request: Sent,
    response: Sent,
    answers: Mapping[str, Sent],
    host: str,
    trace: list[str] | None,
) -> Explanation:
    clock = Clock(time.time())
    calls = ScriptedCalls(clock, Answers(answers), default=ScriptedCall("", "unreachable", Wanted({}, None)))
    tracer = Tracer(trace) if trace is not None else None
    router = Router(config.routes)

    def route(info: StreamInfo, runtime: Runtime) -> Route | None:
        def header(name: str) -> str | None:
            value = runtime.memory.get(REQUEST_HEADERS, name.encode())
            return None if value is None else value.decode("utf-8", "surrogateescape")

        return router.match(header(":method") or "", header(":authority") or "", header(":path") or "", header)

    hear = tracer.hear if tracer is not None else None
    with (
        Hearing(config.log.level) as hearing,
        Runtime(config, prepared, clock, 1, hear, heads_of(config.listeners[0]), calls, tracer) as runtime,
    ):
        steps: list[Step] = []
        known: dict[int, Pairs] = {}
        if trace is not None:
            trace.clear()  # what the start did
        started = len(hearing.logged)

        def changed() -> list[str]:
            changes = []
            for map_, title in ((REQUEST_HEADERS, "request"), (RESPONSE_HEADERS, "response")):
                now = runtime.memory.pairs(map_)
                if map_ in known:
                    changes += [f"{title} {line}" for line in difference(known[map_], now)]
                if now:
                    known[map_] = now
            return changes

        def after() -> None:
            said = list(trace) if trace is not None else []
            if trace is not None:
                trace.clear()
            steps.append(Step(runtime.meter.callbacks[-1], said, changed()))

        def edited() -> None:
            steps[-1].changes += changed()

        runtime.meter.after, runtime.meter.edited = after, edited
        if trace is None:
            watch_bodies(runtime, lambda lines: steps[-1].changes.extend(lines))
        stream = Stream(runtime, request, response, route, host, heads=known)
        outcome = stream.run()
        return Explanation(stream.info, outcome, steps, hearing.logged[started:], hearing.faults, calls)


def watch_bodies(runtime: Runtime, tell: Callable[[list[str]], None]) -> None:
    """Of every stream from now on."""
    witness, chains = Bodies(tell), runtime.chains

    def opened(route: Route | None, info: StreamInfo, region: Region, wake: Callable[[], None]) -> Chain:
        return chains.open_as(WatchedChain(chains.memory, region, info, wake, witness), route)

    own: Any = chains
    own.open = opened


class Answers(list[ScriptedCall]):
    """A script that answers every call to a cluster in the same way."""

    def __init__(self, answers: Mapping[str, Sent]) -> None:
        super().__init__(ScriptedCall(name, sent, Wanted({}, None)) for name, sent in answers.items())

    def pop(self, place: int = -1) -> ScriptedCall:  # type: ignore[override]
        return self[place]


def heads_of(listener: Listener) -> HeadOptions:
    """As the gateway makes heads."""
    return HeadOptions(
        forwarded=listener.forwarded,
        request_id=listener.request_id,
        via=listener.via,
        scheme="http" if listener.tls is None else "https",
        trailers=listener.trailers,
        underscores=listener.underscores,
    )


# ---- For people ----


def report(found: Explanation, config: Config) -> Iterator[str]:
    """The whole way, a line each."""
    info, outcome = found.info, found.outcome
    route = info.route_name or ("without a name" if info.cluster_name else "none")
    yield f"{info.method} {info.path} for {info.authority}: route {route}, cluster {info.cluster_name or 'none'}"
    called = {step.callback.filter for step in found.steps}
    for step in found.steps:
        one = step.callback
        yield ""
        yield f"{one.filter}  {one.name}  fuel {one.fuel:,}  {one.seconds * 1e6:.1f} us"
        yield from (f"    {line}" for line in step.calls)
        yield from (f"    {line}" for line in step.changes)
    for filter_ in config.filters:
        if filter_.name not in called:
            yield ""
            yield f"{filter_.name}  was not called"
    yield from section("calls", (f"{one.method} {one.path} to {one.cluster}" for one in found.calls.made))
    yield from section("log", (f"{line.filter}: {line.level}: {line.message}" for line in found.lines))
    yield from section("faults", (f"{one.filter}: {one.callback}: {one.reason}: {one.message}" for one in found.faults))
    yield from section("notes", outcome.notes)
    yield from message("upstream gets", outcome.upstream)
    yield from message("client gets", outcome.downstream)
    yield ""
    yield f"outcome: {ending(found)}"
    totals: dict[str, list[Callback]] = {}
    for step in found.steps:
        totals.setdefault(step.callback.filter, []).append(step.callback)
    for name, callbacks in totals.items():
        fuel, microseconds = sum(one.fuel for one in callbacks), sum(one.seconds for one in callbacks) * 1e6
        yield f"  {name}: {len(callbacks)} callbacks, fuel {fuel:,}, {microseconds:.1f} us"


def ending(found: Explanation) -> str:
    outcome = found.outcome
    if outcome.reset:
        text = f"the stream is cut ({outcome.reset})"
    elif outcome.reply is not None:
        by = f" of {outcome.answered_by}" if outcome.answered_by else ""
        text = f"answered here{by} ({outcome.reply or 'no details'})"
    else:
        text = "answered by the service"
    held = [f"{seconds:g} s" for seconds in outcome.pauses]
    return f"{text}; held {', '.join(held)}" if held else text


def section(title: str, items: Iterator[str] | Sequence[str]) -> Iterator[str]:
    listed = list(items)
    if listed:
        yield ""
        yield title
        yield from (f"    {item}" for item in listed)


def message(title: str, sent: Message | None) -> Iterator[str]:
    yield ""
    if sent is None:
        yield f"{title} nothing"
        return
    yield title
    yield f"    {sent.start_line.decode('utf-8', 'backslashreplace')}"
    yield from (f"    {field_text(pair)}" for pair in sent.headers)
    if sent.body:
        yield ""
        text = bytes(sent.body[:LONGEST_BODY]).decode("utf-8", "backslashreplace")
        yield from (f"    {line}" for line in text.splitlines())
        if len(sent.body) > LONGEST_BODY:
            yield f"    ... ({len(sent.body)} bytes)"
