"""What docs/abi.md and the table of waivers say, taken from the cases: which of them ask for a function or a callback, and which of
these are waived. A run of the cases holds what is counted here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from proxy.abi.proxy_wasm.signatures import (
    CALLBACKS,
    ENVIRONMENT_FUNCTIONS,
    HOST_FUNCTION_VERSIONS,
    HOST_FUNCTIONS,
    LIFECYCLE,
    UNUSED_CALLBACKS,
    VERSIONS,
    WASI_FUNCTIONS,
)
from tests.conformance.case import Case
from tests.conformance.cases.table import CASES, WAIVERS
from tests.conformance.probe.wasi import ENVIRONMENT
from tests.conformance.verdict import pinned

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = DOCS / "abi.md"
WAIVER_PAGE = DOCS / "conformance.md"

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "pairs": ("proxy_get_header_map_pairs",),
    "size": ("proxy_get_header_map_size",),
    "get": ("proxy_get_header_map_value",),
    "add": ("proxy_add_header_map_value",),
    "rep": ("proxy_replace_header_map_value",),
    "rem": ("proxy_remove_header_map_value",),
    "setpairs": ("proxy_set_header_map_pairs",),
    "buf": ("proxy_get_buffer_bytes",),
    "bufstat": ("proxy_get_buffer_status",),
    "setbuf": ("proxy_set_buffer_bytes",),
    "prop": ("proxy_get_property",),
    "setprop": ("proxy_set_property",),
    "reply": ("proxy_send_local_response",),
    "close": ("proxy_close_stream",),
    "eff": ("proxy_set_effective_context",),
    "period": ("proxy_set_tick_period_milliseconds",),
    "proxy_done": ("proxy_done",),
    "level": ("proxy_get_log_level",),
    "now": ("proxy_get_current_time_nanoseconds",),
    "status": ("proxy_get_status",),
    "call": ("proxy_http_call",),
    "foreign": ("proxy_call_foreign_function",),
    "shget": ("proxy_get_shared_data",),
    "shset": ("proxy_set_shared_data",),
    "qreg": ("proxy_register_shared_queue",),
    "qres": ("proxy_resolve_shared_queue",),
    "enq": ("proxy_enqueue_shared_queue",),
    "deq": ("proxy_dequeue_shared_queue",),
    "conf": ("proxy_get_configuration",),
    "clear": ("proxy_clear_route_cache",),
}
"""The probe's commands; `cont` and `metric` depend on their arguments, see `functions`."""

KINDS: Mapping[str, str] = {
    "configure": "proxy_on_configure",
    "create": "proxy_on_context_create",
    "rqh": "proxy_on_request_headers",
    "rqb": "proxy_on_request_body",
    "rqt": "proxy_on_request_trailers",
    "rsh": "proxy_on_response_headers",
    "rsb": "proxy_on_response_body",
    "rst": "proxy_on_response_trailers",
    "tick": "proxy_on_tick",
    "called": "proxy_on_http_call_response",
    "queue": "proxy_on_queue_ready",
    "log": "proxy_on_log",
    "done": "proxy_on_done",
    "delete": "proxy_on_delete",
}
ALWAYS = ("proxy_log", "proxy_on_vm_start")
"""What every run of the probe uses, whatever its script."""

GRPC_COMMANDS = {
    "call": "proxy_grpc_call",
    "stream": "proxy_grpc_stream",
    "send": "proxy_grpc_send",
    "cancel": "proxy_grpc_cancel",
    "close": "proxy_grpc_close",
}
GRPC_KINDS = {
    "init": "proxy_on_grpc_receive_initial_metadata",
    "recv": "proxy_on_grpc_receive",
    "trail": "proxy_on_grpc_receive_trailing_metadata",
    "closed": "proxy_on_grpc_close",
}

NOT_HERE: Mapping[str, str] = {
    **UNUSED_CALLBACKS,
    "proxy_on_foreign_function": "no foreign function calls back, neither here nor in Envoy",
    "envoy_resolve_dns": "is Envoy's own, not part of the ABI",
    "proc_exit": "ends the VM: tests/abi",
    "_start": "the probes are reactors: tests/abi",
}
"""What no case can ask, and why."""


def commands(script: str) -> Iterator[tuple[str, list[str]]]:
    """(kind, words) of each command of a probe's script."""
    for line in script.split("\n"):
        kind, colon, rest = line.partition(":")
        if colon:
            for command in rest.split(";"):
                if words := command.split():
                    yield kind.partition("#")[0], words


def functions(words: Sequence[str], abi: str) -> tuple[str, ...]:
    """The host functions that a command calls."""
    name, *arguments = words
    if name == "cont":
        if abi == "0.1.0":
            return ("proxy_continue_request" if arguments[0] == "0" else "proxy_continue_response",)
        return ("proxy_continue_stream",)
    if name == "metric":
        changing = "proxy_record_metric" if arguments[0] == "2" else "proxy_increment_metric"
        return ("proxy_define_metric", changing, "proxy_get_metric")
    return COMMANDS.get(name, ())


def asked(case: Case) -> set[str]:
    """The functions and callbacks that a case is about."""
    if case.modules:
        return {name for name in WASI_FUNCTIONS if name != "proc_exit"} | set(ENVIRONMENT)
    found = {*ALWAYS, "_initialize", "malloc" if case.abi == "0.1.0" else "proxy_on_memory_allocate"}
    for script in case.scripts:
        for kind, words in commands(script):
            found |= {KINDS[kind]} & set(CALLBACKS) if kind in KINDS else set()
            found.update(functions(words, case.abi))
    return found


