"""The stream memory: streams that take turns in it, and heads in and out."""

import random
import re
import struct

import pytest
import wasmtime
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from proxy.abi import memory as m
from proxy.abi.proxy_wasm.load import CORE
from proxy.wasm.engine import Engine
from proxy.wasm.settings import engine_config
from tests.abi.guest import RESPONSE

LAW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def memory():
    compiler = wasmtime.Engine(engine_config())
    engine = Engine(m.memory_type())
    modules = [engine.load(bytes(wasmtime.Module(compiler, text).serialize())) for text in (CORE.read_bytes(), m.EMPTY_LINK)]
    memory = m.StreamMemory(engine, *modules)
    yield memory
    memory.close()
    engine.close()


@pytest.fixture(scope="module")
def handles(memory):
    """Options by name: what a listener may want of its heads."""
    plain = m.HeadOptions(forwarded="off", request_id="off", via=None)
    return {
        "off": memory.options(plain),
        "default": memory.options(m.HeadOptions()),
        "replace": memory.options(m.HeadOptions(forwarded="replace", request_id="replace", via="gate", scheme="https")),
        "trailers": memory.options(plain._replace(trailers=True)),
    }


HOST = (b"Host", b"test")


def load(memory, handles, fields=(HOST,), method=b"GET", target=b"/", options="off", peer=b"192.0.2.1", request_id=b"id"):
    region = memory.begin()
    memory.load_request(tuple(fields), method, target, handles[options], peer, request_id)
    return region


# ---- Pairs ----

pairs_strategy = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40)), max_size=20)


@LAW
@given(pairs_strategy)
def test_decoding_undoes_encoding(pairs):
    assert m.decode_pairs(m.encode_pairs(pairs)) == pairs


@LAW
@given(pairs_strategy, st.data())
def test_every_cut_or_lengthened_block_is_refused(pairs, data):
    block = m.encode_pairs(pairs)
    cut = data.draw(st.integers(1, len(block)))
    assert m.decode_pairs(block[:-cut]) in ([], None)
    assert m.decode_pairs(block[:-cut]) is None or cut == len(block)
    assert m.decode_pairs(block + b"\0") is None


@LAW
@given(st.binary(max_size=200))
def test_what_decodes_is_what_encodes_to_it(block):
    pairs = m.decode_pairs(block)
    assert pairs is None or block == b"" or m.encode_pairs(pairs) == block


def test_the_digest_s_example():
    block = bytes.fromhex("02000000 01000000 01000000 01000000 02000000 61003100 6200323200")
    assert m.decode_pairs(block) == [(b"a", b"1"), (b"b", b"22")]
    assert m.encode_pairs([(b"a", b"1"), (b"b", b"22")]) == block


@pytest.mark.parametrize(("count", "fine"), [(1024, True), (1025, False)])
def test_pairs_are_limited_in_number(count, fine):
    assert (m.decode_pairs(m.encode_pairs([(b"a", b"")] * count)) is not None) == fine


def test_pairs_are_limited_in_bytes():
    assert m.decode_pairs(m.encode_pairs([(b"a", b"x" * ((1 << 20) - 15))])) is not None
    assert m.decode_pairs(m.encode_pairs([(b"a", b"x" * ((1 << 20) - 14))])) is None


@LAW
@given(st.binary(max_size=120))
def test_the_core_decodes_as_python_does(memory, block):
    region = memory.begin_empty()
    memory.write_scratch(block)
    memory.store.call(memory.functions["map_set_pairs"], 1, len(block))
    expected = [(k.lower(), v) for k, v in m.decode_pairs(block) or []]
    pseudo = [pair for pair in expected if pair[0].startswith(b":")]
    assert memory.pairs(1) == pseudo + [pair for pair in expected if not pair[0].startswith(b":")]
    memory.release(region)


# ---- Streams that take turns ----

names = st.sampled_from([b"a", b"b", b"x-long-name-" * 4, b":new"])
values = st.one_of(st.binary(max_size=10), st.integers(1000, 120_000).map(lambda n: b"v" * n))


