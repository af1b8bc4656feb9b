"""Trailers, with Envoy's enable_trailers on both sides: what filters see and edit, pauses, and what goes over the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.conformance.case import Case
from tests.conformance.cases.requests import FIELDS, GET, POST, TICK, chunks
from tests.conformance.client import chunked_request, request
from tests.conformance.upstream import Answer, Body, chunked, head, sized

TWO = [("x-t", "1"), ("X-T2", "two")]
SENT = chunks([b"one", b"two"], TWO)
BACK = chunked([b"one", b"two"], delay=0.03, trailers=TWO)
ONE, ONE_BACK = chunks([b"one"]), chunked([b"one"], delay=0.03)
SHOW = """rqh: pairs 1; get 1 x; size 1
rqb: pairs 1; get 1 x; add 1 x-b v
rqt: pairs 1; size 1; get 1 X-T; pairs 0; get 0 :path; bufstat 0; setbuf 0 0 0 NEW
rsh: pairs 3; add 3 y v
rsb: pairs 3; get 3 x; add 3 y v
rst: pairs 3; size 3; get 3 X-T; pairs 2; pairs 1; bufstat 1; pairs 0
log: pairs 0; pairs 1; get 1 x-t; pairs 3; get 3 x-t; size 3"""
STOP = "eff stream; cont"
"""In a tick of its own: lets go once; later ticks find no stream, and say so."""


def case(
    name: str, scripts: tuple[str, ...], pieces: tuple[bytes, ...] = SENT, answer: Answer | None = None, **more: Any
) -> Case:
    return Case(f"trailers: {name}", scripts, pieces, (answer or sized(),), trailers=True, **more)


def back(name: str, scripts: tuple[str, ...], answer: Answer = BACK, **more: Any) -> Case:
    return case(name, scripts, GET, answer, **more)


def with_trailers(*lines: str) -> tuple[bytes, ...]:
    """A chunked request whose trailer section is given as it is."""
    return (*chunks([b"one"])[:-1], b"0\r\n" + "".join(lines).encode("latin-1") + b"\r\n")


def answer_with(*lines: str) -> Answer:
    return Answer(
        [
            Body(),
            head(200, [("transfer-encoding", "chunked")]) + b"3\r\none\r\n",
            0.03,
            b"0\r\n" + "".join(lines).encode("latin-1") + b"\r\n",
        ]
    )


LATER = f"{TICK}; ret 1"
MILD = [("trailer", "x"), ("set-cookie", "a=b"), ("cache-control", "no"), ("x-ok", "1"), ("via", "a"), ("content-digest", "d")]

CASES = [
    case("seen by two filters", (SHOW, SHOW), SENT, BACK),
    case("without filters", (), SENT, BACK),
    replace(case("off on both sides", (SHOW,), SENT, BACK), trailers=False),
    case("of a request, edited", ("rqt: add 1 x-new v; rep 1 x-t 9; rem 1 x-t2; add 1 x-t more; pairs 1", "rqt: pairs 1")),
    back("of a response, edited", ("rst: pairs 3", "rst: add 3 x-new v; rep 3 x-t 9; rem 3 x-t2; add 3 x-t more; pairs 3\nlog: pairs 3")),
    case("of a request, all removed", ("rqt: setpairs 1 ~; pairs 1", "rqt: pairs 1")),
    back("of a response, all removed", ("rst: pairs 3", "rst: setpairs 3 ~; pairs 3")),
    case("duplicates, empty values", ("rqt: pairs 1; add 1 x-t 3; pairs 1",), chunks([b"a"], [("x-t", "1"), ("x-t", "2"), ("x-e", "")])),
    case("behind no body", (SHOW,), chunks([], TWO), chunked([], trailers=TWO)),
    case("cut anywhere", ("rqt: pairs 1\nrst: pairs 3",), (*SENT[:-1], b"0\r", b"\nx-", b"a: 1\r\nx-b: 2\r", b"\n\r", b"\n"),
         Answer([Body(), head(200, [("transfer-encoding", "chunked")]) + b"1\r\na\r\n", 0.03, b"0\r\nx-a: 1\r\n", 0.03, b"x-b: 2\r\n\r\n"])),
    case("two requests on a connection", ("rqt: pairs 1\nrst: pairs 3",), SENT, BACK, times=2, keep_alive=True),
    # Begun by a filter
    case("begun in the last body callback of a request", ("rqb: add 1 x-a 1; pairs 1\nrqt: pairs 1", "rqb: pairs 1\nrqt: pairs 1\nlog: pairs 1"), ONE),
    back("begun in the last body callback of a response", ("rsb: pairs 3\nrst: pairs 3\nlog: pairs 3", "rsb: add 3 x-a 1; pairs 3\nrst: pairs 3"), ONE_BACK),
    case("begun by set_pairs", ("rqb: setpairs 1 a=b", "rqt: pairs 1"), ONE),
    case("begun by asking for the size", ("rqb: size 1", "rqb: bufstat 0\nrqt: pairs 1"), ONE),
    case("begun by removing nothing", ("rqb: rem 1 x", "rqt: pairs 1"), ONE),
    case("not begun by reading", ("rqb: get 1 x; pairs 1", "rqt: pairs 1"), ONE),
    case("begun by both", ("rqb: add 1 a b", "rqb: add 1 c d; pairs 1\nrqt: add 1 e f; pairs 1"), ONE),
    case("begun before a filter that holds the body", ("rqb: add 1 a b", "rqb: ret 1\nrqt: pairs 1; buf 0 0 99"), ONE),
    case("begun by a filter that pauses", (f"rqb#2: add 1 a b; {LATER}\ntick#1: {STOP} 0", "rqb: buf 0 0 99\nrqt: pairs 1"), ONE),
    case("begun in a sized request", ("rqb: add 1 x-a 1", "rqt: pairs 1"), POST),
    back("begun in a sized response", ("rst: pairs 3", "rsb: add 3 x-a 1"), sized(b"hello")),
    case("begun in a local reply", ("rsb: add 3 a b\nrst: pairs 3", "rqh: reply 200 d hi ~ ~\nrsb: add 3 c d\nrst: pairs 3"), GET),
    # Pauses
    case("pause, continued by a tick", (f"rqt: {LATER}\ntick#1: eff stream; add 1 late 1; pairs 1; cont 0", "rqt: pairs 1")),
    back("pause of a response, continued by a tick", ("rst: pairs 3", f"rst: {LATER}\ntick#1: eff stream; add 3 late 1; pairs 3; cont 1")),
    *(case(f"pause with {action} for ever", (f"rqt: ret {action}", "rqt: pairs 1")) for action in (1, 2, 3, 200)),
    case("pause, continued in the same callback", ("rqt: cont 0; ret 1", "rqt: pairs 1")),
    case("body held by action 1, let go by trailers", ("rqb: ret 1\nrqt: buf 0 0 99; bufstat 0", "rqb: buf 0 0 99\nrqt: pairs 1")),
    case("body held by action 1, edited in trailers", ("rqb: ret 1\nrqt: setbuf 0 0 99 NEW; bufstat 0", "rqb: buf 0 0 99\nrqt: pairs 1")),
    back("body of a response held by action 1, edited in trailers", ("rsb: buf 1 0 99", "rsb: ret 1\nrst: buf 1 0 99; setbuf 1 0 99 NEW")),
    case("body held by action 2, let go by trailers", ("rqb: ret 2\nrqt: buf 0 0 99", "rqb: buf 0 0 99")),
    case("body dropped by action 3, trailers go on", ("rqb: ret 3\nrqt: buf 0 0 99", "rqb: buf 0 0 99")),
    case("body and trailers held for ever", ("rqb: ret 1\nrqt: ret 1", "rqb: buf 0 0 99")),
    case("body and trailers held, continued by a tick", (f"rqb: ret 1\nrqt: {LATER}\ntick#1: {STOP} 0", "rqb: buf 0 0 99\nrqt: pairs 1")),
    case("held body made too large in trailers", ("rqb: ret 1\nrqt: setbuf 0 0 99 " + "x" * 3000, "rqt: pairs 1"), limit=1024),
    case("headers held: trailers wait unseen", (f"rqh: {LATER}\nrqb: buf 0 0 99\nrqt: pairs 1\ntick#3: {STOP} 0", "rqb: buf 0 0 99\nrqt: pairs 1")),
    back("headers of a response held: trailers wait unseen", ("rsb: buf 1 0 99", f"rsh: {LATER}\nrsb: buf 1 0 99\nrst: pairs 3\ntick#3: {STOP} 1")),
    case("headers held for ever", ("rqh: ret 1\nrqt: cont 0", "")),
    case("headers alone held, let go by trailers", ("rqh: ret 1\nrqb: ret 1\nrqt: pairs 1", "rqt: pairs 1"), allow=True),
    case("headers alone held, no body", ("rqh: ret 1\nrqt: pairs 1", "rqt: pairs 1"), chunks([], TWO), allow=True),
    back("headers alone of a response held, let go by trailers", ("", "rsh: ret 1\nrsb: ret 1\nrst: pairs 3"), allow=True),
    back("request continued in the response's", ("rst: cont 0",)),
    back("held by one filter, a body by one behind it", (f"rsb: {LATER}\ntick#1: {STOP} 1\nrst: pairs 3", "rst: ret 1")),
    back("begun in a response before a filter that holds the body", (f"rsb: {LATER}\nrst: pairs 3\ntick#1: {STOP} 1", "rsb: add 3 a b"), ONE_BACK),
    back("begun in a response before a filter that lets go of the body", ("rst: pairs 3", "rsb#1: ret 1\nrst: pairs 3", "rsb: add 3 a b"), ONE_BACK),
    case("begun by who held the headers", (f"rqh: {LATER}\nrqb: add 1 a b\nrqt: pairs 1\ntick#3: {STOP} 0", "rqt: pairs 1"), ONE),
    # Ends
    case("reply in a request's", ("rqt: reply 403 d no ~ ~", "rqt: pairs 1\nrsh: pairs 2")),
    case("reply in a request's, by the second", ("rsh: pairs 2\nlog: pairs 1", "rqt: reply 403 d no ~ ~")),
    back("reply in a response's", ("rsh: pairs 2\nlog: pairs 3", "rst: reply 403 d no ~ ~")),
    case("close in a request's", ("rqt: close 0", "")),
    case("trap in a request's", ("rqt: trap", "")),
    back("trap in a response's", ("", "rst: trap")),
    case("properties", ("rqt: prop request%00trailers%00x-t\nrst: prop response%00trailers%00x-t\nlog: prop request%00trailers%00x-t; prop response%00trailers%00x-t",), SENT, BACK),
    # On the wire
    case("te and trailer fields", ("rqh: pairs 0\nrsh: pairs 2",), tuple(chunked_request("POST", "/a", [b"x"], [*FIELDS, ("te", "trailers"), ("trailer", "x-t")], TWO)),
         chunked([b"x"], fields=[("trailer", "x-t")], trailers=TWO)),
    case("te in a list", ("rqh: pairs 0",), (request("GET", "/a", [*FIELDS, ("te", "trailers, gzip"), ("connection", "te")]),), BACK),
    case("te without trailers", ("rqh: pairs 0",), (request("GET", "/a", [*FIELDS, ("te", "gzip"), ("connection", "te")]),), BACK),
    case("a client that did not ask", ("rqh: pairs 0",), GET, BACK),
    back("sized by a filter", ("rsh: rep 2 content-length 6\nrst: pairs 3",)),
    case("HEAD", ("rst: pairs 3",), (request("HEAD", "/a", FIELDS),), Answer([Body(), head(200, [("transfer-encoding", "chunked")])])),
    case("that trailers may not be", ("rqt: pairs 1",), chunks([b"a"], MILD)),
    back("of a response that trailers may not be", ("rst: pairs 3",), chunked([b"a"], delay=0.03, trailers=MILD)),
    case("that trailers may not be, by a filter", ("rqt: add 1 content-length 5; add 1 transfer-encoding chunked; add 1 host x; pairs 1",)),
    case("that cannot be sent, by a filter", ("rqt: add 1 x-a a%0d%0ab:c",)),
    case("content-length", ("rqt: pairs 1",), with_trailers("content-length: 5\r\n")),
    back("content-length of a response", ("rst: pairs 3",), answer_with("content-length: 5\r\n")),
    case("transfer-encoding", ("rqt: pairs 1",), with_trailers("transfer-encoding: chunked\r\n")),
    case("host", ("rqt: pairs 1",), with_trailers("host: evil\r\n")),
    case("obs-fold", ("rqt: pairs 1",), with_trailers("x-a: 1\r\n folded\r\n")),
    back("obs-fold of a response", ("rst: pairs 3",), answer_with("x-a: 1\r\n folded\r\n")),
    case("bare LF", ("rqt: pairs 1",), with_trailers("x-a: 1\nx-b: 2\r\n")),
    case("NUL", ("rqt: pairs 1",), with_trailers("x-a: 1\0\r\n")),
    case("a name with a space", ("rqt: pairs 1",), with_trailers("x a: 1\r\n")),
    case("too large", ("rqt: size 1",), with_trailers("x-a: " + "a" * 70000 + "\r\n")),
    case("too many", ("rqt: size 1",), with_trailers(*(f"x-{n}: 1\r\n" for n in range(150)))),
]  # fmt: skip
