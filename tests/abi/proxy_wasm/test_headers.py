"""Header maps: what a filter reads and writes, and when. Statuses and orders are Envoy 1.40's, measured."""

import struct

import pytest

from proxy.abi.memory import decode_pairs, encode_pairs
from tests.abi.guest import OUT, REQUEST, Script

HEADERS = "proxy_on_request_headers"
LOADED = [
    (b":authority", b"test"), (b":path", b"/p?q=1"), (b":method", b"POST"), (b":scheme", b"http"), (b"x-a", b"1"),
    (b"accept", b"*/*"), (b"x-a", b"2"), (b"x-empty", b""),
]  # fmt: skip


def get(name, map_=0):
    return ("proxy_get_header_map_value", map_, name, OUT, OUT)


def pairs(map_=0):
    return ("proxy_get_header_map_pairs", map_, OUT, OUT)


@pytest.mark.parametrize(
    ("name", "status", "value"),
    [
        (b"x-a", 0, b"1"),
        (b"X-A", 0, b"1"),
        (b"accept", 0, b"*/*"),
        (b"x-empty", 0, b""),
        (b":path", 0, b"/p?q=1"),
        (b":authority", 0, b"test"),
        (b"host", 0, b"test"),
        (b"HoSt", 0, b"test"),
        (b"x-none", 1, None),
        (b"", 1, None),
        (b"x-a\0", 1, None),
    ],
)
def test_get(run, name, status, value):
    (one,) = run(HEADERS, get(name))
    assert (one.status, one.value) == (status, value)


def test_pairs_are_in_the_client_s_order_with_pseudo_headers_first(run):
    (one,) = run(HEADERS, pairs())
    assert one.status == 0
    assert decode_pairs(one.value) == LOADED


def test_the_size_is_that_of_names_and_values(run):
    """Edge case 22: Envoy answers neither the serialised size nor the number of entries."""
    (one,) = run(HEADERS, ("proxy_get_header_map_size", 0, OUT))
    assert (one.status, one.u32()) == (0, sum(len(k) + len(v) for k, v in LOADED))


def add(name, value, map_=0):
    return ("proxy_add_header_map_value", map_, name, value)


def rep(name, value, map_=0):
    return ("proxy_replace_header_map_value", map_, name, value)


def rem(name, map_=0):
    return ("proxy_remove_header_map_value", map_, name)


PSEUDO, REST = LOADED[:4], LOADED[4:]


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([add(b"x-new", b"n")], [*LOADED, (b"x-new", b"n")]),
        ([add(b"X-New", b"N")], [*LOADED, (b"x-new", b"N")]),
        ([add(b"x-a", b"3")], [*LOADED, (b"x-a", b"3")]),
        ([add(b"accept", b"t")], [*LOADED[:5], (b"accept", b"*/*,t"), *LOADED[6:]]),
        ([add(b":path", b"/more")], [LOADED[0], (b":path", b"/p?q=1,/more"), *LOADED[2:]]),
        ([add(b"host", b"h2")], [(b":authority", b"test,h2"), *LOADED[1:]]),
        ([add(b"cookie", b"a"), add(b"cookie", b"b")], [*LOADED, (b"cookie", b"a"), (b"cookie", b"b")]),
        ([add(b"user-agent", b"a"), add(b"user-agent", b"b")], [*LOADED, (b"user-agent", b"a,b")]),
        ([add(b"x-none", b"")], [*LOADED, (b"x-none", b"")]),
        ([rep(b"x-a", b"9")], [*PSEUDO, LOADED[5], LOADED[7], (b"x-a", b"9")]),
        ([rep(b"accept", b"t")], [*PSEUDO, LOADED[4], *LOADED[6:], (b"accept", b"t")]),
        ([rep(b"x-none", b"n")], [*LOADED, (b"x-none", b"n")]),
        ([rep(b"host", b"new")], [*LOADED[1:4], (b":authority", b"new"), *REST]),
        ([rep(b":path", b"")], [LOADED[0], *LOADED[2:4], (b":path", b""), *REST]),
        ([rem(b"x-a")], [*LOADED[:4], LOADED[5], LOADED[7]]),
        ([rem(b"HOST")], LOADED[1:]),
        ([rem(b"x-none")], LOADED),
        ([rem(b":method"), add(b":method", b"GET")], [*LOADED[:2], LOADED[3], (b":method", b"GET"), *REST]),
    ],
)
def test_edits(run, edits, expected):
    *statuses, last = run(HEADERS, *edits, pairs())
    assert [one.status for one in statuses] == [0] * len(edits)
    assert decode_pairs(last.value) == expected


