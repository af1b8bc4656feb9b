"""One exchange through a chain without sockets: what server/exchange.py and perform.py do with a client and an endpoint, done
with messages that are there from the start. Time passes only while a filter waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.abi.memory import (
    END_STREAM,
    FRAMING_LENGTH,
    FRAMING_NONE,
    HEAD_REQUEST,
    PASS_TRAILERS,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    HeadError,
)
from proxy.chain import commands
from proxy.config.route import Route
from proxy.kit.cases import Sent
from proxy.kit.clock import Timer
from proxy.kit.runtime import Runtime
from proxy.telemetry.stream import StreamInfo

Pairs = list[tuple[bytes, bytes]]

HOST: Final = "test"
BODILESS: Final = (204, 304)
MOST_STEPS: Final = 20_000
"""Of the clock, for one exchange: a filter that ticks for ever does not hold it up for ever."""


@dataclass(slots=True)
class Message:
    """A message as it left the chain: what would be on the wire."""

    start_line: bytes
    headers: Pairs
    body: bytearray = field(default_factory=bytearray)
    trailers: Pairs = field(default_factory=list)
    complete: bool = False
    framing: int = FRAMING_NONE
    length: int = 0

    @property
    def method(self) -> str:
        return self.start_line.split(b" ")[0].decode()

    @property
    def path(self) -> str:
        return self.start_line.split(b" ")[1].decode("utf-8", "backslashreplace")

    @property
    def status(self) -> int:
        return int(self.start_line.split(b" ")[1])


@dataclass(slots=True)
class Outcome:
    """What came of an exchange. `reply`: the details of a local reply, None if there was none; `reset`: why the
    stream was cut, "" if it was not."""

    upstream: Message | None = None
    downstream: Message | None = None
    reply: str | None = None
    reset: str = ""
    answered_by: str = ""
    pauses: list[float] = field(default_factory=list)
    """Seconds that the stream was held, each time."""
    notes: list[str] = field(default_factory=list)
    """What the gateway would complain of."""


class Stream:
    """Made, then `run`. `watch` is called with a word after every event; `heads` gets the heads as they enter the chain."""

    def __init__(
        self,
        runtime: Runtime,
        request: Sent,
        response: Sent,
        route: Callable[[StreamInfo, Runtime], Route | None] | None = None,
        host: str = HOST,
        watch: Callable[[str], None] = lambda word: None,
        heads: dict[int, Pairs] | None = None,
    ) -> None:
        self.runtime = runtime
        self.memory = runtime.memory
        self.request = request
        self.response = response
        self.choose = route
        self.host = host
        self.watch = watch
        self.heads = heads if heads is not None else {}
        self.outcome = Outcome()
        self.answered = self.over = self.request_sent = self.performing = False
        self.holds = {commands.REQUEST: False, commands.RESPONSE: False}
        self.upwards: deque[Callable[[], None]] = deque()
        self.downwards: deque[Callable[[], None]] = deque()
        self.deadline: Timer | None = None
        self.paused_at = 0.0
        self.info = StreamInfo()
        self.chain: Any = None

    # ---- Feeding ----

    def run(self) -> Outcome:
        """Raises HeadError for a request that no gateway takes."""
        self.begin()
        try:
            for _ in range(MOST_STEPS):
                if not self.advance():
                    break
            if not self.over:
                self.outcome.notes.append("the exchange did not end")
        finally:
            self.chain.finish()
            self.memory.release(self.region)
            self.watch("end")
        self.runtime.settle()
        self.outcome.answered_by = self.info.answered_by
        return self.outcome

    def begin(self) -> None:
        request, info = self.request, self.info
        fields = encoded(request.headers)
        names = {name.lower() for name, _ in fields}
        if b"host" not in names:
            fields.insert(0, (b"host", self.host.encode()))
        if request.chunks is not None:
            fields.append((b"transfer-encoding", b"chunked"))
        elif request.body and b"content-length" not in names:
            fields.append((b"content-length", b"%d" % len(request.body)))
        info.method, info.path, info.protocol, info.scheme = request.method, request.path, "HTTP/1.1", "http"
        info.authority = next((value.decode() for name, value in fields if name.lower() == b"host"), "")
        info.source_address, info.destination_address = "127.0.0.1:40000", "127.0.0.1:8080"
        info.start = self.runtime.clock.now
        info.request_id = "00000000-0000-4000-8000-000000000000"
        info.connection_id = 1
        self.region = self.memory.begin()
        options = self.runtime.options
        self.memory.load_request(
            fields, request.method.encode(), request.path.encode(), options, b"127.0.0.1", info.request_id.encode()
        )
        self.heads[REQUEST_HEADERS] = self.memory.pairs(REQUEST_HEADERS)
        route = self.choose(info, self.runtime) if self.choose is not None else self.runtime.chains.config.routes[0]
        if route is not None:
            info.route_name, info.cluster_name = route.name or "", route.cluster
        self.route = route
        self.chain = self.runtime.chains.open(route, info, self.region, self.perform)
        pieces = list(request.chunks) if request.chunks is not None else [request.body] if request.body else []
        end = not pieces and not request.trailers
        self.feed(self.upwards, lambda: self.chain.request_headers(end))
        self.queue_body(self.upwards, pieces, encoded(request.trailers), self.chain_request)

    def chain_request(self, data: bytes, end: bool, trailers: Pairs | None) -> None:
        if trailers is None:
            self.chain.request_data(data, end)
        else:
            self.chain.request_trailers(trailers)

    def chain_response(self, data: bytes, end: bool, trailers: Pairs | None) -> None:
        if trailers is None:
            self.chain.response_data(data, end)
        else:
            self.chain.response_trailers(trailers)

    def queue_body(
        self, queue: deque[Callable[[], None]], pieces: list[bytes], trailers: Pairs, give: Callable[..., None]
    ) -> None:
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1 and not trailers
            queue.append(lambda piece=piece, last=last: give(piece, last, None))  # type: ignore[misc]
        if trailers:
            queue.append(lambda: give(b"", True, trailers))

    def feed(self, queue: deque[Callable[[], None]], event: Callable[[], None]) -> None:
        queue.append(event)

    def advance(self) -> bool:
        """One event, or a step of the clock when there is none. False: it is over."""
        if self.over:
            return False
        if self.upwards and not self.holds[commands.REQUEST] and not self.answered:
            self.event(self.upwards.popleft(), "request")
            return True
        if self.downwards and not self.holds[commands.RESPONSE]:
            self.event(self.downwards.popleft(), "response")
            return True
        stepped = self.runtime.clock.step()
        self.runtime.settle()
        self.perform()
        return stepped

    def event(self, event: Callable[[], None], word: str) -> None:
        self.memory.attach(self.region)
        event()
        self.perform()
        self.watch(word)

    def upstream_answers(self) -> None:
        """The request is there, all of it."""
        response = self.response
        fields = encoded(response.headers)
        names = {name.lower() for name, _ in fields}
        silent = self.request.method == "HEAD" or response.status in BODILESS
        if response.chunks is not None:
            fields.append((b"transfer-encoding", b"chunked"))
        elif b"content-length" not in names and response.status not in BODILESS:
            fields.append((b"content-length", b"%d" % len(response.body)))
        pieces = list(response.chunks) if response.chunks is not None else [response.body] if response.body else []
        trailers = encoded(response.trailers) if response.chunks is not None else []
        if silent:
            pieces, trailers = [], []
        # A chunked body without a chunk still has an end of its own.
        if response.chunks is not None and not pieces and not trailers and not silent:
            pieces = [b""]

        def head() -> None:
            if self.answered or self.over:
                return
            self.memory.load_response(response.status, fields, self.runtime.options)
            self.heads[RESPONSE_HEADERS] = self.memory.pairs(RESPONSE_HEADERS)
            self.info.details = "via_upstream"
            self.info.entered_status = response.status
            self.chain.response_headers(not pieces and not trailers)

        def arrive() -> None:
            if self.answered or self.over:
                return
            self.downwards.append(head)
            self.queue_body(self.downwards, pieces, trailers, self.chain_response)

        if response.delay:
            self.runtime.clock.later(response.delay, arrive)
        else:
            arrive()

    # ---- What the chain commands ----

    def perform(self) -> None:
        """Carry out the outbox in order."""
        if self.performing or self.chain is None:
            return
        self.performing = True
        outbox = self.chain.outbox
        try:
            for command in outbox:
                self.do(command)
                if self.over:
                    break
        finally:
            outbox.clear()
            self.performing = False

    def do(self, command: commands.Command) -> None:
        match command:
            case commands.SendRequestHeaders():
                self.send_request_headers(command)
            case commands.SendRequestData(data, end_stream):
                self.send_request_data(data, end_stream, [])
            case commands.SendRequestTrailers(pairs):
                self.send_request_data(b"", True, pairs)
            case commands.SendResponseHeaders():
                self.send_response_headers(command)
            case commands.SendResponseData(data, end_stream):
                self.send_response_data(data, end_stream, [])
            case commands.SendResponseTrailers(pairs):
                self.send_response_data(b"", True, pairs)
            case commands.PauseRequest():
                self.holds[commands.REQUEST] = True
            case commands.ResumeRequest():
                self.holds[commands.REQUEST] = False
            case commands.PauseResponse():
                self.holds[commands.RESPONSE] = True
            case commands.ResumeResponse():
                self.holds[commands.RESPONSE] = False
            case commands.PauseBegan(seconds):
                self.paused_at = self.runtime.clock.now
                self.deadline = self.runtime.clock.add(seconds, self.chain.pause_expired, idle=False)
            case commands.PauseEnded():
                if self.deadline is not None:
                    self.deadline.cancel()
                    self.deadline = None
                    self.outcome.pauses.append(self.runtime.clock.now - self.paused_at)
            case commands.AnswerLocally(details):
                self.answered = True
                self.outcome.reply = details
                self.downwards.clear()
            case commands.Reset(details):
                self.cut(details)

    def cut(self, why: str) -> None:
        self.outcome.reset = why or "reset"
        self.over = True

    def send_request_headers(self, command: commands.SendRequestHeaders) -> None:
        if self.answered:
            return
        self.memory.attach(self.region)
        late = command.pairs and self.memory.pairs(REQUEST_HEADERS)
        if command.pairs is not None:
            self.memory.set_pairs(REQUEST_HEADERS, command.pairs)
        if self.choose is not None:
            self.route = self.choose(self.info, self.runtime)
        if self.route is None:
            self.chain.local_reply(404, b"no route matched", "route_not_found")
            return
        try:
            head = self.memory.emit_request((END_STREAM if command.end_stream else 0) | PASS_TRAILERS)
        except HeadError as error:
            self.outcome.notes.append(f"the filter wrote a request that can not be sent: {error.reason}")
            self.chain.local_reply(503, b"invalid request", "filter_wrote_invalid_request")
            return
        if late:
            self.memory.set_pairs(REQUEST_HEADERS, late)
        self.outcome.upstream = parsed(head.data, head.framing, head.length)
        if command.end_stream:
            self.request_over()

    def send_request_data(self, data: bytes, end: bool, trailers: Pairs) -> None:
        sent = self.outcome.upstream
        if self.answered or sent is None or sent.complete:
            return
        sent.body += data
        sent.trailers = trailers
        if not end:
            return
        if sent.framing == FRAMING_LENGTH and len(sent.body) != sent.length:
            self.outcome.notes.append(f"the request's body has {len(sent.body)} bytes, its content-length is {sent.length}")
            self.chain.local_reply(500, b"request length mismatch", "request_length_mismatch")
            return
        self.request_over()

    def request_over(self) -> None:
        assert self.outcome.upstream is not None
        self.outcome.upstream.complete = True
        self.upstream_answers()

    def send_response_headers(self, command: commands.SendResponseHeaders) -> None:
        if self.outcome.downstream is not None:
            return
        self.memory.attach(self.region)
        late = command.pairs and self.memory.pairs(RESPONSE_HEADERS)
        if command.pairs is not None:
            self.memory.set_pairs(RESPONSE_HEADERS, command.pairs)
        flags = PASS_TRAILERS | (END_STREAM if command.end_stream else 0)
        if self.request.method == "HEAD":
            flags |= HEAD_REQUEST
        try:
            head = self.memory.emit_response(flags)
        except HeadError as error:
            self.outcome.notes.append(f"the filter wrote a response that can not be sent: {error.reason}")
            self.cut("filter_wrote_invalid_response")
            return
        if late:
            self.memory.set_pairs(RESPONSE_HEADERS, late)
        self.info.status = head.status
        self.outcome.downstream = parsed(head.data, head.framing, head.length)
        if command.end_stream:
            self.response_over()

    def send_response_data(self, data: bytes, end: bool, trailers: Pairs) -> None:
        sent = self.outcome.downstream
        if sent is None or sent.complete:
            return
        if sent.framing != FRAMING_NONE:
            sent.body += data
        sent.trailers = trailers
        if not end:
            return
        if sent.framing == FRAMING_LENGTH and len(sent.body) != sent.length:
            self.outcome.notes.append(f"the response's body has {len(sent.body)} bytes, its content-length is {sent.length}")
            self.cut("response_length_mismatch")
            return
        self.response_over()

    def response_over(self) -> None:
        assert self.outcome.downstream is not None
        self.outcome.downstream.complete = True
        self.over = True


def parsed(head: bytes, framing: int, length: int) -> Message:
    """A head's bytes as a message, names in lower case."""
    start_line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    pairs = [line.split(b":", 1) for line in lines]
    return Message(start_line, [(name.lower(), value.strip()) for name, value in pairs], framing=framing, length=length)


def encoded(fields: Any) -> Pairs:
    """Fields as a parser gives them: without the spaces around values."""
    return [(name.encode(), value.strip(" \t").encode()) for name, value in fields]
