// The probe: a proxy-wasm filter whose behaviour is its plugin configuration, so that one binary can ask Envoy and
// Penstock the same question. It logs every callback it gets, runs the commands that its script has for that callback,
// and logs each host function's status and result. README.md beside this file describes the script. -DABI=10 and -DABI=20 make
// it a filter of ABI 0.1.0 and 0.2.0: it then imports what that version has.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef ABI
#define ABI 21
#endif
#define HOST(name) __attribute__((import_module("env"), import_name(#name))) int name
#define EXPORT(name) __attribute__((export_name(#name)))

HOST(proxy_log)(int level, const char *text, size_t size);
HOST(proxy_get_header_map_pairs)(int map, char **data, size_t *size);
HOST(proxy_set_header_map_pairs)(int map, const char *data, size_t size);
HOST(proxy_get_header_map_size)(int map, size_t *size);
HOST(proxy_get_header_map_value)(int map, const char *key, size_t key_size, char **value, size_t *value_size);
HOST(proxy_add_header_map_value)(int map, const char *key, size_t key_size, const char *value, size_t value_size);
HOST(proxy_replace_header_map_value)(int map, const char *key, size_t key_size, const char *value, size_t value_size);
HOST(proxy_remove_header_map_value)(int map, const char *key, size_t key_size);
HOST(proxy_get_buffer_bytes)(int type, size_t start, size_t max, char **data, size_t *size);
HOST(proxy_get_buffer_status)(int type, size_t *size, uint32_t *flags);
HOST(proxy_set_buffer_bytes)(int type, size_t start, size_t size, const char *data, size_t data_size);
HOST(proxy_get_property)(const char *path, size_t path_size, char **data, size_t *size);
HOST(proxy_set_property)(const char *path, size_t path_size, const char *value, size_t value_size);
HOST(proxy_send_local_response)(uint32_t code, const char *details, size_t details_size, const char *body,
                                size_t body_size, const char *headers, size_t headers_size, uint32_t grpc_status);
#if ABI == 10
HOST(proxy_continue_request)(void);
HOST(proxy_continue_response)(void);
HOST(proxy_clear_route_cache)(void);
HOST(proxy_get_configuration)(char **data, size_t *size);
static int proxy_continue_stream(int stream) { return stream ? proxy_continue_response() : proxy_continue_request(); }
#else
HOST(proxy_continue_stream)(int stream);
HOST(proxy_close_stream)(int stream);
#endif
HOST(proxy_set_effective_context)(uint32_t context);
HOST(proxy_set_tick_period_milliseconds)(uint32_t period);
HOST(proxy_done)(void);
HOST(proxy_get_current_time_nanoseconds)(uint64_t *now);
#if ABI == 21
HOST(proxy_get_log_level)(uint32_t *level);
#endif
HOST(proxy_get_status)(uint32_t *code, char **message, size_t *size);
HOST(proxy_http_call)(const char *upstream, size_t upstream_size, const char *headers, size_t headers_size,
                      const char *body, size_t body_size, const char *trailers, size_t trailers_size,
                      uint32_t timeout, uint32_t *token);
HOST(proxy_define_metric)(int type, const char *name, size_t name_size, uint32_t *id);
HOST(proxy_increment_metric)(uint32_t id, int64_t delta);
HOST(proxy_record_metric)(uint32_t id, uint64_t value);
HOST(proxy_get_metric)(uint32_t id, uint64_t *value);
HOST(proxy_get_shared_data)(const char *key, size_t key_size, char **value, size_t *size, uint32_t *cas);
HOST(proxy_set_shared_data)(const char *key, size_t key_size, const char *value, size_t size, uint32_t cas);
HOST(proxy_register_shared_queue)(const char *name, size_t size, uint32_t *token);
HOST(proxy_resolve_shared_queue)(const char *vm, size_t vm_size, const char *name, size_t size, uint32_t *token);
HOST(proxy_enqueue_shared_queue)(uint32_t token, const char *data, size_t size);
HOST(proxy_dequeue_shared_queue)(uint32_t token, char **data, size_t *size);
HOST(proxy_call_foreign_function)(const char *name, size_t name_size, const char *data, size_t size, char **result,
                                  size_t *result_size);

enum { KINDS = 24, CONTEXTS = 1024, SHOWN = 600, REQUEST_HELD = 1, RESPONSE_HELD = 2 };
static const uint64_t QUIET = 250 * 1000 * 1000; // ns

