"""gRPC calls of filters over real HTTP/2: what their makers are told, where they may go, and what bounds them."""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pytest
import uvloop

from proxy.upstream.callout import CalloutPolicy
from proxy.upstream.grpc_callout import MAX_QUEUED, GrpcCall, GrpcCallouts, GrpcRefusedError
from proxy.upstream.grpc_channels import TlsUnavailableError, authorities, target_of
from tests.upstream.callouts import CERTIFICATE, LOOPBACK, Bench, Names, policy
from tests.upstream.grpc_server import SERVICE, GrpcServer, Relay

TERMINATION = (
    b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"
    b"{upstream_reset_before_response_started{connection_termination}}"
)
REFUSED = b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
REFUSED_DETAILS = (
    b"{upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}}"
)
BEGUN = [(b":status", b"200"), (b"content-type", b"application/grpc")]
ECHO_INITIAL = [*BEGUN, (b"x-initial", b"1"), (b"x-initial", b"2"), (b"x-raw-bin", b"AP9hYg")]
ECHO_TRAILING = [(b"grpc-status", b"0"), (b"grpc-message", b""), (b"x-trailing", b"t"), (b"y-bin", b"AQI")]


class Told:
    """What a call's maker is told; `react` answers to an event from inside it, as a filter does."""

    def __init__(self, react: "Callable[[str], object] | None" = None) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.react = react
        self.changed = asyncio.Event()

    def note(self, *event: Any) -> None:
        self.events.append(event)
        self.changed.set()
        if self.react is not None:
            self.react(event[0])

    def initial_metadata(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self.note("initial", list(pairs))

    def message(self, data: bytes) -> None:
        self.note("message", data)

    def trailing_metadata(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self.note("trailing", list(pairs))

    def closed(self, status: int, message: bytes) -> None:
        self.note("closed", status, message)

    async def until(self, count: int) -> list[tuple[Any, ...]]:
        """The events, once there are so many; and a moment later there are no more."""
        async with asyncio.timeout(8):
            while len(self.events) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.events

    async def over(self) -> list[tuple[Any, ...]]:
        """The events once the call is closed."""
        async with asyncio.timeout(8):
            while not self.events or self.events[-1][0] != "closed":
                self.changed.clear()
                await self.changed.wait()
        await asyncio.sleep(0.02)
        return self.events


class GrpcBench(Bench):
    """A Bench with gRPC."""

    async def __aenter__(self) -> "GrpcBench":
        self.grpc = GrpcCallouts(self.callouts)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.grpc.close()
        await super().__aexit__(*error)

    def unary(
        self, caller: CalloutPolicy, method: str, message: bytes = b"x", upstream: bytes = b"auth", seconds: float = 3.0,
        metadata: Sequence[tuple[bytes, bytes]] = (), told: Told | None = None,
    ) -> tuple[GrpcCall, Told]:  # fmt: skip
        told = told or Told()
        call = self.grpc.call(caller, upstream, SERVICE.encode(), method.encode(), metadata, message, seconds, told)
        assert not told.events, "told from inside"
        return call, told

    def stream(
        self, caller: CalloutPolicy, method: str, upstream: bytes = b"auth", metadata: Sequence[tuple[bytes, bytes]] = (),
        told: Told | None = None,
    ) -> tuple[GrpcCall, Told]:  # fmt: skip
        told = told or Told()
        call = self.grpc.stream(caller, upstream, SERVICE.encode(), method.encode(), metadata, told)
        assert not told.events, "told from inside"
        return call, told


# ---- Unary calls ----


@pytest.mark.parametrize(
    ("method", "message", "expected"),
    [
        ("Echo", b"hello", ("message", b"hello")),
        ("Echo", b"", ("message", b"")),
        ("Two", b"x", ("message", b"two")),
        ("None", b"x", ("closed", 13, b"")),
        ("Fail", b"7 why not", ("closed", 7, b"why not{via_upstream}")),
        ("Fail", b"7 ", ("closed", 7, b"via_upstream")),
        ("Fail", "9 after é%".encode(), ("closed", 9, b"after %C3%A9%25{via_upstream}")),
        ("Nope", b"x", ("closed", 12, b"Method not found!{via_upstream}")),
    ],
)
async def test_unary(method: str, message: bytes, expected: tuple[Any, ...]) -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        caller = policy("cluster:auth")
        _, told = bench.unary(caller, method, message)
        await told.until(1)
        await asyncio.sleep(0.02)
        assert told.events == [expected]
        assert not caller.running


async def test_metadata_of_a_call() -> None:
    given = [
        (b"A", b"1"), (b"a", b"2"), (b"x-bin", b"AP8"),
        (b"y-bin", b"AP8="), (b":path", b"/other"), (b"te", b"x"), (b"Host", b"x"),
        (b"grpc-timeout", b"1S"), (b"content-type", b"text/plain"), (b"connection", b"close"), (b"z.1_-", b" a b "),
    ]  # fmt: skip
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        _, told = bench.unary(policy("cluster:auth"), "Echo", metadata=given)
        await told.until(1)
        method, seen, messages = server.service.seen[0]
    assert method == f"/{SERVICE}/Echo"
    assert messages == [b"x"]
    own = [(key, value) for key, value in seen if key != "user-agent"]
    assert own == [("a", "1"), ("a", "2"), ("x-bin", b"\0\xff"), ("y-bin", b"\0\xff"), ("z.1_-", " a b ")]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (b"x a", b"1", b"invalid header name: x a{filter_removed_required_request_headers{invalid_header_name:_x_a}}"),
        (
            b"x",
            b"a\r\nb: c",
            b"invalid header value for: x{filter_removed_required_request_headers{invalid_header_value_for:_x}}",
        ),
        (b"x", b"\xff", b"invalid header value for: x{filter_removed_required_request_headers{invalid_header_value_for:_x}}"),
        (
            b"x-bin",
            b"!",
            b"invalid header value for: x-bin{filter_removed_required_request_headers{invalid_header_value_for:_x-bin}}",
        ),
    ],
)
async def test_metadata_that_cannot_be_sent(name: bytes, value: bytes, said: bytes) -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        caller = policy("cluster:auth")
        with pytest.raises(GrpcRefusedError) as refused:
            bench.unary(caller, "Echo", metadata=[(name, value)])
        assert refused.value.status == 10
        assert refused.value.ending is not None
        assert (refused.value.ending.status, refused.value.ending.message) == (14, said)
        assert not caller.running
        assert not server.service.seen


