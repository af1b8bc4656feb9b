// The filter of components.py: two edits of a head, a body given back as it came, a thousand lines of log.
#include "penstock.h"

filter_info metadata(void) { return (filter_info){S("bench"), S("1"), REQUEST_HEADERS | REQUEST_BODY | RESPONSE_HEADERS | LOG}; }

headers_result on_request_headers(uint64_t stream, headers head, bool end) {
  header_edit *edit = room(2 * sizeof *edit);
  edit[0] = (header_edit){SET, {S("x-client"), S("ada")}};
  edit[1] = (header_edit){REMOVE, {S("x-b")}};
  return (headers_result){.edits = {edit, 2}};
}

body_result on_request_body(uint64_t stream, data chunk, bool end) { return (body_result){.replace = {true, chunk}}; }

headers_result on_response_headers(uint64_t stream, headers head, bool end) {
  for (int i = 0; i < 1000; i++) log_line(LEVEL_INFO, S("a line of the log, of no great length"));
  return (headers_result){0};
}