struct context {
  uint32_t id, root;
  char *script;           // of a root context, or its own of a stream context whose root says `from`
  char name[16], from[32]; // of a root context; from: the request header that holds a stream's script
  uint32_t stream;        // of a root context: the stream context created last
  uint32_t held;          // of a stream context with its own script: what it has paused and not continued
  uint64_t last;          // and when it had its last callback
  struct { char kind[12]; uint32_t calls; } seen[KINDS];
};

static struct context contexts[CONTEXTS];
static uint32_t cas, queue; // seen last: what `shset` may compare with, and the queue that `q` stands for
static char line[4096];
static size_t used;

static struct context *find(uint32_t id) {
  struct context *free_slot = 0;
  for (int i = 0; i < CONTEXTS; i++) {
    if (contexts[i].id == id) return &contexts[i];
    if (!contexts[i].id && !free_slot) free_slot = &contexts[i];
  }
  if (!free_slot) __builtin_trap();
  memset(free_slot, 0, sizeof *free_slot);
  free_slot->id = id;
  free_slot->root = id;
  return free_slot;
}

static void put(const char *text, size_t size) {
  static const char hex[] = "0123456789abcdef";
  for (size_t i = 0; i < size && used < sizeof line - 8; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c >= 0x20 && c < 0x7f && c != '\\') {
      line[used++] = (char)c;
    } else {
      line[used++] = '\\';
      line[used++] = 'x';
      line[used++] = hex[c >> 4];
      line[used++] = hex[c & 15];
    }
  }
}
static void puts_(const char *text) { put(text, strlen(text)); }
static void number(uint64_t n) {
  char digits[20];
  int i = 20;
  do digits[--i] = (char)('0' + n % 10), n /= 10; while (n);
  put(digits + i, (size_t)(20 - i));
}
static void flush(void) {
  proxy_log(2, line, used);
  used = 0;
}
static void shown(const char *data, size_t size) {
  puts_(" [");
  put(data, size < SHOWN ? size : SHOWN);
  puts_("]");
  if (size > SHOWN) puts_(" of "), number(size);
}

struct text { char *data; size_t size; };

static int hexdigit(char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; }

// The next word of a command, %XX decoded in place of a copy; "~" is the empty string.
static struct text word(const char **at, const char *end) {
  while (*at < end && **at == ' ') ++*at;
  const char *from = *at;
  while (*at < end && **at != ' ') ++*at;
  struct text t = {malloc((size_t)(*at - from) + 1), 0};
  if (*at - from == 1 && *from == '~') return t;
  for (const char *p = from; p < *at; p++) {
    if (*p == '%' && *at - p > 2) {
      t.data[t.size++] = (char)(hexdigit(p[1]) << 4 | hexdigit(p[2]));
      p += 2;
    } else {
      t.data[t.size++] = *p;
    }
  }
  return t;
}
static uint32_t integer(struct text t) {
  uint32_t n = 0;
  for (size_t i = 0; i < t.size; i++) n = n * 10 + (uint32_t)(t.data[i] - '0');
  free(t.data);
  return n;
}
static int is(struct text t, const char *name) { return t.size == strlen(name) && !memcmp(t.data, name, t.size); }

// name=value|name=value to the ABI's pair map; "" to an empty map.
static struct text encode(struct text t) {
  struct text out = {malloc(4 + t.size * 16 + 64), 0};
  uint32_t count = t.size ? 1 : 0;
  for (size_t i = 0; i < t.size; i++) count += t.data[i] == '|';
  memcpy(out.data, &count, 4);
  out.size = 4;
  for (int pass = 0; pass < 2; pass++) {
    for (size_t from = 0; count && from <= t.size;) {
      size_t to = from, mid = 0;
      while (to < t.size && t.data[to] != '|') {
        if (t.data[to] == '=' && !mid) mid = to;
        to++;
      }
      if (!mid) mid = to;
      size_t value = mid < to ? mid + 1 : to;
      uint32_t sizes[2] = {(uint32_t)(mid - from), (uint32_t)(to - value)};
      if (!pass) {
        memcpy(out.data + out.size, sizes, 8);
        out.size += 8;
      } else {
        memcpy(out.data + out.size, t.data + from, sizes[0]);
        out.size += sizes[0];
        out.data[out.size++] = 0;
        memcpy(out.data + out.size, t.data + value, sizes[1]);
        out.size += sizes[1];
        out.data[out.size++] = 0;
      }
      from = to + 1;
    }
  }
  free(t.data);
  return out;
}

