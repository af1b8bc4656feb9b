"""Filters that follow a script, the stream memory as two dictionaries, and transcripts of a chain between them.

A transcript has a line for each event: `event > callbacks | commands`. An exclamation mark ends the stream, a colon comes
before data:

    rq        the request's headers; `rq!` without a body       A.rqh   filter A's request headers callback, A.rqh!
    rq:one    request data; rq:one!                             A.rqb:one    its request body callback
    rs, rs:ok the same of the response                          A.rsh, A.rsb:ok
    rqt:x     request trailers, one field, x; rst:x             A.rqt:x    its request trailers callback; A.rst:x
                                                                A.rqt:x/one  the same; it holds `one` of the body
    cont0:A   A continues the request from outside; cont1:A     up, up:one   request headers, data go upstream
    reply:A   A answers from outside, with its script's `tick`  down=200, down:ok   response headers (status), data go down
                                                                upt:x, downt:x  trailers go upstream, down
    local:413 the gateway answers                               stop0, read0 stop, go on reading the request; stop1, read1
    expire    the pause deadline is over                        clock=15, unclock   that deadline starts, ends
    finish    the stream is over: A.finish                      answer=details, reset=details
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from proxy.abi.filter import (
    BODY,
    CLOSE_REQUEST,
    CLOSE_RESPONSE,
    CONTINUE_REQUEST,
    CONTINUE_RESPONSE,
    FAILED,
    LOCAL_REPLY,
    TRAILERS,
    Callbacks,
    LocalReply,
)
from proxy.abi.memory import (
    REQUEST_HEADERS,
    REQUEST_TRAILERS,
    RESPONSE_HEADERS,
    RESPONSE_TRAILERS,
    Region,
    StreamMemory,
)
from proxy.chain import commands
from proxy.chain.chain import Chain, Parts
from proxy.chain.commands import Command
from proxy.telemetry.stream import StreamInfo

LIMIT = 16
"""Bytes that a filter of these tests may hold, unless its script says otherwise."""
SECONDS = 15.0


class Step(NamedTuple):
    """What one callback answers. `reply`: it also sends a local reply; `body`: it leaves that as the body; `fails`: its VM
    stops in it; `trailers`: it leaves that as the trailers."""

    action: int = 0
    flags: int = 0
    body: bytes | None = None
    reply: LocalReply | None = None
    fails: bool = False
    trailers: bytes | None = None


GO = Step()
HOLD = Step(1)
WATERMARK = Step(2)
DROP = Step(3)
FAIL = Step(fails=True)
CLOSE0 = Step(flags=CLOSE_REQUEST)
CLOSE1 = Step(flags=CLOSE_RESPONSE)
CONT0 = Step(flags=CONTINUE_REQUEST)
CONT1 = Step(flags=CONTINUE_RESPONSE)
HOLD_CONT0 = Step(1, CONTINUE_REQUEST)
HOLD_CONT1 = Step(1, CONTINUE_RESPONSE)


def edit(body: bytes, action: int = 0) -> Step:
    return Step(action, body=body)


def begins(trailers: bytes, action: int = 0) -> Step:
    """In the last callback of a body: there are trailers now, one field of that name, or none."""
    return Step(action, TRAILERS, trailers=trailers)


def says(status: int, body: bytes = b"body", details: str = "d", action: int = 1) -> Step:
    return Step(action, reply=LocalReply(status, details, body, (), None))


class Memory:
    """StreamMemory as the chain uses it. A stream that is not attached is out of reach."""

    def __init__(self) -> None:
        self.live: Region | None = None
        self.maps: dict[tuple[Region | None, int], list[tuple[bytes, bytes]]] = {}

    def attach(self, region: Region) -> None:
        self.live = region

    def get(self, map_: int, name: bytes) -> bytes | None:
        return next((value for key, value in self.pairs(map_) if key == name), None)

    def pairs(self, map_: int) -> list[tuple[bytes, bytes]]:
        return self.maps.get((self.live, map_), [])

    def set_pairs(self, map_: int, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self.maps[self.live, map_] = list(pairs)


class Machine:
    """What filters share that share a VM."""

    def __init__(self) -> None:
        self.dead = False


class Scripted:
    """A StreamFilter. Each callback takes the next step of its list, the last for good if `forever`, else GO when they are
    used up."""

    def __init__(
        self,
        *,
        rqh: Sequence[Step] = (),
        rqb: Sequence[Step] = (),
        rsh: Sequence[Step] = (),
        rsb: Sequence[Step] = (),
        rqt: Sequence[Step] = (),
        rst: Sequence[Step] = (),
        tick: Step = GO,
        allow: bool = False,
        limit: int = LIMIT,
        seconds: float = SECONDS,
        fails_open: bool = False,
        bodies: bool = True,
        vm: Machine | None = None,
        forever: bool = False,
    ) -> None:
        self.steps = {
            "rqh": list(rqh),
            "rqb": list(rqb),
            "rsh": list(rsh),
            "rsb": list(rsb),
            "rqt": list(rqt),
            "rst": list(rst),
        }
        self.tick = tick
        self.stops_iteration_on_headers = allow
        self.body_limit = limit
        self.pause_seconds = seconds
        self.fails_open = fails_open
        self.bodies = bodies
        self.vm = vm or Machine()
        self.forever = forever
        self.name = "?"
        self.body = b""
        self.local_reply: LocalReply | None = None
        self.calls: list[str] = []
        self.released = 0
        self.complaints = 0
        self.held_all = any(step.action not in (0, 2) for step in [*rqh, *rsh])
        """It may hold a head with all that follows."""
        self.check: Callable[[str], None] = lambda callback: None
        self.memory = Memory()
        """The stage's."""

    @property
    def down(self) -> bool:
        return self.vm.dead

    def request_headers(self, end_stream: bool) -> int:
        return self.call("rqh", "", end_stream)

    def request_body(self, data: bytes, end_stream: bool) -> int:
        return self.call("rqb", ":" + text(data), end_stream)

    def response_headers(self, end_stream: bool) -> int:
        return self.call("rsh", "", end_stream)

    def response_body(self, data: bytes, end_stream: bool) -> int:
        return self.call("rsb", ":" + text(data), end_stream)

    def request_trailers(self, held: bytes | None) -> int:
        return self.call_trailers("rqt", REQUEST_TRAILERS, held)

    def response_trailers(self, held: bytes | None) -> int:
        return self.call_trailers("rst", RESPONSE_TRAILERS, held)

    def call_trailers(self, callback: str, map_: int, held: bytes | None) -> int:
        what = ":" + names(self.memory.pairs(map_))
        return self.call(callback, what if held is None else f"{what}/{text(held)}", False)

    def call(self, callback: str, data: str, end_stream: bool) -> int:
        failed = 0 if self.fails_open else FAILED
        if self.vm.dead:
            return failed
        self.check(callback)
        self.calls.append(f"{self.name}.{callback}{data}{'!' * end_stream}")
        steps = self.steps[callback]
        step = (steps[0] if self.forever and len(steps) == 1 else steps.pop(0)) if steps else GO
        if step.fails:
            self.vm.dead = True
            return failed
        result = step.action | step.flags
        if not end_stream:
            result &= ~TRAILERS
        if step.body is not None:
            self.body = step.body
            result |= BODY
        if step.trailers is not None and (end_stream or callback in ("rqt", "rst")):
            map_ = REQUEST_TRAILERS if callback in ("rqb", "rqt") else RESPONSE_TRAILERS
            self.memory.set_pairs(map_, [(step.trailers, b"1")] if step.trailers else [])
        if step.reply is not None:
            self.local_reply = step.reply
            result |= LOCAL_REPLY
        return result

    def overflowed(self, direction: int) -> None:
        self.complaints += 1

    def overdue(self) -> None:
        self.complaints += 1

    def continued(self) -> None:
        self.released += 1

    def finish(self) -> None:
        if not self.vm.dead:
            self.calls.append(f"{self.name}.finish")


