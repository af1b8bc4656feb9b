/* The proxy-wasm host functions that run inside Wasm, and the way from Python into a filter's callbacks.
 *
 * Order inside a host function, as in proxy-wasm-cpp-host: enum arguments, then pointers read, then the work, then results
 * written. Return codes are those of Envoy 1.40.
 */
#include "core.h"

call_state call;

/* ---- Scratch ---- */
u32 scratch_top;

void scratch_reset(void) { scratch_top = call.kept = (PERSISTENT_ROOM + PERSISTENT + 15) & ~15u; }

u32 scratch(u32 size) {
  u32 at = (scratch_top + 7) & ~7u;
  u64 end = (u64)at + size, have = (u64)__builtin_wasm_memory_size(0) << 16;
  if (end > have && __builtin_wasm_memory_grow(0, (u32)((end - have + 65535) >> 16)) == (size_t)-1) __builtin_trap();
  scratch_top = (u32)end;
  return at;
}

/* ---- The filter's memory ---- */
static vm *running(void) { return AT(vm, call.vm); }

/* No argument is longer, or than a body may be: the stream memory does not shrink again. */
enum { LONGEST_ARGUMENT = 4 << 20, SMALL_ARGUMENT = 4 << 10 };

/* Why a host function refuses, for the filter's author: which argument, and what is wrong with it. Said right before `failed`,
 * and only then: a call that succeeds pays nothing for it. */
static __attribute__((noinline)) u32 bad(u32 status, const char *argument, const char *why) {
  call.a[12] = ADDRESS(argument), call.a[13] = ADDRESS(why);
  return status;
}
static u32 outside(const char *argument) {
  return bad(INVALID_MEMORY_ACCESS, argument, "is not in the filter's memory, or has more than 4 MiB");
}
static u32 no_room(void) { return bad(INVALID_MEMORY_ACCESS, "result", "the filter's allocator gave no room for it"); }
static u32 no_such(const char *argument) { return bad(BAD_ARGUMENT, argument, "there is no such number"); }
static u32 put_word(u32 out, u32 value) { return guest_store(out, value) ? outside("address for the result") : OK; }

u32 guest_take(u32 from, u32 size, u32 *at) {
  /* Before scratch grows for a size that is a lie; a small one is found out by the read. */
  if (size > SMALL_ARGUMENT && guest_check(from, size)) return INVALID_MEMORY_ACCESS;
  if (size > LONGEST_ARGUMENT && size > running()->max_body) return INVALID_MEMORY_ACCESS;
  *at = scratch(size);
  return guest_read(*at, from, size);
}

u32 guest_put(u32 from, u32 size, u32 out_pointer, u32 out_size) {
  u32 at = 0;
  if (size) { /* never allocate(0): Go's allocator panics */
    call.in_allocator = 1;
    at = guest_allocate(size);
    call.in_allocator = 0;
    if (!at || guest_write(at, from, size)) return no_room();
  }
  return guest_store(out_pointer, at) | guest_store(out_size, size) ? outside("address for the result") : OK;
}

static __attribute__((noinline, noreturn)) void refuse(void) {
  static const char in_allocator[] = "a host function other than proxy_log was called by the allocator";
  static const char at_start[] = "a host function other than proxy_log was called before proxy_on_vm_start";
  if (call.in_allocator) log_text(5, ADDRESS(in_allocator), sizeof in_allocator - 1);
  else log_text(5, ADDRESS(at_start), sizeof at_start - 1);
  __builtin_trap();
}
u32 forbidden(void) {
  if (call.in_allocator || call.phase == PHASE_START) refuse();
  return 0;
}

/* The end of a host function: its scratch is free, unless it was called by the allocator, in the middle of another. */
u32 failed(u32 status, u32 function) {
  if (!call.in_allocator) scratch_top = call.kept;
  if (status > NOT_FOUND) {
    call.a[10] = function, call.a[11] = status, call.result |= RESULT_ERRORS, host(HOST_ERROR);
    call.a[12] = call.a[13] = 0;
  }
  return status;
}

/* Names of host functions for the debug log: index = position here; abi/proxy_wasm/host.py holds the same list. */
enum function { F_LOG, F_GET_MAP_VALUE, F_ADD_MAP_VALUE, F_REPLACE_MAP_VALUE, F_REMOVE_MAP_VALUE, F_GET_MAP_PAIRS, F_SET_MAP_PAIRS,
       F_GET_MAP_SIZE, F_GET_BUFFER, F_SET_BUFFER, F_GET_BUFFER_STATUS, F_LOCAL_RESPONSE, F_CONTINUE, F_CLOSE, F_DEFINE_METRIC,
       F_INCREMENT_METRIC, F_RECORD_METRIC, F_GET_METRIC, F_GET_PROPERTY, F_SET_PROPERTY, F_SET_TICK, F_SET_EFFECTIVE, F_DONE,
       F_GET_STATUS, F_TIME, F_GET_CONFIGURATION, F_GET_LOG_LEVEL, F_CLEAR_ROUTE, F_HTTP_CALL, F_GRPC_CALL, F_GRPC_STREAM,
       F_GRPC_SEND, F_GRPC_CANCEL, F_GRPC_CLOSE, F_GET_SHARED, F_SET_SHARED, F_REGISTER_QUEUE, F_RESOLVE_QUEUE, F_ENQUEUE,
       F_DEQUEUE, F_FOREIGN, F_RESOLVE_DNS };

/* ---- Logging. Lines wait in `logs` until the callback is over; a trap does not lose them. ---- */
enum { LOGS = 64 << 10 };
struct logs { u32 used, dropped; u8 bytes[LOGS]; } logs; /* {u32 level, u32 size, bytes padded to 4}... */

