"""The heads of local replies, in the real stream memory. They are what Envoy 1.40 makes, unless a case says otherwise."""

import pytest

from proxy.abi.filter import LocalReply
from proxy.abi.memory import (
    END_STREAM,
    HEAD_REQUEST,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    HeadOptions,
    StreamMemory,
)
from proxy.chain.chain import NO_PARTS, Chain
from proxy.chain.commands import Command, SendResponseData, SendResponseHeaders
from proxy.telemetry.stream import StreamInfo
from tests.server.fakes import stream_memory

Pairs = list[tuple[bytes, bytes]]


def answered(
    reply: LocalReply, method: str = "GET", content_type: bytes | None = None
) -> tuple[Pairs, list[Command], StreamMemory]:
    """The response map and the commands after `reply` to a request; its stream is live."""
    memory = stream_memory()
    options = memory.options(HeadOptions())
    region = memory.begin()
    fields = [(b"host", b"test")]
    if content_type is not None:
        fields.append((b"content-type", content_type))
    memory.load_request(fields, method.encode(), b"/", options, b"", b"id")
    info = StreamInfo()
    info.method = method
    chain = Chain(memory, region, info, lambda: None)
    chain.take_part([], NO_PARTS)
    memory.begin_empty()
    chain.answer(reply, None)
    assert memory.live is region
    return memory.pairs(RESPONSE_HEADERS), chain.outbox[1:], memory


def pairs(*texts: str) -> Pairs:
    return [(name.encode(), value.encode()) for name, _, value in (text.partition("=") for text in texts)]


TEXT = ":status=403", "content-length=4", "content-type=text/plain"
GUEST_HEADERS = pairs("x-a=1", "X-A=2", ":status=418", "content-length=99", "Content-Type=a/b", "content-length=7", "date=d")

HEADS = [
    ("text", LocalReply(403, "d", b"body", (), None), pairs(*TEXT)),
    (
        "the filter's headers: after the status, lower case, pseudo headers ignored, one content-length, the real one",
        LocalReply(403, "d", b"body", tuple(GUEST_HEADERS), None),
        pairs(":status=403", "x-a=1", "x-a=2", "content-length=4", "content-type=a/b", "date=d"),
    ),
    (
        "an empty body: no content-type, no content-length",
        LocalReply(403, "d", b"", tuple(GUEST_HEADERS), None),
        pairs(":status=403", "x-a=1", "x-a=2", "date=d"),
    ),
    ("a grpc status for a plain request is ignored", LocalReply(403, "d", b"body", (), 5), pairs(*TEXT)),
    ("lowest status", LocalReply(200, "d", b"", (), None), pairs(":status=200")),
    ("highest status", LocalReply(599, "d", b"", (), None), pairs(":status=599")),
    ("too low a status (Envoy sends it)", LocalReply(199, "d", b"", (), None), pairs(":status=500")),
    ("too high a status (Envoy sends it)", LocalReply(600, "d", b"", (), None), pairs(":status=500")),
    ("no status (Envoy sends it)", LocalReply(0, "d", b"", (), None), pairs(":status=500")),
]


@pytest.mark.parametrize(("reply", "expected"), [case[1:] for case in HEADS], ids=[case[0] for case in HEADS])
def test_heads(reply: LocalReply, expected: Pairs) -> None:
    found, commands, _ = answered(reply)
    assert found == expected
    if reply.body:
        assert commands == [SendResponseHeaders(False), SendResponseData(reply.body, True)]
    else:
        assert commands == [SendResponseHeaders(True)]


GRPC = ":status=200", "content-type=application/grpc"
GRPC_HEADS = [
    (LocalReply(403, "d", b"body", (), None), pairs(*GRPC, "grpc-status=7", "grpc-message=body")),
    (LocalReply(403, "d", b"", (), None), pairs(*GRPC, "grpc-status=7")),
    (LocalReply(403, "d", b"", (), 5), pairs(*GRPC, "grpc-status=5")),
    (LocalReply(403, "d", b"", (), 0), pairs(*GRPC, "grpc-status=0")),
    (LocalReply(400, "d", b"", (), None), pairs(*GRPC, "grpc-status=13")),
    (LocalReply(401, "d", b"", (), None), pairs(*GRPC, "grpc-status=16")),
    (LocalReply(404, "d", b"", (), None), pairs(*GRPC, "grpc-status=12")),
    (LocalReply(429, "d", b"", (), None), pairs(*GRPC, "grpc-status=14")),
    (LocalReply(503, "d", b"", (), None), pairs(*GRPC, "grpc-status=14")),
    (LocalReply(418, "d", b"", (), None), pairs(*GRPC, "grpc-status=2")),
    (LocalReply(403, "d", b"a~b%\n\xff", (), None), pairs(*GRPC, "grpc-status=7", "grpc-message=a%7Eb%25%0A%FF")),
    (
        LocalReply(403, "d", b"m", tuple(pairs("x=1", "content-type=a/b", "grpc-status=0", "content-length=3", "y=2")), 7),
        pairs(":status=200", "x=1", "content-type=application/grpc", "grpc-status=0", "y=2", "grpc-message=m"),
    ),
]


@pytest.mark.parametrize(("reply", "expected"), GRPC_HEADS)
def test_heads_for_grpc(reply: LocalReply, expected: Pairs) -> None:
    found, commands, _ = answered(reply, "POST", b"application/grpc")
    assert found == expected
    assert commands == [SendResponseHeaders(True)]


@pytest.mark.parametrize(
    ("content_type", "grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc-web", False),
        (b"application/grpc; charset=utf-8", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_what_is_grpc(content_type: bytes, grpc: bool) -> None:
    found, _, _ = answered(LocalReply(403, "d", b"", (), None), "POST", content_type)
    assert dict(found)[b":status"] == (b"200" if grpc else b"403")


def test_head_keeps_its_content_length() -> None:
    found, commands, memory = answered(LocalReply(403, "d", b"body", (), None), "HEAD")
    assert found == pairs(*TEXT)
    assert commands == [SendResponseHeaders(True)]
    assert b"content-length: 4\r\n" in memory.emit_response(END_STREAM | HEAD_REQUEST).data


def test_the_head_that_leaves() -> None:
    _, _, memory = answered(LocalReply(403, "d", b"body", (), None))
    head = memory.emit_response(0)
    assert head.status == 403
    assert head.data.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"\r\ncontent-length: 4\r\n" in head.data
    assert memory.get(REQUEST_HEADERS, b":path") == b"/"
