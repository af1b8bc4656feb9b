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
          headers: [[name, value], ...]   # or {name: value}; a list of values for several fields
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
          memory: 2MiB            # its linear memory has no more at the end; of a component, its largest instance's
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from proxy.config.problem import WrongValueError
from proxy.config.units import parse_size
from proxy.kit.cases import CLOCK, NO_ANSWERS, Case, CaseError, Cases, Exchange, Refusal, ScriptedCall, Sent
from proxy.kit.expected import Expected, Wanted, WantedLine

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
FILE: Final = "cases.yaml"
EXCHANGE: Final = ("request", "response", "calls", "services", "wait", "expect")
"""The keys of an exchange."""


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
        raise CaseError(f"{path}: {form_problem(error)}") from None


def form_problem(error: Exception) -> str:
    """What a reader's error says of the file."""
    if isinstance(error, KeyError):
        return f"{error.args[0]}: is missing"
    return f"is not of the form of a case file (docs/kit.md): {error}"


def read_all(path: Path, data: Any, wasm: Path | None) -> Cases:
    if data is None:
        raise CaseError("is empty; write cases: [...]")
    only(data, "wasm", "configs", "filter", "cases", "refused")
    configs = data.get("configs", {})
    cases = [read_case(entry, configs) for entry in entries(data, "cases")]
    refusals = [read_refusal(entry) for entry in entries(data, "refused")]
    names = [*(one.name for one in cases), *(one.name for one in refusals)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise CaseError(f"names repeat: {', '.join(repeated)}")
    return Cases(wasm or module(path, data.get("wasm")), cases, refusals, path, mapping(data.get("filter", {})))


def entries(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of mappings, empty without the key."""
    found = data.get(key, [])
    if not isinstance(found, list):
        raise CaseError(f"{key}: is not a list; write - name: ... for each")
    return [mapping(one) for one in found]


def module(path: Path, named: str | None) -> Path:
    if named is not None:
        return existing(path.parent / named)
    own = path.with_name(path.name.removesuffix(".cases.yaml") + ".wasm")
    if own.is_file():
        return own
    found = sorted(path.parent.glob("*.wasm"))
    if not found:
        raise CaseError("there is no .wasm file beside it; build the filter (penstock filter build), or write wasm: FILE.wasm")
    if len(found) > 1:
        raise CaseError(f"there are {len(found)} .wasm files beside it; write wasm: FILE.wasm for the one that is meant")
    return found[0]


def read_case(entry: dict[str, Any], configs: dict[str, Any]) -> Case:
    name = str(entry["name"])
    try:
        return read_named(name, entry, configs)
    except (CaseError, KeyError, TypeError, ValueError, AttributeError) as error:
        text = str(error) if isinstance(error, CaseError) else form_problem(error)
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
    try:
        time = clock if isinstance(clock, datetime) else datetime.fromisoformat(clock)
    except ValueError:
        raise CaseError(f"clock: {clock!r} is not a time; write one such as 2026-01-01T00:00:00Z") from None
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
        headers=read_fields("headers", entry.get("headers", ())),
        body=body,
        chunks=chunks,
        method=entry.get("method", "GET"),
        path=entry.get("path", "/"),
        status=entry.get("status", 200),
        trailers=read_fields("trailers", entry.get("trailers", ())),
        delay=float(entry.get("delay", 0)),
    )


def read_fields(key: str, entry: Any) -> list[tuple[str, str]]:
    """Fields to send, in their order."""
    if isinstance(entry, dict):
        return [(str(name), value.decode()) for name, values in entry.items() for value in read_values(values)]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in entry):
        raise CaseError(f"{key}: {entry!r} are no fields; write [[name, value], ...] or {{name: value}}")
    return [(str(name), read_values(value)[0].decode()) for name, value in entry]


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
    if not isinstance(entry, dict):
        raise CaseError(f"body: {entry!r} is no text; write it in quotes, or {{text: ..., times: N}}")
    only(entry, "text", "times")
    return str(entry["text"]).encode() * int(entry["times"])


def split(body: bytes, plan: int | list[int]) -> list[bytes]:
    """The body in chunks; none of them empty. Raises CaseError."""
    if any(not isinstance(size, int) or size < 1 for size in ([plan] if isinstance(plan, int) else plan)):
        raise CaseError(f"chunks: {plan} is not a plan; write the size of each chunk, such as 3, or sizes, such as [2, 5]")
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