void log_text(u32 level, u32 from, u32 size) {
  if (level < running()->log_level) return;
  u32 kept = size > running()->log_line ? running()->log_line : size, padded = (kept + 3) & ~3u;
  call.result |= RESULT_LOGS;
  if (logs.used + 8 + padded > LOGS) {
    logs.dropped++;
    return;
  }
  u32 at = ADDRESS(logs.bytes) + logs.used;
  copy(at + 8, from, kept);
  *AT(u32, at) = level, *AT(u32, at + 4) = kept;
  logs.used += 8 + padded;
}

EXPORT(proxy_log) u32 proxy_log(u32 level, u32 message, u32 size) {
  u32 at;
  if (level > 5) return failed(no_such("level"), F_LOG);
  if (guest_check(message, size)) return failed(outside("message"), F_LOG);
  if (level < running()->log_level) return OK;
  if (size > running()->log_line) size = running()->log_line;
  u32 saved = scratch_top;
  if (guest_take(message, size, &at)) return failed(outside("message"), F_LOG);
  log_text(level, at, size), scratch_top = saved;
  return OK;
}

EXPORT(proxy_get_log_level) u32 proxy_get_log_level(u32 out) {
  return forbidden() ? 0 : failed(put_word(out, running()->log_level), F_GET_LOG_LEVEL);
}

/* ---- Header maps ---- */
static map *readable(u32 m) { return call.readable >> m & 1 ? map_of(m) : 0; }
static map *writable(u32 m) { return call.writable >> m & 1 ? map_of(m) : 0; }
static u32 shut(void) { return bad(BAD_ARGUMENT, "map", "is not open in this callback"); }

/* The key of a header call in scratch, in lower case; `host` is :authority in request maps. */
static u32 take_key(u32 m, u32 from, u32 size, u32 *key, u32 *key_len) {
  if (guest_take(from, size, key)) return outside("key");
  u8 *p = AT(u8, *key);
  fold(p, (size + 7) & ~7u); /* whole words: what lies behind it in scratch, which is aligned, is nobody's */
  *key_len = size;
  if (m == REQUEST_HEADERS && IS("host", p, size)) *key = ADDRESS(":authority"), *key_len = 10;
  return OK;
}

static u32 get_value(u32 m, u32 key, u32 key_size, u32 out, u32 out_size) {
  if (m >= MAPS) return no_such("map");
  if (take_key(m, key, key_size, &key, &key_size)) return INVALID_MEMORY_ACCESS;
  map *M = readable(m);
  if (!M) return call.phase == PHASE_LOG ? NOT_FOUND : shut();
  int i = map_find(M, AT(u8, key), key_size, 0);
  if (i < 0) return running()->abi == 0x000100 ? guest_put(0, 0, out, out_size) : NOT_FOUND;
  entry e = AT(entry, M->entries)[i];
  return guest_put(e.value, e.value_len, out, out_size);
}

EXPORT(proxy_get_header_map_value) u32 proxy_get_header_map_value(u32 m, u32 key, u32 key_size, u32 out, u32 out_size) {
  return forbidden() ? 0 : failed(get_value(m, key, key_size, out, out_size), F_GET_MAP_VALUE);
}

/* A filter may not make the heads of a stream grow without end (max_headers, max_header_bytes); they may have come larger. */
static int too_large(const map *M, u64 n, u64 bytes) {
  return (n > running()->max_headers && n > M->n) || (bytes > running()->max_header_bytes && bytes > M->bytes);
}

static u32 over(void) { return bad(INTERNAL_FAILURE, "map", "would be over limits.headers or limits.header_bytes"); }

/* In the last body callback trailers may be written; an edit, or asking for the map's size, begins them (Envoy: getMap). */
static void begin_trailers(u32 m) {
  if (m != REQUEST_TRAILERS && m != RESPONSE_TRAILERS) return;
  call.readable |= 1u << m;
  if (call.effective == call.context) call.result |= RESULT_TRAILERS;
}
static void edited(u32 m) { stream.head.dirty |= 1u << m, begin_trailers(m); }

enum edit { ADD, REPLACE, REMOVE };

static u32 edit_map(enum edit how, u32 m, u32 key, u32 key_size, u32 value, u32 value_size) {
  if (m >= MAPS) return no_such("map");
  if (take_key(m, key, key_size, &key, &key_size)) return INVALID_MEMORY_ACCESS;
  if (how != REMOVE && guest_take(value, value_size, &value)) return outside("value");
  map *M = writable(m);
  if (!M) return shut();
  int first = map_find(M, AT(u8, key), key_size, 0), joins = how == ADD && first >= 0 && is_inline(m, AT(u8, key), key_size);
  u32 there = 0;
  u64 n = M->n + (how != REMOVE && !joins), bytes = (u64)M->bytes + (joins ? 1 : key_size) + value_size;
  if (how != ADD)
    for (int i = first; i >= 0; i = map_find(M, AT(u8, key), key_size, (u32)i + 1))
      there++, bytes -= key_size + AT(entry, M->entries)[i].value_len;
  if (how != REMOVE && too_large(M, n - there, bytes)) return over();
  edited(m);
  if (joins) return map_join_value(M, (u32)first, value, value_size), OK;
  for (int i = first; there && (i = map_find(M, AT(u8, key), key_size, (u32)i)) >= 0; there--) map_remove_at(M, (u32)i);
  if (how != REMOVE) map_add(M, key, key_size, value, value_size);
  return OK;
}