static struct context *acting; // the context whose commands run

static void status(int code) { puts_(" = "), number((uint32_t)code); }

static void pairs(int map) {
  char *data = 0;
  size_t size = 0;
  status(proxy_get_header_map_pairs(map, &data, &size));
  if (!data) { puts_(" none"); return; }
  uint32_t count;
  memcpy(&count, data, 4);
  puts_(" n="), number(count);
  char *sizes = data + 4, *at = data + 4 + 8 * (size_t)count;
  for (uint32_t i = 0; i < count; i++, sizes += 8) {
    uint32_t s[2];
    memcpy(s, sizes, 8);
    puts_(" "), put(at, s[0]), puts_("="), put(at + s[0] + 1, s[1]), puts_(";");
    at += s[0] + s[1] + 2;
  }
  free(data);
}

static uint32_t run(struct context *root, const char *at, const char *end, uint32_t action) {
  struct text name = word(&at, end);
  if (!name.size) return action;
  if (is(name, "ret")) return integer(word(&at, end));
  puts_(root->name), puts_("   "), put(name.data, name.size);
  const char *rest = at;
  puts_(" "), put(rest + (rest < end && *rest == ' '), (size_t)(end - rest) - (rest < end && *rest == ' '));
  if (is(name, "trap")) {
    flush();
    __builtin_trap();
  } else if (is(name, "loop")) {
    flush();
    for (volatile int forever = 1; forever;) {}
  } else if (is(name, "pairs")) {
    pairs((int)integer(word(&at, end)));
  } else if (is(name, "size")) {
    size_t size = 0;
    status(proxy_get_header_map_size((int)integer(word(&at, end)), &size)), puts_(" "), number(size);
  } else if (is(name, "get")) {
    int map = (int)integer(word(&at, end));
    struct text key = word(&at, end);
    char *value = 0;
    size_t size = 0;
    status(proxy_get_header_map_value(map, key.data, key.size, &value, &size)), shown(value, size);
    free(value);
  } else if (is(name, "add") || is(name, "rep")) {
    int map = (int)integer(word(&at, end));
    struct text key = word(&at, end), value = word(&at, end);
    status((is(name, "add") ? proxy_add_header_map_value : proxy_replace_header_map_value)(map, key.data, key.size,
                                                                                           value.data, value.size));
  } else if (is(name, "rem")) {
    int map = (int)integer(word(&at, end));
    struct text key = word(&at, end);
    status(proxy_remove_header_map_value(map, key.data, key.size));
  } else if (is(name, "setpairs")) {
    int map = (int)integer(word(&at, end));
    struct text map_data = encode(word(&at, end));
    status(proxy_set_header_map_pairs(map, map_data.data, map_data.size));
  } else if (is(name, "buf")) {
    int type = (int)integer(word(&at, end));
    size_t start = integer(word(&at, end)), max = integer(word(&at, end)), size = 0;
    char *data = 0;
    status(proxy_get_buffer_bytes(type, start, max, &data, &size)), puts_(" n="), number(size), shown(data, size);
    free(data);
  } else if (is(name, "bufstat")) {
    size_t size = 0;
    uint32_t flags = 0;
    status(proxy_get_buffer_status((int)integer(word(&at, end)), &size, &flags));
    puts_(" n="), number(size), puts_(" flags="), number(flags);
  } else if (is(name, "setbuf")) {
    int type = (int)integer(word(&at, end));
    size_t start = integer(word(&at, end)), size = integer(word(&at, end));
    struct text data = word(&at, end);
    status(proxy_set_buffer_bytes(type, start, size, data.data, data.size));
  } else if (is(name, "prop")) {
    struct text path = word(&at, end);
    char *data = 0;
    size_t size = 0;
    status(proxy_get_property(path.data, path.size, &data, &size)), shown(data, size);
    free(data);
  } else if (is(name, "setprop")) {
    struct text path = word(&at, end), value = word(&at, end);
    status(proxy_set_property(path.data, path.size, value.data, value.size));
  } else if (is(name, "reply")) {
    uint32_t code = integer(word(&at, end));
    struct text details = word(&at, end), body = word(&at, end), headers = encode(word(&at, end)), grpc = word(&at, end);
    uint32_t grpc_status = grpc.size ? integer(grpc) : 0xffffffffu;
    status(proxy_send_local_response(code, details.data, details.size, body.data, body.size, headers.data,
                                     headers.size, grpc_status));
  } else if (is(name, "cont")) {
    status(proxy_continue_stream((int)integer(word(&at, end))));
  } else if (is(name, "go")) {
    uint32_t held = acting->held;
    acting->held = 0;
    if (held & REQUEST_HELD) status(proxy_continue_stream(0));
    if (held & RESPONSE_HELD) status(proxy_continue_stream(1));
#if ABI == 10
  } else if (is(name, "clear")) {
    status(proxy_clear_route_cache());
  } else if (is(name, "conf")) {
    char *data = 0;
    size_t size = 0;
    status(proxy_get_configuration(&data, &size)), shown(data, size);
    free(data);
#else
  } else if (is(name, "close")) {
    status(proxy_close_stream((int)integer(word(&at, end))));
#endif
  } else if (is(name, "eff")) {
    struct text which = word(&at, end);
    status(proxy_set_effective_context(is(which, "stream") ? root->stream : integer(which)));
  } else if (is(name, "period")) {
    status(proxy_set_tick_period_milliseconds(integer(word(&at, end))));
  } else if (is(name, "proxy_done")) {
    status(proxy_done());
#if ABI == 21
  } else if (is(name, "level")) {
    uint32_t level = 99;
    status(proxy_get_log_level(&level)), puts_(" "), number(level);
#endif
  } else if (is(name, "say")) {
    int level = (int)integer(word(&at, end));
    struct text text = word(&at, end);
    status(proxy_log(level, text.data, text.size));
  } else if (is(name, "now")) {
    uint64_t now = 0;
    status(proxy_get_current_time_nanoseconds(&now)), puts_(now > 1600000000000000000u ? " set" : " unset");
  } else if (is(name, "status")) {
    uint32_t code = 0;
    char *message = 0;
    size_t size = 0;
    status(proxy_get_status(&code, &message, &size)), puts_(" "), number(code), shown(message, size);
    free(message);
  } else if (is(name, "call")) {
    struct text cluster = word(&at, end), headers = encode(word(&at, end)), body = word(&at, end);
    uint32_t timeout = integer(word(&at, end)), token = 0;
    struct text trailers = encode((struct text){malloc(1), 0});
    status(proxy_http_call(cluster.data, cluster.size, headers.data, headers.size, body.data, body.size,
                           trailers.data, trailers.size, timeout, &token));
    puts_(" token="), number(token);
  } else if (is(name, "metric")) {
    int type = (int)integer(word(&at, end));
    struct text metric = word(&at, end);
    uint32_t id = 0, value = integer(word(&at, end));
    uint64_t now = 0;
    status(proxy_define_metric(type, metric.data, metric.size, &id)), puts_(" id="), number(id);
    status(type == 2 ? proxy_record_metric(id, value) : proxy_increment_metric(id, value));
    status(proxy_get_metric(id, &now)), puts_(" "), number(now);
  } else if (is(name, "shget")) {
    struct text key = word(&at, end);
    char *value = 0;
    size_t size = 0;
    uint32_t before = cas;
    status(proxy_get_shared_data(key.data, key.size, &value, &size, &cas)), shown(value, size);
    puts_(cas == before ? " cas as before" : cas ? " cas anew" : " cas 0");
    free(value);
  } else if (is(name, "shset")) {
    struct text key = word(&at, end), value = word(&at, end), compared = word(&at, end);
    uint32_t with = is(compared, "cas") ? cas : integer(compared);
    status(proxy_set_shared_data(key.data, key.size, value.data, value.size, with));
  } else if (is(name, "qreg") || is(name, "qres")) {
    struct text vm = is(name, "qres") ? word(&at, end) : (struct text){0, 0}, queue_name = word(&at, end);
    uint32_t before = queue;
    status(is(name, "qreg") ? proxy_register_shared_queue(queue_name.data, queue_name.size, &queue)
                            : proxy_resolve_shared_queue(vm.data, vm.size, queue_name.data, queue_name.size, &queue));
    puts_(queue == before ? " as before" : " anew");
  } else if (is(name, "enq")) {
    struct text which = word(&at, end), data = word(&at, end);
    status(proxy_enqueue_shared_queue(is(which, "q") ? queue : integer(which), data.data, data.size));
  } else if (is(name, "deq")) {
    struct text which = word(&at, end);
    char *data = 0;
    size_t size = 0;
    status(proxy_dequeue_shared_queue(is(which, "q") ? queue : integer(which), &data, &size)), shown(data, size);
    free(data);
  } else if (is(name, "foreign")) {
    struct text function = word(&at, end), data = word(&at, end);
    char *result = 0;
    size_t size = 0;
    status(proxy_call_foreign_function(function.data, function.size, data.data, data.size, &result, &size));
    shown(result, size);
  } else {
    puts_(" unknown command");
  }
  flush();
  free(name.data);
  return action;
}

