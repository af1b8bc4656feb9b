"""What clients try, as data: bytes, the clause that speaks of them, what comes back, what the origin gets.

Written clause by clause from RFC 9110 and RFC 9112, and from published attacks on other proxies; these are named where they are
meant. `SMUGGLED` is what must not be served as a request of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.attacks.client import Sent


@dataclass(frozen=True)
class Case:
    """One attack."""

    name: str
    clause: str
    sent: Sent
    answers: tuple[int, ...]
    """Statuses of the final responses, in order; then the gateway closes, or the connection serves on."""
    reached: tuple[str, ...] = ()
    """`METHOD target` of each whole request that the origin gets."""
    has: tuple[bytes, ...] = ()
    """Lines of the heads that the origin gets."""
    lacks: tuple[bytes, ...] = ()
    """In none of these heads."""
    body: bytes | None = None
    """Of the last request that the origin gets."""
    methods: tuple[bytes, ...] = ()
    bytewise: tuple[int, ...] | None = None
    """The statuses when each byte comes by itself, where they differ. The origin gets as many requests as are not refused. Empty: it
    is not sent so."""


HOST = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
END = b"\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SIZE = b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)


def no(name: str, clause: str, sent: Sent, status: int = 400) -> Case:
    """Refused: one answer, and nothing reaches the origin."""
    return Case(name, clause, sent, (status,))


def yes(
    name: str,
    clause: str,
    sent: Sent,
    *reached: str,
    has: tuple[bytes, ...] = (),
    lacks: tuple[bytes, ...] = (),
    body: bytes | None = None,
    methods: tuple[bytes, ...] = (),
    bytewise: tuple[int, ...] | None = None,
) -> Case:
    """Served: each request that reaches the origin is answered 200."""
    reached = reached or ("GET /",)
    return Case(name, clause, sent, (200,) * len(reached), reached, has, lacks, body, methods, bytewise)


def odd(name: str, clause: str, sent: Sent, reached: str) -> Case:
    """A request with something behind it that may not be served: refused as one if they come together, else the first is."""
    return Case(name, clause, sent, (400,), (reached,), bytewise=(200,))


def target(path: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\n" % path + HOST + END


def field(line: bytes) -> bytes:
    """A GET with one more line in its head."""
    return GET + line + b"\r\n\r\n"


def hosted(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


def sized(line: bytes) -> bytes:
    """A POST whose length the line gives, SMUGGLED behind it."""
    return POST + line + b"\r\n\r\n" + SMUGGLED


def coded(value: bytes) -> bytes:
    """A POST with this Transfer-Encoding, an empty chunked body, SMUGGLED behind it."""
    return POST + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n" + SMUGGLED


def chunks(data: bytes) -> bytes:
    return CHUNKED + data


# fmt: off
REQUEST_LINE = [
    no("TLS hello", "RFC 9112 3", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"),
    no("HTTP/2 preface", "RFC 9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    no("HTTP/0.9", "RFC 9112 3", b"GET /\r\n\r\n", 505),
    no("HTTP/2.0", "RFC 9112 2.3", GET.replace(b"1.1", b"2.0") + END, 505),
    no("HTTP/1.2", "RFC 9112 2.3", GET.replace(b"1.1", b"1.2") + END),
    no("HTTP/1.10", "RFC 9112 2.3", GET.replace(b"1.1", b"1.10") + END),
    no("HTTP/01.1", "RFC 9112 2.3", GET.replace(b"1.1", b"01.1") + END),
    no("HTTP/11", "RFC 9112 2.3", GET.replace(b"1.1", b"11") + END),
    no("http/1.1", "RFC 9112 2.3", GET.replace(b"HTTP", b"http") + END),
    no("HTTP /1.1", "RFC 9112 2.3", GET.replace(b"HTTP/", b"HTTP /") + END),
    no("HTTPS/1.1", "RFC 9112 2.3", GET.replace(b"HTTP", b"HTTPS") + END),
    no("NUL behind the version", "RFC 9112 3", GET.replace(b"1.1", b"1.1\0") + END),
    no("text behind the version", "RFC 9112 3", GET.replace(b"1.1", b"1.1 x") + END),
    no("space behind the version", "RFC 9112 3", GET.replace(b"1.1", b"1.1 ") + END),
    yes("two spaces", "RFC 9112 3", GET.replace(b" /", b"  /") + END),
    no("tabs for spaces", "RFC 9112 3", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    no("no target", "RFC 9112 3", b"GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    no("space before the method", "RFC 9112 3", b" " + GET + END),
    no("method with a control", "RFC 9110 9.1", b"GE\x01T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    no("method with a NUL", "RFC 9110 9.1", b"GET\0 / HTTP/1.1\r\nHost: a\r\n\r\n"),
    no("method with a colon", "RFC 9110 9.1", b"GET: / HTTP/1.1\r\nHost: a\r\n\r\n"),
    no("method of one kilobyte", "RFC 9110 9.1", b"G" * 1000 + b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
    no("bare LF", "RFC 9112 2.2", b"GET / HTTP/1.1\nHost: a\n\n"),
    no("bare LF behind the request line", "RFC 9112 2.2", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    no("bare CR behind the request line", "RFC 9112 2.2", b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
    no("CR CR LF", "RFC 9112 2.2", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    no("a head that ends in LF LF", "RFC 9112 2.2", GET[:-2] + b"\n\n" + SMUGGLED),
    no("a head that ends in CRLF LF", "RFC 9112 2.2", GET + b"\n" + SMUGGLED),
    no("a head that ends in LF CRLF", "RFC 9112 2.2", GET[:-2] + b"\n\r\n" + SMUGGLED),
    no("a head that ends in CR CR", "RFC 9112 2.2", GET[:-2] + b"\r\r" + SMUGGLED),
    yes("an empty line before it", "RFC 9112 2.2", b"\r\n" + GET + END),
    no("CONNECT", "RFC 9110 9.3.6", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" + SMUGGLED, 501),
    no("CONNECT in origin-form", "RFC 9112 3.2.3", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 501),
    no("TRACE at its end", "RFC 9110 7.6.2", b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 501),
    yes("TRACE", "RFC 9110 7.6.2", b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", "TRACE /", has=(b"max-forwards: 2",)),
    no("a method in small letters", "RFC 9110 9.1", b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
]

FIELDS = [
    no("space before the colon", "RFC 9112 5.1", field(b"X : y")),
    no("tab before the colon", "RFC 9112 5.1", field(b"X\t: y")),
    no("no colon", "RFC 9112 5", field(b"X y")),
    no("no name", "RFC 9112 5", field(b": y")),
    no("space before the first field", "RFC 9112 2.2", b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n"),
    no("a folded first field", "RFC 9112 2.2", b"GET / HTTP/1.1\r\n\tContent-Length: 3\r\nHost: a\r\n\r\nabc"),
    no("obs-fold", "RFC 9112 5.2", field(b"X: y\r\n z")),
    no("obs-fold with a tab", "RFC 9112 5.2", field(b"X: y\r\n\tz")),
    no("obs-fold of nothing", "RFC 9112 5.2", field(b"X: y\r\n ")),
    no("a folded Host", "RFC 9112 5.2", b"GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n"),
    no("NUL in a value", "RFC 9110 5.5", field(b"X: y\0z")),
    no("bare CR in a value", "RFC 9110 5.5", field(b"X: y\rz")),
    no("bare CR at a value's end", "RFC 9110 5.5", field(b"X: y\r")),
    no("bare LF in a value", "RFC 9110 5.5", field(b"X: y\nContent-Length: 3")),
    no("BEL in a value", "RFC 9110 5.5", field(b"X: \x07")),
    no("VT in a value", "RFC 9110 5.5", field(b"X: a\x0bb")),
    no("FF in a value", "RFC 9110 5.5", field(b"X: \x0cb")),
    no("DEL in a value", "RFC 9110 5.5", field(b"X: y\x7f")),
    no("ESC in a value", "RFC 9110 5.5", field(b"X: \x1b[31m")),
    yes("bytes above ASCII in a value", "RFC 9110 5.5", field(b"X: \xff\xc3\xa9"), has=(b"x: \xff\xc3\xa9",)),
    yes("a tab in a value", "RFC 9110 5.5", field(b"X: a\tb"), has=(b"x: a\tb",)),
    yes("spaces around a value", "RFC 9112 5.1", field(b"X: \t a \t "), has=(b"x: a",)),
    yes("an empty value", "RFC 9110 5.5", field(b"X:"), has=(b"x: ",)),
    *(
        no(f"{name} in a name", "RFC 9110 5.6.2", field(b"X" + byte + b"Y: z"))
        for name, byte in {
            "space": b" ", "NUL": b"\0", "control": b"\x01", "DEL": b"\x7f", "a byte above ASCII": b"\xe9", "slash": b"/",
            "parenthesis": b"(", "quote": b'"', "bracket": b"[", "at sign": b"@", "bare CR": b"\r", "bare LF": b"\n",
        }.items()
    ),
    no("a name that begins with a colon", "RFC 9110 5.6.2", field(b":path: /smuggled")),
    no("a name of our own", "RFC 9113 8.3", field(b":authority: b")),
    yes("names in capitals", "RFC 9110 5.1", field(b"X-SHOUT: y"), has=(b"x-shout: y",)),
]

HOSTS = [
    no("no Host", "RFC 9112 3.2", b"GET / HTTP/1.1\r\n\r\n"),
    no("two Hosts", "RFC 9112 3.2", GET + b"Host: b\r\n\r\n"),
    no("twice the same Host", "RFC 9112 3.2", GET + b"Host: a\r\n\r\n"),
    no("two Hosts in two cases", "RFC 9112 3.2", GET + b"hOsT: b\r\n\r\n"),
    no("empty Host", "RFC 9112 3.2", hosted(b"")),
    *(
        no(f"Host with {name}", "RFC 9110 7.2", hosted(value))
        for name, value in {
            "a list": b"a, b", "a comma": b"a,b", "userinfo": b"u@a", "a path": b"a/b", "a query": b"a?b", "a fragment": b"a#b",
            "a backslash": b"a\\b", "a space": b"a b", "a tab": b"a\tb", "a NUL": b"a\0b", "two ports": b"a:80:80",
            "a port of letters": b"a:http", "a long port": b"a:123456", "an open bracket": b"[::1", "empty brackets": b"[]",
            "a zone": b"[fe80::1%eth0]", "text behind brackets": b"[::1]x", "a port alone": b":80", "quotes": b'"a"',
            "angle brackets": b"<a>", "bytes above ASCII": b"\xe2\x84\xaa", "a scheme": b"http://a",
        }.items()
    ),
    yes("Host with a port", "RFC 9110 7.2", hosted(b"a:81"), has=(b"host: a:81",)),
    yes("Host as IPv6", "RFC 9110 7.2", hosted(b"[::1]:81"), has=(b"host: [::1]:81",)),
    no("no Host, HTTP/1.0", "RFC 9112 3.2", b"GET / HTTP/1.0\r\n\r\n"),
    yes("absolute-form overrides Host", "RFC 9112 3.2.2", target(b"http://b:1/x"), "GET /x", has=(b"host: b:1",)),
    yes("absolute-form in capitals", "RFC 9112 3.2.2", target(b"HTTP://b/x"), "GET /x", has=(b"host: b",)),
    yes("absolute-form without a path", "RFC 9112 3.2.1", target(b"http://b"), "GET /", has=(b"host: b",)),
    yes("absolute-form with a query alone", "RFC 9112 3.2.1", target(b"http://b?x=/y"), "GET /?x=/y", has=(b"host: b",)),
    no("absolute-form without Host", "RFC 9112 3.2", b"GET http://b/x HTTP/1.1\r\n\r\n"),
    no("absolute-form with two Hosts", "RFC 9112 3.2", b"GET http://b/x HTTP/1.1\r\nHost: b\r\nHost: a\r\n\r\n"),
    no("absolute-form with a bad Host", "RFC 9112 3.2", b"GET http://b/x HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    no("absolute-form with userinfo", "RFC 9110 4.2.4", target(b"http://u@b/x")),
    no("absolute-form without a host", "RFC 9110 4.2.1", target(b"http:///x")),
    no("absolute-form, one slash", "RFC 9112 3.2.2", target(b"http:/b/x")),
    no("absolute-form, ftp", "RFC 9112 3.2.2", target(b"ftp://b/x")),
    no("absolute-form, file", "RFC 9112 3.2.2", target(b"file:///etc/passwd")),
    no("absolute-form, backslashes", "RFC 9112 3.2.2", target(b"http:\\\\b\\x")),
    no("absolute-form, a fragment", "RFC 9112 3.2.2", target(b"http://b/x#y")),
    no("absolute-form, an encoded NUL", "RFC 9112 3.2.2", target(b"http://b/%00")),
    no("authority-form", "RFC 9112 3.2.3", target(b"b:80")),
    no("a relative target", "RFC 9112 3.2", target(b"nothing")),
    no("* for GET", "RFC 9112 3.2.4", target(b"*")),
    no("*/", "RFC 9112 3.2.4", b"OPTIONS */ HTTP/1.1\r\nHost: a\r\n\r\n"),
    yes("* for OPTIONS", "RFC 9112 3.2.4", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS *"),
    yes("OPTIONS without a path", "RFC 9112 3.2.4", b"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS *", has=(b"host: b",)),
]

PATHS = [
    *(
        yes(f"path {given.decode()}", "RFC 3986 6.2.2", target(given), f"GET {sent}")
        for given, sent in {
            b"/a/../b": "/b", b"/../../b": "/b", b"/./b/.": "/b/", b"/%2e%2e/b": "/b", b"/.%2E/b": "/b", b"/a/%2e/b": "/a/b",
            b"/%41%7e": "/A~", b"//a//b": "//a//b", b"/a//../b": "/a/b", b"/a%2fb": "/a%2fb", b"/a%5cb": "/a%5cb",
            b"/%252e%252e/b": "/%252e%252e/b", b"/a?b=/../c": "/a?b=/../c", b"/a?b=%0d%0aX:y": "/a?b=%0d%0aX:y",
            b"/a?b=%2e%2e": "/a?b=%2e%2e", b"/...": "/...", b"/a?": "/a?", b"/%c0%ae%c0%ae/b": "/%c0%ae%c0%ae/b",
        }.items()
    ),
    *(
        no(f"path {given!r}"[5:-1].replace("path b'", "path "), "RFC 9110 4.2.3", target(given))
        for given in (
            b"/%00", b"/a%0d%0aX:%20y", b"/%0a", b"/%0D", b"/a\\..\\b", b"/a\\b", b"/a/..;/b", b"/a/..;x=y/b", b"/a/..%2fb",
            b"/a/..%5cb", b"/a%2f../b", b"/a%5c..%5cb", b"/%2f..%2fb", b"/%%32e%%32e/b", b"/%2%65%2%65/b", b"/\xc3\xa9",
            b"/a#b", b"/#", b"/a b", b"/a\tb", b"/a\0b", b"/a\x7fb", b"/\x01", b"/a?b=\xff", b"/a?b\0", b"/.%00./b",
        )
    ),
]

LENGTHS = [
    no("two lengths", "RFC 9112 6.3", sized(b"Content-Length: 3\r\nContent-Length: 4")),
    no("twice the same length", "RFC 9112 6.3", sized(b"Content-Length: 3\r\nContent-Length: 3")),
    *(
        no(f"length {value.decode('latin-1')!r}"[:-1].replace("'", ""), "RFC 9110 8.6", sized(b"Content-Length: " + value))
        for value in (
            b"3, 3", b"3,3", b"3, 4", b"+3", b"-3", b"-0", b"0x3", b"3.0", b"3e0", b"1_0", b"3 3", b"3\t3", b"3;", b"'3'", b"three",
            b"", b",", b"3,", b",3", b"9" * 20, b"18446744073709551619", b"9223372036854775808", b"\xb3", b"\xd9\xa3", b"3\0",
            b"3\x0b", b"NaN",
        )
    ),
    yes("length 003", "RFC 9110 8.6", POST + b"Content-Length: 003\r\n\r\nabc", "POST /", has=(b"content-length: 3",), body=b"abc"),
    no("a space before the length's colon", "RFC 9112 5.1", sized(b"Content-Length : 3")),
    no("a NUL in the length's name", "RFC 9110 5.6.2", sized(b"Content-Length\0: 3")),
    no("a CR before the length", "RFC 9112 2.2", sized(b"X: y\rContent-Length: 3")),
    no("an LF before the length", "RFC 9112 2.2", sized(b"X: y\nContent-Length: 3")),
    no("a folded length", "RFC 9112 5.2", sized(b"Content-Length:\r\n 3")),
    no("a length with an underscore", "RFC 9110 5.1", sized(b"Content_Length: 3")),
    yes("a body of GET that looks like a request (0.CL)", "RFC 9110 9.3.1", GET + SIZE + SMUGGLED, body=SMUGGLED),
    yes("a body of HEAD that looks like a request", "RFC 9110 9.3.2", b"HEAD / HTTP/1.1\r\n" + HOST + SIZE + SMUGGLED, "HEAD /",
        body=SMUGGLED, methods=(b"HEAD",)),
    yes("a body of DELETE", "RFC 9110 9.3.5", b"DELETE / HTTP/1.1\r\n" + HOST + SIZE + SMUGGLED, "DELETE /", body=SMUGGLED),
    yes("a body of OPTIONS", "RFC 9110 9.3.7", b"OPTIONS / HTTP/1.1\r\n" + HOST + SIZE + SMUGGLED, "OPTIONS /", body=SMUGGLED),
    yes("POST without a length", "RFC 9112 6.3", POST + END + SMUGGLED, "POST /", "GET /smuggled"),
    yes("a length that Connection names", "RFC 9110 7.6.1", POST + b"Connection: content-length\r\n" + SIZE + SMUGGLED, "POST /",
        body=SMUGGLED),
    yes("a length of 0 that Connection names", "RFC 9110 7.6.1", POST + b"Connection: content-length\r\nContent-Length: 0\r\n\r\n",
        "POST /", has=(b"content-length: 0",)),
]

CODINGS = [
    no("length and coding", "RFC 9112 6.3", sized(b"Content-Length: 3\r\nTransfer-Encoding: chunked")),
    no("coding and length", "RFC 9112 6.3", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED),
    no("coding and length, one nominated away", "RFC 9112 6.3",
       POST + b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED),
    no("coding and length, the other nominated away", "RFC 9112 6.3",
       POST + b"Connection: content-length\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED),
    *(
        no(f"coding {value.decode('latin-1')!r}"[:-1].replace("'", ""), "RFC 9112 6.1", coded(value))
        for value in (
            b"chunked, gzip", b"gzip", b"identity", b"xchunked", b"chunkedx", b"chunked, chunked", b"chunked, identity",
            b"identity, chunked", b'"chunked"', b"chunked;q=1", b"chunked;a=b", b";chunked", b"chunked\0", b"\x0bchunked",
            b"chunked\x0b", b"chun\xe2\x84\xaaed", b"\xa0chunked", b"chunked\r\n chunked", b"cow", b"", b"chunk",
            b"chunked\rx", b"\nchunked", b"chunked chunked", b"'chunked'", b"[chunked]",
        )
    ),
    no("coding twice", "RFC 9112 6.1", coded(b"chunked\r\nTransfer-Encoding: chunked")),
    no("coding, then identity", "RFC 9112 6.1", coded(b"chunked\r\nTransfer-Encoding: identity")),
    no("identity, then coding", "RFC 9112 6.1", coded(b"identity\r\nTransfer-Encoding: chunked")),
    no("gzip, then chunked in a second field", "RFC 9112 6.1", coded(b"gzip\r\nTransfer-Encoding: chunked")),
    no("gzip, chunked", "RFC 9112 6.1", coded(b"gzip, chunked")),
    no("a space before the coding's colon", "RFC 9112 5.1", coded(b"chunked").replace(b"Encoding:", b"Encoding :")),
    no("a control in the coding's name", "RFC 9110 5.6.2", coded(b"chunked").replace(b"Transfer-", b"Transfer\x01-")),
    no("a coding with an underscore", "RFC 9110 5.1", coded(b"chunked").replace(b"Transfer-", b"Transfer_")),
    no("a coding behind an LF", "RFC 9112 2.2", POST + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
    no("a folded coding", "RFC 9112 5.2", coded(b"\r\n chunked")),
    no("a coding in HTTP/1.0", "RFC 9112 6.1", coded(b"chunked").replace(b"1.1", b"1.0", 1)),
    yes("a coding in capitals", "RFC 9112 7", CHUNKED.replace(b"chunked", b"CHUNKED") + b"3\r\nabc\r\n0\r\n\r\n", "POST /", body=b"abc"),
    yes("a coding with spaces", "RFC 9112 5.1", CHUNKED.replace(b" chunked", b"   chunked  ") + b"3\r\nabc\r\n0\r\n\r\n", "POST /",
        body=b"abc"),
    no("a coding with tabs", "RFC 9112 5.1", coded(b"\tchunked\t")),
    yes("a coding that Connection names", "RFC 9110 7.6.1",
        POST + b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "POST /", body=b"abc"),
    yes("a chunked body of GET", "RFC 9110 9.3.1", GET + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", body=b"abc"),
]

CHUNKS = [
    *(
        no(f"chunk {data.decode('latin-1')!r}"[:-1].replace("'", "")[:60], "RFC 9112 7.1", chunks(data) + b"\r\n0\r\n\r\n" + SMUGGLED)
        for data in (
            b"zz\r\nabc", b"-1\r\nabc", b"+3\r\nabc", b"0x3\r\nabc", b"3\r\nabcd", b"3\nabc", b"3\r\nabc\n", b" 3\r\nabc",
            b"\r\n3\r\nabc", b"3\0\r\nabc", b"3_0\r\nabc", b"\xd9\xa3\r\nabc", b"3\rabc", b"3\r\rabc",
            b"10000000000000003\r\nabc", b"fffffffffffffffff\r\nabc", b"3;a\nb\r\nabc", b"3;a\rb\r\nabc",
            b"3;\0\r\nabc", b"3;a=\"\r\n\"\r\nabc", b"3 \nabc", b";\r\nabc", b"3\r\nabXXX",
        )
    ),
    yes("a chunk with an extension", "RFC 9112 7.1.1", chunks(b"3;a=b\r\nabc\r\n0;c\r\n\r\n"), "POST /", lacks=(b"a=b",), body=b"abc"),
    yes("a chunk with a quoted extension", "RFC 9112 7.1.1", chunks(b'3;a="b;c"\r\nabc\r\n0\r\n\r\n'), "POST /", body=b"abc"),
    yes("a chunk size with zeros", "RFC 9112 7.1", chunks(b"0003\r\nabc\r\n000\r\n\r\n"), "POST /", body=b"abc"),
    yes("a chunk size in capitals", "RFC 9112 7.1", chunks(b"A\r\n0123456789\r\n0\r\n\r\n"), "POST /", body=b"0123456789"),
    yes("200 chunks of one byte", "RFC 9112 7.1", chunks(b"1\r\na\r\n" * 200 + b"0\r\n\r\n"), "POST /", body=b"a" * 200),
    yes("a request inside a chunk", "RFC 9112 7.1", chunks(b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)), "POST /",
        body=SMUGGLED),
    no("a last chunk behind a bare LF", "RFC 9112 7.1", chunks(b"3\r\nabc\r\n0\n\n") + SMUGGLED),
    no("a last chunk that ends in LF", "RFC 9112 7.1", chunks(b"3\r\nabc\r\n0\r\n\n") + SMUGGLED),
    yes("an extension of 20 kB", "RFC 9112 7.1.1", chunks(b"3;" + b"a" * 20_000 + b"\r\nabc\r\n0\r\n\r\n"), "POST /", body=b"abc"),
]

TRAILERS = [
    *(
        yes(f"{name} as a trailer", "RFC 9110 6.5.1", chunks(b"3\r\nabc\r\n0\r\n%b\r\n\r\n" % line), "POST /",
            lacks=(line.lower(), line.partition(b":")[0].lower() + b": evil"), body=b"abc")
        for name, line in {
            "Host": b"Host: evil",
            "Authorization": b"Authorization: evil", "Cookie": b"Cookie: evil", "Connection": b"Connection: evil",
            "X-Forwarded-For": b"X-Forwarded-For: evil", "Via": b"Via: evil", "Expect": b"Expect: 100-continue",
            "Content-Type": b"Content-Type: evil", "an unknown field": b"X-Any: evil",
        }.items()
    ),
    *(
        no(f"trailers: {name}", "RFC 9112 7.1.2", chunks(b"3\r\nabc\r\n0\r\n%b\r\n\r\n" % line) + SMUGGLED)
        for name, line in {
            "no colon": b"GET /smuggled HTTP/1.1", "space before the colon": b"X : y", "obs-fold": b"X: y\r\n z",
            "bare LF": b"X: y\nZ: z", "NUL": b"X: \0", "bare CR": b"X: y\rz", "no name": b": y",
            "Content-Length": b"Content-Length: 50", "Transfer-Encoding": b"Transfer-Encoding: gzip",
        }.items()
    ),
    no("trailers: 1,000 of them", "RFC 6585 5", chunks(b"0\r\n" + b"X: y\r\n" * 1000 + END), 431),
    no("trailers: one of 20 kB", "RFC 6585 5", chunks(b"0\r\nX: " + b"y" * 20_000 + b"\r\n\r\n"), 431),
]

HOPS = [
    *(
        yes(f"{name} ends here", "RFC 9110 7.6.1", field(line), lacks=(name.lower().encode(),))
        for name, line in {
            "Keep-Alive": b"Keep-Alive: timeout=5", "Proxy-Connection": b"Proxy-Connection: keep-alive", "TE": b"TE: gzip",
            "Trailer": b"Trailer: x", "HTTP2-Settings": b"Connection: http2-settings\r\nHTTP2-Settings: x",
        }.items()
    ),
    yes("HTTP2-Settings that Connection does not name", "RFC 7540 3.2.1", field(b"HTTP2-Settings: x"), lacks=(b"http2-settings",)),
    yes("Connection: keep-alive", "RFC 9110 7.6.1", field(b"Connection: keep-alive"), lacks=(b"\r\nconnection:",)),
    odd("Connection: close", "RFC 9112 9.6", field(b"Connection: close") + SMUGGLED, "GET /"),
    yes("Connection names a field", "RFC 9110 7.6.1", field(b"Connection: x-secret\r\nX-Secret: y"), lacks=(b"x-secret",)),
    yes("Connection names a field before it", "RFC 9110 7.6.1", field(b"X-Secret: y\r\nConnection: X-SECRET"), lacks=(b"x-secret",)),
    yes("Connection names several, untidily", "RFC 9110 5.6.1", field(b"Connection: ,x-a ,\t,x-b,, close\r\nX-A: 1\r\nX-B: 2\r\nX-B: 3"),
        lacks=(b"x-a", b"x-b")),
    yes("three Connections", "RFC 9110 7.6.1",
        field(b"Connection: x-a\r\nX-A: 1\r\nConnection: x-b\r\nX-B: 2\r\nConnection: x-c\r\nX-C: 3"), lacks=(b"x-a", b"x-b", b"x-c")),
    no("fifty Connections", "RFC 9110 7.6.1", field(b"\r\n".join(b"Connection: x-%d" % i for i in range(50)))),
    yes("Connection names X-Forwarded-For (CVE-2026-105299)", "RFC 9110 7.6.1",
        field(b"Connection: x-forwarded-for\r\nX-Forwarded-For: 1.2.3.4"), has=(b"x-forwarded-for: 127.0.0.1",), lacks=(b"1.2.3.4",)),
    yes("Connection names what the gateway adds", "RFC 9110 7.6.1",
        field(b"Connection: x-forwarded-for, x-forwarded-proto, x-forwarded-host, x-request-id, via"),
        has=(b"x-forwarded-for: 127.0.0.1", b"x-forwarded-proto: http", b"x-forwarded-host: a", b"via: 1.1 penstock", b"x-request-id: ")),
    yes("Connection names Host", "RFC 9110 7.6.1", field(b"Connection: host"), has=(b"host: a",)),
    yes("Connection names pseudo-headers", "RFC 9110 7.6.1", field(b"Connection: :path, :authority, :method"), has=(b"host: a",)),
    yes("Connection names Connection", "RFC 9110 7.6.1", field(b"Connection: connection, close"), lacks=(b"\r\nconnection:",)),
    yes("Via is continued", "RFC 9110 7.6.3", field(b"Via: 1.0 other"), has=(b"via: 1.0 other,1.1 penstock",)),
    yes("two Vias", "RFC 9110 7.6.3", field(b"Via: 1.0 x\r\nVia: 1.1 y"), has=(b"1.1 penstock",)),
    yes("X-Forwarded-For is continued", "RFC 7239 7.4", field(b"X-Forwarded-For: 1.2.3.4"), has=(b"x-forwarded-for: 1.2.3.4,127.0.0.1",)),
    yes("X-Forwarded-For, thirty times: ours is the last", "RFC 7239 8.1", field(b"\r\n".join([b"X-Forwarded-For: 1.2.3.4"] * 30))),
    yes("X-Forwarded-For of 5 kB and another: ours is the last", "RFC 7239 8.1",
        field(b"X-Forwarded-For: " + b"1" * 5000 + b"\r\nX-Forwarded-For: 1.2.3.4")),
    yes("Max-Forwards of GET", "RFC 9110 7.6.2", field(b"Max-Forwards: 0"), has=(b"max-forwards: 0",)),
    *(
        no(f"{name.decode()} for a field of another name", "RFC 9110 5.1", field(name + b": evil"))
        for name in (b"X_Forwarded_For", b"X_Real_IP", b"x_request_id", b"Proxy_Authorization", b"_", b"x-auth_user")
    ),
]

WAIT = 0.03
EXPECT = POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
EARLY = b"POST /early HTTP/1.1\r\n" + HOST
EXPECTATIONS = [
    yes("100-continue is answered here", "RFC 9110 10.1.1", [EXPECT, WAIT, b"abc"], "POST /", lacks=(b"expect",), body=b"abc"),
    yes("100-continue and the body at once", "RFC 9110 10.1.1", EXPECT + b"abc", "POST /", lacks=(b"expect",), body=b"abc"),
    yes("100-Continue in another case", "RFC 9110 10.1.1", EXPECT.replace(b"100-c", b"100-C") + b"abc", "POST /", body=b"abc"),
    yes("100-continue without a body", "RFC 9110 10.1.1", field(b"Expect: 100-continue"), lacks=(b"expect",)),
    yes("100-continue twice", "RFC 9110 10.1.1", EXPECT[:-2] + b"Expect: 100-continue\r\n\r\nabc", "POST /", lacks=(b"expect",)),
    yes("100-continue that Connection names", "RFC 9110 7.6.1", EXPECT[:-2] + b"Connection: expect\r\n\r\nabc", "POST /", lacks=(b"expect",)),
    yes("100-continue in HTTP/1.0", "RFC 9110 10.1.1", EXPECT.replace(b"1.1", b"1.0") + b"abc", "POST /", lacks=(b"expect",)),
    yes("100-continue, chunked", "RFC 9110 10.1.1",
        [CHUNKED[:-2] + b"Expect: 100-continue\r\n\r\n", WAIT, b"3\r\nabc\r\n0\r\n\r\n"], "POST /", lacks=(b"expect",), body=b"abc"),
    *(
        no(f"Expect: {value.decode()}", "RFC 9110 10.1.1", EXPECT.replace(b"100-continue", value) + b"abc" + SMUGGLED)
        for value in (b"miracles", b"y 100-continue", b"100-continue, x", b"100-continue;a=b", b"100", b"100-continue, 100-continue")
    ),
    no("Expect over two lines", "RFC 9112 5.2", EXPECT.replace(b" 100-", b"\r\n 100-") + b"abc"),
    yes("Expect with an origin that says 100 itself", "RFC 9110 15.2", EXPECT.replace(b"/ ", b"/continue ") + b"abc", "POST /continue"),
    Case("an early answer to a body that never ends", "RFC 9112 9.6", EARLY + b"Content-Length: 500\r\n\r\nabc" + SMUGGLED, (200,)),
    Case("an early answer to a chunked body that never ends", "RFC 9112 9.6",
         EARLY + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" + b"1f4\r\n" + SMUGGLED, (200,)),
    Case("an early answer, then the rest", "RFC 9112 9.6",
         [EARLY + b"Content-Length: %d\r\n\r\nabc" % (3 + len(SMUGGLED)), WAIT, SMUGGLED], (200,)),
    Case("an early answer instead of 100 (Expect desync)", "RFC 9110 10.1.1",
         [EARLY + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED), WAIT, SMUGGLED], (200,)),
    yes("an early answer to a whole request", "RFC 9112 9.6", EARLY + b"Content-Length: 3\r\n\r\nabc", "POST /early", body=b"abc",
        bytewise=()),
    Case("an early answer, a request behind (double desync)", "RFC 9112 9.6",
         [EARLY + b"Content-Length: 60\r\n\r\n", WAIT, b"GET /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nX: y\r\n\r\n"], (200,)),
]

OLD = b"GET / HTTP/1.0\r\n" + HOST
HTTP_10 = [
    odd("HTTP/1.0", "RFC 9112 2.3", OLD + END + SMUGGLED, "GET /"),
    yes("HTTP/1.0, alone", "RFC 9112 2.3", OLD + END),
    yes("HTTP/1.0, kept alive", "RFC 9112 9.3", OLD + b"Connection: keep-alive\r\n\r\n", lacks=(b"\r\nconnection:",)),
    yes("HTTP/1.0, chunked from the origin", "RFC 9112 6.1", OLD.replace(b"/ ", b"/chunked ") + END, "GET /chunked"),
    yes("HTTP/1.0, 103 from the origin", "RFC 9110 15.2", OLD.replace(b"/ ", b"/interim ") + END, "GET /interim"),
    odd("HTTP/1.0, POST without a length (CVE-2026-2835)", "RFC 9112 6.3", POST.replace(b"1.1", b"1.0") + END + SMUGGLED, "POST /"),
    yes("HTTP/1.0, POST with a length", "RFC 9112 6.3", POST.replace(b"1.1", b"1.0") + SIZE + SMUGGLED, "POST /", body=SMUGGLED),
    yes("HTTP/1.0, an Upgrade", "RFC 9110 7.8", OLD + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" + SMUGGLED,
        lacks=(b"\r\nupgrade:",)),
    no("HTTP/1.0, chunked and kept alive", "RFC 9112 6.1",
       OLD + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
]

SWITCH = GET.replace(b"/ ", b"/ws ") + b"Connection: upgrade\r\nUpgrade: websocket\r\n"
UPGRADES = [
    Case("bytes behind an Upgrade reach the origin after its 101 (CVE-2026-2833)", "RFC 9110 7.8", SWITCH + END + SMUGGLED, (101,),
         ("GET /ws",)),
    yes("bytes behind an Upgrade that is declined", "RFC 9110 7.8", SWITCH.replace(b"/ws", b"/") + END + SMUGGLED, "GET /"),
    yes("an Upgrade to h2c", "RFC 9110 7.8", SWITCH.replace(b"websocket", b"h2c") + END + SMUGGLED, "GET /ws", lacks=(b"\r\nupgrade:",)),
    yes("an Upgrade to a list", "RFC 9110 7.8", SWITCH.replace(b"websocket", b"h2c, websocket") + END + SMUGGLED, "GET /ws",
        lacks=(b"\r\nupgrade:",)),
    yes("an Upgrade to anything", "RFC 9110 7.8", SWITCH.replace(b"websocket", b"x/1") + END + SMUGGLED, "GET /ws", lacks=(b"\r\nupgrade:",)),
    yes("an Upgrade that Connection does not name", "RFC 9110 7.8", field(b"Upgrade: websocket"), lacks=(b"\r\nupgrade:",)),
    yes("Connection: upgrade without Upgrade", "RFC 9110 7.8", field(b"Connection: upgrade"), lacks=(b"\r\nconnection:",)),
    yes("an Upgrade by POST", "RFC 9110 7.8", SWITCH.replace(b"GET", b"POST") + b"Content-Length: 3\r\n\r\nabc", "POST /ws",
        lacks=(b"\r\nupgrade:",), body=b"abc"),
    yes("an Upgrade with a body", "RFC 9110 7.8", SWITCH + SIZE + SMUGGLED, "GET /ws", lacks=(b"\r\nupgrade:",)),
    yes("an Upgrade with a chunked body", "RFC 9110 7.8", SWITCH + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "GET /ws",
        lacks=(b"\r\nupgrade:",)),
]

PIPELINES = [
    yes("three requests", "RFC 9112 9.3.2", b"".join(target(b"/%d" % i) for i in range(3)), "GET /0", "GET /1", "GET /2"),
    yes("forty requests", "RFC 9112 9.3.2", b"".join(target(b"/%d" % i) for i in range(40)), *(f"GET /{i}" for i in range(40))),
    yes("HEAD, then GET", "RFC 9112 6.3", b"HEAD /1 HTTP/1.1\r\n" + HOST + END + target(b"/2"), "HEAD /1", "GET /2",
        methods=(b"HEAD", b"GET")),
    yes("a body, then a request", "RFC 9112 9.3.2", POST + b"Content-Length: 3\r\n\r\nabc" + target(b"/2"), "POST /", "GET /2"),
    odd("a body that is longer than its length", "RFC 9112 9.3.2", POST + b"Content-Length: 3\r\n\r\nabc\0\r\n\r\n", "POST /"),
    odd("garbage behind a request", "RFC 9112 9.3.2", GET + END + b"\0\0\0\0\r\n\r\n", "GET /"),
    odd("a bad request behind a good one", "RFC 9112 9.3.2", GET + END + POST + b"Content-Length: x\r\n\r\n" + SMUGGLED, "GET /"),
    Case("204, then a request", "RFC 9112 6.3", target(b"/204") + target(b"/2"), (204, 200), ("GET /204", "GET /2")),
    Case("304, then a request", "RFC 9112 6.3", target(b"/304") + target(b"/2"), (304, 200), ("GET /304", "GET /2")),
    yes("a body without a length, then a request", "RFC 9112 6.3", target(b"/close") + target(b"/2"), "GET /close", "GET /2"),
    yes("empty lines between requests", "RFC 9112 2.2", GET + END + END + END + target(b"/2"), "GET /", "GET /2"),
]

SIZES = [
    no("a long request line", "RFC 9112 3", target(b"/" + b"a" * 9000), 414),
    no("a long field", "RFC 6585 5", field(b"X: " + b"a" * 9000), 431),
    no("a long name", "RFC 6585 5", field(b"X" * 9000 + b": a"), 431),
    no("many fields", "RFC 6585 5", field(b"\r\n".join([b"X: y"] * 120)), 431),
    no("a large head", "RFC 6585 5", field(b"\r\n".join([b"X: " + b"y" * 2000] * 40)), 431),
    no("10,000 fields", "RFC 6585 5", field(b"\r\n".join([b"X:"] * 10_000)), 431),
]

FAMILIES: dict[str, list[Case]] = {
    "Request line, line ends": REQUEST_LINE,
    "Field syntax": FIELDS,
    "Host, forms of the target": HOSTS,
    "One form of a path": PATHS,
    "Content-Length": LENGTHS,
    "Transfer-Encoding": CODINGS,
    "Chunks": CHUNKS,
    "Trailers": TRAILERS,
    "Hop-by-hop, forwarded and underscored fields": HOPS,
    "Expect, early answers": EXPECTATIONS,
    "HTTP/1.0": HTTP_10,
    "Upgrade": UPGRADES,
    "Pipelining, reuse": PIPELINES,
    "Sizes": SIZES,
}
