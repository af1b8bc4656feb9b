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
from proxy.kit.calls import MadeCall
from proxy.kit.cases import CLOCK, Case, CaseError, Cases, Refusal
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
        self.running: dict[str, Runtime] = {}
        """By settings and configuration: the VM that cases share."""
        self.tracer = Tracer([])
        self.clusters = frozenset(call.cluster for case in cases.cases for one in case.exchanges for call in one.calls)

    def run(self, chosen: Callable[[str], bool] = lambda name: True) -> Iterator[Result]:
        """A result for each chosen case and refusal, in order. Raises CaseError, SetupError."""
        cases = [case for case in self.cases.cases if chosen(case.name)]
        last = {self.key(case): case for case in cases}
        try:
            for case in cases:
                yield self.timed(case.name, lambda result, case=case: self.play(case, result))  # type: ignore[misc]
                if last[self.key(case)] is case and (over := self.running.pop(self.key(case), None)) is not None:
                    over.close()
        finally:
            while self.running:
                self.running.popitem()[1].close()
        for refusal in self.cases.refusals:
            if chosen(refusal.name):
                yield self.timed(refusal.name, lambda result, refusal=refusal: self.refuse(refusal, result))  # type: ignore[misc]

    def timed(self, name: str, play: Callable[[Result], None]) -> Result:
        result = Result(name, [])
        self.tracer.lines = result.trace
        begun = time.perf_counter()
        with Hearing() as hearing:
            play(result)
        result.lines = hearing.logged
        result.seconds = time.perf_counter() - begun
        return result

    def key(self, case: Case) -> str:
        """Cases with an equal one share a VM."""
        settings = json.dumps(dict(case.settings), sort_keys=True, default=str)
        return f"{case.name if case.own_vm else ''}\n{settings}\n{self.configuration_of(case)!r}"

    def configuration_of(self, case: Case) -> bytes:
        return case.configuration if case.configuration is not None else self.configuration

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

    def runtime(self, settings: Mapping[str, Any], configuration: bytes, clock: float, seed: int) -> Runtime:
        config, prepared = self.prepared(settings, configuration)
        hear, trace = (self.tracer.hear, self.tracer) if self.tracing else (None, None)
        runtime = Runtime(config, prepared, Clock(clock), seed, hear, trace=trace)
        runtime.calls.known = self.clusters
        return runtime

    def play(self, case: Case, result: Result) -> None:
        """One case; on a new VM, or on that of the cases before it."""
        key = self.key(case)
        runtime = self.running.get(key)
        if runtime is None:
            try:
                runtime = self.runtime(case.settings, self.configuration_of(case), case.clock, case.seed)
            except RefusedError as error:
                result.problems.append(error.name)
                return
            self.running[key] = runtime
        for number, exchange in enumerate(case.exchanges, 1):
            prefix = f"exchange {number}: " if len(case.exchanges) > 1 else ""
            runtime.calls.script = list(exchange.calls)
            try:
                played = self.exchange(runtime, case, number - 1)
            except HeadError as error:
                result.problems.append(f"{prefix}the gateway does not take this message: {error.reason}")
                break
            result.played.append(played)
            result.problems += [prefix + line for line in played.problems]
        if case.own_vm:
            runtime.finish()

    def exchange(self, runtime: Runtime, case: Case, index: int) -> Played:
        exchange, hearing, meter, calls = case.exchanges[index], heard(), runtime.meter, runtime.calls
        first = index == 0  # what the start logged belongs to the first exchange
        lines, faults = (0 if first else len(hearing.logged)), len(hearing.faults)
        callbacks, made = len(meter.callbacks), len(calls.made)
        outcome = Stream(runtime, exchange.request, exchange.response).run()
        runtime.clock.pass_time(exchange.wait, runtime.settle)
        played = Played(
            outcome, hearing.logged[lines:], hearing.faults[faults:], meter.callbacks[callbacks:], calls.made[made:],
            runtime.metrics(), runtime.used_memory(), [],
        )  # fmt: skip
        played.problems = [
            *verdict.problems(
                exchange.expected, outcome, played.lines, played.faults, played.callbacks, played.metrics, played.memory
            ),
            *calls.over(),
        ]
        return played

    def refuse(self, refusal: Refusal, result: Result) -> None:
        """A configuration that must be refused."""
        try:
            self.runtime({}, refusal.configuration, CLOCK, 1).close()
        except RefusedError as error:
            if error.cause:
                result.problems.append(f"expected a refusal, got a fault: {error.name}")
            elif refusal.reason not in "\n".join([*error.lines, error.name]):
                result.problems.append(f"log: expected {refusal.reason!r} with the refusal, got {error.name}")
            return
        result.problems.append("expected the configuration to be refused, the filter took it")


def heard() -> Hearing:
    """What the running case is heard by."""
    from proxy.telemetry.logging import output

    hearing = output.writer
    assert isinstance(hearing, Hearing)
    return hearing


def cases_of(path: Path) -> Cases:
    """The cases that a path on the command line means. Raises CaseError."""
    from proxy.kit.case_file import find, read

    return read(*find(path))


__all__ = ["CaseError", "Played", "Player", "RefusedError", "Result", "SetupError", "cases_of"]
