"""A filter that makes whatever host calls stand in its memory, and a worker that looks what came of them.

The script: u32 count at COUNT; then, at SCRIPT, an entry for each call, of ENTRY bytes: u64 number of the function in FUNCTIONS,
and up to 12 arguments of 64 bits. The statuses come out at STATUSES. Around the filter lie canaries: the whole memory of another
filter, bytes kept in the stream memory, and what a stream before left in its scratch. None may ever be found in the filter's
memory, and none may change.
"""

from __future__ import annotations

import asyncio
import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from proxy.abi.proxy_wasm import host, plugin
from proxy.abi.proxy_wasm.signatures import ENVIRONMENT_FUNCTIONS, HOST_FUNCTIONS, WASI_FUNCTIONS, Signature
from proxy.abi.services import Services
from proxy.capabilities.allowed_hosts import AllowedHosts
from proxy.chain.chains import GrpcOf, http_of
from proxy.server.deadlines import Deadlines
from proxy.sharing.limits import Limits
from proxy.sharing.store import SharedStore
from proxy.telemetry import logging as logs
from proxy.upstream import callout
from proxy.upstream.callout import CalloutPolicy, Callouts
from proxy.upstream.grpc_callout import GrpcCallouts
from proxy.upstream.write_batch import WriteBatch
from proxy.wasm import store
from tests.abi.guest import Lines, Worker
from tests.hostile.wat import callback, guest, types

FUNCTIONS: dict[str, tuple[str, Signature]] = {
    **{name: ("env", signature) for name, signature in {**HOST_FUNCTIONS, **ENVIRONMENT_FUNCTIONS}.items()},
    **{name: ("wasi_snapshot_preview1", signature) for name, signature in WASI_FUNCTIONS.items()},
}
"""Every function that can be linked: name -> (module, type). Position = number in a script."""
NAMES = tuple(FUNCTIONS)
ABI_STATUSES = range(13)
ERRNOS = range(77)
"""WASI's, from success to ENOTCAPABLE."""

COUNT, MODE = 0x300, 0x308
STATUSES, SCRIPT, RAW, HEAP = 0x400, 0x1000, 0x8000, 0x10000
ENTRY = 8 * 13
MOST_CALLS = 32
PAGES = 4
SIZE = PAGES << 16

ALLOCATOR_MODES = ("bump", "null", "negative", "end", "grow", "trap", "script")
"""What the filter's allocator does, by the number at MODE: 0 gives room, the others lie."""
CALLBACKS = (
    "proxy_on_request_headers", "proxy_on_request_body", "proxy_on_response_headers", "proxy_on_response_body", "proxy_on_log",
)  # fmt: skip


def text() -> str:
    """The filter."""
    imports, adapters = [], []
    for i, (name, (module, signature)) in enumerate(FUNCTIONS.items()):
        imports.append(f'(import "{module}" "{name}" (func $f{i} {types(signature)}))')
        arguments = " ".join(
            f"({kind}.load offset={8 * at} (local.get 0))" for at, kind in enumerate(signature.params, start=1)
        )
        nothing = "" if signature.results else "(i32.const 0)"
        adapters.append(f"(func $a{i} (type $adapter) (call $f{i} {arguments}) {nothing})")
    elements = " ".join(f"$a{i}" for i in range(len(FUNCTIONS)))
    cases = {
        1: "(i32.const 0)",
        2: "(i32.const -1)",
        3: "(i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 1))",
        4: "(i32.shl (memory.grow (i32.const 1)) (i32.const 16))",
        5: "(unreachable)",
        6: f"(i32.const {SCRIPT})",
    }
    modes = " ".join(
        f"(if (i32.eq (global.get $mode) (i32.const {mode})) (then (return {body})))" for mode, body in cases.items()
    )
    allocator = f"""(global $mode (mut i32) (i32.const 0)) (global $top (mut i32) (i32.const {HEAP}))
  (func (export "malloc") (param i32) (result i32) {modes}
    (if (i32.gt_u (i32.add (global.get $top) (local.get 0)) (i32.const {SIZE})) (then (global.set $top (i32.const {HEAP}))))
    (global.get $top)
    (global.set $top (i32.and (i32.add (i32.add (global.get $top) (local.get 0)) (i32.const 15)) (i32.const -8))))"""
    # The count is a local, the mode a global, and the number is brought into range: a script may overwrite itself.
    run = f"""(table {len(FUNCTIONS)} funcref) (elem (i32.const 0) {elements})
  (func $run (local $n i32) (local $i i32)
    (local.set $n (i32.load (i32.const {COUNT})))
    (i32.store (i32.const {COUNT}) (i32.const 0))
    (global.set $mode (i32.load (i32.const {MODE})))
    (block $out (loop $next
      (br_if $out (i32.ge_u (local.get $i) (local.get $n)))
      (i32.store (i32.add (i32.const {STATUSES}) (i32.shl (local.get $i) (i32.const 2)))
        (call_indirect (type $adapter) (i32.add (i32.const {SCRIPT}) (i32.mul (local.get $i) (i32.const {ENTRY})))
          (i32.rem_u (i32.load (i32.add (i32.const {SCRIPT}) (i32.mul (local.get $i) (i32.const {ENTRY})))) (i32.const {len(FUNCTIONS)}))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next))))"""
    first, *rest = CALLBACKS
    return guest(
        "(call $run)",
        "(type $adapter (func (param i32) (result i32)))",
        *imports,
        *adapters,
        run,
        *(callback(name, "(call $run)") for name in rest),
        on=first,
        memory=str(PAGES),
        allocator=allocator,
    )