def asked_of_grpc(script: str) -> set[str]:
    """The same for a script of tests/upstream/grpc_probe."""
    found = set()
    for line in script.split("!"):
        kind, _, rest = line.partition(":")
        found |= {GRPC_KINDS[name] for name in [kind.partition("#")[0]] if name in GRPC_KINDS}
        found |= {GRPC_COMMANDS[name] for name in re.findall(r"(?:^|;)(\w+)", rest) if name in GRPC_COMMANDS}
    return found


class Support:
    """How many cases ask for each (function or callback, version), and which of them are waived."""

    def __init__(self, cases: Iterable[Case], grpc: Iterable[str]) -> None:
        self.same: Counter[tuple[str, str]] = Counter()
        self.waived: Counter[tuple[str, str]] = Counter()
        self.reasons: dict[str, set[str]] = {}
        for case in cases:
            differs = bool(pinned(case))
            counter = self.waived if differs else self.same
            for name in asked(case):
                counter[name, case.abi] += 1
                if differs:
                    self.reasons.setdefault(name, set()).add(case.waiver)
        for script in grpc:
            self.same.update((name, "0.2.1") for name in asked_of_grpc(script))

    def cell(self, name: str, version: str) -> str:
        if version not in HOST_FUNCTION_VERSIONS.get(name, VERSIONS):
            return "not in it"
        if name in NOT_HERE:
            return "not asked"
        same, waived = self.same[name, version], self.waived[name, version]
        shown = [f"same ({same})"] if same else []
        shown += [f"waived ({waived})"] if waived else []
        return ", ".join(shown) or "no case"

    def rows(self, names: Iterable[str]) -> list[str]:
        rows = ["| name | 0.1.0 | 0.2.0 | 0.2.1 | |", "|---|---|---|---|---|"]
        for name in names:
            reasons = ", ".join(f"`{one}`" for one in sorted(self.reasons.get(name, ())) if name not in ALWAYS)
            note = NOT_HERE.get(name, f"[waivers](conformance.md#waivers): {reasons}" if reasons else "")
            rows.append(f"| `{name}` | {' | '.join(self.cell(name, version) for version in VERSIONS)} | {note} |")
        return rows

    def wasi(self) -> list[str]:
        rows = ["| name | |", "|---|---|"]
        for name in [*WASI_FUNCTIONS, *ENVIRONMENT_FUNCTIONS]:
            rows.append(f"| `{name}` | {NOT_HERE.get(name) or self.cell(name, '0.2.1')} |")
        return rows


def page(cases: Iterable[Case], grpc: Iterable[str]) -> str:
    """docs/abi.md."""
    support = Support(cases, grpc)
    lifecycle = [name for name in LIFECYCLE if name in ("_initialize", "_start")]
    return "\n".join(
        [
            "# The ABI, function by function",
            "",
            "What of proxy-wasm 0.1.0, 0.2.0 and 0.2.1 has been put to Envoy 1.40.0 and to Penstock, and what came of it.",
            "Made from the cases by `python -m tests.conformance --table`; the same cases run in `tests/conformance` (gRPC: in",
            "`tests/upstream/test_grpc_in_envoy.py`), so that every number here is held by a test.",
            "",
            "- `same (n)`: n cases call the function (or have commands for the callback), and Envoy and Penstock do the same: every",
            "  return code, output, callback, log line and byte on the wire.",
            "- `waived (n)`: n cases differ on purpose somewhere, not always by this function; the reasons are named.",
            "- `no case`: nothing has been compared under this version. The implementation is the same for all versions.",
            "- `not in it`: the version does not have the function. Penstock offers it all the same.",
            "",
            "Generated programs call most of these in many more ways: [Conformance](conformance.md).",
            "",
            "## Host functions",
            "",
            *support.rows(HOST_FUNCTIONS),
            "",
            "## Callbacks",
            "",
            *support.rows([*CALLBACKS, "malloc", "proxy_on_memory_allocate", *lifecycle]),
            "",
            "## WASI, and what else compilers import",
            "",
            "Each function under both module names, `wasi_snapshot_preview1` and `wasi_unstable`, with arguments of zeros; tests/abi has",
            "the rest.",
            "",
            *support.wasi(),
            "",
        ]
    )


def waivers() -> str:
    """The table of waivers in docs/conformance.md."""
    rows = ["| waiver | Envoy | Penstock | why | pinned by |", "|---|---|---|---|---|"]
    for one in WAIVERS:
        names = [case.name for case in CASES if case.waiver == one.name and pinned(case)]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        rows.append(f"| `{one.name}` | {one.envoy} | {one.penstock} | {one.why} | {', '.join(names[:3])}{more} |")
    return "\n".join(rows)


def with_waivers(text: str) -> str:
    """The page with its table of waivers made anew."""
    return re.sub(r"(?m)^\| waiver \|(?:.*\n)(?:\|.*\n)*", lambda _: f"{waivers()}\n", text)


def grpc_scripts() -> list[str]:
    """The scripts of tests/upstream/test_grpc_in_envoy.py; that module needs grpcio."""
    from tests.upstream.test_grpc_in_envoy import CASES as GRPC_CASES

    return list(GRPC_CASES.values())


def write() -> None:
    """Both pages."""
    PAGE.write_text(page(CASES, grpc_scripts()), encoding="utf-8")
    WAIVER_PAGE.write_text(with_waivers(WAIVER_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
