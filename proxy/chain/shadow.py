"""A version of a filter that sees a copy of the traffic and answers nobody: what it would have done is compared with what was.

Two bystanders stand around the live filter in the chain. What comes to it is copied, what leaves it is noted. The shadow gets
the copies in their order, in a chain with nothing but the shadow in it, in the event loop's next turn: the stream's own bytes
have left by then. What its chain commands is noted instead of done. It makes no calls, and has shared data of its own.
"""

import copy
import random
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple, Protocol

import structlog

from proxy.abi.component.plugin import ComponentPlugin
from proxy.abi.filter import Callbacks, FilterFactory
from proxy.abi.memory import StreamMemory
from proxy.abi.proxy_wasm.plugin import Plugin
from proxy.abi.services import Answer, Call, CallRefusedError
from proxy.abi.services import Pairs as SomePairs
from proxy.chain.bystander import Bystander
from proxy.chain.chain import Chain
from proxy.chain.commands import REQUEST, RESPONSE, Pairs
from proxy.chain.shown import difference, text
from proxy.chain.solo import HEADS, TRAILERS, Leaving, Solo
from proxy.config.versions import Shadow as ShadowConfig
from proxy.telemetry.logging import limited
from proxy.telemetry.metrics import Counter, Family, Registry

log = structlog.get_logger("shadow")

EVERYTHING: Final = Callbacks(True, True, True, True, finish=False, ends=True)
SIDES: Final = ("request", "response")

MOST_STREAMS: Final = 256
"""Streams that a worker's shadow follows at a time; others are skipped."""
MOST_WAITING: Final = 4 << 20
"""Body bytes that wait for it at a time, over all streams; more and a stream is skipped."""
MOST_DETAILS: Final = 20
MOST_LINES: Final = 40
INTERNAL_FAILURE: Final = 10


class Piece(NamedTuple):
    """What came to the live filter: a head or trailers (`pairs`), or data."""

    direction: int
    pairs: Pairs | None
    data: bytes
    end: bool


class Listens(Protocol):
    """Whom a tap tells: what comes to the filters in between, or has left them."""

    def head(self, direction: int, comes: bool, end: bool) -> None: ...
    def data(self, direction: int, comes: bool, data: bytes, end: bool) -> None: ...
    def trailers(self, direction: int, comes: bool) -> None: ...
    def finish(self) -> None: ...


class Tap(Bystander):
    """Stands before (`outer`) or behind filters, as requests pass."""

    __slots__ = ("outer", "stream")

    name = ""

    def __init__(self, stream: Listens, outer: bool) -> None:
        self.stream = stream
        self.outer = outer

    def request_headers(self, end_stream: bool) -> int:
        self.stream.head(REQUEST, self.outer, end_stream)
        return 0

    def request_body(self, data: bytes, end_stream: bool) -> int:
        self.stream.data(REQUEST, self.outer, data, end_stream)
        return 0

    def request_trailers(self, held: bytes | None) -> int:
        self.stream.trailers(REQUEST, self.outer)
        return 0

    def response_headers(self, end_stream: bool) -> int:
        self.stream.head(RESPONSE, not self.outer, end_stream)
        return 0

    def response_body(self, data: bytes, end_stream: bool) -> int:
        self.stream.data(RESPONSE, not self.outer, data, end_stream)
        return 0

    def response_trailers(self, held: bytes | None) -> int:
        self.stream.trailers(RESPONSE, not self.outer)
        return 0

    def finish(self) -> None:
        if self.outer:
            self.stream.finish()


