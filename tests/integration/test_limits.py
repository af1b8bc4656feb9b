"""Each limit of a filter, from the outside: what the client gets, and the metric that counts it under the filter's name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from tests.abi.guest import OUT, Row, Script
from tests.integration.conftest import Service
from tests.integration.gateway import Gateway, filter_of

HEADERS, BODY = "proxy_on_request_headers", "proxy_on_request_body"
CONFIGURE = "proxy_on_configure"
PAIRS = b"\3\0\0\0" + b"".join(n.to_bytes(4, "little") for n in (7, 3, 5, 1, 10, 7)) + (
    b":method\0GET\0:path\0/\0:authority\0service\0"
)  # fmt: skip
PLAIN = """(memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))"""


def calls(*rows: Row, at: str = HEADERS, action: int = 0) -> str:
    """A filter that makes these host calls."""
    return Script({at: rows}, actions={HEADERS: action} if at == HEADERS else {}).text


def runs(body: str, *, imports: str = "", more: str = "") -> str:
    """A filter with this body of its request headers callback."""
    return f"""(module {imports} {PLAIN} {more}
      (func (export "{HEADERS}") (param i32 i32 i32) (result i32) {body} (i32.const 0)))"""


QUEUE = f"""(module
  (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
  (import "env" "proxy_enqueue_shared_queue" (func $put (param i32 i32 i32) (result i32)))
  {PLAIN}
  (func (export "{CONFIGURE}") (param i32 i32) (result i32)
    (i32.eqz (call $register (i32.const 0) (i32.const 1) (i32.const 16))))
  (func (export "{HEADERS}") (param i32 i32 i32) (result i32) (local $i i32)
    (loop $l
      (drop (call $put (i32.load (i32.const 16)) (i32.const 0) (i32.const 4)))
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5))))
    (i32.const 0)))"""

REFUSED = 'penstock_host_call_errors_total{{filter="{name}",function="{function}",status="InternalFailure"}}'
FAILED = 'penstock_filter_failures_total{{filter="{name}",reason="{reason}"}}'
LIMITED = 'penstock_filter_limited_total{{filter="{name}",limit="{name}"}}'

GOES_ON: dict[str, tuple[str, dict[str, Any], str, float]] = {
    "headers": (
        calls(*[("proxy_add_header_map_value", 0, b"x", b"y")] * 20),
        {"headers": 15},
        "proxy_add_header_map_value",
        10,
    ),
    "header_bytes": (
        calls(*[("proxy_add_header_map_value", 0, b"x", b"y" * 400)] * 5),
        {"header_bytes": "1KiB"},
        "proxy_add_header_map_value",
        3,
    ),
    "metrics": (
        calls(*[("proxy_define_metric", 0, b"m%d" % i, OUT) for i in range(5)], at=CONFIGURE),
        {"metrics": 3},
        "proxy_define_metric",
        2,
    ),
    "calls": (
        calls(*[("proxy_http_call", b"service", PAIRS, b"", b"\0\0\0\0", 5000, OUT)] * 5),
        {"calls": 2},
        "proxy_http_call",
        3,
    ),
    "shared_data": (
        calls(*[("proxy_set_shared_data", b"k%d" % i, b"v" * 1000, 0) for i in range(5)]),
        {"shared_data": "4KiB"},
        "proxy_set_shared_data",
        2,  # each entry counts 64 bytes beyond its own
    ),
    "queued_items": (QUEUE, {"queued_items": 3}, "proxy_enqueue_shared_queue", 2),
    "log_lines": (calls(*[("proxy_log", 2, b"line")] * 20), {"log_lines": "5/s"}, "", 15),
    "log_line": (calls(("proxy_log", 2, b"x" * 500)), {"log_line": "100B"}, "", 1),
    "tick": (calls(("proxy_set_tick_period_milliseconds", 1), at=CONFIGURE), {"tick": "500ms"}, "", 1),
}


def sample(name: str, function: str) -> str:
    if name == "log_lines":
        return 'penstock_filter_log_lines_dropped_total{filter="log_lines"}'
    return REFUSED.format(name=name, function=function) if function else LIMITED.format(name=name)


async def test_what_is_refused_or_cut(tmp_path: Path, service: Service) -> None:
    """All in one chain: the filter goes on, and the request does."""
    filters = []
    for name, (text, limits, _, _) in GOES_ON.items():
        (tmp_path / f"{name}.wasm").write_bytes(wasmtime.wat2wasm(text))
        hosts = {"capabilities": {"allowed_hosts": ["cluster:service"]}} if name == "calls" else {}
        filters.append(filter_of(tmp_path / f"{name}.wasm", name, limits=limits, **hosts))
    async with Gateway(filters, {"service": service.port}) as gateway:
        assert (await gateway.get())[::2] == (200, "ok")
        found = await gateway.metrics()
        counted = {name: found.get(sample(name, function), 0) for name, (_, _, function, _) in GOES_ON.items()}
        failures = [name for name in found if name.startswith("penstock_filter_failures_total")]
        await gateway.until(lambda: gateway.said("log_line"))
        said = gateway.said("log_line")
    # The client's own headers count as well: at least as many are refused.
    expected = {name: count for name, (_, _, _, count) in GOES_ON.items()}
    for name in ("headers", "header_bytes"):
        assert counted.pop(name) >= expected.pop(name)
    assert counted == expected
    assert failures == []
    assert said == ["x" * 100]


HOLD = f"""(module {PLAIN} (func (export "{HEADERS}") (param i32 i32 i32) (result i32) (i32.const 1)))"""
HOLD_BODY = f"""(module {PLAIN}
  (func (export "{HEADERS}") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "{BODY}") (param i32 i32 i32) (result i32) (i32.const 1)))"""
ENDS: dict[str, tuple[str, dict[str, Any], str, int, int]] = {
    # the filter, its settings, the reason, the client's status where it fails closed, and open
    "fuel": (runs("(loop $l (br $l))"), {"fuel": 100_000}, "fuel", 503, 200),
    "deadline": (runs("(loop $l (br $l))"), {"fuel": 10**15, "deadline": "20ms"}, "deadline", 503, 200),
    "memory": (
        runs("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"),
        {"memory": "1MiB"},
        "memory",
        503,
        200,
    ),
    "trap": (runs("unreachable"), {}, "trap", 503, 200),
    "pause": (HOLD, {"limits": {"pause": "300ms"}}, "pause", 503, 200),
    "body_buffer": (HOLD_BODY, {"limits": {"body_buffer": "1KiB"}}, "body_buffer", 413, 413),
}


@pytest.mark.parametrize("policy", ["closed", "open"])
async def test_what_ends_a_call_or_a_stream(tmp_path: Path, service: Service, policy: str) -> None:
    """One route for each filter: its client gets what the filter's policy says, in time, and a route without any is served."""
    filters, routes = [], []
    for name, (text, settings, _, _, _) in ENDS.items():
        (tmp_path / f"{name}.wasm").write_bytes(wasmtime.wat2wasm(text))
        filters.append(filter_of(tmp_path / f"{name}.wasm", name, **{"on_failure": policy, **settings}))
        others = {other: {"enabled": False} for other in ENDS if other != name}
        routes.append({"match": {"prefix": f"/{name}"}, "cluster": "service", "filters": others})
    none = {name: {"enabled": False} for name in ENDS}
    routes.append({"match": {"prefix": "/"}, "cluster": "service", "filters": none})
    async with Gateway(filters, {"service": service.port}, routes=routes) as gateway:

        async def post(name: str) -> int:
            async with gateway.client.post(f"/{name}", data=b"x" * 5000) as response:
                return response.status

        async with asyncio.timeout(20):
            statuses = dict(zip(ENDS, await asyncio.gather(*map(post, ENDS)), strict=True))
        assert (await gateway.get("/innocent"))[0] == 200
        found = await gateway.metrics()
        logged = {(line["filter"], line["reason"]) for line in gateway.events("filter_failed")}
        asked = await gateway.client.get(f"http://127.0.0.1:{gateway.admin_port}/filters")
        pages = await asked.json()
    assert statuses == {name: closed if policy == "closed" else opened for name, (*_, closed, opened) in ENDS.items()}
    for name, (_, _, reason, _, _) in ENDS.items():
        assert found[FAILED.format(name=name, reason=reason)] == 1
        assert (name, reason) in logged
        assert [trap["reason"] for trap in pages[name]["traps"]] == [reason]
