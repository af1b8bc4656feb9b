import os
import time

import pytest
import wasmtime

from proxy.wasm import compile as compile_module_under_test
from proxy.wasm.compile import CompileError, Request, compile_all, compile_module, environment, shorten
from proxy.wasm.settings import engine_config
from tests.wasm import binary as b

MIB = 1 << 20
# 0.7 to 7 MB each; without limits 6 to 47 s of CPU, and the functions 1.2 GB of memory.
BLOCKS = b.functions([b.body(b"\x02\x40\x20\0\x21\0\x0b" * 100_000, [(1, "i32")])])
FUNCTIONS = b.functions([b.body()] * 200_000)
LARGE_BODY = b.functions([b.body(b"\x20\0\x41\x01\x6a\x21\0" * 1_000_000, [(1, "i32")])])


def answer(number: int) -> bytes:
    """A module that exports `f`, which returns the number."""
    return b.module(
        types=[b.function_type((), ("i32",))],
        functions=[b"\0"],
        exports=[b.exported("f", 0, 0)],
        code=[b.body(b"\x41" + bytes([number]))],
    )


def run(code: bytes) -> int:
    engine = wasmtime.Engine(engine_config())
    store = wasmtime.Store(engine)
    store.set_fuel(1000)
    store.set_epoch_deadline(1)
    instance = wasmtime.Instance(store, wasmtime.Module.deserialize(engine, code), [])
    return instance.exports(store)["f"](store)


def test_code_runs_in_the_serving_engine():
    assert run(compile_module(Request(answer(7)))) == 7


def test_code_of_many_threads_fits_as_well(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert run(compile_module(Request(answer(9)))) == 9


@pytest.mark.parametrize(
    ("request_", "reason", "mend"),
    [
        (Request(BLOCKS, 0.5), "limits.compile_time 500ms", "write limits: {compile_time: 2s}"),
        (Request(FUNCTIONS, 0.5), "limits.compile_time 500ms", "write limits: {compile_time: 2s}"),
        (Request(LARGE_BODY, 0.5), "limits.compile_time 500ms", "write limits: {compile_time: 2s}"),
        (Request(FUNCTIONS, 60, 256 * MIB), "limits.compile_memory 256MiB", "write limits: {compile_memory: 512MiB}"),
        (Request(LARGE_BODY, 60, 512 * MIB), "limits.compile_memory 512MiB", "write limits: {compile_memory: 1GiB}"),
        (Request(answer(1), 60, 8 * MIB), "limits.compile_memory 8MiB", "write limits: {compile_memory: 16MiB}"),
    ],
    ids=["blocks, time", "functions, time", "body, time", "functions, memory", "body, memory", "no room at all"],
)
def test_bombs_meet_their_limit(request_, reason, mend):
    started = time.monotonic()
    with pytest.raises(CompileError) as error:
        compile_module(request_)
    assert reason in error.value.reason
    assert mend in error.value.mend
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("wasm", "reason"),
    [
        (b"", "neither a core module nor a component in the binary format"),
        (b"(module)", "neither a core module nor a component in the binary format"),
        (b"(component)", "neither a core module nor a component in the binary format"),
        (b.COMPONENT + b"\x01\x05", "out of bounds"),
        (b.HEADER + b"\x01\x05", "unexpected end"),
        (b.functions([b.body(b"\x20\0")]), "unknown local 0"),
        (b.module(memories=[b"\x04\x01"]), "memory64 must be enabled"),
        (b.functions([b.body(b"\x02\x40" * 50_000 + b"\x0b" * 50_000)]), None),
    ],
    ids=["empty", "text", "component text", "component", "truncated", "invalid code", "proposal", "deep nesting"],
)
def test_invalid_modules_are_explained(wasm, reason):
    outcome = compile_all([Request(wasm, 5)])[0]
    if reason is None:  # deep nesting is legal; what counts is that it comes back
        assert isinstance(outcome, bytes | CompileError)
        return
    assert isinstance(outcome, CompileError)
    assert outcome.reason.startswith("not a valid module: ")
    assert reason in str(outcome)
    assert "\n" not in str(outcome)


def test_several_keep_their_order_and_share_nothing():
    requests = [Request(answer(1)), Request(b"junk"), Request(answer(3)), Request(BLOCKS, 0.2), Request(answer(5))]
    outcomes = compile_all(requests)
    assert [run(one) if isinstance(one, bytes) else type(one) for one in outcomes] == [
        1, CompileError, 3, CompileError, 5,
    ]  # fmt: skip


def test_no_request_is_no_work():
    assert compile_all([]) == []


def test_a_child_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(compile_module_under_test, "WALL_GRACE", 0.2)
    monkeypatch.setattr(compile_module_under_test, "WALL_FACTOR", 0)
    with pytest.raises(CompileError, match=r"limits\.compile_time"):
        compile_module(Request(BLOCKS, 60))


def test_an_interruption_leaves_no_child(monkeypatch):
    children = []

    class Interrupted(compile_module_under_test.Compiling):
        def __init__(self, request: Request, threads: int) -> None:
            super().__init__(request, threads)
            children.append(self.process)

        def read(self) -> bool:
            raise KeyboardInterrupt

    monkeypatch.setattr(compile_module_under_test, "Compiling", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_all([Request(BLOCKS, 0.3)] * 3)
    assert children
    assert all(child.returncode is not None for child in children)


def test_the_child_gets_no_secrets(monkeypatch):
    monkeypatch.setenv("ADA_HASH", "secret")
    assert set(environment(1)) == {"RAYON_NUM_THREADS", "MALLOC_ARENA_MAX"}


@pytest.mark.parametrize(
    ("message", "short"),
    [
        ("failed to parse\n\nCaused by:\n    unexpected end (at offset 0xa)\n", "unexpected end (at offset 0xa)"),
        ("a\n\nCaused by:\n    0: outer\n    1: inner: detail\n", "inner: detail"),
        ("plain", "plain"),
        ("", "no reason is given"),
        ("bad\x1b[31m", "bad?[31m"),
        ("x" * 1000, "x" * 300),
    ],
)  # fmt: skip
def test_shorten(message, short):
    assert shorten(message) == short
