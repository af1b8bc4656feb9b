"""Generated programs: scripts for three probes, a request in pieces and an answer in pieces.

Left out is what a waiver of docs/conformance.md already pins: framing that lies, statuses and fields that cannot be sent,
continuing in the callback that pauses, a body that is held while a filter behind holds it or its head (Envoy has one buffer for
all), reading a body after a filter has answered, editing a request's head that has gone (Envoy sends it with the edit if
the connection comes later), editing in on_log the head of a response that a filter has answered in the place of (Envoy does not
show that edit to the next read), its fields as properties; and what makes Envoy crash or hang: local replies from on_log, on_done or on_delete, continuing a
response that has not begun, reading a body from a tick while it is held by action 2.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase

from tests.conformance.client import chunked_request
from tests.conformance.client import request as plain_request
from tests.conformance.upstream import Answer, Body, chunked, head

NAMES = ("x-a", "x-b", "X-Upper", "x-empty", "accept", "user-agent", "cookie", "x-absent", "content-type", "x-forwarded-for")
RESPONSE_NAMES = ("x-up", "x-a", "set-cookie", "content-type", "vary", "etag", "x-absent", "location", "X-Upper")
HEAD = ":method=GET|:path=/s|:authority=h|:scheme=http|x-forwarded-proto=http"
WHOLE = {
    "0": (f"{HEAD}|x-a=1|X-A=2", f"{HEAD}|accept=a|Accept=b|cookie=a|cookie=b"),
    "2": (":status=201|vary=a|VARY=b|set-cookie=a|set-cookie=b", "etag=|:status=404|x-a=1|etag=e|X-Up=2"),
}
"""Heads that are set in one call."""
VALUES = ("1", "two", "~", "a%20b", "%c3%a9", "x" * 40)
DATA = ("~", "X", "new", "0123456789", "%00%ff")
STATUSES = (200, 201, 202, 400, 401, 403, 404, 418, 429, 500, 503)
PROPERTIES = (
    "request%00path", "request%00method", "request%00host", "request%00headers%00x-a", "request%00query", "request%00protocol",
    "response%00code", "response%00headers%00x-up", "response%00code_details", "response%00flags", "xds%00route_name",
    "plugin_root_id", "nothing", "mine", "wasm.mine",
)  # fmt: skip
LIMIT = 4294967295
EXAMPLES = 20
"""Of one run of Hypothesis: it makes most examples by varying one that it has, so many short runs give more kinds."""


@dataclass(frozen=True, slots=True)
class Program:
    """`scripts`: of A, B and C. `allow`: in the chain with allow_on_headers_stop_iteration."""

    scripts: tuple[str, str, str]
    pieces: tuple[bytes, ...]
    answer: Answer
    allow: bool

    def __str__(self) -> str:
        shown = "\n".join(f"  {name}: {script}" for name, script in zip("ABC", self.scripts, strict=True) if script)
        return f"{shown or '  (no scripts)'}\n  client {list(self.pieces)}\n  upstream {list(self.answer.steps)}\n  allow {self.allow}"


def words(*choices: Sequence[object] | str) -> st.SearchStrategy[str]:
    """A command: a word of each, all of them equally likely. One choice instead of many: most of the time goes into choosing."""
    lists = [[choice] if isinstance(choice, str) else choice for choice in choices]
    return st.sampled_from([" ".join(map(str, one)) for one in itertools.product(*lists)])


def map_calls(map_: str, names: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.one_of(
        words("get", map_, names),
        words("add", map_, names, VALUES),
        words("rep", map_, names, VALUES),
        words("rem", map_, names),
        words(f"pairs {map_}"),
        words(f"size {map_}"),
        words(f"setpairs {map_}", WHOLE[map_]),
    )


request_map = map_calls("0", NAMES)
response_map = map_calls("2", RESPONSE_NAMES)
sent_map = response_map.filter(lambda call: call not in ("pairs 2", "size 2"))
"""Of a response that may have been sent: Envoy shows it with what it added, the date."""
path = words("rep 0 :path", ("/new", "/p?q=1", "/a/b"))
pseudo = st.one_of(words(("get 0 :path", "get 0 :method", "get 0 host", "get 2 :status", "get 0 :absent")), path)
status = words("rep 2 :status", STATUSES)
other_maps = words(("get 1 x", "pairs 1", "get 3 x", "get 4 x", "pairs 6", "get 8 x", "size 4"))


no_bodies = words(("buf 2 0 9", "buf 4 0 9", "buf 6 0 9", "buf 7 0 9", "buf 9 0 9", "bufstat 4"))


def reading_of(*bodies: int) -> st.SearchStrategy[str]:
    return st.one_of(words("buf", bodies, (0, 1, 3, 100), (0, 1, 2, 100, LIMIT)), words("bufstat", bodies), no_bodies)


reading = reading_of(0, 1)
set_property = words("setprop mine", ("1", "other", "~"))
properties = st.one_of(words("prop", PROPERTIES), set_property)
other_properties = st.one_of(
    words("prop", [one for one in PROPERTIES if not one.startswith("response%00headers")]), set_property
)
"""Without those of a response that a filter has replaced."""
replies = words(
    "reply", STATUSES, ("details", "with%20space"), ("~", "body", "a%20longer%20body"),
    ("~", "x-r=1", "x-r=1|x-r=2|content-type=a/b", "X-Upper=1"), "~",
)  # fmt: skip


def writing(buffer: int) -> st.SearchStrategy[str]:
    return words(f"setbuf {buffer}", (0, 0, 0, 1, 50, LIMIT), (0, 1, 3, 100, LIMIT), DATA)


def commands(*kinds: st.SearchStrategy[str], most: int = 4) -> st.SearchStrategy[list[str]]:
    return st.lists(st.one_of(*kinds), max_size=most)


def callback(
    name: str, body: st.SearchStrategy[list[str]], actions: st.SearchStrategy[int], replying: int
) -> st.SearchStrategy[str]:
    """`name: ...`, in about `replying` percent with a local reply at its end."""

    def line(parts: tuple[list[str], int, int, str, str]) -> str:
        calls, action, chance, reply, ordinal = parts
        calls = list(calls)
        if chance < replying:
            calls.append(reply)
        elif action:
            calls.append(f"ret {action}")
        return f"{name}{ordinal}: {'; '.join(calls)}" if calls else ""

    ordinals = st.sampled_from(("", "", "#1", "#2", "#3")) if name in ("rqb", "rsb") else st.just("")
    return st.tuples(body, actions, st.integers(0, 99), replies, ordinals).map(line)


SELDOM = st.sampled_from((0, 0, 0, 0, 0, 1))
OFTEN = st.sampled_from((0, 0, 1, 1, 1, 2))


NEVER = st.just(0)


def scripts(
    holds_request: bool, holds_response: bool, stops_request: bool, stops_response: bool, answered: str, replying: str
) -> st.SearchStrategy[str]:
    """One filter's script; whether it may hold bodies (`holds`) and heads (`stops`), the callback in which somebody may
    answer, and the one in which this filter may."""
    to_request, to_response = OFTEN if holds_request else NEVER, OFTEN if holds_response else NEVER
    request_head, response_head = SELDOM if stops_request else NEVER, SELDOM if stops_response else NEVER
    request_headers = commands(request_map, request_map, pseudo, other_maps, reading, properties)
    after = reading_of(1) if answered in ("rqh", "rqb") else reading
    last = no_bodies if answered else reading  # Envoy reads what it has freed: sizes of thousands of millions
    response_headers = commands(response_map, response_map, status, pseudo, other_maps, after, properties)
    logged = sent_map.filter(lambda call: call.startswith("get")) if answered == "rsh" else sent_map
    shown = other_properties if answered in ("rsh", "rsb") else properties
    everything = commands(request_map, logged, pseudo, other_maps, last, shown)
    # Where a body changes, its length must not be said: fields of framing are removed in the headers' callbacks.
    request_body = commands(writing(0), writing(0), reading, request_map, pseudo, properties)
    response_body = commands(writing(1), writing(1), after, sent_map, pseudo, properties)
    return st.tuples(
        callback("rqh", request_headers, request_head, 20 * (replying == "rqh")),
        callback("rqb", request_body, to_request, 20 * (replying == "rqb")),
        callback("rqb", request_body, to_request, 0),
        callback("rsh", response_headers, response_head, 20 * (replying == "rsh")),
        callback("rsb", response_body, to_response, 10 * (replying == "rsb")),
        callback("rsb", response_body, to_response, 0),
        everything.map(lambda calls: f"log: {'; '.join(calls)}" if calls else ""),
        commands(request_map, sent_map, pseudo, most=2).map(lambda calls: "; ".join([*calls, "go"])),
    ).map(assemble)


def assemble(parts: tuple[str, str, str, str, str, str, str, str]) -> str:
    *callbacks, tick = parts
    lines = [line for line in callbacks if line]
    # A length may not be said either where the end is held, or answered: Penstock keeps the last byte back with it.
    if any("setbuf 0" in line or (line.startswith("rqb") and " ret " in line) for line in lines):
        lines.insert(0, "rqh: rem 0 content-length")
    if any("setbuf 1" in line or (line.startswith("rsb") and (" ret " in line or "reply " in line)) for line in lines):
        lines.insert(0, "rsh: rem 2 content-length")
    lines.append(f"tick: {tick}")
    return "\n".join(lines)


chunk = st.sampled_from((b"a", b"one", b"two2", b"0123456789", b"x" * 300))
field_lists = st.lists(
    st.tuples(
        st.sampled_from(("x-a", "x-b", "accept", "cookie", "x-empty", "via", "X-Up")),
        st.sampled_from(("", "1", "v w", "text/plain")),
    ),
    max_size=4,
)


REPLYING = ("", "rqh", "rqb", "rsh", "rsb")
scripts_of = functools.cache(scripts)


@st.composite
def programs(draw: Callable[..., object]) -> Program:
    fields = [("user-agent", "ua"), ("x-forwarded-proto", "http"), *draw(field_lists)]  # type: ignore[misc]
    kind = draw(st.sampled_from(("get", "get", "sized", "chunked", "chunked", "head")))
    if kind == "sized":
        body: bytes = draw(chunk)  # type: ignore[assignment]
        whole = plain_request("POST", "/a?b=1", fields, body)
        pieces: list[bytes] = [whole[: len(whole) - len(body)], body]
    elif kind == "chunked":
        pieces = chunked_request("POST", "/a?b=1", draw(st.lists(chunk, min_size=1, max_size=4)), fields)  # type: ignore[arg-type]
    else:
        pieces = [plain_request("HEAD" if kind == "head" else "GET", "/a?b=1", fields)]
    up = [("x-up", "1"), *draw(field_lists)]  # type: ignore[misc]
    code: int = draw(st.sampled_from(STATUSES))  # type: ignore[assignment]
    if kind == "head":
        answer = Answer([Body(), head(code, [*up, ("content-length", "5")])])
    elif draw(st.booleans()):
        data: bytes = draw(chunk)  # type: ignore[assignment]
        answer = Answer([Body(), head(code, [*up, ("content-length", str(len(data)))]), 0.02, data])
    else:
        answer = chunked(draw(st.lists(chunk, min_size=1, max_size=4)), code, up, delay=0.02)  # type: ignore[arg-type]
    # Who holds the body of either direction, 3 for nobody; behind it on that way nobody holds the head.
    first, second = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    # One filter answers, in one callback: an answer to an answer is for the written cases.
    replier, where = draw(st.integers(0, 2)), str(draw(st.sampled_from(REPLYING)))
    three = [""] * 3
    for index in range(3):
        if draw(st.sampled_from((True, True, False))):
            holds = (index == first, index == second, index <= first, index >= second % 3)
            answering = where if index == replier else ""
            three[index] = str(draw(scripts_of(*holds, where, answering)))
    allow = bool(draw(st.booleans()))
    if allow:
        three = [without_late_edits(script) for script in three]
    return Program((three[0], three[1], three[2]), tuple(pieces), answer, allow)


def without_late_edits(script: str) -> str:
    """Of a filter that holds the request's head under `allow` its body callbacks edit it in the first alone, which has it still."""
    lines = script.split("\n")
    if not any(line.startswith("rqh") and " ret " in line for line in lines):
        return script
    kept = []
    for line in lines:
        kind, colon, calls = line.partition(": ")
        if kind.startswith("rqb") and kind != "rqb#1":
            calls = "; ".join(call for call in calls.split("; ") if not call.startswith(("add 0", "rep 0", "rem 0")))
        kept.append(f"{kind}{colon}{calls}")
    return "\n".join(kept)


def generate(count: int, number: int) -> list[Program]:
    """`count` programs, no two alike; the same ones for the same `number`."""
    found: dict[str, Program] = {}
    for attempt in itertools.count():

        @seed(random.Random(number * 1_000_003 + attempt).getrandbits(32))
        @settings(
            max_examples=EXAMPLES, deadline=None, database=InMemoryExampleDatabase(), phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(programs())
        def collect(program: Program) -> None:
            found[str(program)] = program

        collect()
        if len(found) >= count:
            break
    return list(found.values())[:count]
