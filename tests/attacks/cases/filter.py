"""What filters write, as data: a script of the probe (tests/conformance/probe), and what leaves the gateway then.

One edit each, of a request or response that is otherwise in order. `PIECES`, `SIZED` and `PLAIN` are the requests that the filter
meets, with a target that tells the origin how to answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from tests.attacks.client import Sent


@dataclass(frozen=True)
class Case:
    """One attack. The edit is ignored, or done soundly, or refused with an error, or the stream is cut."""

    name: str
    clause: str
    script: str
    """For the probe's `from` line: `!` is a line's end, `%XX` a byte."""
    answers: tuple[int, ...]
    """The final status; empty: the client's connection is cut before the response is whole."""
    reached: tuple[str, ...]
    sent: str = "PLAIN"
    target: bytes = b"/"
    has: tuple[bytes, ...] = ()
    """Lines of the head that the origin (for edits of requests) or the client gets."""
    lacks: tuple[bytes, ...] = ()
    body: bytes | None = None
    """That the origin (for edits of requests) or the client gets."""
    callee: tuple[str, ...] = ()
    """What reaches the origin of the filter's own calls."""


def request(kind: str, path: bytes, script: str) -> tuple[Sent, bytes]:
    """What the client sends, and its method."""
    head = b" %b HTTP/1.1\r\nHost: a\r\nx-script: %b\r\n" % (path, script.encode())
    if kind == "HEAD":
        return b"HEAD" + head + b"\r\n", b"HEAD"
    if kind == "SIZED":
        return b"POST" + head + b"Content-Length: 5\r\n\r\nhello", b"POST"
    if kind == "PIECES":
        chunked = b"Transfer-Encoding: chunked\r\n\r\n"
        return [b"POST" + head + chunked + b"3\r\nhel\r\n", 0.01, b"2\r\nlo\r\n0\r\n\r\n"], b"POST"
    return b"GET" + head + b"\r\n", b"GET"


def encoded(text: bytes) -> str:
    """A word of a script."""
    return "".join(f"%{byte:02x}" for byte in text) or "~"


# fmt: off
SPOILED = {"CR": b"a\rb", "LF": b"a\nb", "CRLF": b"a\r\nX-Evil: b", "NUL": b"a\0b", "obs-fold": b"a\r\n b", "DEL": b"a\x7f", "control": b"\x01"}
BROKEN_NAMES = {
    "space": b"x y", "colon": b"x:y", "CRLF": b"x\r\ny", "NUL": b"x\0", "LF": b"\nx", "a byte above ASCII": b"x\xff",
    "parenthesis": b"x(", "trailing space": b"content-length ", "trailing tab": b"transfer-encoding\t",
}
POST, GET = ("POST /",), ("GET /",)


def refused(name: str, clause: str, edit: str, **more: object) -> Case:
    """Of a request: nothing reaches the origin, the client gets 503."""
    return Case(name, clause, f"rqh: {edit}", (503,), (), **more)  # type: ignore[arg-type]


def dropped(name: str, clause: str, edit: str, lacks: bytes, **more: object) -> Case:
    """Of a request: it goes on without that."""
    return Case(name, clause, f"rqh: {edit}", (200,), GET, lacks=(lacks,), **more)  # type: ignore[arg-type]


