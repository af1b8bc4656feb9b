"""How a VM starts, its configuration, WASI, the clock, and what ABI versions differ in."""

import itertools
import struct
import time

import pytest

from proxy.abi.proxy_wasm import load
from proxy.abi.proxy_wasm.load import LoadError
from proxy.abi.recovery import StartError
from tests.abi.guest import HEAP, MEMORY, OUT, Script

HEADERS = "proxy_on_request_headers"
VERSIONS = ("0.1.0", "0.2.0", "0.2.1")


def said(name):
    return [("proxy_log", 2, name.encode())]


# ---- Order ----


@pytest.mark.parametrize(
    ("exports", "order"),
    [
        (["_initialize", "_start", "main"], ["_initialize", "main"]),
        (["_initialize", "__main_void"], ["_initialize", "__main_void"]),
        (["_initialize", "main", "__main_void"], ["_initialize", "main"]),
        (["_start", "main"], ["_start"]),
        (["main"], []),
        ([], []),
    ],
)
def test_order(start_filters, lines, exports, order):
    roots = ["proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure"]
    start_filters(Script({name: said(name) for name in [*exports, *roots]}))
    assert [message for _, message in lines.said()] == order + roots


def test_each_root_is_started_in_turn(start_filters, lines):
    """vm_start runs once for each root of a VM (digest, section 1)."""
    script = Script({name: said(name) for name in ("_start", "proxy_on_vm_start", "proxy_on_configure")})
    worker = start_filters((script, {"vm_id": "one"}), (script, {"vm_id": "one", "root_id": "other"}))
    roots = ["proxy_on_vm_start", "proxy_on_configure"]
    assert [message for _, message in lines.said()] == ["_start", *roots, *roots]
    assert [plugin.root.id for plugin in worker.plugins] == [1, 2]


def test_context_ids(start_filters):
    """Roots and streams count together from 1; the parent of a stream is its root, that of a root is 0."""
    worker = start_filters("""(module
      (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (global $seen (mut i32) (i32.const 0))
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_context_create") (param i32 i32)
        (global.set $seen (i32.add (i32.mul (local.get 0) (i32.const 10)) (local.get 1))))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (global.get $seen))
      (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (global.get $seen)))""")
    assert worker.open().call(HEADERS) & 0xFF == 21
    assert worker.open().call("proxy_on_request_body", b"x") & 0xFF == 31
    first = worker.open()
    assert first.call(HEADERS) & 0xFF == 41
    assert first.call("proxy_on_request_body", b"x") & 0xFF == 41  # created once


BEFORE = (
    ("proxy_get_header_map_value", 0, b"a", OUT, OUT),
    ("proxy_define_metric", 0, b"m", OUT),
    ("proxy_continue_stream", 0),
    ("proxy_get_property", b"plugin_name", OUT, OUT),
    ("proxy_send_local_response", 403, b"", b"", b"", -1),
    ("proxy_set_tick_period_milliseconds", 100),
    ("proxy_get_buffer_bytes", 7, 0, 10, OUT, OUT),
)


@pytest.mark.parametrize(("export", "row"), list(itertools.product(["_start", "_initialize"], BEFORE)))
def test_host_functions_before_the_start_end_it(load_filters, export, row):
    """Envoy allows logging, arguments, environment, clock and randomness there."""
    worker = load_filters(Script({export: [row]}))
    with pytest.raises(StartError, match="trap") as error:
        worker.start()
    assert error.value.lines == ["a host function other than proxy_log was called before proxy_on_vm_start"]


WASI = "wasi_snapshot_preview1."
ALLOWED = (
    ("proxy_log", 2, b"x"),
    ("proxy_get_current_time_nanoseconds", OUT),
    (WASI + "clock_time_get", 0, 0, OUT),
    (WASI + "random_get", HEAP, 8),
    (WASI + "environ_sizes_get", OUT, OUT),
    (WASI + "environ_get", HEAP, HEAP + 64),
    (WASI + "args_sizes_get", OUT, OUT),
    (WASI + "args_get", 0, 0),
    (WASI + "fd_fdstat_get", 1, HEAP),
    (WASI + "poll_oneoff", 0, 0, 0, OUT),
    (WASI + "sched_yield",),
)


@pytest.mark.parametrize("export", ["_start", "_initialize", "main"])
def test_what_is_allowed_before_the_start(start_filters, export):
    callbacks = {export: ALLOWED} if export != "main" else {"_initialize": [], "main": ALLOWED}
    worker = start_filters(Script(callbacks))
    assert [one.status for one in worker.runs(export)] == [0] * len(ALLOWED)