@LAW
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.lists(st.tuples(names, values), max_size=6)), max_size=12))
def test_streams_that_take_turns_do_not_touch_each_other(memory, steps):
    """Maps of three streams, set in any order, against plain lists. What is set a hundred times is compacted."""
    regions = [memory.begin_empty() for _ in range(3)]
    model = {(stream, map_): [] for stream in range(3) for map_ in range(4)}
    for stream, map_, pairs in steps:
        memory.attach(regions[stream])
        for _ in range(4):
            memory.set_pairs(map_, pairs)
        model[stream, map_] = [p for p in pairs if p[0][:1] == b":"] + [p for p in pairs if p[0][:1] != b":"]
        for other in range(4):
            assert memory.pairs(other) == model[stream, other]
    for stream, region in enumerate(regions):
        memory.attach(region)
        for map_ in range(4):
            assert memory.pairs(map_) == model[stream, map_]
            for name in {name for name, _ in model[stream, map_]}:
                assert memory.get(map_, name) == dict(reversed(model[stream, map_]))[name]
    for region in regions:
        memory.release(region)


def test_a_released_stream_is_an_empty_one(memory, handles):
    """Not what the last live one left."""
    one = load(memory, handles, [HOST, (b"x-one", b"secret")])
    two = load(memory, handles, [HOST, (b"x-two", b"secret")])
    memory.release(one)
    memory.attach(one)
    assert [memory.pairs(map_) for map_ in range(4)] == [[], [], [], []]
    memory.attach(two)
    assert memory.get(0, b"x-two") == b"secret"


def test_a_snapshot_holds_what_lives_and_little_more(memory, handles):
    one = load(memory, handles)
    for i in range(200):
        memory.set_pairs(0, [(b"a", bytes([i]) * 50_000)])
    memory.begin()
    assert len(one.snapshot) < 4 << 20
    memory.attach(one)
    assert memory.pairs(0) == [(b"a", bytes([199]) * 50_000)]


def test_edited_says_which_maps_filters_have_edited(memory, handles):
    load(memory, handles)
    assert not any(memory.edited(map_) for map_ in range(4))


def test_persistent_room_has_an_end(memory):
    top = memory.persistent_top
    with pytest.raises(MemoryError):
        memory.keep(bytes(memory.at.persistent_size))
    assert memory.persistent_top == top


# ---- Requests in ----


def test_the_pseudo_headers_come_first(memory, handles):
    fields = [(b"User-Agent", b"ua"), HOST, (b"X-A", b"1"), (b"x-a", b"2"), (b"Connection", b"keep-alive"), (b"x-e", b"")]
    load(memory, handles, fields, b"GET", b"/a?b=1")
    assert memory.pairs(0) == [
        (b":authority", b"test"), (b":path", b"/a?b=1"), (b":method", b"GET"), (b":scheme", b"http"),
        (b"user-agent", b"ua"), (b"x-a", b"1"), (b"x-a", b"2"), (b"x-e", b""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "fields", "expected"),
    [
        ("off", [], {}),
        (
            "default",
            [],
            {
                b"x-forwarded-for": b"192.0.2.1",
                b"x-forwarded-proto": b"http",
                b"x-forwarded-host": b"test",
                b"x-request-id": b"id",
                b"via": b"1.1 penstock",
            },
        ),
        (
            "default",
            [
                (b"X-Forwarded-For", b"a"),
                (b"x-forwarded-proto", b"https"),
                (b"x-request-id", b"mine"),
                (b"via", b"1.0 x"),
                (b"x-forwarded-host", b"h"),
            ],
            {
                b"x-forwarded-for": b"a,192.0.2.1",
                b"x-forwarded-proto": b"https",
                b"x-forwarded-host": b"h",
                b"x-request-id": b"mine",
                b"via": b"1.0 x,1.1 penstock",
            },
        ),
        (
            "replace",
            [(b"X-Forwarded-For", b"a"), (b"x-forwarded-for", b"b"), (b"x-request-id", b"mine"), (b"x-forwarded-host", b"h")],
            {
                b"x-forwarded-for": b"192.0.2.1",
                b"x-forwarded-proto": b"https",
                b"x-forwarded-host": b"test",
                b"x-request-id": b"id",
                b"via": b"1.1 gate",
            },
        ),
        ("default", [(b"x-request-id", b"not sound")], {b"x-request-id": b"id"}),
        ("default", [(b"x-request-id", b"")], {b"x-request-id": b"id"}),
        ("default", [(b"x-request-id", b"x" * 129)], {b"x-request-id": b"id"}),
    ],
)
def test_what_the_listener_adds(memory, handles, options, fields, expected):
    load(memory, handles, [HOST, *fields], options=options)
    found = dict(memory.pairs(0)[4:])
    assert {name: found.get(name) for name in expected} == expected
    assert options != "off" or found == {}


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ([(b"Connection", b"close, X-Drop"), (b"x-drop", b"1"), (b"x-keep", b"2")], [(b"x-keep", b"2")]),
        ([(b"Connection", b"x-a,,\t x-b ,"), (b"x-a", b"1"), (b"X-B", b"2"), (b"x-a", b"3")], []),
        ([(b"Connection", b"a"), (b"connection", b"b"), (b"a", b"1"), (b"b", b"2")], []),
        ([(b"Connection", b":path, :authority, host"), (b"x", b"1")], [(b"x", b"1")]),
        ([(b"TE", b"trailers"), (b"Trailer", b"x"), (b"Keep-Alive", b"1"), (b"Proxy-Connection", b"x")], []),
        ([(b"Transfer-Encoding", b"chunked"), (b"x", b"1")], [(b"x", b"1")]),
        ([(b"Expect", b"100-Continue")], []),
    ],
)
def test_hop_by_hop_fields_end_here(memory, handles, fields, left):
    load(memory, handles, [HOST, *fields])
    assert memory.pairs(0)[4:] == left


