"""Generated programs: scripts for three probes, a request in pieces and an answer in pieces.

Left out is what a waiver of docs/conformance.md already pins: framing that lies, statuses and fields that cannot be sent,
continuing in the callback that pauses; and what makes Envoy crash or hang: local replies from on_log, on_done or on_delete,
continuing a response that has not begun, reading a body from a tick while it is held by action 2.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase

from tests.conformance.client import chunked_request
from tests.conformance.client import request as plain_request
from tests.conformance.upstream import Answer, Body, chunked, head

NAMES = ("x-a", "x-b", "X-Upper", "x-empty", "accept", "user-agent", "cookie", "x-absent", "content-type", "x-forwarded-for")
RESPONSE_NAMES = ("x-up", "x-a", "set-cookie", "content-type", "vary", "etag", "x-absent", "location", "X-Upper")
VALUES = ("1", "two", "~", "a%20b", "%c3%a9", "x" * 40)
DATA = ("~", "X", "new", "0123456789", "%00%ff")
STATUSES = (200, 201, 202, 400, 401, 403, 404, 418, 429, 500, 503)
PROPERTIES = (
    "request%00path", "request%00method", "request%00host", "request%00headers%00x-a", "request%00query", "request%00protocol",
    "response%00code", "response%00headers%00x-up", "response%00code_details", "response%00flags", "xds%00route_name",
    "plugin_root_id", "nothing", "mine", "wasm.mine",
)  # fmt: skip
LIMIT = 4294967295


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


def words(*choices: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*choices).map(" ".join)


def pick(*values: object) -> st.SearchStrategy[str]:
    return st.sampled_from([str(value) for value in values])


def map_calls(map_: str, names: tuple[str, ...]) -> st.SearchStrategy[str]:
    name = pick(*names)
    return st.one_of(
        words(st.just("get"), st.just(map_), name),
        words(st.just("add"), st.just(map_), name, pick(*VALUES)),
        words(st.just("rep"), st.just(map_), name, pick(*VALUES)),
        words(st.just("rem"), st.just(map_), name),
        st.just(f"pairs {map_}"),
        st.just(f"size {map_}"),
    )


request_map = map_calls("0", NAMES)
response_map = map_calls("2", RESPONSE_NAMES)
sent_map = response_map.filter(lambda call: call not in ("pairs 2", "size 2"))
"""Of a response that may have been sent: Envoy shows it with what it added, the date."""
path = words(st.just("rep 0 :path"), pick("/new", "/p?q=1", "/a/b"))
pseudo = st.one_of(pick("get 0 :path", "get 0 :method", "get 0 host", "get 2 :status", "get 0 :absent"), path)
status = words(st.just("rep 2 :status"), pick(*STATUSES))
other_maps = pick("get 1 x", "pairs 1", "get 3 x", "get 4 x", "pairs 6", "get 8 x", "size 4")
reading = st.one_of(
    words(st.just("buf"), pick(0, 1), pick(0, 1, 3, 100), pick(0, 1, 2, 100, LIMIT)),
    words(st.just("bufstat"), pick(0, 1)),
    pick("buf 2 0 9", "buf 4 0 9", "buf 6 0 9", "buf 7 0 9", "buf 9 0 9", "bufstat 4"),
)
properties = st.one_of(words(st.just("prop"), pick(*PROPERTIES)), words(st.just("setprop mine"), pick("1", "other", "~")))
replies = words(
    st.just("reply"), pick(*STATUSES), pick("details", "with%20space"), pick("~", "body", "a%20longer%20body"),
    pick("~", "x-r=1", "x-r=1|x-r=2|content-type=a/b", "X-Upper=1"), st.just("~"),
)  # fmt: skip


def writing(buffer: int) -> st.SearchStrategy[str]:
    return words(st.just(f"setbuf {buffer}"), pick(0, 0, 0, 1, 50, LIMIT), pick(0, 1, 3, 100, LIMIT), pick(*DATA))


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

    ordinals = pick("", "", "#1", "#2", "#3") if name in ("rqb", "rsb") else st.just("")
    return st.tuples(body, actions, st.integers(0, 99), replies, ordinals).map(line)


SELDOM = st.sampled_from((0, 0, 0, 0, 0, 1))
OFTEN = st.sampled_from((0, 0, 1, 1, 1, 2))


NEVER = st.just(0)


def scripts(holds_request: bool, holds_response: bool, replying: str) -> st.SearchStrategy[str]:
    """One filter's script; whether it may hold bodies, and the callback that may answer. (Two that hold the same body share one buffer in Envoy: waived.)"""
    to_request, to_response = OFTEN if holds_request else NEVER, OFTEN if holds_response else NEVER
    request_headers = commands(request_map, request_map, pseudo, other_maps, reading, properties)
    response_headers = commands(response_map, response_map, status, pseudo, other_maps, reading, properties)
    everything = commands(request_map, sent_map, pseudo, other_maps, reading, properties)
    # Where a body changes, its length must not be said: fields of framing are removed in the headers' callbacks.
    request_body = commands(writing(0), writing(0), reading, request_map, pseudo, properties)
    response_body = commands(writing(1), writing(1), reading, sent_map, pseudo, properties)
    return st.tuples(
        callback("rqh", request_headers, SELDOM, 20 * (replying == "rqh")),
        callback("rqb", request_body, to_request, 20 * (replying == "rqb")),
        callback("rqb", request_body, to_request, 0),
        callback("rsh", response_headers, SELDOM, 20 * (replying == "rsh")),
        callback("rsb", response_body, to_response, 10 * (replying == "rsb")),
        callback("rsb", response_body, to_response, 0),
        everything.map(lambda calls: f"log: {'; '.join(calls)}" if calls else ""),
        commands(request_map, sent_map, pseudo, most=2).map(lambda calls: "; ".join([*calls, "go"])),
        st.booleans(),
    ).map(assemble)


def assemble(parts: tuple[str, str, str, str, str, str, str, str, bool]) -> str:
    *callbacks, tick, active = parts
    if not active:
        return ""
    lines = [line for line in callbacks if line]
    if any("setbuf 0" in line for line in lines):
        lines.insert(0, "rqh: rem 0 content-length")
    if any("setbuf 1" in line for line in lines):
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
SCRIPTS = {
    (one, other, where): scripts(one, other, where) for one in (False, True) for other in (False, True) for where in REPLYING
}


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
    first, second = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    # One filter answers, in one callback: an answer to an answer is for the written cases.
    replier, where = draw(st.integers(0, 2)), str(draw(st.sampled_from(REPLYING)))
    three = tuple(draw(SCRIPTS[index == first, index == second, where if index == replier else ""]) for index in range(3))
    return Program((three[0], three[1], three[2]), tuple(pieces), answer, bool(draw(st.booleans())))  # type: ignore[arg-type]


def generate(count: int, number: int) -> list[Program]:
    """`count` programs; the same ones for the same `number`."""
    found: list[Program] = []
    while len(found) < count:
        start = random.Random(number * 1_000_003 + len(found)).getrandbits(32)

        @seed(start)
        @settings(
            max_examples=min(count - len(found), 500), deadline=None, database=InMemoryExampleDatabase(), phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(programs())
        def collect(program: Program) -> None:
            found.append(program)

        collect()
    return found[:count]
