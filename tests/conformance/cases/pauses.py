"""Pauses on headers and bodies, and their end from ticks; with and without allow_on_headers_stop_iteration."""

from __future__ import annotations

from tests.conformance.case import Case
from tests.conformance.cases.requests import GET, POST, THREE, THREE_BACK, TICK, chunks
from tests.conformance.upstream import Answer, Body, chunked, head

T = f"{TICK}; ret 1\ntick#1: eff stream; "
LATE = "period 200; ret 1\ntick#1: eff stream; "
OFF = "; period 0"


def variants() -> list[Case]:
    found = []
    for allow in (False, True):
        mode = "allowed" if allow else "default"
        for name, scripts, pieces, answers, more in (
            ("rqh, resumed by a tick, GET", (f"rqh: {T}get 0 :path; add 0 x-t 1; cont 0; get 0 :path{OFF}",), GET, None, {}),
            (
                "rqh, resumed after the body, POST",
                (f"rqh: {LATE}get 0 :path; cont 0{OFF}\nrqb: buf 0 0 99; get 0 :path",),
                THREE,
                None,
                {},
            ),
            (
                "rqh, resumed in the middle of the body",
                (f"rqh: {T}get 0 :path; cont 0{OFF}\nrqb: buf 0 0 99; get 0 :path",),
                THREE,
                None,
                {"delay": 0.15},
            ),
            ("rqh, sized POST", (f"rqh: {LATE}buf 0 0 9; setbuf 0 0 0 x; cont 0{OFF}\nrqb: buf 0 0 99",), POST, None, {}),
            (
                "rqh and rqb, resumed by a tick",
                (f"rqh: {LATE}buf 0 0 99; setbuf 0 0 0 y; add 0 x-t 1; cont 0{OFF}\nrqb: buf 0 0 99; get 0 :path; ret 1",),
                THREE,
                None,
                {},
            ),
            (
                "rqh and rqb until the end",
                ("rqh: ret 1\nrqb: buf 0 0 99; ret 1\nrqb#4: add 0 x-late 1; ret 0",),
                THREE,
                None,
                {},
            ),
            ("rqh for ever, GET", ("rqh: ret 1",), GET, None, {"seconds": 0.5}),
            ("rqh for ever, POST", ("rqh: ret 1\nrqb: buf 0 0 9",), THREE, None, {"seconds": 0.5}),
            ("rqh of A, B behind it", (f"rqh: {LATE}cont 0{OFF}", "rqb: buf 0 0 99"), THREE, None, {}),
            ("rqh of B, A before it", ("rqb: buf 0 0 99", f"rqh: {LATE}cont 0{OFF}\nrqb: buf 0 0 99"), THREE, None, {}),
            ("rqh, action 2", ("rqh: ret 2",), THREE, None, {}),
            ("rqh, action 3", (f"rqh: {TICK}; ret 3\ntick#1: eff stream; cont 0{OFF}",), GET, None, {}),
            ("rqh, action 4", (f"rqh: {TICK}; ret 4\ntick#1: eff stream; cont 0{OFF}",), GET, None, {}),
            ("rqh, action 9", (f"rqh: {TICK}; ret 9\ntick#1: eff stream; cont 0{OFF}",), GET, None, {}),
            ("rqh, continued in the callback that does not pause", ("rqh: cont 0; ret 0",), GET, None, {"edge": (15,)}),
            (
                "rqh, unknown streams continued",
                (f"rqh: {T}cont 2; cont 3; cont 4; close 4; cont 0{OFF}",),
                GET,
                None,
                {"edge": (28,)},
            ),
            (
                "rsh, resumed by a tick",
                (f"rsh: {LATE}get 2 :status; add 2 x-t 1; cont 1; get 2 :status{OFF}\nrsb: buf 1 0 99; get 2 :status",),
                GET,
                (THREE_BACK,),
                {},
            ),
            (
                "rsh and rsb until the end",
                (
                    "rsh: ret 1\nrsb: buf 1 0 99; get 2 :status; ret 1\nrsb#4: add 2 x-late 1; rep 2 :status 201; setbuf 1 0 99 NEW; ret 0",
                ),
                GET,
                (THREE_BACK,),
                {},
            ),
            (
                "rsh, first body callback continues",
                ("rsh: ret 1\nrsb: buf 1 0 99; get 2 :status",),
                GET,
                (THREE_BACK,),
                {"seconds": 0.6},
            ),
            ("rsh for ever", ("rsh: ret 1",), GET, None, {"seconds": 0.5}),
            ("rsh of A, B before it", (f"rsh: {LATE}cont 1{OFF}", "rsh: ret 0"), GET, (THREE_BACK,), {}),
            ("rsh of B, A behind it", ("rsb: buf 1 0 99", f"rsh: {LATE}cont 1{OFF}"), GET, (THREE_BACK,), {}),
            ("rsh of a response without a body", (f"rsh: {T}cont 1{OFF}",), GET, (Answer([head(204)]),), {}),
            ("rsh, action 3", (f"rsh: {TICK}; ret 3\ntick#1: eff stream; cont 1{OFF}",), GET, None, {}),
            (
                "edge 27: response fields after continue_stream(response)",
                (f"rsh: {LATE}cont 1; get 2 :status; pairs 2; get 0 :path{OFF}\nrsb: get 2 :status; get 0 :path",),
                GET,
                (THREE_BACK,),
                {"edge": (27,)},
            ),
        ):
            found.append(
                Case(f"pause {mode}: {name}", scripts, pieces, answers or (Case("", (), ()).answers), allow=allow, **more)
            )
    return found