class Shadow:
    """The shadow of one filter in one worker."""

    def __init__(
        self,
        config: ShadowConfig,
        live: str,
        plugin: Plugin | ComponentPlugin,
        memory: StreamMemory,
        later: Callable[..., Any] | None,
        hidden: Collection[bytes],
    ) -> None:
        self.sample = config.sample
        self.live = live
        self.plugin = plugin
        self.memory = memory
        self.later = later
        self.hidden = hidden
        self.running = 0
        self.waiting = 0
        self.results: Tally[str] = Tally()
        self.kinds: Tally[str] = Tally()
        self.calls_refused = 0
        self.last: deque[dict[str, Any]] = deque(maxlen=MOST_DETAILS)
        self.result_counter: Family[Counter] | None = None
        self.kind_counter: Family[Counter] | None = None
        plugin.http = self.refuse
        if isinstance(plugin, Plugin):
            plugin.grpc = None

    def attach(self, registry: Registry) -> None:
        self.result_counter = registry.counter(
            "penstock_shadow_streams_total", "Streams that a shadow has seen: same, different, skipped", ("filter", "result")
        )
        self.kind_counter = registry.counter(
            "penstock_shadow_differences_total", "What a shadow would have done otherwise", ("filter", "kind")
        )

    def refuse(
        self,
        upstream: str,
        headers: SomePairs,
        body: bytes,
        trailers: SomePairs,
        timeout: float,
        done: Callable[[Answer], None],
    ) -> Call:
        """In the place of calls to other services."""
        self.calls_refused += 1
        raise CallRefusedError(INTERNAL_FAILURE, "a shadow makes no calls")

    def sampled(self) -> bool:
        """Is the stream that begins one that it sees?"""
        if self.result_counter is None or self.later is None or random.random() >= self.sample:
            return False  # before `attach`, in a check or the kit, there is none
        if self.running >= MOST_STREAMS or self.waiting > MOST_WAITING:
            self.over("skipped")
            return False
        return True

    def over(self, result: str) -> None:
        self.results[result] += 1
        if self.result_counter is not None:
            self.result_counter.child((self.live, result)).value += 1

    def differs(self, found: dict[str, list[str]], stream: "ShadowStream") -> None:
        """`found`: kind -> lines for people."""
        for kind in found:
            self.kinds[kind] += 1
            if self.kind_counter is not None:
                self.kind_counter.child((self.live, kind)).value += 1
        info = stream.info
        entry: dict[str, Any] = {
            "request_id": info.request_id,
            "method": info.method,
            "path": info.path.partition("?")[0].encode("utf-8", "backslashreplace").decode(),
            "differences": {kind: lines[:MOST_LINES] for kind, lines in found.items()},
        }
        self.last.appendleft({"time": round(time.time(), 3), **entry})
        if not limited(("shadow", self.live), 1):
            log.info("shadow_differs", filter=self.live, **entry)

    def state(self) -> dict[str, Any]:
        """For the admin API: counts, and the last streams that differ, the newest first."""
        return {
            "streams": dict(self.results), "differences": dict(self.kinds), "calls_refused": self.calls_refused,
            "last": list(self.last),
        }  # fmt: skip