def test_a_value_without_clean_bytes_is_stored_as_it_is(run):
    """Edge case 35: bytes, not text. What may not leave is refused when the head is written (test_memory.py)."""
    *_, one = run(HEADERS, add(b"x-b", b"\xff\0\r\n"), get(b"x-b"))
    assert one.value == b"\xff\0\r\n"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            encode_pairs([(b"A", b"1"), (b":path", b"/x"), (b"host", b"h")]),
            [(b":path", b"/x"), (b":authority", b"h"), (b"a", b"1")],
        ),
        (encode_pairs([(b"a", b""), (b"a", b"2")]), [(b"a", b""), (b"a", b"2")]),
        (b"\0\0\0\0", []),
        (b"", []),
        (b"\x01\0\0", []),
        (encode_pairs([(b"a", b"1")])[:-1], []),
        (encode_pairs([(b"a", b"1")]) + b"\0", []),
        (encode_pairs([(b"a", b"1")])[:-1] + b"x", []),
        (struct.pack("<3I", 1, 1, 0xFFFF_FFFF) + b"a\0", []),
        (struct.pack("<I", 0xFFFF_FFFF) + bytes(64), []),
        (struct.pack("<I", 1025) + bytes(1025 * 10), []),
    ],
    ids=["set", "empty value", "none", "nothing", "short", "cut", "over-long", "no NUL", "huge length", "huge count", "1025"],
)
def test_set_pairs(run, block, expected):
    """Edge cases 9 and 37: what is malformed clears the map, with status 0."""
    one, two = run(HEADERS, ("proxy_set_header_map_pairs", 0, block), pairs())
    assert one.status == two.status == 0
    assert (decode_pairs(two.value) if two.value else []) == expected


def test_map_numbers(run):
    rows = [
        *[get(b"a", n) for n in range(1, 9)],
        *[pairs(n) for n in range(1, 9)],
        *[("proxy_get_header_map_size", n, OUT) for n in range(1, 9)],
        *[add(b"a", b"b", n) for n in range(1, 9)],
        *[rep(b"a", b"b", n) for n in range(1, 9)],
        *[rem(b"a", n) for n in range(1, 9)],
        *[("proxy_set_header_map_pairs", n, b"\0\0\0\0") for n in (*range(1, 9), 0xFFFF_FFFF)],
    ]
    found = run(HEADERS, *rows)
    statuses = [one.status for one in found]
    assert statuses == [2] * 8 + [0] * 7 + [2] + [2] * (len(rows) - 16)
    assert all(one.u32(0) == one.u32(1) == 0 for one in found[8:15])


def test_the_limits_of_a_map(run):
    """max_headers and max_header_bytes: 10 (InternalFailure), and the map stays as it was."""
    settings = {"limits": {"headers": 10, "header_bytes": 300}}
    found = run(
        HEADERS,
        add(b"b", b"1"),
        add(b"c", b"1"),
        add(b"d", b"1"),  # an eleventh
        rep(b"x-none", b""),
        rep(b"x-a", b"9"),  # two for one
        add(b"d", b"1"),
        add(b"accept", b"x" * 300),  # no entry more, but bytes
        rep(b"b", b"y" * 150),
        rep(b"b", b"z" * 160),  # counts in place of the old value
        ("proxy_set_header_map_pairs", 0, encode_pairs([(b"a", b"")] * 11)),
        ("proxy_set_header_map_pairs", 0, encode_pairs([(b"a", b"v" * 300)])),
        ("proxy_set_header_map_pairs", 0, encode_pairs([(b"a", b"")] * 10)),
        pairs(),
        settings=settings,
    )
    assert [one.status for one in found] == [0, 0, 10, 10, 0, 0, 10, 0, 0, 10, 10, 0, 0]
    assert decode_pairs(found[-1].value) == [(b"a", b"")] * 10


