"""Requests that filters make (proxy_http_call): to a cluster, or to a host, where the filter's allowed_hosts says so.

Behaves as Envoy 1.40 does with the same call. Bad arguments are refused at once, with a status for the filter. What goes wrong
before the response's head becomes a response: 503 (no connection, or closed too early, or a head that cannot be written), 502
(not HTTP), 504 (too late), each with Envoy's body. What goes wrong after it is a reset: no headers at all, and proxy_get_status
then says 11, "reset". Redirects are answers like any other. Nothing of the environment (proxies) is looked at.

Driven by callbacks like server/exchange.py; a call costs no task unless a connection is made. `done` is never called from
inside `start`: a filter learns its token first.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from proxy.capabilities.addresses import OwnAddresses
from proxy.capabilities.allowed_hosts import AllowedHosts, DeniedError, Target
from proxy.telemetry.instruments import ClusterInstruments
from proxy.telemetry.logging import get_logger, limited
from proxy.upstream.call_timeouts import CallTimeouts, TimeoutQueue
from proxy.upstream.callout_head import InvalidHeadError, MissingError, Pairs, RequestHead
from proxy.upstream.callout_hosts import Dialling, HostClusters, Lookup
from proxy.upstream.cluster import Cluster, Deadlines
from proxy.upstream.connection import RawHeaders, UpstreamConnection
from proxy.upstream.failure import Failure
from proxy.upstream.pool import Dial, Pool
from proxy.upstream.write_batch import WriteBatch

log = get_logger("callout")

BAD_ARGUMENT: Final = 2
INTERNAL_FAILURE: Final = 10

MAX_TIMEOUT = 2**31 / 1000
"""Seconds; Envoy refuses 2^31 ms and more."""
MAX_RESPONSE_HEADERS = 100
"""Envoy's limit for a response of an upstream."""
MAX_ATTEMPTS = 3
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 9.2.2: may be sent again when a kept connection turns out to be closed."""
TIMEOUT_BODY = b"upstream request timeout"
MOST_PREPARED = 64
LARGEST_PREPARED = 4096
"""Calls that are kept for each filter, and the most bytes of the headers of one."""
LINES_PER_SECOND = 1.0
"""Denials in the log, per filter."""


class CalloutError(Exception):
    """A call that is not made. `status` is what proxy_http_call returns (2 BadArgument, 10 InternalFailure), `reason` is for
    the filter's author."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class CalloutResult:
    """What the filter gets. `headers`: names in lower case, `:status` first; none at all after a reset. `failure`: why the
    response is not the upstream's own, "" if it is.

    `head`: the response's head as it came, where CalloutPolicy.load_plain has loaded it as `fields` headers; else empty.
    """

    __slots__ = ("body", "failure", "fields", "given", "head", "status", "trailers")

    def __init__(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        trailers: list[tuple[bytes, bytes]] | None = None,
        failure: str = "",
        head: bytes = b"",
        fields: int = 0,
    ) -> None:
        self.status = status
        self.given = headers
        self.body = body
        self.trailers = [] if trailers is None else trailers
        self.failure = failure
        self.head = head
        self.fields = fields

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Made of `head` for who asks for them here: filters have them loaded."""
        return plain_pairs(self.head) if self.head else self.given

    @property
    def reset(self) -> bool:
        """No response, or not all of it."""
        return not self.head and not self.given


def plain_pairs(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a head that is known to be plain: each line is `name: value`."""
    lines = head.split(b"\r\n")
    pairs = [(b":status", lines[0][9:12])]
    for line in lines[1:-2]:
        name, _, value = line.partition(b": ")
        name = name.lower()
        if name != b"keep-alive":
            pairs.append((name, value))
    return pairs


class Running(Protocol):
    """A call in flight."""

    def cancel(self) -> None: ...


class Prepared(NamedTuple):
    """A call that has been looked at."""

    request: bytes
    """Its head."""
    method: bytes
    invalid: bytes
    """Not empty: it is not sent, and this is the body of the answer."""
    cluster: Cluster | None
    target: Target | None
    """The host, where it goes to no cluster of the config."""
    headers: Pairs
    """What the filter gave."""


