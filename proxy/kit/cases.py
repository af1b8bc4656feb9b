"""Reads a case file (cases.yaml): what a filter must do, as data, for any host that runs it.

    wasm: build/filter.wasm       # relative to the file; without it the folder's only .wasm
    configs:                      # named configurations; a case names one or writes its own
      plain: {...}
    filter: {fuel: 100k, ...}     # the filter's settings, as in a gateway's config; a case may add its own
    cases:
      - name: text
        config: plain | {...}     # or text: a configuration that is not JSON; without both, none, or --config
        filter: {...}
        clock: 2026-01-01T00:00:00Z   # what the clock says at the start (this is the default); it stands still but for waiting
        seed: 1                   # of the random numbers
        own_vm: true              # see below
        request:                  # what the client sends; all optional
          method: GET
          path: /
          headers: [[name, value], ...]
          body: BODY
          chunks: 3 | [2, 5]      # the body in chunks of that size, or of these sizes and a rest; without it: sized
          trailers: [...]         # after chunks
        response: {status: 200, headers: [...], body: BODY, chunks: ..., trailers: [...], delay: 0.5}   # the service's answer
        calls:                    # the filter's calls and their answers, for each cluster in this order
          - {cluster: auth, method: GET, path: /check, headers: {name: value}, body: BODY,   # what is expected of the call
             delay: 0.05, answer: {status: 200, headers: [...], body: BODY, trailers: [...]}}
          - {cluster: auth, answer: timeout | reset | unreachable | unknown}
        services: {auth: [{status: 200, ..., delay: 0.05}, null]}   # the same in two parts: answers, the last for all further
                                  # calls, null for a connection that is closed; what is expected is under expect: calls
        wait: 1.5                 # seconds that pass after the exchange: ticks run, answers arrive
        expect:
          upstream: none          # the request did not get there, or:
          upstream: {method: GET, path: /, headers: {name: value}, body: BODY, trailers: {...}}
          response: none          # the stream was reset, or:
          response: {status: 200, headers: {name: value}, body: BODY, trailers: {...}}
          reply: DETAILS          # a local reply with these details answered the client; any: some did; none: none did
          log: [text, {level: warning, text: ...}]   # lines, in this order, among others
          no_log: [text]          # no line holds it
          calls: {auth: [{method: GET, path: /check, headers: {...}, body: BODY}]}   # with services
          metrics: {name: value}  # counters and gauges, at the end
          failure: fuel           # a callback ended so (fuel, deadline, trap, memory, ...); without it, none may
          fuel: 20000             # no callback of the exchange takes more
          memory: 2MiB            # the filter's memory has no more at the end
      - name: text
        exchanges:                # several, on one VM, each with request, response, calls, wait, expect
          - {...}
    refused:                      # configurations that proxy_on_configure must answer with 0
      - {name: text, config: ... | text: not JSON, reason: what a log line of the filter contains}

Cases of one configuration and equal settings share a VM, in the order of the file, as streams do in a gateway. A case has a VM
of its own with `clock`, `seed`, `exchanges`, `own_vm: true`, or `metrics` to expect.

BODY is a text or {text: ..., times: N}. An expected header is a value (one field), a list of values (in order) or null
(no such field); others are not looked at. Bodies and header values are UTF-8.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from proxy.config.problem import WrongValueError
from proxy.config.units import parse_size

Fields = Sequence[tuple[str, str]]

CLOCK: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
NO_ANSWERS: Final = ("timeout", "reset", "unreachable", "unknown")
FILE: Final = "cases.yaml"
EXCHANGE: Final = ("request", "response", "calls", "services", "wait", "expect")
"""The keys of an exchange."""


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


def find(path: Path) -> tuple[Path, Path | None]:
    """The case file that `path` means, and the module if `path` is one: a case file, a folder with cases.yaml, a .wasm with
    NAME.cases.yaml or cases.yaml beside it. Raises CaseError."""
    if path.is_dir():
        return existing(path / FILE), None
    if path.suffix == ".wasm":
        own = path.with_suffix(".cases.yaml")
        return (own if own.exists() else existing(path.parent / FILE)), existing(path)
    return existing(path), None


def existing(path: Path) -> Path:
    if not path.is_file():
        raise CaseError(f"{path}: there is no such file; write a case file, or a folder or module with a {FILE}")
    return path


def read(path: Path, wasm: Path | None = None) -> Cases:
    """The cases of a case file; `wasm` in the place of the module that it names. Raises CaseError."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CaseError(f"{path}: can not be read: {error}") from None
    try:
        return read_all(path, data, wasm)
    except CaseError as error:
        raise CaseError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CaseError(f"{path}: not of the form of a case file: {type(error).__name__}: {error}") from None


