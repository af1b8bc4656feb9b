"""The place of a VM: starts it, builds it anew after a fault, and calls the roots in it."""

import struct
import time
from functools import partial
from typing import Any, Final, NamedTuple

from proxy.abi.filter import (
    ACTION,
    BODY,
    CLOSE_REQUEST,
    CLOSE_RESPONSE,
    CONTINUE_REQUEST,
    CONTINUE_RESPONSE,
    LOCAL_REPLY,
    LOGS,
    SWITCHED,
    LocalReply,
)
from proxy.abi.memory import CALL_HEADERS, CALL_TRAILERS, StreamMemory
from proxy.abi.proxy_wasm.context import NAMES, Root, StreamContext, read_reply
from proxy.abi.proxy_wasm.grpc import GrpcCalls
from proxy.abi.proxy_wasm.host import SHARING_FUNCTIONS, Host
from proxy.abi.proxy_wasm.metrics import GuestMetrics
from proxy.abi.proxy_wasm.vm import (
    BUFFERS_SET,
    CALL_BODY,
    CREATE,
    ON_CONFIGURE,
    ON_CONTEXT_CREATE,
    ON_DELETE,
    ON_DONE,
    ON_HTTP_CALL_RESPONSE,
    ON_QUEUE_READY,
    ON_TICK,
    ON_VM_START,
    PLUGIN_CONFIGURATION,
    READABLE_SHIFT,
    VM_CONFIGURATION,
    WRITABLE_SHIFT,
    Compiled,
    Vm,
)
from proxy.abi.recovery import Slot, StartError, let_go
from proxy.abi.services import ALONE, Answer, Call, CallRefusedError, Pairs, Services
from proxy.abi.settings import Settings
from proxy.sharing.space import Space
from proxy.wasm.fault import GuestFault

TICK_REST: Final = 4
"""After a tick come so many times its own seconds without one: by ticks a filter gets a fifth of the worker at most."""

FIRST_TOKEN: Final = 4
"""Tokens of http calls step by 4, as Envoy's do: 4, 8 ..."""
INTERNAL_FAILURE: Final = 10
BROKEN_CONNECTION: Final = 11

ANSWERED: Final = BUFFERS_SET | (1 << CALL_HEADERS | 1 << CALL_TRAILERS) << READABLE_SHIFT
"""What a call's callback may read."""

WORD: Final = struct.Struct("<I")
MAPS: Final = struct.Struct("<2I")
"""Of the call block: the maps that may be read, and edited."""
NOT_HELD: Final = struct.Struct("<12xI12xI")
"""Both bodies' records in the call block, as `expose_held` leaves them without data; their `present` bits."""

EFFECTS: Final = LOCAL_REPLY | CONTINUE_REQUEST | CONTINUE_RESPONSE | CLOSE_REQUEST | CLOSE_RESPONSE | BODY


class Effect(NamedTuple):
    """What a callback asked of a stream that is not the one it ran for."""

    context: StreamContext
    result: int
    reply: LocalReply | None
    bodies: tuple[bytes, bytes] | None


