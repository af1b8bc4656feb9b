"""Callouts to hosts: what is dialled is what was allowed and checked, whatever names, name servers and responses say."""

import asyncio
from typing import Any

import pytest

from proxy.upstream.callout import BAD_ARGUMENT, CalloutError
from proxy.upstream.callout_hosts import MAX_HOSTS, SystemLookup
from tests.conformance.upstream import Answer, Body, Close, Upstream, sized
from tests.conformance.upstream import head as answer_head
from tests.upstream.callouts import LOOPBACK, Bench, Names, Spy, head, policy, server_context

PUBLIC = "93.184.216.34"
REFUSED = b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"


class Internet:
    """Stands for public addresses: what is dialled there ends on loopback instead, at the same port."""

    def __init__(self) -> None:
        self.dialled: list[tuple[str, int]] = []


@pytest.fixture
async def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    """Every connection that the loop is asked for, noted; public ones redirected."""
    there = Internet()
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def create_connection(factory: Any, host: str, port: int, **options: Any) -> Any:
        there.dialled.append((host, port))
        return await connect(factory, "127.0.0.1" if host == PUBLIC else host, port, **options)

    monkeypatch.setattr(loop, "create_connection", create_connection)
    return there


async def test_a_name_is_resolved_once_and_that_address_is_dialled(internet: Internet, spy: Spy) -> None:
    names = Names({"api.test": [[PUBLIC]]})
    async with Upstream() as api, Bench(names=names) as bench:
        entry = f"http://api.test:{api.port}"
        result = await bench.call(policy(entry), entry, head(authority="API.test", path="/x"))
        assert result.body == b"ok"
        assert api.requests[0].raw == b"GET /x HTTP/1.1\r\nhost: api.test:%d\r\n\r\n" % api.port
    assert internet.dialled == [(PUBLIC, api.port)]
    assert names.asked == ["api.test"]
    assert spy.connected == [("127.0.0.1", api.port)]
    assert "api.test" not in spy.resolved


async def test_dns_rebinding(internet: Internet, spy: Spy) -> None:
    """Public for the first connection, loopback for the second."""
    names = Names({"api.test": [[PUBLIC], ["127.0.0.1"]]})
    answer = Answer([Body(), answer_head(200, [("content-length", "0")]), Close()])
    async with Upstream([answer]) as api, Bench(names=names) as bench:
        caller, upstream = policy(f"http://api.test:{api.port}"), f"api.test:{api.port}"
        assert (await bench.call(caller, upstream, head(authority=upstream))).status == 200
        await asyncio.sleep(0.02)
        result = await bench.call(caller, upstream, head(authority=upstream))
    assert (result.status, result.body, result.failure) == (503, REFUSED, "address denied")
    assert names.asked == ["api.test", "api.test"]
    assert internet.dialled == [(PUBLIC, api.port)]
    assert len(spy.connected) == 1


async def test_a_kept_connection_stays_where_it_was_checked(internet: Internet) -> None:
    names = Names({"api.test": [[PUBLIC], ["127.0.0.1"]]})
    async with Upstream() as api, Bench(names=names) as bench:
        caller, upstream = policy(f"http://api.test:{api.port}"), f"http://api.test:{api.port}"
        for _ in range(3):
            assert (await bench.call(caller, upstream, head(authority="api.test"))).status == 200
        assert api.connections == 1
    assert (names.asked, internet.dialled) == (["api.test"], [(PUBLIC, api.port)])


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [PUBLIC, "10.0.0.1"],
        [PUBLIC, "169.254.169.254"],
        [PUBLIC, "::ffff:127.0.0.1"],
        [PUBLIC, "::1"],
        [PUBLIC, "fe80::1%eth0"],
        ["0.0.0.0"],
        [],
    ],
)
async def test_one_bad_address_refuses_all(addresses: list[str], internet: Internet, spy: Spy) -> None:
    """As when a name is an alias (CNAME) of one inside."""
    async with Upstream() as api, Bench(names=Names({"api.test": [addresses]})) as bench:
        entry = f"api.test:{api.port}"
        result = await bench.call(policy(entry), entry, head(authority="api.test"))
    assert (result.status, result.failure) == (503, "address denied")
    assert internet.dialled == []
    assert spy.connected == []