EXPORT(proxy_add_header_map_value) u32 proxy_add_header_map_value(u32 m, u32 k, u32 k_size, u32 v, u32 v_size) {
  return forbidden() ? 0 : failed(edit_map(ADD, m, k, k_size, v, v_size), F_ADD_MAP_VALUE);
}
EXPORT(proxy_replace_header_map_value) u32 proxy_replace_header_map_value(u32 m, u32 k, u32 k_size, u32 v, u32 v_size) {
  return forbidden() ? 0 : failed(edit_map(REPLACE, m, k, k_size, v, v_size), F_REPLACE_MAP_VALUE);
}
EXPORT(proxy_remove_header_map_value) u32 proxy_remove_header_map_value(u32 m, u32 k, u32 k_size) {
  return forbidden() ? 0 : failed(edit_map(REMOVE, m, k, k_size, 0, 0), F_REMOVE_MAP_VALUE);
}

EXPORT(proxy_get_header_map_pairs) u32 proxy_get_header_map_pairs(u32 m, u32 out, u32 out_size) {
  forbidden();
  if (m >= MAPS) return failed(no_such("map"), F_GET_MAP_PAIRS);
  map *M = readable(m);
  u32 size = 0, block = M && M->n ? map_serialize(M, &size) : 0;
  return failed(guest_put(block, size, out, out_size), F_GET_MAP_PAIRS);
}

EXPORT(proxy_set_header_map_pairs) u32 proxy_set_header_map_pairs(u32 m, u32 from, u32 size) {
  forbidden();
  u32 at;
  if (m >= MAPS) return failed(no_such("map"), F_SET_MAP_PAIRS);
  if (guest_take(from, size, &at)) return failed(outside("pairs"), F_SET_MAP_PAIRS);
  map *M = writable(m);
  if (!M) return failed(shut(), F_SET_MAP_PAIRS);
  u64 n = size < 4 ? 0 : *AT(u32, at), bytes = size < 4 + 10 * n ? 0 : size - 4 - 10 * n; /* n is a lie: it will decode to nothing */
  if (n <= PAIRS_COUNT && too_large(M, n, bytes)) return failed(over(), F_SET_MAP_PAIRS);
  map_deserialize(m, at, size);
  edited(m);
  return OK;
}

EXPORT(proxy_get_header_map_size) u32 proxy_get_header_map_size(u32 m, u32 out) {
  forbidden();
  if (m >= MAPS) return failed(no_such("map"), F_GET_MAP_SIZE);
  map *M = m >= GRPC_INITIAL ? 0 : writable(m);
  if (M) begin_trailers(m);
  return failed(M ? put_word(out, M->bytes) : shut(), F_GET_MAP_SIZE);
}

/* Envoy's inline headers hold one value: adding to one that is there joins with a comma. Found by adding 228 names twice in the
 * real Envoy 1.40, in each map (tests/conformance). By length: what is looked up is mostly not among them. */
static const char *const inline_request[] = {
  [2] = "te",
  [3] = "via",
  [5] = ":path",
  [6] = "accept" "expect" "origin" "pragma",
  [7] = "referer" "upgrade" ":method" ":scheme",
  [8] = "cdn-loop" "if-match" "if-range",
  [9] = ":protocol",
  [10] = "connection" "keep-alive" "user-agent" ":authority",
  [12] = "content-type" "grpc-timeout" "proxy-status" "x-request-id",
  [13] = "authorization" "cache-control" "if-none-match",
  [14] = "authentication" "content-length",
  [15] = "accept-encoding" "x-envoy-ip-tags" "x-forwarded-for",
  [16] = "content-encoding" "proxy-connection" "x-envoy-internal" "x-envoy-retry-on" "x-forwarded-host" "x-forwarded-port",
  [17] = "if-modified-since" "transfer-encoding" "x-client-trace-id" "x-forwarded-proto",
  [19] = "if-unmodified-since" "x-envoy-force-trace" "x-envoy-max-retries",
  [20] = "grpc-accept-encoding" "x-envoy-original-url",
  [21] = "x-envoy-attempt-count" "x-envoy-original-host" "x-envoy-original-path" "x-envoy-retry-grpc-on",
  [23] = "x-forwarded-client-cert",
  [24] = "x-envoy-external-address" "x-envoy-is-timeout-retry",
  [27] = "x-envoy-decorator-operation",
  [29] = "access-control-request-method",
  [30] = "access-control-request-headers" "x-envoy-expected-rq-timeout-ms" "x-envoy-retriable-header-names"
        "x-envoy-retriable-status-codes" "x-envoy-upstream-alt-stat-name" "x-envoy-upstream-rq-timeout-ms",
  [31] = "x-envoy-downstream-service-node",
  [32] = "x-envoy-hedge-on-per-try-timeout",
  [34] = "x-envoy-downstream-service-cluster",
  [35] = "x-envoy-upstream-stream-duration-ms",
  [38] = "access-control-request-private-network" "x-envoy-upstream-rq-per-try-timeout-ms",
  [40] = "x-envoy-upstream-rq-timeout-alt-response",
};
static const char *const inline_response[] = {
  [3] = "age" "via",
  [4] = "date" "etag" "vary",
  [6] = "server",
  [7] = "expires" "upgrade" ":status",
  [8] = "location",
  [10] = "connection" "keep-alive",
  [11] = "grpc-status",
  [12] = "content-type" "grpc-message" "proxy-status" "x-request-id",
  [13] = "cache-control" "last-modified",
  [14] = "content-length",
  [16] = "content-encoding" "proxy-connection" "x-envoy-degraded",
  [17] = "transfer-encoding",
  [19] = "x-envoy-ratelimited",
  [21] = "x-envoy-attempt-count",
  [22] = "access-control-max-age",
  [23] = "x-envoy-upstream-canary",
  [27] = "access-control-allow-origin" "x-envoy-decorator-operation",
  [28] = "access-control-allow-headers" "access-control-allow-methods",
  [29] = "access-control-expose-headers" "x-envoy-upstream-service-time",
  [32] = "access-control-allow-credentials",
  [35] = "x-envoy-immediate-health-check-fail",
  [36] = "access-control-allow-private-network",
  [38] = "x-envoy-upstream-healthchecked-cluster",
};

