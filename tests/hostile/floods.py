"""Filters that do more of something than anybody needs, within each call's budget."""

from __future__ import annotations

import struct
import zlib

from tests.hostile.case import GET, RESET, Ask, Case
from tests.hostile.wat import CALL_HEAD, HEADERS, LOOP, call, callback, data, guest, pairs, pairs_size, repeat

ERRORS = "penstock_host_call_errors_total"
RICH = {"fuel": 200_000_000, "deadline": "500ms"}
OK = frozenset({200})
FUEL = frozenset({"fuel"})


def errors(function: str, status: str) -> tuple[str, ...]:
    return (f'{ERRORS}{{function="{function}",status="{status}"}}',)


def flood(
    name: str, tries: str, body: str, *more: str, locals_: str = LOOP, memory: str = "1", on: str = HEADERS, **fields: object
) -> Case:
    """A filter that does `body` in each call."""
    return Case(name, "flood", tries, guest(body, *more, locals_=locals_, memory=memory, on=on), **{"answers": OK, **fields})  # type: ignore[arg-type]


def stored(name: str, value: str = "(local.get $i)") -> str:
    """The digits of a number that counts, behind a name at 64 that has room for them."""
    return f"(i32.store (i32.const {64 + len(name)}) (i32.add {value} (i32.const 0x41414141)))"


def http(upstream: int = 64, size: int = 7) -> str:
    return call("proxy_http_call", upstream, size, 256, pairs_size(CALL_HEAD), 0, 0, 0, 0, 1000, 1024)


GRANTED = {"capabilities": {"allowed_hosts": ["cluster:service"]}}
SELF = {"capabilities": {"allowed_hosts": ["cluster:self"]}}
BACK_HEAD = ((":method", "GET"), (":path", "/calls-self"), (":authority", "self"))
ANSWER = callback("proxy_on_http_call_response", "")
HEAD = pairs(256, CALL_HEAD)
BOMB = zlib.compress(bytes(4_300_000), 9)
FULL_BOMB = zlib.compress(bytes(4 << 20), 9)
COUNT = "(global $n (mut i32) (i32.const 0))"
STOP = (
    "(global.set $n (i32.add (global.get $n) (i32.const 1))) (if (i32.gt_u (global.get $n) (i32.const {times})) (then {end}))"
)
QUEUE = (data(64, b"flood"), callback("proxy_on_configure", call("proxy_register_shared_queue", 64, 5, 1024)))
PUT = "(drop (call $proxy_enqueue_shared_queue (i32.load (i32.const 1024)) (i32.const {at}) (i32.const {size})))"
TAKE = "(drop (call $proxy_dequeue_shared_queue (local.get 1) (i32.const 1032) (i32.const 1036)))"
BURN = "(local.set $i (i32.const {times})) (loop $b (br_if $b (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"

