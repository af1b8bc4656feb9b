// Stamps requests with what does not follow from them: the time, a random number, the client's address, a count that streams share.
#include "../integration/guests/proxy_wasm.h"

#include <unistd.h>

HOST(proxy_get_property)(const char *path, size_t path_size, char **value, size_t *size);

EXPORT(proxy_on_request_headers) int on_request_headers(uint32_t context, uint32_t headers, int end) {
  char text[64], *found = NULL;
  size_t size = 0;
  uint32_t cas = 0, random = 0;
  uint64_t now = 0;
  proxy_get_current_time_nanoseconds(&now);
  snprintf(text, sizeof text, "%llu", (unsigned long long)now);
  add_header(REQUEST_HEADERS, "x-time", text);
  getentropy(&random, sizeof random);
  snprintf(text, sizeof text, "%u", random);
  add_header(REQUEST_HEADERS, "x-random", text);
  if (proxy_get_property("source\0address", 14, &found, &size) == OK) {
    snprintf(text, sizeof text, "%.*s", (int)size, found);
    add_header(REQUEST_HEADERS, "x-source", text);
  }
  int count = 1;
  if (proxy_get_shared_data("count", 5, &found, &size, &cas) == OK) count = atoi(found) + 1;
  snprintf(text, sizeof text, "%d", count);
  proxy_set_shared_data("count", 5, text, strlen(text) + 1, cas);
  add_header(REQUEST_HEADERS, "x-count", text);
  return CONTINUE;
}