class Stage:
    """A chain with its filters, driven by events; what came of them as words."""

    def __init__(self, filters: Sequence[Scripted], *, method: str = "GET", content_type: bytes | None = None) -> None:
        self.filters = list(filters)
        self.memory = Memory()
        self.region = Region()
        self.info = StreamInfo()
        self.info.method = method
        self.calls: list[str] = []
        self.woken = 0
        self.chain = Chain(cast(StreamMemory, self.memory), self.region, self.info, self.wake)
        for name, filter_ in zip("ABCDEFGH", self.filters, strict=False):
            filter_.name = name
            filter_.calls = self.calls
            filter_.check = self.check
            filter_.memory = self.memory
        parts = Parts([Callbacks(True, one.bodies, True, one.bodies, True, True) for one in self.filters])
        self.chain.take_part(list(self.filters), parts)
        if content_type is not None:
            self.memory.attach(self.region)
            self.memory.set_pairs(REQUEST_HEADERS, [(b"content-type", content_type)])

    def wake(self) -> None:
        self.woken += 1

    def check(self, callback: str) -> None:
        """May a filter's callback run now?"""
        assert self.memory.live is self.region, "a callback ran while its stream's memory was not attached"
        for command in self.chain.outbox:
            assert not isinstance(command, commands.Reset), "a callback ran after the end"
            if callback in ("rqh", "rqb", "rqt"):
                assert not isinstance(command, commands.AnswerLocally), "a request callback ran after the answer"

    def named(self, name: str) -> Scripted:
        return next(filter_ for filter_ in self.filters if filter_.name == name)

    def event(self, event: str) -> list[Command]:
        """Feed an event; the commands that it led to. Between events another stream is live."""
        self.memory.attach(Region())
        chain = self.chain
        kind, _, rest = event.partition(":")
        end = event.endswith("!")
        data = rest.removesuffix("!").encode()
        match kind.removesuffix("!"):
            case "rqt":
                chain.request_trailers([(data, b"1")])
            case "rst":
                chain.response_trailers([(data, b"1")])
            case "rq" if ":" in event:
                chain.request_data(data, end)
            case "rq":
                chain.request_headers(end)
            case "rs" if ":" in event:
                chain.response_data(data, end)
            case "rs":
                self.memory.attach(self.region)
                self.memory.set_pairs(RESPONSE_HEADERS, [(b":status", b"200")])
                chain.response_headers(end)
            case "cont0" | "cont1":
                chain.resume(self.named(rest), int(kind[-1]))
            case "reply":
                reply = self.named(rest).tick.reply
                assert reply is not None
                chain.reply(self.named(rest), reply)
            case "local":
                chain.local_reply(int(rest), b"body", "local")
            case "expire":
                chain.pause_expired()
            case "finish":
                chain.finish()
            case _:
                raise AssertionError(f"unknown event {event}")
        out = chain.outbox.copy()
        chain.outbox.clear()
        return out

    def line(self, event: str) -> str:
        """One line of a transcript."""
        self.calls.clear()
        out = self.event(event)
        return " ".join([event, ">", *self.calls, "|", *(self.word(command) for command in out)])

    def word(self, command: Command) -> str:
        match command:
            case commands.SendRequestHeaders(end):
                return "up" + "!" * end
            case commands.SendRequestData(data, end):
                return f"up:{text(data)}{'!' * end}"
            case commands.SendRequestTrailers(pairs):
                return f"upt:{names(pairs)}"
            case commands.SendResponseTrailers(pairs):
                return f"downt:{names(pairs)}"
            case commands.SendResponseHeaders(end):
                self.memory.attach(self.region)
                status = self.memory.get(RESPONSE_HEADERS, b":status") or b"none"
                return f"down={status.decode()}{'!' * end}"
            case commands.SendResponseData(data, end):
                return f"down:{text(data)}{'!' * end}"
            case commands.PauseBegan(seconds):
                return f"clock={seconds:g}"
            case commands.AnswerLocally(details):
                return f"answer={details}"
            case commands.Reset(details):
                return f"reset={details}"
        return SIMPLE[type(command)]


SIMPLE: dict[type, str] = {
    commands.PauseRequest: "stop0",
    commands.ResumeRequest: "read0",
    commands.PauseResponse: "stop1",
    commands.ResumeResponse: "read1",
    commands.PauseEnded: "unclock",
}


class Case(NamedTuple):
    """`name`: what happens, with the section of the measured answers or the law it comes from."""

    name: str
    filters: Sequence[Scripted]
    transcript: str
    options: Mapping[str, Any] = MappingProxyType({})


def play(case: Case) -> None:
    """Run a case's events and compare every line."""
    expected = [" ".join(line.split()) for line in case.transcript.strip().splitlines()]
    stage = Stage(case.filters, **case.options)
    said = [" ".join(stage.line(line.split()[0]).split()) for line in expected]
    assert said == expected


def names(pairs: Sequence[tuple[bytes, bytes]]) -> str:
    """The fields of a map as one word."""
    return ",".join(name.decode() for name, _ in pairs)


def text(data: bytes) -> str:
    """Data as one word."""
    return data.decode().replace(" ", "_")


def name_of(case: Case) -> str:
    return case.name.replace(" ", "-")
