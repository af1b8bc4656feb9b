// One metric of each kind, under names with a prefix. Each request adds 2 to the counter and 3 to the gauge and samples 7.
#include "proxy_wasm.h"

static uint32_t counter, gauge, histogram;

static void define(int kind, const char *name, uint32_t *metric) {
  if (proxy_define_metric(kind, name, strlen(name), metric) != OK) __builtin_trap();
}

EXPORT(proxy_on_vm_start) int on_vm_start(uint32_t root, size_t size) {
  define(0, "shop.orders", &counter);
  define(1, "shop.open", &gauge);
  define(2, "shop.items", &histogram);
  return 1;
}

EXPORT(proxy_on_request_headers) int on_request_headers(uint32_t context, uint32_t headers, int end) {
  proxy_increment_metric(counter, 2);
  proxy_increment_metric(gauge, 3);
  proxy_record_metric(histogram, 7);
  answer(200, "counted");
  return PAUSE;
}
