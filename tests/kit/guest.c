// A filter that does what its request's x-do header says: what the kit's tests need to see.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST(name) __attribute__((import_module("env"), import_name(#name))) uint32_t name
#define CALLBACK(name) __attribute__((export_name(#name)))

HOST(proxy_log)(uint32_t level, const char *message, size_t length);
HOST(proxy_get_buffer_bytes)(uint32_t buffer, size_t start, size_t most, char **data, size_t *length);
HOST(proxy_get_header_map_value)(uint32_t map, const char *key, size_t key_length, char **value, size_t *value_length);
HOST(proxy_replace_header_map_value)(uint32_t map, const char *key, size_t key_length, const char *value, size_t length);
HOST(proxy_send_local_response)(uint32_t status, const char *details, size_t details_length, const char *body,
                                size_t body_length, const char *headers, size_t headers_length, int32_t grpc);
HOST(proxy_http_call)(const char *upstream, size_t upstream_length, const char *headers, size_t headers_length, const char *body,
                      size_t body_length, const char *trailers, size_t trailers_length, uint32_t milliseconds, uint32_t *token);
HOST(proxy_continue_stream)(uint32_t stream);
HOST(proxy_set_effective_context)(uint32_t context);
HOST(proxy_get_current_time_nanoseconds)(uint64_t *time);
HOST(proxy_set_tick_period_milliseconds)(uint32_t period);
HOST(proxy_define_metric)(uint32_t kind, const char *name, size_t length, uint32_t *id);
HOST(proxy_increment_metric)(uint32_t id, int64_t offset);
HOST(proxy_set_shared_data)(const char *key, size_t key_length, const char *value, size_t value_length, uint32_t cas);
HOST(proxy_get_shared_data)(const char *key, size_t key_length, char **value, size_t *value_length, uint32_t *cas);
__attribute__((import_module("wasi_snapshot_preview1"), import_name("random_get"))) uint32_t random_get(void *to, size_t size);

enum { REQUEST = 0, RESPONSE = 2, CONTINUE = 0, PAUSE = 1, INFO = 2, WARNING = 3 };

static uint32_t requests, ticks, caller;
static char line[256];

static void say(uint32_t level) { proxy_log(level, line, strlen(line)); }
static void set(uint32_t map, const char *name, const char *value) {
  proxy_replace_header_map_value(map, name, strlen(name), value, strlen(value));
}

CALLBACK(proxy_abi_version_0_2_1) void version(void) {}
CALLBACK(proxy_on_memory_allocate) void *allocate(size_t size) { return malloc(size); }
CALLBACK(proxy_on_context_create) void context_create(uint32_t context, uint32_t parent) {}

CALLBACK(proxy_on_configure) uint32_t configure(uint32_t root, size_t size) {
  char *text = "";
  size_t length = 0;
  if (size) proxy_get_buffer_bytes(7, 0, size, &text, &length);
  snprintf(line, sizeof line, "configured: %.*s", (int)length, text);
  say(INFO);
  proxy_define_metric(0, "requests", 8, &requests);
  proxy_define_metric(0, "ticks", 5, &ticks);
  if (length == 4 && !memcmp(text, "tick", 4)) proxy_set_tick_period_milliseconds(100);
  return !(length == 2 && !memcmp(text, "no", 2));
}

CALLBACK(proxy_on_tick) void tick(uint32_t root) { proxy_increment_metric(ticks, 1); }

static uint32_t call(void) {
  // Three pairs of a serialised map: :method GET, :path /check, :authority auth.
  static const char headers[] = "\3\0\0\0\7\0\0\0\3\0\0\0\5\0\0\0\6\0\0\0\12\0\0\0\4\0\0\0"
                                ":method\0GET\0:path\0/check\0:authority\0auth";
  uint32_t token;
  uint32_t status = proxy_http_call("auth", 4, headers, sizeof headers, "", 0, "", 0, 200, &token);
  snprintf(line, sizeof line, "call: %u", status);
  say(INFO);
  return status ? CONTINUE : PAUSE;
}

CALLBACK(proxy_on_request_headers) uint32_t request_headers(uint32_t context, uint32_t count, uint32_t end_of_stream) {
  char *value = 0;
  size_t length = 0;
  proxy_increment_metric(requests, 1);
  if (proxy_get_header_map_value(REQUEST, "x-do", 4, &value, &length)) return CONTINUE;
  if (length == 4 && !memcmp(value, "call", 4)) {
    caller = context;
    return call();
  }
  if (length == 4 && !memcmp(value, "hold", 4)) return PAUSE;
  if (length == 4 && !memcmp(value, "loop", 4)) for (volatile int i = 1; i; i = 1) {}
  if (length == 4 && !memcmp(value, "trap", 4)) __builtin_trap();
  if (length == 4 && !memcmp(value, "deny", 4)) return proxy_send_local_response(403, "denied", 6, "no\n", 3, "", 0, -1), PAUSE;
  if (length == 5 && !memcmp(value, "clock", 5)) {
    uint64_t time;
    uint32_t number;
    proxy_get_current_time_nanoseconds(&time), random_get(&number, 4);
    snprintf(line, sizeof line, "%llu %u", (unsigned long long)(time / 1000000000), number);
    set(REQUEST, "x-clock", line);
  }
  if (length == 5 && !memcmp(value, "share", 5)) {
    char *seen = "";
    size_t seen_length = 0;
    uint32_t cas;
    proxy_get_shared_data("n", 1, &seen, &seen_length, &cas);
    snprintf(line, sizeof line, "%zu", seen_length);
    set(REQUEST, "x-seen", line);
    proxy_set_shared_data("n", 1, "xxxxxxxx", seen_length + 1, 0);
  }
  return CONTINUE;
}

CALLBACK(proxy_on_http_call_response)
void answered(uint32_t root, uint32_t token, uint32_t headers, size_t body, uint32_t trailers) {
  char *status = "none";
  size_t length = 4;
  proxy_get_header_map_value(6, ":status", 7, &status, &length);
  snprintf(line, sizeof line, "answer: %.*s", (int)length, status);
  say(WARNING);
  proxy_set_effective_context(caller);
  if (length == 3 && !memcmp(status, "200", 3)) proxy_continue_stream(0);
  else proxy_send_local_response(403, "refused", 7, "", 0, "", 0, -1);
}

CALLBACK(proxy_on_response_headers) uint32_t response_headers(uint32_t context, uint32_t count, uint32_t end_of_stream) {
  set(RESPONSE, "x-kit", "seen");
  return CONTINUE;
}
