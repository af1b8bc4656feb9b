import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.abi.proxy_wasm.inspect import check_limits, enough, inspect, inspect_bytes, show_size, shown
from proxy.config.units import parse_size
from proxy.wasm.module import ModuleError
from tests.wasm import binary as b

PROBE = Path(__file__).parent.parent.parent / "conformance" / "probe" / "probe.wasm"
I3 = ("i32", "i32", "i32")
MIB = 1 << 20


@dataclass
class Limits:
    module: int = 32 * MIB
    functions: int = 100_000
    function_body: int = 2 * MIB


def test_a_real_filter():
    found = inspect(PROBE)
    data = PROBE.read_bytes()
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (found.kind, found.abi_version, found.start_export) == ("module", "0.2.1", "_initialize")
    assert found.allocator == "proxy_on_memory_allocate"
    assert found.memory_export == "memory"
    assert "proxy_on_request_headers" in [one.name for one in found.callbacks]
    assert {one.name for one in found.imports["host"]} >= {"env.proxy_log", "env.proxy_http_call"}
    assert check_limits(found, Limits(), 16 * MIB) == []


def test_json_round_trip():
    found = inspect(PROBE).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["imports"]["host"][0]["name"] == "env.proxy_log"


@pytest.mark.parametrize(
    ("markers", "version"),
    [
        (["proxy_abi_version_0_1_0"], "0.1.0"),
        (["proxy_abi_version_0_2_0"], "0.2.0"),
        (["proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"], "0.2.0"),
        (["proxy_abi_version_0_2_1", "proxy_abi_version_0_1_0"], "0.2.1"),
        (["proxy_abi_version_0_3_0"], None),
        ([], None),
    ],
)
def test_the_first_known_marker_decides(markers, version):
    assert inspect_bytes(b.filter_module(exports=[(one, (), ()) for one in markers], marker=None)).abi_version == version


def test_a_marker_must_be_a_function():
    data = b.module(memories=[b"\0\1"], exports=[b.exported("proxy_abi_version_0_2_1", 2, 0)])
    assert inspect_bytes(data).abi_version is None


@pytest.mark.parametrize(
    ("name", "params", "results", "version", "why"),
    [
        ("proxy_on_request_headers", I3, ("i32",), "0_2_1", ""),
        ("proxy_on_request_headers", I3[:2], ("i32",), "0_1_0", ""),
        ("proxy_on_request_headers", I3[:2], ("i32",), "0_2_0", "the ABI's is (i32, i32, i32) -> (i32)"),
        ("proxy_on_request_headers", I3, ("i32",), "0_1_0", "the ABI's is (i32, i32) -> (i32)"),
        ("proxy_on_log", ("i64",), (), "0_2_1", "has type (i64) -> ()"),
        ("proxy_on_foreign_function", I3, (), "0_2_1", ""),
        ("proxy_on_foreign_function", I3, (), "0_1_0", "does not exist in ABI 0.1.0"),
        (
            "proxy_on_request_heders",
            I3,
            ("i32",),
            "0_2_1",
            "is not a callback of the ABI; did you mean proxy_on_request_headers?",
        ),
        ("proxy_on_lunch", I3, ("i32",), "0_2_1", "is not a callback of the ABI"),
        ("proxy_on_new_connection", ("i32",), ("i32",), "0_2_1", "is for TCP filters"),
        ("proxy_on_request_metadata", ("i32", "i32"), ("i32",), "0_2_1", "HTTP/2 METADATA"),
        ("envoy_on_stats_update", ("i32", "i32"), (), "0_2_1", "is Envoy's own"),
    ],
)
def test_callbacks_that_can_be_called_and_those_that_cannot(name, params, results, version, why):
    found = inspect_bytes(b.filter_module(exports=[(name, params, results)], marker=f"proxy_abi_version_{version}"))
    every = {one.name: one.why for one in (*found.callbacks, *found.unreachable)}
    assert set(every) == {name}
    assert why in every[name]
    assert bool(found.unreachable) == bool(why)