class CalloutPolicy:
    """One filter's right to call, its limits, and what it has in flight. Compares by identity."""

    def __init__(
        self,
        name: str,
        allowed: AllowedHosts,
        max_calls: int = 8,
        max_seconds: float = 60.0,
        max_response_bytes: int = 1 << 20,
        max_request_bytes: int = 1 << 20,
        max_head_bytes: int = 64 << 10,
    ) -> None:
        """`name` is the filter's. A call's own timeout, 0 (none) included, is cut to `max_seconds`; `max_response_bytes` and
        `max_request_bytes` hold for bodies, `max_head_bytes` for either head."""
        self.name = name
        self.allowed = allowed
        self.max_calls = max_calls
        self.max_seconds = max_seconds
        self.max_response_bytes = max_response_bytes
        self.max_request_bytes = max_request_bytes
        self.max_head_bytes = max_head_bytes
        self.running: set[Running] = set()
        """HTTP calls and gRPC calls: `max_calls` holds for both together."""
        self.load_plain: Callable[[bytes, int], int] | None = None
        """Takes a plain response's head, with so many bytes of body, to where the filter will read it: the status, shifted left
        by 16, and the number of fields; 0 if it is not plain. None: there is no such place."""
        self.prepared: dict[tuple[str, int, int], Prepared] = {}
        """Calls by upstream, the id of their headers, and the length of the body: what was found of them stays so until the
        filter is gone. What changes (calls in flight, the addresses that a host has) is asked for each."""

    def cancel_all(self) -> None:
        """The filter is going: end its calls without a word."""
        for call in list(self.running):
            call.cancel()

    def on_denied(self, error: DeniedError) -> None:
        """Tell the operator what to write, if that is wanted."""
        if not limited(("callout denied", self.name), LINES_PER_SECOND):
            log.warning("callout denied", filter=self.name, reason=error.reason, to_allow=error.line or None)


class Callouts:
    """One per worker. Use from the event loop's thread only."""

    def __init__(
        self,
        clusters: Mapping[str, Cluster],
        writes: WriteBatch,
        deadlines: Deadlines,
        instruments: Callable[[str], ClusterInstruments],
        own: Iterable[tuple[str, int]] = (),
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
        connect_timeout: float = 2.0,
        idle_timeout: float = 30.0,
    ) -> None:
        """`own`: where the gateway listens, as `getsockname` says (never called). `lookup`: another resolver than the
        system's. `tls`: for https hosts; without it the system's authorities, read at the first call (some 20 ms). Both
        timeouts, in seconds, are for connections to hosts; a cluster has its own."""
        self.clusters = clusters
        self.loop = writes.loop
        self.timeouts = CallTimeouts(writes.loop, CalloutHandle.on_timeout)
        self.dialling = Dialling(writes, deadlines, instruments, OwnAddresses(own), lookup, tls, connect_timeout, idle_timeout)
        self.hosts: dict[CalloutPolicy, HostClusters] = {}
        self.callers: set[CalloutPolicy] = set()

    def start(
        self,
        caller: CalloutPolicy,
        upstream: str,
        headers: Pairs,
        body: bytes,
        trailers: Pairs,
        timeout: float,
        done: Callable[[CalloutResult], None],
    ) -> "CalloutHandle":
        """Make a call: `upstream` is a cluster's name, else `[scheme://]host[:port]`; `timeout` in seconds, 0 for none.

        `done` is called once, later, unless the call is cancelled. `trailers` are dropped, as by Envoy's HTTP/1 codec. Headers
        that are a tuple are known again when the same one comes again. Raises CalloutError.
        """
        size = len(body)
        # By identity: the tuple is kept in what is found, so there is no other one with its id.
        ready = caller.prepared.get((upstream, id(headers), size))
        try:
            head = RequestHead(headers) if ready is None else None
        except MissingError as error:
            raise CalloutError(BAD_ARGUMENT, str(error)) from None
        if not 0 <= timeout < MAX_TIMEOUT:
            raise CalloutError(BAD_ARGUMENT, "the timeout is 2^31 ms or more")
        if len(caller.running) >= caller.max_calls:
            raise CalloutError(INTERNAL_FAILURE, f"{caller.max_calls} calls are in flight (limits.calls)")
        if ready is None:
            assert head is not None
            ready = self.prepare(caller, upstream, headers, head, size)
            self.callers.add(caller)
        request, method, invalid, cluster, target, _ = ready
        if target is not None:
            cluster = self.hosts_of(caller).cluster(target, caller.on_denied)
        assert cluster is not None
        call = CalloutHandle(caller, cluster, self.loop, method, done)
        if invalid:
            call.answer_soon(invalid)
        else:
            longest = caller.max_seconds
            call.start(request + body, self.timeouts.queue(timeout if 0 < timeout < longest else longest))
        return call

    def prepare(self, caller: CalloutPolicy, upstream: str, headers: Pairs, head: RequestHead, size: int) -> Prepared:
        """Look at a call with a body of `size` bytes. Raises CalloutError."""
        if size > caller.max_request_bytes:
            raise CalloutError(INTERNAL_FAILURE, f"the body has {size} bytes, more than {caller.max_request_bytes}")
        head_size = sum(len(name) + len(value) + 4 for name, value in headers)
        if head_size > caller.max_head_bytes:
            raise CalloutError(BAD_ARGUMENT, f"the headers have more than {caller.max_head_bytes} bytes")
        try:
            cluster, target = self.destination(caller, upstream, head)
        except DeniedError as error:
            caller.on_denied(error)
            raise CalloutError(BAD_ARGUMENT, str(error)) from None
        request = invalid = b""
        try:
            request = head.write(head.authority if target is None else target.authority.encode(), size)
        except InvalidHeadError as error:
            invalid = error.body
        ready = Prepared(request, head.method, invalid, cluster, target, headers)
        if headers.__class__ is tuple and head_size <= LARGEST_PREPARED:  # a list could be changed
            if len(caller.prepared) >= MOST_PREPARED:
                caller.prepared.clear()
            caller.prepared[upstream, id(headers), size] = ready
        return ready

    def destination(self, caller: CalloutPolicy, upstream: str, head: RequestHead) -> tuple[Cluster | None, Target | None]:
        """Where the call goes: a cluster of the config, or a host. Raises DeniedError."""
        cluster = self.clusters.get(upstream)
        if cluster is not None:
            caller.allowed.check_cluster(upstream)
            return cluster, None
        target = caller.allowed.target(upstream, head.scheme.decode("latin-1").lower())
        caller.allowed.check_authority(target, head.authority.decode("utf-8", "surrogateescape"))
        return None, target

    def hosts_of(self, caller: CalloutPolicy) -> HostClusters:
        """The clusters of the hosts that the filter calls."""
        hosts = self.hosts.get(caller)
        if hosts is None:
            hosts = self.hosts[caller] = HostClusters(self.dialling, caller.allowed, max(caller.max_calls, 1), caller.name)
        return hosts

    def forget(self, caller: CalloutPolicy) -> None:
        """The filter is gone: end its calls, close its connections."""
        caller.cancel_all()
        caller.prepared.clear()
        self.callers.discard(caller)
        hosts = self.hosts.pop(caller, None)
        if hosts is not None:
            hosts.close()

    def close(self) -> None:
        """End everything."""
        for caller in list(self.callers):
            self.forget(caller)
        self.timeouts.close()
        self.dialling.close()


