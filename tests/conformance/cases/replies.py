"""Local replies from every phase, through a chain of three."""

from __future__ import annotations

from tests.conformance.case import Case
from tests.conformance.cases.requests import FIELDS, GET, POST, THREE, THREE_BACK, TICK, get, slow
from tests.conformance.client import request
from tests.conformance.upstream import chunked

SHOW = "rsh: pairs 2\nrsb: buf 1 0 99\nlog: get 2 :status; prop response%00code_details"
R = "reply 403 my%20de%0atails body x-a=1 ~"
MANY = "x-a=1|x-a=2|X-Up=3|content-type=a/b|content-length=99|:status=418|server=me|date=d|connection=close|transfer-encoding=chunked"
T = f"{TICK}; ret 1\ntick#1: eff stream; "
GRPC = (("content-type", "application/grpc"),)


def three(script: str, who: str = "B") -> tuple[str, ...]:
    return tuple(f"{script}\n{SHOW}" if name == who else SHOW for name in "ABC")


def grpc_post() -> tuple[bytes, ...]:
    return (request("POST", "/a", [*FIELDS, *GRPC], b"x"),)


CASES = [
    Case("reply: rqh of B", three("rqh: " + R), GET, edge=(12, 29)),
    Case("reply: rqh of A", three("rqh: " + R, "A"), GET),
    Case("reply: rqh of C", three("rqh: " + R, "C"), GET),
    Case("reply: more host calls after it", three(f"rqh: {R}; add 0 x y; get 0 :path; reply 500 x two ~ ~; ret 0"), GET, edge=(29,)),
    Case("reply: body still to come", three("rqh: " + R), THREE, delay=0.08),
    Case("reply: sized body still to come", three("rqh: " + R), POST),
    Case("reply: headers of many kinds", (f"{SHOW}\nrqh: reply 403 d body {MANY} ~",), GET),
    Case("reply: headers of many kinds, no body", (f"{SHOW}\nrqh: reply 403 d ~ {MANY} ~",), GET),
    Case("reply: nothing but a status", (f"{SHOW}\nrqh: reply 403 d ~ ~ ~",), GET),
    Case("reply: body only", (f"{SHOW}\nrqh: reply 403 d hi ~ ~",), GET),
    Case("reply: no details", (f"{SHOW}\nrqh: reply 403 ~ hi ~ ~",), GET),
    Case("reply: HEAD", (f"{SHOW}\nrqh: reply 403 d hi x=1 ~",), get(method="HEAD")),
    Case("reply: HEAD, no body", (f"{SHOW}\nrqh: reply 403 d ~ x=1 ~",), get(method="HEAD")),
    Case("reply: gRPC, status unset", (f"{SHOW}\nrqh: reply 403 d hi%20th%c3%a9re%25~ x=1 ~",), grpc_post()),
    Case("reply: gRPC, status 7, no body", (f"{SHOW}\nrqh: reply 200 d ~ x=1 7",), grpc_post()),
    Case("reply: gRPC status for another request", (f"{SHOW}\nrqh: reply 200 d hi x=1 7",), GET),
    *(Case(f"reply: gRPC, mapped from {code}", (f"{SHOW}\nrqh: reply {code} d hi ~ ~",), grpc_post()) for code in (200, 400, 401, 404, 429, 500, 502, 503, 504)),
    *(Case(f"reply: gRPC, with {fields}", (f"{SHOW}\nrqh: reply 403 d {body} {fields} 5",), grpc_post()) for fields, body in (("grpc-status=9|content-length=7", "hi"), ("grpc-status=|content-type=a/b|x-a=1", "hi"), ("grpc-message=own|grpc-status=9|grpc-status=8", "~"), ("grpc-message=own", "hi"))),
    Case("reply: response.code of a gRPC reply", ("rqh: reply 403 d hi ~ 3\nrsh: prop response%00code; prop response%00grpc_status\nlog: prop response%00code; prop response%00grpc_status",), grpc_post()),
    Case("reply: fields that hold one value twice", (f"{SHOW}\nrqh: reply 302 d ~ location=/a|location=/b|www-authenticate=a|www-authenticate=b|server=a|server=b ~",), GET),
    Case("reply: pseudo-headers among its fields", (f"{SHOW}\nrqh: reply 200 d hi :path=/x|:status=500|x-a=1 ~",), GET),
    Case("reply: rqb of a sized request that is there", ("rqb: reply 403 d no ~ ~",), (b"".join(POST),)),
    Case("edge 31: grpc status outside 0-16", (f"{SHOW}\nrqh: reply 403 d hi ~ 17",), grpc_post(), edge=(31,)),
    Case("edge 31: grpc status 4294967295", (f"{SHOW}\nrqh: reply 403 d hi ~ 4294967295",), grpc_post(), edge=(31,)),
    *(Case(f"reply: status {code}", (f"{SHOW}\nrqh: reply {code} d hi x=1 ~",), GET, seconds=0.6) for code in (0, 99, 100, 101, 200, 201, 204, 205, 304, 413, 418, 429, 500, 503, 598, 600, 999, 1000, 70000)),
    Case("reply: header names and values that cannot be sent", (f"{SHOW}\nrqh: reply 200 d hi x%20y=1|x-b=a%0d%0ac:d|x-c=ok ~",), GET),
    Case("reply: rqb of B", three("rqb: " + R), THREE, delay=0.08),
    Case("reply: rqb of A, the request's body read afterwards", (f"rqb: {R}\nrsh: buf 0 0 9; bufstat 0",), THREE, delay=0.08),
    Case("reply: rqb of A, nothing else read", (f"rqb: {R}\nrsh: buf 1 0 9; pairs 0\nrsb: buf 1 0 9",), THREE, delay=0.08),
    Case("reply: rqb of A", three("rqb: " + R, "A"), THREE, delay=0.08),
    Case("reply: rqb while the head is held", three("rqh: ret 1\nrqb: " + R), THREE, delay=0.08, allow=True),
    Case("reply: rqb at the end of a held body", three("rqb: ret 1\nrqb#4: " + R), THREE),
    Case("edge 30: rsh of B", three("rsh: " + R), GET, (THREE_BACK,), edge=(30,)),
    Case("reply: rsh of C", three("rsh: " + R, "C"), GET, (THREE_BACK,)),
    Case("reply: rsh of A", three("rsh: " + R, "A"), GET),
    Case("reply: rsh, headers of many kinds", (f"rsh: reply 403 d body {MANY} ~",), GET),
    Case("reply: rsb of B, chunked", three("rsb: " + R), GET, (THREE_BACK,)),
    Case("reply: rsb of B, sized", three("rsb: " + R), GET),
    Case("reply: rsb while the head is held", three("rsh: ret 1\nrsb: " + R), GET, (THREE_BACK,), allow=True),
    Case("reply: create of B", three("create: " + R), GET),
    Case("reply: create of B, POST", three("create: " + R), POST),
    Case("reply: tick while rqh is paused", three(f"rqh: {T}{R}; period 0"), GET, settle=0.1),
    Case("reply: tick while rqh is paused, POST", three(f"rqh: {T}{R}; period 0"), POST, settle=0.1),
    Case("reply: tick while the upstream is slow", three(f"rqh: {TICK}\ntick#1: eff stream; {R}; period 0"), GET, (slow(0.4),), settle=0.1),
    Case("reply: tick while rsh is paused", three(f"rsh: period 250; ret 1\ntick#1: eff stream; {R}; period 0"), GET, (THREE_BACK,), settle=0.1),
    Case("reply: tick after the head", three(f"rqh: {TICK}\ntick#2: eff stream; {R}; period 0"), GET, (chunked([b"one", b"two", b"three", b"four"], delay=0.1),), settle=0.1),
    Case("reply: tick without a stream", (f"rqh: {TICK}\ntick#1: {R}; period 0",), GET, (slow(0.2),)),
    Case("reply: in configure", ("configure: " + R,), GET),
    Case("reply: in its own rsh", (f"rqh: {R}\nrsh: reply 500 x nested ~ ~",), GET),
    Case("reply: A edits B's", ("rsh: rep 2 :status 499; add 2 x-edit 1; rem 2 content-type; rem 2 content-length\nrsb: setbuf 1 0 99 edited", "rqh: " + R), GET),
    Case("reply: A edits B's body, the length stays", ("rsb: setbuf 1 0 99 edited", "rqh: " + R), GET),
    Case("reply: A edits B's body by as much", ("rsb: setbuf 1 0 99 BODY", "rqh: " + R), GET),
    Case("reply: A pauses B's head", (f"rsh: {T}cont 1; period 0", "rqh: " + R), GET, settle=0.1),
    Case("reply: A pauses B's body", (f"rsb: {T}cont 1; period 0", "rqh: " + R), GET, settle=0.1),
    Case("reply: A replies to B's reply", ("rsh: reply 500 a-details other ~ ~", "rqh: " + R), GET),
    Case("reply: large body", (f"rqh: reply 200 d {'b' * 2000} ~ ~",), GET),
    Case("reply: the connection lives on", ("rqh: reply 200 d hi ~ ~",), GET, times=2, keep_alive=True),
    Case("reply: details as Envoy shows them", ("rqh: reply 403 a%09b%20c%0d%0ad%c3%a9 hi ~ ~",), GET),
]  # fmt: skip
