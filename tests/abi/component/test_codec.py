"""The codec: what goes in comes out, within its caps, and a wasmtime that it does not fit is refused."""

import resource
from typing import Any

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime.component import Component

from proxy.abi.component import codec as codecs
from proxy.abi.component import probe
from proxy.abi.component.instance import Instance, Linked
from proxy.abi.component.types import Function, List, Plain, Record
from proxy.abi.component.wrap import wrap
from proxy.abi.memory import memory_type
from proxy.wasm import capi
from proxy.wasm.engine import Engine
from proxy.wasm.fault import GuestFault


@pytest.fixture(scope="module")
def engine() -> Any:
    engine = Engine(memory_type())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def relay(engine: Engine) -> Any:
    """The probe's guest: `relay(name, values)`, where `answer` may replace what the host gives back."""
    answers: list[Any] = []

    def echo(values: Any) -> Any:
        return answers.pop() if answers else values

    component = Component(engine.wasmtime, probe.probe())
    linked = Linked(
        engine, component, probe.IMPORTS, probe.GUEST, probe.EXPORTS[probe.GUEST], {(probe.HOST, "echo"): echo}, 1 << 16
    )
    instances: list[Instance] = []

    def call(name: str, values: Any) -> Any:
        instance = Instance(linked, memory_limit=64 << 20, memories=1, deadline=5.0, fuel=1 << 40)
        instances.append(instance)
        try:
            return instance.call(name, (values,), 1 << 40)
        finally:
            instance.close()

    yield call
    linked.close()


STRINGS = st.text(max_size=20).map(str.encode)
BYTES = st.binary(max_size=20)
# As bytes are read back: what has characters above U+00FF stands for its UTF-8.
HEADERS = st.lists(st.tuples(st.text("abc:-", max_size=8).map(str.encode), BYTES), max_size=6)
U32 = st.integers(0, 2**32 - 1)
VALUES = st.tuples(
    st.integers(0, 1), st.integers(0, 2**16 - 1), U32, st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1),
    STRINGS, BYTES, HEADERS, st.lists(U32, max_size=5), st.tuples(U32, STRINGS),
    st.none() | STRINGS, st.none() | STRINGS,
    st.tuples(st.just(True), U32) | st.tuples(st.just(False), STRINGS),
    st.just((True, None)) | st.tuples(st.just(False), STRINGS),
    st.just((0, None)) | st.tuples(st.just(1), STRINGS),
    st.tuples(st.just(0), U32) | st.tuples(st.just(1), HEADERS),
    st.integers(0, 1), st.integers(0, 7),
)  # fmt: skip


@given(st.lists(VALUES, max_size=3), st.sampled_from(["echo", "relay"]))
@settings(max_examples=80, deadline=None)
def test_every_value_comes_back(relay: Any, values: list[Any], name: str) -> None:
    assert relay(name, values) == values


def test_the_self_test_takes_this_wasmtime(engine: Engine) -> None:
    code = bytes(Component(engine.wasmtime, probe.probe()).serialize())
    probe.self_test(engine, code)


def test_the_self_test_refuses_a_codec_that_errs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    code = bytes(Component(engine.wasmtime, probe.probe()).serialize())
    monkeypatch.setitem(codecs.MASKS, "u16", 0xFF)
    with pytest.raises(RuntimeError, match=r"wasmtime .* does not fit this Penstock"):
        probe.self_test(engine, code)


def test_a_wasmtime_that_copies_without_bound_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    code = bytes(Component(engine.wasmtime, probe.probe()).serialize())
    monkeypatch.setattr(engine, "copied_offset", None)
    with pytest.raises(RuntimeError, match=r"the limit of what a component's call copies differ"):
        probe.self_test(engine, code)


def test_other_structures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(capi.COMPONENT_KINDS, "variant", 17)
    with pytest.raises(RuntimeError, match=r"wasmtime_component_valkind_t differ"):
        capi.verify_components()
    monkeypatch.undo()
    monkeypatch.setattr(capi, "VAL_SIZE", 40)
    with pytest.raises(RuntimeError, match=r"wasmtime_component_val differ"):
        capi.verify_components()