class ShadowStream:
    """One stream as the shadow sees it."""

    def __init__(self, shadow: Shadow, factory: FilterFactory, live: Chain) -> None:
        self.shadow = shadow
        self.factory = factory
        self.info = live.info
        self.memory = shadow.memory
        self.queue: deque[Piece | None] = deque()
        """None: the stream is over."""
        self.did = (Leaving(), Leaving())
        """What the live filter let out."""
        self.came = [False, False]
        self.solo: Solo | None = None
        self.faults = 0
        self.live_answered = False
        self.done = False
        shadow.running += 1

    # ---- What the live filter does ----

    def head(self, direction: int, comes: bool, end: bool) -> None:
        pairs = self.memory.pairs(HEADS[direction])
        if comes:
            self.came[direction] = True
            self.feed(Piece(direction, pairs, b"", end))
        else:
            self.did[direction].head = pairs
            self.did[direction].ended |= end

    def data(self, direction: int, comes: bool, data: bytes, end: bool) -> None:
        if comes:
            self.feed(Piece(direction, None, data, end))
        else:
            self.did[direction].data(data, end)

    def trailers(self, direction: int, comes: bool) -> None:
        pairs = self.memory.pairs(TRAILERS[direction])
        if comes:
            self.feed(Piece(direction, pairs, b"", True))
        else:
            self.did[direction].trailers = pairs
            self.did[direction].ended = True

    def finish(self) -> None:
        self.live_answered = self.info.answered_by.partition("@")[0] == self.shadow.live
        self.feed(None)

    def feed(self, piece: Piece | None) -> None:
        if self.done:
            return
        if not self.queue:
            assert self.shadow.later is not None
            self.shadow.later(0, self.run)
        if piece is not None:
            self.shadow.waiting += len(piece.data)
        self.queue.append(piece)

    # ---- What the shadow does ----

    def run(self) -> None:
        """Give it what waits. Nothing of it may reach the live stream, not even a defect of ours."""
        faults = self.shadow.plugin.faults
        queue = self.queue
        try:
            while queue:
                piece = queue.popleft()
                if piece is None:
                    self.end()
                    return
                self.shadow.waiting -= len(piece.data)
                self.give(piece)
        except Exception:
            log.exception("shadow failed by a defect", filter=self.shadow.live)
            self.let_go("skipped")
        finally:
            self.faults += self.shadow.plugin.faults - faults

    def give(self, piece: Piece) -> None:
        direction, pairs, data, end = piece
        solo = self.solo
        if solo is None:
            if direction == REQUEST and pairs is not None:
                info = copy.copy(self.info)
                info.answered_by = ""
                self.solo = Solo(self.memory, self.factory, info)
                self.solo.begin(pairs, end)
        elif pairs is None:
            solo.data(direction, data, end)
        elif direction == REQUEST or solo.response_begun:
            solo.trailers(direction, pairs)
        else:
            solo.response(pairs, end)

    def end(self) -> None:
        """The live stream is over: compare."""
        if self.solo is None:
            self.let_go(None)  # no request came to the filter
            return
        found = self.differences(self.solo)
        if found:
            self.shadow.differs(found, self)
        self.let_go("different" if found else "same")

    def let_go(self, result: str | None) -> None:
        self.done = True
        self.shadow.running -= 1
        self.shadow.waiting -= sum(len(piece.data) for piece in self.queue if piece is not None)
        self.queue.clear()
        if result is not None:
            self.shadow.over(result)
        solo, self.solo = self.solo, None
        if solo is not None:
            solo.finish()

    def differences(self, solo: Solo) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        if self.faults:
            found["fault"] = [self.shadow.plugin.slot.last_fault]
        if solo.answered != self.live_answered or solo.reset:
            found["answer"] = [f"live: {self.ending(self.live_answered, self.did)}", f"shadow: {self.own_ending(solo)}"]
            return found
        for direction, side in enumerate(SIDES):
            did, would = self.did[direction], solo.left[direction]
            if (did.head is None) != (would.head is None):
                if direction == REQUEST or self.came[RESPONSE]:
                    found["held"] = [f"{side}: live {passed(did)}, shadow {passed(would)}"]
                continue
            if lines := list(difference(did.head or [], would.head or [], self.shadow.hidden)):
                found[f"{side}_headers"] = lines
            if (did.size, did.body.digest()) != (would.size, would.body.digest()):
                found[f"{side}_body"] = [
                    f"live: {did.size} bytes, shadow: {would.size} bytes{'' if would.ended else ' so far'}"
                ]
            if lines := list(difference(did.trailers, would.trailers, self.shadow.hidden)):
                found[f"{side}_trailers"] = lines
        return found

    def ending(self, answered: bool, left: tuple[Leaving, Leaving]) -> str:
        head = left[RESPONSE].head
        status = text(dict(head).get(b":status", b"")) if head else "nothing"
        return f"answers {status}" if answered else "lets it pass" if left[REQUEST].head is not None else "lets nothing pass"

    def own_ending(self, solo: Solo) -> str:
        return f"cuts the stream ({solo.reset})" if solo.reset else self.ending(solo.answered, solo.left)


def passed(leaving: Leaving) -> str:
    return "lets it go" if leaving.head is not None else "holds it"