async def test_timeouts() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        caller = policy("cluster:auth")
        told = [
            bench.unary(caller, method, seconds=seconds)[1]
            for method, seconds in (("Slow", 0.1), ("Stuck", 0.1), ("Echo", 0.0))
        ]
        for one in told:
            await one.over()
        assert told[0].events == [("closed", 14, b"upstream request timeout{response_timeout}")]
        assert told[1].events == [("closed", 13, b"response_timeout")]
        assert told[2].events == [("closed", 4, b"Deadline Exceeded{via_upstream}")]
        assert not caller.running
        await asyncio.sleep(0.05)
        assert sorted(server.service.cancelled) == ["Slow", "Stuck"]


async def test_a_call_is_bounded_in_time() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        _, told = bench.unary(policy("cluster:auth", max_seconds=0.1), "Slow", seconds=4e6)
        assert (await told.over())[0][:2] == ("closed", 14)


async def test_cancel() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        caller = policy("cluster:auth")
        early, first = bench.unary(caller, "Slow")
        early.cancel()
        late, second = bench.unary(caller, "Slow")
        await asyncio.sleep(0.1)
        late.cancel()
        late.cancel()
        await asyncio.sleep(0.1)
        assert (first.events, second.events) == ([], [])
        assert server.service.cancelled == ["Slow"]
        assert not caller.running


