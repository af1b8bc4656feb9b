import pytest

from proxy.abi.proxy_wasm import signatures
from proxy.abi.proxy_wasm.signatures import (
    CALLBACKS,
    CALLBACKS_BY_VERSION,
    ENVIRONMENT_FUNCTIONS,
    HOST_FUNCTION_VERSIONS,
    HOST_FUNCTIONS,
    LIFECYCLE,
    MARKERS,
    TCP_CALLBACKS,
    UNUSED_CALLBACKS,
    VERSIONS,
    WASI_FUNCTIONS,
    WASI_MODULES,
    WASI_VARIANTS,
    Signature,
    import_signatures,
)
from tests.conformance.envoy import Envoy, EnvoyError, EnvoyFilter
from tests.wasm import binary as b

LOG = Signature(("i32", "i32", "i32"), ("i32",))


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("env", "proxy_log", (LOG,)),
        ("env", "proxy_increment_metric", (Signature(("i32", "i64"), ("i32",)),)),
        ("env", "proxy_done", (Signature((), ("i32",)),)),
        ("env", "emscripten_notify_memory_growth", (Signature(("i32",), ()),)),
        ("env", "fd_write", ()),
        ("env", "abort", ()),
        ("", "proxy_log", ()),
        ("wasi_unstable", "proc_exit", (Signature(("i32",), ()),)),
        ("wasi_snapshot_preview1", "proxy_log", ()),
        ("wasi_snapshot_preview2", "fd_write", ()),
        ("wasi_unstable", "path_symlink", (Signature(("i32",) * 5, ("i32",)), Signature(("i32",) * 4, ("i32",)))),
    ],
)
def test_import_signatures(module, name, expected):
    assert import_signatures(module, name) == expected


def test_a_signature_reads_as_a_type():
    assert str(LOG) == "(i32, i32, i32) -> (i32)"
    assert str(Signature((), ())) == "() -> ()"


def test_headers_callbacks_of_0_1_0_are_narrower():
    differing = {name for name in CALLBACKS if CALLBACKS_BY_VERSION["0.1.0"].get(name) != CALLBACKS[name]}
    assert differing == {"proxy_on_request_headers", "proxy_on_response_headers", "proxy_on_foreign_function"}


def test_tables_name_what_exists():
    assert set(HOST_FUNCTION_VERSIONS) <= set(HOST_FUNCTIONS)
    assert set(WASI_VARIANTS) <= set(WASI_FUNCTIONS)
    assert TCP_CALLBACKS <= set(UNUSED_CALLBACKS) <= set(CALLBACKS)
    assert list(MARKERS.values()) == list(VERSIONS)


def everything(version: str) -> bytes:
    """A filter that imports and exports all that Envoy knows of this ABI version, by our types."""
    imports = [
        ("env", name, *signature)
        for name, signature in (HOST_FUNCTIONS | ENVIRONMENT_FUNCTIONS).items()
        if version in HOST_FUNCTION_VERSIONS.get(name, (version,))
    ]
    imports += [
        (module, name, *signature) for module in WASI_MODULES for name, signature in (WASI_FUNCTIONS | WASI_VARIANTS).items()
    ]
    # Those that Envoy calls at start are left out: the functions of this filter trap.
    called = {"_initialize", "_start", "malloc", "proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure"}
    exports = [
        (name, *signature) for name, signature in {**CALLBACKS_BY_VERSION[version], **LIFECYCLE}.items() if name not in called
    ]
    return b.filter_module(imports, exports, marker=f"proxy_abi_version_{version.replace('.', '_')}")


@pytest.mark.envoy
@pytest.mark.parametrize("version", VERSIONS)
def test_envoy_agrees_with_every_type(tmp_path, version):
    """Envoy refuses a module for a single import or callback of another type."""
    path = tmp_path / "filter.wasm"
    path.write_bytes(everything(version))
    with Envoy([EnvoyFilter(path)], {"service": 1}):
        pass


REFUSED = {
    "import type mismatch: env.proxy_log": b.filter_module([("env", "proxy_log", ("i32",), ("i32",))]),
    "missing import: env.proxy_clear_route_cache": b.filter_module([("env", "proxy_clear_route_cache", (), ("i32",))]),
    "missing import: wasi_unstable.proc_raise": b.filter_module([("wasi_unstable", "proc_raise", ("i32",), ("i32",))]),
    "Bad function signature for: proxy_on_request_headers": b.filter_module(
        exports=[("proxy_on_request_headers", ("i32", "i32"), ("i32",))]
    ),
    "Bad function signature for: proxy_on_response_headers": b.filter_module(
        exports=[("proxy_on_response_headers", ("i32", "i32", "i32"), ("i32",))], marker="proxy_abi_version_0_1_0"
    ),
    "unknown Proxy-Wasm ABI version": b.filter_module(marker=None),
    "missing malloc function": b.filter_module(allocator=None),
}


@pytest.mark.envoy
@pytest.mark.parametrize(("complaint", "filter_"), REFUSED.items(), ids=list(REFUSED))
def test_envoy_refuses_what_we_think_it_refuses(tmp_path, complaint, filter_):
    path = tmp_path / "filter.wasm"
    path.write_bytes(filter_)
    with pytest.raises(EnvoyError, match=complaint), Envoy([EnvoyFilter(path)], {"service": 1}):
        pass


@pytest.mark.parametrize("row", ["f x i", "f i", "f i i i"])
def test_a_row_of_another_form_is_an_error(row):
    with pytest.raises((KeyError, ValueError)):
        signatures.table(row)
