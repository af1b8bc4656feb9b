"""A stream of one filter alone, that nobody else sees: what the filter makes of it is noted, and nothing is sent."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.abi.filter import FilterFactory
from proxy.abi.memory import REQUEST_HEADERS, REQUEST_TRAILERS, RESPONSE_HEADERS, RESPONSE_TRAILERS, StreamMemory
from proxy.chain import commands
from proxy.chain.chain import Chain, Parts
from proxy.chain.commands import REQUEST, RESPONSE, Pairs
from proxy.chain.path import status_of
from proxy.telemetry.stream import StreamInfo

HEADS: Final = (REQUEST_HEADERS, RESPONSE_HEADERS)
TRAILERS: Final = (REQUEST_TRAILERS, RESPONSE_TRAILERS)


@dataclass(slots=True)
class Leaving:
    """What has left a filter in one direction. Of a body only its length and a hash."""

    head: Pairs | None = None
    trailers: Pairs = field(default_factory=list)
    size: int = 0
    body: Any = field(default_factory=hashlib.blake2b)
    ended: bool = False

    def data(self, data: bytes, end: bool) -> None:
        self.size += len(data)
        self.body.update(data)
        self.ended |= end


class Solo:
    """`begin` with a request's head, then `data` and `trailers`, then a `response`; `finish` ends it in any case.

    `left` is what has left the filter in both directions; `answered`: it has answered itself, or its policy has; `reset`: why
    it would have cut the stream.
    """

    def __init__(self, memory: StreamMemory, factory: FilterFactory, info: StreamInfo) -> None:
        self.memory = memory
        self.factory = factory
        self.region = memory.begin_empty()
        self.chain = Chain(memory, self.region, info, self.perform)
        self.left = (Leaving(), Leaving())
        self.answered = False
        self.reset = ""
        self.over = False

    @property
    def response_begun(self) -> bool:
        return self.chain.response_begun

    def begin(self, pairs: Pairs, end: bool) -> None:
        filter_ = self.factory.open(self.chain)
        self.memory.attach(self.region)
        members = [] if filter_ is None else [filter_]
        self.chain.take_part(members, Parts([self.factory.callbacks for _ in members]))
        self.memory.set_pairs(REQUEST_HEADERS, pairs)
        self.chain.request_headers(end)
        self.perform()

    def data(self, direction: int, data: bytes, end: bool) -> None:
        if self.listens(direction):
            if direction == REQUEST:
                self.chain.request_data(data, end)
            else:
                self.chain.response_data(data, end)
            self.perform()

    def trailers(self, direction: int, pairs: Pairs) -> None:
        if self.listens(direction):
            if direction == REQUEST:
                self.chain.request_trailers(pairs)
            else:
                self.chain.response_trailers(pairs)
            self.perform()

    def response(self, pairs: Pairs, end: bool) -> None:
        if self.listens(RESPONSE):
            self.memory.attach(self.region)
            self.memory.set_pairs(RESPONSE_HEADERS, pairs)
            self.chain.info.entered_status = status_of(pairs)
            self.chain.response_headers(end)
            self.perform()

    def listens(self, direction: int) -> bool:
        """Would it still be given anything? There is no response to a request that has not left."""
        return not (self.answered or self.reset or (direction == RESPONSE and self.left[REQUEST].head is None))

    def perform(self) -> None:
        """Note what the chain commands."""
        if self.over:
            return
        for command in self.chain.outbox:
            match command:
                case commands.SendRequestHeaders(end, pairs):
                    self.leave(REQUEST, end, pairs)
                case commands.SendResponseHeaders(end, pairs):
                    self.leave(RESPONSE, end, pairs)
                case commands.SendRequestData(data, end):
                    self.left[REQUEST].data(data, end)
                case commands.SendResponseData(data, end):
                    self.left[RESPONSE].data(data, end)
                case commands.SendRequestTrailers(pairs):
                    self.left[REQUEST].trailers, self.left[REQUEST].ended = pairs, True
                case commands.SendResponseTrailers(pairs):
                    self.left[RESPONSE].trailers, self.left[RESPONSE].ended = pairs, True
                case commands.AnswerLocally():
                    self.answered = True
                case commands.Reset(details):
                    self.reset = details
        self.chain.outbox.clear()

    def leave(self, direction: int, end: bool, pairs: Pairs | None) -> None:
        if pairs is None:
            self.memory.attach(self.region)
            pairs = self.memory.pairs(HEADS[direction])
        self.left[direction].head = pairs
        self.left[direction].ended |= end

    def finish(self) -> None:
        self.over = True
        self.chain.finish()
        self.memory.release(self.region)
