// Ticks. The configuration is the period in milliseconds. Each tick is logged with the time, and resumes the streams that
// wait: requests for "/wait" pause until then and go on with a header. After "/trap" the next tick traps.
#include "proxy_wasm.h"

enum { MOST = 64 };
static uint32_t waiting[MOST], count, ticks;
static int traps;

EXPORT(proxy_on_configure) int on_configure(uint32_t root, size_t size) {
  char *text = configuration(size);
  proxy_set_tick_period_milliseconds((uint32_t)atoi(text));
  free(text);
  say("started");
  return 1;
}

EXPORT(proxy_on_request_headers) int on_request_headers(uint32_t context, uint32_t headers, int end) {
  char *path = header(REQUEST_HEADERS, ":path");
  int waits = !strcmp(path, "/wait") && count < MOST;
  traps |= !strcmp(path, "/trap");
  if (!strcmp(path, "/stop")) proxy_set_tick_period_milliseconds(0);
  free(path);
  if (waits) waiting[count++] = context;
  return waits ? PAUSE : CONTINUE;
}

EXPORT(proxy_on_tick) void on_tick(uint32_t root) {
  uint64_t now;
  proxy_get_current_time_nanoseconds(&now);
  say("tick %u at %llu", ++ticks, now);
  if (traps) __builtin_trap();
  while (count) {
    if (proxy_set_effective_context(waiting[--count]) != OK) continue;
    add_header(REQUEST_HEADERS, "x-resumed", "by-tick");
    proxy_continue_stream(0);
  }
}
