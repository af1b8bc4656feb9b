"""Shared data and shared queues."""

from __future__ import annotations

from tests.conformance.case import Case
from tests.conformance.cases.requests import GET, TICK

OFF = "; period 0"

CASES = [
    Case("shared data: absent", ("rqh: shget d1; shget ~",), GET),
    Case("shared data: set and get", ("rqh: shset d2 one 0; shget d2; shset d2 two 0; shget d2; shget d2",), GET),
    Case("shared data: empty value", ("rqh: shset d3 ~ 0; shget d3; shset d3 x 0; shget d3; shset d3 ~ 0; shget d3",), GET),
    Case("shared data: empty key", ("rqh: shset ~ v 0; shget ~; shget d4",), GET),
    Case("shared data: bytes", ("rqh: shset d%00%ff a%00b%ff 0; shget d%00%ff; shget d",), GET),
    Case("shared data: cas", ("rqh: shset d6 one 0; shget d6; shset d6 two cas; shget d6; shset d6 three cas; shget d6",), GET),
    Case("shared data: cas mismatch", ("rqh: shset d7 one 0; shget d7; shset d7 two 0; shset d7 three cas; shget d7; shset d7 x 4294967295; shget d7",), GET, edge=(22,)),
    Case("shared data: cas of a key that is absent", ("rqh: shset d8 one 7; shget d8; shset d8 two 7; shget d8",), GET),
    Case("shared data: over two requests", ("rqh: shget d9; shset d9 v 0",), GET, times=2),
    Case("shared data: two filters of one VM", ("rqh: shset d10 fromA 0", "rqh: shget d10"), GET, vm_id="shared"),
    Case("shared data: VMs of other names do not see it", ("rqh: shset d11 fromA 0", "rqh: shget d11"), GET),
    Case("shared data: from every callback", tuple(f"{one}: shget d12; shset d12 {one} 0; shget d12" for one in ("create", "rsh", "rsb")), GET),
    Case("shared data: at the end of a stream", ("log: shset d13 log 0; shget d13\ndone: shget d13; shset d13 done 0\ndelete: shget d13",), GET),
    Case("shared data: from a tick", (f"rqh: {TICK}; shset d14 stream 0; ret 1\ntick#1: shget d14; shset d14 tick cas; shget d14; eff stream; cont 0{OFF}",), GET),
    Case("queue: unknown id", ("rqh: enq 99999 x; deq 99999; enq 0 x; deq 0",), GET),
    Case("queue: a name nobody has registered", ("rqh: qres ~ q2; qres nowhere q2; deq q",), GET),
    Case("queue: register, empty", ("rqh: qreg q3; deq q; qreg q3; deq q",), GET),
    Case("queue: first in, first out", ("rqh: qreg q4; enq q one; enq q two; enq q three; deq q; deq q; deq q; deq q",), GET),
    Case("queue: an empty item", ("rqh: qreg q5; enq q ~; deq q; deq q",), GET),
    Case("queue: bytes, an empty name", ("rqh: qreg ~; enq q a%00b%ff; deq q; qres ~ ~",), GET),
    Case("queue: resolved by its own VM", ("rqh: qreg q6; qres ~ q6; enq q one; deq q",), GET),
    Case("queue: two names, two queues", ("rqh: qreg q7; enq q one; qreg q7b; deq q; qreg q7; deq q",), GET),
    Case("queue: on_queue_ready for each item", ("rqh: qreg q8; enq q one; enq q two\nqueue: deq q; deq q",), GET, settle=0.3),
    Case("queue: on_queue_ready when nobody takes", ("rqh: qreg q9; enq q one\nrsh: deq q\nqueue: period 0",), GET, settle=0.3),
    Case("queue: on_queue_ready, empty item", ("rqh: qreg q10; enq q ~\nqueue: deq q",), GET, settle=0.3),
    Case("queue: on_queue_ready resumes a stream", ("rqh: qreg q11; enq q one; ret 1\nqueue: deq q; eff stream; get 0 :path; cont 0",), GET, settle=0.1),
    Case("queue: on_queue_ready replies for a stream", ("rqh: qreg q12; enq q one; ret 1\nqueue: deq q; eff stream; reply 403 d no ~ ~",), GET, settle=0.1),
    Case("queue: on_queue_ready enqueues", ("rqh: qreg q13; enq q one\nqueue#1: deq q; enq q two\nqueue#2: deq q; deq q",), GET, settle=0.3),
    Case("queue: two filters of one VM", ("rqh: qreg q14\nqueue: deq q", "rqh: qres ~ q14; enq q fromB"), GET, vm_id="queues", settle=0.3),
    Case("queue: over two requests", ("rqh: qreg q15; deq q; enq q again\nqueue: period 0",), GET, times=2, settle=0.3),
    Case("queue: a root's maps and properties", ("rqh: qreg q16; enq q x\nqueue: deq q; get 0 :path; pairs 2; buf 0 0 9; prop plugin_name; prop request%00path",), GET, settle=0.3),
]  # fmt: skip
