"""The bounds behind the corpus's cases, one by one and without a gateway: what is paid for first, rested after, or not begun."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import wasmtime

from proxy.abi import recovery, reporting
from proxy.abi.proxy_wasm import load, slot
from proxy.abi.proxy_wasm.inspect import MOST_LISTED, inspect_bytes
from proxy.config.filter import Filter
from proxy.sharing import notifier
from proxy.sharing.limits import Limits
from proxy.sharing.store import SharedStore
from proxy.wasm.module import ModuleError, read
from proxy.wasm.store import LONGEST_MESSAGE
from tests.abi.guest import Lines, Worker
from tests.hostile import giants
from tests.hostile.arena import entry
from tests.hostile.interpreter import RAW, Bench, Call, Script
from tests.hostile.wat import call, callback, data, guest

MIB = 1 << 20


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[object]:
    """`workers(wat, settings)`: a started worker with that filter."""
    made = []

    def make(text: str, **settings: object) -> Worker:
        made.append(Worker(tmp_path, (text, settings)).start())
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def seconds_of(worker: Worker) -> float:
    """CPU of one call of the filter."""
    opened = worker.open()
    begun = time.thread_time()
    opened.call("proxy_on_request_headers")
    return time.thread_time() - begun


def compressing(size: int) -> str:
    # A multiplicative walk: bytes that zlib works on for a tenth of a microsecond each.
    fill = (
        f"(local.set $i (i32.const {size - 4})) (loop $l (i32.store (i32.add (local.get $i) (i32.const 65536))"
        " (i32.mul (local.get $i) (i32.const 0x41a7))) (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 4)))))"
    )
    compress = call("proxy_call_foreign_function", 64, 8, 65536, size, 1024, 1028)
    return guest(fill + compress, data(64, b"compress"), locals_="(local $i i32)", memory="100")


def test_work_that_cannot_be_paid_for_is_not_begun(workers) -> None:
    """4 MiB would cost 400 million, and 0.4 s in which nothing could stop it."""
    worker = workers(compressing(4 * MIB), fuel=100_000_000, deadline="10s")
    assert seconds_of(worker) < 0.25
    assert worker.failures() == {"fuel": 1}


def test_work_that_can_be_paid_for_is_done(workers) -> None:
    worker = workers(compressing(MIB), fuel=200_000_000, deadline="10s")
    seconds_of(worker)
    assert worker.failures() == {}


@pytest.mark.parametrize(("size", "status"), [(64, 4), (16 << 10, 4), ((16 << 10) + 1, 10)])
def test_the_upstream_of_a_grpc_call_is_short(size: int, status: int) -> None:
    """It is read in Python, field by field: 4 MiB of it took two seconds."""
    raw = b"\x2a\0" * 8192 + b"\0"
    with Bench() as bench:
        assert bench.run(Script([Call("proxy_grpc_call", (RAW, size, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0xF000))], raw=raw)) == [
            status
        ]


def test_a_tick_rests_four_times_what_it_took(workers) -> None:
    burn = "(local.set $i (i32.const 20000000)) (loop $b (br_if $b (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
    worker = workers(
        guest(call("proxy_set_tick_period_milliseconds", 1), callback("proxy_on_tick", burn, locals_="(local $i i32)")),
        fuel=10**9, deadline="10s",
    )  # fmt: skip
    worker.open().call("proxy_on_request_headers")
    (first,) = worker.timers
    assert first.seconds == 0.01
    worker.timers.clear()
    first.fire()
    (second,) = worker.timers
    vm = worker.slots[0].vm
    assert vm is not None
    assert second.seconds == max(0.01, slot.TICK_REST * vm.elapsed)
    assert second.seconds > 0.01


def test_a_slow_start_is_not_repeated_at_once(workers, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = workers(guest("unreachable"))
    place = worker.slots[0]
    now = 1000.0
    monkeypatch.setattr(recovery.time, "monotonic", lambda: now)
    for seconds, wait in ((0.04, 0.0), (0.5, 10.0)):
        place.backoff, place.start_seconds = 0.0, seconds
        place.died()
        assert place.rebuild_at == now + wait


async def test_a_queue_that_feeds_itself_leaves_the_loop_to_others(tmp_path: Path) -> None:
    store = SharedStore(1, {b"a": Limits()}, [tmp_path])
    sharing = store.attach(0)
    space = sharing.space(b"a")
    told = 0

    def again(token: int) -> None:
        nonlocal told
        told += 1
        time.sleep(0.01)  # what a filter's callback may take
        space.enqueue(token, b"x")

    token = space.register(b"q", again)
    sharing.start(asyncio.get_running_loop())
    space.enqueue(token, b"x")
    begun = time.monotonic()
    await asyncio.sleep(0.5)
    while told < 2 and time.monotonic() - begun < 20:  # a busy machine
        await asyncio.sleep(0.05)
    # Each of them is followed by a rest, so that they get a part of the time and not all of it.
    assert 1 < told <= (time.monotonic() - begun) / (0.01 * notifier.REST)
    sharing.close()
    store.close()


def test_a_module_has_a_thousand_imports_at_most() -> None:
    assert len(read(giants.many_imports(1000)).imports) == 1000
    with pytest.raises(ModuleError, match="1001 imports, more than the 1000"):
        read(giants.many_imports(1001))


def test_few_suggestions_are_looked_for(tmp_path: Path) -> None:
    module = giants.many_exports(5000, "proxy_on_request_headers_")
    unreachable = inspect_bytes(module).unreachable
    assert len(unreachable) == 5000
    assert sum("did you mean" in one.why for one in unreachable) == MOST_LISTED
    with structlog.testing.capture_logs() as lines:
        load.outline(0, Filter.model_validate(entry(tmp_path, "near", module, {})), [])
    said = str(lines)
    assert "and 4980 more" in said
    assert len(said) < 5000


def test_a_trap_s_message_is_short_and_printable(tmp_path: Path) -> None:
    """The innermost frame's name comes from the module's name section."""
    binary = giants.named_functions(90_000)
    problem = check_message(tmp_path, binary)
    assert problem.startswith("wasm `unreachable` instruction executed at 0:")
    assert len(problem) == LONGEST_MESSAGE
    assert problem.isprintable()


def check_message(folder: Path, binary: bytes) -> str:
    """What the log says of the module's trap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            wasmtime, "wat2wasm", lambda text, wat2wasm=wasmtime.wat2wasm: binary if text == "name" else wat2wasm(text)
        )
        lines = Lines()
        patch.setattr(reporting, "log", lines)
        worker = Worker(folder, ("name", {})).start()
        worker.open().call("proxy_on_request_headers")
        worker.close()
    (line,) = lines.of("filter_failed")
    return str(line["message"])