int is_inline(u32 m, const u8 *key, u32 n) {
  const char *p = 0;
  if (m == REQUEST_HEADERS && n < sizeof inline_request / sizeof *inline_request) p = inline_request[n];
  if (m == RESPONSE_HEADERS && n < sizeof inline_response / sizeof *inline_response) p = inline_response[n];
  for (; p && *p; p += n)
    if (equal((const u8 *)p, key, n)) return 1;
  return 0;
}

/* ---- Buffers ---- */
static void reserve(buffer *b, u32 need) {
  if (need <= b->capacity) return;
  u32 capacity = need + (need >> 1);
  /* The last block grows where it is: a body that grows piece by piece would else be copied, and touch new pages, at each step. */
  if (b->data && b->data + b->capacity == scratch_top && call.kept == scratch_top && !(b->data & 7)) scratch_top = b->data;
  u32 at = scratch(capacity);
  call.kept = scratch_top;
  if (at != b->data) copy(at, b->data, b->len);
  b->data = at, b->capacity = capacity;
}

static u32 get_bytes(u32 b, u32 start, u32 max, u32 out, u32 out_size) {
  if (b >= BUFFERS) return no_such("buffer");
  buffer *B = &call.buffers[b];
  if (!(B->present & READABLE)) return NOT_FOUND;
  u32 from = start < B->len ? start : B->len, size = B->len - from < max ? B->len - from : max;
  return guest_put(B->data + from, size, out, out_size);
}

EXPORT(proxy_get_buffer_bytes) u32 proxy_get_buffer_bytes(u32 b, u32 start, u32 max, u32 out, u32 out_size) {
  return forbidden() ? 0 : failed(get_bytes(b, start, max, out, out_size), F_GET_BUFFER);
}

EXPORT(proxy_get_buffer_status) u32 proxy_get_buffer_status(u32 b, u32 out_size, u32 out_flags) {
  forbidden();
  if (b >= BUFFERS) return failed(no_such("buffer"), F_GET_BUFFER_STATUS);
  if (!(call.buffers[b].present & READABLE)) return NOT_FOUND;
  return failed(put_word(out_size, call.buffers[b].len) | put_word(out_flags, 0), F_GET_BUFFER_STATUS);
}

/* Envoy's three cases: start 0 drops `size` bytes from the front and prepends; start at or past the end appends; else refused. */
static u32 set_bytes(u32 b, u32 start, u32 size, u32 from, u32 from_size) {
  if (b >= BUFFERS) return no_such("buffer");
  buffer *B = &call.buffers[b];
  if (!(B->present & READABLE)) return NOT_FOUND;
  if (guest_check(from, from_size)) return outside("value");
  if (!(B->present & WRITABLE)) return bad(BAD_ARGUMENT, "buffer", "cannot be set in this callback");
  u32 drop = start ? 0 : size < B->len ? size : B->len;
  if (start && start < B->len) return bad(BAD_ARGUMENT, "start", "is neither 0 nor the end: Envoy does not insert either");
  u64 len = (u64)B->len - drop + from_size;
  if (len > running()->max_body) return bad(INTERNAL_FAILURE, "value", "the body would be over four times limits.body_buffer");
  reserve(B, (u32)len);
  if (start) {
    guest_read(B->data + B->len, from, from_size);
  } else {
    copy(B->data + from_size, B->data + drop, B->len - drop);
    guest_read(B->data, from, from_size);
  }
  B->len = (u32)len;
  call.result |= RESULT_BODY;
  return OK;
}

EXPORT(proxy_set_buffer_bytes) u32 proxy_set_buffer_bytes(u32 b, u32 start, u32 size, u32 from, u32 from_size) {
  return forbidden() ? 0 : failed(set_bytes(b, start, size, from, from_size), F_SET_BUFFER);
}

EXPORT(proxy_get_configuration) u32 proxy_get_configuration(u32 out, u32 out_size) { /* 0.1.0 */
  forbidden();
  buffer *B = &call.buffers[call.buffers[PLUGIN_CONFIGURATION].present ? PLUGIN_CONFIGURATION : VM_CONFIGURATION];
  return failed(guest_put(B->data, B->len, out, out_size), F_GET_CONFIGURATION);
}

/* ---- Control of the stream: noted here, done by the chain when the callback is over ---- */
enum { LONGEST_DETAILS = 1 << 10 };

EXPORT(proxy_send_local_response)
u32 proxy_send_local_response(u32 status, u32 details, u32 details_size, u32 body, u32 body_size, u32 headers, u32 headers_size,
                              u32 grpc) {
  forbidden();
  if (guest_check(details, details_size) || guest_check(body, body_size) || guest_check(headers, headers_size))
    return failed(outside("details, body or headers"), F_LOCAL_RESPONSE);
  static const char too_long[] = "would be over limits.body_buffer, limits.headers or limits.header_bytes";
  u32 again = call.result & RESULT_LOCAL_REPLY, block = 0, text = 0;
  if (body_size > running()->max_body || headers_size > running()->max_header_bytes + 10 * running()->max_headers + 4)
    return failed(bad(INTERNAL_FAILURE, "body or headers", too_long), F_LOCAL_RESPONSE);
  if (details_size > LONGEST_DETAILS) details_size = LONGEST_DETAILS;
  if (!again) call.reply_details = scratch(LONGEST_DETAILS);
  guest_read(call.reply_details, details, details_size), call.reply_details_len = details_size;
  if (again) return OK; /* the first response stands, with the details of the last (Envoy) */
  u32 wrong = guest_take(body, body_size, &text) | guest_take(headers, headers_size, &block) ? outside("body or headers") : OK;
  if (!wrong && headers_size >= 4 && *AT(u32, block) <= PAIRS_COUNT && *AT(u32, block) > running()->max_headers)
    wrong = bad(INTERNAL_FAILURE, "headers", too_long);
  if (wrong) return failed(wrong, F_LOCAL_RESPONSE);
  call.reply_body = text, call.reply_body_len = body_size, call.reply_headers = block, call.reply_headers_len = headers_size;
  call.reply_status = status, call.reply_grpc = grpc, call.result |= RESULT_LOCAL_REPLY;
  call.kept = scratch_top;
  return OK;
}

