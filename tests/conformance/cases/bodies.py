"""Bodies: what filters see, hold and change of them. Every case runs for requests and for responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.conformance.case import Case
from tests.conformance.cases.requests import GET, POST, THREE, THREE_BACK, chunks
from tests.conformance.upstream import Answer, chunked, head, sized


def both(
    name: str,
    script: str,
    pieces: tuple[bytes, ...] = THREE,
    answer: Answer = THREE_BACK,
    others: Sequence[str] = (),
    **options: Any,
) -> list[Case]:
    """`@` is the body callback, `BUF` its buffer, `HDR` and `MAP` the headers' callback and map, `OTH` the other direction's."""
    request = script.replace("@", "rqb").replace("BUF", "0").replace("HDR", "rqh").replace("MAP", "0").replace("OTH", "rsh")
    response = script.replace("@", "rsb").replace("BUF", "1").replace("HDR", "rsh").replace("MAP", "2").replace("OTH", "rqh")
    return [
        Case(f"request body: {name}", (request,), pieces, **options),
        Case(f"response body: {name}", (response,), GET, (answer,), **options),
    ]


VARIANTS = (
    "@#1: setbuf BUF 0 0 pre; buf BUF 0 100; setbuf BUF 6 0 app; buf BUF 0 100; setbuf BUF 100 0 APP; buf BUF 0 100; setbuf BUF 100 5 Q; "
    "buf BUF 0 100; setbuf BUF 2 1 Z; buf BUF 0 100; setbuf BUF 0 2 N; buf BUF 0 100; setbuf BUF 0 4294967295 R; buf BUF 0 100; "
    "setbuf BUF 1 4294967295 S; buf BUF 0 100; setbuf BUF 4294967295 4294967295 T; buf BUF 0 100; buf BUF 1 1; buf BUF 3 1; buf BUF 4 1; "
    "buf BUF 50 1; buf BUF 0 0; buf BUF 4294967295 4294967295; setbuf BUF 0 4294967295 ~; setbuf BUF 0 0 v; buf BUF 0 9; "
    "buf BUF 4294967295 1; buf BUF 1 4294967295"
)
SIZED: dict[str, Any] = {"pieces": POST, "answer": sized(b"hello")}
TENS = [b"0123456789"] * 5
SHOW = "buf BUF 0 100; bufstat BUF"

CASES = [
    *both("seen", f"@: {SHOW}"),
    *both("one chunk", f"@: {SHOW}", chunks([b"one"]), chunked([b"one"])),
    *both("no chunks", f"@: {SHOW}", chunks([]), chunked([])),
    *both("sized", f"@: {SHOW}", **SIZED),
    *both("pause on the first, continue on the second", f"@: {SHOW}\n@#1: ret 1"),
    *both("pause until the end", f"@: {SHOW}; ret 1\n@#4: ret 0"),
    *both("pause on the second only", f"@: {SHOW}\n@#2: ret 1"),
    *both("pause on the last only", f"@: {SHOW}\n@#4: ret 1\nlog: get 0 :path"),
    *both("pause on the first and the third", f"@: {SHOW}\n@#1: ret 1\n@#3: ret 1"),
    *both("pause for ever", f"@: {SHOW}; ret 1"),
    *both("each replaced", "@: buf BUF 0 100; setbuf BUF 0 100 XX; buf BUF 0 100"),
    *both("each cleared", "@: setbuf BUF 0 100 ~; buf BUF 0 100; bufstat BUF"),
    *both("each doubled", "@: setbuf BUF 0 0 P; setbuf BUF 99 0 S; buf BUF 0 100"),
    *both("all ways to write and read", VARIANTS),
    *both("replaced while paused", "@: buf BUF 0 100; ret 1\n@#1: setbuf BUF 0 100 X; buf BUF 0 100\n@#2: setbuf BUF 0 0 Y; buf BUF 0 100\n@#4: setbuf BUF 0 100 FINAL; ret 0"),
    *both("cleared while paused", f"@: buf BUF 0 100; ret 1\n@#2: setbuf BUF 0 100 ~; {SHOW}\n@#4: ret 0"),
    *both("appended at the end", f"@#4: {SHOW}; setbuf BUF 0 0 tail; buf BUF 0 9"),
    *both("written back in parts", "@#1: setbuf BUF 0 1 ~; setbuf BUF 0 1 ~; buf BUF 0 9"),
    *both("action 2", "@: buf BUF 0 100; ret 2\n@#4: ret 0"),
    *both("action 2 once", "@: buf BUF 0 100\n@#2: ret 2"),
    *both("action 1 then 2", "@: buf BUF 0 100\n@#1: ret 1\n@#2: ret 2"),
    *both("action 3", "@: buf BUF 0 100; ret 3\n@#4: ret 0"),
    *both("action 3 once", "@: buf BUF 0 100\n@#2: ret 3"),
    *both("action 4", "@: buf BUF 0 100; ret 4\n@#4: ret 0"),
    *both("action 1 then 3", "@: buf BUF 0 100\n@#1: ret 1\n@#2: ret 3"),
    *both("sized, replaced by more", "@#1: setbuf BUF 0 100 longer-than-before", **SIZED),
    *both("sized, replaced by less", "@#1: setbuf BUF 0 100 x", **SIZED),
    *both("sized, replaced by as much", "@#1: setbuf BUF 0 100 HELLO", **SIZED),
    *both("sized, length removed", "HDR: rem MAP content-length\n@#1: setbuf BUF 0 100 longer-than-before", **SIZED),
    *both("sized, length set right", "HDR: rep MAP content-length 3\n@#1: setbuf BUF 0 100 abc", **SIZED),
    *both("sized, cleared, length removed", "HDR: rem MAP content-length\n@: setbuf BUF 0 100 ~", **SIZED),
    *both("sized, paused until the end, length removed", f"HDR: rem MAP content-length\n@: {SHOW}; ret 1\n@#2: setbuf BUF 0 100 all-new; ret 0", **SIZED),
    *both("edge 11: buffers outside the body's callback", f"HDR: {SHOW}; setbuf BUF 0 0 x\nOTH: {SHOW}; setbuf BUF 0 9 x\nlog: {SHOW}; setbuf BUF 0 0 x", edge=(11,), **SIZED),
    *both("edge 23: start and length at the largest", "@#1: buf BUF 4294967295 4294967295; buf BUF 1 4294967295", edge=(23,)),
    *both("edge 40: an empty last piece", f"@#4: {SHOW}; setbuf BUF 0 0 x", edge=(40,)),
    *both("other buffers", "@#1: buf 2 0 9; buf 3 0 9; buf 4 0 9; buf 5 0 9; buf 6 0 9; buf 7 0 9; buf 8 0 9; buf 9 0 9; bufstat 4; bufstat 7; bufstat 9; setbuf 2 0 0 x; setbuf 4 0 0 x; setbuf 6 0 0 x; setbuf 7 0 0 x; setbuf 9 0 0 x"),
    *both("over the limit, in the end", "@: bufstat BUF; ret 1", chunks(TENS), chunked(TENS, delay=0.03), limit=16),
    *both("over the limit in one piece", "@: bufstat BUF; ret 1", chunks([b"x" * 100]), chunked([b"x" * 100]), limit=16),
    *both("under the limit", "@: bufstat BUF; ret 1\n@#2: ret 0", chunks([b"0123456789"]), chunked([b"0123456789"]), limit=16),
    *both("over the limit by an edit", "@#1: setbuf BUF 0 0 0123456789012345678901234567890123456789; ret 1\n@: bufstat BUF", chunks([b"a", b"b"]), chunked([b"a", b"b"], delay=0.03), limit=16),
    Case("request body: a response comes while it is paused", ("rqb: ret 1",), THREE, (Answer([head(200, [("content-length", "2")]) + b"ok"]),)),
    Case("request body: sized, all in one packet with the head", ("rqb: bufstat 0",), (b"".join(POST),)),
    Case("request body: body in five pieces", ("rqb: buf 0 0 99; ret 1\nrqb#6: ret 0",), chunks([b"1", b"22", b"333", b"4444", b"55555"])),
    Case("request body: edited by two", ("rqb: setbuf 0 0 0 A", "rqb: setbuf 0 0 0 B; buf 0 0 99"), THREE),
    Case("response body: edited by two", ("rsh: rem 2 content-length\nrsb: setbuf 1 0 0 A; buf 1 0 99", "rsb: setbuf 1 0 0 B; buf 1 0 99"), GET, (sized(b"ok"),)),
    Case("request body: A holds, B sees", ("rqb: ret 1\nrqb#4: ret 0", "rqb: buf 0 0 100"), THREE),
    Case("request body: B holds, A sees", ("rqb: buf 0 0 100", "rqb: buf 0 0 100; ret 1\nrqb#4: ret 0"), THREE),
    Case("request body: A and B hold", ("rqb: buf 0 0 100; ret 1\nrqb#2: ret 0", "rqb: buf 0 0 100; ret 1\nrqb#3: ret 0"), THREE),
    Case("response body: B holds, A sees", ("rsb: buf 1 0 100", "rsb: buf 1 0 100; ret 1\nrsb#4: ret 0"), GET, (THREE_BACK,)),
    Case("response body: A holds, B sees", ("rsb: buf 1 0 100; ret 1\nrsb#4: ret 0", "rsb: buf 1 0 100"), GET, (THREE_BACK,)),
    Case("response body: three filters hold in turn", ("rsb: buf 1 0 99; ret 1\nrsb#2: ret 0", "rsb: buf 1 0 99; ret 1\nrsb#3: ret 0", "rsb: buf 1 0 99; ret 1\nrsb#4: ret 0"), GET, (THREE_BACK,)),
    Case("response body: HEAD's filter replaces nothing", ("rsb: setbuf 1 0 0 x",), (GET[0].replace(b"GET", b"HEAD", 1),), (Answer([head(200, [("content-length", "5")])]),)),
    Case("response body: 64 KiB", ("rsb#1: buf 1 0 5",), GET, (chunked([b"x" * 1000] * 4, delay=0.03),)),
]  # fmt: skip
