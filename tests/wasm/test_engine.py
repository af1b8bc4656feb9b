import threading
import time

import pytest
import wasmtime

from proxy.wasm.engine import TICK, Engine, Watch
from proxy.wasm.settings import engine_config

TYPE = wasmtime.MemoryType(wasmtime.Limits(1, 4), shared=True)


@pytest.fixture
def engine():
    engine = Engine(TYPE)
    yield engine
    engine.close()


def test_the_shared_memory(engine):
    memory = engine.memory()
    assert len(memory) == 65536
    memory[0:4] = b"kept"
    engine.grow_memory(65537)
    assert len(engine.memory()) == 3 * 65536
    assert engine.memory()[0:4] == memory[0:4] == b"kept"  # its address stays
    with pytest.raises(wasmtime.WasmtimeError):
        engine.grow_memory(3 * 65536)


def test_code_of_another_engine_s_settings_is_refused(engine):
    other = wasmtime.Engine(wasmtime.Config())
    with pytest.raises(wasmtime.WasmtimeError):
        engine.load(bytes(wasmtime.Module(other, "(module)").serialize()))
    engine.load(bytes(wasmtime.Module(wasmtime.Engine(engine_config()), "(module)").serialize()))


def test_closing_ends_the_watch():
    engine = Engine(TYPE)
    thread = engine.watch.thread
    assert thread.is_alive()
    assert thread.daemon
    engine.close()
    assert not thread.is_alive()


@pytest.fixture
def watch(engine):
    engine.watch.stop()
    watch = Watch(engine.pointer)
    yield watch
    watch.stop()


def wait_for(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(TICK / 5)


def test_the_watch_raises_an_epoch_for_a_call_that_it_finds_twice(watch):
    watch.sequence = 7
    wait_for(lambda: watch.raised_for == 7)


def test_the_watch_lets_idle_and_short_calls_be(watch):
    watch.sequence = 8
    time.sleep(3 * TICK)
    assert watch.raised_for == -1
    end = time.monotonic() + 6 * TICK
    while time.monotonic() < end:
        watch.sequence += 2
    assert watch.raised_for == -1


def test_late_counts_cpu_time_from_when_the_call_was_first_found(watch, monkeypatch):
    clock = [10.0]
    monkeypatch.setattr(time, "thread_time", lambda: clock[0])
    watch.stop()
    watch.sequence = 9
    assert not watch.late(0.001)  # an epoch of another call
    watch.raised_for = 9
    assert not watch.late(0.03)
    clock[0] += 0.02
    assert not watch.late(0.03)
    clock[0] += 0.01
    assert watch.late(0.03)
    watch.sequence = 11
    watch.raised_for = 11
    assert not watch.late(0.03)  # the next call starts anew


def test_one_thread_for_each_engine(engine):
    assert [thread.name for thread in threading.enumerate()].count("wasm-watch") >= 1
