// One half of the contract suite: what the request header x-do asks for, as a proxy-wasm module. contract_component.c is the
// other.
#include "../../../integration/guests/proxy_wasm.h"

HOST(proxy_replace_header_map_value)(int map, const char *key, size_t key_size, const char *value, size_t size);
HOST(proxy_remove_header_map_value)(int map, const char *key, size_t key_size);
HOST(proxy_set_buffer_bytes)(int type, size_t start, size_t max, const char *data, size_t size);
HOST(proxy_get_property)(const char *path, size_t path_size, char **value, size_t *size);

enum { STREAMS = 256, MOST = 64 };
static char doing[STREAMS][16];
static struct { uint32_t token, context; } calls[MOST];

static int does(uint32_t stream, const char *what) { return strcmp(doing[stream % STREAMS], what) == 0; }

EXPORT(proxy_on_configure) int on_configure(uint32_t root, size_t size) {
  char *config = configuration(size);
  if (!strcmp(config, "refuse")) {
    say("the config says so");
    return 0;
  }
  if (!strcmp(config, "trap")) __builtin_trap();
  free(config);
  return 1;
}

static void reply(int code, const char *details, const char *body, const char *headers, size_t headers_size) {
  proxy_send_local_response(code, details, strlen(details), body, strlen(body), headers, headers_size, -1);
}

static void count(void) {
  for (int i = 0; i < 20; i++) {
    char *value = NULL, digit = '1';
    size_t size = 0;
    uint32_t cas = 0;
    if (proxy_get_shared_data("count", 5, &value, &size, &cas) == OK) digit = value[0] + 1;
    free(value);
    if (proxy_set_shared_data("count", 5, &digit, 1, cas) == OK) {
      add_header(REQUEST_HEADERS, "x-count", (char[]){digit, 0});
      return;
    }
  }
  add_header(REQUEST_HEADERS, "x-count", "failed");
}

// Values of a kilobyte under new keys until one is refused: how many there were.
static void fill(void) {
  char value[1024], digit;
  memset(value, 'v', sizeof value);
  for (digit = '0'; digit < '9'; digit++)
    if (proxy_set_shared_data(&digit, 1, value, sizeof value, 0) != OK) break;
  add_header(REQUEST_HEADERS, "x-filled", (char[]){digit, 0});
}

static int call(uint32_t context) {
  char *upstream = header(REQUEST_HEADERS, "x-call"), *path = header(REQUEST_HEADERS, "x-ask");
  pairs head;
  encode_pairs(&head, 3, (const char *[][2]){{":method", "GET"}, {":path", path}, {":authority", "auth"}});
  uint32_t token = 0;
  if (proxy_http_call(upstream, strlen(upstream), head.data, head.size, "", 0, "", 0, 2000, &token) == OK)
    calls[token / 4 % MOST].token = token, calls[token / 4 % MOST].context = context;
  else
    answer(403, "refused: ");
  free(upstream), free(path);
  return PAUSE;
}

EXPORT(proxy_on_request_headers) int on_request_headers(uint32_t context, uint32_t headers, int end) {
  char *what = header(REQUEST_HEADERS, "x-do");
  strncpy(doing[context % STREAMS], what ? what : "", 15);
  free(what);
  if (does(context, "reply")) {
    pairs head;
    encode_pairs(&head, 1, (const char *[][2]){{"x-by", "guest"}});
    reply(403, "not today", "no", head.data, head.size);
    return PAUSE;
  }
  if (does(context, "trap")) __builtin_trap();
  if (does(context, "loop")) for (volatile int i = 0;; i++) {}
  if (does(context, "grow")) {
    while (__builtin_wasm_memory_grow(0, 16) != (size_t)-1) {}
    add_header(REQUEST_HEADERS, "x-pages", __builtin_wasm_memory_size(0) <= 256 ? "few" : "many");
    return CONTINUE;
  }
  if (does(context, "pause")) return PAUSE;
  if (does(context, "call")) return call(context);
  if (does(context, "count")) return count(), CONTINUE;
  if (does(context, "fill")) return fill(), CONTINUE;
  if (does(context, "chatty")) for (int i = 0; i < 50; i++) proxy_log(3, "again", 5);
  if (does(context, "bad-header")) return add_header(REQUEST_HEADERS, "x-bad", "a\r\nb"), CONTINUE;
  if (does(context, "many")) {
    for (int i = 0; i < 600; i++) add_header(REQUEST_HEADERS, "x-many", "1");
    return CONTINUE;
  }
  if (does(context, "path")) return proxy_replace_header_map_value(REQUEST_HEADERS, ":path", 5, "/other", 6), CONTINUE;
  if (does(context, "remove")) return proxy_remove_header_map_value(REQUEST_HEADERS, "x-secret", 8), CONTINUE;
  if (does(context, "property")) {
    char *value = NULL;
    size_t size = 0;
    int found = proxy_get_property("request\0path", 12, &value, &size) == OK;
    proxy_add_header_map_value(REQUEST_HEADERS, "x-path", 6, found ? value : "none", found ? size : 4);
    free(value);
    return CONTINUE;
  }
  if (does(context, "log")) proxy_log(3, "said by the guest", 17);
  if (does(context, "metric")) {
    uint32_t metric;
    if (proxy_define_metric(0, "contract", 8, &metric) == OK) proxy_increment_metric(metric, 3);
  }
  if (does(context, "stream") || does(context, "buffer"))
    return proxy_remove_header_map_value(REQUEST_HEADERS, "content-length", 14), CONTINUE;
  proxy_replace_header_map_value(REQUEST_HEADERS, "x-guest", 7, "yes", 3);
  return CONTINUE;
}