CASES = [
    *variants(),
    Case("pause body: resumed by a tick between pieces", (f"rqb: buf 0 0 99; {TICK}; ret 1\ntick#1: eff stream; buf 0 0 99; setbuf 0 0 0 y; cont 0{OFF}",), chunks([b"one", b"two"]), delay=0.15),
    Case("pause body: resumed by a tick at the end", (f"rqb: buf 0 0 99; period 150; ret 1\ntick#1: eff stream; buf 0 0 99; cont 0{OFF}",), THREE, delay=0.01),
    Case("pause body: response, resumed by a tick in the middle", (f"rsb: buf 1 0 99; {TICK}; ret 1\ntick: eff stream; buf 1 0 99; cont 1{OFF}",), GET, (chunked([b"one", b"two"], delay=0.15),), settle=0.3),
    Case("pause body: end of a request edited after a tick went on", (f"rqb#3: period 30; ret 1\ntick: eff stream; cont 0{OFF}\nrqb#4: setbuf 0 0 0 tail; buf 0 0 9",), THREE, delay=0.08),
    Case("pause body: a piece edited after a tick went on", (f"rqb#2: period 30; ret 1\ntick: eff stream; cont 0{OFF}\nrqb: setbuf 0 99 0 S; buf 0 0 9",), THREE, delay=0.08),
    Case("pause body: sized request held at its end", (f"rqb#2: period 250; ret 1\ntick#1: eff stream; cont 0{OFF}",), POST),
    Case("pause body: response held at its end", (f"rsb#2: {TICK}; ret 1\ntick#1: eff stream; buf 1 0 9; cont 1{OFF}",), GET, settle=0.2),
    Case("pause body: action 2 resumed by a tick", (f"rqb: buf 0 0 99; period 150; ret 2\ntick#1: eff stream; cont 0{OFF}",), THREE, delay=0.01),
    Case("pause body: over the limit while the head waits", ("rsh: ret 1\nrsb: ret 1",), GET, (chunked([b"0123456789"] * 5, delay=0.03),), limit=16, seconds=0.7),
    Case("pause body: over the limit while the head waits, allowed", ("rsh: ret 1\nrsb: ret 1",), GET, (chunked([b"0123456789"] * 5, delay=0.03),), limit=16, allow=True, seconds=0.7),
    Case("pause: continue in the callback that pauses", ("rqh: cont 0; ret 1\nrqb: buf 0 0 99",), THREE, waiver="continue-in-pause", seconds=0.6),
    Case("pause: continue in the callback that pauses, allowed", ("rqh: cont 0; ret 1\nrqb: buf 0 0 99",), THREE, allow=True, seconds=0.6),
    Case("pause: a response's status edited after its head went on", ("rsb#1: prop response%00code; get 2 :status", f"rsh: {T}cont 1{OFF}\nrsb#1: rep 2 :status 404; prop response%00code"), GET, (chunked([b"one", b"two"]),), settle=0.2),
    Case("pause: both filters pause, ticks in turn", (f"rqh: {T}cont 0{OFF}", f"rqh: {T}cont 0{OFF}"), GET),
    Case("pause: request headers by A, response headers by B", (f"rqh: {T}cont 0{OFF}", f"rsh: {T}cont 1{OFF}"), GET, (THREE_BACK,), settle=0.1),
    Case("close_stream(request) in rqh", ("rqh: close 0; ret 0",), GET, seconds=0.6),
    Case("close_stream(response) in rsh", ("rsh: close 1; ret 0",), GET, seconds=0.6),
    Case("close_stream(request) in rqb", ("rqb: close 0",), THREE, seconds=0.6),
    Case("client leaves while headers are paused", ("rqh: ret 1",), GET, leave=0.2, settle=0.2),
    Case("client leaves while a body is paused", ("rqb: ret 1",), THREE, leave=0.3, settle=0.2),
    Case("edits after the pause is over", (f"rqh: {T}cont 0; add 0 x y; rep 0 x y; rem 0 x; setpairs 0 a=b; pairs 0; size 0{OFF}",), GET),
    Case("edits while paused, by the tick", (f"rqh: {T}rep 0 :path /edited; rem 0 user-agent; add 0 x-a 1; pairs 0; size 0; cont 0{OFF}", "rqh: pairs 0"), GET),
    Case("edits of a head that has gone", ("log: get 2 x-late; get 2 x-up", f"rsh: {LATE}cont 1{OFF}\nrsb: rep 2 x-late 1; get 2 x-late"), GET, (THREE_BACK,)),
    Case("edits of a request's head that has gone", ("log: get 0 x-late", "rqh: ret 1\nrqb: rep 0 x-late 1"), THREE, allow=True),
    Case("continue_stream(response) closes the request's map", (f"rqh: reply 200 d ~ ~ ~\nrsh: {T}add 0 x-a 1; cont 1; add 0 x-a 2{OFF}\nlog: add 0 x-a 3; get 0 x-a",), GET, settle=0.1),
    Case("response head held by A, body by B", (f"rsh: period 200; ret 1\ntick#1: eff stream; cont 1{OFF}\nrsb: buf 1 0 99", f"rsb: ret 1\nrsh: period 400\ntick#1: eff stream; cont 1{OFF}"), GET, (THREE_BACK,), settle=0.4),
    Case("a body paused before early answer is over", ("rqb: ret 1\nrsh: cont 0",), THREE, (Answer([head(200, [("content-length", "2")]), 0.3, b"ok"]),), delay=0.01),
    Case("upstream waits for the body of a paused stream", (f"rqh: {LATE}cont 0{OFF}",), THREE, (Answer([Body(), head(200, [("content-length", "2")]) + b"ok"]),)),
]  # fmt: skip