async def test_a_network_admits_a_private_address(internet: Internet) -> None:
    async with Upstream() as api, Bench(names=Names({"api.test": [["127.0.0.1"]]})) as bench:
        caller = policy(f"http://api.test:{api.port}", LOOPBACK)
        assert (await bench.call(caller, f"api.test:{api.port}", head(authority="api.test"))).body == b"ok"
    assert internet.dialled == [("127.0.0.1", api.port)]


async def test_the_gateway_is_not_called(internet: Internet) -> None:
    async with Upstream() as api, Bench(names=Names({"api.test": [["127.0.0.1"]]}), own=[("0.0.0.0", api.port)]) as bench:
        caller = policy(f"http://api.test:{api.port}", f"http://127.0.0.1:{api.port}", LOOPBACK)
        for host in ("api.test", "127.0.0.1"):
            result = await bench.call(caller, f"{host}:{api.port}", head(authority=host))
            assert (result.status, result.failure) == (503, "address denied")
    assert internet.dialled == []


@pytest.mark.parametrize(
    ("entry", "upstream", "authority"),
    [
        ("https://api.test", "http://api.test", "api.test"),
        ("https://api.test", "https://evil.test", "evil.test"),
        ("https://api.test", "https://api.test@127.0.0.1", "api.test"),
        ("https://api.test", "https://127.0.0.1#@api.test", "api.test"),
        ("https://api.test", "//api.test/", "api.test"),
        ("https://api.test", "https://api.test", "evil.test"),
        ("https://api.test", "https://api.test", "api.test:444"),
        ("https://api.test", "https://api.test", "api.test@evil.test"),
        ("https://api.test", "https://api.test", ""),
        ("http://127.0.0.1", "http://0x7f000001", "0x7f000001"),
        ("*.test", "https://api\t.test", "api.test"),
        ("cluster:api.test", "https://api.test", "api.test"),
        ("127.0.0.0/8", "http://127.0.0.1", "127.0.0.1"),
    ],
)
async def test_what_is_not_allowed_is_refused_at_once(
    entry: str, upstream: str, authority: str, internet: Internet, spy: Spy
) -> None:
    names = Names({})
    async with Bench(names=names) as bench:
        with pytest.raises(CalloutError) as refused:
            await bench.call(policy(entry), upstream, head(authority=authority))
        assert refused.value.status == BAD_ARGUMENT
    assert (names.asked, internet.dialled, spy.connected, spy.resolved) == ([], [], [], [])


async def test_a_denied_address_is_logged_with_the_line_to_write(capfd: pytest.CaptureFixture[str]) -> None:
    async with Bench(names=Names({"api.test": [["10.1.2.3"]]})) as bench:
        caller = policy("http://api.test")
        caller.name = "logged"
        await bench.call(caller, "api.test", head(authority="api.test"))
    logged = "".join(capfd.readouterr()).replace('\\"', '"')  # in JSON, if a test before this one chose that
    assert 'capabilities: {allowed_hosts: ["10.1.2.3/32"]}' in logged


async def test_a_name_that_does_not_exist() -> None:
    async with Bench(names=Names({})) as bench:
        result = await bench.call(policy("api.test"), "http://api.test", head(authority="api.test"))
    assert (result.status, result.body) == (503, REFUSED)


async def test_a_slow_resolver_is_a_timeout() -> None:
    async def never(host: str) -> list[str]:
        await asyncio.sleep(60)
        return []

    async with Bench(names=never) as bench:  # type: ignore[arg-type]
        result = await bench.call(policy("api.test"), "http://api.test", head(authority="api.test"), timeout=0.05)
        assert (result.status, result.failure) == (504, "timeout")
        caller = policy("api.test")
        bench.start(caller, "http://api.test", head(authority="api.test"))[0].cancel()
    assert not caller.running


async def test_a_redirect_is_returned_and_not_followed(internet: Internet) -> None:
    answer, names = sized(b"", 302, [("location", "http://127.0.0.1:9/")]), Names({"api.test": [[PUBLIC]]})
    async with Upstream([answer]) as api, Bench(names=names) as bench:
        entry = f"api.test:{api.port}"
        result = await bench.call(policy(entry), entry, head(authority="api.test"))
    assert result.headers[:2] == [(b":status", b"302"), (b"location", b"http://127.0.0.1:9/")]
    assert internet.dialled == [(PUBLIC, api.port)]