REQUEST_TARGETS = [
    *(
        refused(f":path with {name}", "RFC 9112 3.2", f"rep 0 :path {encoded(b'/' + value)}")
        for name, value in {**SPOILED, "space": b"a b", "tab": b"a\tb", "fragment": b"a#b", "a request behind": b" HTTP/1.1\r\n\r\nGET /x"}.items()
    ),
    refused(":path without a slash", "RFC 9112 3.2", "rep 0 :path x"),
    refused(":path in absolute-form", "RFC 9112 3.2.2", "rep 0 :path http://b/"),
    refused(":path empty", "RFC 9112 3.2", "rep 0 :path ~"),
    refused(":path *", "RFC 9112 3.2.4", "rep 0 :path *"),
    refused(":path gone", "RFC 9112 3.2", "rem 0 :path"),
    refused(":path added to", "RFC 9112 3.2", "add 0 :path http://b/%20HTTP"),
    Case(":path for another", "RFC 9112 3.2", "rqh: rep 0 :path /other", (200,), ("GET /other",)),
    *(
        refused(f":method with {name}", "RFC 9112 3.1", f"rep 0 :method {encoded(value)}")
        for name, value in {**SPOILED, "space": b"A B", "a whole line": b"GET /x HTTP/1.1\r\n\r\nGET", "colon": b"G:"}.items()
    ),
    refused(":method empty", "RFC 9112 3.1", "rep 0 :method ~"),
    refused(":method gone", "RFC 9112 3.1", "rem 0 :method"),
    refused(":method CONNECT", "RFC 9110 9.3.6", "rep 0 :method CONNECT"),
    Case(":method HEAD on a GET", "RFC 9110 9.3.2", "rqh: rep 0 :method HEAD", (200,), ("HEAD /",)),
    Case(":method GET on a HEAD", "RFC 9110 9.3.2", "rqh: rep 0 :method GET", (200,), GET, "HEAD"),
    Case(":method POST on a GET", "RFC 9110 8.6", "rqh: rep 0 :method POST", (200,), POST, has=(b"content-length: 0",)),
    Case(":method GET with a body", "RFC 9110 9.3.1", "rqh: rep 0 :method GET", (200,), GET, "SIZED", has=(b"content-length: 5",), body=b"hello"),
    Case(":method HEAD with a body", "RFC 9110 9.3.2", "rqh: rep 0 :method HEAD", (200,), ("HEAD /",), "SIZED", body=b"hello"),
    *(
        refused(f":authority with {name}", "RFC 9112 3.2", f"rep 0 :authority {encoded(value)}")
        for name, value in {**SPOILED, "space": b"a b", "comma": b"a,b", "userinfo": b"u@a", "path": b"a/b", "two ports": b"a:1:2"}.items()
    ),
    refused(":authority empty", "RFC 9112 3.2", "rep 0 :authority ~"),
    refused("host gone", "RFC 9112 3.2", "rem 0 host"),
    refused("host added to", "RFC 9112 3.2", "add 0 host b"),
    Case("host for another", "RFC 9112 3.2", "rqh: rep 0 HOST b:1", (200,), GET, has=(b"\r\nhost: b:1\r\n",)),
    refused("pairs with host and :authority", "RFC 9112 3.2", "setpairs 0 :method=GET|:path=/|:authority=a|host=b"),
    Case("pairs with two :path", "RFC 9112 3", "rqh: setpairs 0 :method=GET|:path=/|:authority=a|:path=/b", (200,), ("GET /,/b",)),
    refused("pairs without any", "RFC 9112 3", "setpairs 0 x=y"),
    dropped("an unknown pseudo-header", "RFC 9113 8.3", "add 0 :evil y", b"evil"),
    dropped(":protocol", "RFC 8441 4", "add 0 :protocol websocket", b"protocol"),
]

REQUEST_FIELDS = [
    *(refused(f"a value with {name}", "RFC 9110 5.5", f"add 0 x {encoded(value)}") for name, value in SPOILED.items()),
    *(refused(f"a name with {name}", "RFC 9110 5.1", f"add 0 {encoded(value)} v") for name, value in BROKEN_NAMES.items()),
    *(
        dropped(f"{name}: {value.decode()}", "RFC 9110 7.6.1", f"add 0 {name} {encoded(value)}", b"\r\n" + name.lower().encode() + b":")
        for name, value in (
            ("connection", b"close"), ("connection", b"content-length"), ("connection", b"upgrade"), ("Connection", b"host"),
            ("keep-alive", b"timeout=1"), ("proxy-connection", b"keep-alive"), ("te", b"trailers"), ("te", b"gzip"), ("trailer", b"x"),
            ("upgrade", b"websocket"), ("upgrade", b"h2c"), ("expect", b"100-continue"), ("expect", b"x"),
            ("transfer-encoding", b"chunked"), ("TRANSFER-ENCODING", b"gzip, chunked"), ("transfer-encoding", b"identity"),
        )
    ),
    dropped("upgrade and connection", "RFC 9110 7.8", "add 0 upgrade websocket; add 0 connection upgrade", b"upgrade"),
    Case("a value of 60 kB", "RFC 6585 5", "rqh: add 0 x " + "y" * 60_000, (200,), GET, lacks=()),
    Case("a hundred values", "RFC 9110 5.3", "rqh: " + "; ".join(["add 0 x y"] * 100), (200,), GET),
    Case("an empty value", "RFC 9110 5.5", "rqh: add 0 x ~", (200,), GET, has=(b"\r\nx: \r\n",)),
    Case("spaces around a value", "RFC 9110 5.5", f"rqh: add 0 x {encoded(b'  y  ')}", (200,), GET),
    Case("pairs in capitals", "RFC 9110 5.1",
         "rqh: setpairs 0 :method=POST|:path=/|:authority=a|Transfer-Encoding=chunked|Content-Length=7|CONNECTION=close", (200,), POST,
         has=(b"content-length: 0\r\n",), lacks=(b"transfer-encoding", b"\r\nconnection")),
]

