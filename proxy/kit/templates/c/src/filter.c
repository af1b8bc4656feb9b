#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HOST(name) __attribute__((import_module("env"), import_name(#name))) uint32_t name
#define CALLBACK(name) __attribute__((export_name(#name)))

HOST(proxy_log)(uint32_t level, const char *message, size_t length);
HOST(proxy_get_buffer_bytes)(uint32_t buffer, size_t start, size_t most, char **data, size_t *length);
HOST(proxy_get_header_map_value)(uint32_t map, const char *key, size_t key_length, char **value, size_t *value_length);
HOST(proxy_replace_header_map_value)(uint32_t map, const char *key, size_t key_length, const char *value, size_t length);
HOST(proxy_send_local_response)(uint32_t status, const char *details, size_t details_length, const char *body,
                                size_t body_length, const char *headers, size_t headers_length, int32_t grpc_status);

enum { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2, PLUGIN_CONFIGURATION = 7, INFO = 2, ERROR = 4, CONTINUE = 0, PAUSE = 1, OK = 0 };
enum { LONGEST = 64 };

/* Each configuration, a route's own too, has a root context, and all of them share this VM. So does every stream, under one of
 * the roots. */
static struct context { uint32_t id, root; char *greeting; size_t length; } *contexts; // the greeting is a root's
static size_t count, room;

static struct context *find(uint32_t id) {
  for (size_t i = count; i-- > 0;)
    if (contexts[i].id == id) return &contexts[i];
  __builtin_trap();
}

static void say(uint32_t level, const char *text) { proxy_log(level, text, strlen(text)); }

CALLBACK(proxy_abi_version_0_2_1) void version(void) {}

// What the host hands out is ours from then on: free() it.
CALLBACK(proxy_on_memory_allocate) void *allocate(size_t size) { return malloc(size); }

CALLBACK(proxy_on_context_create) void context_create(uint32_t context, uint32_t parent) {
  if (count == room) {
    room = room ? 2 * room : 16;
    contexts = realloc(contexts, room * sizeof *contexts);
    if (!contexts) __builtin_trap();
  }
  contexts[count++] = (struct context){context, parent ? parent : context, "world", 5};
}

CALLBACK(proxy_on_delete) void context_delete(uint32_t context) {
  struct context *gone = find(context);
  *gone = contexts[--count];
}

CALLBACK(proxy_on_configure) uint32_t configure(uint32_t root, size_t size) {
  struct context *own = find(root);
  if (size > LONGEST) return say(ERROR, "the greeting is longer than 64 bytes"), 0;
  if (size && proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, &own->greeting, &own->length) != OK)
    return say(ERROR, "no configuration"), 0;
  return 1;
}

CALLBACK(proxy_on_request_headers) uint32_t request_headers(uint32_t context, uint32_t count, uint32_t end_of_stream) {
  char *value = NULL;
  size_t length = 0;
  if (proxy_get_header_map_value(REQUEST_HEADERS, "x-block", 7, &value, &length) != OK) return CONTINUE;
  free(value);
  say(INFO, "blocked a request");
  proxy_send_local_response(403, "blocked", 7, "blocked\n", 8, NULL, 0, -1);
  return PAUSE;
}

CALLBACK(proxy_on_response_headers) uint32_t response_headers(uint32_t context, uint32_t count, uint32_t end_of_stream) {
  struct context *root = find(find(context)->root);
  proxy_replace_header_map_value(RESPONSE_HEADERS, "x-hello", 7, root->greeting, root->length);
  return CONTINUE;
}
