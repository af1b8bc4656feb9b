"""The head of a callout as it goes out; cases from a run of Envoy 1.40, except where a comment says otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.callout_head import InvalidHeadError, MissingError, RequestHead

BASE = [(b":method", b"POST"), (b":path", b"/x"), (b":authority", b"auth.test")]


def written(*fields: tuple[bytes, bytes], method: bytes = b"POST", length: int = 0) -> bytes:
    """The header lines behind host."""
    head = RequestHead([(b":method", method), *BASE[1:], *fields])
    start = b"%s /x HTTP/1.1\r\nhost: auth.test\r\n" % method
    data = head.write(head.authority, length)
    assert data.startswith(start)
    assert data.endswith(b"\r\n\r\n")
    return data[len(start) : -2]


@pytest.mark.parametrize(
    ("fields", "length", "lines"),
    [
        ([], 0, b"content-length: 0\r\n"),
        ([], 5, b"content-length: 5\r\n"),
        ([(b"A", b"1"), (b"b", b"2"), (b"a", b"3")], 5, b"a: 1\r\nb: 2\r\na: 3\r\ncontent-length: 5\r\n"),
        ([(b"accept", b"1"), (b"x", b"2"), (b"Accept", b"3")], 1, b"accept: 1,3\r\nx: 2\r\ncontent-length: 1\r\n"),
        ([(b"cookie", b"1"), (b"cookie", b"2")], 1, b"cookie: 1\r\ncookie: 2\r\ncontent-length: 1\r\n"),
        ([(b"content-length", b"99"), (b"z", b"1")], 3, b"content-length: 3\r\nz: 1\r\n"),
        ([(b"content-length", b"1"), (b"content-length", b"2")], 3, b"content-length: 3\r\n"),
        ([(b":scheme", b"https"), (b":status", b"200"), (b":foo", b"1\r\n")], 0, b"content-length: 0\r\n"),
        ([(b"", b"1")], 0, b"content-length: 0\r\n"),
        ([(b"x-forwarded-for", b"9.9.9.9")], 1, b"x-forwarded-for: 9.9.9.9\r\ncontent-length: 1\r\n"),
        ([(b"x", b"a\tb \xff")], 1, b"x: a\tb \xff\r\ncontent-length: 1\r\n"),
        # Envoy passes these on
        ([(b"content-length", b"99")], 0, b"content-length: 0\r\n"),
        ([(b"Transfer-Encoding", b"chunked")], 5, b"content-length: 5\r\n"),
        ([(b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"y", b"2")], 1, b"y: 2\r\ncontent-length: 1\r\n"),
        ([(b"connection", b"content-length")], 5, b"content-length: 5\r\n"),
        (
            [(b"te", b"a"), (b"upgrade", b"a"), (b"expect", b"100-continue"), (b"trailer", b"a"), (b"keep-alive", b"3")],
            1,
            b"content-length: 1\r\n",
        ),
        ([(b"proxy-connection", b"a"), (b"http2-settings", b"a")], 1, b"content-length: 1\r\n"),
    ],
)
def test_fields(fields: list[tuple[bytes, bytes]], length: int, lines: bytes) -> None:
    assert written(*fields, length=length) == lines


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"TRACE"])
def test_some_methods_have_no_length_without_a_body(method: bytes) -> None:
    assert written(method=method) == b""
    assert written((b"content-length", b"7"), method=method) == b""
    assert written(method=method, length=2) == b"content-length: 2\r\n"


@pytest.mark.parametrize("missing", [b":method", b":path", b":authority"])
def test_a_missing_pseudo_header(missing: bytes) -> None:
    with pytest.raises(MissingError, match=missing.decode()):
        RequestHead([pair for pair in BASE if pair[0] != missing])


def test_host_is_authority_and_repetitions_join() -> None:
    assert RequestHead([*BASE[:2], (b"Host", b"h")]).authority == b"h"
    assert RequestHead([*BASE, (b"host", b"other")]).authority == b"auth.test,other"
    assert RequestHead([*BASE, (b":path", b"/b")]).path == b"/x,/b"


@pytest.mark.parametrize(
    ("pairs", "body"),
    [
        ([(b"x", b"a\r\ny: b")], b"invalid header value for: x"),
        ([(b"x", b"a\nb")], b"invalid header value for: x"),
        ([(b"X", b"a\0b")], b"invalid header value for: x"),
        ([(b"x", b"a\x7fb")], b"invalid header value for: x"),
        ([(b"x\r\ny", b"1")], b"invalid header name: x\\r\\ny"),
        ([(b"x y", b"1")], b"invalid header name: x y"),
        ([(b"z\0\x7f\xff", b"1")], b"invalid header name: z\\u0000\x7f\xff"),
        ([(b'x"\\', b"1")], b'invalid header name: x\\"\\\\'),
        ([(b"x y", b"1"), (b"x", b"\n")], b"invalid header name: x y"),
        ([(b":path", b"\n")], b"invalid header value for: :path"),
        ([(b":method", b"\nT")], b"invalid header value for: :method"),
        ([(b":authority", b"\nb")], b"invalid header value for: :authority"),
        # Envoy sends these
        ([(b":path", b" HTTP/1.1")], b"invalid header value for: :path"),
        ([(b":path", b"#b")], b"invalid header value for: :path"),
        ([(b":method", b" /y HTTP/1.1")], b"invalid header value for: :method"),
        ([(b":authority", b"@b")], b"invalid header value for: :authority"),
        ([(b":authority", b" b")], b"invalid header value for: :authority"),
        ([(b":authority", b"/b")], b"invalid header value for: :authority"),
    ],
)
def test_what_cannot_be_written(pairs: list[tuple[bytes, bytes]], body: bytes) -> None:
    head = RequestHead([*BASE, *pairs])
    with pytest.raises(InvalidHeadError) as invalid:
        head.write(head.authority, 0)
    assert invalid.value.body == body


@pytest.mark.parametrize("path", [b"", b"x", b"http://h/x", b"*", b"x:443", b"/a b", b"/a\tb", b"/#"])
def test_only_a_path_is_a_path(path: bytes) -> None:
    """Envoy writes all of these."""
    head = RequestHead([(b":method", b"GET"), (b":path", path), (b":authority", b"a")])
    with pytest.raises(InvalidHeadError, match="path"):
        head.write(b"a", 0)


def test_options_may_ask_the_server_itself() -> None:
    head = RequestHead([(b":method", b"OPTIONS"), (b":path", b"*"), (b":authority", b"a")])
    assert head.write(b"a", 0) == b"OPTIONS * HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"


def test_connect_is_refused() -> None:
    head = RequestHead([(b":method", b"CONNECT"), (b":path", b"/"), (b":authority", b"a:80")])
    with pytest.raises(InvalidHeadError) as invalid:
        head.write(b"a:80", 0)
    assert invalid.value.body == b"missing required header: :protocol"


KNOWN = [b":path", b"host", b"content-length", b"transfer-encoding", b"connection", b"x"]
NAMES = st.sampled_from(KNOWN) | st.binary(max_size=6)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=12)), max_size=6), st.integers(0, 20))
def test_whatever_is_written_is_one_request_of_the_body_s_length(fields: list[tuple[bytes, bytes]], length: int) -> None:
    head = RequestHead([*BASE, *fields])
    try:
        data = head.write(b"auth.test", length)
    except InvalidHeadError:
        return
    assert data.endswith(b"\r\n\r\n")
    lines = data[:-4].split(b"\r\n")
    assert lines[0] == b"POST %s HTTP/1.1" % head.path
    names = [line.partition(b": ")[0] for line in lines[1:]]
    assert not any(set(line) & set(b"\r\n\0") for line in lines)
    assert names.count(b"host") == 1
    assert lines[1] == b"host: auth.test"
    assert [line for line in lines if line.startswith(b"content-length")] == [b"content-length: %d" % length]
    assert b"transfer-encoding" not in names
    assert b"connection" not in names