async def test_no_connection() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": 1, "live": server.port}) as bench:
        caller = policy("cluster:auth", "cluster:live")
        for _ in range(3):  # each call tries anew
            _, told = bench.unary(caller, "Echo")
            assert await told.over() == [("closed", 14, REFUSED + REFUSED_DETAILS)]
        _, told = bench.stream(caller, "Echo")
        trailing = [*BEGUN, (b"grpc-status", b"14"), (b"grpc-message", REFUSED)]
        assert await told.over() == [("initial", []), ("trailing", trailing), ("closed", 14, REFUSED + REFUSED_DETAILS)]


async def test_a_server_that_comes_up_is_found_at_once() -> None:
    async with GrpcServer() as server, Relay(server.port) as relay, GrpcBench({"auth": relay.port}) as bench:
        caller = policy("cluster:auth")
        relay.to = 1
        _, told = bench.unary(caller, "Echo")
        assert await told.over() == [("closed", 14, TERMINATION)]
        relay.to = server.port
        _, told = bench.unary(caller, "Echo")
        assert await told.until(1) == [("message", b"x")]


# ---- Streams ----


async def test_a_stream_both_ways() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        caller = policy("cluster:auth")
        call, told = bench.stream(caller, "Echo", metadata=[(b"a", b"1")])
        call.send(b"one", False)
        await told.until(2)
        call.send(b"two", False)
        await told.until(3)
        call.send(b"", True)
        call.send(b"after the end", False)
        assert await told.over() == [
            ("initial", ECHO_INITIAL), ("message", b"one"), ("message", b"two"), ("message", b""), ("trailing", ECHO_TRAILING),
            ("closed", 0, b"via_upstream"),
        ]  # fmt: skip
        assert server.service.seen[0][2] == [b"one", b"two", b""]
        assert not caller.running
        call.send(b"when it is over", True)
        call.half_close()
        call.cancel()


def test_under_uvloop() -> None:
    uvloop.run(test_a_stream_both_ways())
    uvloop.run(test_a_server_that_dies("Slow", False))
    uvloop.run(test_timeouts())


async def test_half_close_at_once() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        call, told = bench.stream(policy("cluster:auth"), "Echo")
        call.half_close()
        assert await told.over() == [("initial", ECHO_INITIAL), ("trailing", ECHO_TRAILING), ("closed", 0, b"via_upstream")]


@pytest.mark.parametrize("text", ["hm hm", "after all"])
async def test_a_stream_that_fails(text: str) -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        call, told = bench.stream(policy("cluster:auth"), "Fail")
        call.send(f"9 {text}".encode(), False)
        trailing = [(b"grpc-status", b"9"), (b"grpc-message", text.encode()), (b"x-why", b"because")]
        if text == "hm hm":  # the response's head is its trailers
            expected = [("initial", []), ("trailing", [*BEGUN, *trailing])]
        else:
            expected = [("initial", BEGUN), ("message", b"before"), ("trailing", trailing)]
        assert await told.over() == [*expected, ("closed", 9, text.encode() + b"{via_upstream}")]


async def test_a_service_that_ends_first() -> None:
    """Messages that are still on their way out do not change how the stream ended."""
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        caller = policy("cluster:auth", max_calls=50)
        everything = []
        for _ in range(30):
            call, told = bench.stream(caller, "First")
            for number in range(5):
                call.send(b"%d" % number, False)
            everything.append(told)
        for told in everything:
            assert (await told.over())[1:] == [
                ("message", b"0"), ("trailing", [(b"grpc-status", b"0"), (b"grpc-message", b"")]),
                ("closed", 0, b"via_upstream"),
            ]  # fmt: skip


async def test_many_messages_in_order() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        call, told = bench.stream(policy("cluster:auth"), "Many")
        call.send(b"300", True)
        events = await told.over()
        assert [event[1] for event in events if event[0] == "message"] == [b"%d" % number for number in range(300)]
        call, told = bench.stream(policy("cluster:auth"), "Count")
        for number in range(300):
            call.send(b"x" * number, number == 299)
        events = await told.over()
        assert [event[1] for event in events if event[0] == "message"] == [b"%d" % number for number in range(300)]