static u32 continue_stream(u32 which) {
  if (which > 3) return no_such("stream");
  if (which == 3) return bad(UNIMPLEMENTED, "stream", "an upstream TCP stream cannot be continued");
  if (which == 2) return OK; /* a TCP stream's: there is none to continue, and Envoy says so with a yes */
  call.result |= which ? RESULT_CONTINUE_RESPONSE : RESULT_CONTINUE_REQUEST;
  /* Envoy drops its pointers to the request's maps here, for either stream. */
  call.readable &= ~(1u << REQUEST_HEADERS | 1u << REQUEST_TRAILERS), call.writable &= ~(1u << REQUEST_HEADERS | 1u << REQUEST_TRAILERS);
  return OK;
}

EXPORT(proxy_continue_stream) u32 proxy_continue_stream(u32 which) {
  return forbidden() ? 0 : failed(continue_stream(which), F_CONTINUE);
}
EXPORT(proxy_close_stream) u32 proxy_close_stream(u32 which) {
  forbidden();
  if (which > 3) return failed(no_such("stream"), F_CLOSE);
  if (which < 2) call.result |= which ? RESULT_CLOSE_RESPONSE : RESULT_CLOSE_REQUEST;
  return OK;
}
EXPORT(proxy_continue_request) u32 proxy_continue_request(void) { return proxy_continue_stream(0); }
EXPORT(proxy_continue_response) u32 proxy_continue_response(void) { return proxy_continue_stream(1); }
EXPORT(proxy_clear_route_cache) u32 proxy_clear_route_cache(void) {
  return forbidden() ? 0 : host(HOST_CLEAR_ROUTE);
}

/* ---- Metrics: cells live in the stream memory, one array for each VM ---- */
enum { COUNTER, GAUGE, HISTOGRAM };
typedef struct { u32 kind, cell; } metric;

static metric *metric_of(u32 id) { /* ids step by 4, the kind in the low bits: counters 4, 8.., gauges 5, 9.., histograms 6, 10.. */
  u32 index = id / 4 * 3 + id % 4;
  if (id < 4 || id % 4 > HISTOGRAM || index >= running()->metric_capacity) return 0;
  metric *found = AT(metric, running()->metrics) + index;
  return found->cell ? found : 0;
}

EXPORT(proxy_define_metric) u32 proxy_define_metric(u32 kind, u32 name, u32 size, u32 out) {
  forbidden();
  if (kind > HISTOGRAM) return failed(no_such("type"), F_DEFINE_METRIC);
  if (guest_take(name, size, &call.a[1])) return failed(outside("name"), F_DEFINE_METRIC);
  call.a[0] = kind, call.a[2] = size;
  u32 status = host(HOST_DEFINE_METRIC);
  return failed(status ? status : put_word(out, call.a[0]), F_DEFINE_METRIC);
}

EXPORT(proxy_increment_metric) u32 proxy_increment_metric(u32 id, i64 delta) {
  forbidden();
  metric *found = metric_of(id);
  if (!found) return failed(NOT_FOUND, F_INCREMENT_METRIC);
  i64 *cell = AT(i64, found->cell);
  if (found->kind == HISTOGRAM) return failed(bad(BAD_ARGUMENT, "metric", "is a histogram"), F_INCREMENT_METRIC);
  if (found->kind == COUNTER && delta <= 0)
    return failed(bad(BAD_ARGUMENT, "delta", "is not above 0, and the metric is a counter"), F_INCREMENT_METRIC);
  *cell = (i64)((u64)*cell + (u64)delta);
  if (found->kind == GAUGE && *cell < 0 && delta < 0) *cell = 0; /* a gauge does not go below zero */
  return OK;
}

EXPORT(proxy_record_metric) u32 proxy_record_metric(u32 id, i64 value) {
  forbidden();
  metric *found = metric_of(id);
  if (!found) return failed(NOT_FOUND, F_RECORD_METRIC);
  i64 *cell = AT(i64, found->cell);
  if (found->kind == COUNTER) *cell = (i64)((u64)*cell + (u64)value);
  else if (found->kind == GAUGE) *cell = value;
  else return call.a[0] = id, call.a[1] = (u32)value, call.a[2] = (u32)((u64)value >> 32), host(HOST_RECORD_HISTOGRAM);
  return OK;
}

EXPORT(proxy_get_metric) u32 proxy_get_metric(u32 id, u32 out) {
  forbidden();
  metric *found = metric_of(id);
  if (!found) return failed(NOT_FOUND, F_GET_METRIC);
  if (found->kind == HISTOGRAM) return failed(bad(BAD_ARGUMENT, "metric", "is a histogram"), F_GET_METRIC);
  return failed(guest_write(out, found->cell, 8) ? outside("address for the result") : OK, F_GET_METRIC);
}

/* ---- What Python answers. Bytes come back in scratch: call.a[0] address, call.a[1] size. ---- */
/* The clock stands still while a filter runs, but not for one that waits for it to move (Go's time.Sleep). */
enum { CLOCK_READS = 64 };

static u64 now(void) {
  if (call.time_known++ % CLOCK_READS == 0) host(HOST_TIME);
  return call.time;
}

