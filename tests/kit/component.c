// A component for the kit's tests: the clock, randomness, shared data, a call, metrics, faults.
#include "penstock.h"

filter_info metadata(void) {
  return (filter_info){S("kit"), S("1.0"), REQUEST_HEADERS | RESPONSE_HEADERS | RESPONSE_BODY};
}

configured configure(string config) {
  return equal(config, S("no")) ? (configured){true, S("the config says no")} : (configured){0};
}

static string decimal(uint64_t number) {
  char *at = (char *)room(20) + 20, *end = at;
  do *--at = '0' + number % 10;
  while (number /= 10);
  return (string){at, end - at};
}

static headers_result add(string name, string value) {
  header_edit *edit = room(sizeof *edit);
  *edit = (header_edit){ADD, {name, value}};
  return (headers_result){.edits = {edit, 1}};
}

headers_result on_request_headers(uint64_t stream, headers head, bool end) {
  string what = header(head, S("x-do"));
  if (equal(what, S("time"))) return add(S("x-time"), joined(decimal(now_ns()), joined(S(" "), decimal(monotonic_ns()))));
  if (equal(what, S("random"))) return add(S("x-random"), decimal(random_u64()));
  if (equal(what, S("count"))) {
    kv_found found = kv_get(S("n"));
    string n = found.ok.some ? joined(found.ok.entry.value.bytes, S("I")) : S("I");
    kv_set(S("n"), (data){TEXT, n}, found.ok.some ? found.ok.entry.version : 0);
    counter_add(S("counted"), 2);
    gauge_set(S("level"), -3);
    histogram_record(S("sizes"), n.size);
    return add(S("x-count"), n);
  }
  if (equal(what, S("call"))) {
    field *asked = room(3 * sizeof *asked);
    asked[0] = (field){S(":method"), S("GET")};
    asked[1] = (field){S(":path"), S("/check")};
    asked[2] = (field){S(":authority"), S("auth")};
    if (http_send(S("auth"), (headers){asked, 3}, (maybe_data){0}, 2000).failed) return add(S("x-call"), S("refused"));
    return (headers_result){.action = {PAUSE}};
  }
  if (equal(what, S("trap"))) __builtin_trap();
  log_line(LEVEL_INFO, S("nothing to do"));
  return (headers_result){0};
}

held_result on_http_response(uint64_t stream, uint32_t call, const response *answer, string problem) {
  headers_result result = add(S("x-call"), answer ? header(answer->headers, S(":status")) : problem);
  return (held_result){.edits = result.edits};
}

body_result on_response_body(uint64_t stream, data chunk, bool end) {
  return (body_result){.replace = {true, {chunk.kind, joined(S("<"), joined(chunk.bytes, S(">")))}}};
}

headers_result on_response_headers(uint64_t stream, headers head, bool end) {
  header_edit *edit = room(sizeof *edit);
  *edit = (header_edit){REMOVE, {S("content-length")}};
  return (headers_result){.edits = {edit, 1}};
}