static int upper(uint32_t context, int buffer, size_t size, int end) {
  if (does(context, "buffer") && !end) return PAUSE;
  if (does(context, "body-reply") && size) return reply(409, "", "by body", "", 0), PAUSE;
  if (!does(context, "buffer") && !does(context, "stream")) return CONTINUE;
  char *data = NULL, *out = malloc(size + 1);
  size_t got = 0;
  if (size) proxy_get_buffer_bytes(buffer, 0, size, &data, &got);
  for (size_t i = 0; i < got; i++) out[i] = data[i] >= 'a' && data[i] <= 'z' ? data[i] - 32 : data[i];
  if (end) out[got++] = '!';
  proxy_set_buffer_bytes(buffer, 0, size, out, got);
  free(data), free(out);
  return CONTINUE;
}

EXPORT(proxy_on_request_body) int on_request_body(uint32_t context, size_t size, int end) { return upper(context, 0, size, end); }
EXPORT(proxy_on_response_body) int on_response_body(uint32_t context, size_t size, int end) {
  return upper(context, 1, size, end);
}

EXPORT(proxy_on_request_trailers) int on_request_trailers(uint32_t context, uint32_t count) {
  char *first = NULL;
  size_t size = 0;
  proxy_get_header_map_value(1, "x-checksum", 10, &first, &size);
  proxy_add_header_map_value(1, "x-trailer", 9, first ? first : "none", first ? size : 4);
  free(first);
  if (does(context, "buffer")) {
    char *data = NULL;
    proxy_get_buffer_bytes(0, 0, 1 << 20, &data, &size);
    free(data);
    upper(context, 0, size, 1);
  }
  return CONTINUE;
}

EXPORT(proxy_on_response_headers) int on_response_headers(uint32_t context, uint32_t headers, int end) {
  if (does(context, "response-trap")) __builtin_trap();
  if (does(context, "response-pause")) return PAUSE;
  if (does(context, "stream") || does(context, "buffer"))
    return proxy_remove_header_map_value(RESPONSE_HEADERS, "content-length", 14), CONTINUE;
  char *status = header(RESPONSE_HEADERS, ":status");
  if (does(context, "response-reply") && !strcmp(status, "200")) return reply(409, "", "instead", "", 0), PAUSE;
  add_header(RESPONSE_HEADERS, "x-seen", status);
  free(status);
  return CONTINUE;
}

EXPORT(proxy_on_http_call_response)
void on_http_call_response(uint32_t root, uint32_t token, uint32_t headers, size_t body_size, uint32_t trailers) {
  uint32_t context = calls[token / 4 % MOST].context;
  char *status = header(CALL_HEADERS, ":status"), *user = header(CALL_HEADERS, "x-user");
  proxy_set_effective_context(context);
  if (!status) {
    answer(403, "reset");
  } else if (strcmp(status, "200")) {
    answer(403, status);
  } else {
    if (!strcmp(user, "trap")) __builtin_trap();
    add_header(REQUEST_HEADERS, "x-user", user);
    proxy_continue_stream(0);
  }
  free(status), free(user);
}

EXPORT(proxy_on_log) void on_log(uint32_t context) {
  if (!does(context, "on-log")) return;
  int64_t *code = NULL;
  size_t size = 0;
  if (proxy_get_property("response\0code", 13, (char **)&code, &size) == OK) say("status %d", (int)*code);
}
