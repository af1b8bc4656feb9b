"""One stream: a request, its way through the chain to an endpoint, and the response's way back.

Driven by callbacks, without tasks or futures: the client's connection and the endpoint's push what they parsed into the
chain, and what the chain puts into its outbox becomes bytes on the other transport (perform.py). Bytes are gathered while an
event is handled and written once at its end (`flush`), so a head and its body leave in one system call.

How it ends: the response is written (`complete`), the client goes (`on_downstream_gone`), or the response cannot be
finished (`reset`). Each goes through `end`, exactly once.
"""

from collections.abc import Mapping
from types import MappingProxyType

from multidict import istr

from proxy.abi.memory import REQUEST_HEADERS, SAID_EXPECT, HeadError, Region
from proxy.server.answers import CONTINUE
from proxy.server.downstream import RawHeaders
from proxy.server.ending import Ending
from proxy.server.perform import ACTIONS
from proxy.server.request_ids import SOUND
from proxy.server.stream_state import BY_DIAL, BY_WRITER, LONG
from proxy.server.target import TargetError, is_plain, normalised

HELD_BYTES = 64 * 1024
"""Request bytes kept while a connection is made; beyond, the client is not read."""
COUNTS_HOPS = frozenset({"OPTIONS", "TRACE"})

# Names that are ready for lookup in a client's headers, whatever case they are in.
HOST, REQUEST_ID = istr("Host"), istr("X-Request-Id")
CONTENT_LENGTH, UPGRADE = istr("Content-Length"), istr("Upgrade")


class PlainGet:
    """The RequestHead of a request that was not parsed: what the rest of it says is in the stream memory."""

    method, path, version = "GET", "", (1, 1)
    raw_headers: RawHeaders = ()
    headers: Mapping[str, str] = MappingProxyType({})
    should_close = chunked = upgrade = False


PLAIN_GET = PlainGet()


