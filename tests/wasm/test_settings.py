import threading

import pytest
import wasmtime

from proxy.wasm import settings
from proxy.wasm.settings import cpu_features, engine_config, fingerprint

ON = {
    "two memories": "(memory 1) (memory 1)",
    "shared memory": "(memory 1 2 shared)",
    "bulk memory": "(memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
    "several results": "(func (result i32 i32) i32.const 0 i32.const 0)",
    "reference types": "(table 1 funcref) (func (drop (table.get (i32.const 0))))",
    "simd": "(func (drop (v128.const i64x2 0 0)))",
    "relaxed simd": "(func (drop (i32x4.relaxed_trunc_f32x4_s (v128.const i64x2 0 0))))",
    "tail calls": "(func return_call 0)",
    "extended constants": "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
}
OFF = {
    "exceptions": "(tag) (func (throw 0))",
    "gc": "(type (struct))",
    "garbage collected references": "(func (param externref))",
    "typed function references": "(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))",
    "memory64": "(memory i64 1)",
    "custom page sizes": "(memory 1 (pagesize 1))",
    "wide arithmetic": "(func (result i64 i64) (i64.mul_wide_u (i64.const 1) (i64.const 1)))",
}


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    return wasmtime.Engine(engine_config())


@pytest.mark.parametrize("text", ON.values(), ids=ON)
def test_takes(engine, text):
    wasmtime.Module(engine, f"(module {text})")


@pytest.mark.parametrize("text", OFF.values(), ids=OFF)
def test_refuses(engine, text):
    binary = wasmtime.wat2wasm(f"(module {text})")
    with pytest.raises(wasmtime.WasmtimeError):
        wasmtime.Module(engine, binary)


def test_every_setting_is_one_that_the_engine_has():
    assert [name for name in settings.SETTINGS if not hasattr(wasmtime.Config, name)] == []


@pytest.mark.parametrize(
    "text",
    [
        "(module (func (export {run}) (loop (br 0))))",
        "(module (func $f (export {run}) (return_call $f)))",
    ],
    ids=["loop", "tail call"],
)
@pytest.mark.parametrize("budget", ["fuel", "epoch"])
def test_budgets_stop_an_endless_guest(engine, text, budget):
    store = wasmtime.Store(engine)
    store.set_fuel(1_000_000 if budget == "fuel" else 1 << 60)
    store.set_epoch_deadline(1)
    instance = wasmtime.Instance(store, wasmtime.Module(engine, text.format(run='"run"')), [])
    run = instance.exports(store)["run"]
    ticker = threading.Timer(0.02, engine.increment_epoch)
    if budget == "epoch":
        ticker.start()
    with pytest.raises(wasmtime.Trap, match="fuel" if budget == "fuel" else "interrupt"):
        run(store)
    if budget == "epoch":
        ticker.join()


def test_guest_stack_is_bounded(engine):
    store = wasmtime.Store(engine)
    store.set_fuel(1 << 60)
    store.set_epoch_deadline(1 << 30)
    instance = wasmtime.Instance(store, wasmtime.Module(engine, '(module (func (export "f") (call 0) (nop)))'), [])
    with pytest.raises(wasmtime.Trap, match="stack"):
        instance.exports(store)["f"](store)


def test_fingerprint_follows_settings_and_engine(monkeypatch):
    seen = {fingerprint()}
    for change in (
        lambda: monkeypatch.setitem(settings.SETTINGS, "wasm_tail_call", False),
        lambda: monkeypatch.setattr(settings.importlib.metadata, "version", lambda name: "0"),
        lambda: monkeypatch.setattr(settings, "cpu_features", lambda path: ["abacus"]),
    ):
        change()
        fingerprint.cache_clear()
        seen.add(fingerprint())
    fingerprint.cache_clear()
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: sse2 avx fpu\n\nflags : other\n", ["avx", "fpu", "sse2"]),
        ("processor: 0\nFeatures : asimd aes\n", ["aes", "asimd"]),
    ],
)
def test_cpu_features(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_features(tmp_path / "cpuinfo") == expected


def test_cpu_features_without_the_file(tmp_path):
    assert len(cpu_features(tmp_path / "none")) == 1