EXPORT(proxy_get_current_time_nanoseconds) u32 proxy_get_current_time_nanoseconds(u32 out) {
  now();
  return failed(guest_write(out, ADDRESS(&call.time), 8) ? outside("address for the result") : OK, F_TIME);
}

static u32 answer(u32 operation, enum function function, u32 out, u32 out_size) {
  u32 status = host(operation);
  return failed(status ? status : guest_put(call.a[0], call.a[1], out, out_size), function);
}

EXPORT(proxy_get_property) u32 proxy_get_property(u32 path, u32 size, u32 out, u32 out_size) {
  forbidden();
  if (guest_take(path, size, &call.a[0])) return failed(outside("path"), F_GET_PROPERTY);
  u32 value, value_size;
  int status = header_property(call.a[0], size, &value, &value_size);
  if (status >= 0) return failed(status ? (u32)status : guest_put(value, value_size, out, out_size), F_GET_PROPERTY);
  call.a[1] = size;
  return answer(HOST_GET_PROPERTY, F_GET_PROPERTY, out, out_size);
}

EXPORT(proxy_set_property) u32 proxy_set_property(u32 path, u32 size, u32 value, u32 value_size) {
  forbidden();
  if (guest_take(path, size, &call.a[0]) || guest_take(value, value_size, &call.a[2]))
    return failed(outside("path or value"), F_SET_PROPERTY);
  call.a[1] = size, call.a[3] = value_size;
  return failed(host(HOST_SET_PROPERTY), F_SET_PROPERTY);
}

EXPORT(proxy_set_tick_period_milliseconds) u32 proxy_set_tick_period_milliseconds(u32 ms) {
  return forbidden(), call.a[0] = ms, failed(host(HOST_SET_TICK), F_SET_TICK);
}
EXPORT(proxy_set_effective_context) u32 proxy_set_effective_context(u32 context) {
  forbidden(), call.a[0] = context;
  u32 status = host(HOST_SET_EFFECTIVE);
  call.kept = scratch_top; /* bodies that the context holds stay */
  return failed(status, F_SET_EFFECTIVE);
}
EXPORT(proxy_done) u32 proxy_done(void) { return forbidden(), failed(host(HOST_DONE), F_DONE); }

EXPORT(proxy_get_status) u32 proxy_get_status(u32 out_code, u32 out, u32 out_size) {
  forbidden();
  u32 status = host(HOST_GET_STATUS);
  return failed(status ? status : put_word(out_code, call.a[2]) | guest_put(call.a[0], call.a[1], out, out_size), F_GET_STATUS);
}

/* `n` (address, size) pairs of the filter into call.a[0..2n). */
static u32 take_all(u32 n, const u32 *pairs) {
  static const char *const ordinals[] = {"first pair of address and size", "second pair of address and size",
    "third pair of address and size", "fourth pair of address and size", "fifth pair of address and size"};
  for (u32 i = 0; i < n; i++) {
    if (guest_take(pairs[2 * i], pairs[2 * i + 1], &call.a[2 * i])) return outside(ordinals[i]);
    call.a[2 * i + 1] = pairs[2 * i + 1];
  }
  return OK;
}
#define TAKE(...) take_all(sizeof((u32[]){__VA_ARGS__}) / 8, (u32[]){__VA_ARGS__})

static u32 start_call(u32 operation, enum function function, u32 out_token) {
  u32 status = host(operation); /* of http calls the token is written on errors too (0), as Envoy does */
  if (status && operation != HOST_HTTP_CALL) return failed(status, function);
  u32 written = put_word(out_token, status ? 0 : call.a[0]);
  return failed(status ? status : written, function);
}

