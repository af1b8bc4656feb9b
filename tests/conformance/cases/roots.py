"""Roots and what is around streams: ticks, calls, metrics, logging, configuration, time, properties, shared data, ends, traps."""

from __future__ import annotations

from tests.conformance.case import PROBE, Case
from tests.conformance.cases.requests import GET, POST, THREE, THREE_BACK, TICK, chunks, get, post, slow
from tests.conformance.upstream import Answer, Body, Close, head, sized

CALL = ":method=GET|:path=/call|:authority=x"
ANSWERS = (sized(b"answer", fields=[("x-call", "1")]),)
OPS = "; ".join(
    f"get {m} {key}; get {m} absent; pairs {m}; size {m}; rem {m} absent"
    for m, key in ((0, ":path"), (1, "t"), (2, ":status"), (3, "t"))
)
BUFFERS = "; ".join(f"buf {b} 0 9; bufstat {b}" for b in range(10))
PROPS = "; ".join(
    "prop " + name.replace(".", "%00")
    for name in ["request.path", "request.url_path", "request.host", "request.scheme", "request.method", "request.protocol", "request.query", "request.time", "request.useragent", "request.referer", "request.id", "request.headers.user-agent", "request.headers.absent", "request.size", "response.code", "response.code_details", "response.flags", "response.headers.x-up", "response.grpc_status", "source.port", "destination.port", "connection.id", "connection.mtls", "connection.requested_server_name", "xds.cluster_name", "xds.route_name", "xds.listener_direction", "plugin_name", "plugin_root_id", "plugin_vm_id", "metadata", "filter_state", "unknown", "request.unknown", "request"]
)  # fmt: skip
MORE = "; ".join(
    "prop " + name.replace(".", "%00")
    for name in [".", "request.path.x", "request.headers.USER-AGENT", "request.headers.host", "request.headers.x.y", "request.headers_bytes", "request.total_size", "request.trailers.x", "REQUEST.path", "response.code.x", "response.size.x", "source", "source.unknown", "connection.unknown", "connection.id.x", "upstream.transport_failure_reason", "upstream.locality", "upstream.unknown", "xds", "xds.unknown", "xds.cluster_metadata", "xds.route_metadata", "xds.listener_metadata", "xds.virtual_host_metadata", "xds.upstream_host_metadata", "xds.upstream_host_locality_metadata", "xds.filter_chain_name", "cluster_name", "node", "plugin_name.x", "connection_id.x", "metadata.x", "filter_state.x", "upstream_filter_state", "upstream_filter_state.x", "request..path"]
)  # fmt: skip
GRPC = "prop response%00grpc_status"


def windows() -> list[Case]:
    """Every map, buffer and property in every callback."""
    found = []
    for callback in ("create", "rqh", "rqb#1", "rqb#3", "rsh", "rsb#1", "log", "done", "delete"):
        found.append(
            Case(
                f"window: maps in {callback}",
                (f"{callback}: {OPS}; get 4 a; pairs 4; size 4; get 6 a; pairs 7; get 8 a",),
                THREE,
                (THREE_BACK,),
            )
        )
        found.append(
            Case(
                f"window: edits in {callback}",
                (f"{callback}: add 0 x-w 1; rep 0 x-w 2; add 2 x-w 1; rep 2 x-w 2; add 6 a b; rem 6 a",),
                THREE,
                (THREE_BACK,),
            )
        )
        found.append(
            Case(
                f"window: buffers in {callback}",
                (f"{callback}: {BUFFERS}; setbuf 0 4294967295 0 ~; setbuf 1 4294967295 0 ~; setbuf 4 0 0 x",),
                THREE,
                (THREE_BACK,),
            )
        )
        found.append(
            Case(
                f"window: properties in {callback}",
                (f"{callback}: {PROPS}",),
                post(fields=[("referer", "r")], target="/a?q=1"),
                (sized(b"ok", fields=[("x-up", "1")]),),
                root_id="the-root",
            )
        )
    return found


