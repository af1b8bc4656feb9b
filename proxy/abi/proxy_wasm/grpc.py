"""gRPC calls and streams of the filters in one VM (proxy_grpc_*): their tokens, and their events as callbacks of roots.

Return codes, tokens and what a callback can read are those of Envoy 1.40, found by running it. Tokens of calls are 5, 9 ...,
of streams 6, 10 ...; those that Envoy gives to calls which then fail at once are used up too. A call is gone once its one
callback has returned; a stream only when both sides have ended and the filter has closed or cancelled it.
"""

import struct
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING, Final

from proxy.abi.memory import GRPC_INITIAL, GRPC_TRAILING, decode_pairs
from proxy.abi.proxy_wasm.host import (
    BAD_ARGUMENT,
    GRPC_CALL,
    GRPC_CANCEL,
    GRPC_CLOSE,
    GRPC_SEND,
    GRPC_STREAM,
    INTERNAL_FAILURE,
    NOT_FOUND,
    OK,
    UNIMPLEMENTED,
    Host,
)
from proxy.abi.proxy_wasm.vm import (
    BUFFERS_SET,
    GRPC_MESSAGE,
    ON_GRPC_CLOSE,
    ON_GRPC_INITIAL,
    ON_GRPC_RECEIVE,
    ON_GRPC_TRAILING,
    READABLE_SHIFT,
    Vm,
)
from proxy.abi.services import CallRefusedError, Grpc, GrpcCall, Pairs

if TYPE_CHECKING:
    from proxy.abi.proxy_wasm.context import Root
    from proxy.abi.proxy_wasm.slot import VmSlot

GRPC_FUNCTIONS: Final = frozenset({
    "proxy_grpc_call", "proxy_grpc_stream", "proxy_grpc_send", "proxy_grpc_cancel", "proxy_grpc_close",
})  # fmt: skip
EXTRA: Final = "pip install penstock[grpc]"

FIRST_CALL: Final = 5
FIRST_STREAM: Final = 6
STEP: Final = 4
KIND: Final = 3
"""Bits of a token that tell what it is of."""

MOST_UPSTREAM: Final = 16 << 10
"""Bytes of a name or a serialised GrpcService."""
UPSTREAM_FUEL: Final = 250
"""Fuel for each of them: it is read field by field, in Python."""

MOST_REFUSED: Final = 8
"""Calls of a VM that were refused and whose proxy_on_grpc_close is still to come; more are refused without one."""
REFUSED_REST: Final = 4
"""After each of these callbacks come so many times its own seconds without one."""

MOST_ENDED: Final = 1024
"""Streams of a VM that have ended and that their filters have neither closed nor cancelled: the oldest is forgotten."""

READABLE_AND_WRITABLE: Final = 3


def installed() -> bool:
    """Is the extra there? Looks, without importing it: grpcio and fork do not mix, and this runs before the workers are."""
    return find_spec("grpc") is not None


class Entry:
    """A token that its filter may use."""

    __slots__ = ("call", "local_closed", "remote_closed", "root")

    def __init__(self, root: "Root", call: GrpcCall) -> None:
        self.root = root
        self.call = call
        self.local_closed = False
        self.remote_closed = False


