// A token check as a component in C: without the token 401, with it the request goes on with x-client, and the service's JSON
// gets a field. Configured with {"token": "...", "client": "..."}.

#include "penstock.h"

// Streams whose answer is JSON: instances serve many at once. A stream that is not among the last 1,024 is left alone.
enum { STREAMS = 1024 };
static uint64_t answering_json[STREAMS];

filter_info metadata(void) {
  return (filter_info){S("token-check"), S("1.0.0"), REQUEST_HEADERS | RESPONSE_HEADERS | RESPONSE_BODY};
}

// An instance has one configuration for life. What a callback is given is gone after it, so it is copied.
enum { LONGEST = 256 };
static char wanted_bytes[LONGEST], client_bytes[LONGEST];
static string wanted, client = {"unknown", 7};

static string kept(char *place, string value) {
  if (value.size > LONGEST) __builtin_trap();
  memcpy(place, value.at, value.size);
  return (string){place, value.size};
}

configured configure(string config) {
  maybe_string token = config_get(S("token")), name = config_get(S("client"));
  if (!token.some || !token.value.size) return (configured){true, S("the config has no token")};
  wanted = kept(wanted_bytes, joined(S("Bearer "), token.value));
  if (name.some) client = kept(client_bytes, name.value);
  return (configured){0};
}

headers_result on_request_headers(uint64_t stream, headers head, bool end_of_stream) {
  if (!equal(header(head, S("authorization")), wanted)) {
    log_line(LEVEL_INFO, joined(S("refused "), header(head, S(":path"))));
    field *fields = room(sizeof *fields);
    *fields = (field){S("www-authenticate"), S("Bearer")};
    return (headers_result){.action = {RESPOND, {401, {fields, 1}, {true, {TEXT, S("no valid token")}}, S("no_token")}}};
  }
  header_edit *edits = room(2 * sizeof *edits);
  edits[0] = (header_edit){REMOVE, {S("authorization")}};
  edits[1] = (header_edit){SET, {S("x-client"), client}};
  return (headers_result){.edits = {edits, 2}};
}

headers_result on_response_headers(uint64_t stream, headers head, bool end_of_stream) {
  string type = header(head, S("content-type"));
  string json = S("application/json");
  if (type.size < json.size || memcmp(type.at, json.at, json.size) != 0) return (headers_result){0};
  answering_json[stream % STREAMS] = stream;
  header_edit *edit = room(sizeof *edit);
  *edit = (header_edit){REMOVE, {S("content-length")}};  // the body's length will change
  return (headers_result){.edits = {edit, 1}};
}

body_result on_response_body(uint64_t stream, data chunk, bool end_of_stream) {
  if (answering_json[stream % STREAMS] != stream) return (body_result){0};
  if (!end_of_stream) return (body_result){.action = {PAUSE}};
  answering_json[stream % STREAMS] = 0;
  string body = chunk.bytes;
  while (body.size && (body.at[body.size - 1] == '\n' || body.at[body.size - 1] == ' ')) body.size--;
  if (chunk.kind != TEXT || body.size < 2 || body.at[0] != '{' || body.at[body.size - 1] != '}') return (body_result){0};
  body.size--;
  string rest = body.size > 1 ? S(",\"checked\":true}") : S("\"checked\":true}");
  return (body_result){.replace = {true, {TEXT, joined(body, rest)}}};
}