def test_a_map_that_came_over_the_limit_may_be_rewritten(run):
    settings = {"limits": {"headers": 3, "header_bytes": 20}}
    block = encode_pairs(LOADED)
    found = run(
        HEADERS, rep(b"x-a", b"2"), add(b"y", b""), ("proxy_set_header_map_pairs", 0, block), rem(b"accept"), settings=settings
    )
    assert [one.status for one in found] == [0, 10, 10, 0]


FLOOD = """(module
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 8) "x-flood")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  ;; adds until it is told no, and then says so by pausing
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (loop $again (br_if $again (i32.eqz
      (call $add (i32.const 0) (i32.const 8) (i32.const 7) (i32.const 65536) (i32.const {size})))))
    (i32.const 1)))"""


@pytest.mark.parametrize(("size", "count"), [(0, 256 - 8), (1024, 63), (40_000, 1)])
def test_a_flood_of_headers_is_capped(start_filters, size, count):
    opened = start_filters(FLOOD.format(size=size)).open()
    assert opened.call("proxy_on_request_headers") & 0xFF == 1
    found = opened.worker.memory.pairs(0)
    assert len(found) == 8 + count
    assert sum(len(k) + len(v) for k, v in found) <= 64 << 10


EVERY = (get(b"x-a"), pairs(), ("proxy_get_header_map_size", 0, OUT), add(b"n", b"v"), rep(b"n", b"v"), rem(b"n"))
EVERY_SET = (*EVERY, ("proxy_set_header_map_pairs", 0, encode_pairs(LOADED)))


def moved(rows, map_):
    return [(row[0], map_, *row[2:]) for row in rows]


SHUT = [2, 0, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("callback", "end", "open_maps"),
    [
        (HEADERS, False, {0}),
        ("proxy_on_request_body", False, set()),
        ("proxy_on_request_body", True, {1}),
        ("proxy_on_response_headers", False, {2}),
        ("proxy_on_response_body", False, set()),
        ("proxy_on_response_body", True, {3}),
        ("proxy_on_context_create", False, set()),
        ("proxy_on_done", False, set()),
        ("proxy_on_delete", False, set()),
    ],
)
def test_edit_windows(start_filters, callback, end, open_maps):
    """Edge cases 10 and 11: a map is reachable in its own callback only. Elsewhere get 2, pairs 0 and empty, the others 2."""
    rows = [row for map_ in range(4) for row in moved(EVERY_SET, map_)]
    callbacks = {callback: rows, **({HEADERS: []} if callback != HEADERS else {})}
    worker = start_filters(Script(callbacks))
    opened = worker.open()
    if callback == "proxy_on_context_create":
        opened.call(HEADERS)
        found = worker.runs(callback)
    elif callback in ("proxy_on_done", "proxy_on_delete"):
        opened.call(HEADERS)
        found = opened.runs(callback)
    else:
        if "response" in callback:
            opened.call(HEADERS)
            worker.respond(opened.stream)
        found = opened.runs(callback, b"x", end)
    for map_ in range(4):
        part = found[7 * map_ : 7 * map_ + 7]
        statuses = [one.status for one in part]
        if map_ in open_maps:
            # Of trailers there are none to read before one of the other calls begins them.
            assert statuses == [(0, 2, 1, 2)[map_], 0, 0, 0, 0, 0, 0]
        else:
            assert statuses == SHUT
            assert (part[1].u32(0), part[1].u32(1)) == (0, 0)