def test_the_allocator_is_no_callback():
    found = inspect_bytes(b.filter_module(allocator="proxy_on_memory_allocate"))
    assert (found.callbacks, found.unreachable) == ((), ())


def test_a_callback_that_is_no_function():
    data = b.module(memories=[b"\0\1"], exports=[b.exported("proxy_on_log", 2, 0)])
    assert [one.why for one in inspect_bytes(data).unreachable] == ["is a memory, not a function"]


def test_imports_are_grouped():
    found = inspect_bytes(
        b.filter_module(
            [
                ("env", "proxy_log", I3, ("i32",)),
                ("env", "proxy_log", I3, ("i32",)),
                ("wasi_unstable", "proc_exit", ("i32",), ()),
                ("env", "emscripten_notify_memory_growth", ("i32",), ()),
                ("env", "abort", ("i32",) * 4, ()),
                ("env", "proxy_get_configuration", ("i32", "i32"), ("i32",)),
            ]
        )
    )
    assert {group: [one.name for one in functions] for group, functions in found.imports.items()} == {
        "host": ["env.proxy_log", "env.proxy_get_configuration"],
        "wasi": ["wasi_unstable.proc_exit"],
        "environment": ["env.emscripten_notify_memory_growth"],
        "unknown": ["env.abort"],
    }
    assert found.imports_outside_version == ("proxy_get_configuration",)


@pytest.mark.parametrize(
    ("name", "count", "grant"),
    [
        ("proxy_http_call", 10, "capabilities.allowed_hosts"),
        ("proxy_grpc_call", 12, "capabilities.allowed_hosts"),
        ("proxy_set_shared_data", 5, "limits.shared_data"),
        ("proxy_enqueue_shared_queue", 3, "limits.queued_items"),
        ("proxy_set_tick_period_milliseconds", 1, "limits.tick"),
    ],
)
def test_grants(name, count, grant):
    found = inspect_bytes(b.filter_module([("env", name, ("i32",) * count, ("i32",))]))
    assert grant in [one.grant for one in found.grants]
    assert all(name in one.because for one in found.grants)


def test_a_large_memory_needs_a_grant():
    assert [one.grant for one in inspect_bytes(b.filter_module(pages=257)).grants] == ["memory: 17MiB"]
    assert inspect_bytes(b.filter_module(pages=256)).grants == ()


OK = b.filter_module()