def test_nothing_leaks(relay: Any) -> None:
    relay("relay", [probe.VALUE] * 100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        relay("relay", [probe.VALUE] * 100)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB; a leak would be 100 MB


LIAR = """(module
  (memory (export "memory") 200)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "test:liar/guest#give") (result i32)
    (i32.store (i32.const 16) (i32.const 1024))
    (i32.store (i32.const 20) (i32.const {size}))
    (i32.const 16)))"""


def give(engine: Engine, type_: Any, size: int) -> Any:
    """A guest's list or string of `size` elements, lifted."""
    exports = {"test:liar/guest": {"give": Function((), type_)}}
    component = Component(engine.wasmtime, wrap(bytes(wasmtime.wat2wasm(LIAR.format(size=size))), {}, exports))
    linked = Linked(engine, component, {}, "test:liar/guest", exports["test:liar/guest"], {}, 1000)
    instance = Instance(linked, memory_limit=64 << 20, memories=1, deadline=5.0, fuel=1 << 40)
    try:
        return instance.call("give", (), 1 << 40)
    finally:
        instance.close()
        linked.close()


def test_a_list_over_the_cap_is_refused_before_it_is_read(engine: Engine) -> None:
    assert len(give(engine, List(Plain("u32")), codecs.MOST_ITEMS)) == codecs.MOST_ITEMS
    for size in (codecs.MOST_ITEMS + 1, 1_000_000):
        with pytest.raises(GuestFault, match=r"more than the 4096|of more bytes than there may be") as caught:
            give(engine, List(Plain("u32")), size)
        assert caught.value.reason == "result"


def test_a_string_over_the_cap_is_refused(engine: Engine) -> None:
    assert give(engine, Plain("string"), 1000) == bytes(1000)
    with pytest.raises(GuestFault, match="a string of 1001 bytes, more than the 1000"):
        give(engine, Plain("string"), 1001)


def test_a_list_that_lies_outside_of_the_memory_traps(engine: Engine) -> None:
    with pytest.raises(GuestFault) as caught:
        give(engine, List(Plain("u32")), 200 * 65536)
    assert caught.value.reason == "trap"


def test_a_string_that_is_not_utf_8_is_never_given_to_wasmtime() -> None:
    """It would end the process."""
    codec = codecs.Codec(codecs.Arena(1 << 16), 1000)
    lower = codec.lower(Record((("text", Plain("string")),)))
    with pytest.raises(UnicodeDecodeError):
        lower((b"\xff",), codec.arena.take(32))


class Broken:
    """A host function that does not come back as it should."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, values: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_ends_the_process_passes_by_the_guest(engine: Engine, error: BaseException) -> None:
    """Through Wasm's frames it would crash."""
    with pytest.raises(type(error)):
        relayed(engine, Broken(error))


@pytest.mark.parametrize("error", [ValueError("text"), RecursionError(), MemoryError()])
def test_an_error_of_the_host_is_a_trap_of_the_guest(engine: Engine, error: BaseException) -> None:
    with pytest.raises(GuestFault, match="echo failed"):
        relayed(engine, Broken(error))


def relayed(engine: Engine, echo: Any) -> Any:
    component = Component(engine.wasmtime, probe.probe())
    linked = Linked(engine, component, probe.IMPORTS, probe.GUEST, probe.EXPORTS[probe.GUEST], {(probe.HOST, "echo"): echo}, 1)
    instance = Instance(linked, memory_limit=4 << 20, memories=1, deadline=5.0, fuel=1 << 40)
    try:
        return instance.call("relay", ([],), 1 << 40)
    finally:
        instance.close()
        linked.close()


def test_a_head_of_hundreds_of_fields(relay: Any) -> None:
    value = list(probe.VALUE)
    value[7] = [(b"name-%d" % i, b"value %d" % i + b"\xe9") for i in range(1000)]
    assert relay("relay", [tuple(value)]) == [tuple(value)]
