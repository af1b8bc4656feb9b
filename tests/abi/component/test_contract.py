"""What both kinds of filters must do alike: the same cases, over guests that do the same (guests/contract_*.c), in a whole
gateway."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Service
from tests.integration.gateway import Gateway, filter_of
from tests.server.fakes import Client, Endpoint, replies

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
KINDS = ("component", "proxy_wasm")

pytestmark = pytest.mark.usefixtures("compiled_here")


class Stage:
    """A gateway with one filter, an endpoint that says hello, and a client."""

    def __init__(self, gateway: Any, server: Endpoint, client: Client) -> None:
        self.gateway = gateway
        self.server = server
        self.client = client

    async def ask(self, do: str, *headers: bytes, body: bytes | list[bytes] = b"", path: bytes = b"/") -> tuple[bytes, bytes]:
        """The response's head and body. A body that is a list is sent in these pieces."""
        pieces = [body] if isinstance(body, bytes) else body
        length = b"content-length: %d" % sum(map(len, pieces))
        lines = [b"POST " + path + b" HTTP/1.1", b"host: a", b"x-do: " + do.encode(), length, *headers, b"", b""]
        await self.client.send(b"\r\n".join(lines))
        for piece in pieces:
            if piece:
                await self.client.send(piece)
                await asyncio.sleep(0.02)
        return await self.client.response()

    @property
    def last(self) -> bytes:
        """The head of the last request that came through."""
        return self.server.heads[-1]

    @property
    def plugin(self) -> Any:
        return self.gateway.gateway.generation.chains.plugins[0]

    def failures(self, reason: str) -> int:
        family = self.gateway.telemetry.instruments.filter_failures
        return int(family.child(("f", reason)).value)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Open = Callable[..., Awaitable[Stage]]


@pytest.fixture
def stage(bench: Any, endpoint: Any, guest: Callable[[str, str], Path], kind: str) -> Open:
    async def start(
        serve: Any = None,
        clusters: Any = (),
        routes: Any = None,
        listener: Any = None,
        cluster: Any = None,
        **settings: Any,
    ) -> Stage:
        server = await endpoint(serve or replies(HELLO))
        filter_ = {"name": "f", "wasm": str(guest("contract", kind)), **settings}
        gateway = await bench(server, filters=[filter_], clusters=clusters, routes=routes, listener=listener, cluster=cluster)
        return Stage(gateway, server, await gateway.client())

    return start


async def test_headers_are_edited_on_both_ways(stage: Open) -> None:
    here = await stage()
    head, body = await here.ask("nothing")
    assert b"x-guest: yes\r\n" in here.last
    assert b"x-seen: 200\r\n" in head
    assert body == b"hello"


async def test_a_header_and_the_path_are_changed_and_one_removed(stage: Open) -> None:
    here = await stage()
    await here.ask("path")
    assert here.last.startswith(b"POST /other HTTP/1.1\r\n")
    await here.ask("remove", b"x-secret: s", b"x-kept: k")
    assert b"x-secret" not in here.last
    assert b"x-kept: k\r\n" in here.last


async def test_a_local_reply_goes_out_and_nothing_upstream(stage: Open) -> None:
    here = await stage()
    head, body = await here.ask("reply")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"x-by: guest\r\n" in head
    assert b"x-seen: 403\r\n" in head, "the answer does not pass the filter's own response callback"
    assert body == b"no"
    assert not here.server.heads
    assert here.gateway.telemetry.finished[-1].details == "not_today"


async def test_a_reply_from_a_body_callback(stage: Open) -> None:
    here = await stage(serve=echo)
    await here.client.send(b"POST / HTTP/1.1\r\nhost: a\r\nx-do: body-reply\r\ncontent-length: 6\r\n\r\nabc")
    # The gateway does not wait for the rest of the body, and closes.
    assert (await here.client.head()).startswith(b"HTTP/1.1 409")


async def test_a_reply_instead_of_the_upstream_s(stage: Open) -> None:
    here = await stage()
    head, body = await here.ask("response-reply")
    assert (head[9:12], body) == (b"409", b"instead")
    assert len(here.server.heads) == 1


@pytest.mark.parametrize("pieces", [[b"one two"], [b"one", b" ", b"two"], [b"o", b"n", b"e t", b"wo"], []])
@pytest.mark.parametrize("how", ["stream", "buffer"])
async def test_a_body_is_replaced_however_it_comes(stage: Open, how: str, pieces: list[bytes]) -> None:
    here = await stage(serve=echo)
    _, body = await here.ask(how, body=pieces)
    sent = b"".join(pieces).upper() + b"!" if pieces else b""
    assert body == sent + b"!"


