"""The functions of the proxy-wasm ABI with their Wasm types: what a host offers, what a guest may export.

Sources: the specification (0.1.0, 0.2.0, 0.2.1), WASI preview 1, and Envoy 1.40, which names the type it wants when a
module brings another. No function has two types across versions, but for the header callbacks of 0.1.0.
"""

from collections.abc import Mapping
from typing import NamedTuple

VERSIONS = ("0.1.0", "0.2.0", "0.2.1")
MARKERS: Mapping[str, str] = {f"proxy_abi_version_{version.replace('.', '_')}": version for version in VERSIONS}
"""Exported function -> ABI version. The first marker in export order decides; it is never called."""

WASI_MODULES = ("wasi_snapshot_preview1", "wasi_unstable")


class Signature(NamedTuple):
    """A function's type: value types by their names in the text format, such as `("i32", "i64")`."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"


def table(rows: str) -> dict[str, Signature]:
    """A table from lines of `name params results`: a letter per value, `i` i32 and `I` i64, `-` for none."""
    types = {"i": "i32", "I": "i64"}
    functions = {}
    for row in rows.split("\n"):
        if row.strip():
            name, params, results = row.split()
            functions[name] = Signature(
                tuple(types[letter] for letter in params if letter != "-"),
                tuple(types[letter] for letter in results if letter != "-"),
            )
    return functions


HOST_FUNCTIONS = table("""
    proxy_log                           iii           i
    proxy_get_log_level                 i             i
    proxy_get_current_time_nanoseconds  i             i
    proxy_set_tick_period_milliseconds  i             i
    proxy_set_effective_context         i             i
    proxy_done                          -             i
    proxy_get_configuration             ii            i
    proxy_get_status                    iii           i
    proxy_get_buffer_bytes              iiiii         i
    proxy_get_buffer_status             iii           i
    proxy_set_buffer_bytes              iiiii         i
    proxy_get_header_map_size           ii            i
    proxy_get_header_map_pairs          iii           i
    proxy_set_header_map_pairs          iii           i
    proxy_get_header_map_value          iiiii         i
    proxy_add_header_map_value          iiiii         i
    proxy_replace_header_map_value      iiiii         i
    proxy_remove_header_map_value       iii           i
    proxy_continue_stream               i             i
    proxy_close_stream                  i             i
    proxy_continue_request              -             i
    proxy_continue_response             -             i
    proxy_clear_route_cache             -             i
    proxy_send_local_response           iiiiiiii      i
    proxy_http_call                     iiiiiiiiii    i
    proxy_grpc_call                     iiiiiiiiiiii  i
    proxy_grpc_stream                   iiiiiiiii     i
    proxy_grpc_send                     iiii          i
    proxy_grpc_cancel                   i             i
    proxy_grpc_close                    i             i
    proxy_get_shared_data               iiiii         i
    proxy_set_shared_data               iiiii         i
    proxy_register_shared_queue         iii           i
    proxy_resolve_shared_queue          iiiii         i
    proxy_enqueue_shared_queue          iii           i
    proxy_dequeue_shared_queue          iii           i
    proxy_define_metric                 iiii          i
    proxy_increment_metric              iI            i
    proxy_record_metric                 iI            i
    proxy_get_metric                    ii            i
    proxy_get_property                  iiii          i
    proxy_set_property                  iiii          i
    proxy_call_foreign_function         iiiiii        i
""")
"""The host functions of every ABI version, imported from module `env`. All return a status."""

HOST_FUNCTION_VERSIONS: Mapping[str, tuple[str, ...]] = {
    "proxy_get_configuration": ("0.1.0",),
    "proxy_continue_request": ("0.1.0",),
    "proxy_continue_response": ("0.1.0",),
    "proxy_clear_route_cache": ("0.1.0",),
    "proxy_continue_stream": ("0.2.0", "0.2.1"),
    "proxy_close_stream": ("0.2.0", "0.2.1"),
    "proxy_get_log_level": ("0.2.1",),
}
"""Host functions that only some versions have. Envoy offers them to modules of these versions only, Penstock to all."""

ENVIRONMENT_FUNCTIONS = table("""
    emscripten_notify_memory_growth  i    -
    pthread_equal                    ii   i
    envoy_resolve_dns                iii  i