@pytest.mark.parametrize(
    ("data", "limits", "problem"),
    [
        (OK, Limits(module=64), "more than limits.module 64B; write limits: {module: 1KiB}"),
        (OK, Limits(functions=1), "2 functions, more than limits.functions 1; write limits: {functions: 2}"),
        (OK, Limits(function_body=2), "more than limits.function_body 2B; write limits: {function_body: 1KiB}"),
        (b.filter_module(pages=17), Limits(), "1.1 MiB of memory, more than memory 1MiB; write memory: 2MiB"),
        (b.COMPONENT, Limits(), "the component exports no filter; export penstock:filter/http-filter@0.1.0"),
        (b.filter_module(marker=None), Limits(), "no proxy-wasm ABI version"),
        (b.filter_module(allocator=None), Limits(), "no allocator is exported"),
        (b.filter_module(memory=None), Limits(), "no memory is exported"),
        (OK.replace(b"\x05\x03\x01\0\x01", b"\x05\x04\x01\x03\x01\x01"), Limits(), "a shared memory"),
        (OK.replace(b"\x05\x03\x01\0\x01", b"\x05\x05\x02\0\x01\0\x01"), Limits(), "2 memories are declared"),
        (OK.replace(b"\x05\x03\x01\0\x01", b"\x05\x03\x01\x04\x01"), Limits(), "a 64-bit memory"),
        (b.filter_module([("env", "abort", (), ())]), Limits(), "no proxy-wasm host offers: env.abort"),
        (b.filter_module([("env", "proxy_log", (), ())]), Limits(), "env.proxy_log has type () -> ()"),
        (b.filter_module(exports=[("proxy_on_log", (), ())]), Limits(), "export proxy_on_log has type () -> ()"),
        (b.filter_module(exports=[("_start", ("i32",), ())]), Limits(), "export _start has type (i32) -> ()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_refusals(data, limits, problem):
    problems = check_limits(inspect_bytes(data), limits, MIB)
    assert len(problems) == 1
    assert problem in problems[0]
    assert "; " in problems[0]


@pytest.mark.parametrize(
    ("kind", "description", "name"),
    [(1, b"\x70\0\x01", "table"), (2, b"\0\x01", "memory"), (3, b"\x7f\0", "global"), (2, b"\x03\x01\x01", "memory")],
    ids=["table", "memory", "global", "shared memory"],
)
def test_only_functions_can_be_imported(kind, description, name):
    data = b.module(types=[b.NOTHING], imports=[b.imported("env", "x", kind, description)])
    problems = check_limits(inspect_bytes(data), Limits())
    assert any(f"not {name} env.x" in problem for problem in problems)
    assert any("shared memory" in problem for problem in problems) == (description == b"\x03\x01\x01")


def test_all_problems_come_at_once():
    data = b.filter_module([("env", f"unknown_{number}", (), ()) for number in range(30)], marker=None, allocator=None)
    problems = check_limits(inspect_bytes(data), Limits(module=1))
    assert len(problems) == 4
    assert problems[-1].endswith("env.unknown_19 and 10 more; build the filter without them")


@pytest.mark.parametrize("params", [6, 7], ids=["Envoy", "WASI"])
def test_path_link_may_come_either_way(params):
    data = b.filter_module([("wasi_snapshot_preview1", "path_link", ("i32",) * params, ("i32",))])
    assert check_limits(inspect_bytes(data), Limits()) == []


def test_hostile_names_are_harmless_to_print():
    data = b.filter_module([("env", "\x1b[2J\n" + "x" * 1000, (), ())])
    found = inspect_bytes(data)
    text = found.imports["unknown"][0].name + "".join(check_limits(found, Limits()))
    assert text.isprintable()
    assert len(text) < 500


def test_a_component_is_described_by_its_own(tmp_path):
    path = tmp_path / "component.wasm"
    path.write_bytes(b.COMPONENT)
    found = inspect(path)
    assert (found.kind, found.size, found.imports, found.component.modules) == ("component", 8, {}, 0)
    assert json.dumps(found.to_dict())
    path.write_bytes(b.COMPONENT + b"junk")
    with pytest.raises(ModuleError):
        inspect(path)


def test_what_is_no_module(tmp_path):
    path = tmp_path / "no.wasm"
    path.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(ModuleError, match="not a WebAssembly file"):
        inspect(path)
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "none.wasm")


@given(st.data())
def test_mutations_are_inspected_or_refused(draw):
    data = bytearray(draw.draw(st.sampled_from([OK, PROBE.read_bytes()])))
    for _ in range(3):
        data[draw.draw(st.integers(8, min(len(data), 1200) - 1))] = draw.draw(st.integers(0, 255))
    try:
        found = inspect_bytes(bytes(data))
    except ModuleError:
        return
    assert all(problem.isprintable() for problem in check_limits(found, Limits(), MIB))
    json.dumps(found.to_dict())


@given(st.integers(1, 1 << 34))
def test_a_suggested_size_is_enough_and_can_be_written(size):
    assert size <= parse_size(enough(size)) < size + MIB


@given(st.integers(1, 1 << 34))
def test_a_shown_size_never_looks_smaller(size):
    number, unit = show_size(size).split()
    worth = {"MiB": MIB, "KiB": 1024, "bytes": 1}[unit]
    assert math.ceil(float(number) * worth) >= size


@pytest.mark.parametrize(("text", "expected"), [("plain", "plain"), ("a\tb", "a\\tb"), ("x" * 200, "x" * 120 + "...")])
def test_shown(text, expected):
    assert shown(text) == expected