// Runs the lines `kind: command; command` and, on the call's ordinal in its context, `kind#N: ...`.
static uint32_t callback(uint32_t id, const char *kind, uint32_t action) {
  struct context *c = find(id), *root = find(c->root);
  uint32_t ordinal = 0;
  acting = c;
  for (int i = 0; i < KINDS; i++) {
    if (!c->seen[i].kind[0]) strncpy(c->seen[i].kind, kind, sizeof c->seen[i].kind - 1);
    if (!strcmp(c->seen[i].kind, kind)) { ordinal = ++c->seen[i].calls; break; }
  }
  const char *script = c->script ? c->script : root->script;
  if (!script) return action;
  for (const char *at = script; *at;) {
    const char *end = at;
    while (*end && *end != '\n') end++;
    const char *head = at;
    size_t size = strlen(kind);
    if ((size_t)(end - at) > size && !memcmp(at, kind, size)) {
      head += size;
      uint32_t wanted = 0;
      if (*head == '#')
        for (head++; *head >= '0' && *head <= '9'; head++) wanted = wanted * 10 + (uint32_t)(*head - '0');
      if (*head == ':' && (!wanted || wanted == ordinal)) {
        for (head++; head < end;) {
          const char *stop = head;
          while (stop < end && *stop != ';') stop++;
          action = run(root, head, stop, action);
          head = stop + 1;
        }
      }
    }
    at = *end ? end + 1 : end;
  }
  return action;
}

