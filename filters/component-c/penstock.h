/* The world penstock:filter/filter@0.1.0 for C, by hand: there is no binding generator for C on PyPI or npm.

   Structures are laid out as the canonical ABI has them (component model, "Canonical ABI": size, alignment), for wasm32. Define
   `metadata` and the callbacks that it wants, compile with penstock.c to a core module, and wrap that (build.py).

   Memory: what a callback is given, what imports give back, and what `room` gives lies in one arena that is empty again when
   the callback's result has been read. Keep what must last in variables of your own. */

#ifndef PENSTOCK_H
#define PENSTOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORLD_IMPORT(interface, function) \
  __attribute__((import_module("penstock:filter/" interface "@0.1.0"), import_name(function)))

/* ---- Types ---- */

typedef struct { const char *at; uint32_t size; } string;
typedef struct { string name, value; } field;
typedef struct { field *at; uint32_t count; } headers;

enum { TEXT, BINARY };
typedef struct { uint8_t kind; string bytes; } data;
typedef struct { bool some; data value; } maybe_data;

enum { SET, ADD, REMOVE };
typedef struct { uint8_t kind; field field; } header_edit; /* REMOVE: only field.name */
typedef struct { header_edit *at; uint32_t count; } edits;

typedef struct { uint16_t status; headers headers; maybe_data body; string details; } local_response;
enum { CONTINUE, PAUSE, RESPOND };
typedef struct { uint8_t kind; local_response response; } action;

typedef struct { edits edits; action action; } headers_result;
typedef struct { maybe_data replace; action action; } body_result;
typedef struct { edits edits; maybe_data replace; action action; } held_result;

enum {
  REQUEST_HEADERS = 1, REQUEST_BODY = 2, REQUEST_TRAILERS = 4,
  RESPONSE_HEADERS = 8, RESPONSE_BODY = 16, RESPONSE_TRAILERS = 32, LOG = 64,
};
typedef struct { string name, version; uint8_t wants; } filter_info;

typedef struct { bool some; string value; } maybe_string;
typedef struct { bool failed; string problem; } configured;

typedef struct { data value; uint32_t version; } kv_entry;
enum { KV_CONFLICT, KV_REFUSED };
typedef struct { uint8_t kind; string reason; } kv_error;
typedef struct { bool failed; union { struct { bool some; kv_entry entry; } ok; kv_error error; }; } kv_found;
typedef struct { bool failed; kv_error error; } kv_written;

typedef struct { bool failed; union { uint32_t call; string problem; }; } call_started;
typedef struct { headers headers; data body; headers trailers; } response;

/* There is no libc: these are penstock.c's, and the compiler may call them of its own accord. */
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);

_Static_assert(sizeof(headers_result) == 48 && sizeof(body_result) == 56 && sizeof(held_result) == 64, "canonical ABI");
_Static_assert(sizeof(header_edit) == 20 && sizeof(filter_info) == 20 && sizeof(kv_found) == 24, "canonical ABI");

/* ---- The arena ---- */

extern char __heap_base;
extern char *arena_top;

/* `size` bytes, aligned to 8; traps when there is no more memory. */
static inline void *room(uint32_t size) {
  char *at = (char *)(((uintptr_t)arena_top + 7) & ~(uintptr_t)7);
  arena_top = at + size;
  uint32_t end = __builtin_wasm_memory_size(0) << 16;
  if ((uintptr_t)arena_top > end) {
    uint32_t pages = ((uintptr_t)arena_top - end + 65535) >> 16;
    if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) __builtin_trap();
  }
  return at;
}

/* ---- Strings ---- */

#define S(literal) ((string){literal, sizeof(literal) - 1})

static inline bool equal(string a, string b) { return a.size == b.size && memcmp(a.at, b.at, a.size) == 0; }

static inline string joined(string a, string b) {
  char *at = room(a.size + b.size);
  memcpy(at, a.at, a.size);
  memcpy(at + a.size, b.at, b.size);
  return (string){at, a.size + b.size};
}