def test_log_reads_everything_but_request_trailers_and_edits_nothing(start_filters):
    rows = [row for map_ in (0, 1, 2, 3, 4, 6, 7) for row in moved(EVERY_SET, map_)]
    rows += [get(b":path", 0), get(b"x-r", 2), get(b"a", 8)]
    worker = start_filters(Script({"proxy_on_log": rows, HEADERS: []}))
    opened = worker.open()
    opened.call(HEADERS)
    worker.respond(opened.stream)
    found = opened.runs("proxy_on_log")
    for i, map_ in enumerate((0, 1, 2, 3, 4, 6, 7)):
        statuses = [one.status for one in found[7 * i : 7 * i + 7]]
        assert statuses == [0 if map_ == 0 else 1, 0, 2, 2, 2, 2, 2], map_
    assert decode_pairs(found[1].value) == LOADED
    assert decode_pairs(found[2 * 7 + 1].value) == [(b":status", b"200"), (b"content-length", b"2"), (b"x-r", b"one")]
    assert [one.value for one in found[-3:-1]] == [b"/p?q=1", b"one"]
    assert found[-1].status == 2


def test_a_filter_that_never_saw_the_request_is_created_at_log_time(start_filters):
    """Edge case 12: context_create, log, done, delete. In context_create the maps are still shut."""
    rows = [get(b"x-a")]
    worker = start_filters(
        Script({"proxy_on_context_create": rows, "proxy_on_log": rows, "proxy_on_done": rows, "proxy_on_delete": rows})
    )
    opened = worker.open()
    opened.call("proxy_on_log")
    created, logged, done, deleted = (
        worker.runs(f"proxy_on_{name}")[0].status for name in ("context_create", "log", "done", "delete")
    )
    assert (created, logged, done, deleted) == (2, 0, 2, 2)


def test_continuing_shuts_the_request_s_maps_at_once(run):
    one, _, two, three = run(HEADERS, get(b"x-a"), ("proxy_continue_stream", 0), get(b"x-a"), pairs())
    assert [one.status, two.status, three.status, three.u32(1)] == [0, 2, 0, 0]


def test_continuing_the_response_shuts_the_request_s_maps_and_not_its_own(run):
    """Edge case 27."""
    _, two = run("proxy_on_response_headers", ("proxy_continue_stream", 1), get(b"x-r", 2))
    assert (two.status, two.value) == (0, b"one")
    _, two = run(HEADERS, ("proxy_continue_stream", 1), get(b"x-a"))
    assert two.status == 2


def test_a_paused_request_stays_open_where_the_filter_sees_its_body(start_filters):
    settings = {"allow_on_headers_stop_iteration": True}
    script = Script({HEADERS: [], "proxy_on_request_body": [get(b"x-a"), add(b"x-late", b"1")]}, actions={HEADERS: 1})
    opened = start_filters((script, settings)).open()
    opened.call(HEADERS)
    assert [one.status for one in opened.runs("proxy_on_request_body", b"x")] == [0, 0]
    opened.context.continued()  # by the chain, when it has let the headers go
    assert [one.status for one in opened.runs("proxy_on_request_body", b"x")] == [2, 2]


def test_the_number_of_entries_and_the_end_reach_the_callback(start_filters):
    worker = start_filters("""(module
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (i32.add (i32.mul (local.get 1) (i32.const 2)) (local.get 2))))""")
    assert worker.open().call(HEADERS) & 0xFF == 16
    assert worker.open().call(HEADERS, end=True) & 0xFF == 17


def test_two_streams_of_one_vm_do_not_see_each_other(start_filters):
    script = Script({HEADERS: [get(b"x-who")], "proxy_on_request_body": [], "proxy_on_log": [get(b"x-who")]})
    worker = start_filters(script)
    one = worker.open(fields=((b"host", b"a"), (b"x-who", b"one")))
    assert one.runs(HEADERS)[0].value == b"one"
    two = worker.open(fields=((b"host", b"b"), (b"x-who", b"two")))
    assert two.runs(HEADERS)[0].value == b"two"
    assert one.runs("proxy_on_log")[0].value == b"one"
    assert two.runs("proxy_on_log")[0].value == b"two"


def test_the_request_that_the_tests_load():
    assert dict(REQUEST)[b"Host"] == b"test"
