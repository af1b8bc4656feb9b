// Counts requests in shared data by compare-and-swap and tells the count to the client: the path "/read" only reads it.
// Responses get x-NAME (the count) and x-vm (a number drawn for this VM); NAME is the configuration.
#include "proxy_wasm.h"
#include <unistd.h>

static char *name;
static uint32_t vm;

EXPORT(proxy_on_configure) int on_configure(uint32_t root, size_t size) {
  name = configuration(size);
  getentropy(&vm, sizeof vm);
  return 1;
}

static uint64_t read_count(uint32_t *cas) {
  char *value = NULL;
  size_t size = 0;
  uint64_t count = 0;
  *cas = UINT32_MAX;  // 0 would overwrite what another VM creates meanwhile; any other number creates and never overwrites
  if (proxy_get_shared_data("count", 5, &value, &size, cas) == OK && size == sizeof count) memcpy(&count, value, size);
  free(value);
  return count;
}

EXPORT(proxy_on_request_headers) int on_request_headers(uint32_t context, uint32_t headers, int end) {
  char *path = header(REQUEST_HEADERS, ":path");
  int reads = !strcmp(path, "/read");
  free(path);
  if (reads) return CONTINUE;
  for (;;) {
    uint32_t cas;
    uint64_t next = read_count(&cas) + 1;
    int status = proxy_set_shared_data("count", 5, (char *)&next, sizeof next, cas);
    if (status == OK) return CONTINUE;
    if (status != CAS_MISMATCH) __builtin_trap();
  }
}

EXPORT(proxy_on_response_headers) int on_response_headers(uint32_t context, uint32_t headers, int end) {
  char key[64], text[32];
  uint32_t cas;
  snprintf(key, sizeof key, "x-%s", name);
  snprintf(text, sizeof text, "%llu", read_count(&cas));
  add_header(RESPONSE_HEADERS, key, text);
  snprintf(text, sizeof text, "%u", vm);
  add_header(RESPONSE_HEADERS, "x-vm", text);
  return CONTINUE;
}