TE_SENT = b"te: trailers\r\nconnection: te\r\n"


@pytest.mark.parametrize(
    ("fields", "left", "sent"),
    [
        ([(b"TE", b"trailers")], [(b"te", b"trailers")], TE_SENT),
        ([(b"Connection", b"te"), (b"te", b"deflate;q=0.5 ,\tTrailers")], [(b"te", b"trailers")], TE_SENT),
        ([(b"TE", b"gzip"), (b"te", b"trailers"), (b"te", b"trailers")], [(b"te", b"trailers")], TE_SENT),
        ([(b"TE", b"trailersx"), (b"TE", b"trailer"), (b"TE", b"trailers;q=1"), (b"TE", b"")], [], b""),
        (
            [(b"Trailer", b"x-a"), (b"trailer", b"x-b")],
            [(b"trailer", b"x-a"), (b"trailer", b"x-b")],
            b"trailer: x-a\r\ntrailer: x-b\r\n",
        ),
        ([(b"Connection", b"trailer"), (b"trailer", b"x")], [], b""),
    ],
)  # fmt: skip
def test_te_and_trailer_where_trailers_are_passed_on(memory, handles, fields, left, sent):
    load(memory, handles, [HOST, *fields], method=b"POST", options="trailers")
    assert memory.pairs(0)[4:] == left
    start = b"POST / HTTP/1.1\r\nhost: test\r\n"
    assert memory.emit_request(m.PASS_TRAILERS).data == start + sent + b"transfer-encoding: chunked\r\n\r\n"
    assert memory.emit_request(0).data == start + b"transfer-encoding: chunked\r\n\r\n"
    # Without a chunked body nothing is announced.
    assert b"trailer:" not in memory.emit_request(m.PASS_TRAILERS | m.END_STREAM).data


@pytest.mark.parametrize("flags", [m.END_STREAM, m.HEAD_REQUEST, m.HTTP_10, 0])
def test_trailer_of_a_response(memory, handles, flags):
    load(memory, handles)
    memory.load_response(200, [(b"Trailer", b"x"), (b"te", b"trailers")], handles["trailers"])
    assert (b"trailer", b"x") in memory.pairs(2)
    assert (b"\r\ntrailer: x\r\n" in memory.emit_response(flags | m.PASS_TRAILERS).data) == (flags == 0)
    assert b"trailer" not in memory.emit_response(flags).data
    memory.load_response(200, [(b"Trailer", b"x")], handles["off"])
    assert memory.pairs(2) == [(b":status", b"200")]


