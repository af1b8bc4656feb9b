/* The exports of the world, around what a filter defines (penstock.h). */

#include "penstock.h"

#define WORLD_EXPORT(function) __attribute__((export_name("penstock:filter/http-filter@0.1.0#" function)))
#define WORLD_POST(function) __attribute__((export_name("cabi_post_penstock:filter/http-filter@0.1.0#" function)))

char *arena_top = &__heap_base;

void *memcpy(void *to, const void *from, size_t size) {
  for (size_t i = 0; i < size; i++) ((char *)to)[i] = ((const char *)from)[i];
  return to;
}

void *memset(void *to, int byte, size_t size) {
  for (size_t i = 0; i < size; i++) ((char *)to)[i] = (char)byte;
  return to;
}

int memcmp(const void *a, const void *b, size_t size) {
  const unsigned char *x = a, *y = b;
  for (size_t i = 0; i < size; i++)
    if (x[i] != y[i]) return x[i] - y[i];
  return 0;
}

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, uint32_t old_size, uint32_t align, uint32_t size) {
  if (old && old_size >= size) return old;
  if (!size) return (void *)(uintptr_t)align;
  void *at = room(size);
  if (old) memcpy(at, old, old_size);
  return at;
}

#define FREED(name, function) WORLD_POST(function) void post_##name(void *result) { (void)result; arena_top = &__heap_base; }
FREED(metadata, "metadata")
FREED(configure, "configure")
FREED(request_headers, "on-request-headers")
FREED(request_body, "on-request-body")
FREED(request_trailers, "on-request-trailers")
FREED(response_headers, "on-response-headers")
FREED(response_body, "on-response-body")
FREED(response_trailers, "on-response-trailers")
FREED(http_response, "on-http-response")

#define GIVE(type, value) \
  type *result = room(sizeof(type)); \
  *result = (value); \
  return result;

WORLD_EXPORT("metadata") filter_info *export_metadata(void) { GIVE(filter_info, metadata()) }
WORLD_EXPORT("configure") configured *export_configure(const char *at, uint32_t size) {
  GIVE(configured, configure((string){at, size}))
}
WORLD_EXPORT("on-request-headers")
headers_result *export_request_headers(uint64_t stream, field *at, uint32_t count, uint32_t end) {
  GIVE(headers_result, on_request_headers(stream, (headers){at, count}, end))
}
WORLD_EXPORT("on-response-headers")
headers_result *export_response_headers(uint64_t stream, field *at, uint32_t count, uint32_t end) {
  GIVE(headers_result, on_response_headers(stream, (headers){at, count}, end))
}
WORLD_EXPORT("on-request-body")
body_result *export_request_body(uint64_t stream, uint32_t kind, const char *at, uint32_t size, uint32_t end) {
  GIVE(body_result, on_request_body(stream, (data){kind, {at, size}}, end))
}
WORLD_EXPORT("on-response-body")
body_result *export_response_body(uint64_t stream, uint32_t kind, const char *at, uint32_t size, uint32_t end) {
  GIVE(body_result, on_response_body(stream, (data){kind, {at, size}}, end))
}
WORLD_EXPORT("on-request-trailers")
held_result *export_request_trailers(uint64_t stream, field *at, uint32_t count, uint32_t some, uint32_t kind,
                                     const char *held, uint32_t size) {
  GIVE(held_result, on_request_trailers(stream, (headers){at, count}, (maybe_data){some, {kind, {held, size}}}))
}
WORLD_EXPORT("on-response-trailers")
held_result *export_response_trailers(uint64_t stream, field *at, uint32_t count, uint32_t some, uint32_t kind,
                                      const char *held, uint32_t size) {
  GIVE(held_result, on_response_trailers(stream, (headers){at, count}, (maybe_data){some, {kind, {held, size}}}))
}
WORLD_EXPORT("on-http-response")
held_result *export_http_response(uint64_t stream, uint32_t call, uint32_t failed, uint32_t a, uint32_t b, uint32_t kind,
                                  uint32_t body, uint32_t size, uint32_t c, uint32_t d) {
  response answer = {{(field *)a, b}, {kind, {(const char *)body, size}}, {(field *)c, d}};
  string problem = {(const char *)a, b};
  GIVE(held_result, on_http_response(stream, call, failed ? NULL : &answer, failed ? problem : (string){0, 0}))
}
WORLD_EXPORT("on-log") void export_log(uint64_t stream) {
  on_log(stream);
  arena_top = &__heap_base;
}

/* ---- What a filter leaves out ---- */

#define OPTIONAL __attribute__((weak))
OPTIONAL configured configure(string config) { return (configured){0}; }
OPTIONAL headers_result on_request_headers(uint64_t stream, headers head, bool end) { return (headers_result){0}; }
OPTIONAL body_result on_request_body(uint64_t stream, data chunk, bool end) { return (body_result){0}; }
OPTIONAL held_result on_request_trailers(uint64_t stream, headers all, maybe_data held) { return (held_result){0}; }
OPTIONAL headers_result on_response_headers(uint64_t stream, headers head, bool end) { return (headers_result){0}; }
OPTIONAL body_result on_response_body(uint64_t stream, data chunk, bool end) { return (body_result){0}; }
OPTIONAL held_result on_response_trailers(uint64_t stream, headers all, maybe_data held) { return (held_result){0}; }
OPTIONAL held_result on_http_response(uint64_t stream, uint32_t call, const response *answer, string problem) {
  return (held_result){0};
}
OPTIONAL void on_log(uint64_t stream) {}
