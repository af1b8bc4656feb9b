"""The host functions that Python answers: what is rare, or needs the worker around the VM.

The core has checked the filter's pointers and copied its arguments into the stream memory; here they are (address, size)
pairs in its call block. Answers go back the same way. Nothing here touches a filter's memory. Every call is charged fuel for
the time it takes in Python, so that fuel stays a bound on time.
"""

import os
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import structlog

from proxy.abi.memory import decode_pairs
from proxy.abi.proxy_wasm.foreign import ForeignError, ForeignFunctions
from proxy.abi.proxy_wasm.properties import STATE, NullPropertyError, get
from proxy.abi.services import CallRefusedError
from proxy.sharing.space import Space
from proxy.sharing.status import SharingError
from proxy.telemetry.logging import limited

if TYPE_CHECKING:
    from proxy.abi.proxy_wasm.context import Context, Root
    from proxy.abi.proxy_wasm.slot import VmSlot

log = structlog.get_logger("filter")

OK: Final = 0
NOT_FOUND: Final = 1
BAD_ARGUMENT: Final = 2
EMPTY: Final = 7
CAS_MISMATCH: Final = 8
INTERNAL_FAILURE: Final = 10
UNIMPLEMENTED: Final = 12

DENIED_STATUS: Final = "Denied"
"""How a call that the config does not allow is counted; its filter gets 10 (InternalFailure), of WASI's functions 76."""

STATUS_NAMES: Final = (
    "Ok", "NotFound", "BadArgument", "SerializationFailure", "ParseFailure", "BadExpression", "InvalidMemoryAccess", "Empty",
    "CasMismatch", "ResultMismatch", "InternalFailure", "BrokenConnection", "Unimplemented",
)  # fmt: skip

FUNCTION_NAMES: Final = (
    "proxy_log", "proxy_get_header_map_value", "proxy_add_header_map_value", "proxy_replace_header_map_value",
    "proxy_remove_header_map_value", "proxy_get_header_map_pairs", "proxy_set_header_map_pairs", "proxy_get_header_map_size",
    "proxy_get_buffer_bytes", "proxy_set_buffer_bytes", "proxy_get_buffer_status", "proxy_send_local_response",
    "proxy_continue_stream", "proxy_close_stream", "proxy_define_metric", "proxy_increment_metric", "proxy_record_metric",
    "proxy_get_metric", "proxy_get_property", "proxy_set_property", "proxy_set_tick_period_milliseconds",
    "proxy_set_effective_context", "proxy_done", "proxy_get_status", "proxy_get_current_time_nanoseconds",
    "proxy_get_configuration", "proxy_get_log_level", "proxy_clear_route_cache", "proxy_http_call", "proxy_grpc_call",
    "proxy_grpc_stream", "proxy_grpc_send", "proxy_grpc_cancel", "proxy_grpc_close", "proxy_get_shared_data",
    "proxy_set_shared_data", "proxy_register_shared_queue", "proxy_resolve_shared_queue", "proxy_enqueue_shared_queue",
    "proxy_dequeue_shared_queue", "proxy_call_foreign_function", "envoy_resolve_dns",
)  # fmt: skip
"""Position = number in core/abi.c."""

SHARING_FUNCTIONS: Final = frozenset({
    "proxy_get_shared_data", "proxy_set_shared_data", "proxy_register_shared_queue", "proxy_resolve_shared_queue",
    "proxy_enqueue_shared_queue", "proxy_dequeue_shared_queue",
})  # fmt: skip

CALL_FUEL: Final = 20_000
"""Fuel for one call into Python: about what its microseconds would have cost in guest code."""
BYTE_FUEL: Final = 1

(TIME, RANDOM, GET_PROPERTY, SET_PROPERTY, DEFINE_METRIC, RECORD_HISTOGRAM, SET_TICK, SET_EFFECTIVE, DONE, GET_STATUS,
 HTTP_CALL, GRPC_CALL, GRPC_STREAM, GRPC_SEND, GRPC_CANCEL, GRPC_CLOSE, GET_SHARED, SET_SHARED, REGISTER_QUEUE, RESOLVE_QUEUE,
 ENQUEUE, DEQUEUE, FOREIGN, ERROR, CLEAR_ROUTE, EXIT, DENIED) = range(27)  # fmt: skip