class Call(NamedTuple):
    """A host call: the function's name, and its arguments."""

    name: str
    arguments: tuple[int, ...]

    def pack(self) -> bytes:
        padded = (*self.arguments, *[0] * (12 - len(self.arguments)))
        return struct.pack("<13Q", NAMES.index(self.name), *(one & 0xFFFF_FFFF_FFFF_FFFF for one in padded))


class Script(NamedTuple):
    """What one run makes: the calls, from which callback, with which allocator, with what at RAW."""

    calls: Sequence[Call]
    callback: str = CALLBACKS[0]
    allocator: str = ALLOCATOR_MODES[0]
    raw: bytes = b""


VICTIM = guest("(drop (i32.load (i32.const 0)))")
CANARY_SIZE = 24


class Bench:
    """A worker with the interpreter, its victim and the canaries. Used by `with`."""

    def __enter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-fuzz-")
        folder = Path(self.folder.name)
        self.lines = Lines()
        self.kept_logs = [(module, module.log) for module in (host, plugin, store, callout)]
        for module, _ in self.kept_logs:
            module.log = self.lines  # type: ignore[attr-defined]
        settings = {
            "fuel": 10**12,
            "deadline": "20s",
            "vm_id": "fuzz",
            "quarantine": None,
            "limits": {"log_lines": "1000000/s"},
        }
        self.worker = Worker(folder, (text(), settings), (VICTIM, {}))
        self.store = SharedStore(1, {b"fuzz": Limits()}, [folder])
        self.sharing = self.store.attach(0)
        self.loop = asyncio.new_event_loop()
        self.callouts = Callouts({}, WriteBatch(self.loop), Deadlines(self.loop), self.worker.instruments.cluster)
        policy = CalloutPolicy("f0", AllowedHosts(["*.example.com"]), max_calls=0)
        for slot in self.worker.slots:
            slot.services = Services(self.worker.later, lambda name: self.sharing.space(b"fuzz"))
        interpreter = self.worker.plugins[0]
        interpreter.http = http_of(self.callouts, policy)
        interpreter.grpc = GrpcOf(GrpcCallouts(self.callouts), policy)
        self.worker.start()
        self.canary = os.urandom(CANARY_SIZE)
        self.kept = self.worker.memory.keep(self.canary)
        self.victim = self.canary * (len(self.worker.guest_memory(1)) // CANARY_SIZE)
        self.worker.guest_memory(1)[: len(self.victim)] = self.victim
        self.faults = 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.worker.close()
        self.sharing.close()
        self.store.close()
        self.callouts.close()
        self.loop.close()
        for module, log in self.kept_logs:
            module.log = log  # type: ignore[attr-defined]
        self.folder.cleanup()

    def run(self, script: Script) -> list[int]:
        """Make the calls; their statuses. Raises AssertionError for whatever does not hold."""
        worker = self.worker
        logs.buckets.clear()
        self.lines.kept.clear()
        worker.slots[0].rebuild_at = worker.slots[0].backoff = 0.0
        opened = worker.open()
        worker.memory.write_scratch(self.canary * 20_000)  # what a stream before may have left there
        self.write(script)
        statuses: list[int] = []
        down = self.enter(opened, script.callback)
        if not down:
            memory = worker.guest_memory()
            statuses = list(struct.unpack_from(f"<{len(script.calls)}I", memory, STATUSES))
            assert self.canary not in memory[:], "the filter has read what is not its own"
        self.check(script, statuses, down)
        self.settle()
        worker.memory.release(opened.stream.region)
        self.check_sound()
        return statuses

    def write(self, script: Script) -> None:
        memory = self.worker.guest_memory()
        memory[:] = bytes(len(memory))
        memory[SCRIPT : SCRIPT + ENTRY * len(script.calls)] = b"".join(call.pack() for call in script.calls)
        memory[RAW : RAW + len(script.raw)] = script.raw
        struct.pack_into("<I", memory, COUNT, len(script.calls))
        struct.pack_into("<I", memory, MODE, ALLOCATOR_MODES.index(script.allocator))

    def enter(self, opened: object, name: str) -> bool:
        """Run the callback; whether the VM died of it."""
        assert hasattr(opened, "call")
        if "response" in name:
            self.worker.respond(opened.stream)  # type: ignore[attr-defined]
        self.worker.blank = lambda number=0: None  # type: ignore[method-assign]
        opened.call(name, self.canary[:4] * 100, True)
        return bool(opened.context.down)  # type: ignore[attr-defined]

    def check(self, script: Script, statuses: list[int], down: bool) -> None:
        failed = self.lines.of("host_function_failed")
        assert not failed, f"Python failed: {failed}"
        if down:
            self.faults += 1
            assert script.allocator == "trap", f"the VM died: {self.lines.of('filter_failed')}"
        # Where a script overwrites itself, or its statuses, they mean nothing; what is below was never written to.
        if script.allocator == "bump" and self.untouched(script):
            for call, status in zip(script.calls, statuses, strict=True):
                allowed = ERRNOS if call.name in WASI_FUNCTIONS else ABI_STATUSES
                assert status in allowed, f"{call} answered {status}"
        memory = self.worker.memory
        assert memory.bytes_at(self.kept, CANARY_SIZE) == self.canary, "bytes of the stream memory have changed"
        assert self.worker.guest_memory(1)[: len(self.victim)] == self.victim, "another filter's memory has changed"

    def untouched(self, script: Script) -> bool:
        """Has no call been given an address below RAW, where the script and its statuses lie?"""
        return all((one & 0xFFFF_FFFF) >= RAW or one < 16 for call in script.calls for one in call.arguments)

    def settle(self) -> None:
        """What was put off to later, ticks included, happens now."""
        for _ in range(3):
            timers, self.worker.timers[:] = self.worker.timers[:], []
            for timer in timers:
                timer.fire()
        self.worker.timers.clear()
        self.worker.slots[0].contexts.clear()  # the stream is over

    def check_sound(self) -> None:
        """The VM, or the one after it, answers as ever, and so does the victim's."""
        worker = self.worker
        worker.slots[0].rebuild_at = worker.slots[0].backoff = 0.0
        opened = worker.open()
        self.write(Script([Call("proxy_get_header_map_value", (0, RAW, 7, 64, 72))], raw=b":method"))
        assert not self.enter(opened, CALLBACKS[0])
        memory = worker.guest_memory()
        (status,), (at,), (size,) = (struct.unpack_from("<I", memory, place) for place in (STATUSES, 64, 72))
        assert (status, memory[at : at + size]) == (0, b"POST")
        worker.memory.release(opened.stream.region)
        victim = worker.open(1)
        victim.call(CALLBACKS[0])
        assert not victim.context.down
        worker.memory.release(victim.stream.region)
