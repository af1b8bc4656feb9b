"""Callouts to clusters: what Envoy 1.40 does with the same calls (found by running it), and the limits that it has not."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from proxy.upstream.callout import BAD_ARGUMENT, INTERNAL_FAILURE, MOST_PREPARED, CalloutError, CalloutResult
from tests.conformance.upstream import Answer, Body, Close, Upstream, chunked, sized
from tests.conformance.upstream import head as answer_head
from tests.upstream.callouts import Bench, Spy, head, policy

TERMINATED = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"
REFUSED = b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
PROTOCOL = b"upstream connect error or disconnect/reset before headers. reset reason: protocol error"
OVERFLOW = b"upstream connect error or disconnect/reset before headers. reset reason: overflow"
OK = answer_head(200, [("content-length", "2")]) + b"ok"


def local(status: int, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """What a filter gets when there was no response."""
    pairs = [(":status", str(status)), ("content-length", str(len(body))), ("content-type", "text/plain")]
    return status, [(name.encode(), value.encode()) for name, value in pairs], body


def parts(result: CalloutResult) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return result.status, result.headers, result.body


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_call_and_its_response() -> None:
    answer = chunked([b"one", b"two"], 201, [("X-Up", "A"), ("set-cookie", "a"), ("set-cookie", "b"), ("keep-alive", "3")])
    async with Upstream([answer]) as auth, Bench({"auth": auth.port}) as bench:
        result = await bench.call(policy("cluster:auth"), "auth", head("POST", "/x?y=1", "a", ("X-A", "1")), b"hello")
        assert auth.requests[0].raw == b"POST /x?y=1 HTTP/1.1\r\nhost: a\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello"
    assert result.headers == [
        (b":status", b"201"), (b"x-up", b"A"), (b"set-cookie", b"a"), (b"set-cookie", b"b"),
        (b"transfer-encoding", b"chunked"),
    ]  # fmt: skip
    assert (result.status, result.body, result.trailers, result.failure) == (201, b"onetwo", [], "")


@pytest.mark.parametrize(
    ("answer", "headers", "body"),
    [
        ([Body(), answer_head(204)], [(b":status", b"204")], b""),
        ([Body(), answer_head(304, [("content-length", "5")])], [(b":status", b"304"), (b"content-length", b"5")], b""),
        ([Body(), answer_head(103, [("link", "x")]), OK], [(b":status", b"200"), (b"content-length", b"2")], b"ok"),
        ([Body(), answer_head(200), b"abc", 0.02, Close()], [(b":status", b"200")], b"abc"),
        (
            [Body(), answer_head(302, [("location", "http://127.0.0.1:1/"), ("content-length", "0")])],
            [(b":status", b"302"), (b"location", b"http://127.0.0.1:1/"), (b"content-length", b"0")],
            b"",
        ),
    ],
)
async def test_responses(answer: list[Any], headers: list[tuple[bytes, bytes]], body: bytes, spy: Spy) -> None:
    async with Upstream([Answer(answer)]) as auth, Bench({"auth": auth.port}) as bench:
        result = await bench.call(policy("cluster:auth"), "auth", head())
    assert (result.headers, result.body, result.failure) == (headers, body, "")
    assert spy.connected == [("127.0.0.1", auth.port)], "a redirect is not followed"


async def test_head() -> None:
    answer = Answer([Body(), answer_head(200, [("content-length", "5")])])
    async with Upstream([answer, sized()]) as auth, Bench({"auth": auth.port}) as bench:
        result = await bench.call(policy("cluster:auth"), "auth", head("HEAD"))
        assert (result.headers, result.body) == ([(b":status", b"200"), (b"content-length", b"5")], b"")
        assert (await bench.call(policy("cluster:auth"), "auth", head())).body == b"ok"
        assert auth.connections == 1


@pytest.mark.parametrize(
    ("steps", "status", "body"),
    [
        ([Body(), Close()], 503, TERMINATED),
        ([Body(), Close(abort=True)], 503, TERMINATED),
        ([Body(), b"garbage\r\n\r\n"], 502, PROTOCOL),
        ([Body(), b"HTTP/1.1 101 X\r\nupgrade: foo\r\n\r\n"], 502, PROTOCOL),
        ([Body(), answer_head(200, [(f"x{i}", "1") for i in range(101)]) + b"ok"], 502, PROTOCOL),
        ([Body(), answer_head(200, [(f"x{i}", "a" * 10_000) for i in range(7)]) + b"ok"], 502, PROTOCOL),
        ([Body(), answer_head(200, [("x", "a" * 70_000)]) + b"ok"], 502, PROTOCOL),
        ([Body(), b"HTTP/1.1 200 X\r\n", *[b"a: %s\r\n" % (b"b" * 30_000)] * 12, 5.0], 502, PROTOCOL),
        ([Body(), 5.0, OK], 504, b"upstream request timeout"),
        ([Body(), b"HTTP/1.1 200 X\r\n", 5.0], 504, b"upstream request timeout"),
    ],
)
async def test_before_the_head_a_failure_is_a_response(steps: list[Any], status: int, body: bytes) -> None:
    async with Upstream([Answer(steps)]) as auth, Bench({"auth": auth.port}) as bench:
        result = await bench.call(policy("cluster:auth"), "auth", head(), timeout=0.3)
    assert parts(result) == local(status, body)
    assert result.failure


async def test_a_failure_of_head_has_no_body() -> None:
    async with Bench({"auth": unused_port()}) as bench:
        result = await bench.call(policy("cluster:auth"), "auth", head("HEAD"))
    assert parts(result) == (503, local(503, REFUSED)[1], b"")


@pytest.mark.parametrize(
    "steps",
    [
        [Body(), answer_head(200, [("content-length", "4")]) + b"ok", 0.02, Close()],
        [Body(), answer_head(200, [("content-length", "4")]) + b"ok", 0.02, Close(abort=True)],
        [Body(), answer_head(200, [("transfer-encoding", "chunked")]) + b"2\r\nok\r\n", 0.02, Close()],
        [Body(), answer_head(200, [("transfer-encoding", "chunked")]) + b"2\r\nok\r\n", 0.02, b"zz\r\n"],
        [Body(), answer_head(200, [("content-length", "4")]) + b"ok", 5.0],
        [Body(), answer_head(200, [("content-length", "1001")]) + b"x" * 1001],
        [Body(), answer_head(200, [("transfer-encoding", "chunked")]), *[b"64\r\n%s\r\n" % (b"x" * 100)] * 11, 5.0],
        [Body(), answer_head(200), b"x" * 1001, 5.0],
    ],
)
async def test_after_the_head_a_failure_is_a_reset(steps: list[Any]) -> None:
    async with Upstream([Answer(steps)]) as auth, Bench({"auth": auth.port}) as bench:
        result = await bench.call(policy("cluster:auth", max_response_bytes=1000), "auth", head(), timeout=0.3)
    assert parts(result) == (0, [], b"")
    assert result.reset
    assert result.failure


async def test_a_response_of_the_largest_size() -> None:
    async with Upstream([sized(b"x" * 1000)]) as auth, Bench({"auth": auth.port}) as bench:
        result = await bench.call(policy("cluster:auth", max_response_bytes=1000), "auth", head())
    assert result.body == b"x" * 1000


async def test_connect_failures() -> None:
    async with Upstream() as auth, Bench({"dead": unused_port(), "half": [unused_port(), auth.port]}) as bench:
        caller = policy("cluster:dead", "cluster:half")
        result = await bench.call(caller, "dead", head())
        assert parts(result) == local(503, REFUSED)
        assert result.failure == "Connection refused"
        for _ in range(4):
            assert (await bench.call(caller, "half", head())).status == 200


@pytest.mark.parametrize(
    ("upstream", "headers", "timeout", "status"),
    [
        ("nope", head(), 1.0, BAD_ARGUMENT),
        ("", head(), 1.0, BAD_ARGUMENT),
        ("other", head(), 1.0, BAD_ARGUMENT),
        ("auth", head()[1:], 1.0, BAD_ARGUMENT),
        ("auth", [head()[0], *head()[2:]], 1.0, BAD_ARGUMENT),
        ("auth", head()[:2], 1.0, BAD_ARGUMENT),
        ("auth", [], 1.0, BAD_ARGUMENT),
        ("auth", head(), 2147483.648, BAD_ARGUMENT),
        ("auth", head(), -1.0, BAD_ARGUMENT),
        ("auth", [*head(), (b"x", b"a" * 70_000)], 1.0, BAD_ARGUMENT),
    ],
)
async def test_bad_arguments(upstream: str, headers: Any, timeout: float, status: int, spy: Spy) -> None:
    async with Upstream() as auth, Bench({"auth": auth.port, "other": auth.port}) as bench:
        caller = policy("cluster:auth")
        with pytest.raises(CalloutError) as refused:
            await bench.call(caller, upstream, headers, timeout=timeout)
        assert refused.value.status == status
        assert not caller.running
    assert spy.connected == []


async def test_a_denial_says_what_to_write() -> None:
    async with Bench({"auth": 1}) as bench:
        with pytest.raises(CalloutError, match=r'capabilities: \{allowed_hosts: \["cluster:auth"\]\}'):
            await bench.call(policy(), "auth", head())


async def test_a_head_that_cannot_be_written_is_answered_later_and_not_sent(spy: Spy) -> None:
    async with Bench({"auth": unused_port()}) as bench:
        caller = policy("cluster:auth")
        result = await bench.call(caller, "auth", [*head(), (b"x", b"a\r\ny: b")])
        assert not caller.running
    assert parts(result) == local(503, b"invalid header value for: x")
    assert spy.connected == []


async def test_calls_in_flight_are_limited_per_filter() -> None:
    slow = Answer([Body(), 0.1, OK])
    async with Upstream([slow]) as auth, Bench({"auth": auth.port}) as bench:
        caller, other = policy("cluster:auth", max_calls=3), policy("cluster:auth", max_calls=3)
        running = [bench.start(caller, "auth", head())[1] for _ in range(3)]
        with pytest.raises(CalloutError) as refused:
            bench.start(caller, "auth", head())
        assert refused.value.status == INTERNAL_FAILURE
        running.append(bench.start(other, "auth", head())[1])
        assert [result.status for result in await asyncio.gather(*running)] == [200] * 4
        assert not caller.running
        assert (await bench.call(caller, "auth", head())).status == 200


async def test_a_cluster_that_takes_no_more_refuses_at_once() -> None:
    cluster = {"max_connections": 1, "max_pending": 1}
    async with Upstream([Answer([Body(), 0.1, OK])]) as auth, Bench({"auth": auth.port}, **cluster) as bench:
        caller = policy("cluster:auth")
        running = [bench.start(caller, "auth", head())[1] for _ in range(2)]
        with pytest.raises(CalloutError) as refused:
            bench.start(caller, "auth", head())
        assert refused.value.status == INTERNAL_FAILURE
        assert len(caller.running) == 2
        assert [result.status for result in await asyncio.gather(*running)] == [200, 200]


async def test_a_call_that_waited_too_long_for_a_connection() -> None:
    cluster = {"connect_timeout": 0.1, "max_connections": 1}
    async with Upstream([Answer([Body(), 0.6, OK])]) as auth, Bench({"auth": auth.port}, **cluster) as bench:
        caller = policy("cluster:auth")
        first, second = (bench.start(caller, "auth", head())[1] for _ in range(2))
        assert parts(await second) == local(503, OVERFLOW)
        assert (await first).status == 200


async def test_too_large_a_body_is_refused() -> None:
    async with Bench({"auth": 1}) as bench:
        with pytest.raises(CalloutError) as refused:
            await bench.call(policy("cluster:auth", max_request_bytes=10), "auth", head("POST"), b"x" * 11)
        assert refused.value.status == INTERNAL_FAILURE


@pytest.mark.parametrize("timeout", [0.0, 60.0])
async def test_no_call_takes_longer_than_the_policy_says(timeout: float) -> None:
    async with Upstream([Answer([Body(), 5.0])]) as auth, Bench({"auth": auth.port}) as bench:
        result = await bench.call(policy("cluster:auth", max_seconds=0.1), "auth", head(), timeout=timeout)
    assert result.status == 504


async def test_cancel() -> None:
    async with Upstream([Answer([Body(), 5.0])]) as auth, Bench({"auth": auth.port}) as bench:
        caller = policy("cluster:auth")
        dialling = bench.start(caller, "auth", head())
        dialling[0].cancel()
        waiting = bench.start(caller, "auth", head())
        invalid = bench.start(caller, "auth", [*head(), (b"x", b"\0")])
        invalid[0].cancel()
        while not auth.requests:
            await asyncio.sleep(0.01)
        waiting[0].cancel()
        waiting[0].cancel()
        assert not caller.running
        await asyncio.sleep(0.05)
        assert not any(future.done() for _, future in (dialling, waiting, invalid))
        assert bench.clusters["auth"].connections == 0


async def test_close_ends_all_calls() -> None:
    async with Upstream([Answer([Body(), 5.0])]) as auth:
        async with Bench({"auth": auth.port}) as bench:
            caller = policy("cluster:auth")
            futures = [bench.start(caller, "auth", head())[1] for _ in range(3)]
            await asyncio.sleep(0.05)
        assert not caller.running
        assert not any(future.done() for future in futures)


async def test_connections_are_used_again() -> None:
    async with Upstream() as auth, Bench({"auth": auth.port}) as bench:
        caller = policy("cluster:auth")
        for _ in range(5):
            assert (await bench.call(caller, "auth", head())).body == b"ok"
        assert auth.connections == 1


async def test_trailers_do_not_become_headers_of_the_next_response() -> None:
    answers = [chunked([b"x"], trailers=[("t", "1"), ("set-cookie", "2")]), sized()]
    async with Upstream(answers) as auth, Bench({"auth": auth.port}) as bench:
        await bench.call(policy("cluster:auth"), "auth", head())
        result = await bench.call(policy("cluster:auth"), "auth", head())
        assert auth.connections == 1
    assert result.headers == [(b":status", b"200"), (b"content-length", b"2")]


async def test_trailers_reach_the_filter_from_a_cluster_that_passes_them_on() -> None:
    answers = [chunked([b"x"], trailers=[("T", "1"), ("set-cookie", "2")])]
    async with Upstream(answers) as auth, Bench({"auth": auth.port}) as bench:
        bench.clusters["auth"].trailers = True
        result = await bench.call(policy("cluster:auth"), "auth", head())
    assert (result.body, result.trailers) == (b"x", [(b"t", b"1")])


async def test_a_filter_may_call_again_from_the_callback() -> None:
    async with Upstream() as auth, Bench({"auth": auth.port}) as bench:
        caller = policy("cluster:auth", max_calls=1)
        over: asyncio.Future[list[bytes]] = bench.loop.create_future()
        bodies: list[bytes] = []

        def again(result: CalloutResult) -> None:
            bodies.append(result.body)
            if len(bodies) == 3:
                over.set_result(bodies)
            else:
                bench.callouts.start(caller, "auth", head(), b"", (), 1.0, again)

        bench.callouts.start(caller, "auth", head(), b"", (), 1.0, again)
        assert await asyncio.wait_for(over, 5) == [b"ok"] * 3
        assert auth.connections == 1


class Closing(asyncio.Protocol):
    """Answers the first request of a connection, and closes when the second comes."""

    def __init__(self) -> None:
        self.requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.requests += 1
        if self.requests == 1:
            self.transport.write(OK)  # type: ignore[attr-defined]
        else:
            self.transport.close()


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("PUT", 200), ("POST", 503)])
async def test_a_kept_connection_that_closes_costs_an_idempotent_call_nothing(method: str, status: int) -> None:
    server = await asyncio.get_running_loop().create_server(Closing, "127.0.0.1", 0)
    async with server, Bench({"auth": server.sockets[0].getsockname()[1]}) as bench:
        caller = policy("cluster:auth")
        assert (await bench.call(caller, "auth", head())).status == 200
        assert (await bench.call(caller, "auth", head(method))).status == status


FIELDS = [("X-Up", "A"), ("set-cookie", "a"), ("set-cookie", "b"), ("keep-alive", "3"), ("Content-Length", "2")]


@pytest.mark.parametrize("steps", [[Body(), answer_head(200, FIELDS) + b"ok"], [Body(), answer_head(200, FIELDS), 0.02, b"ok"]])
async def test_a_plain_response_has_the_same_headers_on_both_ways(steps: list[Any]) -> None:
    async with Upstream([Answer(steps)]) as auth, Bench({"auth": auth.port}) as bench:
        plain, parsed = policy("cluster:auth"), policy("cluster:auth")
        parsed.load_plain = None
        results = [await bench.call(caller, "auth", head()) for caller in (plain, parsed, plain)]
        assert auth.connections == 1
    assert [bool(result.head) for result in results] == [len(steps) == 2, False, len(steps) == 2]
    pairs = [(b":status", b"200"), *((name.lower().encode(), value.encode()) for name, value in FIELDS if name != "keep-alive")]
    assert [(result.headers, result.body, result.reset) for result in results] == [(pairs, b"ok", False)] * 3


@pytest.mark.parametrize(("limit", "status"), [({"max_response_bytes": 1}, 0), ({"max_head_bytes": 150}, 502)])
async def test_a_plain_response_has_the_same_limits(limit: dict[str, int], status: int) -> None:
    answer = Answer([Body(), answer_head(200, [*FIELDS, ("x", "a" * 150)]) + b"ok"])
    async with Upstream([answer]) as auth, Bench({"auth": auth.port}) as bench:
        result = await bench.call(policy("cluster:auth", **limit), "auth", head())
    assert (result.status, bool(result.failure), result.head) == (status, True, b"")


async def test_a_call_that_is_known_is_the_same_call_and_under_the_same_limits() -> None:
    async with Upstream([Answer([Body(), 0.05, OK])]) as auth, Bench({"auth": auth.port, "other": auth.port}) as bench:
        caller = policy("cluster:auth", max_calls=1)
        headers = head("POST", "/x", "a", ("X-A", "1"))
        for body in (b"one", b"two", b"three", b"one"):
            assert (await bench.call(caller, "auth", headers, body)).status == 200
        assert [bytes(request.raw) for request in auth.requests] == [
            b"POST /x HTTP/1.1\r\nhost: a\r\nx-a: 1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
            for body in (b"one", b"two", b"three", b"one")
        ]
        assert len(caller.prepared) == 2
        running = bench.start(caller, "auth", headers, b"one")[1]
        for upstream, timeout, status in (("auth", 3.0, 10), ("auth", 2147483.648, 2), ("other", 3.0, 10)):
            with pytest.raises(CalloutError) as refused:
                await bench.call(caller, upstream, headers, b"one", timeout)
            assert refused.value.status == status
        assert (await running).status == 200
        with pytest.raises(CalloutError, match="not allowed"):
            await bench.call(caller, "other", headers, b"one")
        with pytest.raises(CalloutError, match="not allowed"):
            await bench.call(policy(), "auth", headers, b"one")
        for i in range(MOST_PREPARED):
            assert (await bench.call(caller, "auth", head(path=f"/{i}", authority="a b"))).status == 503
        assert len(caller.prepared) <= MOST_PREPARED
        bench.callouts.forget(caller)
        assert not caller.prepared


async def test_the_environment_s_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch, spy: Spy) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Upstream() as auth, Bench({"auth": auth.port}) as bench:
        assert (await bench.call(policy("cluster:auth"), "auth", head())).status == 200
    assert spy.connected == [("127.0.0.1", auth.port)]


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_on_each_loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def calls() -> list[int]:
        answers = [sized(), Answer([Body(), Close()]), Answer([Body(), 5.0])]
        async with Upstream(answers) as auth, Bench({"auth": auth.port, "dead": unused_port()}) as bench:
            caller = policy("cluster:auth", "cluster:dead", f"http://127.0.0.1:{auth.port}")
            upstreams = ["auth", f"127.0.0.1:{auth.port}", "auth", "dead"]
            results = [await bench.call(caller, u, head("POST", "/", "127.0.0.1"), b"x", 0.2) for u in upstreams]
            return [result.status for result in results]

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(calls()) == [200, 503, 504, 503]