static void entered(uint32_t id, const char *kind) {
  struct context *root = find(find(id)->root);
  puts_(root->name[0] ? root->name : "?"), puts_(" "), puts_(kind), puts_(" c="), number(id);
}
static void field(const char *name, uint32_t value) { puts_(" "), puts_(name), puts_("="), number(value); }
// A stream's own script comes with its request, in the header that the root's script names; `!` ends its lines.
static void take_script(struct context *c) {
  struct context *root = find(c->root);
  size_t size = 0, name = strlen(root->from);
  char *value = 0;
  if (!name || proxy_get_header_map_value(0, root->from, name, &value, &size) || !value) return;
  c->script = malloc(size + 1);
  for (size_t i = 0; i < size; i++) c->script[i] = value[i] == '!' ? '\n' : value[i];
  c->script[size] = 0;
  free(value);
  proxy_remove_header_map_value(0, root->from, name);
}
static uint32_t stream(uint32_t id, const char *kind, const char *what, uint32_t size, int eos) {
  struct context *c = find(id);
  int response = kind[1] == 's';
  if (!strcmp(kind, "rqh")) take_script(c);
  entered(id, kind), field(what, size);
  if (eos >= 0) field("eos", (uint32_t)eos);
  flush();
  if (response) c->held &= ~REQUEST_HELD; // continuing a request that has been answered is not asked of Envoy
  uint32_t action = callback(id, kind, 0), held = response ? RESPONSE_HELD : REQUEST_HELD;
  if (c->script) {
    proxy_get_current_time_nanoseconds(&c->last);
    c->held = action ? c->held | held : c->held & ~held;
  }
  return action;
}

#if ABI == 10
EXPORT(proxy_abi_version_0_1_0) void abi_version(void) {}
#elif ABI == 20
EXPORT(proxy_abi_version_0_2_0) void abi_version(void) {}
#else
EXPORT(proxy_abi_version_0_2_1) void abi_version(void) {}
#endif
#if ABI != 10
EXPORT(proxy_on_memory_allocate) void *allocate(size_t size) { return malloc(size); }
#endif

