"""What metering costs a filter that computes: the same function of the same filter with fuel and epochs on and off.

Without a host around it, so that nothing else is in the figure. Penstock runs with both on (proxy/wasm/engine.py).
"""

from __future__ import annotations

import time
from typing import Any

import wasmtime

from benchmarks.scenarios import FILTERS

WORK = {"sha256": 65536, "json": 62891}
"""Filters that export `work`, and its argument: bytes."""
MODES = {"neither": (False, False), "fuel": (True, False), "epochs": (False, True), "both": (True, True)}
ROUNDS = 9


def measure(rounds: int = ROUNDS) -> dict[str, dict[str, Any]]:
    """By filter and mode: the least microseconds of a call, and that over the least with neither."""
    found: dict[str, dict[str, Any]] = {}
    for name, size in WORK.items():
        functions = {mode: prepared(name, *switches) for mode, switches in MODES.items()}
        least = dict.fromkeys(MODES, float("inf"))
        for _ in range(rounds):
            for mode, (store, function) in functions.items():
                if MODES[mode][0]:
                    store.set_fuel(1 << 60)
                started = time.perf_counter()
                function(store, size)
                least[mode] = min(least[mode], (time.perf_counter() - started) * 1e6)
        found[name] = {mode: {"us": took, "ratio": took / least["neither"]} for mode, took in least.items()}
    return found


def prepared(name: str, fuel: bool, epochs: bool) -> tuple[wasmtime.Store, Any]:
    """A store, and the function in it after one call."""
    config = wasmtime.Config()
    config.consume_fuel = fuel
    config.epoch_interruption = epochs
    engine = wasmtime.Engine(config)
    store = wasmtime.Store(engine)
    if fuel:
        store.set_fuel(1 << 60)
    if epochs:
        store.set_epoch_deadline(1 << 60)
    module = wasmtime.Module.from_file(engine, str(FILTERS / f"{name}.wasm"))
    nothing = [wasmtime.Func(store, one.type, unused) for one in module.imports if isinstance(one.type, wasmtime.FuncType)]
    function = wasmtime.Instance(store, module, nothing).exports(store)["work"]
    assert isinstance(function, wasmtime.Func)
    function(store, WORK[name])
    return store, function


def unused(*arguments: object) -> int:
    raise AssertionError("the work calls no host function")
