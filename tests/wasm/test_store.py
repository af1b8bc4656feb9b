"""Stores: calls, limits, and what a fault says. Guests here are plain modules, without the ABI."""

import time

import pytest
import wasmtime

from proxy.wasm import capi, store
from proxy.wasm.engine import Engine
from proxy.wasm.fault import GuestFault
from proxy.wasm.settings import engine_config
from proxy.wasm.store import Store, first_line

PAGE = 65536


@pytest.fixture(scope="module")
def engine():
    engine = Engine(wasmtime.MemoryType(wasmtime.Limits(1, 4), shared=True))
    yield engine
    engine.close()


@pytest.fixture
def load(engine):
    compiler = wasmtime.Engine(engine_config())
    return lambda text: engine.load(bytes(wasmtime.Module(compiler, text).serialize()))


@pytest.fixture(params=["cell", "C API"])
def new_store(request, engine, monkeypatch):
    """Makes stores. A call's fuel is set and read either way."""
    if request.param == "C API":
        monkeypatch.setattr(engine, "fuel_offset", None)
    made = []

    def make(memory_limit=4 * PAGE, deadline=1.0, host=lambda operation: 0, fuel=100_000):
        made.append(Store(engine, memory_limit=memory_limit, deadline=deadline, host=host))
        made[-1].set_fuel(fuel)
        return made[-1]

    yield make
    for one in made:
        one.close()


FUNCTIONS = """(module
  (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "nothing"))
  (func (export "loop") (loop $l (br $l)))
  (func (export "trap") unreachable)
  (func (export "deep") (call $deep)) (func $deep (call $deep) (drop (i32.const 0)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "i64") (param i64))
  (func (export "f32") (result f32) (f32.const 0))
  (func (export "two") (result i32 i32) (i32.const 1) (i32.const 2))
  (global (export "global") i32 (i32.const 0)))"""


def test_the_fuel_cell_is_found(engine):
    """This wasmtime keeps the fuel where it can be seen. If a new one does not, calls are slower and nothing else."""
    assert engine.fuel_offset is not None


def test_fuel_is_set_and_read_alike(new_store, load):
    one = new_store(fuel=1000)
    assert one.fuel() == 1000
    if one.fuel_cell is not None:
        assert one.fuel_cell[0] == -1000
        one.fuel_cell[0] = -777
        assert one.fuel() == 777
    instance = one.instantiate(load(FUNCTIONS), [])
    left = one.fuel()
    one.call(one.function(instance, "add", 2), 1, 2)
    used = left - one.fuel()
    assert 0 < used < 20
    if one.fuel_cell is not None:
        assert -one.fuel_cell[0] == one.fuel()


@pytest.mark.parametrize(("fuel", "charge", "left"), [(100, 30, 70), (100, 100, 0), (100, 101, 0), (0, 1, 0)])
def test_charging(new_store, fuel, charge, left):
    one = new_store(fuel=fuel)
    one.charge(charge)
    assert one.fuel() == left


def test_calls(new_store, load):
    one = new_store()
    instance = one.instantiate(load(FUNCTIONS), [])
    assert one.call(one.function(instance, "add", 2), 2, 3) == 5
    assert one.call(one.function(instance, "add", 2), -1, 3) == 2
    assert one.call(one.function(instance, "add", 2), -1, 0) == 0xFFFF_FFFF
    one.call(one.function(instance, "nothing"))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("none", 0),
        ("global", 0),
        ("memory", 0),
        ("add", 0),
        ("add", 1),
        ("add", 3),
        ("nothing", 1),
        ("i64", 1),
        ("f32", 0),
        ("two", 0),
    ],
)
def test_a_function_of_another_type_cannot_be_called(new_store, load, name, parameters):
    one = new_store()
    with pytest.raises(GuestFault) as fault:
        one.function(one.instantiate(load(FUNCTIONS), []), name, parameters)
    assert fault.value.reason == "start"
    assert name in fault.value.message


@pytest.mark.parametrize(
    ("name", "fuel", "deadline", "reason", "message"),
    [
        ("loop", 1000, 1.0, "fuel", "all fuel consumed"),
        ("loop", 10**15, 0.03, "deadline", "ran longer than 30 ms"),
        ("trap", 1000, 1.0, "trap", "unreachable"),
        ("deep", 10**9, 1.0, "trap", "stack"),
        ("nothing", 0, 1.0, None, None),
    ],
)
def test_faults(new_store, load, name, fuel, deadline, reason, message):
    one = new_store(deadline=deadline)
    instance = one.instantiate(load(FUNCTIONS), [])
    function = one.function(instance, name)
    one.set_fuel(fuel)
    if reason is None:
        with pytest.raises(GuestFault, match="fuel"):
            one.call(function)
        return
    with pytest.raises(GuestFault) as fault:
        one.call(function)
    assert fault.value.reason == reason
    assert message in fault.value.message