def test_a_filter_may_not_write_another_te(memory, handles):
    load(memory, handles, options="trailers")
    pairs = memory.pairs(0)
    memory.set_pairs(0, [*pairs, (b"te", b"gzip"), (b"te", b"trailers")])
    assert b"\r\nte:" not in memory.emit_request(m.PASS_TRAILERS | m.END_STREAM).data
    memory.set_pairs(0, [*pairs, (b"te", b"trailers")])
    assert (
        memory.emit_request(m.PASS_TRAILERS | m.END_STREAM).data
        == b"GET / HTTP/1.1\r\nhost: test\r\nte: trailers\r\nconnection: te\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("target", "fields", "authority", "path"),
    [
        (b"http://abs.example:81/x", [HOST], b"abs.example:81", b"/x"),
        (b"HTTPS://abs.example", [HOST], b"abs.example", b"/"),
        (b"http://abs.example?q", [HOST], b"abs.example", b"/?q"),
        (b"http://[2001:db8::1]:8080/", [HOST], b"[2001:db8::1]:8080", b"/"),
        (b"http://abs.example/", [], None, None),
        (b"http://abs.example/", [(b"Host", b"u@b")], None, None),
        (b"/x?y#", [HOST], None, None),
        (b"*", [HOST], b"test", b"*"),
        (b"http:///x", [HOST], None, None),
        (b"http://user@host/", [HOST], None, None),
        (b"ftp://host/", [HOST], None, None),
        (b"host:80", [HOST], None, None),
        (b"", [HOST], None, None),
        (b"/a b", [HOST], None, None),
        (b"/a\nb", [HOST], None, None),
        (b"/a\x7f", [HOST], None, None),
        (b"/", [], None, None),
        (b"/", [HOST, HOST], None, None),
        (b"http://a/", [HOST, HOST], None, None),
        (b"/", [(b"host", b"")], None, None),
        (b"/", [(b"host", b"a,b")], None, None),
        (b"/", [(b"host", b"a b")], None, None),
        (b"/", [(b"host", b"a/b")], None, None),
        (b"/", [(b"host", b"a@b")], None, None),
        (b"/", [(b"host", b"a:port")], None, None),
        (b"/", [(b"host", b"a:123456")], None, None),
        (b"/", [(b"host", b"[::1")], None, None),
        (b"/", [(b"host", b"[]")], None, None),
        (b"/", [(b"host", b"[::1]x")], None, None),
        (b"/", [(b"host", b":80")], None, None),
        (b"/", [(b"host", b"a:80")], b"a:80", b"/"),
    ],
)
def test_targets_and_hosts(memory, handles, target, fields, authority, path):
    if authority is None:
        with pytest.raises(m.HeadError):
            load(memory, handles, fields, target=target)
    else:
        load(memory, handles, fields, target=target)
        assert (memory.get(0, b":authority"), memory.get(0, b":path")) == (authority, path)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"te", b"x"), (b"a", b"b\nc\nd")],  # a dropped field must not hide the two that a separator makes
        [(b"a", b"b\nx-smuggled: 1")],
        [(b"a\nb", b"c")],
        [(b"a", b"\n")],
        [(b"", b"v")],
        [(b":path", b"/x")],
        [(b"a b", b"c")],
        [(b"a", b"b\rc")],
        [(b"a", b"b\0c")],
        [(b"expect", b"something")],
        [(b"connection", b"a")] * 5,
    ],
)
def test_fields_that_no_parser_should_pass(memory, handles, fields):
    with pytest.raises(m.HeadError):
        load(memory, handles, [HOST, *fields])


