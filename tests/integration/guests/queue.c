// Puts the path of each request into a shared queue; whoever is told that the queue has something takes it out and logs it.
#include "proxy_wasm.h"
#include <unistd.h>

static uint32_t vm, queue;

EXPORT(proxy_on_configure) int on_configure(uint32_t root, size_t size) {
  getentropy(&vm, sizeof vm);
  return proxy_register_shared_queue("paths", 5, &queue) == OK;
}

EXPORT(proxy_on_request_headers) int on_request_headers(uint32_t context, uint32_t headers, int end) {
  char *path = header(REQUEST_HEADERS, ":path");
  uint32_t found = 0;
  if (proxy_resolve_shared_queue("", 0, "paths", 5, &found) != OK || found != queue) __builtin_trap();
  if (proxy_enqueue_shared_queue(queue, path, strlen(path)) != OK) __builtin_trap();
  say("put %s vm=%u", path, vm);
  free(path);
  answer(200, "put");
  return PAUSE;
}

EXPORT(proxy_on_queue_ready) void on_queue_ready(uint32_t root, uint32_t ready) {
  char *data = NULL;
  size_t size = 0;
  int status = proxy_dequeue_shared_queue(ready, &data, &size);
  if (status == OK) say("took %.*s vm=%u root=%u", (int)size, data, vm, root);
  else say("took nothing: %d", status);
  free(data);
}