/* The first value of a header; {0} if there is none. */
static inline string header(headers all, string name) {
  for (uint32_t i = 0; i < all.count; i++)
    if (equal(all.at[i].name, name)) return all.at[i].value;
  return (string){0, 0};
}

/* ---- Imports ---- */

enum { LEVEL_TRACE, LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR, LEVEL_CRITICAL };
WORLD_IMPORT("logging", "log") void import_log(uint32_t level, const char *at, uint32_t size);
static inline void log_line(uint32_t level, string line) { import_log(level, line.at, line.size); }

WORLD_IMPORT("config", "get") void import_config_get(const char *at, uint32_t size, maybe_string *result);
static inline maybe_string config_get(string key) {
  maybe_string result;
  import_config_get(key.at, key.size, &result);
  return result;
}

WORLD_IMPORT("kv", "get") void import_kv_get(const char *at, uint32_t size, kv_found *result);
static inline kv_found kv_get(string key) {
  kv_found result;
  import_kv_get(key.at, key.size, &result);
  return result;
}

WORLD_IMPORT("kv", "set")
void import_kv_set(const char *key, uint32_t key_size, uint32_t kind, const char *value, uint32_t size, uint32_t some,
                   uint32_t version, kv_written *result);
/* version 0: whatever the key has. */
static inline kv_written kv_set(string key, data value, uint32_t version) {
  kv_written result;
  import_kv_set(key.at, key.size, value.kind, value.bytes.at, value.bytes.size, version != 0, version, &result);
  return result;
}

WORLD_IMPORT("http-client", "send")
void import_send(const char *upstream, uint32_t upstream_size, field *head, uint32_t count, uint32_t some, uint32_t kind,
                 const char *body, uint32_t body_size, uint32_t timeout_ms, call_started *result);
static inline call_started http_send(string upstream, headers head, maybe_data body, uint32_t timeout_ms) {
  call_started result;
  import_send(upstream.at, upstream.size, head.at, head.count, body.some, body.value.kind, body.value.bytes.at,
              body.value.bytes.size, timeout_ms, &result);
  return result;
}

WORLD_IMPORT("metrics", "counter-add") void import_counter_add(const char *at, uint32_t size, uint64_t delta);
static inline void counter_add(string name, uint64_t delta) { import_counter_add(name.at, name.size, delta); }
WORLD_IMPORT("metrics", "gauge-set") void import_gauge_set(const char *at, uint32_t size, int64_t value);
static inline void gauge_set(string name, int64_t value) { import_gauge_set(name.at, name.size, value); }
WORLD_IMPORT("metrics", "histogram-record") void import_histogram_record(const char *at, uint32_t size, uint64_t value);
static inline void histogram_record(string name, uint64_t value) { import_histogram_record(name.at, name.size, value); }

WORLD_IMPORT("properties", "get") void import_property(const char *at, uint32_t size, maybe_string *result);
static inline maybe_string property(string path) {
  maybe_string result;
  import_property(path.at, path.size, &result);
  return result;
}

WORLD_IMPORT("clock", "now-ns") uint64_t now_ns(void);
WORLD_IMPORT("clock", "monotonic-ns") uint64_t monotonic_ns(void);
WORLD_IMPORT("random", "get-u64") uint64_t random_u64(void);

/* ---- The filter: define those that metadata's `wants` names. penstock.c has the others, which let everything go on. ---- */

filter_info metadata(void);
configured configure(string config);
headers_result on_request_headers(uint64_t stream, headers head, bool end_of_stream);
body_result on_request_body(uint64_t stream, data chunk, bool end_of_stream);
held_result on_request_trailers(uint64_t stream, headers trailers, maybe_data held);
headers_result on_response_headers(uint64_t stream, headers head, bool end_of_stream);
body_result on_response_body(uint64_t stream, data chunk, bool end_of_stream);
held_result on_response_trailers(uint64_t stream, headers trailers, maybe_data held);
/* `problem` is set where there is no answer. */
held_result on_http_response(uint64_t stream, uint32_t call, const response *answer, string problem);
void on_log(uint64_t stream);

#endif
