"""What the comparison leaves out, and why: the only place where a difference between the two sides is not seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from proxy.abi.memory import decode_pairs

Pairs = Iterable[tuple[bytes, bytes]]

DROPPED: dict[str, str] = {
    "x-envoy-internal": "Envoy's trust model; Penstock has none. Only calls of filters get it: elsewhere it is off",
    "x-envoy-upstream-service-time": "Envoy's own measurement, on answers to calls; elsewhere it is off",
    "x-envoy-expected-rq-timeout-ms": "Envoy's own hint, on calls; elsewhere it is off",
}
"""Header fields that Envoy adds by itself and that have no switch where they appear."""

VALUES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"), "DATE", "the clock"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT", "ports are the kernel's choice"),
)


def sorted_map(match: re.Match[str]) -> str:
    """A map in the ABI's encoding, as the probe shows it, with its pairs in order."""
    data = re.sub(rb"\\x(..)", lambda byte: bytes.fromhex(byte[1].decode()), match[2].encode("latin-1"))
    pairs = decode_pairs(data)
    shown = "; ".join(f"{name!r}={value!r}" for name, value in sorted(pairs)) if pairs is not None else match[2]
    return f"{match[1]}{shown}]"


LINES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str], str], ...] = (
    (
        re.compile(r"( prop (?:request|response)%00(?:headers|trailers) = 0 \[)(.+)\]$"),
        sorted_map,
        "Envoy's map has no order: the hashes of its keys differ from start to start",
    ),
    (re.compile(r" x-envoy-(internal|upstream-service-time|expected-rq-timeout-ms)=[^;]*;"), "", "as DROPPED, in `pairs`"),
    (
        re.compile(r"( prop (?:request%00time|request%00duration|response%00backend_latency) = 0 \[)(.{8,32})\]$"),
        r"\1TIME]",
        "the clock: eight bytes of nanoseconds",
    ),
    (re.compile(r"^(. called c=\d+ token=\d+) n=\d+"), r"\1 n=N", "Envoy counts its x-envoy-upstream-service-time"),
    (re.compile(r"( prop \w+%00port = 0 \[)[^]]+\]$"), r"\1PORT]", "ports are the kernel's choice"),
    (re.compile(r"( prop (?:connection%00id|connection_id) = 0 \[)[^]]+\]$"), r"\1ID]", "connections are counted by process"),
    (re.compile(r"( prop xds%00node = 0 \[).*\]( of \d+)?$"), r"\1NODE]", "Envoy's description of itself"),
)
"""In log lines of the probe."""


LAST = frozenset({"date", "connection", "transfer-encoding", "content-length"})
"""Fields that either side writes itself, Envoy behind the others and Penstock before them: shown last, by name. The order of
fields with different names means nothing (RFC 9110 section 5.3)."""


def fields(pairs: Pairs) -> list[str]:
    """Header lines in their order, as text."""
    shown: list[str] = []
    last: list[str] = []
    for name, value in pairs:
        key = name.decode("latin-1")
        if key.lower() not in DROPPED:
            (last if key in LAST else shown).append(f"{key}: {text(value.decode('latin-1'))}")
    return shown + sorted(last)


BODILESS = ("transfer-encoding: chunked",)
"""Field lines that a response to HEAD may have or not have (RFC 9112 section 6.1): Envoy sends them where it has no length."""

END = re.compile(r"^log: (\w) (log|done|delete) c=(\d+)$")


def ends(lines: list[str]) -> list[str]:
    """The end of a stream: Envoy calls on_log of all its filters, then on_done and on_delete of each; Penstock all three of
    each, in one crossing. No filter can see the difference but through what it shares with another; so the calls are
    compared filter by filter, where the first of them stands."""
    kept: list[str] = []
    tail: dict[str, list[str]] = {}
    current: str | None = None
    for text_ in lines:
        match = END.match(text_)
        if match:
            current = match[1]
            tail.setdefault(current, []).append(text_)
        elif current is not None and text_.startswith(f"log: {current}   "):
            tail[current].append(text_)
        else:
            if not re.match(r"^log: \w (create)", text_) or not tail:
                current = None
            if tail and text_.startswith("log: ") and " create " in text_:
                # A filter that never saw the stream is created for its end.
                current = text_[5]
                tail.setdefault(current, []).append(text_)
            else:
                for found in tail.values():
                    kept += found
                tail = {}
                kept.append(text_)
    for name in sorted(tail):
        kept += tail[name]
    return kept


def text(value: str) -> str:
    """A value less what no two runs have alike."""
    for pattern, shown, _ in VALUES:
        value = pattern.sub(shown, value)
    return value


def line(message: str, names: Mapping[str, str]) -> str:
    """A line of a filter; `names`: what this side calls things, and what both shall be called."""
    for pattern, shown, _ in LINES:
        message = pattern.sub(shown, message)
    for own, common in names.items():
        message = message.replace(own, common)
    return text(message)