WORD: Final = struct.Struct("<I")
CALL: Final = struct.Struct("<9I")
"""The arguments of proxy_http_call: upstream, headers, body and trailers, each with its size; milliseconds."""
MOST_KEPT: Final = 64
LARGEST_KEPT: Final = 4096
"""Blocks of headers that are kept for each VM, and the most bytes of one."""

LONGEST_CORE_TEXT: Final = 128
USUAL_REASONS: Final = {
    EMPTY: "the queue is empty",
    CAS_MISMATCH: "the value has been set since its CAS value was read",
    UNIMPLEMENTED: "this gateway does not do that",
}
"""By status, where the call itself has given none."""

MOST_RANDOM: Final = 64 << 10
MOST_PROPERTY: Final = 64 << 10
MOST_PROPERTIES: Final = 100
MOST_METRIC_NAME: Final = 512


class Host:
    """Answers the calls of one VM. `slot.running` is the context whose callback runs."""

    now: Callable[[], int] = staticmethod(time.time_ns)
    """Nanoseconds since 1970."""
    random_bytes: Callable[[int], bytes] = staticmethod(os.urandom)

    def __init__(self, slot: "VmSlot") -> None:
        self.slot = slot
        self.memory = slot.memory
        self.reason = ""
        """Why the host function that is being answered refuses."""
        self.pairs: dict[bytes, tuple[tuple[bytes, bytes], ...]] = {}
        """Headers of calls by the block that they came in: many filters send the same ones again and again."""
        self.foreign = ForeignFunctions(self)
        self.operations = {
            TIME: self.get_time,
            RANDOM: self.get_random,
            GET_PROPERTY: self.get_property,
            SET_PROPERTY: self.set_property,
            DEFINE_METRIC: self.define_metric,
            RECORD_HISTOGRAM: self.record_histogram,
            ERROR: self.note_error,
            DENIED: self.note_denied,
            CLEAR_ROUTE: self.clear_route,
            EXIT: self.exit,
            SET_TICK: self.set_tick,
            SET_EFFECTIVE: self.set_effective,
            DONE: self.done,
            GET_STATUS: self.get_status,
            HTTP_CALL: self.http_call,
            FOREIGN: self.call_foreign,
            GET_SHARED: self.get_shared,
            SET_SHARED: self.set_shared,
            REGISTER_QUEUE: self.register_queue,
            RESOLVE_QUEUE: self.resolve_queue,
            ENQUEUE: self.enqueue,
            DEQUEUE: self.dequeue,
            **slot.grpc.operations(self),
        }

    def __call__(self, operation: int) -> int:
        vm = self.slot.vm
        if vm is not None:
            vm.store.charge(CALL_FUEL)
        if operation != ERROR:
            self.reason = ""
        answer = self.operations.get(operation)
        if answer is None:
            return UNIMPLEMENTED
        try:
            return answer()
        except SharingError as error:
            self.explain(str(error))
            return error.status

    def pay(self, fuel: int) -> bool:
        """Charge for work that is still to be done. False: the call cannot pay for it and ends, so do not begin: nothing
        stops Python in the middle of it."""
        vm = self.slot.vm
        return vm is None or vm.store.charge(fuel)

    # ---- Arguments and answers ----

    def words(self, count: int) -> tuple[int, ...]:
        return self.memory.words_at(self.memory.at.arguments, count)

    def text(self, index: int) -> bytes:
        """The bytes of argument pair `index`."""
        address, size = struct.unpack_from("<2I", self.memory.buffer, self.memory.at.arguments + 8 * index)
        return self.memory.bytes_at(address, size)

    def answer(self, data: bytes) -> int:
        """`data` as the call's result, in scratch behind everything that the core has put there."""
        vm = self.slot.vm
        if vm is not None:
            vm.store.charge(BYTE_FUEL * len(data))
        address = self.memory.take_scratch(len(data))
        self.memory.buffer[address : address + len(data)] = data
        self.set_words(address, len(data))
        return OK

    def set_words(self, *words: int) -> None:
        start = self.memory.at.arguments
        data = struct.pack(f"<{len(words)}I", *words)
        self.memory.buffer[start : start + len(data)] = data

    @property
    def calling(self) -> "Context":
        """The context whose callback runs."""
        calling: Context = self.slot.caller or self.slot.running
        return calling

    @property
    def context(self) -> "Context":
        """The context that host functions act on."""
        running: Context = self.slot.running
        return running

    # ---- Operations ----

    def get_time(self) -> int:
        """The time, rounded down to the filter's limits.clock; and its steps, for clock_res_get."""
        step = self.context.plugin.settings.clock
        now = self.now()
        start = self.memory.at.time
        self.memory.buffer[start : start + 8] = struct.pack("<Q", now - now % step)
        self.set_words(step & 0xFFFFFFFF, step >> 32)
        return OK

    def get_random(self) -> int:
        address, size = self.words(2)
        if size > MOST_RANDOM:
            return BAD_ARGUMENT
        self.memory.write(address, self.random_bytes(size))
        return OK

    def get_property(self) -> int:
        try:
            value = get(self.context, self.text(0))
        except NullPropertyError:
            self.explain("path: names a group of properties, not one of them")
            return 3
        return NOT_FOUND if value is None else self.answer(value)

    def set_property(self) -> int:
        path, value = self.text(0), self.text(1)
        stream = self.context.stream
        if stream is None:
            return NOT_FOUND
        properties = stream.properties
        if not self.has_room(properties, path, value):
            return INTERNAL_FAILURE
        if not path.startswith(STATE):  # it could not be read back anyway: the lookup splits at NUL
            properties[path] = value
        return OK

    def has_room(self, properties: dict[bytes, bytes], path: bytes, value: bytes) -> bool:
        """May one more be set? At most MOST_PROPERTIES in MOST_PROPERTY bytes for each stream."""
        if path not in properties and len(properties) >= MOST_PROPERTIES:
            self.explain(f"the stream has {MOST_PROPERTIES} properties set by filters, and may have no more")
            return False
        if sum(len(k) + len(v) for k, v in properties.items()) + len(path) + len(value) > MOST_PROPERTY:
            self.explain("value: the properties set by filters would have more than 64 KiB")
            return False
        return True

    def define_metric(self) -> int:
        kind, address, size = self.words(3)
        if size > MOST_METRIC_NAME:
            self.explain(f"name: has more than {MOST_METRIC_NAME} bytes")
            return BAD_ARGUMENT
        name = self.memory.bytes_at(address, size).decode("utf-8", "backslashreplace")
        metric = self.context.plugin.metrics.define(kind, name)
        if metric is None:
            self.explain("the filter has as many metrics as limits.metrics allows")
            return INTERNAL_FAILURE
        self.set_words(metric)
        return OK

    def record_histogram(self) -> int:
        metric, low, high = self.words(3)
        self.context.plugin.metrics.sample(metric, low | high << 32)
        return OK

    def note_error(self) -> int:
        """A host function answered with an error: count it, and say to the filter's author at level debug what was wrong.

        The core says which argument, for what it answers itself; Python's answers have left a reason (`explain`).
        """
        function, status, argument, why = self.memory.words_at(self.memory.at.arguments + 40, 4)
        plugin = self.context.plugin
        plugin.count_error(FUNCTION_NAMES[function], STATUS_NAMES[status])
        reason = self.reason
        if not limited(("host_call_refused", plugin.name), 10):
            fields = {"function": FUNCTION_NAMES[function], "status": STATUS_NAMES[status]}
            if why:
                fields |= {"argument": self.core_text(argument), "reason": self.core_text(why)}
            else:
                fields["reason"] = reason or USUAL_REASONS.get(status, "")
            log.debug("host_call_refused", filter=plugin.name, **fields)
        return OK

    def core_text(self, address: int) -> str:
        """A C string of the core's own."""
        return self.memory.bytes_at(address, LONGEST_CORE_TEXT).partition(b"\0")[0].decode("ascii", "replace")

    def note_denied(self) -> int:
        """The filter called what its config does not allow it (capabilities.host_functions)."""
        (number,) = self.words(1)
        plugin = self.context.plugin
        name = self.slot.compiled.denied[number]
        plugin.count_error(name, DENIED_STATUS)
        if not limited(("host_call_denied", plugin.name, name), 1):
            log.warning("host_call_denied", filter=plugin.name, function=name, allow=f"capabilities.host_functions: [{name}]")
        return OK

    def root(self) -> "Root":
        """The root of the callback that runs: calls and ticks are always a root's."""
        caller: Any = self.slot.caller or self.slot.running
        found: Root = getattr(caller, "root", caller)
        return found

    def set_tick(self) -> int:
        (milliseconds,) = self.words(1)
        self.slot.set_tick(self.root(), milliseconds)
        return OK

    def set_effective(self) -> int:
        memory = self.memory
        context: int = WORD.unpack_from(memory.buffer, memory.at_arguments)[0]
        if self.slot.set_effective(context):
            return OK
        self.explain(f"context: {context} is no context of this VM, or its stream is over")
        return BAD_ARGUMENT

    def done(self) -> int:
        return OK if self.slot.done(self.root()) else NOT_FOUND

    def get_status(self) -> int:
        code, text = self.root().status
        self.answer(text)
        struct.pack_into("<I", self.memory.buffer, self.memory.at.arguments + 8, code)
        return OK

    def http_call(self) -> int:
        memory = self.memory
        up, up_size, head, head_size, body, body_size, trail, trail_size, milliseconds = CALL.unpack_from(
            memory.buffer, memory.at_arguments
        )
        buffer = memory.buffer
        if trail + trail_size > len(buffer):  # the last that the core has put there; it may have grown the memory
            buffer = memory.buffer = memory.engine.memory()
        upstream = buffer[up : up + up_size].decode("utf-8", "surrogateescape")
        headers = self.decoded(buffer[head : head + head_size])
        trailers = self.decoded(buffer[trail : trail + trail_size]) if trail_size else ()
        content: bytes = buffer[body : body + body_size]
        try:
            token = self.slot.start_call(self.root(), upstream, headers, content, trailers, milliseconds / 1000)
        except CallRefusedError as error:
            self.explain(error.reason)
            return error.status
        WORD.pack_into(memory.buffer, memory.at_arguments, token)
        return OK

    def decoded(self, block: bytes) -> tuple[tuple[bytes, bytes], ...]:
        """The pairs of a block, none if it is malformed; the same tuple for the same block, most times."""
        found = self.pairs.get(block)
        if found is None:
            found = tuple(decode_pairs(block) or ())
            if len(block) <= LARGEST_KEPT:
                if len(self.pairs) >= MOST_KEPT:
                    self.pairs.clear()
                self.pairs[block] = found
        return found

    def call_foreign(self) -> int:
        try:
            return self.answer(self.foreign.call(self.text(0), self.text(1)))
        except ForeignError as error:
            self.pay(error.fuel)
            self.explain(error.reason)
            return error.status

    @property
    def space(self) -> Space:
        """The VM's shared data and queues."""
        if self.slot.space is None:
            raise SharingError("nothing is shared here")
        return self.slot.space

    def get_shared(self) -> int:
        found = self.space.get(self.text(0))
        if found is None:
            return NOT_FOUND
        value, cas = found
        self.answer(value)
        struct.pack_into("<I", self.memory.buffer, self.memory.at.arguments + 8, cas)
        return OK

    def set_shared(self) -> int:
        (cas,) = self.memory.words_at(self.memory.at.arguments + 16, 1)
        return self.space.set(self.text(0), self.text(1), cas)

    def register_queue(self) -> int:
        self.set_words(self.slot.register_queue(self.space, self.root(), self.text(0)))
        return OK

    def resolve_queue(self) -> int:
        vm_id = self.text(0)
        # A space that begins with NUL is one filter's own.
        token = None if vm_id.startswith(b"\0") else self.space.resolve(vm_id, self.text(1))
        if token is None:
            return NOT_FOUND
        self.set_words(token)
        return OK

    def enqueue(self) -> int:
        (token,) = self.memory.words_at(self.memory.at.arguments + 8, 1)
        return self.space.enqueue(token, self.text(0))

    def dequeue(self) -> int:
        (token,) = self.words(1)
        item = self.space.dequeue(token)
        return self.answer(item) if isinstance(item, bytes) else item

    def explain(self, reason: str) -> None:
        """Why a host function refuses, for the filter's author: said by `note_error`, which follows."""
        self.reason = reason

    def clear_route(self) -> int:
        """Routes are chosen after the chain by the final head, so there is nothing to clear."""
        return OK

    def exit(self) -> int:
        vm = self.slot.vm
        if vm is not None:
            (vm.exited,) = self.words(1)
        log.info("proc_exit", filter=self.context.plugin.name, code=vm.exited if vm is not None else None)
        return OK