""")
"""What Envoy offers in module `env` beside the ABI."""

WASI_FUNCTIONS = table("""
    args_get                 ii         i
    args_sizes_get           ii         i
    clock_res_get            ii         i
    clock_time_get           iIi        i
    environ_get              ii         i
    environ_sizes_get        ii         i
    fd_advise                iIIi       i
    fd_allocate              iII        i
    fd_close                 i          i
    fd_datasync              i          i
    fd_fdstat_get            ii         i
    fd_fdstat_set_flags      ii         i
    fd_fdstat_set_rights     iII        i
    fd_filestat_get          ii         i
    fd_filestat_set_size     iI         i
    fd_filestat_set_times    iIIi       i
    fd_pread                 iiiIi      i
    fd_prestat_dir_name      iii        i
    fd_prestat_get           ii         i
    fd_pwrite                iiiIi      i
    fd_read                  iiii       i
    fd_readdir               iiiIi      i
    fd_renumber              ii         i
    fd_seek                  iIii       i
    fd_sync                  i          i
    fd_tell                  ii         i
    fd_write                 iiii       i
    path_create_directory    iii        i
    path_filestat_get        iiiii      i
    path_filestat_set_times  iiiiIIi    i
    path_link                iiiiiii    i
    path_open                iiiiiIIii  i
    path_readlink            iiiiii     i
    path_remove_directory    iii        i
    path_rename              iiiiii     i
    path_symlink             iiiii      i
    path_unlink_file         iii        i
    poll_oneoff              iiii       i
    proc_exit                i          -
    random_get               ii         i
    sched_yield              -          i
    sock_accept              iii        i
    sock_recv                iiiiii     i
    sock_send                iiiii      i
    sock_shutdown            ii         i
""")
"""WASI preview 1, offered under both of WASI_MODULES. `proc_raise` is missing, as in Envoy."""

WASI_VARIANTS = table("""
    path_link     iiiiii  i
    path_symlink  iiii    i
""")
"""The other type under which Envoy knows a WASI function (it lacks length parameters); a module may bring either."""

CALLBACKS = table("""
    proxy_on_context_create                  ii     -
    proxy_on_vm_start                        ii     i
    proxy_on_configure                       ii     i
    proxy_validate_configuration             ii     i
    proxy_on_tick                            i      -
    proxy_on_new_connection                  i      i
    proxy_on_downstream_data                 iii    i
    proxy_on_upstream_data                   iii    i
    proxy_on_downstream_connection_close     ii     -
    proxy_on_upstream_connection_close       ii     -
    proxy_on_request_headers                 iii    i
    proxy_on_request_body                    iii    i
    proxy_on_request_trailers                ii     i
    proxy_on_request_metadata                ii     i
    proxy_on_response_headers                iii    i
    proxy_on_response_body                   iii    i
    proxy_on_response_trailers               ii     i
    proxy_on_response_metadata               ii     i
    proxy_on_http_call_response              iiiii  -
    proxy_on_grpc_receive_initial_metadata   iii    -
    proxy_on_grpc_receive                    iii    -
    proxy_on_grpc_receive_trailing_metadata  iii    -
    proxy_on_grpc_close                      iii    -
    proxy_on_queue_ready                     ii     -
    proxy_on_foreign_function                iii    -
    proxy_on_done                            i      i
    proxy_on_log                             i      -
    proxy_on_delete                          i      -
    envoy_on_resolve_dns                     iii    -
    envoy_on_stats_update                    ii     -
""")
"""The callbacks of 0.2.0 and 0.2.1, all optional."""

CALLBACKS_0_1_0 = {name: signature for name, signature in CALLBACKS.items() if name != "proxy_on_foreign_function"}
CALLBACKS_0_1_0 |= table("""
    proxy_on_request_headers   ii  i
    proxy_on_response_headers  ii  i
""")
"""The callbacks of 0.1.0: the headers callbacks do not learn whether the stream ends with them."""

CALLBACKS_BY_VERSION: Mapping[str, Mapping[str, Signature]] = {
    "0.1.0": CALLBACKS_0_1_0,
    "0.2.0": CALLBACKS,
    "0.2.1": CALLBACKS,
}

LIFECYCLE = table("""
    _initialize               -   -
    _start                    -   -
    malloc                    i   i
    proxy_on_memory_allocate  i   i
""")
"""Exports that the host calls itself: one of the first two starts the module, one of the others allocates."""

TCP_CALLBACKS = frozenset({
    "proxy_on_new_connection",
    "proxy_on_downstream_data",
    "proxy_on_upstream_data",
    "proxy_on_downstream_connection_close",
    "proxy_on_upstream_connection_close",
})  # fmt: skip

UNUSED_CALLBACKS: Mapping[str, str] = {
    **dict.fromkeys(sorted(TCP_CALLBACKS), "is for TCP filters; this gateway filters HTTP"),
    "proxy_on_request_metadata": "is for HTTP/2 METADATA frames; this gateway speaks HTTP/1.1",
    "proxy_on_response_metadata": "is for HTTP/2 METADATA frames; this gateway speaks HTTP/1.1",
    "proxy_validate_configuration": "is deprecated, no host calls it",
    "envoy_on_resolve_dns": "is Envoy's own, not part of the ABI",
    "envoy_on_stats_update": "is Envoy's own, not part of the ABI",
}
"""Callbacks with a right type that are never called here, and why."""


def import_signatures(module: str, name: str) -> tuple[Signature, ...]:
    """The types under which a guest may import this function; empty: no host function has that name."""
    if module == "env":
        found = HOST_FUNCTIONS.get(name) or ENVIRONMENT_FUNCTIONS.get(name)
        return (found,) if found else ()
    if module in WASI_MODULES and name in WASI_FUNCTIONS:
        variant = WASI_VARIANTS.get(name)
        return (WASI_FUNCTIONS[name], variant) if variant else (WASI_FUNCTIONS[name],)
    return ()