@pytest.mark.parametrize("at", ["initial", "message", "trailing"])
async def test_cancel_from_inside_an_event(at: str) -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        caller = policy("cluster:auth")
        calls: list[GrpcCall] = []
        told = Told(lambda event: calls[0].cancel() if event == at else None)
        call, _ = bench.stream(caller, "Echo", told=told)
        calls.append(call)
        call.send(b"x", True)
        names = ["initial", "message", "trailing", "closed"]
        last = names.index(at) + 1 if at != "trailing" else 4  # its end has been settled by then
        await told.until(last)
        await asyncio.sleep(0.05)
        assert [event[0] for event in told.events] == names[:last]
        assert not caller.running


@pytest.mark.parametrize(("method", "begun"), [("Slow", False), ("Stuck", True)])
async def test_a_server_that_dies(method: str, begun: bool) -> None:
    async with GrpcServer() as server, Relay(server.port) as relay, GrpcBench({"auth": relay.port}) as bench:
        caller = policy("cluster:auth")
        call, stream = bench.stream(caller, method)
        call.send(b"x", False)
        _, unary = bench.unary(caller, method)
        await asyncio.sleep(0.15)
        relay.cut()
        if begun:
            lost = ("closed", 13, b"upstream_reset_after_response_started{connection_termination}")
            assert await stream.over() == [("initial", BEGUN), ("message", b"first"), ("trailing", []), lost]
        else:
            lost = ("closed", 14, TERMINATION)
            trailing = [*BEGUN, (b"grpc-status", b"14"), (b"grpc-message", TERMINATION.partition(b"{")[0])]
            assert await stream.over() == [("initial", []), ("trailing", trailing), lost]
        assert await unary.over() == [lost]
        _, told = bench.unary(caller, "Echo")
        assert await told.until(1) == [("message", b"x")]


# ---- Bounds ----


async def test_large_messages() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        caller = policy("cluster:auth")
        most = 1 << 20
        with pytest.raises(GrpcRefusedError, match="1048577 bytes") as refused:
            bench.unary(caller, "Count", bytes(most + 1))
        assert refused.value.status == 10
        _, told = bench.unary(caller, "Count", bytes(most))
        assert await told.until(1) == [("message", b"1048576")]
        _, told = bench.unary(caller, "Big", b"1048576")
        assert len((await told.until(1))[0][1]) == most
        _, told = bench.unary(caller, "Big", b"1048577")
        assert await told.over() == [("closed", 8, b"CLIENT: Received message larger than max (1048577 vs. 1048576)")]
        call, told = bench.stream(caller, "Count")
        with pytest.raises(GrpcRefusedError, match="1048577 bytes") as refused:
            call.send(bytes(most + 1), False)
        assert refused.value.status == 2
        call.send(b"abc", True)
        assert (await told.over())[1] == ("message", b"3")
        assert not caller.running


async def test_a_stream_that_runs_ahead_of_its_service() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        call, told = bench.stream(policy("cluster:auth"), "Slow")
        for _ in range(2 + MAX_QUEUED // (1 << 20)):
            call.send(bytes(1 << 20), False)
        assert (await told.over())[-1] == ("closed", 8, b"too many messages wait to be sent")


async def test_much_metadata_from_the_service() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        _, told = bench.unary(policy("cluster:auth"), "Heavy")
        assert await told.until(1) == [("message", b"x")]


async def test_calls_in_flight_are_counted_with_http_calls() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port}) as bench:
        caller = policy("cluster:auth", max_calls=2)
        bench.unary(caller, "Slow")
        call, _ = bench.stream(caller, "Slow")
        with pytest.raises(GrpcRefusedError, match="2 calls are in flight") as refused:
            bench.unary(caller, "Echo")
        assert (refused.value.status, refused.value.ending) == (10, None)
        call.cancel()
        bench.stream(caller, "Slow")
        caller.cancel_all()
        assert not caller.running