def read_all(path: Path, data: Any, wasm: Path | None) -> Cases:
    only(data, "wasm", "configs", "filter", "cases", "refused")
    configs = data.get("configs", {})
    cases = [read_case(entry, configs) for entry in data.get("cases", ())]
    refusals = [read_refusal(entry) for entry in data.get("refused", ())]
    names = [*(one.name for one in cases), *(one.name for one in refusals)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise CaseError(f"names repeat: {', '.join(repeated)}")
    return Cases(wasm or module(path, data.get("wasm")), cases, refusals, path, mapping(data.get("filter", {})))


def module(path: Path, named: str | None) -> Path:
    if named is not None:
        return existing(path.parent / named)
    own = path.with_name(path.name.removesuffix(".cases.yaml") + ".wasm")
    if own.is_file():
        return own
    found = sorted(path.parent.glob("*.wasm"))
    if len(found) != 1:
        raise CaseError(f"{len(found)} .wasm files beside it; write wasm: FILE.wasm")
    return found[0]


def read_case(entry: dict[str, Any], configs: dict[str, Any]) -> Case:
    name = str(entry["name"])
    try:
        return read_named(name, entry, configs)
    except (CaseError, KeyError, TypeError, ValueError, AttributeError) as error:
        text = str(error) if isinstance(error, CaseError) else f"{type(error).__name__}: {error}"
        raise CaseError(f"case {name!r}: {text}") from None


def read_named(name: str, entry: dict[str, Any], configs: dict[str, Any]) -> Case:
    own = ("name", "config", "text", "filter", "clock", "seed", "own_vm")
    configuration = None
    if "config" in entry:
        config = entry["config"]
        if isinstance(config, str) and config not in configs:
            raise CaseError(f"no config is named {config}")
        configuration = as_json(configs[config] if isinstance(config, str) else config)
    if "text" in entry:
        configuration = str(entry["text"]).encode()
    if "exchanges" in entry:
        only(entry, *own, "exchanges")
        exchanges = [read_exchange(one) for one in entry["exchanges"]]
        if not exchanges:
            raise CaseError("exchanges: is empty")
    else:
        only(entry, *own, *EXCHANGE)
        exchanges = [read_exchange({key: value for key, value in entry.items() if key not in own})]
    clock = entry.get("clock", CLOCK)
    seconds = read_clock(clock) if not isinstance(clock, int | float) else float(clock)
    alone = bool(entry.get("own_vm")) or any(key in entry for key in ("clock", "seed", "exchanges"))
    alone = alone or any(one.expected.metrics is not None for one in exchanges)
    settings = mapping(entry.get("filter", {}))
    portable = not any(key in entry for key in ("clock", "seed", "filter"))
    portable = portable and all(
        one.expected.failure is None and all(call.answer != "unknown" for call in one.calls) for one in exchanges
    )
    return Case(name, configuration, exchanges, settings, seconds, int(entry.get("seed", 1)), alone, portable)


def read_clock(clock: str | datetime) -> float:
    """Seconds since the epoch; a time without a zone is UTC."""
    time = clock if isinstance(clock, datetime) else datetime.fromisoformat(clock)
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def read_exchange(entry: dict[str, Any]) -> Exchange:
    only(entry, *EXCHANGE)
    request = entry.get("request", {})
    only(request, "method", "path", "headers", "body", "chunks", "trailers")
    response = entry.get("response", {})
    only(response, "status", "headers", "body", "chunks", "trailers", "delay")
    return Exchange(
        request=read_sent(request),
        response=read_sent(response),
        expected=read_expected(entry["expect"]),
        calls=[*(read_call(one) for one in entry.get("calls", ())), *read_services(entry)],
        wait=float(entry.get("wait", 0)),
    )


def read_expected(entry: dict[str, Any]) -> Expected:
    only(entry, "upstream", "response", "reply", "log", "no_log", "calls", "metrics", "failure", "fuel", "memory")
    upstream, response = entry.get("upstream", {}), entry.get("response", {})
    reply = entry.get("reply")
    return Expected(
        upstream=None if upstream == "none" else read_wanted(upstream, "method", "path", "headers", "body", "trailers"),
        downstream=None if response == "none" else read_wanted(response, "status", "headers", "body", "trailers"),
        reply=reply,
        log=[read_line(one) for one in entry.get("log", ())],
        no_log=[str(one) for one in entry.get("no_log", ())],
        metrics={str(name): int(value) for name, value in entry["metrics"].items()} if "metrics" in entry else None,
        failure=entry.get("failure"),
        fuel=read_number(entry["fuel"]) if "fuel" in entry else None,
        memory=read_number(entry["memory"]) if "memory" in entry else None,
    )


def read_number(value: int | str) -> int:
    """A number, or a size with a unit (2MiB)."""
    if isinstance(value, int):
        return value
    try:
        return parse_size(value)
    except WrongValueError as error:
        raise CaseError(f"{error.problem}; {error.mend}") from None


def read_line(entry: str | dict[str, Any]) -> WantedLine:
    if isinstance(entry, str):
        return WantedLine(entry)
    only(entry, "level", "text")
    level = entry.get("level")
    if level is not None and level not in LEVELS:
        raise CaseError(f"log: no level is called {level}; write one of {', '.join(LEVELS)}")
    return WantedLine(str(entry["text"]), level)


def read_call(entry: dict[str, Any]) -> ScriptedCall:
    only(entry, "cluster", "method", "path", "headers", "body", "delay", "answer")
    answer = entry.get("answer", {})
    if isinstance(answer, str):
        if answer not in NO_ANSWERS:
            raise CaseError(f"calls: no answer is called {answer}; write one of {', '.join(NO_ANSWERS)}, or a mapping")
    else:
        only(answer, "status", "headers", "body", "trailers")
        answer = read_sent(answer)
    wanted = {key: value for key, value in entry.items() if key in ("method", "path", "headers", "body")}
    return ScriptedCall(str(entry["cluster"]), answer, read_wanted(wanted), float(entry.get("delay", 0)))


def read_services(entry: dict[str, Any]) -> list[ScriptedCall]:
    """Calls in two parts: what services answer, and what is expected of them."""
    services = entry.get("services", {})
    found = []
    for cluster, calls in entry["expect"].get("calls", {}).items():
        answers = services.get(cluster) or [None]
        for number, wanted in enumerate(calls):
            answer = answers[min(number, len(answers) - 1)]
            sent = "unreachable" if answer is None else read_sent(answer)
            delay = 0.0 if isinstance(sent, str) else sent.delay
            found.append(ScriptedCall(cluster, sent, read_wanted(wanted), delay))
    return found


def read_refusal(entry: dict[str, Any]) -> Refusal:
    only(entry, "name", "config", "text", "reason")
    configuration = entry["text"].encode() if "text" in entry else as_json(entry["config"])
    return Refusal(entry["name"], configuration, entry["reason"])


def read_sent(entry: dict[str, Any]) -> Sent:
    body = read_body(entry.get("body", ""))
    chunks = split(body, entry["chunks"]) if "chunks" in entry else None
    return Sent(
        headers=[(name, value) for name, value in entry.get("headers", ())],
        body=body,
        chunks=chunks,
        method=entry.get("method", "GET"),
        path=entry.get("path", "/"),
        status=entry.get("status", 200),
        trailers=[(name, value) for name, value in entry.get("trailers", ())],
        delay=float(entry.get("delay", 0)),
    )


def read_wanted(entry: dict[str, Any], *known: str) -> Wanted:
    only(entry, *(known or ("status", "method", "path", "headers", "body", "trailers")))
    headers = {name.lower(): read_values(value) for name, value in entry.get("headers", {}).items()}
    trailers = None
    if "trailers" in entry:
        trailers = {name.lower(): read_values(value) for name, value in entry["trailers"].items()}
    body = read_body(entry["body"]) if "body" in entry else None
    return Wanted(headers, body, entry.get("status", 200), entry.get("method"), entry.get("path"), trailers)


def read_values(value: Any) -> list[bytes]:
    values = [] if value is None else value if isinstance(value, list) else [value]
    return [one.encode() if isinstance(one, str) else json.dumps(one).encode() for one in values]


def read_body(entry: str | dict[str, Any]) -> bytes:
    if isinstance(entry, str):
        return entry.encode()
    only(entry, "text", "times")
    return str(entry["text"]).encode() * int(entry["times"])


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


def split(body: bytes, plan: int | list[int]) -> list[bytes]:
    """The body in chunks; none of them empty."""
    sizes: list[int] = [plan] * -(-len(body) // plan) if isinstance(plan, int) else [*plan, len(body)]
    ends = [0, *itertools.accumulate(sizes)]
    return [chunk for start, end in itertools.pairwise(ends) if (chunk := body[start:end])]


def as_json(config: Any) -> bytes:
    """A configuration as the gateway hands it to the filter: compact JSON; nothing for none."""
    if config is None:
        return b""
    return json.dumps(config, ensure_ascii=False, separators=(",", ":")).encode()


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CaseError(f"{value!r} is not a mapping")
    return value


def only(entry: Any, *known: str) -> None:
    if unknown := set(mapping(entry)) - set(known):
        raise CaseError(f"unknown keys {sorted(map(str, unknown))} in {str(entry)[:200]}; the keys here are {', '.join(known)}")
