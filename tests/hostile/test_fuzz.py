"""Host functions with arguments made by hypothesis, a little of what `python -m tests.hostile.fuzz` does for as long as one likes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from proxy.abi.proxy_wasm.host import CLEAR_ROUTE, GET_PROPERTY
from tests.hostile.fuzz import fuzz
from tests.hostile.interpreter import CALLBACKS, FUNCTIONS, NAMES, RAW, Bench, Call, Script

EXAMPLES = int(os.environ.get("PENSTOCK_FUZZ_EXAMPLES", "300"))
PROPERTY = Script([Call("proxy_get_property", (RAW, 11, 64, 72))], raw=b"plugin_name")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as running:
        yield running


def test_made_up_arguments(bench: Bench) -> None:
    seen: Counter[str] = Counter()
    fuzz(bench, EXAMPLES, 1, seen)
    assert sum(seen[name] for name in NAMES) > EXAMPLES


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("name", [name for name, (_, signature) in FUNCTIONS.items() if signature.params])
def test_each_function_with_edges(bench: Bench, name: str, callback: str) -> None:
    """Each argument in turn at an edge, from every callback."""
    width = len(FUNCTIONS[name][1].params)
    edges = (0xFFFF_FFFF, 0x8000_0000, 0x3FFFF, 0x40000)
    calls = [Call(name, tuple(edge if i == at else RAW for i in range(width))) for at in range(width) for edge in edges]
    for first in range(0, len(calls), 24):
        bench.run(Script(calls[first : first + 24], callback))


def test_the_interpreter_calls_what_the_script_says(bench: Bench) -> None:
    assert bench.run(PROPERTY) == [0]
    assert bench.run(PROPERTY._replace(raw=b"plugin_nom_")) == [1]
    assert bench.run(PROPERTY._replace(allocator="null")) == [6]


def test_an_exception_in_python_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    host = bench.worker.slots[0].vm.store.host
    monkeypatch.setitem(host.operations, GET_PROPERTY, lambda: 1 // 0)
    with pytest.raises(AssertionError, match="Python failed"):
        bench.run(PROPERTY)


def test_a_leak_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    host = bench.worker.slots[0].vm.store.host
    monkeypatch.setitem(host.operations, GET_PROPERTY, lambda: host.answer(bench.canary))
    with pytest.raises(AssertionError, match="what is not its own"):
        bench.run(PROPERTY)


def test_a_status_of_no_abi_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    host = bench.worker.slots[0].vm.store.host
    monkeypatch.setitem(host.operations, CLEAR_ROUTE, lambda: 77)
    with pytest.raises(AssertionError, match="answered 77"):
        bench.run(Script([Call("proxy_clear_route_cache", ())]))


def test_a_vm_that_its_own_allocator_ends_is_followed_by_a_sound_one(bench: Bench) -> None:
    before = bench.faults
    assert bench.run(PROPERTY._replace(allocator="trap")) == []
    assert bench.faults == before + 1


def test_a_write_elsewhere_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    host = bench.worker.slots[0].vm.store.host

    def write() -> int:
        bench.worker.guest_memory(1)[100:101] = b"!" if bench.canary[100 % 24] != 33 else b"?"
        return 0

    monkeypatch.setitem(host.operations, GET_PROPERTY, write)
    with pytest.raises(AssertionError, match="another filter's memory"):
        bench.run(PROPERTY)
    bench.worker.guest_memory(1)[: len(bench.victim)] = bench.victim
