"""proxy_send_local_response: what reaches the chain. How the reply walks is the chain's (tests/chain)."""

import struct

import pytest

from proxy.abi.filter import ACTION, LOCAL_REPLY
from proxy.abi.memory import encode_pairs
from tests.abi.guest import OUT, Script

HEADERS = "proxy_on_request_headers"
EVERYWHERE = (HEADERS, "proxy_on_request_body", "proxy_on_response_headers", "proxy_on_response_body")


def reply(status=403, details=b"", body=b"", headers=b"", grpc=-1):
    return ("proxy_send_local_response", status, details, body, headers, grpc)


def replied(start_filters, *rows, callback=HEADERS, action=0, settings=None):
    worker = start_filters((Script({callback: rows}, actions={callback: action}), settings or {}))
    opened = worker.open()
    opened.call(callback, b"body")
    statuses = [one.status for one in worker.runs(callback)]
    return opened, statuses


@pytest.mark.parametrize("callback", EVERYWHERE)
@pytest.mark.parametrize("action", [0, 1])
def test_a_reply_from_any_callback(start_filters, callback, action):
    """Edge case 29: the action does not matter; the reply is reported beside it."""
    row = reply(403, b"my details", b"body", encode_pairs([(b"X-A", b"1"), (b"x-a", b"2")]), 7)
    opened, statuses = replied(start_filters, row, callback=callback, action=action)
    assert statuses == [0]
    assert opened.result & LOCAL_REPLY
    assert opened.result & ACTION == action
    assert opened.context.local_reply == (403, "my_details", b"body", ((b"X-A", b"1"), (b"x-a", b"2")), 7)


@pytest.mark.parametrize(
    ("details", "expected"),
    [(b"", ""), (b"my de\natails", "my_de_atails"), (b" a  b ", "_a__b_"), (b"\xff\0", "\\xff\0"), (b"x" * 5000, "x" * 1024)],
)
def test_details(start_filters, details, expected):
    """Each white space becomes a _; the text is cut at 1 KiB and never fails to decode."""
    opened, _ = replied(start_filters, reply(details=details))
    assert opened.context.local_reply.details == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (b"", ()),
        (b"\0\0\0\0", ()),
        (b"\1\0\0", ()),
        (encode_pairs([(b"a", b"b")])[:-1], ()),
        (struct.pack("<I", 0xFFFF_FFFF), ()),
        (encode_pairs([(b"a", b"b")]), ((b"a", b"b"),)),
    ],
)
def test_a_bad_header_block_means_no_headers(start_filters, headers, expected):
    opened, statuses = replied(start_filters, reply(headers=headers))
    assert statuses == [0]
    assert opened.context.local_reply.headers == expected


@pytest.mark.parametrize(("grpc", "expected"), [(-1, None), (0, 0), (7, 7), (16, 16), (17, None), (0x7FFF_FFFF, None)])
def test_grpc_status(start_filters, grpc, expected):
    """Edge case 31."""
    opened, _ = replied(start_filters, reply(grpc=grpc))
    assert opened.context.local_reply.grpc_status == expected


@pytest.mark.parametrize("status", [0, 99, 200, 599, 1000, 70000, -1])
def test_any_status_is_passed_on(start_filters, status):
    """The chain decides which it sends."""
    opened, statuses = replied(start_filters, reply(status))
    assert statuses == [0]
    assert opened.context.local_reply.status == status & 0xFFFF_FFFF


def test_the_first_reply_stands_with_the_details_of_the_last(start_filters):
    rows = [reply(403, b"first", b"one"), reply(500, b"second one", b"two")]
    opened, statuses = replied(start_filters, *rows)
    assert statuses == [0, 0]
    assert opened.context.local_reply[:3] == (403, "second_one", b"one")


def test_host_calls_go_on_behind_a_reply(start_filters):
    block = encode_pairs([(b"a", b"b")])
    rows = [
        reply(403, b"d", b"body" * 100, block),
        ("proxy_get_header_map_value", 0, b":path", OUT, OUT),
        ("proxy_get_header_map_pairs", 0, OUT, OUT),
        ("proxy_set_property", b"p", b"v" * 2000),
        ("proxy_define_metric", 0, b"m" * 300, OUT),
        ("proxy_add_header_map_value", 0, b"x" * 500, b"y" * 500),
    ]
    opened, statuses = replied(start_filters, *rows)
    assert statuses == [0] * 6
    # What they needed in the core did not touch the reply.
    assert opened.context.local_reply[:4] == (403, "d", b"body" * 100, ((b"a", b"b"),))


def test_limits(start_filters):
    settings = {"limits": {"headers": 10, "header_bytes": 200, "body_buffer": "1KiB"}}
    rows = [
        reply(body=b"x" * 4097),
        reply(headers=encode_pairs([(b"a", b"")] * 11)),
        reply(headers=encode_pairs([(b"a", b"x" * 400)])),
        reply(body=b"x" * 4096, headers=encode_pairs([(b"a", b"")] * 10)),
    ]
    opened, statuses = replied(start_filters, *rows, settings=settings)
    assert statuses == [10, 10, 10, 0]
    assert len(opened.context.local_reply.body) == 4096


def test_a_reply_of_an_earlier_callback_is_not_reported_again(start_filters):
    worker = start_filters(Script({HEADERS: [reply()], "proxy_on_request_body": []}))
    opened = worker.open()
    assert opened.call(HEADERS) & LOCAL_REPLY
    assert not opened.call("proxy_on_request_body") & LOCAL_REPLY


FLOOD = """(module
  (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 64)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  ;; 2,000 replies of 1 MiB, with details of 4 MiB
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
    (loop $again
      (drop (call $reply (i32.const 403) (i32.const 0) (i32.const 4194304) (i32.const 0) (i32.const 1048576)
        (i32.const 0) (i32.const 0) (i32.const -1)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $n) (i32.const 2000))))
    (i32.const 1)))"""


def test_a_flood_of_replies_takes_the_room_of_one(start_filters):
    worker = start_filters((FLOOD, {"fuel": 10**9}))
    opened = worker.open()
    before = worker.engine_bytes()
    assert opened.call(HEADERS) & LOCAL_REPLY
    assert opened.context.local_reply.status == 403
    assert len(opened.context.local_reply.body) == 1 << 20
    assert worker.engine_bytes() - before <= 4 << 20
