"""The recording parser takes what is plain and refuses what the clauses name: else the suite beside it would prove nothing."""

import pytest

from tests.attacks.strict import AmbiguousError, read_requests, read_responses

GET = b"GET /a?b=%2f HTTP/1.1\r\nhost: a:80\r\nx: y\t z\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\n"
OK = b"HTTP/1.1 200 OK\r\n"

REQUESTS = {
    # what came: the bodies of the whole requests, and what is left
    "one": (GET, [b""], b""),
    "two": (GET + POST + b"content-length: 3\r\n\r\nabc", [b"", b"abc"], b""),
    "chunked": (POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + GET, [b"abc", b""], b""),
    "trailers": (POST + b"transfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n", [b""], b""),
    "upgrade": (GET[:-2] + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n", [b""], b""),
    "options": (b"OPTIONS * HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n", [b""], b""),
    "half a head": (GET + GET[:-3], [b""], GET[:-3]),
    "half a body": (POST + b"content-length: 3\r\n\r\nab", [], POST + b"content-length: 3\r\n\r\nab"),
    "half a chunk": (
        POST + b"transfer-encoding: chunked\r\n\r\n3\r\nab",
        [],
        POST + b"transfer-encoding: chunked\r\n\r\n3\r\nab",
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_plain_requests(case: str) -> None:
    data, bodies, rest = REQUESTS[case]
    found, left = read_requests(data)
    assert [message.body for message in found] == bodies
    assert left == rest


AMBIGUOUS_REQUESTS = {
    "RFC 9112 2.2": [GET.replace(b"\r\n", b"\n"), GET.replace(b"y\t", b"y\r"), GET.replace(b"y\t", b"\0"), b"GET / HT\nTP"],
    "RFC 9112 3": [b"\r\n" + GET, GET.replace(b"1.1", b"1.0"), GET.replace(b" /", b"  /"), b"GET /\r\nhost: a\r\n\r\n"],
    "RFC 9112 3.1": [b"G(T / HTTP/1.1\r\nhost: a\r\n\r\n", b" / HTTP/1.1\r\nhost: a\r\n\r\n"],
    "RFC 9112 3.2": [
        *(GET.replace(b"/a?", target) for target in (b"http://a/?", b"a", b"/\xff", b"/#", b"*")),
        *(GET.replace(b"a:80", host) for host in (b"", b"a,b", b"u@a", b"a/b", b"a:80:80", b"a\r\nhost: a")),
    ],
    "RFC 9112 5": [GET.replace(b"x: y", b"xy")],
    "RFC 9112 5.1": [GET.replace(b"x:", b"x :"), GET.replace(b"x:", b":"), GET.replace(b"x:", b"x(:")],
    "RFC 9112 5.2": [GET.replace(b"x:", b" x:"), GET.replace(b" z", b"\r\n z")],
    "RFC 9110 5.5": [GET.replace(b" z", b"\x01z"), GET.replace(b" z", b"\x7fz")],
    "RFC 9110 7.6.1": [
        GET.replace(b"x:", name + b":") for name in (b"keep-alive", b"proxy-connection", b"http2-settings", b"connection")
    ],
    "RFC 9110 7.8": [GET.replace(b"x:", b"upgrade:"), GET.replace(b"x: y\t z", b"connection: upgrade")],
    "RFC 9110 10.1.4": [GET.replace(b"x:", b"te:")],
    "RFC 9110 8.6": [
        POST + b"content-length: " + value + b"\r\n\r\nabc" for value in (b"+3", b"0x3", b"3,3", b"-3", b"", b"3" * 19, b"3 3")
    ],
    "RFC 9112 6.3": [
        POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    "RFC 9112 6.1": [
        POST + b"transfer-encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        for coding in (
            b"gzip, chunked",
            b"chunked, chunked",
            b"identity",
            b"xchunked",
            b"chunked\r\ntransfer-encoding: chunked",
        )
    ],
    "RFC 9112 7.1": [
        POST + b"transfer-encoding: chunked\r\n\r\n" + chunks
        for chunks in (
            b"3;a=b\r\nabc\r\n0\r\n\r\n",
            b"3 \r\nabc\r\n",
            b"3\r\nabcd\r\n0\r\n",
            b"-3\r\n",
            b"\r\n",
            b"3\nabc",
            b"f" * 16 + b"\r\n",
        )
    ],
    "RFC 9110 6.5.1": [POST + b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 3\r\n\r\n"],
}


@pytest.mark.parametrize(("clause", "data"), [(clause, data) for clause, all_ in AMBIGUOUS_REQUESTS.items() for data in all_])
def test_ambiguous_requests(clause: str, data: bytes) -> None:
    with pytest.raises(AmbiguousError) as caught:
        read_requests(data)
    assert caught.value.clause == clause


RESPONSES = {
    "sized": (OK + b"content-length: 2\r\n\r\nok", b"GET", b"ok"),
    "chunked": (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"GET", b"ok"),
    "until close": (OK + b"connection: close\r\n\r\nok", b"GET", b"ok"),
    "HEAD": (OK + b"content-length: 2\r\n\r\n", b"HEAD", b""),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", b""),
    "304": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n", b"GET", b""),
    "103": (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK + b"content-length: 0\r\n\r\n", b"GET", b""),
}


@pytest.mark.parametrize("case", RESPONSES)
def test_plain_responses(case: str) -> None:
    data, method, body = RESPONSES[case]
    found, left = read_responses(data, [method])
    assert [message.body for message in found] == [body]
    assert left == b""


AMBIGUOUS_RESPONSES = {
    "RFC 9112 4": [b"HTTP/1.1 99 X\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 2000 X\r\n\r\n", b"HTTP/1.1 200\r\n\r\n"],
    "RFC 9110 8.6": [b"HTTP/1.1 204 X\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 103 X\r\ncontent-length: 0\r\n\r\n"],
    "RFC 9112 6.3": [OK + b"\r\nok"],
    "RFC 9112 9.2": [(OK + b"content-length: 0\r\n\r\n") * 2, OK + b"content-length: 1\r\n\r\nok"],
    "RFC 9112 9.6": [OK + b"content-length: 0\r\nconnection: close\r\n\r\nx"],
}


@pytest.mark.parametrize(("clause", "data"), [(clause, data) for clause, all_ in AMBIGUOUS_RESPONSES.items() for data in all_])
def test_ambiguous_responses(clause: str, data: bytes) -> None:
    with pytest.raises(AmbiguousError) as caught:
        read_responses(data, [b"GET"])
    assert caught.value.clause == clause
