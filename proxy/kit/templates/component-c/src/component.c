#include "penstock.h"

enum { LONGEST = 64 };

static char greeting[LONGEST] = "world";
static uint32_t greeting_size = 5;

filter_info metadata(void) { return (filter_info){S("@NAME@"), S("0.1.0"), REQUEST_HEADERS | RESPONSE_HEADERS}; }

// What a callback is given is gone after it: keep a copy.
configured configure(string config) {
  if (config.size > LONGEST) return (configured){true, S("the greeting is longer than 64 bytes")};
  if (config.size) {
    memcpy(greeting, config.at, config.size);
    greeting_size = config.size;
  }
  return (configured){0};
}

headers_result on_request_headers(uint64_t stream, headers head, bool end_of_stream) {
  if (header(head, S("x-block")).at == NULL) return (headers_result){0};
  log_line(LEVEL_INFO, S("blocked a request"));
  return (headers_result){.action = {RESPOND, {403, {0}, {true, {TEXT, S("blocked\n")}}, S("blocked")}}};
}

headers_result on_response_headers(uint64_t stream, headers head, bool end_of_stream) {
  header_edit *edit = room(sizeof *edit);
  *edit = (header_edit){SET, {S("x-hello"), {greeting, greeting_size}}};
  return (headers_result){.edits = {edit, 1}};
}