async def echo(peer: Any) -> None:
    """Answers a request with its body."""
    while True:
        head = await peer.head()
        if b"chunked" in head:
            body = await chunked(peer)
        else:
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            body = await peer.reader.readexactly(int(length or 0))
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for byte in body:
            await peer.send(b"1\r\n%c\r\n" % byte)
        await peer.send(b"0\r\n\r\n")


async def chunked(peer: Any) -> bytes:
    """A body; its trailers are kept as `peer.trailers`."""
    body = b""
    while size := int((await peer.reader.readuntil(b"\r\n")).strip(), 16):
        body += (await peer.reader.readexactly(size + 2))[:-2]
    trailers = b""
    while not trailers.endswith(b"\r\n\r\n") and trailers != b"\r\n":
        trailers += await peer.reader.readuntil(b"\r\n")
    peer.trailers = [*getattr(peer, "trailers", ()), trailers]
    return body


@pytest.mark.parametrize("do", ["trap", "loop", "grow"])
@pytest.mark.parametrize("policy", ["open", "closed"])
async def test_a_fault_is_answered_by_the_policy_and_the_filter_comes_back(stage: Open, do: str, policy: str) -> None:
    here = await stage(on_failure=policy)
    head, _ = await here.ask(do)
    if do == "grow":
        assert b"x-pages: few\r\n" in here.last
        assert not here.failures("trap") + here.failures("memory")
        return
    assert head.startswith(b"HTTP/1.1 503" if policy == "closed" else b"HTTP/1.1 200")
    assert here.failures("fuel" if do == "loop" else "trap") == 1
    async with asyncio.timeout(5):
        while here.plugin.state()["state"] != "ready":
            await asyncio.sleep(0.02)
    head, _ = await here.ask("nothing")
    assert b"x-seen: 200" in head


async def test_a_trap_on_the_response(stage: Open) -> None:
    here = await stage()
    head, _ = await here.ask("response-trap")
    assert head.startswith(b"HTTP/1.1 503")
    assert here.failures("trap") == 1


async def test_a_deadline_ends_what_has_fuel_left(stage: Open) -> None:
    here = await stage(fuel=1_000_000_000_000, deadline=0.02)
    head, _ = await here.ask("loop")
    assert head.startswith(b"HTTP/1.1 503")
    assert here.failures("deadline") == 1


@pytest.mark.parametrize("policy", ["open", "closed"])
async def test_a_pause_has_an_end(stage: Open, policy: str) -> None:
    here = await stage(on_failure=policy, limits={"pause": 0.1})
    head, _ = await here.ask("pause")
    assert head.startswith(b"HTTP/1.1 503" if policy == "closed" else b"HTTP/1.1 200")
    assert here.failures("pause") == 1


@pytest.mark.parametrize("policy", ["open", "closed"])
async def test_a_response_that_is_held_has_an_end_too(stage: Open, policy: str) -> None:
    here = await stage(on_failure=policy, limits={"pause": 0.1})
    head, _ = await here.ask("response-pause")
    assert head.startswith(b"HTTP/1.1 503" if policy == "closed" else b"HTTP/1.1 200")
    assert here.failures("pause") == 1


async def test_fuel_and_time_of_calls_are_counted(stage: Open) -> None:
    """In the histograms as in the counters: each of the calls of a request, one that failed too."""
    here = await stage()
    await here.ask("nothing")
    await here.gateway.finished()
    here.plugin.refresh()
    histogram = here.plugin.instruments.call_fuel
    calls = sum(histogram.counts)
    assert calls == sum(here.plugin.fuel_counts) > 2
    assert 0 < histogram.sum == here.plugin.fuel_used.value < calls * 100_000
    await here.ask("loop")
    here.plugin.refresh()
    bounds = [*histogram.bounds, float("inf")]
    assert here.plugin.instruments.failures("fuel").value == 1
    assert sum(n for n, bound in zip(histogram.counts, bounds, strict=True) if bound > 5_000_000) == 1, (
        "the loop took all of it"
    )


async def test_lines_over_the_limit_are_dropped(stage: Open) -> None:
    here = await stage(limits={"log_lines": 10})
    await here.ask("chatty")
    assert here.plugin.instruments.log_lines_dropped.value == 40