REQUEST_LENGTHS = [
    *(
        refused(f"length {name}", "RFC 9110 8.6", f"rep 0 content-length {encoded(value)}", sent="SIZED")
        for name, value in {
            "empty": b"", "+5": b"+5", "0x5": b"0x5", "-1": b"-1", "5, 5": b"5, 5", "5, 6": b"5,6", "five": b"five",
            "of 19 digits": b"1" * 19, "with CRLF": b"5\r\nTransfer-Encoding: chunked", "with NUL": b"5\0", "with a space": b"5 ",
        }.items()
    ),
    refused("a second length", "RFC 9112 6.3", "add 0 content-length 6", sent="SIZED"),
    Case("a length without a body", "RFC 9110 8.6", "rqh: add 0 content-length 9", (200,), GET, has=(b"content-length: 0",)),
    Case("a length that is too long", "RFC 9112 6.3", "rqh: rep 0 content-length 9", (500,), (), "SIZED"),
    Case("a length that is too short", "RFC 9112 6.3", "rqh: rep 0 content-length 3", (500,), (), "SIZED"),
    Case("a length for chunks, too short", "RFC 9112 6.3", "rqh: add 0 content-length 4", (500,), (), "PIECES"),
    Case("a length for chunks, too long", "RFC 9112 6.3", "rqh: add 0 content-length 6", (500,), (), "PIECES"),
    Case("a length for chunks that ends with the first", "RFC 9112 6.3", "rqh: add 0 content-length 3", (500,), (), "PIECES"),
    Case("a length for chunks, right", "RFC 9112 6.3", "rqh: add 0 content-length 5", (200,), POST, "PIECES", body=b"hello"),
    Case("a length taken away", "RFC 9112 6.1", "rqh: rem 0 content-length", (200,), POST, "SIZED", has=(b"transfer-encoding: chunked",),
         body=b"hello"),
    Case("chunked beside a length", "RFC 9112 6.3", "rqh: add 0 transfer-encoding chunked", (200,), POST, "SIZED",
         has=(b"content-length: 5",), lacks=(b"transfer-encoding",), body=b"hello"),
    Case("a body replaced by a longer one", "RFC 9112 6.3", "rqb: setbuf 0 0 100 longer-than-that", (500,), (), "SIZED"),
    Case("a body replaced by a shorter one", "RFC 9112 6.3", "rqb#1: setbuf 0 0 100 x", (500,), (), "SIZED"),
    Case("a body replaced by nothing", "RFC 9112 6.3", "rqb: setbuf 0 0 100 ~", (500,), (), "SIZED"),
    Case("a body that grows at its end", "RFC 9112 6.3", "rqb#2: setbuf 0 0 0 tail", (500,), (), "SIZED"),
    Case("chunks that hold chunks", "RFC 9112 7.1", f"rqb#1: setbuf 0 0 100 {encoded(b'0' + bytes([13, 10, 13, 10]) + b'GET /x')}", (200,),
         POST, "PIECES"),
    Case("a chunked body replaced by nothing", "RFC 9112 7.1", "rqb: setbuf 0 0 100 ~", (200,), POST, "PIECES", body=b""),
    Case("a chunked body replaced, its length said before", "RFC 9112 6.3",
         "rqh: add 0 content-length 2!rqb#1: setbuf 0 0 100 a!rqb#2: setbuf 0 0 100 b!rqb#3: setbuf 0 0 100 c", (500,), (), "PIECES"),
]


