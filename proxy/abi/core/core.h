/* The ABI core: HTTP heads, buffers and the host functions of the proxy-wasm ABI, compiled to Wasm.
 *
 * Each VM's store holds an instance of this module beside the filter. All of them import one memory, shared by the stores of
 * a worker: the stream memory. Only these instances can reach it; a filter's own memory is reached through the `guest_*`
 * imports, which check every pointer (bridge, built by link.py). One stream is live in it at a time.
 *
 * Addresses that Python needs are in `layout` (abi.c), so no address is written down twice.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;

#define IMPORT(module, name) __attribute__((import_module(module), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))
#define AT(type, address) ((type *)(uintptr_t)(address))
#define ADDRESS(pointer) ((u32)(uintptr_t)(pointer))

/* ---- Numbers of the ABI (spec v0.2.1, "Types") ---- */
enum { OK, NOT_FOUND, BAD_ARGUMENT, SERIALIZATION_FAILURE, PARSE_FAILURE, BAD_EXPRESSION, INVALID_MEMORY_ACCESS, EMPTY,
       CAS_MISMATCH, RESULT_MISMATCH, INTERNAL_FAILURE, BROKEN_CONNECTION, UNIMPLEMENTED };
enum { REQUEST_HEADERS, REQUEST_TRAILERS, RESPONSE_HEADERS, RESPONSE_TRAILERS, GRPC_INITIAL, GRPC_TRAILING, CALL_HEADERS,
       CALL_TRAILERS, MAPS, STREAM_MAPS = GRPC_INITIAL };
enum { REQUEST_BODY, RESPONSE_BODY, DOWNSTREAM_DATA, UPSTREAM_DATA, CALL_BODY, GRPC_MESSAGE, VM_CONFIGURATION,
       PLUGIN_CONFIGURATION, FOREIGN_ARGUMENTS, BUFFERS };

/* ---- The stream: what a snapshot holds, from `stream` to `stream.top` ---- */
typedef struct { u32 key, key_len, value, value_len; } entry;
typedef struct { u32 from, to; } range;
typedef struct { u32 entries, n, capacity, bytes; } map; /* entries: address of an array of `entry`; bytes: keys and values */
typedef struct {
  u32 top;       /* first free address of the arena */
  u32 dirty;     /* bit m: map m was edited by a filter */
  u32 torn;      /* nonzero only while entries move: see compact and mend */
  map maps[STREAM_MAPS];
  u32 floor;     /* `top` when the arena last had no dead bytes */
  range request_lines, response_lines; /* where the field lines of a head lie as they came (heads.c, plain messages); or nothing */
} stream_head;
enum { ARENA = 4 << 20, SLACK = 256 << 10 }; /* SLACK: dead bytes that a callback may leave behind */
/* Where the static data ends there are the stream, then the persistent room, then scratch. As static data they would cost each
 * start 36 MiB of memory and their page faults: the linker fills even zeros, where the system gives a page at its first use. */
extern struct stream { stream_head head; u8 arena[ARENA]; } stream __asm__("__heap_base");

/* ---- One call into a filter ---- */
enum { PERSISTENT = 32 << 20 }; /* VM records, metric cells, environments, option records */
#define PERSISTENT_ROOM ADDRESS(&stream + 1)
typedef struct {            /* written by Python when a VM is built; persistent */
  u32 callbacks;            /* bit i: the filter exports callback i */
  u32 abi;                  /* 0x000100, 0x000200, 0x000201 */
  u32 log_level, log_line;  /* lowest level that is kept; bytes of a line that are kept */
  u32 max_headers, max_header_bytes, max_body;
  u32 metrics, metric_count, metric_capacity; /* array of {u32 kind, u32 cell} by id */
  u32 environment, environment_count, environment_bytes; /* NAME=value\0... */
  u32 configuration, configuration_len; /* the VM's */
} vm;

typedef struct { u32 data, len, capacity, present; } buffer; /* present: bit 0 readable, bit 1 writable */
enum { READABLE = 1, WRITABLE = 2 };

typedef struct {
  u32 vm;          /* address of the running VM */
  u32 context;     /* id of the context that the running callback belongs to */
  u32 effective;   /* id of the context that host functions act on */
  u32 readable;    /* bit m: map m may be read now */
  u32 writable;    /* bit m: map m may be edited now */
  u32 phase;       /* PHASE_* */
  u32 result;      /* RESULT_* bits gathered while the callback runs */
  u32 in_allocator;
  u32 time_known;
  u32 kept;        /* scratch below this lasts until the callback is over, above it until the host function is */
  u64 time;        /* ns since the epoch, asked for once a callback: the clock stands still while a filter runs */
  u32 a[14];       /* arguments and results of a call to Python; the last four are HOST_ERROR's: function, status, argument, why */
  u32 reply_status, reply_grpc, reply_details, reply_details_len, reply_body, reply_body_len, reply_headers, reply_headers_len;
  buffer buffers[BUFFERS];
} call_state;
extern call_state call;
enum { PHASE_STREAM, PHASE_LOG, PHASE_START };
enum { RESULT_LOGS = 1 << 8, RESULT_LOCAL_REPLY = 1 << 9, RESULT_CONTINUE_REQUEST = 1 << 10, RESULT_CONTINUE_RESPONSE = 1 << 11,
       RESULT_CLOSE_REQUEST = 1 << 12, RESULT_CLOSE_RESPONSE = 1 << 13, RESULT_BODY = 1 << 14, RESULT_ERRORS = 1 << 15,
       RESULT_TRAILERS = 1 << 16, RESULT_DONE = 1 << 29 };