class GrpcCalls:
    """What the roots of one VM have under way."""

    def __init__(self, slot: "VmSlot") -> None:
        self.slot = slot
        self.entries: dict[int, Entry] = {}
        self.ended: dict[int, None] = {}
        self.next_call = FIRST_CALL
        self.next_stream = FIRST_STREAM
        self.refused: deque[tuple[TokenEvents, int, bytes]] = deque()
        """Calls that were refused, and what their proxy_on_grpc_close is to say."""

    def forget(self) -> None:
        """The VM is gone: end its calls without a word."""
        for entry in self.entries.values():
            entry.call.cancel()
        self.entries.clear()
        self.ended.clear()
        self.next_call, self.next_stream = FIRST_CALL, FIRST_STREAM

    def remove(self, token: int) -> None:
        self.entries.pop(token, None)
        self.ended.pop(token, None)

    def linger(self, token: int) -> None:
        """A stream has ended, and its filter has not closed it."""
        if token in self.entries:
            self.ended[token] = None
            if len(self.ended) > MOST_ENDED:
                self.remove(next(iter(self.ended)))

    # ---- Host functions ----

    def operations(self, host: Host) -> dict[int, Callable[[], int]]:
        """By the core's numbers."""
        return {
            GRPC_CALL: lambda: self.start(host, True),
            GRPC_STREAM: lambda: self.start(host, False),
            GRPC_SEND: lambda: self.send(host),
            GRPC_CANCEL: lambda: self.end(host, cancel=True),
            GRPC_CLOSE: lambda: self.end(host, cancel=False),
        }

    def start(self, host: Host, unary: bool) -> int:
        """proxy_grpc_call, proxy_grpc_stream."""
        root = host.root()
        grpc = root.plugin.grpc
        if grpc is None:
            host.explain("no calls can be made in a check" if installed() else f"gRPC needs an extra: {EXTRA}")
            return INTERNAL_FAILURE if installed() else UNIMPLEMENTED
        token = self.next_call if unary else self.next_stream
        assert self.slot.vm is not None
        events = TokenEvents(self, self.slot.vm, root, token, unary)
        try:
            call = self.dial(grpc, host, unary, events)
        except CallRefusedError as error:
            host.explain(error.reason)
            if error.closed is not None:
                self.advance(unary)
                if len(self.refused) < MOST_REFUSED:
                    self.refused.append((events, *error.closed))
                    if len(self.refused) == 1:
                        self.tell_later(0.0)
            return error.status
        self.advance(unary)
        self.entries[token] = Entry(root, call)
        host.set_words(token)
        return OK

    def tell_later(self, seconds: float) -> None:
        if self.slot.services.later is not None:
            self.slot.services.later(seconds, self.tell_refused)

    def tell_refused(self) -> None:
        """One at a time, with a rest behind it: its callback may make more such calls, without end."""
        events, status, message = self.refused[0]
        begun = perf_counter()
        events.closed(status, message)
        self.refused.popleft()
        if self.refused:
            self.tell_later(REFUSED_REST * (perf_counter() - begun))

    def dial(self, grpc: Grpc, host: Host, unary: bool, events: "TokenEvents") -> GrpcCall:
        upstream, service, method = host.text(0), host.text(1), host.text(2)
        if len(upstream) > MOST_UPSTREAM or not host.pay(UPSTREAM_FUEL * len(upstream)):
            raise CallRefusedError(INTERNAL_FAILURE, f"the upstream has {len(upstream)} bytes, more than {MOST_UPSTREAM}")
        metadata = decode_pairs(host.text(3)) or []
        if not unary:
            return grpc.stream(upstream, service, method, metadata, events)
        (milliseconds,) = host.memory.words_at(host.memory.at.arguments + 40, 1)
        return grpc.call(upstream, service, method, metadata, host.text(4), milliseconds / 1000, events)

    def advance(self, unary: bool) -> None:
        if unary:
            self.next_call += STEP
        else:
            self.next_stream += STEP

    def send(self, host: Host) -> int:
        """proxy_grpc_send."""
        token, end = host.memory.words_at(host.memory.at.arguments + 8, 2)
        if token & KIND != FIRST_STREAM & KIND:
            host.explain("token: is not of a stream")
            return BAD_ARGUMENT
        entry = self.found(host, token)
        if entry is None:
            return NOT_FOUND
        if entry.remote_closed:
            return OK
        try:
            entry.call.send(host.text(0), bool(end))
        except CallRefusedError as error:
            host.explain(error.reason)
            return error.status
        return OK

    def end(self, host: Host, cancel: bool) -> int:
        """proxy_grpc_cancel, proxy_grpc_close: a call is cancelled by either, a stream closed by the second."""
        (token,) = host.words(1)
        kind = token & KIND
        if kind not in (FIRST_CALL & KIND, FIRST_STREAM & KIND):
            host.explain("token: is of no call and no stream")
            return BAD_ARGUMENT
        entry = self.found(host, token)
        if entry is None:
            return NOT_FOUND
        if cancel or kind == FIRST_CALL & KIND:
            entry.call.cancel()
            self.remove(token)
        elif entry.remote_closed:
            self.remove(token)
        else:
            entry.local_closed = True
            entry.call.half_close()
        return OK

    def found(self, host: Host, token: int) -> Entry | None:
        """A token belongs to the root that got it."""
        entry = self.entries.get(token)
        return entry if entry is not None and entry.root is host.root() else None


class TokenEvents:
    """What comes of one token, as callbacks of its root."""

    __slots__ = ("calls", "root", "token", "unary", "vm")

    def __init__(self, calls: GrpcCalls, vm: Vm, root: "Root", token: int, unary: bool) -> None:
        self.calls = calls
        self.vm = vm
        self.root = root
        self.token = token
        self.unary = unary

    def initial_metadata(self, pairs: Pairs) -> None:
        self.metadata(ON_GRPC_INITIAL, GRPC_INITIAL, pairs)

    def trailing_metadata(self, pairs: Pairs) -> None:
        self.metadata(ON_GRPC_TRAILING, GRPC_TRAILING, pairs)

    def message(self, data: bytes) -> None:
        """A message; of a unary call the only one, and its end."""
        if self.stale():
            return
        if self.root.id:
            memory = self.calls.slot.memory
            memory.attach(memory.nobody)
            memory.write_scratch(data)
            address, size = memory.at.scratch, len(data)
            self.vm.expose(GRPC_MESSAGE, address, size)
            struct.pack_into(  # Envoy lets it be edited, although nobody else will see it
                "<4I", memory.buffer, memory.at.buffers + 16 * GRPC_MESSAGE, address, size, size, READABLE_AND_WRITABLE
            )
            self.calls.slot.call_root(self.root, ON_GRPC_RECEIVE, self.token, size, flags=BUFFERS_SET)
        if self.unary:
            self.calls.remove(self.token)

    def closed(self, status: int, message: bytes) -> None:
        """The end. The status goes on being what proxy_get_status says, its message does not."""
        if self.stale():
            return
        entry = self.calls.entries.get(self.token)
        if self.root.id:
            if entry is not None:
                entry.remote_closed = True
            self.root.status = (status, message)
            self.calls.slot.call_root(self.root, ON_GRPC_CLOSE, self.token, status)
            self.root.status = (status, b"")
        if self.unary or entry is None or entry.local_closed:
            self.calls.remove(self.token)
        else:
            self.calls.linger(self.token)

    def metadata(self, operation: int, map_: int, pairs: Pairs) -> None:
        if self.stale() or not self.root.id:
            return
        memory = self.calls.slot.memory
        memory.attach(memory.nobody)
        count = len(pairs) if memory.set_answer(map_, pairs) else 0
        self.calls.slot.call_root(self.root, operation, self.token, count, flags=1 << map_ + READABLE_SHIFT)

    def stale(self) -> bool:
        """The VM is another by now: the same token may be another call's."""
        return self.calls.slot.vm is not self.vm or self.vm.dead