@pytest.mark.parametrize(("code", "starts"), [(0, True), (1, False), (-1, False)])
def test_proc_exit(load_filters, code, starts):
    """Edge case 38: it returns, and what runs into `unreachable` behind it has ended well if its code was 0."""
    worker = load_filters(f"""(module
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "_start") (call $exit (i32.const {code})) unreachable))""")
    if starts:
        worker.start()
        assert worker.slots[0].vm is not None
    else:
        with pytest.raises(StartError):
            worker.start()


# ---- Configuration ----


def buffer(number):
    return ("proxy_get_buffer_bytes", number, 0, 0xFFFF_FFFF, OUT, OUT)


@pytest.mark.parametrize("version", VERSIONS)
def test_configurations(start_filters, version):
    """Edge case 24: the plugin's in its on_configure and context_create only, the VM's always."""
    rows = [buffer(6), buffer(7), ("proxy_get_configuration", OUT, OUT)]
    names = ("proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure", "proxy_on_log")
    worker = start_filters((Script(dict.fromkeys(names, rows), abi=version), {"config": {"a": 1}, "vm_config": "vm"}))
    plugin, vm = (0, b'{"a":1}'), (0, b"vm")
    for name, expected in {
        "proxy_on_context_create": [vm, plugin, plugin],
        "proxy_on_vm_start": [vm, (1, None), vm],
        "proxy_on_configure": [vm, plugin, plugin],
    }.items():
        assert [(one.status, one.value) for one in worker.runs(name)] == expected, name
    found = worker.open().runs("proxy_on_log")
    assert [(one.status, one.value) for one in found] == [vm, (1, None), vm]


def test_no_configuration_is_an_empty_one(start_filters):
    worker = start_filters(Script({"proxy_on_configure": [buffer(6), buffer(7)]}))
    assert [(one.status, one.value) for one in worker.runs("proxy_on_configure")] == [(0, b"")] * 2


def test_the_sizes_reach_the_callbacks(load_filters):
    text = """(module
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.eq (local.get 1) (i32.const 2)))
      (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.eq (local.get 1) (i32.const 7))))"""
    load_filters((text, {"config": {"a": 1}, "vm_config": "vm"})).start()
    with pytest.raises(StartError, match="proxy_on_configure returned false"):
        load_filters((text, {"config": {"a": 12}, "vm_config": "vm"})).start()


# ---- Versions ----