FLOODS = [
    flood("log-lines", "2,000 log lines in each of ten calls", repeat(2000, call("proxy_log", 2, 0, 40)), settings=RICH, asks=(GET,) * 10,
          counted=("penstock_filter_log_lines_dropped_total",)),
    flood("log-long", "log lines of 60,000 control characters", repeat(100, call("proxy_log", 4, 0, 60_000)), settings=RICH,
          counted=("penstock_filter_log_lines_dropped_total",)),
    flood("log-stdout", "the same by WASI's fd_write", repeat(300, call("wasi_fd_write", 1, 1024, 8, 2048)),
          data(1024, struct.pack("<16I", *[0, 4096] * 8)), settings=RICH, counted=("penstock_filter_log_lines_dropped_total",)),
    flood("log-forged", "log lines that look like the gateway's own", repeat(5, call("proxy_log", 4, 64, 70)),
          data(64, b'x"}\n{"level":"critical","event":"worker cannot start"}\r\n\x1b[2J\xff\xfe' + b"\0" * 20), settings=RICH,
          logged=("filter_log",), holds="one escaped line each"),
    flood("metrics", "500 new metrics in each of six calls", repeat(500, stored("m") + stored("mmmm", "(global.get $n)") + call("proxy_define_metric", 0, 64, 9, 1024))
          + "(global.set $n (i32.add (global.get $n) (i32.const 1)))", COUNT, data(64, b"m"), settings=RICH, asks=(GET,) * 6,
          counted=errors("proxy_define_metric", "InternalFailure")),
    flood("metrics-names", "metric names that collide once they are written for Prometheus, or break its text",
          "".join(call("proxy_define_metric", kind, 64 + 32 * i, 16, 1024) for i in range(6) for kind in (0, 1, 2))
          + "".join(call("proxy_increment_metric", one, 1) for one in (4, 5, 8, 9)),
          *(data(64 + 32 * i, name.ljust(16, b"_")) for i, name in enumerate((b"a-b", b"a.b", b"a_b", b'a"} 1\nx{', b"\xff\xfe\0", b"requests_total"))),
          settings=RICH, holds="200; /metrics stays readable"),
    flood("metrics-values", "a histogram fed 300 times a call with the largest numbers", call("proxy_define_metric", 2, 64, 1, 1024)
          + repeat(300, call("proxy_record_metric", 6, -1)), data(64, b"h"), settings=RICH),
    flood("shared-data", "1 MiB values until there is no more room", repeat(20, "(i32.store (i32.const 64) (local.get $i))" + call("proxy_set_shared_data", 64, 4, 0, 1_000_000, 0)),
          settings=RICH, memory="16", counted=errors("proxy_set_shared_data", "InternalFailure")),
    flood("shared-keys", "5,000 small entries in 20 calls", repeat(250, "(i32.store (i32.const 64) (i32.add (local.get $i) (global.get $n)))" + call("proxy_set_shared_data", 64, 4, 0, 1, 0))
          + "(global.set $n (i32.add (global.get $n) (i32.const 250)))", COUNT, settings=RICH, asks=(GET,) * 20),
    flood("shared-reads", "1 MiB read back as often as it goes", call("proxy_set_shared_data", 64, 4, 0, 1_000_000, 0)
          + repeat(100, call("proxy_get_shared_data", 64, 4, 1024, 1028, 1032)), settings=RICH, memory="16", answers=frozenset({200, 503}),
          reasons=frozenset({"fuel", "deadline"}), holds="503; reason `fuel` or `deadline`: each byte is paid for"),
    flood("queue-items", "2,000 items in a queue that nobody reads", repeat(400, PUT.format(at=0, size=100)), *QUEUE, settings=RICH, asks=(GET,) * 5,
          counted=errors("proxy_enqueue_shared_queue", "InternalFailure")),
    flood("queues", "200 queues", repeat(200, stored("q") + call("proxy_register_shared_queue", 64, 5, 1024)), data(64, b"q"), settings=RICH,
          counted=errors("proxy_register_shared_queue", "InternalFailure")),
    flood("queue-echo", "a queue whose callback puts in what it takes out, for ever", PUT.format(at=0, size=10), *QUEUE, COUNT,
          callback("proxy_on_queue_ready", TAKE + STOP.format(times=2000, end="(return)") + PUT.format(at=0, size=10)), linger=0.5),
    flood("queue-echo-slow", "the same, with calls that burn all of their fuel but a little", PUT.format(at=0, size=10), *QUEUE, COUNT,
          callback("proxy_on_queue_ready", TAKE + STOP.format(times=100, end="(return)") + PUT.format(at=0, size=10) + BURN.format(times=700_000), locals_=LOOP), linger=1.0),
    flood("well-together", "20 clients at once, each of whose calls burns nearly all of its fuel and ends well", BURN.format(times=900_000), together=20,
          holds="200; each waits for all others, since calls that end well are not cut short: `fuel` is the limit"),
    flood("ticks", "ticks of 1 ms that burn all of their fuel but a little", call("proxy_set_tick_period_milliseconds", 1), COUNT,
          callback("proxy_on_tick", STOP.format(times=200, end=call("proxy_set_tick_period_milliseconds", 0) + "(return)") + BURN.format(times=900_000), locals_=LOOP), linger=1.0),
    flood("ticks-set", "the tick period set 200 times a call", repeat(200, call("proxy_set_tick_period_milliseconds", 1)), callback("proxy_on_tick", call("proxy_set_tick_period_milliseconds", 0)),
          settings=RICH),
    flood("calls", "200 http calls in each call", repeat(200, http()), HEAD, data(64, b"service"), ANSWER, settings={**RICH, **GRANTED}, linger=0.2,
          counted=errors("proxy_http_call", "InternalFailure")),
    flood("calls-chain", "an http call for the answer of each http call", http(), HEAD, data(64, b"service"), COUNT,
          callback("proxy_on_http_call_response", STOP.format(times=300, end="(return)") + http()), settings={**RICH, **GRANTED}, linger=1.0),
    flood("calls-denied", "200 http calls to where it may not call", repeat(200, http()), HEAD, data(64, b"service"), settings=RICH,
          counted=errors("proxy_http_call", "BadArgument"), logged=("callout denied",)),
    flood("calls-hosts", "http calls to hosts that are names of addresses inside", repeat(50, http(64, 9) + http(128, 15) + http(192, 16)), HEAD,
          data(64, b"localhost"), data(128, b"169.254.169.254"), data(192, b"[::ffff:7f00:1]"), settings=RICH, counted=errors("proxy_http_call", "BadArgument"),
          logged=("callout denied",)),
    flood("calls-grpc", "gRPC calls that are refused and told of, and more of them when they are", repeat(200, call("proxy_grpc_call", 64, 9, 80, 1, 80, 1, 0, 0, 0, 0, 1000, 1024)),
          data(64, b"\x0a\x07\x0a\x05nope!"), data(80, b"x"), COUNT,
          callback("proxy_on_grpc_close", STOP.format(times=1000, end="(return)") + repeat(200, call("proxy_grpc_call", 64, 9, 80, 1, 80, 1, 0, 0, 0, 0, 1000, 1024)), locals_=LOOP),
          settings=RICH, linger=1.0, counted=(ERRORS,)),
    Case("calls-self", "flood", "http calls to the gateway's own listener, on the route that makes them",
         guest("(if (i32.lt_u (global.get $n) (i32.const 500)) (then (global.set $n (i32.add (global.get $n) (i32.const 1)))"
               + call("proxy_http_call", 64, 4, 256, pairs_size(BACK_HEAD), 0, 0, 0, 0, 1000, 1024) + "))", COUNT, data(64, b"self"), pairs(256, BACK_HEAD), ANSWER), SELF,
         answers=OK, linger=1.5, counted=(), holds="200; no more than `limits.calls` go round at a time"),
    flood("headers-100k", "100,000 headers", "(loop $l (global.set $n (i32.add (global.get $n) (i32.const 1)))"
          + "(br_if $l (i32.and (i32.eqz " + call("proxy_add_header_map_value", 0, 64, 5, 64, 5).removeprefix("(drop ").removesuffix(")")
          + ") (i32.lt_u (global.get $n) (i32.const 100000)))))", COUNT, data(64, b"hhhhh"), settings=RICH,
          counted=errors("proxy_add_header_map_value", "InternalFailure")),
    flood("headers-bytes", "headers of 60,000 bytes", repeat(100, call("proxy_add_header_map_value", 0, 64, 5, 4096, 60_000)), data(64, b"hhhhh"),
          data(4096, b"v" * 60_000), memory="2", settings=RICH, counted=errors("proxy_add_header_map_value", "InternalFailure"),
          answers=frozenset({200, 431}), holds="200; what is over `limits.header_bytes` is refused"),
    flood("headers-churn", "one header replaced and removed 20,000 times", repeat(20_000, call("proxy_replace_header_map_value", 0, 64, 1, 4096, 1000)
          + call("proxy_remove_header_map_value", 0, 64, 1)), data(64, b"h"), data(4096, b"v" * 1000), memory="2", settings=RICH),
    flood("headers-joined", "a value joined to itself until it is too long", repeat(3000, call("proxy_add_header_map_value", 0, 64, 6, 4096, 1000)), data(64, b"accept"),
          data(4096, b"v" * 1000), memory="2", settings=RICH, counted=errors("proxy_add_header_map_value", "InternalFailure"),
          answers=frozenset({200, 431}), holds="200; what is over `limits.header_bytes` is refused"),
    flood("body-1000x", "a body of 64 KiB, grown a thousand times", repeat(1000, call("proxy_set_buffer_bytes", 0, 0x7FFF_FFFF, 0, 0, 65_536)), on="proxy_on_request_body",
          settings=RICH, asks=(Ask("POST", body=65_536),) * 2, answers=frozenset({500, 503, RESET, 200}), counted=errors("proxy_set_buffer_bytes", "InternalFailure"),
          holds="the growth ends at four times `limits.body_buffer`"),
    flood("body-grown", "the same for a response, four times `body_buffer` in each piece",
          repeat(64, call("proxy_set_buffer_bytes", 1, 0x7FFF_FFFF, 0, 0, 65_000)), callback("proxy_on_response_headers", call("proxy_remove_header_map_value", 2, 64, 14)),
          data(64, b"content-length"), on="proxy_on_response_body", settings=RICH, asks=(Ask(answer=200_000),) * 3, growth=128),
    flood("body-churn", "a body replaced 5,000 times", repeat(5000, call("proxy_set_buffer_bytes", 0, 0, 0xFFFF_FFFF, 0, 1000)), on="proxy_on_request_body", settings=RICH,
          asks=(Ask("POST", body=1000),), answers=frozenset({200, 500, 503})),
    flood("replies", "10,000 local replies in one call", repeat(10_000, call("proxy_send_local_response", 429, 0, 0, 64, 4, 0, 0, -1)), data(64, b"slow"), settings=RICH,
          answers=frozenset({429}), holds="the first one: 429"),
    flood("replies-both", "a local reply from the request, and one from each callback that it then passes",
          call("proxy_send_local_response", 429, 0, 0, 64, 4, 0, 0, -1),
          callback("proxy_on_response_headers", call("proxy_send_local_response", 418, 0, 0, 64, 4, 0, 0, -1)),
          callback("proxy_on_response_body", call("proxy_send_local_response", 502, 0, 0, 64, 4, 0, 0, -1)),
          callback("proxy_on_log", call("proxy_send_local_response", 200, 0, 0, 64, 4, 0, 0, -1)), data(64, b"slow"), settings=RICH,
          answers=frozenset({418, 429, RESET}), holds="one answer"),
    flood("replies-large", "a local reply with a body of 4 MiB", call("proxy_send_local_response", 200, 0, 0, 0, 4 << 20, 0, 0, -1), memory="65", settings=RICH,
          asks=(GET,) * 5, growth=128),
    flood("continues", "10,000 continues of streams that are not held", repeat(10_000, call("proxy_continue_stream", 0) + call("proxy_continue_stream", 1)), settings=RICH),
    flood("effective", "300 changes of the effective context", repeat(300, call("proxy_set_effective_context", 1) + call("proxy_set_effective_context", 0)), settings=RICH),
    flood("properties-read", "as many properties read as the fuel pays for", "(loop $l " + call("proxy_get_property", 64, 15, 1024, 1028) + "(br $l))", data(64, b"request\0headers"),
          answers=frozenset({503}), reasons=FUEL),
    flood("properties-set", "500 properties set", repeat(500, stored("p") + call("proxy_set_property", 64, 5, 0, 600)), data(64, b"p"), settings=RICH,
          counted=errors("proxy_set_property", "InternalFailure")),
    flood("clock", "the clock read for ever", "(loop $l " + call("proxy_get_current_time_nanoseconds", 1024) + "(br $l))", answers=frozenset({503}), reasons=FUEL),
    flood("random", "64 KiB of randomness for ever", "(loop $l " + call("wasi_random_get", 0, 65536) + "(br $l))", answers=frozenset({503}), reasons=FUEL),
    flood("foreign-bomb", "uncompress of what would be 4.3 MB, over the limit, as often as it goes",
          "(loop $l " + call("proxy_call_foreign_function", 64, 10, 4096, len(BOMB), 1024, 1028) + "(br $l))", data(64, b"uncompress"), data(4096, BOMB),
          answers=frozenset({503}), reasons=FUEL | {"deadline"}, holds="503; reason `fuel` or `deadline`"),
    flood("foreign-full", "uncompress of 4 MiB as often as it goes", "(loop $l " + call("proxy_call_foreign_function", 64, 10, 4096, len(FULL_BOMB), 1024, 1028) + "(br $l))",
          data(64, b"uncompress"), data(4096, FULL_BOMB), memory="100", answers=frozenset({503}), reasons=FUEL | {"deadline"}, holds="503; reason `fuel` or `deadline`"),
    flood("foreign-compress", "compress of 4 MiB of text, in one call", "(local.set $i (i32.const 4194300)) (loop $l (i32.store (i32.add (local.get $i) (i32.const 65536)) (i32.mul (local.get $i) (i32.const 0x41a7)))"
          " (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 4)))))" + call("proxy_call_foreign_function", 64, 8, 65536, 4 << 20, 1024, 1028), data(64, b"compress"), memory="100",
          settings={"fuel": 50_000_000, "deadline": "500ms"}, answers=frozenset({503}), reasons=FUEL, holds="503; reason `fuel`, before the work is begun"),
]  # fmt: skip

CASES = FLOODS