async def test_filters_share_no_connections(internet: Internet) -> None:
    """What one filter's networks admit is not there for another."""
    names = Names({"api.test": [["127.0.0.1"]]})
    async with Upstream() as api, Bench(names=names) as bench:
        entry, upstream = f"http://api.test:{api.port}", f"api.test:{api.port}"
        assert (await bench.call(policy(entry, LOOPBACK), upstream, head(authority="api.test"))).status == 200
        assert (await bench.call(policy(entry), upstream, head(authority="api.test"))).status == 503
    assert len(internet.dialled) == 1


async def test_kept_hosts_are_bounded(internet: Internet) -> None:
    names = Names({f"h{i}.api.test": [["127.0.0.1"]] for i in range(MAX_HOSTS + 8)})
    async with Upstream() as api, Bench(names=names) as bench:
        caller = policy(f"*.api.test:{api.port}", LOOPBACK)
        queues = None
        for i in range(MAX_HOSTS + 8):
            host = f"h{i}.api.test"
            assert (await bench.call(caller, f"http://{host}:{api.port}", head(authority=host))).status == 200
            queues = queues or len(bench.deadlines.queues)
        await asyncio.sleep(0.05)
        assert len(bench.callouts.hosts[caller].clusters) == MAX_HOSTS
        assert caller_connections(bench) == MAX_HOSTS
        assert len(bench.deadlines.queues) == queues, "a host costs no queue of deadlines"
        bench.callouts.forget(caller)
        await asyncio.sleep(0.02)
        assert caller_connections(bench) == 0


def caller_connections(bench: Bench) -> float:
    """Connections to hosts, as the gauge of the filter f has them."""
    return bench.instruments.upstream_connections.child(("filter:f",)).value


class TlsServer:
    """HTTPS for api.test; `names` are the server names that clients asked for."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.port = 0

    async def __aenter__(self) -> "TlsServer":
        context = server_context()
        context.sni_callback = lambda connection, name, context: self.names.append(name)  # type: ignore[assignment]
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.read(65536)) != b"":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()


async def test_https_asks_for_the_host_s_name(internet: Internet) -> None:
    names = Names({"api.test": [[PUBLIC]], "other.test": [[PUBLIC]]})
    async with TlsServer() as server, Bench(names=names, trusted=True) as bench:
        caller = policy(f"https://api.test:{server.port}", f"https://other.test:{server.port}")
        for _ in range(2):
            result = await bench.call(caller, f"https://api.test:{server.port}", head(authority="api.test"))
            assert (result.status, result.body) == (200, b"ok")
        assert server.names == ["api.test"]
        result = await bench.call(caller, f"https://other.test:{server.port}", head(authority="other.test"))
        assert (result.status, result.body) == (503, REFUSED)
        assert server.names == ["api.test", "other.test"]


async def test_https_trusts_only_the_system_s_authorities(internet: Internet) -> None:
    async with TlsServer() as server, Bench(names=Names({"api.test": [[PUBLIC]]})) as bench:
        caller = policy(f"https://api.test:{server.port}")
        result = await bench.call(caller, f"api.test:{server.port}", head(authority="api.test"))
    assert (result.status, result.failure) == (503, "CERTIFICATE_VERIFY_FAILED: self-signed certificate")


async def test_the_environment_s_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch, internet: Internet) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Upstream() as api, Bench(names=Names({"api.test": [[PUBLIC]]})) as bench:
        entry = f"api.test:{api.port}"
        assert (await bench.call(policy(entry), entry, head(authority="api.test"))).status == 200
    assert internet.dialled == [(PUBLIC, api.port)]


async def test_the_system_s_resolver(spy: Spy) -> None:
    lookup = SystemLookup(asyncio.get_running_loop())
    assert "127.0.0.1" in await lookup("localhost")
    assert spy.resolved == ["localhost"]
    lookup.close()


async def test_localhost_by_the_system_s_resolver_is_denied(internet: Internet, spy: Spy) -> None:
    async with Upstream() as api, Bench() as bench:
        caller = policy(f"http://localhost:{api.port}")
        result = await bench.call(caller, f"localhost:{api.port}", head(authority="localhost"))
        assert (result.status, result.failure) == (503, "address denied")
    assert (internet.dialled, spy.connected) == ([], [])
