// One half of the contract suite: what the request header x-do asks for, as a component. contract_proxy_wasm.c is the other.
#include "penstock.h"

enum { STREAMS = 256 };
static char doing[STREAMS][16];
static uint32_t doing_size[STREAMS];
static uint64_t seen;

static bool is(uint64_t stream, string what) {
  return equal((string){doing[stream % STREAMS], doing_size[stream % STREAMS]}, what);
}
#define does(stream, what) is(stream, S(what))

filter_info metadata(void) {
  return (filter_info){S("contract"), S("1.0"), REQUEST_HEADERS | REQUEST_BODY | RESPONSE_HEADERS | RESPONSE_BODY | REQUEST_TRAILERS | LOG};
}

configured configure(string config) {
  if (equal(config, S("refuse"))) return (configured){true, S("the config says so")};
  if (equal(config, S("trap"))) __builtin_trap();
  return (configured){0};
}

static headers_result edited(uint8_t kind, string name, string value) {
  header_edit *edit = room(sizeof *edit);
  *edit = (header_edit){kind, {name, value}};
  return (headers_result){.edits = {edit, 1}};
}

static headers_result count(void) {
  for (int i = 0; i < 20; i++) {
    kv_found found = kv_get(S("count"));
    if (found.failed) break;
    char *digit = room(1);
    *digit = found.ok.some ? found.ok.entry.value.bytes.at[0] + 1 : '1';
    kv_written written = kv_set(S("count"), (data){TEXT, {digit, 1}}, found.ok.some ? found.ok.entry.version : 0);
    if (!written.failed) return edited(ADD, S("x-count"), (string){digit, 1});
  }
  return edited(ADD, S("x-count"), S("failed"));
}

// Values of a kilobyte under new keys until one is refused: how many there were.
static headers_result fill(void) {
  char *value = room(1024), *digit = room(1);
  memset(value, 'v', 1024);
  for (*digit = '0'; *digit < '9'; ++*digit)
    if (kv_set((string){digit, 1}, (data){TEXT, {value, 1024}}, 0).failed) break;
  return edited(ADD, S("x-filled"), (string){digit, 1});
}

static headers_result call(headers head) {
  field *asked = room(3 * sizeof *asked);
  asked[0] = (field){S(":method"), S("GET")};
  asked[1] = (field){S(":path"), header(head, S("x-ask"))};
  asked[2] = (field){S(":authority"), S("auth")};
  call_started started = http_send(header(head, S("x-call")), (headers){asked, 3}, (maybe_data){0}, 2000);
  if (started.failed)
    return (headers_result){.action = {RESPOND, {403, {0}, {true, {TEXT, joined(S("refused: "), started.problem)}}, {0}}}};
  return (headers_result){.action = {PAUSE}};
}

headers_result on_request_headers(uint64_t stream, headers head, bool end) {
  string what = header(head, S("x-do"));
  uint32_t size = what.size < 16 ? what.size : 16;
  memcpy(doing[stream % STREAMS], what.at, size);
  doing_size[stream % STREAMS] = size;
  seen++;
  if (does(stream, "reply")) {
    field *fields = room(sizeof *fields);
    *fields = (field){S("x-by"), S("guest")};
    return (headers_result){.action = {RESPOND, {403, {fields, 1}, {true, {TEXT, S("no")}}, S("not today")}}};
  }
  if (does(stream, "trap")) __builtin_trap();
  if (does(stream, "loop")) for (volatile int i = 0;; i++) {}
  if (does(stream, "grow")) {
    while (__builtin_wasm_memory_grow(0, 16) != (size_t)-1) {}
    return edited(ADD, S("x-pages"), __builtin_wasm_memory_size(0) <= 256 ? S("few") : S("many"));
  }
  if (does(stream, "pause")) return (headers_result){.action = {PAUSE}};
  if (does(stream, "call")) return call(head);
  if (does(stream, "count")) return count();
  if (does(stream, "fill")) return fill();
  if (does(stream, "chatty")) for (int i = 0; i < 50; i++) log_line(LEVEL_WARN, S("again"));
  if (does(stream, "bad-header")) return edited(ADD, S("x-bad"), S("a\r\nb"));
  if (does(stream, "many")) {
    header_edit *edits_ = room(600 * sizeof *edits_);
    for (int i = 0; i < 600; i++) edits_[i] = (header_edit){ADD, {S("x-many"), S("1")}};
    return (headers_result){.edits = {edits_, 600}};
  }
  if (does(stream, "path")) return edited(SET, S(":path"), S("/other"));
  if (does(stream, "remove")) return edited(REMOVE, S("x-secret"), (string){0});
  if (does(stream, "property")) {
    maybe_string path = property(S("request.path"));
    return edited(ADD, S("x-path"), path.some ? path.value : S("none"));
  }
  if (does(stream, "log")) log_line(LEVEL_WARN, S("said by the guest"));
  if (does(stream, "metric")) counter_add(S("contract"), 3);
  if (does(stream, "stream") || does(stream, "buffer")) return edited(REMOVE, S("content-length"), (string){0});
  return edited(SET, S("x-guest"), S("yes"));
}