EXPORT(proxy_http_call) u32 proxy_http_call(u32 up, u32 up_n, u32 head, u32 head_n, u32 body, u32 body_n, u32 trail, u32 trail_n,
                                            u32 timeout, u32 token) {
  forbidden();
  if (TAKE(up, up_n, head, head_n, body, body_n, trail, trail_n)) return failed(INVALID_MEMORY_ACCESS, F_HTTP_CALL);
  call.a[8] = timeout;
  return start_call(HOST_HTTP_CALL, F_HTTP_CALL, token);
}
EXPORT(proxy_grpc_call) u32 proxy_grpc_call(u32 up, u32 up_n, u32 service, u32 service_n, u32 method, u32 method_n, u32 meta,
                                            u32 meta_n, u32 message, u32 message_n, u32 timeout, u32 token) {
  forbidden();
  if (TAKE(up, up_n, service, service_n, method, method_n, meta, meta_n, message, message_n))
    return failed(INVALID_MEMORY_ACCESS, F_GRPC_CALL);
  call.a[10] = timeout;
  return start_call(HOST_GRPC_CALL, F_GRPC_CALL, token);
}
EXPORT(proxy_grpc_stream) u32 proxy_grpc_stream(u32 up, u32 up_n, u32 service, u32 service_n, u32 method, u32 method_n, u32 meta,
                                                u32 meta_n, u32 token) {
  forbidden();
  if (TAKE(up, up_n, service, service_n, method, method_n, meta, meta_n)) return failed(INVALID_MEMORY_ACCESS, F_GRPC_STREAM);
  return start_call(HOST_GRPC_STREAM, F_GRPC_STREAM, token);
}
EXPORT(proxy_grpc_send) u32 proxy_grpc_send(u32 token, u32 message, u32 message_n, u32 end) {
  forbidden();
  if (TAKE(message, message_n)) return failed(INVALID_MEMORY_ACCESS, F_GRPC_SEND);
  call.a[2] = token, call.a[3] = end;
  return failed(host(HOST_GRPC_SEND), F_GRPC_SEND);
}
EXPORT(proxy_grpc_cancel) u32 proxy_grpc_cancel(u32 token) {
  return forbidden(), call.a[0] = token, failed(host(HOST_GRPC_CANCEL), F_GRPC_CANCEL);
}
EXPORT(proxy_grpc_close) u32 proxy_grpc_close(u32 token) {
  return forbidden(), call.a[0] = token, failed(host(HOST_GRPC_CLOSE), F_GRPC_CLOSE);
}
EXPORT(proxy_get_shared_data) u32 proxy_get_shared_data(u32 key, u32 key_n, u32 out, u32 out_size, u32 out_cas) {
  forbidden();
  if (TAKE(key, key_n)) return failed(INVALID_MEMORY_ACCESS, F_GET_SHARED);
  u32 status = host(HOST_GET_SHARED);
  if (status) return failed(status, F_GET_SHARED);
  u32 cas = call.a[2];
  return failed(guest_put(call.a[0], call.a[1], out, out_size) | put_word(out_cas, cas), F_GET_SHARED);
}
EXPORT(proxy_set_shared_data) u32 proxy_set_shared_data(u32 key, u32 key_n, u32 value, u32 value_n, u32 cas) {
  forbidden();
  if (TAKE(key, key_n, value, value_n)) return failed(INVALID_MEMORY_ACCESS, F_SET_SHARED);
  call.a[4] = cas;
  return failed(host(HOST_SET_SHARED), F_SET_SHARED);
}
EXPORT(proxy_register_shared_queue) u32 proxy_register_shared_queue(u32 name, u32 name_n, u32 out) {
  forbidden();
  if (TAKE(name, name_n)) return failed(INVALID_MEMORY_ACCESS, F_REGISTER_QUEUE);
  u32 status = host(HOST_REGISTER_QUEUE);
  return failed(status ? status : put_word(out, call.a[0]), F_REGISTER_QUEUE);
}
EXPORT(proxy_resolve_shared_queue) u32 proxy_resolve_shared_queue(u32 vm_id, u32 vm_id_n, u32 name, u32 name_n, u32 out) {
  forbidden();
  if (TAKE(vm_id, vm_id_n, name, name_n)) return failed(INVALID_MEMORY_ACCESS, F_RESOLVE_QUEUE);
  u32 status = host(HOST_RESOLVE_QUEUE);
  return failed(status ? status : put_word(out, call.a[0]), F_RESOLVE_QUEUE);
}
EXPORT(proxy_enqueue_shared_queue) u32 proxy_enqueue_shared_queue(u32 queue, u32 value, u32 value_n) {
  forbidden();
  if (TAKE(value, value_n)) return failed(INVALID_MEMORY_ACCESS, F_ENQUEUE);
  call.a[2] = queue;
  return failed(host(HOST_ENQUEUE), F_ENQUEUE);
}
EXPORT(proxy_dequeue_shared_queue) u32 proxy_dequeue_shared_queue(u32 queue, u32 out, u32 out_size) {
  return forbidden(), call.a[0] = queue, answer(HOST_DEQUEUE, F_DEQUEUE, out, out_size);
}
EXPORT(proxy_call_foreign_function) u32 proxy_call_foreign_function(u32 name, u32 name_n, u32 arguments, u32 arguments_n, u32 out,
                                                                    u32 out_size) {
  forbidden();
  if (TAKE(name, name_n, arguments, arguments_n)) return failed(INVALID_MEMORY_ACCESS, F_FOREIGN);
  u32 status = host(HOST_FOREIGN);
  if (status || (!out && !out_size)) return failed(status, F_FOREIGN);
  u32 from = call.a[0], size = call.a[1], at = 0; /* the allocator may make host calls of its own */
  if (size && out) { /* either address may be 0 */
    call.in_allocator = 1, at = guest_allocate(size), call.in_allocator = 0;
    if (!at || guest_write(at, from, size)) return failed(no_room(), F_FOREIGN);
  }
  return failed((out ? put_word(out, at) : OK) | (out_size ? put_word(out_size, size) : OK), F_FOREIGN);
}

EXPORT(envoy_resolve_dns) u32 envoy_resolve_dns(u32 name, u32 name_n, u32 token) { /* Envoy's own, beside the ABI */
  (void)name, (void)name_n, (void)token;
  return failed(bad(UNIMPLEMENTED, "name", "names are resolved by calls only"), F_RESOLVE_DNS);
}

/* A function that the filter imports and may not call: counted and said by Python, answered by the stub that calls this. */
EXPORT(denied) void denied(u32 number) { call.a[0] = number, host(HOST_DENIED); }

/* ---- From Python into a filter ---- */
enum { CONTEXT_CREATE, VM_START, CONFIGURE, ON_REQUEST_HEADERS, ON_REQUEST_BODY, ON_REQUEST_TRAILERS, ON_RESPONSE_HEADERS,
       ON_RESPONSE_BODY, ON_RESPONSE_TRAILERS, ON_DONE, ON_LOG, ON_DELETE, ON_TICK, ON_HTTP_CALL_RESPONSE, ON_GRPC_INITIAL,
       ON_GRPC_RECEIVE, ON_GRPC_TRAILING, ON_GRPC_CLOSE, ON_QUEUE_READY, ON_FOREIGN_FUNCTION, CALLBACKS, FINISH = CALLBACKS };
enum { CREATE = 1 << 8, END_STREAM = 1 << 9, READABLE_SHIFT = 10, WRITABLE_SHIFT = 18, BUFFERS_SET = 1 << 26, LOG_PHASE = 1 << 27 };

/* Buffers that are empty when they are not there; the body of a call and a plugin's configuration are not found then. */
enum { ALWAYS_READABLE = 1 << REQUEST_BODY | 1 << RESPONSE_BODY | 1 << DOWNSTREAM_DATA | 1 << UPSTREAM_DATA | 1 << GRPC_MESSAGE |
                         1 << FOREIGN_ARGUMENTS };