def test_a_missing_header_in_0_1_0(run):
    """Edge case 33: OK and empty, not NotFound."""
    (one,) = run(HEADERS, ("proxy_get_header_map_value", 0, b"none", OUT, OUT), abi="0.1.0")
    assert (one.status, one.value) == (0, b"")
    for version in VERSIONS[1:]:
        (one,) = run(HEADERS, ("proxy_get_header_map_value", 0, b"none", OUT, OUT), abi=version)
        assert (one.status, one.value) == (1, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_functions_of_all_versions_are_there(run, version):
    """Envoy offers some to one version only; here a filter of any may import them."""
    rows = [
        ("proxy_continue_stream", 0),
        ("proxy_continue_request",),
        ("proxy_continue_response",),
        ("proxy_clear_route_cache",),
        ("proxy_get_log_level", OUT),
        ("proxy_get_configuration", OUT, OUT),
        ("proxy_close_stream", 1),
    ]
    assert [one.status for one in run(HEADERS, *rows, abi=version)] == [0] * 7


@pytest.mark.parametrize("version", ["0.2.0", "0.2.1"])
def test_headers_callbacks_of_0_1_0_have_two_parameters(load_filters, version):
    text = Script({HEADERS: []}, abi="0.1.0").text.replace("version_0_1_0", f"version_{version.replace('.', '_')}")
    with pytest.raises(LoadError, match="proxy_on_request_headers has type"):
        load_filters(text)


# ---- Environment ----


def test_environment(start_filters):
    settings = {"capabilities": {"env": {"MODE": "strict", "E": ""}}}
    rows = [(WASI + "environ_sizes_get", OUT, OUT), (WASI + "environ_get", HEAP, HEAP + 64)]
    worker = start_filters((Script({"_start": rows}), settings))
    sizes, get = worker.runs("_start")
    assert (sizes.status, sizes.u32(0), sizes.u32(1)) == (0, 2, 15)
    assert struct.unpack_from("<2I", get.memory, HEAP) == (HEAP + 64, HEAP + 76)
    assert get.memory[HEAP + 64 : HEAP + 79] == b"MODE=strict\0E=\0"


def test_no_environment(start_filters, monkeypatch):
    monkeypatch.setenv("PENSTOCK_TEST", "leaks")
    worker = start_filters(Script({"_start": [(WASI + "environ_sizes_get", OUT, OUT)]}))
    (sizes,) = worker.runs("_start")
    assert (sizes.u32(0), sizes.u32(1)) == (0, 0)


# ---- WASI ----

FAULT, BADF, INVAL, NOTSUP, NOENT, NOSYS = 21, 8, 28, 58, 44, 52
BAD = MEMORY


@pytest.mark.parametrize("module", ["wasi_snapshot_preview1", "wasi_unstable"])
@pytest.mark.parametrize(
    ("row", "status"),
    [
        (("environ_sizes_get", BAD, OUT), FAULT),
        (("environ_sizes_get", OUT, BAD), FAULT),
        (("environ_get", HEAP, BAD + 1), FAULT),
        (("args_sizes_get", OUT, OUT), 0),
        (("args_sizes_get", BAD, OUT), FAULT),
        (("args_get", 0, 0), 0),
        (("clock_time_get", 0, 0, OUT), 0),
        (("clock_time_get", 1, 0, OUT), 0),
        (("clock_time_get", 2, 0, OUT), NOTSUP),
        (("clock_time_get", 0, 0, BAD), FAULT),
        (("clock_res_get", 0, OUT), 0),
        (("clock_res_get", 2, OUT), NOTSUP),
        (("clock_res_get", 0, BAD), FAULT),
        (("random_get", HEAP, 100), 0),
        (("random_get", HEAP, (64 << 10) + 1), INVAL),
        (("random_get", BAD, 1), FAULT),
        (("random_get", HEAP, 0), 0),
        (("fd_fdstat_get", 1, HEAP), 0),
        (("fd_fdstat_get", 0, HEAP), BADF),
        (("fd_fdstat_get", 2, BAD - 23), FAULT),
        (("sched_yield",), 0),
        (("poll_oneoff", 0, 0, 1, OUT), 0),
        (("poll_oneoff", 0, 0, 1, BAD), FAULT),
        (("fd_write", 0, HEAP, 0, OUT), BADF),
        (("fd_write", 3, HEAP, 0, OUT), BADF),
        (("fd_write", 1, BAD, 1, OUT), FAULT),
        (("fd_write", 1, HEAP, 0xFFFF_FFFF, OUT), INVAL),
        (("fd_write", 1, HEAP, 0, OUT), 0),
        (("fd_write", 1, HEAP, 0, BAD), FAULT),
        (("fd_pwrite", 1, HEAP, 0, 0, OUT), 0),
        (("fd_read", 0, 0, 0, 0), NOSYS),
        (("fd_pread", 0, 0, 0, 0, 0), NOSYS),
        (("fd_seek", 1, 0, 0, 0), 0),
        (("fd_close", 1), 0),
        (("fd_advise", 1, 0, 0, 0), 0),
        (("fd_allocate", 1, 0, 0), 0),
        (("fd_allocate", 5, 0, 0), BADF),
        (("fd_datasync", 2), 0),
        (("fd_sync", 3), BADF),
        (("fd_tell", 1, OUT), 0),
        (("fd_tell", 3, OUT), BADF),
        (("fd_prestat_get", 3, OUT), BADF),
        (("fd_prestat_dir_name", 3, 0, 0), NOSYS),
        (("fd_filestat_get", 1, OUT), BADF),
        (("fd_filestat_set_size", 1, 0), 0),
        (("fd_filestat_set_times", 1, 0, 0, 0), 0),
        (("fd_fdstat_set_flags", 1, 0), NOSYS),
        (("fd_fdstat_set_rights", 1, 0, 0), 0),
        (("fd_readdir", 3, 0, 0, 0, OUT), 20),  # edge case 39: meant as ENOTDIR, which is 54; Envoy says 20
        (("fd_renumber", 1, 2), NOTSUP),
        (("fd_renumber", 3, 2), BADF),
        (("path_open", 3, 0, 0, 0, 0, 0, 0, 0, OUT), NOENT),
        (("path_filestat_get", 3, 0, 0, 0, OUT), NOTSUP),
        (("path_create_directory", 3, 0, 0), NOTSUP),
        (("path_link", 3, 0, 0, 0, 3, 0, 0), NOTSUP),
        (("path_rename", 3, 0, 0, 3, 0, 0), NOTSUP),
        (("path_unlink_file", 3, 0, 0), NOTSUP),
        (("sock_accept", 3, 0, OUT), NOTSUP),
        (("sock_recv", 3, 0, 0, 0, OUT, OUT), NOTSUP),
        (("sock_send", 3, 0, 0, 0, OUT), NOTSUP),
        (("sock_shutdown", 3, 0), NOTSUP),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_wasi(run, module, row, status):
    assert run(HEADERS, (f"{module}.{row[0]}", *row[1:]))[0].status == status


@pytest.mark.parametrize(
    ("fd", "data", "logged"),
    [
        (1, b"x\n", [("info", "x")]),  # edge case 34: the newline is cut, and counted
        (2, b"two\n\n", [("error", "two\n")]),
        (1, b"no newline", [("info", "no newline")]),
        (1, b"\n", [("info", "")]),
        (1, b"", []),
    ],
)
def test_fd_write(start_filters, lines, fd, data, logged):
    text = f"""(module
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 100) "{"".join(f"{chr(92)}{byte:02x}" for byte in data)}")
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      ;; in two pieces; answers with the number of bytes that were taken
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (i32.store (i32.const 16) (i32.const 100)) (i32.store (i32.const 20) (i32.const {len(data) // 2}))
        (i32.store (i32.const 24) (i32.const {100 + len(data) // 2}))
        (i32.store (i32.const 28) (i32.const {len(data) - len(data) // 2}))
        (if (call $write (i32.const {fd}) (i32.const 16) (i32.const 2) (i32.const 8)) (then (return (i32.const 99))))
        (i32.load (i32.const 8))))"""
    worker = start_filters(text)
    assert worker.open().call(HEADERS) & 0xFF == len(data)
    assert lines.said() == logged


def test_random_bytes_are_random(run):
    one, two = run(HEADERS, (WASI + "random_get", HEAP, 32), (WASI + "random_get", HEAP + 32, 32))
    assert one.status == two.status == 0
    found = two.memory[HEAP : HEAP + 64]
    assert found[:32] != found[32:]
    assert len(set(found)) > 20


# ---- The clock ----


def test_time(run):
    before = time.time_ns()
    one, two, wasi = run(HEADERS, *[("proxy_get_current_time_nanoseconds", OUT)] * 2, (WASI + "clock_time_get", 0, 0, OUT))
    assert before <= one.u64() <= time.time_ns()
    assert one.u64() <= two.u64() <= wasi.u64() <= time.time_ns()


def test_time_goes_on_from_callback_to_callback(start_filters):
    worker = start_filters(Script({HEADERS: [("proxy_get_current_time_nanoseconds", OUT)]}))
    first = worker.open().runs(HEADERS)[0].u64()
    assert worker.open().runs(HEADERS)[0].u64() > first


# ---- Other names, and what is denied ----


def test_emscripten_s_names(start_filters):
    worker = start_filters("""(module
      (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))
      (import "env" "emscripten_notify_memory_growth" (func $grown (param i32)))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $grown (i32.const 0))
        (i32.add (call $equal (i32.const 3) (i32.const 3))
          (i32.mul (i32.const 2) (call $equal (i32.const 3) (i32.const 4))))))""")
    assert worker.open().call(HEADERS) & 0xFF == 1


def test_denied_functions(start_filters, lines):
    """10 (InternalFailure) for a host function that is not on the list, 76 for one of WASI."""
    rows = [("proxy_log", 2, b"x"), ("proxy_get_property", b"plugin_name", OUT, OUT), (WASI + "random_get", HEAP, 8)]
    settings = {"capabilities": {"host_functions": ["proxy_log", "proxy_on_*"]}}
    worker = start_filters((Script({HEADERS: rows}), settings))
    assert [one.status for one in worker.open().runs(HEADERS)] == [0, 10, 76]
    assert lines.said() == [("info", "x")]


def test_the_compile_cache_gives_what_it_was_given(tmp_path, monkeypatch, start_filters):
    """The one test here that compiles as a start does."""
    from proxy.wasm.cache import load_or_compile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    worker = start_filters(Script({HEADERS: []}))
    monkeypatch.setattr(load, "load_or_compile", lambda requests: load_or_compile(requests, tmp_path / "cache"))
    prepared = load.prepare([one.filter for one in worker.prepared.filters])
    loader = load.Loader(prepared)
    assert loader.memory.at == worker.memory.at
    loader.close()
