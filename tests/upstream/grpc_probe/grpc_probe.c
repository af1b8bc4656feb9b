// A proxy-wasm filter that makes the gRPC calls its client asks for and logs what comes of them, so that one binary can ask
// Envoy and Penstock the same question.
//
// The request header `x-script` holds lines, each ended by `!`: `kind: command; command` or `kind#N: ...` for the Nth event of
// that kind since the script came. Kinds: rqh (the request itself), init, recv, trail, closed, http, tick. Words are separated
// by spaces, %XX is a byte, ~ the empty string, pairs are name=value|name=value. A token is a number, or c (the last call's),
// s (the last stream's), h (the last http call's).
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HOST(name) __attribute__((import_module("env"), import_name(#name))) int name
#define EXPORT(name) __attribute__((export_name(#name)))

HOST(proxy_log)(int level, const char *text, size_t size);
HOST(proxy_get_header_map_value)(int map, const char *key, size_t key_size, char **value, size_t *value_size);
HOST(proxy_get_header_map_pairs)(int map, char **data, size_t *size);
HOST(proxy_add_header_map_value)(int map, const char *key, size_t key_size, const char *value, size_t value_size);
HOST(proxy_get_header_map_size)(int map, size_t *size);
HOST(proxy_get_buffer_bytes)(int type, size_t start, size_t max, char **data, size_t *size);
HOST(proxy_set_buffer_bytes)(int type, size_t start, size_t size, const char *data, size_t data_size);
HOST(proxy_get_status)(uint32_t *code, char **data, size_t *size);
HOST(proxy_set_tick_period_milliseconds)(uint32_t period);
HOST(proxy_http_call)(const char *upstream, size_t upstream_size, const char *headers, size_t headers_size, const char *body,
                      size_t body_size, const char *trailers, size_t trailers_size, uint32_t timeout, uint32_t *token);
HOST(proxy_grpc_call)(const char *upstream, size_t upstream_size, const char *service, size_t service_size, const char *method,
                      size_t method_size, const char *metadata, size_t metadata_size, const char *message, size_t message_size,
                      uint32_t timeout, uint32_t *token);
HOST(proxy_grpc_stream)(const char *upstream, size_t upstream_size, const char *service, size_t service_size,
                        const char *method, size_t method_size, const char *metadata, size_t metadata_size, uint32_t *token);
HOST(proxy_grpc_send)(uint32_t token, const char *message, size_t size, uint32_t end);
HOST(proxy_grpc_cancel)(uint32_t token);
HOST(proxy_grpc_close)(uint32_t token);

enum { KINDS = 8, SHOWN = 400 };
struct text { char *data; size_t size; };

static char line[8192];
static size_t used;
static char *script;
static uint32_t call, stream, http;
static struct { const char *kind; uint32_t seen; } counts[KINDS];

static void put(const char *text, size_t size) {
  static const char hex[] = "0123456789abcdef";
  for (size_t i = 0; i < size && used < sizeof line - 8; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c >= 0x20 && c < 0x7f && c != '\\') {
      line[used++] = (char)c;
    } else {
      line[used++] = '\\', line[used++] = 'x', line[used++] = hex[c >> 4], line[used++] = hex[c & 15];
    }
  }
}
static void say(const char *text) { put(text, strlen(text)); }
static void number(uint32_t n) {
  char digits[10];
  int i = 10;
  do digits[--i] = (char)('0' + n % 10), n /= 10; while (n);
  put(digits + i, (size_t)(10 - i));
}
static void field(const char *name, uint32_t value) { say(" "), say(name), say("="), number(value); }
static void shown(const char *data, size_t size) {
  say(" ["), put(data, size < SHOWN ? size : SHOWN), say("]");
  if (size > SHOWN) field("of", (uint32_t)size);
}
static void flush(void) { proxy_log(2, line, used), used = 0; }

static int hexdigit(char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; }
static struct text word(const char **at, const char *end) {
  while (*at < end && **at == ' ') ++*at;
  const char *from = *at;
  while (*at < end && **at != ' ') ++*at;
  struct text t = {malloc((size_t)(*at - from) + 1), 0};
  if (*at - from == 1 && *from == '~') return t;
  for (const char *p = from; p < *at; p++) {
    if (*p == '%' && *at - p > 2) t.data[t.size++] = (char)(hexdigit(p[1]) << 4 | hexdigit(p[2])), p += 2;
    else t.data[t.size++] = *p;
  }
  return t;
}
static int is(struct text t, const char *name) { return t.size == strlen(name) && !memcmp(t.data, name, t.size); }
static uint32_t integer(struct text t) {
  uint32_t n = 0;
  for (size_t i = 0; i < t.size; i++) n = n * 10 + (uint32_t)(t.data[i] - '0');
  return n;
}
static uint32_t token(struct text t) { return is(t, "c") ? call : is(t, "s") ? stream : is(t, "h") ? http : integer(t); }

// name=value|name=value to the ABI's pair map; "" to an empty map.
static struct text encode(struct text t) {
  uint32_t count = t.size ? 1 : 0;
  for (size_t i = 0; i < t.size; i++) count += t.data[i] == '|';
  struct text out = {malloc(4 + 10 * (size_t)count + t.size), 4};
  memcpy(out.data, &count, 4);
  for (int pass = 0; pass < 2; pass++) {
    for (size_t from = 0; count && from <= t.size;) {
      size_t to = from, mid = 0;
      for (; to < t.size && t.data[to] != '|'; to++)
        if (t.data[to] == '=' && !mid) mid = to;
      if (!mid) mid = to;
      size_t value = mid < to ? mid + 1 : to;
      uint32_t sizes[2] = {(uint32_t)(mid - from), (uint32_t)(to - value)};
      if (!pass) {
        memcpy(out.data + out.size, sizes, 8), out.size += 8;
      } else {
        memcpy(out.data + out.size, t.data + from, sizes[0]), out.size += sizes[0], out.data[out.size++] = 0;
        memcpy(out.data + out.size, t.data + value, sizes[1]), out.size += sizes[1], out.data[out.size++] = 0;
      }
      from = to + 1;
    }
  }
  return out;
}

static void run(const char *at, const char *end) {
  struct text name = word(&at, end);
  if (!name.size) return;
  const char *rest = at + (at < end && *at == ' ');
  say("  "), put(name.data, name.size), say(" "), put(rest, (size_t)(end - rest) < 100 ? (size_t)(end - rest) : 100);
  if (is(name, "call")) {
    struct text up = word(&at, end), service = word(&at, end), method = word(&at, end), pairs = encode(word(&at, end)),
                message = word(&at, end);
    uint32_t timeout = integer(word(&at, end)), got = 99;
    field("=", (uint32_t)proxy_grpc_call(up.data, up.size, service.data, service.size, method.data, method.size, pairs.data,
                                         pairs.size, message.data, message.size, timeout, &got));
    call = got, field("token", got);
  } else if (is(name, "stream")) {
    struct text up = word(&at, end), service = word(&at, end), method = word(&at, end), pairs = encode(word(&at, end));
    uint32_t got = 99;
    field("=", (uint32_t)proxy_grpc_stream(up.data, up.size, service.data, service.size, method.data, method.size, pairs.data,
                                           pairs.size, &got));
    stream = got, field("token", got);
  } else if (is(name, "send")) {
    uint32_t to = token(word(&at, end));
    struct text message = word(&at, end);
    field("=", (uint32_t)proxy_grpc_send(to, message.data, message.size, integer(word(&at, end))));
  } else if (is(name, "big")) { // send TOKEN SIZE END
    uint32_t to = token(word(&at, end)), size = integer(word(&at, end));
    char *data = calloc(size, 1);
    field("=", (uint32_t)proxy_grpc_send(to, data, size, integer(word(&at, end))));
    free(data);
  } else if (is(name, "cancel")) {
    field("=", (uint32_t)proxy_grpc_cancel(token(word(&at, end))));
  } else if (is(name, "close")) {
    field("=", (uint32_t)proxy_grpc_close(token(word(&at, end))));
  } else if (is(name, "status")) {
    uint32_t code = 99;
    char *data = 0;
    size_t size = 0;
    field("=", (uint32_t)proxy_get_status(&code, &data, &size)), field("code", code), shown(data, size);
  } else if (is(name, "pairs")) {
    char *data = 0;
    size_t size = 0;
    field("=", (uint32_t)proxy_get_header_map_pairs((int)integer(word(&at, end)), &data, &size));
    if (!data) {
      say(" none");
    } else {
      uint32_t count, sizes[2];
      memcpy(&count, data, 4);
      char *lengths = data + 4, *text = data + 4 + 8 * (size_t)count;
      for (uint32_t i = 0; i < count; i++, lengths += 8, text += sizes[0] + sizes[1] + 2) {
        memcpy(sizes, lengths, 8);
        say(" "), put(text, sizes[0]), say("="), put(text + sizes[0] + 1, sizes[1]), say(";");
      }
    }
  } else if (is(name, "get")) {
    int map = (int)integer(word(&at, end));
    struct text key = word(&at, end);
    char *value = 0;
    size_t size = 0;
    field("=", (uint32_t)proxy_get_header_map_value(map, key.data, key.size, &value, &size)), shown(value, size);
  } else if (is(name, "add")) {
    field("=", (uint32_t)proxy_add_header_map_value((int)integer(word(&at, end)), "k", 1, "v", 1));
  } else if (is(name, "size")) {
    size_t size = 0;
    field("=", (uint32_t)proxy_get_header_map_size((int)integer(word(&at, end)), &size)), field("size", (uint32_t)size);
  } else if (is(name, "buf")) {
    char *data = 0;
    size_t size = 0;
    field("=", (uint32_t)proxy_get_buffer_bytes((int)integer(word(&at, end)), 0, 1 << 30, &data, &size)), shown(data, size);
  } else if (is(name, "setbuf")) {
    field("=", (uint32_t)proxy_set_buffer_bytes((int)integer(word(&at, end)), 0, 0, "x", 1));
  } else if (is(name, "period")) {
    field("=", (uint32_t)proxy_set_tick_period_milliseconds(integer(word(&at, end))));
  } else if (is(name, "http")) { // CLUSTER PAIRS
    struct text up = word(&at, end), pairs = encode(word(&at, end));
    uint32_t none = 0, got = 99;
    field("=", (uint32_t)proxy_http_call(up.data, up.size, pairs.data, pairs.size, "", 0, (char *)&none, 4, 1000, &got));
    http = got, field("token", got);
  } else if (is(name, "trap")) {
    flush();
    __builtin_trap();
  } else {
    say(" unknown command");
  }
  flush();
}

static void event(const char *kind) {
  flush();
  uint32_t ordinal = 0;
  for (int i = 0; i < KINDS; i++) {
    if (!counts[i].kind) counts[i].kind = kind;
    if (!strcmp(counts[i].kind, kind)) { ordinal = ++counts[i].seen; break; }
  }
  if (!script) return;
  size_t size = strlen(kind);
  for (const char *at = script; *at;) {
    const char *end = strchr(at, '!');
    if (!end) end = at + strlen(at);
    const char *head = at;
    if ((size_t)(end - at) > size && !memcmp(at, kind, size)) {
      uint32_t wanted = 0;
      head += size;
      if (*head == '#')
        for (head++; *head >= '0' && *head <= '9'; head++) wanted = wanted * 10 + (uint32_t)(*head - '0');
      if (*head == ':' && (!wanted || wanted == ordinal))
        for (head++; head < end;) {
          const char *stop = head;
          while (stop < end && *stop != ';') stop++;
          run(head, stop), head = stop + 1;
        }
    }
    at = *end ? end + 1 : end;
  }
}

EXPORT(proxy_abi_version_0_2_1) void abi_version(void) {}
EXPORT(proxy_on_memory_allocate) void *allocate(size_t size) { return malloc(size); }
EXPORT(proxy_on_request_headers) uint32_t on_request_headers(uint32_t id, uint32_t n, uint32_t end) {
  (void)id, (void)n, (void)end;
  char *value = 0;
  size_t size = 0;
  if (proxy_get_header_map_value(0, "x-script", 8, &value, &size)) return 0;
  script = calloc(size + 1, 1);
  memcpy(script, value, size);
  memset(counts, 0, sizeof counts);
  say("rqh"), event("rqh");
  return 0;
}
EXPORT(proxy_on_grpc_receive_initial_metadata) void on_initial(uint32_t root, uint32_t t, uint32_t n) {
  (void)root, say("init"), field("token", t), field("n", n), event("init");
}
EXPORT(proxy_on_grpc_receive) void on_receive(uint32_t root, uint32_t t, uint32_t size) {
  (void)root, say("recv"), field("token", t), field("size", size), event("recv");
}
EXPORT(proxy_on_grpc_receive_trailing_metadata) void on_trailing(uint32_t root, uint32_t t, uint32_t n) {
  (void)root, say("trail"), field("token", t), field("n", n), event("trail");
}
EXPORT(proxy_on_grpc_close) void on_close(uint32_t root, uint32_t t, uint32_t status) {
  (void)root, say("closed"), field("token", t), field("status", status), event("closed");
}
EXPORT(proxy_on_http_call_response) void on_http(uint32_t root, uint32_t t, uint32_t n, uint32_t size, uint32_t trailers) {
  (void)root, (void)size, (void)trailers, say("http"), field("token", t), field("n", n), event("http");
}
EXPORT(proxy_on_tick) void on_tick(uint32_t root) { (void)root, say("tick"), event("tick"); }