class CalloutHandle:
    """One call in flight: waits for its connection, takes the response's events."""

    # Set on the class, because most calls leave them so.
    request = b""
    timer: asyncio.Handle | None = None
    queue: TimeoutQueue | None = None
    """Where the call's timeout runs."""
    dial: Dial | None = None
    connection: UpstreamConnection | None = None
    attempts = 0
    status = 0
    headers: list[tuple[bytes, bytes]] | None = None
    """Not None: the response has begun."""
    head = b""
    """Of a response that is plain."""
    size = 0
    """Bytes of the response's body so far."""
    starting = True
    refused = ""
    over = False

    def __init__(
        self,
        caller: CalloutPolicy,
        cluster: Cluster,
        loop: asyncio.AbstractEventLoop,
        method: bytes,
        done: Callable[[CalloutResult], None],
    ) -> None:
        self.caller = caller
        self.cluster = cluster
        self.loop = loop
        self.method = method
        self.done = done
        caller.running.add(self)

    def cancel(self) -> None:
        """End it; `done` will not be called. Harmless when it is over."""
        if not self.over:
            self.end()

    # Callouts' side

    def start(self, request: bytes, queue: TimeoutQueue) -> None:
        """Send the request. Raises CalloutError if the cluster takes no more."""
        self.request = request
        self.queue = queue
        queue.start(self)
        self.connect()
        self.starting = False
        if self.refused:
            raise CalloutError(INTERNAL_FAILURE, self.refused)

    def answer_soon(self, body: bytes) -> None:
        """Nothing is sent; the filter gets a 503 as its answer."""
        self.starting = False
        self.timer = self.loop.call_soon(self.answer, 503, body, "invalid request")

    # The connection

    def connect(self, fresh: bool = False, avoid: Pool | None = None) -> bool:
        """Take a kept connection or start a new one. False if `avoid` is the only endpoint."""
        pool = self.cluster.next_pool(avoid)
        if pool is None:
            return False
        self.attempts += 1
        connection = None if fresh else pool.take()
        if connection is not None:
            self.on_connected(connection)
            return True
        dial = self.cluster.dial(pool, self)
        if dial.waiter is not None:
            self.dial = dial
        return True

    def on_connected(self, connection: UpstreamConnection) -> None:
        """The connection that `connect` asked for."""
        self.dial = None
        self.connection = connection
        connection.begin(self, self.request, self.method == b"HEAD", True)

    def on_connect_failed(self, pool: Pool, failure: Failure, error: str) -> None:
        """Nothing was sent: one try on another endpoint."""
        self.dial = None
        self.cluster.instruments.failed(failure.metric)
        if failure is Failure.OVERFLOW:
            if self.starting:
                self.refused = error
                self.end()
                return
        elif self.attempts < 2 and self.connect(avoid=pool):
            return
        self.answer(failure.status, failure.body, error or failure.reason)

    def on_upstream_interim(self, status: int, headers: RawHeaders) -> None:
        """1xx: not for filters."""

    def on_upstream_head(self, status: int, headers: RawHeaders, end: bool) -> None:
        """The response has begun."""
        if self.over:
            return
        if end:
            self.connection = None
        if len(headers) > MAX_RESPONSE_HEADERS or self.head_bytes(headers) > self.caller.max_head_bytes:
            self.fail(Failure.PROTOCOL, "the response's head is too large")
            return
        pairs = self.headers = [(b":status", b"%d" % status)]
        self.status = status
        self.body: list[bytes] = []
        for given, value in headers:
            name = given.lower()
            if name != b"keep-alive":
                pairs.append((name, value))
        # A 101 ends the HTTP part of the connection; nobody asked for what follows.
        if end or status == 101:
            self.finish(CalloutResult(status, pairs, b""))

    def on_upstream_data(self, data: bytes, end: bool) -> None:
        """More of the body."""
        if self.over or self.headers is None:
            return
        if end:
            self.connection = None
        self.size += len(data)
        if self.size > self.caller.max_response_bytes:
            self.reset(f"the response's body has more than {self.caller.max_response_bytes} bytes")
            return
        self.body.append(data)
        if end:
            self.finish(CalloutResult(self.status, self.headers, b"".join(self.body)))

    def on_upstream_trailers(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """The body's end, from a cluster that passes trailers on."""
        if self.over or self.headers is None:
            return
        self.connection = None
        self.finish(CalloutResult(self.status, self.headers, b"".join(self.body), pairs))

    def load_plain(self, head: bytes, rest: int) -> int:
        """Load the head of a whole response for the filter, if it is plain; what CalloutPolicy.load_plain says of it."""
        caller = self.caller
        if caller.load_plain is None or rest > caller.max_response_bytes or len(head) > caller.max_head_bytes:
            return 0
        self.head = head
        return caller.load_plain(head, rest)

    def on_upstream_plain(self, loaded: int, body: bytes) -> None:
        """The response whose head was loaded, all of it."""
        if self.over:
            return
        # What `end` comes to for a call whose connection is its own no more.
        self.over = True
        self.connection = None
        self.caller.running.discard(self)
        if self.queue is not None:
            self.queue.stop(self)
        self.done(CalloutResult(loaded >> 16, [], body, None, "", self.head, loaded & 0xFFFF))

    def on_upstream_flush(self) -> None:
        """Nothing waits for the end of a read."""

    def on_upstream_full(self) -> None:
        """The request is written as a whole."""

    def on_upstream_drained(self) -> None:
        """The request is written as a whole."""

    def on_upstream_error(self, connection: UpstreamConnection, failure: Failure, error: str) -> None:
        """The connection is lost or has sent nonsense."""
        if self.over:
            return
        self.connection = None
        if (
            connection.reused
            and not connection.replied
            and failure is Failure.TERMINATED
            and self.method in IDEMPOTENT
            and self.attempts < MAX_ATTEMPTS
        ):
            # The endpoint closed a kept connection as we used it; the request never reached its server.
            self.connect(fresh=True)
            return
        self.fail(failure, error)

    def on_timeout(self) -> None:
        """The call has taken too long."""
        self.cluster.instruments.failed("timeout")
        if self.headers:
            self.reset("timeout")
        else:
            self.answer(504, TIMEOUT_BODY, "timeout")

    # The ends

    def fail(self, failure: Failure, error: str) -> None:
        self.cluster.instruments.failed(failure.metric)
        if self.headers:
            self.reset(error)
        else:
            self.answer(failure.status, failure.body, error)

    def reset(self, failure: str) -> None:
        self.finish(CalloutResult(0, [], b"", [], failure))

    def answer(self, status: int, body: bytes, failure: str) -> None:
        """Envoy's local reply in the place of a response."""
        headers = [
            (b":status", b"%d" % status),
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"text/plain"),
        ]
        self.finish(CalloutResult(status, headers, b"" if self.method == b"HEAD" else body, [], failure))

    def finish(self, result: CalloutResult) -> None:
        if result.failure:
            log.debug("callout failed", filter=self.caller.name, status=result.status, reason=result.failure)
        self.end()
        self.done(result)

    def end(self) -> None:
        """Let go of everything."""
        self.over = True
        self.caller.running.discard(self)
        if self.queue is not None:
            self.queue.stop(self)
        if self.timer is not None:
            self.timer.cancel()
        dial, self.dial = self.dial, None
        if dial is not None:
            dial.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.let_go(self)

    def head_bytes(self, headers: RawHeaders) -> int:
        return sum(len(name) + len(value) + 4 for name, value in headers)