def spoilt(name: str, clause: str, edit: str, **more: object) -> Case:
    """Of a response: the client gets 500 instead."""
    return Case(name, clause, f"rsh: {edit}", (500,), GET, **more)  # type: ignore[arg-type]


def passed(name: str, clause: str, edit: str, **more: object) -> Case:
    """Of a response: it goes on, soundly."""
    return Case(name, clause, f"rsh: {edit}", (200,), GET, **more)  # type: ignore[arg-type]


BODY = b"GET /\n"
RESPONSE_HEADS = [
    *(
        spoilt(f":status {name}", "RFC 9110 15", f"rep 2 :status {encoded(value)}")
        for name, value in {
            "empty": b"", "abc": b"abc", "20": b"20", "2000": b"2000", "with CRLF": b"200\r\nX: y", "99": b"099", "0": b"0",
            "with a space": b"200 ", "negative": b"-20", "with text": b"200 OK", "100": b"100", "101": b"101", "103": b"103",
        }.items()
    ),
    *(Case(f":status {status}", "RFC 9110 15", f"rsh: rep 2 :status {status}", (status,), GET, body=BODY) for status in (599, 600, 999)),
    spoilt(":status gone", "RFC 9110 15", "rem 2 :status"),
    spoilt(":status twice", "RFC 9110 15", "add 2 :status 204"),
    *(spoilt(f"a value with {name}", "RFC 9110 5.5", f"add 2 x {encoded(value)}") for name, value in SPOILED.items()),
    *(spoilt(f"a name with {name}", "RFC 9110 5.1", f"add 2 {encoded(value)} v") for name, value in BROKEN_NAMES.items()),
    *(
        passed(f"{name}: {value.decode()}", "RFC 9110 7.6.1", f"add 2 {name} {encoded(value)}", lacks=(b"\r\n" + name.lower().encode() + b":",))
        for name, value in (
            ("connection", b"close"), ("connection", b"upgrade"), ("keep-alive", b"timeout=1"), ("proxy-connection", b"close"),
            ("upgrade", b"websocket"), ("trailer", b"x"), ("te", b"gzip"), ("transfer-encoding", b"chunked"),
            ("Transfer-Encoding", b"gzip"), ("transfer-encoding", b"identity"),
        )
    ),
    passed("upgrade and connection", "RFC 9110 7.8", "add 2 upgrade websocket; add 2 connection upgrade", lacks=(b"upgrade",)),
    passed("pairs in capitals", "RFC 9110 5.1", "setpairs 2 :status=200|Transfer-Encoding=chunked|CONNECTION=close",
           has=(b"transfer-encoding: chunked",), lacks=(b"\r\nconnection",)),
    passed("an unknown pseudo-header", "RFC 9113 8.3", "add 2 :evil y", lacks=(b"evil",)),
    passed("a value of 60 kB", "RFC 6585 5", "add 2 x " + "y" * 60_000),
]