async def test_a_body_that_is_too_large_to_hold(stage: Open) -> None:
    here = await stage(serve=echo, limits={"body_buffer": 1024})
    head, _ = await here.ask("buffer", body=[b"a" * 1000, b"b" * 1000])
    assert head.startswith(b"HTTP/1.1 413")
    assert here.failures("body_buffer") == 1


async def test_no_more_headers_than_the_limit(stage: Open) -> None:
    here = await stage(limits={"headers": 100}, fuel=100_000_000)
    head, _ = await here.ask("many")
    assert head.startswith(b"HTTP/1.1 200")
    assert here.last.count(b"x-many: 1\r\n") < 100


async def test_a_header_that_would_split_the_request_is_never_sent(stage: Open) -> None:
    here = await stage()
    head, _ = await here.ask("bad-header")
    assert not head.startswith(b"HTTP/1.1 200")
    assert not here.server.heads


async def test_an_answer_that_comes_too_late_does_nothing(stage: Open, service: Service) -> None:
    """The pause had its end, and the stream has gone on without the filter."""
    auth = {"name": "auth", "endpoints": [f"127.0.0.1:{service.port}"]}
    here = await stage(
        serve=slow, clusters=[auth], capabilities={"allowed_hosts": ["cluster:auth"]}, on_failure="open", limits={"pause": 0.1}
    )
    head, body = await here.ask("call", b"x-call: auth", b"x-ask: /ask?user=late&delay=0.3")
    assert (head[9:12], body) == (b"200", b"hello")
    assert b"x-user" not in here.last
    assert (here.failures("pause"), here.failures("trap")) == (1, 0)
    assert (await here.ask("nothing"))[0].startswith(b"HTTP/1.1 200")


async def slow(peer: Any) -> None:
    while True:
        await peer.head()
        await asyncio.sleep(0.5)
        await peer.send(HELLO)


async def test_a_client_that_leaves_takes_its_call_along(stage: Open, service: Service) -> None:
    auth = {"name": "auth", "endpoints": [f"127.0.0.1:{service.port}"]}
    here = await stage(clusters=[auth], capabilities={"allowed_hosts": ["cluster:auth"]})
    leaver = await here.gateway.client()
    await leaver.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-do: call\r\nx-call: auth\r\nx-ask: /ask?delay=0.3&user=u\r\n\r\n")
    async with asyncio.timeout(5):
        while not service.requests:
            await asyncio.sleep(0.01)
    leaver.close()
    await here.gateway.finished()
    await asyncio.sleep(0.4)
    assert not here.server.heads
    assert here.failures("trap") == 0
    assert (await here.ask("nothing"))[0].startswith(b"HTTP/1.1 200")


async def test_streams_that_are_open_together_are_told_apart(stage: Open) -> None:
    here = await stage(serve=echo)
    clients = [await here.gateway.client() for _ in range(3)]
    for i, client in enumerate(clients):
        await client.send(b"POST / HTTP/1.1\r\nhost: a\r\nx-do: buffer\r\ncontent-length: 4\r\n\r\n%d" % i)
    for part in (b"a", b"b", b"c"):
        await asyncio.sleep(0.02)
        for client in clients:
            await client.send(part)
    assert [(await client.response())[1] for client in clients] == [b"0ABC!!", b"1ABC!!", b"2ABC!!"]


async def test_trailers_come_with_what_is_held_of_the_body(stage: Open) -> None:
    """They are the end of the body; its last piece had not been."""
    listener = {"trailers": True}
    here = await stage(serve=echo, listener=listener, cluster=listener)
    for do, answer in (("nothing", b"abcdef"), ("buffer", b"ABCDEF!!")):
        await here.client.send(
            b"POST / HTTP/1.1\r\nhost: a\r\nx-do: " + do.encode() + b"\r\ntransfer-encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n3\r\ndef\r\n0\r\nx-checksum: c\r\n\r\n"
        )
        _, body = await here.client.response()
        assert body == answer
        assert here.server.peers[-1].trailers[-1] == b"x-checksum: c\r\nx-trailer: c\r\n\r\n"


async def test_a_filter_that_keeps_failing_is_taken_out(stage: Open) -> None:
    here = await stage(quarantine={"faults": 2, "window": 60})
    for _ in range(2):
        await here.ask("trap")
        async with asyncio.timeout(5):
            while here.plugin.state()["state"] == "failed":
                await asyncio.sleep(0.02)
    state = here.plugin.state()
    assert state["state"] == "quarantined"
    assert "2 faults within 60 s" in state["reason"]
    assert (await here.ask("nothing"))[0].startswith(b"HTTP/1.1 503")