@pytest.mark.parametrize(
    ("fields", "fine"),
    [
        ([(b"x%d" % i, b"v" * 100) for i in range(2000)], True),
        ([(b"x", b"v" * 900_000)], True),
        ([(b"x", b"v" * (2 << 20))], False),
        ([(b"x", b"")] * 20_000, False),
        ([(b"x", b"v" * 20_000_000)], False),
    ],
    ids=["many", "long", "too long", "too many", "longer than the memory"],
)
def test_large_heads(memory, handles, fields, fine):
    """A listener may allow more than the stream memory takes: that is refused, and not a defect."""
    if fine:
        load(memory, handles, [HOST, *fields], options="default")
        assert memory.pairs(0)[4 : 4 + len(fields)] == fields
    else:
        with pytest.raises(m.HeadError, match="too large"):
            load(memory, handles, [HOST, *fields], options="default")
    load(memory, handles)
    assert len(memory.pairs(0)) == 4


def test_a_response_that_arrives_when_the_arena_is_nearly_full(memory, handles):
    """What arrives must survive the compaction that it needs."""
    fields = [(b"x%d" % i, b"%d" % i * 30) for i in range(90)]
    for size in range(3_600_000, 4_190_000, 49_999):
        load(memory, handles)
        while memory.words_at(memory.at.stream, 1)[0] - memory.at.arena < size:
            memory.set_pairs(1, [(b"a", b"v" * 40_000)])
        memory.load_response(200, fields)
        assert memory.pairs(2) == [(b":status", b"200"), *fields]
        assert memory.pairs(1) == [(b"a", b"v" * 40_000)]
        assert memory.get(0, b":authority") == b"test"


# ---- Heads out ----

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def parse(data, response):
    """A strict parser: (first line, fields, framing). Whatever could be read in two ways is an AssertionError."""
    assert data.endswith(b"\r\n\r\n")
    lines = data[:-4].split(b"\r\n")
    for line in lines:
        assert not re.search(rb"[\0\r\n]", line)
    first, *rest = lines
    fields = []
    for line in rest:
        name, colon, value = line.partition(b": ")
        assert colon
        assert TOKEN.fullmatch(name)
        assert name == name.lower()
        assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value)
        fields.append((name, value))
    every = [name for name, _ in fields]
    for name in (b"content-length", b"transfer-encoding", b"host", b"connection"):
        assert every.count(name) <= 1, name
    found = dict(fields)
    assert not (b"content-length" in found and b"transfer-encoding" in found)
    assert found.get(b"transfer-encoding", b"chunked") == b"chunked"
    assert re.fullmatch(rb"[0-9]+", found.get(b"content-length", b"0"))
    assert not {b"te", b"trailer", b"keep-alive", b"proxy-connection", b"upgrade"} & set(every)
    if response:
        assert re.fullmatch(rb"HTTP/1\.1 [2-9][0-9][0-9] [ -~]*", first)
    else:
        assert re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^\x00-\x20\x7f]+ HTTP/1\.1", first)
        assert every[0] == b"host"
    return first, fields, found


def framing_said(found, head):
    if b"transfer-encoding" in found:
        return m.FRAMING_CHUNKED
    if head.framing == m.FRAMING_CLOSE:
        assert found[b"connection"] == b"close"
        assert b"content-length" not in found
        return m.FRAMING_CLOSE
    if b"content-length" in found and head.framing == m.FRAMING_LENGTH:
        assert int(found[b"content-length"]) == head.length
        return m.FRAMING_LENGTH
    return m.FRAMING_NONE


nasty = st.one_of(
    st.sampled_from(
        [
            b"content-length",
            b"Content-Length",
            b"transfer-encoding",
            b"connection",
            b"host",
            b":path",
            b":method",
            b":authority",
            b":status",
            b":x",
            b"te",
            b"upgrade",
            b"keep-alive",
            b"trailer",
            b"x-a",
            b"date",
            b"",
            b" ",
            b"a b",
            b"a:",
            b"content-length ",
        ]
    ),
    st.binary(max_size=8),
)
text = st.one_of(
    st.sampled_from([
        b"5", b"0", b"05", b"+5", b"5, 5", b"-1", b"18446744073709551621", b"999999999999999999", b"chunked", b"close", b"200",
        b"204", b"304", b"100", b"101", b"99", b"1000", b"/", b"/x?y", b"*", b"GET", b"HEAD", b"CONNECT", b"a.example", b"a b",
        b"x\r\ny: z", b"x\ny", b"x\0", b"x\x7f", b"12345678\n", b"1234567\r12345678", b"\xff\xfe", b"",
    ]),
    st.binary(max_size=20),
)  # fmt: skip
junk = st.lists(st.tuples(nasty, text), max_size=8)
GOOD_REQUEST = [(b":authority", b"test"), (b":path", b"/"), (b":method", b"POST"), (b":scheme", b"http")]
shuffled = st.randoms(use_true_random=False)