static int has(u32 callback) { return running()->callbacks >> callback & 1; }

static void expose_body(u32 b, u32 size) {
  u32 at = scratch(size);
  call.kept = scratch_top;
  call.buffers[b] = (buffer){at, size, size, READABLE | WRITABLE};
}

/* An effective context lasts until its callback is over. */
static void own_context(u32 context) {
  if (call.effective != context) call.a[0] = 0, host(HOST_SET_EFFECTIVE);
  call.readable = call.writable = 0, call.phase = PHASE_STREAM; /* and the maps with on_log */
}

/* Run callback `operation` of `context`; with CREATE its context is created first, under `argument`. Header callbacks get the
 * number of entries, body callbacks `argument` bytes that Python has put into scratch. The filter's answer comes back in the
 * low 8 bits, RESULT_* above them, and DONE, which tells Python that the call came back. FINISH is log, done, delete, in Envoy's
 * order: one crossing instead of three. */
EXPORT(enter) u32 enter(u32 context, u32 flags, u32 argument, u32 vm_address) {
  u32 operation = flags & 0xff, answer = 0, end = flags >> 9 & 1;
  call.vm = vm_address, call.context = call.effective = context;
  call.readable = flags >> READABLE_SHIFT & 0xff, call.writable = flags >> WRITABLE_SHIFT & 0xff;
  call.phase = flags & LOG_PHASE ? PHASE_LOG : PHASE_STREAM;
  call.result = call.in_allocator = call.time_known = 0;
  scratch_reset();
  for (u32 i = 0; i < BUFFERS; i++) {
    buffer *b = &call.buffers[i];
    if (!(flags & BUFFERS_SET) || !b->present) *b = (buffer){0, 0, 0, ALWAYS_READABLE >> i & 1};
    else if (b->data + b->len > scratch_top) scratch_top = call.kept = b->data + b->len; /* Python put it there */
  }
  buffer *configuration = &call.buffers[VM_CONFIGURATION];
  configuration->data = running()->configuration, configuration->len = running()->configuration_len;
  configuration->present = READABLE;
  if (flags & CREATE && has(CONTEXT_CREATE)) { /* every map is still shut */
    u32 readable = call.readable, writable = call.writable, phase = call.phase;
    call.readable = call.writable = 0, call.phase = PHASE_STREAM;
    guest_callback(context, argument, 0, 0, 0, CONTEXT_CREATE);
    call.readable = readable, call.writable = writable, call.phase = phase, call.effective = context;
  }
  switch (operation) {
  case CONTEXT_CREATE: break;
  case ON_REQUEST_HEADERS: if (has(operation)) answer = guest_callback(context, map_of(REQUEST_HEADERS)->n, end, 0, 0, operation); break;
  case ON_RESPONSE_HEADERS: if (has(operation)) answer = guest_callback(context, map_of(RESPONSE_HEADERS)->n, end, 0, 0, operation); break;
  case ON_REQUEST_TRAILERS: case ON_RESPONSE_TRAILERS:; /* END_STREAM here: the filter holds `argument` bytes of the body */
    int request = operation == ON_REQUEST_TRAILERS;
    if (end) expose_body(request ? REQUEST_BODY : RESPONSE_BODY, argument);
    answer = guest_callback(context, map_of(request ? REQUEST_TRAILERS : RESPONSE_TRAILERS)->n, 0, 0, 0, operation);
    break;
  case ON_REQUEST_BODY: expose_body(REQUEST_BODY, argument), answer = guest_callback(context, argument, end, 0, 0, operation); break;
  case ON_RESPONSE_BODY: expose_body(RESPONSE_BODY, argument), answer = guest_callback(context, argument, end, 0, 0, operation); break;
  case FINISH:
    call.phase = PHASE_LOG;
    if (has(ON_LOG)) guest_callback(context, 0, 0, 0, 0, ON_LOG), own_context(context);
    call.readable = call.writable = 0, call.phase = PHASE_STREAM;
    if (has(ON_DONE)) guest_callback(context, 0, 0, 0, 0, ON_DONE), own_context(context);
    if (has(ON_DELETE)) guest_callback(context, 0, 0, 0, 0, ON_DELETE);
    break;
  default: /* the arguments beside the context lie in call.a */
    answer = guest_callback(context, call.a[0], call.a[1], call.a[2], call.a[3], operation);
  }
  tidy();
  return (answer > 0xff ? 0xff : answer) | call.result | RESULT_DONE;
}

/* `_initialize`, `_start` and `main` belong to no context: log, clock, environment, randomness (cpp-host, "restricted"). */
EXPORT(prepare) void prepare(u32 vm_address) {
  call.vm = vm_address, call.context = call.effective = call.readable = call.writable = 0;
  call.result = call.in_allocator = call.time_known = 0, call.phase = PHASE_START;
  for (u32 i = 0; i < BUFFERS; i++) call.buffers[i].present = 0;
  scratch_reset();
}

/* Where Python finds things; the order is abi/memory.py's. */
EXPORT(layout) u32 layout(void) {
  static u32 table[18];
  scratch_reset();
  u32 addresses[] = {scratch_top, ADDRESS(&stream), ADDRESS(stream.arena), ADDRESS(&call), ADDRESS(call.a), ADDRESS(call.buffers),
                     ADDRESS(&call.time), ADDRESS(&call.reply_status), ADDRESS(&logs), ADDRESS(date), PERSISTENT_ROOM,
                     PERSISTENT, sizeof(vm), ARENA, ADDRESS(&call.readable), ADDRESS(&call.effective),
                     ADDRESS(&scratch_top), ADDRESS(&call.result)};
  for (u32 i = 0; i < 18; i++) table[i] = addresses[i];
  return ADDRESS(table);
}
