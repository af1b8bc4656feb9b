"""The engine's settings: one table for the child that compiles and the workers that run, so that code fits both.

Proposals are on where Envoy 1.40 (V8) takes them and the budgets hold for them, else off: everything that is off is
code of the engine that a filter can't reach.
"""

import functools
import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path

from wasmtime import Config

from proxy.wasm import capi

STACK = 512 << 10  # bytes of stack that guest code may use

SETTINGS: dict[str, bool | int | str] = {
    # Budgets.
    "consume_fuel": True,
    "epoch_interruption": True,
    "max_wasm_stack": STACK,
    # For the ABI core: its bridge sees two memories, its stream memory is shared by stores. Filters may not declare
    # either (an atomic wait on a shared memory blocks past fuel and epoch): `check_limits` refuses them.
    "wasm_multi_memory": True,
    "wasm_threads": True,
    "shared_memory": True,
    # What today's toolchains emit.
    "wasm_bulk_memory": True,
    "wasm_multi_value": True,
    "wasm_reference_types": True,
    "wasm_simd": True,
    "wasm_tail_call": True,
    # Relaxed SIMD with one result on every CPU.
    "wasm_relaxed_simd": True,
    "wasm_relaxed_simd_deterministic": True,
    # Off though Envoy takes them: no proxy-wasm SDK needs them, and the engine's recent defects are here.
    "wasm_exceptions": False,
    "wasm_function_references": False,
    "wasm_gc": False,
    "gc_support": False,
    "wasm_memory64": False,
    # Filters of the typed kind; of its async part, see engine_config.
    "wasm_component_model": True,
    # Off in Envoy too.
    "wasm_custom_page_sizes": False,
    "wasm_stack_switching": False,
    "wasm_wide_arithmetic": False,
    # Code.
    "strategy": "cranelift",
    "cranelift_opt_level": "speed",
    "cranelift_debug_verifier": False,
    "debug_info": False,
}


def engine_config(parallel: bool = False) -> Config:
    """A new config with SETTINGS. `parallel` compiles on several threads: only for the child that compiles, since the
    threads don't survive a fork. It leaves no trace in the code."""
    config = Config()
    for name, value in SETTINGS.items():
        setattr(config, name, value)
    capi.limit_component_async(config)
    config.parallel_compilation = parallel
    return config


@functools.cache
def fingerprint() -> str:
    """Equal for two processes exactly when code compiled by one fits the other: engine version, settings, CPU."""
    facts = {
        "wasmtime": importlib.metadata.version("wasmtime"),
        "settings": {**SETTINGS, "wasm_component_model_async": True},
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": cpu_features(Path("/proc/cpuinfo")),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def cpu_features(cpuinfo: Path) -> list[str]:
    """The feature flags that Linux names for the first CPU, sorted; where there is no such file, the CPU's name."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [platform.processor()]
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return sorted(value.split())
    return [platform.processor()]