RESPONSE_LENGTHS = [
    *(
        spoilt(f"length {name}", "RFC 9110 8.6", f"rep 2 content-length {encoded(value)}")
        for name, value in {
            "empty": b"", "+6": b"+6", "0x6": b"0x6", "-1": b"-1", "6, 6": b"6, 6", "6,7": b"6,7", "six": b"six", "of 19 digits": b"1" * 19,
            "with CRLF": b"6\r\nX: y", "with NUL": b"6\0", "with a space": b" 6",
        }.items()
    ),
    spoilt("a second length", "RFC 9112 6.3", "add 2 content-length 7"),
    passed("a length taken away", "RFC 9112 6.1", "rem 2 content-length", has=(b"transfer-encoding: chunked",), body=BODY),
    passed("chunked beside a length", "RFC 9112 6.3", "add 2 transfer-encoding chunked", has=(b"content-length: 6",), body=BODY),
    *(
        Case(f"{name}: {kind}", "RFC 9112 6.3", script, (), (f"GET {target.decode()}",), target=target)
        for (name, script), (kind, target) in product(
            {
                "a length that is too long": "rsh: rep 2 content-length 99",
                "a length that is too short": "rsh: rep 2 content-length 3",
                "a body longer than its length": "rsh: rep 2 content-length 2!rsb: setbuf 1 0 100 longer-than-that",
                "a body shorter than its length": "rsh: rep 2 content-length 9!rsb: setbuf 1 0 100 x",
            }.items(),
            {"sized": b"/", "chunked": b"/chunked", "close-delimited": b"/close"}.items(),
        )
    ),
    Case("a body that grows at its end", "RFC 9112 6.3", "rsb#2: setbuf 1 0 0 tail", (), GET),
    Case("a body replaced by nothing", "RFC 9112 6.3", "rsb: setbuf 1 0 100 ~", (), GET),
    *(
        Case(f"{status} made of a {kind} 200", f"RFC 9110 15.{section}", f"rsh: rep 2 :status {status}", (status,),
             (f"GET {target.decode()}",), target=target, body=b"")
        for (status, section), (kind, target) in product(
            ((204, "3.5"), (304, "4.5")), {"sized": b"/", "chunked": b"/chunked", "close-delimited": b"/close"}.items()
        )
    ),
    *(
        Case(f"200 made of {status}", f"RFC 9110 15.{section}", "rsh: rep 2 :status 200", (200,), (f"GET /{status}",),
             target=b"/%d" % status, has=(b"content-length: 0",))
        for status, section in ((204, "3.5"), (304, "4.5"))
    ),
    Case("a length with 204", "RFC 9110 8.6", "rsh: rep 2 content-length 5", (204,), ("GET /204",), target=b"/204", lacks=(b"content-length",)),
    Case("a coding with 204", "RFC 9112 6.1", "rsh: add 2 transfer-encoding chunked", (204,), ("GET /204",), target=b"/204"),
    Case("a coding with 304", "RFC 9112 6.1", "rsh: add 2 transfer-encoding chunked", (304,), ("GET /304",), target=b"/304"),
    Case("a length with HEAD", "RFC 9110 9.3.2", "rsh: rep 2 content-length 99", (200,), ("HEAD /",), "HEAD", has=(b"content-length: 99",)),
    Case("chunked with HEAD", "RFC 9110 9.3.2", "rsh: rem 2 content-length; add 2 transfer-encoding chunked", (200,), ("HEAD /",), "HEAD"),
    Case("304 with a body set", "RFC 9110 15.4.5", "rsh: rep 2 :status 304!rsb: setbuf 1 0 100 evil", (304,), GET, body=b""),
    Case("chunks that hold a response", "RFC 9112 7.1",
         f"rsb#1: setbuf 1 0 100 {encoded(b'0' + bytes([13, 10, 13, 10]) + b'HTTP/1.1 200 OK')}", (200,), ("GET /chunked",), target=b"/chunked"),
]


def reply(name: str, clause: str, arguments: str, status: int, **more: object) -> Case:
    """A local reply in the place of a request."""
    return Case(name, clause, f"rqh: reply {arguments}; ret 1", (status,), (), **more)  # type: ignore[arg-type]


LOCAL_REPLIES = [
    *(reply(f"code {code}", "RFC 9110 15", f"{code} ~ body ~ ~", 500) for code in (0, 1, 99, 100, 101, 199, 600, 999, 1000, 65736, 4294967295)),
    *(reply(f"code {code} with a body", "RFC 9110 6.4.1", f"{code} ~ body ~ ~", code, body=b"") for code in (204, 304)),
    *(
        reply(f"a header with {name}", "RFC 9110 5.5", f"403 ~ body x={encoded(value)} ~", 500)
        for name, value in SPOILED.items()
    ),
    *(reply(f"a name with {name}", "RFC 9110 5.1", f"403 ~ body {encoded(value)}=v ~", 500) for name, value in BROKEN_NAMES.items()),
    reply("a length of its own", "RFC 9112 6.3", "403 ~ body content-length=99 ~", 403, body=b"body"),
    reply("a length without a body", "RFC 9112 6.3", "403 ~ ~ content-length=99 ~", 403, body=b""),
    reply("two lengths", "RFC 9112 6.3", "403 ~ body content-length=1|content-length=2 ~", 403, body=b"body"),
    reply("a coding", "RFC 9112 6.1", "403 ~ body transfer-encoding=chunked ~", 403, body=b"body", lacks=(b"transfer-encoding",)),
    reply("connection and upgrade", "RFC 9110 7.6.1", "403 ~ body connection=upgrade|upgrade=websocket ~", 403, lacks=(b"upgrade",)),
    reply("a status among the headers", "RFC 9110 15", "403 ~ body :status=200 ~", 403, body=b"body"),
    reply("details with CRLF", "RFC 9110 5.5", "403 a%0d%0aX-Evil:%20b body ~ ~", 403, lacks=(b"x-evil",)),
    Case("to HEAD", "RFC 9110 9.3.2", "rqh: reply 403 ~ body ~ ~; ret 1", (403,), (), "HEAD"),
    Case("in the place of a response", "RFC 9112 6.3", "rsh: reply 403 ~ body content-length=99 ~; ret 1", (403,), GET, body=b"body"),
    Case("over the body of a request", "RFC 9112 9.6", "rqb: reply 403 ~ body ~ ~; ret 1", (403,), (), "SIZED", body=b"body"),
    Case("behind the head of a response", "RFC 9112 6.3", "rsb: reply 403 ~ body ~ ~; ret 1", (), GET),
]