def test_a_deadline_counts_the_cpu_time_of_its_own_call(new_store, load, engine):
    spender, innocent = new_store(deadline=0.03, fuel=10**15), new_store(deadline=0.001, fuel=10**15)
    functions = [one.function(one.instantiate(load(FUNCTIONS), []), "loop") for one in (spender,)]
    quick = innocent.function(innocent.instantiate(load(FUNCTIONS), []), "nothing")
    started = time.thread_time()
    with pytest.raises(GuestFault):
        spender.call(functions[0])
    assert 0.015 < time.thread_time() - started < 0.5
    for _ in range(3):
        innocent.call(quick)


@pytest.mark.parametrize("limit", [PAGE, 2 * PAGE, 4 * PAGE])
def test_memory_is_limited(new_store, load, limit):
    one = new_store(memory_limit=limit)
    instance = one.instantiate(load(FUNCTIONS), [])
    one.memory_extern = one.export(instance, "memory")
    grow = one.function(instance, "grow", 1)
    assert one.call(grow, limit // PAGE) == 0xFFFF_FFFF
    assert one.call(grow, limit // PAGE - 1) == 1
    assert one.guest_memory() == limit
    with pytest.raises(GuestFault) as fault:
        one.call(one.function(instance, "trap"))
    assert fault.value.reason == "memory"
    assert str(limit) in fault.value.message


@pytest.mark.parametrize(
    "text",
    [
        "(module (memory 5))",
        "(module (table 100001 funcref))",
        f"(module {'(table 1 funcref)' * 17})",
        "(module (memory 1) (memory 1) (memory 1) (memory 1) (memory 1))",
    ],
)
def test_what_an_instance_may_have(new_store, load, text):
    one = new_store()
    with pytest.raises(GuestFault):
        one.instantiate(load(text), [])


def test_instances_are_limited(new_store, load):
    one = new_store()
    module = load("(module)")
    with pytest.raises(GuestFault):
        for _ in range(store.USUAL.instances + 1):
            one.instantiate(module, [])


HOST = """(module (import "host" "call" (func $host (param i32) (result i32)))
  (func (export "ask") (param i32) (result i32) (call $host (local.get 0))))"""


def test_host_calls(new_store, load):
    asked = []

    def host(operation):
        asked.append(operation)
        return operation + 1

    one = new_store(host=host)
    ask = one.function(one.instantiate(load(HOST), [one.host_function()]), "ask", 1)
    assert one.call(ask, 41) == 42
    assert asked == [41]


def test_a_host_function_that_fails_answers_10(new_store, load):
    """Nothing is raised through the guest's frames, and the store goes on."""

    def host(operation):
        raise ZeroDivisionError if operation else KeyError

    one = new_store(host=host)
    ask = one.function(one.instantiate(load(HOST), [one.host_function()]), "ask", 1)
    assert [one.call(ask, n) for n in range(3)] == [10, 10, 10]


def test_a_charge_in_a_host_call_stops_the_guest(new_store, load):
    one = new_store(host=lambda operation: one.charge(10**9) or 0)
    instance = one.instantiate(load(HOST), [one.host_function()])
    loop = load("""(module (import "host" "call" (func $host (param i32) (result i32)))
      (func (export "f") (loop $l (drop (call $host (i32.const 0))) (br $l))))""")
    del instance
    function = one.function(one.instantiate(loop, [one.host_function()]), "f")
    with pytest.raises(GuestFault) as fault:
        one.call(function)
    assert fault.value.reason == "fuel"


def test_a_start_function_that_fails(new_store, load):
    one = new_store()
    with pytest.raises(GuestFault) as fault:
        one.instantiate(load("(module (start 0) (func unreachable))"), [])
    assert fault.value.reason == "trap"


def test_closing_twice(new_store):
    one = new_store()
    one.close()
    one.close()
    assert one.guest_memory() == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "trap"),
        ("something else", "something else"),
        (
            "error while executing at wasm backtrace:\n    0:     0x26 - m!inner\n    1:  0x2b - m!outer\n\n"
            "Caused by:\n    wasm trap: out of bounds\n",
            "out of bounds at 0:     0x26 - m!inner",
        ),
    ],
)
def test_first_line(text, line):
    assert first_line(text) == line


def test_arity(new_store, load):
    one = new_store()
    instance = one.instantiate(load(FUNCTIONS), [])
    found = {}
    for name in ("add", "nothing", "grow", "two", "i64", "f32"):
        item = one.export(instance, name)
        found[name] = capi.arity(one.context, capi.ffi.new("func_t *", item.of.func))
    assert found == {"add": (2, 1), "nothing": (0, 0), "grow": (1, 1), "two": (0, 2), "i64": None, "f32": None}
