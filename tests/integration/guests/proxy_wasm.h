// What the filters of this folder share: the host functions they call, and a few words for text.
#ifndef PROXY_WASM_H
#define PROXY_WASM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST(name) __attribute__((import_module("env"), import_name(#name))) extern int name
#define EXPORT(name) __attribute__((export_name(#name)))

HOST(proxy_log)(int level, const char *text, size_t size);
HOST(proxy_get_buffer_bytes)(int type, size_t start, size_t max, char **data, size_t *size);
HOST(proxy_get_header_map_value)(int map, const char *key, size_t key_size, char **value, size_t *size);
HOST(proxy_add_header_map_value)(int map, const char *key, size_t key_size, const char *value, size_t size);
HOST(proxy_send_local_response)(int code, const char *details, size_t details_size, const char *body, size_t body_size,
                                const char *headers, size_t headers_size, int grpc_status);
HOST(proxy_continue_stream)(int stream);
HOST(proxy_set_effective_context)(uint32_t context);
HOST(proxy_set_tick_period_milliseconds)(uint32_t period);
HOST(proxy_get_current_time_nanoseconds)(uint64_t *time);
HOST(proxy_done)(void);
HOST(proxy_get_status)(uint32_t *code, char **text, size_t *size);
HOST(proxy_http_call)(const char *upstream, size_t upstream_size, const char *headers, size_t headers_size, const char *body,
                      size_t body_size, const char *trailers, size_t trailers_size, uint32_t timeout, uint32_t *token);
HOST(proxy_get_shared_data)(const char *key, size_t key_size, char **value, size_t *size, uint32_t *cas);
HOST(proxy_set_shared_data)(const char *key, size_t key_size, const char *value, size_t size, uint32_t cas);
HOST(proxy_register_shared_queue)(const char *name, size_t size, uint32_t *queue);
HOST(proxy_resolve_shared_queue)(const char *vm, size_t vm_size, const char *name, size_t size, uint32_t *queue);
HOST(proxy_enqueue_shared_queue)(uint32_t queue, const char *data, size_t size);
HOST(proxy_dequeue_shared_queue)(uint32_t queue, char **data, size_t *size);
HOST(proxy_define_metric)(int kind, const char *name, size_t size, uint32_t *metric);
HOST(proxy_increment_metric)(uint32_t metric, int64_t delta);
HOST(proxy_record_metric)(uint32_t metric, uint64_t value);

enum { OK, NOT_FOUND, BAD_ARGUMENT, CAS_MISMATCH = 8 };
enum { CONTINUE, PAUSE };
enum { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2, CALL_HEADERS = 6 };
enum { CALL_BODY = 4, PLUGIN_CONFIGURATION = 7 };

EXPORT(proxy_abi_version_0_2_1) void proxy_abi_version(void) {}
EXPORT(proxy_on_memory_allocate) void *proxy_on_memory_allocate(size_t size) { return malloc(size); }

// Logs a line, formatted as by printf.
#define say(...)                                                    \
  do {                                                              \
    char said[512];                                                 \
    proxy_log(2, said, (size_t)snprintf(said, sizeof said, __VA_ARGS__)); \
  } while (0)

// The value of a header as a C string the caller frees; NULL without the header.
static inline char *header(int map, const char *name) {
  char *value = NULL;
  size_t size = 0;
  if (proxy_get_header_map_value(map, name, strlen(name), &value, &size) != OK) return NULL;
  char *text = malloc(size + 1);
  memcpy(text, value, size), text[size] = 0;
  free(value);
  return text;
}

static inline void add_header(int map, const char *name, const char *value) {
  proxy_add_header_map_value(map, name, strlen(name), value, strlen(value));
}

static inline void answer(int code, const char *body) {
  proxy_send_local_response(code, "", 0, body, strlen(body), "", 0, -1);
}

// The plugin configuration as a C string, in proxy_on_configure.
static inline char *configuration(size_t size) {
  char *data = NULL;
  size_t got = 0;
  char *text = calloc(size + 1, 1);
  if (proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, &data, &got) == OK && data) memcpy(text, data, got);
  return text;
}

// Header pairs in the ABI's encoding.
typedef struct {
  char data[1024];
  size_t size;
} pairs;

static inline void encode_pairs(pairs *out, size_t count, const char *(*list)[2]) {
  uint32_t head[1 + 2 * 16] = {(uint32_t)count};
  for (size_t i = 0; i < count; i++) head[1 + 2 * i] = strlen(list[i][0]), head[2 + 2 * i] = strlen(list[i][1]);
  out->size = 4 + 8 * count;
  memcpy(out->data, head, out->size);
  for (size_t i = 0; i < 2 * count; i++) {
    const char *text = list[i / 2][i % 2];
    memcpy(out->data + out->size, text, strlen(text) + 1);
    out->size += strlen(text) + 1;
  }
}

#endif
