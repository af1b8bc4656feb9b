"""Plays the cases of a case file, each on a VM of its own, and says what came of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.abi.memory import HeadError
from proxy.abi.proxy_wasm.load import Prepared
from proxy.config.model import Config
from proxy.kit import verdict
from proxy.kit.calls import MadeCall, ScriptedCalls
from proxy.kit.cases import Case, CaseError, Cases, Refusal
from proxy.kit.clock import Clock
from proxy.kit.hearing import Fault, Hearing, Line
from proxy.kit.meter import Callback
from proxy.kit.runtime import RefusedError, Runtime, SetupError, config_of, configured, prepared_of
from proxy.kit.stream import Outcome, Stream
from proxy.kit.tracing import Tracer, traced


@dataclass(slots=True)
class Played:
    """One exchange of a case, and everything that was seen of it. `memory` in bytes."""

    outcome: Outcome
    lines: Sequence[Line]
    faults: Sequence[Fault]
    callbacks: Sequence[Callback]
    calls: Sequence[MadeCall]
    metrics: Mapping[str, int]
    memory: int
    problems: list[str]


@dataclass(slots=True)
class Result:
    """What came of a case. `seconds` on this machine; `trace` if one was asked for."""

    name: str
    problems: list[str]
    seconds: float = 0.0
    played: list[Played] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    lines: Sequence[Line] = ()
    """All that it logged, from its start on."""

    @property
    def passed(self) -> bool:
        return not self.problems


class Player:
    """Plays cases. `configuration`: for cases that give none; `tracing`: keep a trace of each case."""

    def __init__(self, cases: Cases, configuration: bytes = b"", tracing: bool = False, log_level: str = "debug") -> None:
        self.cases = cases
        self.configuration = configuration
        self.tracing = tracing
        self.log_level = log_level
        self.ready: dict[str, tuple[Config, Prepared]] = {}
        """By settings: what has been compiled."""

    def run(self, chosen: Callable[[str], bool] = lambda name: True) -> Iterator[Result]:
        """A result for each chosen case and refusal, in order. Raises CaseError, SetupError."""
        for case in self.cases.cases:
            if chosen(case.name):
                yield self.timed(case.name, lambda case=case: self.play(case))  # type: ignore[misc]
        for refusal in self.cases.refusals:
            if chosen(refusal.name):
                yield self.timed(refusal.name, lambda refusal=refusal: self.refuse(refusal))  # type: ignore[misc]

    def timed(self, name: str, play: Callable[[], Result]) -> Result:
        begun = time.perf_counter()
        with Hearing() as hearing:
            result = play()
        result.name = name
        result.lines = hearing.lines
        result.seconds = time.perf_counter() - begun
        return result

    def prepared(self, settings: Mapping[str, Any], configuration: bytes) -> tuple[Config, Prepared]:
        merged = {**self.cases.settings, **settings}
        if wrong := {"name", "wasm", "config"} & set(merged):
            raise CaseError(f"filter: {', '.join(sorted(wrong))} can not be set there")
        key = json.dumps(merged, sort_keys=True, default=str)
        if key not in self.ready:
            config = config_of([{"name": "filter", "wasm": str(self.cases.wasm), **merged}], self.log_level)
            prepared = prepared_of(config)
            self.ready[key] = config, traced(prepared) if self.tracing else prepared
        config, prepared = self.ready[key]
        return config, configured(prepared, configuration)

    def runtime(
        self, case: Case | None, configuration: bytes, tracer: Tracer | None, calls: ScriptedCalls | None = None
    ) -> Runtime:
        config, prepared = self.prepared(case.settings if case is not None else {}, configuration)
        clock = calls.clock if calls is not None else Clock(0.0)
        seed = case.seed if case is not None else 1
        return Runtime(config, prepared, clock, seed, tracer.hear if tracer is not None else None, calls=calls)

    def play(self, case: Case) -> Result:
        """One case, from the filter's start to its end."""
        result = Result(case.name, [])
        tracer = Tracer(result.trace) if self.tracing else None
        calls = ScriptedCalls(Clock(case.clock))
        configuration = case.configuration if case.configuration is not None else self.configuration
        try:
            runtime = self.runtime(case, configuration, tracer, calls)
        except RefusedError as error:
            result.problems.append(error.name)
            return result
        with runtime:
            for number, exchange in enumerate(case.exchanges, 1):
                prefix = f"exchange {number}: " if len(case.exchanges) > 1 else ""
                calls.script = list(exchange.calls)
                try:
                    played = self.exchange(runtime, case, number - 1)
                except HeadError as error:
                    result.problems.append(f"{prefix}the gateway does not take this message: {error.reason}")
                    break
                result.played.append(played)
                result.problems += [prefix + line for line in played.problems]
            runtime.finish()
        return result

    def exchange(self, runtime: Runtime, case: Case, index: int) -> Played:
        exchange, hearing, meter, calls = case.exchanges[index], heard(), runtime.meter, runtime.calls
        first = index == 0  # what the start logged belongs to the first exchange
        lines, faults = (0 if first else len(hearing.lines)), len(hearing.faults)
        callbacks, made = len(meter.callbacks), len(calls.made)
        outcome = Stream(runtime, exchange.request, exchange.response).run()
        runtime.clock.pass_time(exchange.wait, runtime.settle)
        played = Played(
            outcome, hearing.lines[lines:], hearing.faults[faults:], meter.callbacks[callbacks:], calls.made[made:],
            runtime.metrics(), runtime.used_memory(), [],
        )  # fmt: skip
        played.problems = [
            *verdict.problems(
                exchange.expected, outcome, played.lines, played.faults, played.callbacks, played.metrics, played.memory
            ),
            *calls.over(),
        ]
        return played

    def refuse(self, refusal: Refusal) -> Result:
        """A configuration that must be refused."""
        result = Result(refusal.name, [])
        tracer = Tracer(result.trace) if self.tracing else None
        try:
            self.runtime(None, refusal.configuration, tracer).close()
        except RefusedError as error:
            if error.cause:
                result.problems.append(f"expected a refusal, got a fault: {error.name}")
            elif refusal.reason not in "\n".join(error.lines):
                said = " | ".join(error.lines) or "nothing"
                result.problems.append(f"log: expected {refusal.reason!r} with the refusal, it logged {said}")
            return result
        result.problems.append("expected the configuration to be refused, the filter took it")
        return result


def heard() -> Hearing:
    """What the running case is heard by."""
    from proxy.telemetry.logging import output

    hearing = output.writer
    assert isinstance(hearing, Hearing)
    return hearing


def cases_of(path: Path) -> Cases:
    """The cases that a path on the command line means. Raises CaseError."""
    from proxy.kit.cases import find, read

    return read(*find(path))


__all__ = ["CaseError", "Played", "Player", "Result", "SetupError", "cases_of"]