EXPORT(proxy_on_context_create) void on_context_create(uint32_t id, uint32_t parent) {
  struct context *c = find(id);
  if (!parent) return;
  c->root = parent;
  find(parent)->stream = id;
  entered(id, "create"), field("parent", parent), flush();
  callback(id, "create", 0);
}
EXPORT(proxy_on_vm_start) uint32_t on_vm_start(uint32_t id, uint32_t size) {
  (void)id, (void)size;
  return 1;
}
EXPORT(proxy_on_configure) uint32_t on_configure(uint32_t id, uint32_t size) {
  struct context *c = find(id);
  char *data = 0;
  size_t got = 0;
  proxy_get_buffer_bytes(7, 0, size, &data, &got);
  c->script = malloc(got + 1);
  memcpy(c->script, data, got);
  c->script[got] = 0;
  strcpy(c->name, "P");
  if (!strncmp(c->script, "name ", 5)) {
    size_t n = 0;
    while (n < sizeof c->name - 1 && c->script[5 + n] > ' ') c->name[n] = c->script[5 + n], n++;
    c->name[n] = 0;
  }
  const char *from = strstr(c->script, "\nfrom ");
  for (size_t n = 0; from && n < sizeof c->from - 1 && from[6 + n] > ' '; n++) c->from[n] = from[6 + n];
  return callback(id, "configure", 1);
}
// Under `from` a tick is for each stream that is held and has been quiet for a while, under its effective context.
EXPORT(proxy_on_tick) void on_tick(uint32_t id) {
  if (!find(id)->from[0]) {
    callback(id, "tick", 0);
    return;
  }
  uint64_t now = 0;
  proxy_get_current_time_nanoseconds(&now);
  for (int i = 0; i < CONTEXTS; i++) {
    struct context *c = &contexts[i];
    if (!c->id || c->root != id || !c->script || !c->held || now - c->last < QUIET || proxy_set_effective_context(c->id)) continue;
    c->last = now;
    entered(c->id, "tick"), flush();
    callback(c->id, "tick", 0);
    return; // one stream a tick: Envoy may crash when a callback continues several
  }
}
#if ABI == 10
EXPORT(proxy_on_request_headers) uint32_t on_rqh(uint32_t id, uint32_t n) { return stream(id, "rqh", "n", n, -1); }
EXPORT(proxy_on_response_headers) uint32_t on_rsh(uint32_t id, uint32_t n) { return stream(id, "rsh", "n", n, -1); }
#else
EXPORT(proxy_on_request_headers) uint32_t on_rqh(uint32_t id, uint32_t n, uint32_t eos) {
  return stream(id, "rqh", "n", n, (int)eos);
}
EXPORT(proxy_on_response_headers) uint32_t on_rsh(uint32_t id, uint32_t n, uint32_t eos) {
  return stream(id, "rsh", "n", n, (int)eos);
}
#endif
EXPORT(proxy_on_request_body) uint32_t on_rqb(uint32_t id, uint32_t n, uint32_t eos) {
  return stream(id, "rqb", "size", n, (int)eos);
}
EXPORT(proxy_on_request_trailers) uint32_t on_rqt(uint32_t id, uint32_t n) { return stream(id, "rqt", "n", n, -1); }
EXPORT(proxy_on_response_body) uint32_t on_rsb(uint32_t id, uint32_t n, uint32_t eos) {
  return stream(id, "rsb", "size", n, (int)eos);
}
EXPORT(proxy_on_response_trailers) uint32_t on_rst(uint32_t id, uint32_t n) { return stream(id, "rst", "n", n, -1); }
EXPORT(proxy_on_http_call_response)
void on_call(uint32_t id, uint32_t token, uint32_t headers, uint32_t size, uint32_t trailers) {
  entered(id, "called"), field("token", token), field("n", headers), field("size", size), field("trailers", trailers);
  flush();
  callback(id, "called", 0);
}
EXPORT(proxy_on_queue_ready) void on_queue(uint32_t id, uint32_t token) {
  entered(id, "queue"), puts_(token == queue ? " q" : " another"), flush();
  callback(id, "queue", 0);
}
EXPORT(proxy_on_done) uint32_t on_done(uint32_t id) {
  if (find(id)->root != id) entered(id, "done"), flush();
  return callback(id, find(id)->root == id ? "rootdone" : "done", 1);
}
EXPORT(proxy_on_log) void on_log(uint32_t id) {
  entered(id, "log"), flush();
  callback(id, "log", 0);
}
EXPORT(proxy_on_delete) void on_delete(uint32_t id) {
  if (find(id)->root != id) entered(id, "delete"), flush();
  callback(id, find(id)->root == id ? "rootdelete" : "delete", 0);
  struct context *c = find(id);
  free(c->script);
  memset(c, 0, sizeof *c);
}