async def test_properties(stage: Open) -> None:
    here = await stage()
    await here.ask("property", path=b"/p?q=1")
    assert b"x-path: /p?q=1\r\n" in here.last


async def test_shared_data_has_a_limit(guest: Callable[[str, str], Path], kind: str, service: Service) -> None:
    """A third value of a kilobyte is more than 3 KiB, with what the keys count."""
    filters = [filter_of(guest("contract", kind), "f", limits={"shared_data": "3KiB"})]
    async with Gateway(filters, {"service": service.port}) as gateway:
        assert (await gateway.get("/", x_do="fill"))[0] == 200
        assert service.requests[-1].headers["x-filled"] == "2"
        for count in ("1", "2"):
            assert (await gateway.get("/", x_do="count"))[0] == 200
            assert service.requests[-1].headers["x-count"] == count


async def test_metrics(stage: Open) -> None:
    here = await stage()
    for _ in range(2):
        await here.ask("metric")
    here.gateway.gateway.generation.chains.refresh()
    assert here.gateway.telemetry.instruments.guest_counter("penstock_guest_contract_total").child(("f",)).value == 6


async def test_a_config_that_the_filter_refuses(stage: Open) -> None:
    from proxy.chain.chains import FilterStartError

    with pytest.raises(FilterStartError, match=r"filter f did not start: .*[cC]onfigure.*the config says so"):
        await stage(config="refuse")
    with pytest.raises(FilterStartError, match=r"filter f did not start: .*configure: trap"):
        await stage(config="trap")


async def test_routes_configure_a_filter_or_switch_it_off(stage: Open) -> None:
    from proxy.chain.chains import FilterStartError

    routes = [
        {"match": {"prefix": "/off"}, "cluster": "service", "filters": {"f": {"enabled": False}}},
        {"match": {"prefix": "/own"}, "cluster": "service", "filters": {"f": {"config": "own"}}},
        {"match": {"prefix": "/"}, "cluster": "service"},
    ]
    here = await stage(routes=routes)
    await here.ask("nothing", path=b"/off")
    assert b"x-guest" not in here.last
    for path in (b"/own", b"/"):
        await here.ask("nothing", path=path)
        assert b"x-guest: yes\r\n" in here.last
    routes[1]["filters"] = {"f": {"config": "refuse"}}
    with pytest.raises(FilterStartError):
        await stage(routes=routes)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (b"/ask?user=ada", b"200", b"hello"),
        (b"/ask?status=401", b"403", b"401"),
        (b"/ask?cut=1", b"403", b"reset"),
    ],
)
async def test_a_call_decides(stage: Open, service: Service, path: bytes, status: bytes, body: bytes) -> None:
    auth = {"name": "auth", "endpoints": [f"127.0.0.1:{service.port}"]}
    here = await stage(clusters=[auth], capabilities={"allowed_hosts": ["cluster:auth"]})
    head, answer = await here.ask("call", b"x-call: auth", b"x-ask: " + path)
    assert (head[9:12], answer) == (status, body)
    if status == b"200":
        assert b"x-user: ada\r\n" in here.last
    else:
        assert not here.server.heads


async def test_a_call_that_is_not_allowed(stage: Open, service: Service) -> None:
    auth = {"name": "auth", "endpoints": [f"127.0.0.1:{service.port}"]}
    here = await stage(clusters=[auth])
    head, answer = await here.ask("call", b"x-call: auth", b"x-ask: /")
    assert head.startswith(b"HTTP/1.1 403")
    assert answer.startswith(b"refused: ")
    assert not service.requests


@pytest.mark.parametrize("policy", ["open", "closed"])
async def test_a_trap_in_the_answer_to_a_call_frees_the_stream(stage: Open, service: Service, policy: str) -> None:
    auth = {"name": "auth", "endpoints": [f"127.0.0.1:{service.port}"]}
    here = await stage(clusters=[auth], capabilities={"allowed_hosts": ["cluster:auth"]}, on_failure=policy)
    head, _ = await here.ask("call", b"x-call: auth", b"x-ask: /ask?user=trap")
    assert head.startswith(b"HTTP/1.1 503" if policy == "closed" else b"HTTP/1.1 200")
    assert here.failures("trap") == 1