/* ---- Scratch: from the end of the persistent room upward, reset at every call ---- */
extern u32 scratch_top;
u32 scratch(u32 size); /* address of `size` fresh bytes; traps when the memory cannot grow */
void scratch_reset(void);

/* ---- Small things ---- */
typedef u32 __attribute__((aligned(1), may_alias)) word;
typedef u64 __attribute__((aligned(1), may_alias)) long_word;
static inline void copy(u32 to, u32 from, u32 size) {
  if (size) __builtin_memmove(AT(void, to), AT(void, from), size);
}
/* ASCII letters to lower case, eight bytes at a time. */
static inline void fold(u8 *p, u32 size) {
  for (; size >= 8; p += 8, size -= 8) {
    u64 w = *(long_word *)p, low = w & 0x7f7f7f7f7f7f7f7f;
    u64 upper = (low + 0x3f3f3f3f3f3f3f3f) & ~(low + 0x2525252525252525) & ~w & 0x8080808080808080;
    *(long_word *)p = w | upper >> 2;
  }
  for (; size; p++, size--)
    if (*p >= 'A' && *p <= 'Z') *p += 32;
}
static inline int equal(const u8 *a, const u8 *b, u32 size) {
  for (; size >= 4; a += 4, b += 4, size -= 4)
    if (*(const word *)a != *(const word *)b) return 0;
  for (; size; a++, b++, size--)
    if (*a != *b) return 0;
  return 1;
}
static inline u8 lower(u8 c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }
#define IS(text, pointer, size) ((size) == sizeof(text) - 1 && equal((const u8 *)(pointer), (const u8 *)(text), sizeof(text) - 1))

/* ---- The filter's memory and callbacks (link.py) ---- */
IMPORT("link", read) u32 guest_read(u32 to, u32 guest_from, u32 size);   /* OK or INVALID_MEMORY_ACCESS */
IMPORT("link", write) u32 guest_write(u32 guest_to, u32 from, u32 size); /* likewise */
IMPORT("link", store) u32 guest_store(u32 guest_to, u32 value);          /* one u32 */
IMPORT("link", check) u32 guest_check(u32 guest_from, u32 size);         /* is it inside the memory? */
IMPORT("link", allocate) u32 guest_allocate(u32 size);
IMPORT("link", callback) u32 guest_callback(u32 a, u32 b, u32 c, u32 d, u32 e, u32 index);
IMPORT("host", call) u32 host(u32 operation); /* what is rare is Python's; arguments and results in call.a */
enum { HOST_TIME, HOST_RANDOM, HOST_GET_PROPERTY, HOST_SET_PROPERTY, HOST_DEFINE_METRIC, HOST_RECORD_HISTOGRAM, HOST_SET_TICK,
       HOST_SET_EFFECTIVE, HOST_DONE, HOST_GET_STATUS, HOST_HTTP_CALL, HOST_GRPC_CALL, HOST_GRPC_STREAM, HOST_GRPC_SEND,
       HOST_GRPC_CANCEL, HOST_GRPC_CLOSE, HOST_GET_SHARED, HOST_SET_SHARED, HOST_REGISTER_QUEUE, HOST_RESOLVE_QUEUE,
       HOST_ENQUEUE, HOST_DEQUEUE, HOST_FOREIGN, HOST_ERROR, HOST_CLEAR_ROUTE, HOST_EXIT, HOST_DENIED };

u32 guest_put(u32 from, u32 size, u32 out_pointer, u32 out_size); /* allocate in the filter, copy, write pointer and size */
u32 guest_take(u32 guest_from, u32 size, u32 *at);                /* copy a filter's bytes to scratch */
u32 failed(u32 status, u32 function);                             /* note a host call that did not go well, for the debug log */
u32 forbidden(void);                                              /* inside the allocator: most host functions trap */

extern u8 date[29]; /* IMF-fixdate for responses that have none; kept by Python */
void log_text(u32 level, u32 from, u32 size);

enum { PAIRS_BYTES = 1 << 20, PAIRS_COUNT = 1024 }; /* largest block of pairs */

/* ---- Maps. `key` and `value` arguments are addresses outside of the arena, unless said otherwise. ---- */
map *map_of(u32 m);
int is_inline(u32 m, const u8 *key, u32 n);
int header_property(u32 path, u32 size, u32 *value, u32 *value_len); /* properties.c */
u8 *answer_begin(u32 m);
void answer_point(u32 m, u32 key, u32 key_len, u32 value, u32 value_len); /* the caller has seen that it fits */
int map_find(const map *M, const u8 *key, u32 key_len, u32 from);
void tidy(void); /* compact, if edits have left more than SLACK */
void map_add(map *M, u32 key, u32 key_len, u32 value, u32 value_len);
void map_join_value(map *M, u32 i, u32 value, u32 value_len); /* "old,new" */
void map_remove_at(map *M, u32 i);
void map_clear(map *M);
u32 map_reserve(u32 size);                                                           /* `size` bytes of the arena */
void map_point(map *M, u32 key, u32 key_len, u32 value, u32 value_len);              /* addresses in the arena */
u32 map_serialize(const map *M, u32 *size);                                          /* the ABI's pair block, in scratch */
void map_deserialize(u32 m, u32 from, u32 size);                                     /* malformed gives an empty map */
int name_is_token(const u8 *p, u32 n);
int value_is_clean(const u8 *p, u32 n);