CASES = [
    *windows(),
    *(Case(f"window: more properties in {callback}", (f"{callback}: {MORE}",), GET, (THREE_BACK,)) for callback in ("configure", "rqh", "rsh", "rsb#1", "log")),
    Case("window: more properties in a tick", (f"rqh: {TICK}; ret 1\ntick#1: {MORE}; eff stream; {MORE}; cont 0; period 0",), GET),
    *(Case(f"response.grpc_status: of a {code}", (f"rsh: {GRPC}; rep 2 :status 401; {GRPC}\nrsb: {GRPC}\nlog: {GRPC}",), GET, (sized(b"x", code),)) for code in (200, 404, 503)),
    *(Case(f"response.grpc_status: the field says {value!r}", (f"rsh: {GRPC}\nrsb: {GRPC}\nlog: {GRPC}",), GET, (sized(b"x", fields=[("grpc-status", value)]),)) for value in ("", "007", "17", "x")),
    Case("request.size: a length that is no number", ("rqh: " + "; ".join(f"rep 0 content-length {value}; prop request%00size" for value in ("x", "-5", "007", "99999999999999999999", "~")) + "; rem 0 content-length; prop request%00size",), POST),
    Case("request.query and url_path", ("rqh: " + "".join(f"rep 0 :path {path}; prop request%00query; prop request%00url_path; " for path in ("/a?", "/a?b?c#d", "/a#x?y", "?")) + "rep 0 :path /",), GET),
    Case("properties of a response that the filter replaced", ("log: prop response%00headers%00x-up", "rsh: reply 403 d body x-up=9 ~\nlog: prop response%00headers%00x-up; get 2 x-up; prop response%00code", "log: prop response%00headers%00x-up"), GET, (sized(b"ok", fields=[("x-up", "1")]),)),
    Case("window: a tick with an effective context, nothing paused", (f"rqh: {TICK}\ntick#1: eff stream; {OPS}; {BUFFERS}; period 0",), GET, (slow(0.2),)),
    Case("window: a tick with an effective context, headers paused", (f"rqh: {TICK}; ret 1\ntick#1: eff stream; {OPS}; {BUFFERS}; cont 0; {OPS}; period 0",), GET),
    Case("window: a tick without an effective context", (f"rqh: {TICK}\ntick#1: {OPS}; {BUFFERS}; prop request%00path; prop plugin_name; period 0",), GET, (slow(0.2),)),
    Case("ticks: re-armed until the period is 0", (f"rqh: {TICK}\ntick#1: say 2 one\ntick#2: say 2 two\ntick#3: say 2 three; period 0",), GET, (slow(0.4),)),
    Case("ticks: two filters of one VM", (f"rqh: {TICK}\ntick: say 2 tick; period 0",) * 2, GET, (slow(0.3),), vm_id="ticks"),
    Case("ticks: effective context unknown", (f"rqh: {TICK}\ntick#1: eff 99; eff 0; eff 1; eff stream; period 0",), GET, (slow(0.2),)),
    Case("ticks: effective context of a stream that is over", (f"rqh: {TICK}\ntick#1: eff stream; get 0 :path; period 0",), GET, settle=0.2),
    Case("effective context: root from a stream", ("rqh: eff 1; get 0 :path; prop request%00path; eff stream; get 0 :path",), GET),
    Case("proxy_done with nothing parked", (f"rqh: proxy_done\nlog: proxy_done\n{''}",), GET, edge=(14,)),
    Case("edge 13: on_done's false for a stream", ("done: ret 0",), GET, edge=(13,)),
    Case("call: answered", (f"rqh: call {{two}} {CALL} ~ 1000; ret 1\ncalled: pairs 6; size 6; get 6 :status; buf 4 0 99; bufstat 4; pairs 7; eff stream; get 0 :path; cont 0",), GET),
    Case("call: with a body and fields", ("rqh: call {two} :method=POST|:path=/c|:authority=x|x-a=1|x-a=2 hello 1000; ret 1\ncalled: get 6 :status; eff stream; cont 0",), GET),
    Case("call: unknown cluster", (f"rqh: call nowhere {CALL} ~ 1000",), GET, edge=(17,)),
    Case("call: without :path", ("rqh: call {two} :method=GET|:authority=x ~ 1000",), GET),
    Case("call: without :method", ("rqh: call {two} :path=/|:authority=x ~ 1000",), GET),
    Case("call: without :authority", ("rqh: call {two} :path=/|:method=GET ~ 1000",), GET),
    Case("call: endpoint refuses", (f"rqh: call {{dead}} {CALL} ~ 1000; ret 1\ncalled: get 6 :status; buf 4 0 9; status; eff stream; cont 0",), GET, edge=(16, 17)),
    Case("edge 36: call that times out", (f"rqh: call {{service}} {CALL} ~ 100; ret 1\ncalled: get 6 :status; buf 4 0 99; status; eff stream; cont 0",), GET, (slow(0.5), sized()), edge=(36,)),
    Case("call: local reply from the callback", (f"rqh: call {{two}} {CALL} ~ 1000; ret 1\ncalled: eff stream; reply 403 d no ~ ~",), GET),
    Case("edge 18: call answered after the stream", (f"rqh: call {{service}} {CALL} ~ 1000\ncalled: get 6 :status; eff stream",), GET, (slow(0.3), sized()), settle=0.5, edge=(18,)),
    Case("call: two in flight, tokens", (f"rqh: call {{two}} {CALL} ~ 1000; call {{two}} {CALL} ~ 1000; ret 1\ncalled#2: eff stream; cont 0",), GET),
    Case("call: held response body", (f"rsb#1: call {{two}} {CALL} ~ 1000; ret 1\ncalled: eff stream; get 6 :status; buf 4 0 99; buf 1 0 99; setbuf 1 0 0 pre; get 2 :status; cont 1; buf 1 0 9; get 6 :status", "rsb: buf 1 0 99"), GET, (THREE_BACK,), settle=0.3),
    Case("call: held trailers", (f"rqt: call {{two}} {CALL} ~ 1000; ret 1\ncalled: eff stream; pairs 1; add 1 late 1; cont 0; pairs 1",), chunks([b"one"], [("x-t", "1")]), trailers=True),
    Case("call: reply to a held response", ("rsh: pairs 2", f"rsh: call {{two}} {CALL} ~ 1000; ret 1\ncalled: eff stream; reply 403 d no ~ ~; get 2 :status", ""), GET),
    Case("call: cut within its answer's body", (f"rqh: call {{service}} {CALL} ~ 1000; ret 1\ncalled: get 6 :status; pairs 6; size 6; pairs 7; buf 4 0 99; bufstat 4; status; eff stream; cont 0",), GET, (Answer([head(200, [("content-length", "20")]) + b"ok", 0.05, Close()]), sized())),
    Case("call: HEAD, answered with a length", ("rqh: call {service} :method=HEAD|:path=/|:authority=x ~ 1000; ret 1\ncalled: get 6 :status; get 6 content-length; buf 4 0 9; bufstat 4; eff stream; cont 0",), GET, (Answer([head(200, [("content-length", "5")])]), sized())),
    Case("call: fields that cannot be sent", ("rqh: call {two} :method=|:path=|:authority= ~ 500; call {two} :method=GET|:path=/|:authority=x|host=y ~ 500; ret 1\ncalled#2: eff stream; cont 0",), GET),
    Case("call: transfer-encoding", ("rqh: call {two} :method=POST|:path=/|:authority=x|transfer-encoding=chunked body 500; ret 1\ncalled: get 6 :status; eff stream; cont 0",), GET),
    Case("call: from a tick", (f"rqh: {TICK}; ret 1\ntick#1: call {{two}} {CALL} ~ 1000; period 0\ncalled: get 6 :status; eff stream; cont 0",), GET),
    Case("metrics: counters, gauges, histograms", ("rqh: metric 0 r.c 2; metric 1 r.g 5; metric 2 r.h 7; metric 0 r.c 3; metric 3 r.x 1",), GET),
    Case("edge 21: a counter incremented by 0", ("rqh: metric 0 r21.c 0; metric 1 r21.g 0",), GET, edge=(21,)),
    Case("metrics: over two requests", ("rqh: metric 0 r2.c 2",), GET, times=2),
    Case("logging: levels", ("rqh: " + "; ".join(f"say {level} text{level}" for level in range(7)) + "; level",), GET),
    Case("logging: bytes", ("rqh: say 2 a%00b%0ac%ff",), GET, waiver="log-bytes"),
    Case("edge 24: configuration buffers", ("configure: buf 7 0 9; bufstat 7; buf 6 0 9; bufstat 6\nrqh: buf 7 0 9; bufstat 7; buf 6 0 9; bufstat 6",), GET, vm_configuration=b"vm-config", edge=(24,)),
    Case("edge 24: empty VM configuration", ("rqh: buf 6 0 9; bufstat 6",), GET, edge=(24,)),
    Case("wasi: every function", ("",), GET, modules={0: PROBE.with_name("wasi.wasm")}),
    Case("time", ("rqh: now\nlog: now",), GET),
    Case("status without a call", ("rqh: status",), GET),
    Case("edge 25: a property whose path has two segments", ("rqh: setprop a%00b v; prop a%00b; prop a; setprop a w; prop a; prop filter_state%00wasm.a",), GET, edge=(25,)),
    Case("edge 32: a trailing NUL in a path", ("rqh: prop request%00path%00; prop plugin_name%00",), GET, edge=(32,)),
    Case("edge 45: the empty property", ("rqh: prop ~; setprop ~ v; prop ~",), GET, edge=(45,)),
    Case("edge 8: plugin_root_id in create", ("create: prop plugin_root_id; prop plugin_name; prop plugin_vm_id",), GET, root_id="r", edge=(8,)),
    Case("edge 26: TLS attributes on a plain connection", ("rqh: prop connection%00tls_version; prop connection%00subject_peer_certificate; prop connection%00mtls",), GET, edge=(26,)),
    Case("properties set by one filter, read by another", ("rqh: setprop mine A; setprop request%00path x; prop request%00path; setprop wasm.z q; prop z; prop wasm.z\nlog: prop mine", "rqh: prop mine; setprop mine B\nrsh: prop mine"), GET),
    Case("response.code: as it came, then as it was sent", ("rsh: rep 2 :status 201; prop response%00code\nrsb: prop response%00code\nlog: prop response%00code; rep 2 :status 500", "rsh: rep 2 :status 202; prop response%00code\nrsb: prop response%00code\nlog: prop response%00code"), GET),
    Case("response.code: of a local reply", ("rsh: prop response%00code; rep 2 :status 201\nrsb: prop response%00code\nlog: prop response%00code", "rqh: reply 403 d body ~ ~; prop response%00code\nrsh: prop response%00code; rep 2 :status 202; prop response%00code"), GET),
    Case("response.code: while the head is held", ("rsh: period 200; ret 1\ntick#1: eff stream; prop response%00code; cont 1; period 0\nrsb: prop response%00code", "rsh: rep 2 :status 202\nrsb: prop response%00code"), GET, (THREE_BACK,)),
    Case("response.code: replaced by a reply", ("rsh: rep 2 :status 201\nlog: prop response%00code", "rsh: reply 403 d body ~ ~; prop response%00code\nlog: prop response%00code"), GET),
    Case("properties: sizes at the end", ("log: prop request%00size; prop response%00size; prop request%00headers",), POST),
    Case("foreign: unknown", ("rqh: foreign nothing x",), GET),
    Case("foreign: clear_route_cache", ("rqh: foreign clear_route_cache ~",), GET),
    Case("foreign: compress and uncompress", ("rqh: foreign uncompress x%9c%4b%04%00%00b%00b; foreign uncompress nonsense",), GET),
    Case("ids: two filters in one VM", ("", ""), GET, vm_id="same", times=2),
    Case("ids: three requests", ("",), GET, times=3),
    Case("end: client leaves while waiting", ("log: get 2 :status; prop response%00flags; prop response%00code_details; prop response%00code; prop request%00path",), GET, (slow(0.6),), leave=0.2, settle=0.2),
    Case("end: client leaves within its body", ("rsh: pairs 2",), (post(b"1234567890")[0], b"12345"), leave=0.3, settle=0.2),
    Case("end: client leaves within the response", ("log: get 2 :status",), GET, (Answer([head(200, [("content-length", "20")]) + b"ok", 0.5, b"x" * 18]),), leave=0.2, settle=0.3),
    Case("end: upstream closes without an answer", ("rsh: pairs 2\nlog: prop response%00flags", ""), GET, (Answer([Close()]),)),
    Case("end: upstream resets", ("rsh: pairs 2\nlog: prop response%00flags", ""), POST, (Answer([Body(), Close(abort=True)]),)),
    Case("end: upstream sends nonsense", ("rsh: pairs 2\nlog: prop response%00flags", ""), GET, (Answer([b"garbage\r\n\r\n", Close()]),)),
    Case("end: upstream cuts its body", ("log: prop response%00flags; prop response%00code_details",), GET, (Answer([head(200, [("content-length", "20")]) + b"ok", 0.1, Close()]),)),
    Case("end: upstream cuts its chunks", ("log: prop response%00flags; prop response%00code_details",), GET, (Answer([head(200, [("transfer-encoding", "chunked")]) + b"2\r\nok\r\n", 0.1, Close()]),)),
    Case("end: upstream refuses", ("rsh: pairs 2\nrsb: buf 1 0 999\nlog: prop response%00flags",), GET, routes=(("/", "dead"),)),
    Case("end: route timeout", ("rsh: pairs 2\nrsb: buf 1 0 99\nlog: prop response%00flags",), GET, (slow(1.5),), timeout=0.3),
    Case("end: three filters in order", ("log: get 0 :path",) * 3, POST),
    *(
        Case(f"trap: {callback}", ("log: get 2 :status; prop response%00code_details", f"{callback}: trap", "log: get 2 :status"), THREE, (THREE_BACK,))
        for callback in ("create", "rqh", "rqb", "rsh", "rsb", "log", "done", "delete")
    ),
    Case("trap: gRPC request", ("rsh: pairs 2", "rqh: trap"), post(b"x", [("content-type", "application/grpc")])),
    Case("trap: HEAD", ("", "rqh: trap"), get(method="HEAD")),
    Case("trap: after a local reply", ("", "rqh: reply 403 d body ~ ~; trap"), GET),
    Case("trap: a VM of three filters", ("", "rqh: trap", ""), GET, vm_id="shared"),
    Case("trap: in a tick, while the upstream is slow", ("", f"rqh: {TICK}\ntick#1: trap", ""), GET, (slow(0.3),)),
    Case("trap: fails open", ("", "rqh: trap", ""), GET, fail_policy="open", waiver="fail-open"),
    Case("order: three filters, sized", ("rqb: bufstat 0", "rqb: bufstat 0", "rqb: bufstat 0"), POST, (sized(b"hello"),)),
    Case("order: three filters edit each other's fields", ("rqh: add 0 x-o A\nrsh: add 2 x-o A; pairs 2", "rqh: add 0 x-o B; pairs 0\nrsh: add 2 x-o B", "rqh: add 0 x-o C; pairs 0\nrsh: add 2 x-o C"), GET),
]  # fmt: skip
