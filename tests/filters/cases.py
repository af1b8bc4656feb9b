"""Reads filters/NAME/cases.yaml: what a filter must do, as data, for any host that runs it.

    configs:                      # named configurations; a case names one or writes its own
      plain: {...}
    cases:
      - name: text
        config: plain | {...}
        request:                  # what the client sends; all optional
          method: GET
          path: /
          headers: [[name, value], ...]
          body: BODY
          chunks: 3 | [2, 5]      # the body in chunks of that size, or of these sizes and a rest; without it: sized
        response: {status: 200, headers: [...], body: BODY, chunks: ..., trailers: [...]}   # what the service answers
        expect:
          upstream: none          # the request did not get there, or:
          upstream: {headers: {name: value}, body: BODY}
          response: {status: 200, headers: {name: value}, body: BODY}
    refused:                      # configurations that proxy_on_configure must answer with 0
      - {name: text, config: ... | text: not JSON, reason: what a log line of the filter contains}

BODY is a text or {text: ..., times: N}. An expected header is a value (one field), a list of values (in order) or null
(no such field); others are not looked at. Bodies and header values are UTF-8.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILTERS = Path(__file__).resolve().parents[2] / "filters"
Fields = Sequence[tuple[str, str]]


class CaseError(Exception):
    """cases.yaml is not of the form described above."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message to send. `chunks` is None for a sized body."""

    headers: Fields
    body: bytes
    chunks: Sequence[bytes] | None
    method: str = "GET"
    path: str = "/"
    status: int = 200
    trailers: Fields = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is expected of a message: the values of these headers (none for an absent one), the body if it is given."""

    headers: Mapping[str, Sequence[bytes]]
    body: bytes | None
    status: int = 200

    def problems(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> list[str]:
        """What differs in a message, a line each."""
        found = []
        for name, wanted in self.headers.items():
            actual = [value for key, value in headers if key.lower() == name.encode()]
            if actual != list(wanted):
                found.append(f"{name}: expected {list(wanted)}, got {actual}")
        if self.body is not None and body != self.body:
            found.append(f"body: expected {self.body[:500]!r}, got {body[:500]!r}")
        return found


@dataclass(frozen=True, slots=True)
class Case:
    """One exchange through one filter. `upstream` is None if the request must not get there."""

    name: str
    configuration: bytes
    request: Sent
    response: Sent
    upstream: Wanted | None
    downstream: Wanted


@dataclass(frozen=True, slots=True)
class Refusal:
    """A configuration that must be refused, and what the filter must say about it."""

    name: str
    configuration: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Cases:
    """All of one filter."""

    wasm: Path
    cases: Sequence[Case]
    refusals: Sequence[Refusal]


def filter_names() -> list[str]:
    """The filters that have cases."""
    return sorted(path.parent.name for path in FILTERS.glob("*/cases.yaml"))


def load(name: str) -> Cases:
    """The cases of a filter. Raises CaseError."""
    data = yaml.safe_load((FILTERS / name / "cases.yaml").read_text())
    only(data, "configs", "cases", "refused")
    configs = data.get("configs", {})
    cases = [read_case(entry, configs) for entry in data["cases"]]
    refusals = [read_refusal(entry) for entry in data["refused"]]
    names = [*(one.name for one in cases), *(one.name for one in refusals)]
    if len(set(names)) != len(names):
        raise CaseError(f"{name}: names repeat")
    return Cases(FILTERS / name / f"{name}.wasm", cases, refusals)


def read_case(entry: dict[str, Any], configs: dict[str, Any]) -> Case:
    only(entry, "name", "config", "request", "response", "expect")
    expect = entry["expect"]
    only(expect, "upstream", "response")
    config = entry["config"]
    request = entry.get("request", {})
    only(request, "method", "path", "headers", "body", "chunks")
    response = entry.get("response", {})
    only(response, "status", "headers", "body", "chunks", "trailers")
    upstream = expect.get("upstream", {})
    return Case(
        name=entry["name"],
        configuration=as_json(configs[config] if isinstance(config, str) else config),
        request=read_sent(request),
        response=read_sent(response),
        upstream=None if upstream == "none" else read_wanted(upstream),
        downstream=read_wanted(expect.get("response", {})),
    )


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
    )


def read_wanted(entry: dict[str, Any]) -> Wanted:
    only(entry, "status", "headers", "body")
    headers = {name: read_values(value) for name, value in entry.get("headers", {}).items()}
    body = read_body(entry["body"]) if "body" in entry else None
    return Wanted(headers, body, entry.get("status", 200))


def read_values(value: str | list[str] | None) -> list[bytes]:
    values = [] if value is None else [value] if isinstance(value, str) else value
    return [one.encode() for one in values]


def read_body(entry: str | dict[str, Any]) -> bytes:
    if isinstance(entry, str):
        return entry.encode()
    only(entry, "text", "times")
    return str(entry["text"]).encode() * int(entry["times"])


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


def only(entry: dict[str, Any], *known: str) -> None:
    if unknown := set(entry) - set(known):
        raise CaseError(f"unknown keys {sorted(unknown)} in {entry}")