class VmSlot(Slot):
    """The place of a VM: builds it, and builds it anew after a fault, with back-off. Filters of one vm_id share a slot."""

    running: Any = None
    """The context that host functions act on: the one of the running callback, or its effective context."""

    def __init__(self, memory: StreamMemory, compiled: Compiled, settings: Settings, services: Services = ALONE) -> None:
        super().__init__(settings, services)
        self.memory = memory
        self.compiled = compiled
        self.roots: list[Root] = []
        self.vm: Vm | None = None
        self.caller: Any = None
        """The context of the running callback, while it acts on another."""
        self.contexts: dict[int, StreamContext] = {}
        """Stream contexts by id, of filters that may set an effective context."""
        self.effects: list[Effect] = []
        self.own_view = (b"", b"")
        """The buffers and open maps of the running callback, while it acts on another context."""
        self.metrics: GuestMetrics | None = None
        """Metric ids are the VM's, so filters that share it share the table."""
        self.calls: dict[int, Call] = {}
        """Calls in flight, by token."""
        self.next_token = FIRST_TOKEN
        self.grpc = GrpcCalls(self)
        self.space: Space | None = None
        """Shared data and queues, while there is a VM."""
        self.starting = ""
        """What runs of a start."""

    @property
    def ready(self) -> bool:
        return self.vm is not None

    def start(self) -> None:
        vm = Vm(
            self.memory,
            self.compiled,
            memory_limit=self.settings.memory,
            deadline=self.settings.deadline,
            host=Host(self) if self.services.host is None else self.services.host(self),
        )
        self.vm = vm
        if self.services.space is not None and any(one.name in SHARING_FUNCTIONS for one in self.compiled.outline.imports):
            self.space = self.services.space(self.settings.space)
        self.built_at = time.monotonic()
        burned = time.thread_time()  # not the wall's time: on a busy machine every start is slow by that
        first = self.roots[0]
        self.running = first
        self.starting = self.compiled.start_export or "start"
        region = self.memory.begin_empty()
        try:
            first.plugin.metrics.forget_ids()
            fuel = self.fuel_for_start(self.settings.start_fuel)
            vm.start(first.plugin.record, fuel, self.settings.start_deadline)
            most = vm.used
            first.plugin.drain_logs(None, "start")
            for root in self.roots:
                most = max(most, self.start_root(vm, root))
            self.start_fuel = max(self.start_fuel, most)
        except GuestFault as fault:
            self.running.plugin.drain_logs(None, "start")
            self.bury()
            reason = f"{self.starting}: {fault.reason}: {fault.message}"
            raise StartError(reason, self.running.plugin.last_lines, fault.reason) from None
        except StartError:
            self.bury()
            raise
        finally:
            self.start_seconds = time.thread_time() - burned
            self.memory.release(region)

    def start_root(self, vm: Vm, root: Root) -> int:
        """The fuel of the callback that took most."""
        plugin = root.plugin
        settings = plugin.settings
        self.running = root
        root.id = vm.new_context()
        serving, vm.store.deadline = vm.store.deadline, settings.start_deadline
        fuel = self.fuel_for_start(settings.start_fuel)
        size = len(root.configuration)
        vm.expose(PLUGIN_CONFIGURATION, root.address, size)
        self.starting = "proxy_on_context_create"
        vm.enter(plugin.record, root.id, ON_CONTEXT_CREATE | CREATE | BUFFERS_SET, 0, fuel)
        most = vm.used
        for operation, name, length in (
            (ON_VM_START, "proxy_on_vm_start", len(settings.vm_configuration)),
            (ON_CONFIGURE, "proxy_on_configure", size),
        ):
            if not plugin.has(operation):
                continue
            self.starting = name
            if operation == ON_VM_START:
                vm.expose(VM_CONFIGURATION, 0, 0)
            else:
                vm.expose(PLUGIN_CONFIGURATION, root.address, size)
            vm.arguments(length)
            result = vm.enter(plugin.record, root.id, operation | BUFFERS_SET, 0, fuel)
            most = max(most, vm.used)
            if result & LOGS:
                plugin.drain_logs(None, name)
            if not result & ACTION:
                raise StartError(f"{name} returned false", plugin.last_lines)
        plugin.drain_logs(None, "proxy_on_configure")
        vm.store.deadline = serving
        return most

    def bury(self) -> None:
        vm = self.vm
        if vm is None:
            return
        vm.close()
        self.vm = None
        if self.space is not None:
            self.space.close()
            self.space = None
        for call in self.calls.values():
            call.cancel()
        self.calls.clear()
        self.grpc.forget()
        self.next_token = FIRST_TOKEN
        orphans = list(self.contexts.values())
        self.contexts.clear()
        if orphans and self.services.later is not None:
            self.services.later(0, let_go, orphans)
        for root in self.roots:
            root.stop_ticks()
            root.parked = False
        self.changed()

    def live(self) -> Vm | None:
        """The VM for a new stream, built anew if it is time; None: it is down."""
        if self.vm is None:
            self.revive()
        return self.vm

    # ---- Calls of roots, outside of any stream ----

    def call_root(self, root: Root, operation: int, *arguments: int, flags: int = 0) -> int:
        """Run a callback of a root context; its action and flags, 0 after a fault.

        What it can read beside its arguments (an answer's maps and body) has been put in place, and is in `flags`.
        """
        vm = self.vm
        plugin = root.plugin
        if vm is None or vm.dead or not plugin.has(operation):
            return 0
        self.memory.attach(self.memory.nobody)
        self.running = self.caller = root
        name = NAMES[operation]
        plugin.calls[operation].value += 1
        vm.arguments(*arguments)
        try:
            result = vm.enter(plugin.record, root.id, operation | flags, 0, plugin.fuel)
        except GuestFault as fault:
            plugin.drain_logs(None, name)
            plugin.failed(name, fault.reason, fault.message, None, vm.used, vm.elapsed)
            self.abandon()
            self.died()
            return 0
        finally:
            plugin.spent(vm.used, vm.elapsed)
        if result & LOGS:
            plugin.drain_logs(None, name)
        if result & EFFECTS:
            self.collect(result)
        if self.effects:
            self.carry_out()
        else:
            self.caller = None
        return result

    def set_tick(self, root: Root, milliseconds: int) -> None:
        """proxy_set_tick_period_milliseconds: one timer, set anew after each tick, so ticks never pile up (Envoy)."""
        root.stop_ticks()
        if milliseconds and self.services.later is not None:
            root.tick_seconds = milliseconds / 1000
            if root.tick_seconds < root.plugin.settings.tick:
                root.tick_seconds = root.plugin.settings.tick
                root.plugin.instruments.limited("tick").value += 1
            root.timer = self.services.later(root.tick_seconds, self.tick, root)

    def tick(self, root: Root) -> None:
        root.timer = None
        self.call_root(root, ON_TICK)
        if root.tick_seconds and root.timer is None and self.services.later is not None:
            burned = self.vm.elapsed if self.vm is not None else 0.0
            root.timer = self.services.later(max(root.tick_seconds, TICK_REST * burned), self.tick, root)

    def start_call(self, root: Root, upstream: str, headers: Pairs, body: bytes, trailers: Pairs, seconds: float) -> int:
        """proxy_http_call: the token of a call. Raises CallRefusedError."""
        http = root.plugin.http
        if http is None:
            raise CallRefusedError(INTERNAL_FAILURE, "no calls can be made in a check")
        token = self.next_token
        self.calls[token] = http(upstream, headers, body, trailers, seconds, partial(self.answered, root, token))
        self.next_token = token + 4
        return token

    def answered(self, root: Root, token: int, answer: Answer) -> None:
        """Deliver the answer to a call (proxy_on_http_call_response). Without headers it was a reset."""
        self.calls.pop(token, None)
        vm = self.vm
        if vm is None or vm.dead or not root.id:
            return
        memory, head, body, trailers = self.memory, answer.head, answer.body, answer.trailers
        if head:
            # Loaded as it came in, unless it was held up on its way.
            if memory.answer_head is not head:
                memory.load_plain_answer(head, len(body))
            fields = answer.fields
        else:
            headers = answer.headers
            fields = len(headers) if memory.set_answer(CALL_HEADERS, headers) else 0
            if not headers:
                # Envoy keeps the code of the last failure until the next one, and its text while the callback runs.
                root.status = BROKEN_CONNECTION, b"reset"
        memory.set_answer(CALL_TRAILERS, trailers)
        if body:
            memory.write_scratch(body)
        vm.expose(CALL_BODY, memory.at_scratch, len(body))
        flags = ANSWERED if fields else 0
        self.call_root(root, ON_HTTP_CALL_RESPONSE, token, fields, len(body), len(trailers), flags=flags)
        if root.status[1]:
            root.status = (root.status[0], b"")

    def register_queue(self, space: Space, root: Root, name: bytes) -> int:
        """proxy_register_shared_queue: from now on this root is told of what is put into the queue."""
        return space.register(name, lambda token: self.queue_ready(root, token))

    def queue_ready(self, root: Root, token: int) -> None:
        if root.id:
            self.call_root(root, ON_QUEUE_READY, token)

    # ---- Effective contexts ----

    def set_effective(self, context_id: int) -> bool:
        """proxy_set_effective_context: host functions act on that context until the callback returns. False: unknown."""
        memory = self.memory
        at = memory.at
        running = self.running
        caller = self.caller
        if caller is None:
            caller = self.caller = running
        buffer = memory.buffer
        if running is caller:
            self.own_view = buffer[at.buffers : at.buffers + 32], buffer[at.readable : at.readable + 8]
        found: Any = caller if context_id in (0, caller.id) else self.contexts.get(context_id)
        if found is None:
            found = next((root for root in self.roots if root.id == context_id), None)
        if found is None:
            return False
        result: int = WORD.unpack_from(buffer, at.result)[0]
        if result & EFFECTS:
            self.collect(result)
        WORD.pack_into(buffer, at.result, result & ~EFFECTS | SWITCHED)
        self.running = found
        stream = found.stream
        memory.attach(memory.nobody if stream is None else stream.region)
        WORD.pack_into(buffer, at.effective, found.id)
        if found is caller:
            buffers, maps = self.own_view
            memory.write(at.buffers, buffers)
            memory.write(at.readable, maps)
            return True
        request, response = (None, None) if stream is None else (stream.held(found, 0), stream.held(found, 1))
        if request is None and response is None:
            NOT_HELD.pack_into(buffer, at.buffers, 1, 1)
        else:
            self.expose_held(0, request)
            self.expose_held(1, response)
            buffer = memory.buffer
        window = found.window
        answers = WORD.unpack_from(buffer, at.readable)[0] & 0xF0  # an answer's maps are the callback's, whoever it acts for
        MAPS.pack_into(buffer, at.readable, answers | window >> READABLE_SHIFT & 0x0F, window >> WRITABLE_SHIFT & 0x0F)
        return True

    def expose_held(self, buffer: int, data: bytes | None) -> None:
        """A body that a filter holds, to its effective context; without one the buffer reads as empty."""
        memory = self.memory
        address = memory.take_scratch(len(data)) if data else 0
        if data:
            assert self.vm is not None
            self.vm.store.charge(len(data))
            memory.write(address, data)
        size = len(data or b"")
        struct.pack_into("<4I", memory.buffer, memory.at.buffers + 16 * buffer, address, size, size, 1 if data is None else 3)

    def collect(self, result: int) -> None:
        """Note what has been asked of the effective context, if it is a stream."""
        context = self.running
        if not result & EFFECTS or not isinstance(context, StreamContext) or context is self.caller:
            return
        memory = self.memory
        bodies = None
        if result & BODY:
            records = [memory.words_at(memory.at.buffers + 16 * i, 2) for i in (0, 1)]
            bodies = memory.bytes_at(*records[0]), memory.bytes_at(*records[1])
        reply = read_reply(memory) if result & LOCAL_REPLY else None
        self.effects.append(Effect(context, result & EFFECTS, reply, bodies))

    def sort_out(self, context: StreamContext, result: int) -> int:
        """A stream callback has acted on other contexts: those are served in a moment, its own part is its result."""
        self.collect(result)
        own = 0 if self.running is not context else result & EFFECTS
        if own & LOCAL_REPLY:
            context.local_reply = read_reply(self.memory)
        self.caller = None
        self.memory.attach(context.stream.region)
        if self.effects and self.services.later is not None:
            self.services.later(0, self.carry_out)
        return result & ~EFFECTS | own

    def abandon(self) -> None:
        """The callback ended in a fault: nothing that it asked of other streams is done."""
        self.caller = None
        self.effects.clear()

    def carry_out(self) -> None:
        """Do to other streams what was asked. They may enter this VM again: the guest has returned."""
        self.caller = None
        effects, self.effects = self.effects, []
        for context, result, reply, bodies in effects:
            stream = context.stream
            if bodies is not None:
                for direction in (0, 1):
                    stream.replace_held(context, direction, bodies[direction])
            if reply is not None:
                stream.reply(context, reply)
            elif result & (CLOSE_REQUEST | CLOSE_RESPONSE):
                stream.close()
            else:
                if result & CONTINUE_REQUEST:
                    stream.resume(context, 0)
                if result & CONTINUE_RESPONSE:
                    stream.resume(context, 1)

    # ---- The end ----

    def finish(self) -> bool:
        """Ask every root whether it is done (proxy_on_done); True if all are. Those that are not are parked."""
        self.closing = True
        for root in self.roots:
            if root.parked or not root.id:
                continue
            if not root.plugin.has(ON_DONE) or self.call_root(root, ON_DONE) & ACTION:
                self.delete(root)
            else:
                root.parked = self.vm is not None
        return not any(root.parked for root in self.roots)

    def done(self, root: Root) -> bool:
        """proxy_done: a parked root has finished its work; it goes once the callback has returned."""
        if not root.parked:
            return False
        root.parked = False
        if self.services.later is not None:
            self.services.later(0, self.delete, root)
        return True

    def delete(self, root: Root) -> None:
        if not root.id:
            return
        root.stop_ticks()
        self.call_root(root, ON_DELETE)
        root.id = 0
        self.changed()

    @property
    def over(self) -> bool:
        """After `finish`: no root is left, or its VM is not."""
        return self.vm is None or not any(root.id for root in self.roots)

    def give_up(self) -> None:
        """Delete the roots that have not said proxy_done in time."""
        for root in self.roots:
            root.parked = False
            if root.id:
                self.delete(root)

    def close(self) -> None:
        self.bury()
