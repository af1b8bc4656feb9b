// Asks another service whether a request may pass. x-call names what is called (a cluster or a host), x-ask the path there,
// x-timeout the milliseconds. A 200 lets the request go on, with the service's x-user; all else is answered with 403 and
// the status as the body. x-trap makes the callback trap.
#include "proxy_wasm.h"

enum { MOST = 1024 };
static struct { uint32_t token, context; int traps; } calls[MOST];
static size_t count;

EXPORT(proxy_on_request_headers) int on_request_headers(uint32_t context, uint32_t headers, int end) {
  char *upstream = header(REQUEST_HEADERS, "x-call"), *path = header(REQUEST_HEADERS, "x-ask");
  char *timeout = header(REQUEST_HEADERS, "x-timeout"), *traps = header(REQUEST_HEADERS, "x-trap");
  if (!upstream) return CONTINUE;
  pairs head;
  encode_pairs(&head, 3, (const char *[][2]){{":method", "GET"}, {":path", path}, {":authority", "auth"}});
  uint32_t token = 0;
  int status = proxy_http_call(upstream, strlen(upstream), head.data, head.size, "", 0, "", 0,
                               timeout ? (uint32_t)atoi(timeout) : 5000, &token);
  if (status == OK && count < MOST) {
    calls[count].token = token, calls[count].context = context, calls[count++].traps = traps != NULL;
  } else {
    char text[32];
    snprintf(text, sizeof text, "refused %d", status);
    answer(403, text);
  }
  free(upstream), free(path), free(timeout), free(traps);
  return PAUSE;
}

EXPORT(proxy_on_http_call_response)
void on_http_call_response(uint32_t root, uint32_t token, uint32_t headers, size_t body_size, uint32_t trailers) {
  size_t found = 0;
  while (found < count && calls[found].token != token) found++;
  if (found == count) __builtin_trap();
  uint32_t context = calls[found].context;
  if (calls[found].traps) __builtin_trap();
  calls[found] = calls[--count];
  char *status = header(CALL_HEADERS, ":status"), *user = header(CALL_HEADERS, "x-user");
  if (!headers) {
    uint32_t code;
    char *text = NULL;
    size_t size = 0;
    proxy_get_status(&code, &text, &size);
    say("reset: %u %.*s", code, (int)size, text);
    free(text);
  }
  int effective = proxy_set_effective_context(context);
  if (effective != OK) {
    say("answer %s for a stream that is gone: %d", status ? status : "none", effective);
  } else if (status && !strcmp(status, "200")) {
    add_header(REQUEST_HEADERS, "x-user", user ? user : "");
    proxy_continue_stream(0);
  } else {
    answer(403, status ? status : "reset");
  }
  free(status), free(user);
}