class Exchange(Ending):
    """What the listener drives; the fields are those of StreamState."""

    __slots__ = ()

    # The client's side

    def begin(self, end: bool) -> None:
        """The head is parsed; `end` if the request has no body. Call `flush` afterwards, body or not."""
        request, downstream, info, memory = self.request, self.downstream, self.info, self.memory
        listener = downstream.listener
        method, target, headers = request.method, request.path, request.headers
        given = headers.get(REQUEST_ID) if listener.keeps_request_ids else None
        identity = given if given is not None and SOUND.fullmatch(given) else next(self.gateway.request_ids)
        self.introduce(method, target, headers.get(HOST, ""), identity)
        info.protocol = "HTTP/1.1" if request.version[1] else "HTTP/1.0"
        self.request_ended = end
        region = self.region = memory.begin()
        try:
            if not is_plain(target):
                target = info.path = normalised(target)
            said = memory.load_request(
                request.raw_headers if method not in COUNTS_HOPS else fewer_hops(request.raw_headers),
                method.encode(),
                target.encode(),
                listener.head_options,
                downstream.peer_ip,
                identity.encode(),
            )
        except TargetError as error:
            info.flags = "DPE"
            self.refuse(400, "path_normalization_failed", str(error))
            return
        except HeadError as error:
            info.flags = "DPE"
            self.refuse(400, "http1.codec_error", error.reason)
            return
        if target[0] != "/":
            self.take_target()
        if request.upgrade:
            self.prepare_upgrade()
        self.enter_chain(region, end, said)

    def begin_plain(self, region: Region, target: str, authority: str, identity: str) -> None:
        """Begin with a whole GET whose head the core has read into `region`, past the parser."""
        self.region = region
        self.introduce("GET", target, authority, identity)
        self.info.protocol = "HTTP/1.1"
        self.request_ended = True
        self.enter_chain(region, True, 0)

    def introduce(self, method: str, target: str, authority: str, identity: str) -> None:
        """What is to be known of the stream from its beginning."""
        info, downstream = self.info, self.downstream
        info.method = method
        info.path = target
        info.authority = authority
        info.request_id = identity
        info.scheme = downstream.listener.scheme
        info.source_address = downstream.source
        info.destination_address = downstream.destination
        info.connection_id = downstream.connection_id

    def enter_chain(self, region: Region, end: bool, said: int) -> None:
        """The head is loaded: choose the route, and let it walk."""
        info, generation = self.info, self.generation
        route = self.route = generation.one_route or generation.route(info.method, info.authority, info.path, self.header)
        if route is not None:
            info.route_name = route.label
            info.cluster_name = route.cluster.name
        chain = self.chain = generation.chains.open(None if route is None else route.config, info, region, self.wake)
        if not end:
            request, listener = self.request, self.downstream.listener
            self.pace_body()
            self.expects_continue = bool(said & SAID_EXPECT and request.version[1])
            limit = listener.body_limit
            if limit is not None and announced_length(request.headers.get(CONTENT_LENGTH)) > limit:
                self.answer(413, b"payload too large", "request_payload_too_large", "")
                return
            if route is not None:
                self.watch_idle(route)
        elif route is not None and not route.bounded:
            self.watch_idle(route)
        chain.request_headers(end and not self.upgrade)
        if chain.outbox:
            self.perform()
        if not self.request_sent:
            self.on_request_held()

    def on_request_data(self, data: bytes, end: bool) -> None:
        """More of the body. Call `flush` afterwards."""
        listener = self.downstream.listener
        if end:
            self.request_ended = True
            listener.body_deadlines.stop(self)
        if self.over or self.answered:
            return
        info = self.info
        info.bytes_received += len(data)
        limit = listener.body_limit
        if limit is not None and info.bytes_received > limit:
            self.answer(413, b"payload too large", "request_payload_too_large", "")
            return
        if not end and info.bytes_received >= self.body_mark:
            self.pace_body()
        self.touch()
        chain = self.chain
        if chain is None:
            return
        try:
            chain.request_data(data, end)
            if chain.outbox:
                self.perform()
        except Exception:
            self.defect()

    def on_request_trailers(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """The body's end, behind its data. Call `flush` afterwards."""
        self.request_ended = True
        self.downstream.listener.body_deadlines.stop(self)
        chain = self.chain
        if self.over or self.answered or chain is None:
            return
        self.touch()
        try:
            chain.request_trailers(pairs)
            if chain.outbox:
                self.perform()
        except Exception:
            self.defect()

    def on_request_broken(self, status: int) -> None:
        """The body's framing is broken; the connection cannot go on."""
        self.info.flags = "DPE"
        if self.response_started or self.chain is None:
            self.reset("http1.codec_error", "DPE")
            return
        self.answer(status, b"bad request", "http1.codec_error", "DPE")
        self.flush()

    def on_downstream_gone(self) -> None:
        """The client has closed: let go of the upstream at once."""
        if not self.over:
            self.end("downstream_remote_disconnect", "DC")

    def on_downstream_full(self) -> None:
        """The client reads too slowly."""
        self.hold_response(BY_WRITER)

    def on_downstream_drained(self) -> None:
        """The client has caught up."""
        self.touch()
        self.free_response(BY_WRITER)

    def flush(self) -> None:
        """Write what was gathered, in both directions; then see whether the stream is over."""
        if self.over:
            return
        upstream = self.upstream
        if upstream is not None:
            if self.upwards:
                self.write_upstream(upstream)
            if self.request_sent and self.begun:
                upstream.request_complete = True
        elif self.dial is not None and not self.request_holds & BY_DIAL and sum(map(len, self.upwards)) > HELD_BYTES:
            self.hold_request(BY_DIAL)
        if self.response_kept and not self.response_ended:
            self.keep_last_byte()
        out = self.downwards
        if out:
            if len(out) == 1:
                self.downstream.write(out[0])
            elif len(out[1]) < LONG:
                self.downstream.write(b"".join(out))
            else:
                for piece in out:
                    self.downstream.write(piece)
            out.clear()
        if self.response_ended:
            self.complete()
        elif self.switching:
            self.begin_tunnel()

    def flush_down(self) -> None:
        """Write what was gathered for the client: a failure follows."""
        self.keep_last_byte()
        if self.downwards:
            data = b"".join(self.downwards)
            self.downwards.clear()
            self.downstream.write(data)

    def keep_last_byte(self) -> None:
        """The announced length has been reached, and the stream goes on: write all but the last byte."""
        kept = self.response_kept
        if len(kept) > 1:
            self.downwards.append(kept[:-1])
            self.response_kept = kept[-1:]

    # The chain

    def wake(self) -> None:
        """The chain has commands, outside an event of ours."""
        if self.over or self.performing:
            return
        self.touch()
        try:
            self.perform()
            if not self.request_sent:
                self.on_request_held()
            self.flush()
        except Exception:
            self.defect()

    def perform(self) -> None:
        """Carry out the outbox in order. What a command adds to it follows."""
        chain = self.chain
        if self.performing or chain is None:
            return
        self.performing = True
        outbox = chain.outbox
        try:
            for command in outbox:
                ACTIONS[command.__class__](self, command)
                if self.over:
                    break
        finally:
            outbox.clear()
            self.performing = False

    def choose_route_again(self) -> None:
        """Filters edited the request: it goes where the final head leads, as in Envoy. The filters stay the first route's."""
        info, get = self.info, self.header
        found = self.generation.route(get(":method") or "", get(":authority") or "", get(":path") or "", get)
        before = self.route
        if found is before:
            return
        if before is not None and self.idle_watched:
            before.idle_deadlines.stop(self)
            self.idle_watched = False
        self.route = found
        info.route_name = "" if found is None else found.label
        info.cluster_name = "" if found is None else found.cluster.name
        if found is not None and not (self.request_ended and found.bounded):
            self.watch_idle(found)

    def on_request_held(self) -> None:
        """Not all of the request has left the chain after an event."""
        if self.over or self.answered:
            return
        if self.expects_continue and self.pausing is None:
            # A filter holds the head until it has seen of the body: nobody else will ask for it.
            self.invite_body()
        if self.request_ended and self.route is not None:
            # The route's timeout has not begun: the idle timeout has to watch.
            self.watch_idle(self.route)

    def invite_body(self) -> None:
        """The client waits for leave to send its body (RFC 9110 10.1.1); the endpoint never hears of that."""
        self.expects_continue = False
        self.downstream.write(CONTINUE)

    # What a head says

    def take_target(self) -> None:
        """Absolute-form and `*`: what the core made of the target is what is routed, `*` as `/`."""
        path = self.header(":path") or "/"
        self.info.path = "/" if path == "*" else path
        self.info.authority = self.header(":authority") or ""

    def prepare_upgrade(self) -> None:
        """Only WebSocket, only by GET without a body: what aiohttp's parser stops parsing for."""
        request = self.request
        self.upgrade = (
            self.request_ended
            and request.method == "GET"
            and request.version[1] == 1
            and request.headers.get(UPGRADE, "").lower() == "websocket"
        )

    def header(self, name: str) -> str | None:
        """For the router: the header as the filters see it, hop-by-hop ones gone."""
        value = self.memory.get(REQUEST_HEADERS, name.encode())
        return None if value is None else value.decode("utf-8", "surrogateescape")


def fewer_hops(headers: RawHeaders) -> RawHeaders:
    """Max-Forwards counts down at each intermediary (RFC 9110 7.6.2); the listener has kept those that say 0."""
    return tuple(
        (name, b"%d" % (int(value) - 1))
        if name.lower() == b"max-forwards" and value.isdigit() and len(value) < 10 and int(value)
        else (name, value)
        for name, value in headers
    )


def announced_length(value: str | None) -> int:
    """Content-Length as the parser admitted it; 0 if there is none."""
    return int(value) if value is not None and value.isdecimal() and len(value) < 20 else 0