@settings(LAW, max_examples=500)
@given(junk, shuffled, st.sampled_from([0, m.END_STREAM]))
@example([(b"content-length", b"5"), (b"content-length", b"6")], random.Random(0), 0)
@example([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], random.Random(0), 0)
def test_whatever_a_filter_writes_is_one_request_or_none(memory, handles, pairs, shuffle, flags):
    load(memory, handles)
    every = GOOD_REQUEST + pairs
    shuffle.shuffle(every)
    memory.set_pairs(0, every)
    try:
        head = memory.emit_request(flags)
    except m.HeadError:
        return
    _, fields, found = parse(head.data, False)
    assert framing_said(found, head) == head.framing
    if not flags:
        assert head.framing in (m.FRAMING_LENGTH, m.FRAMING_CHUNKED)
    else:
        assert found.get(b"content-length", b"0") == b"0"
    kept = [(k.lower(), v) for k, v in every]
    for name, value in fields:  # nothing is made up
        assert (name, value) in kept or name in (b"host", b"content-length", b"transfer-encoding")


@settings(LAW, max_examples=500)
@given(junk, shuffled, st.lists(st.sampled_from([m.END_STREAM, m.HEAD_REQUEST, m.HTTP_10, m.CLOSE]), unique=True))
@example([(b"content-length", b"5")], random.Random(0), [m.HTTP_10])
@example([], random.Random(0), [m.HTTP_10])
def test_whatever_a_filter_writes_is_one_response_or_none(memory, handles, pairs, shuffle, chosen):
    flags = sum(chosen)
    load(memory, handles)
    every = [(b":status", b"200"), *pairs]
    shuffle.shuffle(every)
    memory.set_pairs(2, every)
    try:
        head = memory.emit_response(flags)
    except m.HeadError:
        return
    first, _, found = parse(head.data, True)
    assert head.status == int(first.split(b" ")[1])
    assert framing_said(found, head) == head.framing
    assert b"date" in found
    if flags & (m.HEAD_REQUEST | m.END_STREAM) or head.status in (204, 304):
        assert head.framing == m.FRAMING_NONE
    if flags & m.HTTP_10:
        assert b"transfer-encoding" not in found
    assert head.close == (found.get(b"connection") == b"close")


@settings(LAW, max_examples=500)
@given(junk, st.binary(max_size=12), st.one_of(st.sampled_from([b"/", b"http://a/b", b"*"]), st.binary(max_size=12)))
def test_whatever_a_parser_passes_is_one_request_or_none(memory, handles, fields, method, target):
    try:
        load(memory, handles, [HOST, *fields], method or b"GET", target, "default")
        head = memory.emit_request(0)
    except m.HeadError:
        return
    _, _, found = parse(head.data, False)
    assert framing_said(found, head) == head.framing
    assert found[b"via"].endswith(b"1.1 penstock")


@settings(LAW, max_examples=300)
@given(st.integers(0, 1200), junk)
def test_whatever_an_upstream_sends_is_one_response_or_none(memory, handles, status, fields):
    load(memory, handles)
    try:
        memory.load_response(status, fields)
        head = memory.emit_response(0)
    except m.HeadError:
        return
    _, _, found = parse(head.data, True)
    assert framing_said(found, head) == head.framing
    assert head.status == status % 1000


clean_name = st.from_regex(rb"[a-z][a-z0-9\-]{0,11}", fullmatch=True)
clean_value = st.binary(max_size=40).map(lambda v: bytes(c for c in v if c >= 32 and c != 127))