# ---- Where it may go ----


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def envoy_grpc(cluster: bytes) -> bytes:
    return field(1, field(1, cluster))


@pytest.mark.parametrize(
    ("upstream", "status", "closed", "reason"),
    [
        (b"other", 4, None, 'allowed_hosts: ["cluster:other"]'),
        (envoy_grpc(b"other"), 10, (14, b"Cluster not available"), 'allowed_hosts: ["cluster:other"]'),
        (envoy_grpc(b"nope"), 10, (14, b"Cluster not available"), "no cluster 'nope'"),
        (b"nope", 4, None, 'allowed_hosts: ["https://nope"]'),
        (b"127.0.0.1:9", 4, None, "the host 'http://127.0.0.1:9' is not allowed"),
        (field(2, field(1, b"127.0.0.1:9") + field(4, b"s")), 4, None, "the host 'http://127.0.0.1:9' is not allowed"),
        (field(2, field(1, b"a.test") + field(2, field(1, b""))), 4, None, 'allowed_hosts: ["https://a.test"]'),
        (b"", 4, None, "not a cluster"),
        (b"hi", 4, None, "not allowed"),
        (b"unix:/tmp/x", 4, None, "not a cluster"),
        (b"dns:///a.test", 4, None, "not a cluster"),
        (b"ipv4:127.0.0.1:9", 4, None, "not a cluster"),
        (field(2, field(1, b"unix:///tmp/x")), 4, None, "not a cluster"),
        (b"\xff\n", 4, None, "not a cluster"),
    ],
)  # fmt: skip
async def test_denied(upstream: bytes, status: int, closed: tuple[int, bytes] | None, reason: str) -> None:
    async with GrpcBench({"auth": 1, "other": 1}) as bench:
        caller = policy("cluster:auth")
        for attempt in (bench.unary, bench.stream):
            with pytest.raises(GrpcRefusedError) as refused:
                attempt(caller, "Echo", upstream=upstream)
            assert refused.value.status == status
            assert reason in refused.value.reason
            found = refused.value.ending
            assert (None if found is None else (found.status, found.message)) == closed
        assert not bench.grpc.channels


async def test_ways_to_name_a_cluster() -> None:
    async with GrpcServer() as server, GrpcBench({"auth": server.port, "hi": server.port}) as bench:
        caller = policy("cluster:auth", "cluster:hi")
        with_metadata = envoy_grpc(b"auth") + field(5, field(1, b"im") + field(2, b"1")) + b"\x28\x01"
        for upstream in (b"auth", b"hi", envoy_grpc(b"auth"), with_metadata):
            _, told = bench.unary(caller, "Echo", upstream=upstream)
            assert await told.until(1) == [("message", b"x")]
        assert ("im", "1") in server.service.seen[-1][1]


async def test_a_host_is_resolved_and_checked() -> None:
    async with GrpcServer() as server:
        names = Names({"api.test": [["127.0.0.1"]], "rebound.test": [["127.0.0.1"], ["10.0.0.1"]]})
        async with GrpcBench(names=names) as bench:
            entry = f"http://api.test:{server.port}"
            _, told = bench.unary(policy(entry), "Echo", upstream=entry.encode())
            denied = await told.over()
            assert denied[0][:2] == ("closed", 14)
            assert not server.service.seen, "loopback is not public"
            caller = policy(entry, LOOPBACK)
            for upstream in (entry.encode(), f"api.test:{server.port}".encode(), field(2, field(1, entry[7:].encode()))):
                _, told = bench.unary(caller, "Echo", upstream=upstream)
                assert await told.until(1) == [("message", b"x")]
            assert names.asked == ["api.test", "api.test"], "a connection is kept"
            assert "unknown.test" not in names.answers
            entry = f"http://unknown.test:{server.port}"
            _, told = bench.unary(policy(entry), "Echo", upstream=entry.encode())
            assert await told.over() == [
                ("closed", 14, REFUSED + b"{upstream_reset_before_response_started{remote_connection_failure}}")
            ]


