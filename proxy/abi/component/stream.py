"""A component filter's part in one stream."""

import re
from typing import TYPE_CHECKING, Any, Final

from proxy.abi.component.instance import Instance
from proxy.abi.component.values import content, data_of, edited
from proxy.abi.component.world import CONTINUES, PAUSES
from proxy.abi.filter import BODY, CONTINUE, FAILED, LOCAL_REPLY, PAUSE, LocalReply, StreamHost
from proxy.abi.memory import REQUEST_HEADERS, REQUEST_TRAILERS, RESPONSE_HEADERS, RESPONSE_TRAILERS
from proxy.abi.part import StreamPart
from proxy.abi.proxy_wasm.properties import READABLE_SHIFT
from proxy.abi.recovery import let_go
from proxy.abi.services import Answer, Call, CallRefusedError, Pairs
from proxy.wasm.fault import GuestFault

if TYPE_CHECKING:
    from proxy.abi.component.plugin import ComponentPlugin, Configured

REQUEST, RESPONSE = 0, 1
HEADS: Final = (REQUEST_HEADERS, RESPONSE_HEADERS)
ALL_MAPS: Final = 0xFF << READABLE_SHIFT
REPLIED: Final = LOCAL_REPLY | PAUSE


class ComponentStream(StreamPart):
    """`instance`: the one that serves this stream; None: the filter is down, or (isolation: request) it is yet to be made."""

    __slots__ = (
        "body", "calls", "configured", "held_heads", "holding", "id", "instance", "local_reply", "lost", "plugin", "stream",
    )  # fmt: skip

    plugin: "ComponentPlugin"
    body: bytes
    local_reply: LocalReply | None

    window = ALL_MAPS
    """Properties may read every map, at any time."""

    def __init__(self, configured: "Configured", instance: Instance | None, stream: StreamHost) -> None:
        self.configured = configured
        self.plugin = configured.plugin
        self.instance = instance
        self.stream = stream
        self.id = self.plugin.next_stream()
        self.local_reply = None
        self.lost = instance is None and not self.plugin.isolated
        """No callback runs any more."""
        self.holding = [False, False]
        """By direction: it has paused, and not continued since."""
        self.held_heads = [False, False]
        self.calls: dict[int, Call] = {}

    # ---- What the chain asks ----

    @property
    def name(self) -> str:
        return self.configured.name

    @property
    def down(self) -> bool:
        return self.lost or (self.instance is not None and self.instance.dead)

    def continued(self) -> None:
        """What it held has been let go of, perhaps by its pause deadline: an answer that comes later is too late for it."""
        self.holding = [False, False]
        self.held_heads = [False, False]

    # ---- Callbacks ----

    def request_headers(self, end_stream: bool) -> int:
        if not self.plugin.callbacks.request_headers:
            return self.idle()
        return self.headers("on-request-headers", REQUEST, end_stream)

    def response_headers(self, end_stream: bool) -> int:
        if not self.plugin.callbacks.response_headers:
            return self.idle()
        return self.headers("on-response-headers", RESPONSE, end_stream)

    def request_body(self, data: bytes, end_stream: bool) -> int:
        if not self.plugin.callbacks.request_body:  # the chain asked before the filter had said
            return self.idle()
        return self.piece("on-request-body", REQUEST, data, end_stream)

    def response_body(self, data: bytes, end_stream: bool) -> int:
        if not self.plugin.callbacks.response_body:
            return self.idle()
        return self.piece("on-response-body", RESPONSE, data, end_stream)

    def request_trailers(self, held: bytes | None) -> int:
        if not self.plugin.wants("request-trailers"):
            return self.idle()
        return self.trailers("on-request-trailers", REQUEST, REQUEST_TRAILERS, held)

    def response_trailers(self, held: bytes | None) -> int:
        if not self.plugin.wants("response-trailers"):
            return self.idle()
        return self.trailers("on-response-trailers", RESPONSE, RESPONSE_TRAILERS, held)

    def finish(self) -> None:
        for call in self.calls.values():
            call.cancel()
        self.calls.clear()
        plugin = self.plugin
        instance = self.instance
        if plugin.callbacks.finish and not self.down and (instance is not None or not plugin.isolated):
            self.enter("on-log", (self.id,))
        plugin.slot.streams.discard(self)
        if plugin.isolated and instance is not None:
            instance.close()
        self.lost = True

    def idle(self) -> int:
        """Instead of a callback that the filter does not want."""
        return FAILED if self.down and not self.plugin.settings.fail_open else CONTINUE

    def headers(self, callback: str, direction: int, end_stream: bool) -> int:
        map_ = HEADS[direction]
        pairs = self.plugin.memory.pairs(map_)
        result = self.enter(callback, (self.id, pairs, end_stream))
        if result is None:
            return self.failure
        edits, action = result
        if edits:
            self.edit(map_, pairs, edits)
        number, reply = action
        if number == CONTINUES:
            return CONTINUE
        self.held_heads[direction] = number == PAUSES
        return self.act(number, reply, direction)

    def piece(self, callback: str, direction: int, data: bytes, end_stream: bool) -> int:
        result = self.enter(callback, (self.id, data_of(data), end_stream))
        if result is None:
            return self.failure
        replace, (number, reply) = result
        if number == CONTINUES:
            self.held_heads[direction] = False
        return self.replaced(replace) | self.act(number, reply, direction)

    def trailers(self, callback: str, direction: int, map_: int, held: bytes | None) -> int:
        pairs = self.plugin.memory.pairs(map_)
        result = self.enter(callback, (self.id, pairs, None if held is None else data_of(held)))
        if result is None:
            return self.failure
        edits, replace, (number, reply) = result
        if edits:
            self.edit(map_, pairs, edits)
        return (self.replaced(replace) if held is not None else 0) | self.act(number, reply, direction)

    def replaced(self, replace: tuple[int, bytes] | None) -> int:
        if replace is None:
            return 0
        self.body = content(replace)
        return BODY

    def edit(self, map_: int, pairs: Pairs, edits: Any) -> None:
        self.plugin.memory.set_pairs(map_, edited(pairs, edits, self.plugin.settings, self.plugin.refuse_edit))

    def act(self, number: int, reply: Any, direction: int) -> int:
        """An action as the chain's result."""
        self.holding[direction] = number == PAUSES
        if number == CONTINUES:
            return CONTINUE
        if number == PAUSES:
            return PAUSE
        self.local_reply = reply_of(reply)
        return REPLIED

    # ---- Calls to other services ----

    def send(self, upstream: str, headers: Pairs, body: bytes, seconds: float) -> int:
        """Start a call of this stream; its number. Raises CallRefusedError."""
        http = self.plugin.http
        if http is None:
            raise CallRefusedError(0, "no calls can be made in a check")
        slot = self.plugin.slot
        number = slot.next_call

        def done(answer: Answer) -> None:
            if self.calls.pop(number, None) is not None:
                self.answered(number, answer)

        self.calls[number] = http(upstream, headers, body, (), seconds, done)
        slot.next_call = number + 1 & 0xFFFF_FFFF
        slot.streams.add(self)
        return number

    def answered(self, number: int, answer: Answer) -> None:
        """Give the answer to the filter, and do with the stream what it says."""
        if self.down:
            return
        stream, memory = self.stream, self.plugin.memory
        memory.attach(stream.region)
        if answer.headers:
            response: Any = (True, (answer.headers, data_of(answer.body), answer.trailers))
        else:
            response = (False, (answer.failure or "no answer").encode("utf-8", "replace"))
        result = self.enter("on-http-response", (self.id, number, response))
        if result is None:
            let_go([self])
            return
        edits, replace, (action, reply) = result
        direction = RESPONSE if self.held_heads[RESPONSE] else REQUEST
        if edits and self.held_heads[direction]:
            map_ = HEADS[direction]
            self.edit(map_, memory.pairs(map_), edits)
        if replace is not None:
            for held in (RESPONSE, REQUEST):
                if stream.held(self, held) is not None:
                    stream.replace_held(self, held, content(replace))
                    break
        if action == CONTINUES:
            for held in [direction for direction in (REQUEST, RESPONSE) if self.holding[direction]]:
                stream.resume(self, held)
        elif action != PAUSES:
            stream.reply(self, reply_of(reply))

    # ---- Into the instance ----

    @property
    def failure(self) -> int:
        """What a callback comes to that did not run to its end."""
        return CONTINUE if self.plugin.settings.fail_open else FAILED

    def enter(self, callback: str, arguments: tuple[Any, ...]) -> Any | None:
        """A callback's result. None: there is none (it failed, the filter is down, or it gives none)."""
        if self.lost:
            return None
        plugin = self.plugin
        instance = self.instance
        if instance is None:
            instance = self.instance = self.configured.disposable(self)
            if instance is None:
                self.lost = True
                return None
        elif instance.dead:
            return None
        host = plugin.slot.host
        host.running, host.stream, host.instance, host.callback = self.configured, self, instance, callback
        plugin.calls[callback].value += 1
        try:
            return instance.call(callback, arguments, plugin.fuel)
        except GuestFault as fault:
            plugin.failed(callback, fault.reason, fault.message, self.stream, instance.used, instance.elapsed)
            if plugin.isolated:
                instance.close()
                plugin.slot.noted()
            else:
                plugin.slot.died()
            return None
        finally:
            host.stream = None
            plugin.spent(instance.used, instance.elapsed)
            self.stream.info.filter_seconds += instance.elapsed


def reply_of(reply: Any) -> LocalReply:
    status, headers, body, details = reply
    return LocalReply(
        status,
        re.sub(r"\s", "_", details.decode("utf-8", "backslashreplace")),
        b"" if body is None else content(body),
        tuple(headers),
        None,
    )