@LAW
@given(st.lists(st.tuples(clean_name, clean_value), max_size=30))
def test_clean_fields_go_through_in_order(memory, handles, fields):
    hop = {b"te", b"trailer", b"upgrade", b"connection", b"keep-alive", b"host", b"expect", b"via", b"content-length"}
    assume(not any(name in hop for name, _ in fields))
    load(memory, handles, [HOST, *fields])
    _, sent, _ = parse(memory.emit_request(m.END_STREAM).data, False)
    assert sent == [(b"host", b"test"), *fields]


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        ({b":method": None}, m.HEAD_METHOD),
        ({b":method": b"A B"}, m.HEAD_METHOD),
        ({b":method": b"CONNECT"}, m.HEAD_METHOD),
        ({b":path": None}, m.HEAD_PATH),
        ({b":path": b""}, m.HEAD_PATH),
        ({b":path": b"xy"}, m.HEAD_PATH),
        ({b":path": b"/a\r\nb"}, m.HEAD_PATH),
        ({b":path": b"*"}, m.HEAD_PATH),
        ({b":authority": None}, m.HEAD_AUTHORITY),
        ({b":authority": b"a b"}, m.HEAD_AUTHORITY),
        ({b"x a": b"1"}, m.HEAD_NAME),
        ({b"": b"1"}, m.HEAD_NAME),
        ({b"x": b"a\r\nb"}, m.HEAD_VALUE),
        ({b"x": b"12345678\x01"}, m.HEAD_VALUE),
        ({b"content-length": b"5x"}, m.HEAD_LENGTH),
        ({b"content-length": b""}, m.HEAD_LENGTH),
        ({b":scheme": None, b":foo": b"x", b"te": b"x"}, None),
        ({b"x": b"\xff\x80\t"}, None),
    ],
)
def test_what_a_filter_must_not_send_upstream(memory, handles, edit, code):
    load(memory, handles)
    pairs = {**dict(GOOD_REQUEST), **edit}
    memory.set_pairs(0, [(k, v) for k, v in pairs.items() if v is not None])
    if code is None:
        head = memory.emit_request(m.END_STREAM)
        assert b":foo" not in head.data
        assert b"te:" not in head.data
    else:
        with pytest.raises(m.HeadError) as error:
            memory.emit_request(m.END_STREAM)
        assert error.value.code == code


@pytest.mark.parametrize(
    "status", [None, b"", b"abc", b"20", b"200x", b" 200", b"099", b"000", b"100", b"101", b"103", b"199", b"1000"]
)
def test_statuses_that_are_no_final_response(memory, handles, status):
    load(memory, handles)
    memory.set_pairs(2, [(b":status", status)] if status is not None else [])
    with pytest.raises(m.HeadError) as error:
        memory.emit_response(0)
    assert error.value.code == m.HEAD_STATUS


@pytest.mark.parametrize(
    ("status", "line"), [(200, b"200 OK"), (418, b"418 Unknown"), (599, b"599 Unknown"), (404, b"404 Not Found")]
)
def test_status_lines(memory, handles, status, line):
    load(memory, handles)
    memory.load_response(status, RESPONSE)
    assert memory.emit_response(0).data.startswith(b"HTTP/1.1 " + line + b"\r\n")


def test_switching_protocols_needs_the_flag(memory, handles):
    load(memory, handles)
    memory.load_response(101, [(b"Upgrade", b"websocket")])
    head = memory.emit_response(m.UPGRADE)
    assert head.framing == m.FRAMING_NONE
    assert head.data == b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"


def test_the_date(memory, handles):
    memory.set_date(784111777.0)
    load(memory, handles)
    memory.load_response(200, ())
    assert b"\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n" in memory.emit_response(0).data
    memory.load_response(200, [(b"Date", b"own")])
    assert memory.emit_response(0).data.count(b"date: ") == 1


@pytest.mark.parametrize("code", range(1, len(m.REASONS)))
def test_every_refusal_has_a_reason(code):
    assert m.HeadError(code).reason


def test_the_layout_is_read_as_it_was_written(memory):
    assert memory.at.arena > memory.at.stream
    assert memory.at.arena_size == 4 << 20
    assert struct.calcsize("<15I") == memory.at.vm_size
