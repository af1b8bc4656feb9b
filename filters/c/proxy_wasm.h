// proxy-wasm ABI 0.2.1 for C: what a filter needs to talk to its host, and nothing else.
//
// A filter is one .c file that includes this one and defines the callbacks it wants:
//
//     #include "../c/proxy_wasm.h"
//
//     CALLBACK(proxy_on_request_headers) uint32_t request_headers(uint32_t context, uint32_t count, bool end_of_stream) {
//       set_header(REQUEST_HEADERS, LITERAL("x-hello"), LITERAL("world"));
//       return CONTINUE;
//     }
//
// A callback that is not defined counts as "continue" (and proxy_on_vm_start, proxy_on_configure as "accepted").
//
// **Text is a pointer and a length**, never a C string: values come from strangers, and a NUL is a byte like any other.
// Nothing here writes to a buffer whose size it was not given.
//
// **Memory.** What the host hands out was made by malloc and belongs to the filter: release() it. Without memory the
// module traps, and the host's failure policy decides.
#ifndef PROXY_WASM_H
#define PROXY_WASM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HOST(name) __attribute__((import_module("env"), import_name(#name))) uint32_t name
#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) uint32_t wasi_##name
#define CALLBACK(name) __attribute__((export_name(#name)))

enum action { CONTINUE = 0, PAUSE = 1 };
enum status { OK = 0 };
enum level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_CRITICAL };
enum map { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2 };
enum buffer { REQUEST_BODY = 0, RESPONSE_BODY = 1, PLUGIN_CONFIGURATION = 7 };

HOST(proxy_log)(enum level level, const char *message, size_t length);
HOST(proxy_get_buffer_bytes)(enum buffer buffer, size_t start, size_t most, char **data, size_t *length);
HOST(proxy_get_header_map_pairs)(enum map map, char **data, size_t *length);
HOST(proxy_replace_header_map_value)(enum map map, const char *key, size_t key_length, const char *value, size_t length);
HOST(proxy_remove_header_map_value)(enum map map, const char *key, size_t key_length);
HOST(proxy_get_current_time_nanoseconds)(uint64_t *time);
WASI(random_get)(void *buffer, size_t length);

struct text {
  const char *data;
  size_t length;
};

#define LITERAL(string) ((struct text){string, sizeof(string) - 1})

// Marks the module as written for ABI 0.2.1. Hosts look for the name and never call it.
CALLBACK(proxy_abi_version_0_2_1) void proxy_wasm_version(void) {}

// Gives the host room for something it hands to the filter. NULL tells it that there is none.
CALLBACK(proxy_on_memory_allocate) void *proxy_wasm_allocate(size_t size) { return malloc(size); }

static inline void *allocate(size_t size) {
  void *memory = malloc(size ? size : 1);
  if (!memory) __builtin_trap();
  return memory;
}

static inline void release(struct text text) { free((void *)text.data); }

static inline bool equal(struct text a, struct text b) {
  return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

// Writes one line to the host's log, made of the given parts; what is longer than 512 bytes is cut.
static inline void log_parts(enum level level, const struct text *parts, size_t count) {
  char line[512];
  size_t length = 0;
  for (size_t index = 0; index < count; index++) {
    size_t room = sizeof line - length;
    size_t size = parts[index].length < room ? parts[index].length : room;
    if (size) memcpy(line + length, parts[index].data, size);
    length += size;
  }
  proxy_log(level, line, length);
}
#define LOG(level, ...) \
  log_parts(level, (const struct text[]){__VA_ARGS__}, sizeof((const struct text[]){__VA_ARGS__}) / sizeof(struct text))

// The plugin's configuration, to be read inside proxy_on_configure; empty if there is none. The caller releases it.
static inline struct text plugin_configuration(void) {
  char *data = NULL;
  size_t length = 0;
  if (proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, SIZE_MAX, &data, &length) != OK || !data) return LITERAL("");
  return (struct text){data, length};
}

// Makes this the only field of that name.
static inline void set_header(enum map map, struct text name, struct text value) {
  proxy_replace_header_map_value(map, name.data, name.length, value.data, value.length);
}

// Removes every field of that name, if any.
static inline void remove_header(enum map map, struct text name) {
  proxy_remove_header_map_value(map, name.data, name.length);
}

// Whether two names are the same to servers that hand headers to applications with '-' and '_' made equal.
static inline bool is_spelling(struct text name, struct text of) {
  if (name.length != of.length) return false;
  for (size_t index = 0; index < name.length; index++) {
    char a = name.data[index] == '_' ? '-' : name.data[index];
    char b = of.data[index] == '_' ? '-' : of.data[index];
    if (a != b) return false;
  }
  return true;
}

// A snapshot of a header map: every field in order, names in lower case, repeated ones as separate entries.
//
//     struct fields fields = all_headers(REQUEST_HEADERS);
//     while (next_field(&fields)) if (equal(fields.name, LITERAL("cookie"))) ...
//     release(fields.block);
struct fields {
  struct text block;
  size_t index, position;
  struct text name, value;
};

static inline uint32_t read_u32(const char *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static inline struct fields all_headers(enum map map) {
  char *data = NULL;
  size_t length = 0;
  if (proxy_get_header_map_pairs(map, &data, &length) != OK || !data) length = 0;
  return (struct fields){.block = {data, length}};
}

// Goes to the next field, at first to the first one; false after the last. The host's block is: u32 count; count times
// (u32 name length, u32 value length); name, NUL, value, NUL of each.
static inline bool next_field(struct fields *fields) {
  if (fields->block.length < 4) return false;
  uint32_t count = read_u32(fields->block.data);
  if (fields->index >= count) return false;
  if (fields->index == 0) fields->position = 4 + 8 * (size_t)count;
  const char *sizes = fields->block.data + 4 + 8 * fields->index++;
  fields->name = (struct text){fields->block.data + fields->position, read_u32(sizes)};
  fields->value = (struct text){fields->name.data + fields->name.length + 1, read_u32(sizes + 4)};
  fields->position += fields->name.length + fields->value.length + 2;
  return true;
}

// Fills with random bytes from the host; traps if it has none, because what follows would not be random.
static inline void random_bytes(void *buffer, size_t length) {
  if (wasi_random_get(buffer, length) != 0) __builtin_trap();
}

// Nanoseconds since 1970.
static inline uint64_t now(void) {
  uint64_t time = 0;
  proxy_get_current_time_nanoseconds(&time);
  return time;
}

#endif
