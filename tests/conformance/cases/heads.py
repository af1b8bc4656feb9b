"""Heads: what filters see of them, and what becomes of their edits."""

from __future__ import annotations

from typing import Any

from tests.conformance.case import Case
from tests.conformance.cases.requests import FIELDS, GET, POST, chunks, get, post
from tests.conformance.client import request
from tests.conformance.upstream import Answer, Body, chunked, head, sized

SHOW = "rqh: pairs 0; size 0; get 0 host; get 0 :authority; get 0 content-length\nrsh: pairs 2; size 2\nlog: pairs 0; get 2 :status; get 2 absent"


def seen(name: str, pieces: tuple[bytes, ...], answer: Answer | None = None, **options: Any) -> Case:
    return Case(f"heads: {name}", (SHOW,), pieces, (answer or sized(),), **options)


def line(target: str, *fields: str, method: str = "GET", body: bytes = b"") -> tuple[bytes, ...]:
    """A request whose field lines are given as they are."""
    return ("\r\n".join([f"{method} {target} HTTP/1.1", *fields, "x-forwarded-proto: http", "", ""]).encode("latin-1") + body,)


SEEN = [
    seen("GET", line("/a?b=1", "Host: test", "User-Agent: ua", "X-Dup: 1", "accept: */*", "x-dup: 2", "connection: keep-alive", "x-empty:")),
    seen("host comes last", line("/a", "user-agent: ua", "host: test")),
    seen("sized POST", POST),
    seen("chunked POST", chunks([b"one"])),
    seen("POST, length 0", get(fields=[("content-length", "0")], method="POST")),
    seen("HEAD", get(method="HEAD"), Answer([Body(), head(200, [("content-length", "5")])])),
    seen("OPTIONS", get(method="OPTIONS")),
    seen("PUT without a body", get(method="PUT")),
    seen("DELETE", get(method="DELETE")),
    seen("absolute-form", line("http://abs.example:81/x", "Host: other", "user-agent: ua")),
    seen("hop-by-hop fields", line("/a", "host: test", "connection: x-hop", "x-hop: 1", "keep-alive: 3", "proxy-connection: x")),
    seen("te: trailers", line("/a", "host: test", "te: trailers"), waiver="te"),
    seen("duplicates of fields that are lists", line("/a", "host: test", "accept: a", "accept: b", "cookie: a=1", "cookie: b=2", "x-forwarded-for: 1.1.1.1", "x-forwarded-for: 2.2.2.2")),
    seen("a second user-agent", line("/a", "host: test", "user-agent: a", "user-agent: b")),
    seen("bytes above 0x7f", line("/a", "host: test", "x-latin: caf\xe9")),
    seen("path of many forms", line("/a/../b//c;x=1?q=%20&a=b", "host: test")),
    seen("own x-request-id", line("/a", "host: test", "x-request-id: mine")),
    seen("sized response", GET, sized(b"ok", fields=[("x-up", "1"), ("X-Up", "2"), ("set-cookie", "a=1"), ("set-cookie", "b=2")])),
    seen("response with date and server", GET, sized(b"ok", fields=[("date", "Mon, 01 Jan 2024 00:00:00 GMT"), ("server", "up"), ("x-a", "1")])),
    seen("chunked response", GET, chunked([b"one", b"two"], delay=0.03)),
    seen("chunked response with connection fields", GET, chunked([b"one"], fields=[("connection", "keep-alive"), ("keep-alive", "timeout=3")])),
    seen("204", GET, Answer([head(204)])),
    seen("304 that says it is chunked", GET, Answer([head(304, [("transfer-encoding", "chunked")])])),
    seen("304 with a length", GET, Answer([head(304, [("content-length", "5"), ("etag", "e")])])),
    seen("close-delimited response", GET, Answer([head(200, [("connection", "close")]) + b"one", 0.03, b"two", ])),
    seen("103 before 200", GET, Answer([head(103, [("link", "x")]), 0.03, head(200, [("content-length", "2")]) + b"ok"])),
    seen("empty sized response", GET, sized(b"")),
    seen("404", GET, sized(b"no", 404)),
    seen("500 without a body", GET, sized(b"", 500)),
    seen("two requests on a connection", GET, times=2, keep_alive=True),
    seen("HTTP/1.0 upstream", GET, Answer([b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"])),
]  # fmt: skip

ADDED = [
    "user-agent",
    "accept",
    "x-dup",
    "x-empty",
    "content-type",
    "x-forwarded-for",
    "x-request-id",
    "cookie",
    "x-new",
    ":path",
    "accept-encoding",
    "authorization",
    "referer",
    "via",
    "cache-control",
    "pragma",
    "x-forwarded-host",
    "set-cookie",
]
EDITS: dict[str, str] = {
    "add to what is there": "; ".join(f"add 0 {name} more" for name in ADDED[:14] if name != ":path") + "; pairs 0",
    "add twice to what is not": "; ".join(
        f"add 0 {name} 1; add 0 {name} 2" for name in ADDED[3:] if not name.startswith((":", "host"))
    )
    + "; pairs 0",
    "replace": "rep 0 x-dup 9; rep 0 user-agent new; rep 0 x-absent v; rep 0 X-UPPER v; pairs 0; get 0 x-uPPer",
    "replace pseudo-headers": "rep 0 host new2; rep 0 :path /b; pairs 0; get 0 host; get 0 :authority",
    "remove": "rem 0 x-dup; rem 0 absent; rem 0 USER-AGENT; pairs 0; size 0",
    "empty values": "add 0 x-empty ~; get 0 x-empty; rep 0 x-dup ~; pairs 0",
    "get": "get 0 x-dup; get 0 X-DUP; get 0 absent; get 0 ~; get 0 :method; get 0 :scheme; get 0 Host",
    "set all": "setpairs 0 :method=GET|:path=/s|:authority=h|:scheme=http|x-forwarded-proto=http|x-b=1|x-a=2|x-b=3; pairs 0; size 0",
    "set all, mixed case": "setpairs 0 :method=GET|:path=/s|:authority=h|:scheme=http|x-forwarded-proto=http|X-Upper=1; pairs 0; get 0 X-uPPER",
    "set all, fields that hold one value twice": "setpairs 0 :method=GET|:path=/s|:authority=h|:scheme=http|x-forwarded-proto=http|"
    ":path=/t|accept=a|Accept=b|cookie=a|cookie=b|user-agent=|user-agent=u; pairs 0; size 0; get 0 :path; get 0 accept",
    "set all with a host beside :authority": "setpairs 0 :method=GET|:path=/s|:authority=h|:scheme=http|x-forwarded-proto=http|host=g; pairs 0; get 0 host",
    "set all with host": "setpairs 0 :method=GET|:path=/s|host=h|:scheme=http|x-forwarded-proto=http; pairs 0",
    "malformed set": "setpairs 0 ~; pairs 0; get 0 :path; setpairs 0 :method=GET|:path=/s|:authority=h|:scheme=http|x-forwarded-proto=http",
    "new path": "rep 0 :path /new?x=1",
    "remove :path": "rem 0 :path",
    "path without slash": "rep 0 :path xy",
    "path with a space": "rep 0 :path /x%20y",
    "remove :method": "rem 0 :method",
    "remove :authority": "rem 0 :authority",
    "remove :scheme": "rem 0 :scheme",
    "scheme https": "rep 0 :scheme https",
    "remove x-forwarded-proto": "rem 0 x-forwarded-proto",
    "value with CRLF": "add 0 x-bad a%0d%0ab:c",
    "value with LF": "add 0 x-bad a%0ab",
    "value with NUL": "add 0 x-bad a%00b",
    "value with 0x01": "add 0 x-bad a%01b",
    "value with 0x7f": "add 0 x-bad a%7fb",
    "value with a tab": "add 0 x-tab a%09b",
    "value in UTF-8": "add 0 x-utf %c3%a9",
    "name with a space": "add 0 x%20y v",
    "name with a bracket": "add 0 x(y v",
    "empty name": "add 0 ~ v; rep 0 ~ v; get 0 ~; pairs 0",
    "unknown pseudo-header": "add 0 :foo v; pairs 0",
    "method PUT": "rep 0 :method PUT",
    "method PATCH": "rep 0 :method PATCH",
    "method HEAD": "rep 0 :method HEAD",
    "method in lower case": "rep 0 :method pUt",
    "method with a space": "rep 0 :method a%20b",
    "method CONNECT": "rep 0 :method CONNECT",
    "authority with port": "rep 0 :authority new:99",
    "authority with a space": "rep 0 :authority a%20b",
    "add connection": "add 0 connection close",
    "add upgrade": "add 0 upgrade websocket",
    "add transfer-encoding": "add 0 transfer-encoding chunked",
    "add content-length to GET": "add 0 content-length 5",
    "set empty": "setpairs 0 ~",
    "set without scheme": "setpairs 0 :method=GET|:path=/s|:authority=h",
    "response map in a request": "get 2 :status; pairs 2; size 2; add 2 a b; rep 2 a b; rem 2 a; setpairs 2 a=b",
    "map out of range": "get 8 a; pairs 8; size 8; add 8 a b; rep 8 a b; rem 8 a; setpairs 8 a=b; get 4294967295 a",
}

RESPONSE_EDITS: dict[str, str] = {
    "add to what is there": "; ".join(
        f"add 2 {n} more"
        for n in ["x-up", "set-cookie", "server", "date", "content-type", "etag", "vary", "cache-control", "location"]
    )
    + "; pairs 2",
    "add twice": "; ".join(
        f"add 2 {n} 1; add 2 {n} 2"
        for n in ["x-new", "set-cookie", "location", "allow", "vary", "etag", "link", "age", "via", "www-authenticate"]
    )
    + "; pairs 2",
    "replace": "rep 2 x-up 9; rep 2 x-absent v; rep 2 X-UPPER v; pairs 2",
    "remove": "rem 2 x-up; rem 2 absent; pairs 2; size 2",
    "remove :status": "rem 2 :status; get 2 :status",
    "status abc": "rep 2 :status abc",
    "status 200x": "rep 2 :status 200x",
    "status empty": "rep 2 :status ~",
    "status with a space": "rep 2 :status %20200",
    "status 99": "rep 2 :status 99",
    "status 0": "rep 2 :status 0",
    "status 100": "rep 2 :status 100",
    "status 101": "rep 2 :status 101",
    "status 201": "rep 2 :status 201",
    "status 204": "rep 2 :status 204",
    "status 304": "rep 2 :status 304",
    "status 404": "rep 2 :status 404",
    "status 418": "rep 2 :status 418",
    "status 598": "rep 2 :status 598",
    "status 600": "rep 2 :status 600",
    "status 999": "rep 2 :status 999",
    "status 1000": "rep 2 :status 1000",
    "add to :status": "add 2 :status 201; get 2 :status",
    "set empty": "setpairs 2 ~",
    "set without status": "setpairs 2 a=b",
    "set all": "setpairs 2 :status=201|a=1|a=2|content-length=2; pairs 2",
    "set all, fields that hold one value twice": "setpairs 2 :status=201|etag=a|ETag=b|set-cookie=a|set-cookie=b|content-length=2; pairs 2; size 2; get 2 etag",
    "malformed set": "setpairs 2 ~; pairs 2; setpairs 2 :status=200|content-length=2",
    "value with CRLF": "rep 2 x-a 1%0d%0ax-b:2",
    "value with NUL": "rep 2 x-a 1%002",
    "name with a space": "rep 2 x%20y 1",
    "empty name": "add 2 ~ v",
    "add :path": "add 2 :path /x",
    "add :foo": "add 2 :foo /x",
    "remove content-length": "rem 2 content-length",
    "content-length too large": "rep 2 content-length 9",
    "content-length too small": "rep 2 content-length 1",
    "content-length is not a number": "rep 2 content-length x",
    "add transfer-encoding": "add 2 transfer-encoding chunked",
    "add connection": "add 2 connection close",
    "add keep-alive": "add 2 keep-alive timeout=1",
    "host is no authority here": "get 2 host; get 2 :authority; add 2 host x; get 2 host; pairs 2",
    "upper case": "add 2 X-Upper 1; get 2 x-upper",
    "request map in a response": "get 0 :path; pairs 0; size 0; add 0 a b; rep 0 a b; rem 0 a; setpairs 0 a=b",
    "server and date": "rep 2 server mine; rep 2 date yesterday",
    "remove server and date": "rem 2 server; rem 2 date",
}

BEFORE = line(
    "/a?b=1",
    "host: test",
    "user-agent: ua",
    "x-dup: 1",
    "accept: a",
    "x-dup: 2",
    "content-type: t",
    "x-forwarded-for: 1.1.1.1",
    "x-request-id: id",
    "cookie: a=1",
)
UP = sized(
    b"ok",
    fields=[
        ("x-up", "1"),
        ("x-up", "2"),
        ("set-cookie", "a=1"),
        ("content-type", "t"),
        ("server", "up"),
        ("etag", "e"),
        ("vary", "v"),
        ("cache-control", "c"),
        ("location", "l"),
    ],
)

CASES = [
    *SEEN,
    *(Case(f"request edit: {name}", (f"rqh: {script}\nlog: pairs 0; prop response%00code_details", "rqh: pairs 0"), BEFORE) for name, script in EDITS.items()),
    *(Case(f"response edit: {name}", ("rsh: pairs 2", f"rsh: {script}\nlog: get 2 :status"), GET, (UP,)) for name, script in RESPONSE_EDITS.items()),
    Case("request edit: content-length of a POST replaced by a larger one", ("rqh: rep 0 content-length 9",), POST, waiver="framing"),
    Case("request edit: content-length of a POST removed", ("rqh: rem 0 content-length",), POST),
    Case("request edit: GET with a body's fields", ("rqh: rep 0 content-type x; pairs 0",), GET),
    Case("request edit: many fields", ("rqh: " + "; ".join(f"add 0 x-{n} {n}" for n in range(60)),), GET),
    Case("request edit: large value", (f"rqh: add 0 x-large {'v' * 3000}; size 0",), GET),
    Case("edge 9: a malformed pair map empties the map", ("rsh: setpairs 2 ~; size 2; setpairs 2 :status=200|content-length=2",), GET, edge=(9,)),
    Case("edge 6: a field that is there but empty", ("rqh: get 0 x-empty; get 0 x-none",), get(fields=[("x-empty", "")]), edge=(6,)),
    Case("edge 7: empty pairs", ("rqh: setpairs 0 ~; pairs 0; setpairs 0 :method=GET|:path=/s|:authority=h|:scheme=http|x-forwarded-proto=http", ), GET, edge=(7,)),
    Case("edge 10: the request's fields in the response phase", ("rsh: get 0 :path; pairs 0; size 0",), GET, edge=(10,)),
    Case("edge 22: size is the bytes of keys and values", ("rqh: size 0; add 0 abc de; size 0\nrsh: size 2",), GET, edge=(22,)),
    Case("edge 35: values that are no UTF-8", ("rqh: add 0 x-bytes %ff%fe; get 0 x-bytes\nrsh: add 2 x-bytes %ff; get 2 x-bytes",), GET, edge=(35,)),
    Case("edge 40: headers that end the stream have no body callback", ("rqb: bufstat 0\nrsb: bufstat 1",), get(method="HEAD"), (Answer([head(200, [("content-length", "4")])]),), edge=(40,)),
    Case("routes: path edited to another cluster", ("rqh: rep 0 :path /two", ""), get("/one"), routes=(("/two", "two"), ("/one", "service"))),
    Case("routes: path edited, remove and add", ("rqh: rem 0 :path; add 0 :path /two", ""), get("/one"), routes=(("/two", "two"), ("/one", "service"))),
    Case("routes: no edit", ("", ""), get("/one"), routes=(("/two", "two"), ("/one", "service"))),
    Case("routes: from an unknown path to a known one", ("rqh: rep 0 :path /two", ""), get("/three"), routes=(("/two", "two"), ("/one", "service"))),
    Case("routes: no route", ("rqh: pairs 0\nrsh: pairs 2\nlog: prop response%00flags", ""), get("/three"), routes=(("/two", "two"),)),
    Case("routes: no route, POST", ("rsh: pairs 2", ""), post(target="/three"), routes=(("/two", "two"),)),
    Case("routes: to no route", ("rqh: rep 0 :path /none", ""), get("/one"), routes=(("/one", "service"),)),
    Case("routes: edit in the response phase is too late", ("rsh: rep 0 :path /two",), get("/one"), routes=(("/two", "two"), ("/one", "service"))),
    Case("heads: the response in on_log", ("log: pairs 2",), GET, waiver="date-in-log"),
    Case("expect: 100-continue", ("rqh: pairs 0",), post(fields=[("expect", "100-continue")])),
    Case("fragment in the path", ("rqh: pairs 0",), (request("GET", "/a#b", FIELDS),)),
    Case("upgrade is not offered", ("rqh: pairs 0",), get(fields=[("connection", "upgrade"), ("upgrade", "h2c")])),
]  # fmt: skip