async def test_the_gateway_itself_is_never_called() -> None:
    async with GrpcServer() as server:
        own = [("127.0.0.1", server.port)]
        async with GrpcBench(names=Names({"api.test": [["127.0.0.1"]]}), own=own) as bench:
            entry = f"http://api.test:{server.port}"
            _, told = bench.unary(policy(entry, LOOPBACK), "Echo", upstream=entry.encode())
            assert (await told.over())[0][:2] == ("closed", 14)
            assert not server.service.seen


async def test_rebinding() -> None:
    """A name that leads elsewhere when its connection is lost is checked again."""
    names = Names({"api.test": [["127.0.0.1"], ["10.0.0.1"]]})
    async with GrpcServer() as server, Relay(server.port) as relay, GrpcBench(names=names) as bench:
        entry = f"http://api.test:{relay.port}"
        caller = policy(entry, LOOPBACK)
        _, told = bench.unary(caller, "Echo", upstream=entry.encode())
        assert await told.until(1) == [("message", b"x")]
        relay.cut()
        await asyncio.sleep(0.1)
        _, told = bench.unary(caller, "Echo", upstream=entry.encode())
        assert (await told.over())[0][:2] == ("closed", 14)
        assert relay.accepted == 1


async def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with GrpcServer() as server, Relay(1) as proxy, GrpcBench({"auth": server.port}) as bench:
        for name in ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("no_grpc_proxy", raising=False)
        _, told = bench.unary(policy("cluster:auth"), "Echo")
        assert await told.until(1) == [("message", b"x")]
        assert proxy.accepted == 0


# ---- TLS ----


def server_credentials() -> Any:
    pem = CERTIFICATE.read_bytes()
    return grpc.ssl_server_credentials([(pem, pem)])


async def test_tls_to_a_host() -> None:
    names = Names({"api.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    async with GrpcServer(server_credentials()) as server, GrpcBench(names=names, trusted=True) as bench:
        entry = f"https://api.test:{server.port}"
        _, told = bench.unary(policy(entry, LOOPBACK), "Echo", upstream=entry.encode())
        assert await told.until(1) == [("message", b"x")]
        entry = f"https://other.test:{server.port}"
        _, told = bench.unary(policy(entry, LOOPBACK), "Echo", upstream=entry.encode())
        assert (await told.over())[0][:2] == ("closed", 14), "the certificate is not other.test's"
        assert len(server.service.seen) == 1


async def test_tls_to_a_cluster() -> None:
    async with GrpcServer(server_credentials()) as server, GrpcBench({"auth": server.port}) as bench:
        cluster = bench.clusters["auth"]
        cluster.tls, cluster.server_name = ssl.create_default_context(cafile=CERTIFICATE), "api.test"
        _, told = bench.unary(policy("cluster:auth"), "Echo")
        assert await told.until(1) == [("message", b"x")]
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        cluster.tls = unverified
        _, told = bench.unary(policy("cluster:auth"), "Echo")
        assert await told.over() == [("closed", 14, b"TLS is not possible")]


def test_authorities() -> None:
    context = ssl.create_default_context(cafile=CERTIFICATE)
    assert authorities(context).count(b"BEGIN CERTIFICATE") == 1
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(TlsUnavailableError):
        authorities(context)


def test_targets() -> None:
    assert target_of(["127.0.0.1", "::1", "10.0.0.1"], 80) == "ipv4:127.0.0.1:80,10.0.0.1:80"
    assert target_of(["::1", "127.0.0.1"], 80) == "ipv6:[::1]:80"


def test_grpcio_is_not_imported_before_it_is_needed() -> None:
    """The supervisor forks: neither it nor a worker whose filters make no gRPC calls may have grpcio in it."""
    program = "import sys, proxy.server.assembly, proxy.server.supervisor, proxy.server.worker; print('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