def call(name: str, clause: str, pairs: str, *reached: str, body: str = "~", at_once: bool = False) -> Case:
    """A call of the filter's own to the cluster `callee`, while the request waits for its answer. `at_once`: refused by status."""
    wait = "" if at_once else "; ret 1"
    return Case(name, clause, f"rqh: call callee {pairs} {body} 2000{wait}", (200,), GET, callee=reached)


CALL = ":method=GET|:path=/call|:authority=c"
HTTP_CALLS = [
    call("in order", "RFC 9112 3", CALL, "GET /call"),
    call("with a body", "RFC 9112 6.3", CALL.replace("GET", "POST"), "POST /call", body="hello"),
    *(
        call(f"{part} with {name}", "RFC 9112 3", CALL.replace(old, old + encoded(value)))
        for (part, old), (name, value) in product(
            {":path": "/call", ":method": "GET", ":authority": "authority=c"}.items(),
            {name: SPOILED[name] for name in ("CR", "LF", "CRLF", "NUL", "control")}.items(),
        )
    ),
    *(call(f"a value with {name}", "RFC 9110 5.5", f"{CALL}|x={encoded(value)}") for name, value in SPOILED.items()),
    *(
        call(f"a name with {name}", "RFC 9110 5.1", f"{CALL}|{encoded(value)}=v")
        for name, value in BROKEN_NAMES.items() if name != "colon"
    ),
    call("a length of its own", "RFC 9112 6.3", f"{CALL.replace('GET', 'POST')}|content-length=99", "POST /call", body="hello"),
    call("a length without a body", "RFC 9112 6.3", f"{CALL}|content-length=99", "GET /call"),
    call("a coding", "RFC 9112 6.1", f"{CALL.replace('GET', 'POST')}|transfer-encoding=chunked", "POST /call", body="hello"),
    call("connection, upgrade, te, expect", "RFC 9110 7.6.1", f"{CALL}|connection=upgrade|upgrade=websocket|te=gzip|expect=100-continue", "GET /call"),
    call("connection that names host", "RFC 9110 7.6.1", f"{CALL}|connection=host", "GET /call"),
    call("two hosts", "RFC 9112 3.2", f"{CALL}|host=d"),
    call("an empty host", "RFC 9112 3.2", CALL.replace("=c", "=")),
    call("a host with userinfo", "RFC 9110 4.2.4", CALL.replace("=c", "=u@c")),
    call("CONNECT", "RFC 9110 9.3.6", CALL.replace("GET", "CONNECT")),
    call(":path in absolute-form", "RFC 9112 3.2.2", CALL.replace("/call", "http://b/")),
    call("no :path", "RFC 9112 3", ":method=GET|:authority=c", at_once=True),
]

FAMILIES: dict[str, list[Case]] = {
    "Request: method, target, host": REQUEST_TARGETS,
    "Request: fields": REQUEST_FIELDS,
    "Request: framing against the body": REQUEST_LENGTHS,
    "Response: status and fields": RESPONSE_HEADS,
    "Response: framing against the body": RESPONSE_LENGTHS,
    "Local replies": LOCAL_REPLIES,
    "http_call": HTTP_CALLS,
}