static body_result upper(uint64_t stream, data chunk, bool end) {
  if (does(stream, "buffer") && !end) return (body_result){.action = {PAUSE}};
  if (does(stream, "body-reply") && chunk.bytes.size)
    return (body_result){.action = {RESPOND, {409, {0}, {true, {TEXT, S("by body")}}, {0}}}};
  if (!does(stream, "buffer") && !does(stream, "stream")) return (body_result){0};
  char *out = room(chunk.bytes.size + 1);
  for (uint32_t i = 0; i < chunk.bytes.size; i++) {
    char c = chunk.bytes.at[i];
    out[i] = c >= 'a' && c <= 'z' ? c - 32 : c;
  }
  uint32_t size = chunk.bytes.size;
  if (end) out[size++] = '!';
  return (body_result){.replace = {true, {chunk.kind, {out, size}}}};
}

body_result on_request_body(uint64_t stream, data chunk, bool end) { return upper(stream, chunk, end); }
body_result on_response_body(uint64_t stream, data chunk, bool end) { return upper(stream, chunk, end); }

held_result on_request_trailers(uint64_t stream, headers trailers, maybe_data held) {
  headers_result result = edited(ADD, S("x-trailer"), trailers.count ? trailers.at[0].value : S("none"));
  body_result body = held.some ? upper(stream, held.value, true) : (body_result){0};
  return (held_result){.edits = result.edits, .replace = body.replace};
}

headers_result on_response_headers(uint64_t stream, headers head, bool end) {
  if (does(stream, "response-pause")) return (headers_result){.action = {PAUSE}};
  if (does(stream, "response-reply") && equal(header(head, S(":status")), S("200")))
    return (headers_result){.action = {RESPOND, {409, {0}, {true, {TEXT, S("instead")}}, {0}}}};
  if (does(stream, "response-trap")) __builtin_trap();
  if (does(stream, "stream") || does(stream, "buffer")) return edited(REMOVE, S("content-length"), (string){0});
  return edited(ADD, S("x-seen"), header(head, S(":status")));
}

held_result on_http_response(uint64_t stream, uint32_t id, const response *answer, string problem) {
  if (!answer) return (held_result){.action = {RESPOND, {403, {0}, {true, {TEXT, S("reset")}}, {0}}}};
  string status = header(answer->headers, S(":status"));
  if (!equal(status, S("200"))) return (held_result){.action = {RESPOND, {403, {0}, {true, {TEXT, status}}, {0}}}};
  string user = header(answer->headers, S("x-user"));
  if (equal(user, S("trap"))) __builtin_trap();
  headers_result result = edited(ADD, S("x-user"), user);
  return (held_result){.edits = result.edits};
}

void on_log(uint64_t stream) {
  if (does(stream, "on-log")) {
    maybe_string status = property(S("response.code"));
    log_line(LEVEL_WARN, joined(S("status "), status.some ? status.value : S("none")));
  }
}
