// Says what its root lives through at the end. Configurations: "at once" is done when asked; "later" calls another service
// and is done when that answers; "never" is not.
#include "proxy_wasm.h"

static char *mode;

EXPORT(proxy_on_configure) int on_configure(uint32_t root, size_t size) {
  mode = configuration(size);
  return 1;
}

EXPORT(proxy_on_request_headers) int on_request_headers(uint32_t context, uint32_t headers, int end) { return CONTINUE; }

EXPORT(proxy_on_log) void on_log(uint32_t context) { say("log %s", context > 1 ? "stream" : "root"); }

EXPORT(proxy_on_done) int on_done(uint32_t context) {
  if (context > 1) return 1;
  say("done: %s", mode);
  if (!strcmp(mode, "later")) {
    pairs head;
    uint32_t token;
    encode_pairs(&head, 3, (const char *[][2]){{":method", "GET"}, {":path", "/goodbye"}, {":authority", "service"}});
    if (proxy_http_call("service", 7, head.data, head.size, "", 0, "", 0, 1000, &token) != OK) __builtin_trap();
  }
  return !strcmp(mode, "at once");
}

EXPORT(proxy_on_http_call_response)
void on_http_call_response(uint32_t root, uint32_t token, uint32_t headers, size_t body_size, uint32_t trailers) {
  int status = proxy_done();
  say("answered, proxy_done: %d, again: %d", status, proxy_done());
}

EXPORT(proxy_on_delete) void on_delete(uint32_t context) {
  if (context == 1) say("delete");
}
