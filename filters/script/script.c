// script: runs JavaScript out of the configuration. The engine is QuickJS-NG; prelude.js is what a script sees, this file is
// what stands between it and the host.
#include <malloc.h>

#include "../c/contexts.h"
#include "host.h"

enum { STACK = 64 * 1024, GC_THRESHOLD = 1024 * 1024, BODY_OF_CALL = 4 };

enum function { CONFIGURE, REQUEST_HEAD, RESPONSE_HEAD, BODY, LOG_STREAM, FORGET, CALL_ANSWERED, SETTLE, RESUME, ENTRIES };
static const char *const entry_names[ENTRIES] = {"configure", "requestHead",  "responseHead", "body",  "log",
                                                 "forget",    "callAnswered", "settle",       "resume"};

struct root {
  JSContext *js;
  JSValue entries[ENTRIES];
};

static const char prelude[] = {
#embed "prelude.js"
    , 0};

static JSRuntime *runtime;
static size_t heap;
static struct contexts roots, root_of_stream;

// ---- what the prelude calls ----

#define NATIVE(name) static JSValue native_##name(JSContext *js, JSValueConst self, int count, JSValueConst *arguments)

NATIVE(fields) {
  struct fields fields = all_headers((enum map)integer(js, arguments[0]));
  JSValue list = JS_NewArray(js);
  uint32_t at = 0;
  while (next_field(&fields)) {
    JS_SetPropertyUint32(js, list, at++, new_byte_string(js, fields.name.data, fields.name.length));
    JS_SetPropertyUint32(js, list, at++, new_byte_string(js, fields.value.data, fields.value.length));
  }
  release(fields.block);
  return list;
}

static JSValue change_header(JSContext *js, JSValueConst *arguments, bool add) {
  struct text name = header_name(js, arguments[1]);
  if (!name.data) return JS_EXCEPTION;
  struct text value = header_value(js, arguments[2]);
  if (!value.data) return release(name), JS_EXCEPTION;
  uint32_t map = (uint32_t)integer(js, arguments[0]);
  uint32_t status = add ? proxy_add_header_map_value(map, name.data, name.length, value.data, value.length)
                        : proxy_replace_header_map_value((enum map)map, name.data, name.length, value.data, value.length);
  release(name);
  release(value);
  return outcome(js, status, "the header");
}

NATIVE(set) { return change_header(js, arguments, false); }

NATIVE(add) { return change_header(js, arguments, true); }

NATIVE(remove) {
  struct text name = header_name(js, arguments[1]);
  if (!name.data) return JS_EXCEPTION;
  uint32_t status = proxy_remove_header_map_value((enum map)integer(js, arguments[0]), name.data, name.length);
  release(name);
  return status <= 1 ? JS_UNDEFINED : outcome(js, status, "the header");  // 1: there was none
}

NATIVE(body) {
  char *data = NULL;
  size_t length = 0;
  if (proxy_get_buffer_bytes((enum buffer)integer(js, arguments[0]), 0, (size_t)integer(js, arguments[1]), &data, &length) != OK)
    length = 0;
  JSValue value = JS_NewUint8ArrayCopy(js, (const uint8_t *)data, length);
  free(data);
  return value;
}

NATIVE(setBody) {
  size_t length = 0;
  const uint8_t *data = JS_GetUint8Array(js, &length, arguments[1]);
  if (!data && length) return JS_EXCEPTION;
  return outcome(js, proxy_set_buffer_bytes((uint32_t)integer(js, arguments[0]), 0, SIZE_MAX, data, length), "the body");
}

NATIVE(reply) {
  struct text fields = header_block(js, arguments[1]);
  if (!fields.data) return JS_EXCEPTION;
  size_t length = 0, details_length = 0;
  const uint8_t *body = JS_GetUint8Array(js, &length, arguments[2]);
  const char *details = JS_ToCStringLen(js, &details_length, arguments[3]);
  uint32_t status = proxy_send_local_response((uint32_t)integer(js, arguments[0]), details, details_length, body, length,
                                              fields.data, fields.length, -1);
  JS_FreeCString(js, details);
  release(fields);
  return outcome(js, status, "the response");
}

NATIVE(call) {
  struct text fields = header_block(js, arguments[1]);
  if (!fields.data) return JS_EXCEPTION;
  size_t length = 0, name_length = 0;
  const uint8_t *body = JS_GetUint8Array(js, &length, arguments[2]);
  const char *cluster = JS_ToCStringLen(js, &name_length, arguments[0]);
  static const char no_trailers[4];
  uint32_t token = 0;
  uint32_t status = proxy_http_call(cluster, name_length, fields.data, fields.length, body, length, no_trailers, 4,
                                    (uint32_t)integer(js, arguments[3]), &token);
  JS_FreeCString(js, cluster);
  release(fields);
  return status == OK ? JS_NewUint32(js, token) : outcome(js, status, "the call");
}

NATIVE(enter) { return JS_NewBool(js, proxy_set_effective_context((uint32_t)integer(js, arguments[0])) == OK); }

NATIVE(resume) { return outcome(js, proxy_continue_stream((uint32_t)integer(js, arguments[0])), "the stream"); }

NATIVE(log) {
  size_t length;
  const char *line = JS_ToCStringLen(js, &length, arguments[1]);
  if (!line) return JS_EXCEPTION;
  proxy_log((enum level)integer(js, arguments[0]), line, length < 4096 ? length : 4096);
  JS_FreeCString(js, line);
  return JS_UNDEFINED;
}

NATIVE(property) {
  size_t path_length, length = 0;
  const char *path = JS_ToCStringLen(js, &path_length, arguments[0]);
  if (!path) return JS_EXCEPTION;
  char *data = NULL;
  uint32_t status = proxy_get_property(path, path_length, &data, &length);
  JS_FreeCString(js, path);
  JSValue value = status == OK ? JS_NewUint8ArrayCopy(js, (const uint8_t *)data, length) : JS_NULL;
  free(data);
  return value;
}

NATIVE(counter) {
  size_t length;
  uint32_t id = 0;
  const char *name = JS_ToCStringLen(js, &length, arguments[0]);
  if (!name) return JS_EXCEPTION;
  uint32_t status = proxy_define_metric(0, name, length, &id);
  JS_FreeCString(js, name);
  return status == OK ? JS_NewUint32(js, id) : outcome(js, status, "the counter");
}

NATIVE(increment) {
  int64_t by = 0;
  JS_ToInt64(js, &by, arguments[1]);
  return outcome(js, proxy_increment_metric((uint32_t)integer(js, arguments[0]), by), "the counter");
}

NATIVE(random) {
  int32_t length = integer(js, arguments[0]);
  if (length < 0 || length > 65536) return JS_ThrowRangeError(js, "at most 65536 random bytes at once");
  uint8_t *data = (uint8_t *)allocate((size_t)length);
  random_bytes(data, (size_t)length);
  JSValue value = JS_NewUint8ArrayCopy(js, data, (size_t)length);
  free(data);
  return value;
}

NATIVE(encode) {
  size_t length;
  const char *data = JS_ToCStringLen(js, &length, arguments[0]);
  if (!data) return JS_EXCEPTION;
  JSValue value = JS_NewUint8ArrayCopy(js, (const uint8_t *)data, length);
  JS_FreeCString(js, data);
  return value;
}

NATIVE(decode) {
  size_t length = 0;
  const uint8_t *data = JS_GetUint8Array(js, &length, arguments[0]);
  return data || !length ? JS_NewStringLen(js, (const char *)data, length) : JS_EXCEPTION;
}

// How deep brackets are nested in what may be JSON: the engine reads it by recursion, and its stack is short.
NATIVE(depth) {
  size_t length;
  const char *source = JS_ToCStringLen(js, &length, arguments[0]);
  if (!source) return JS_EXCEPTION;
  int depth = 0, most = 0;
  bool quoted = false;
  for (size_t index = 0; index < length; index++) {
    char c = source[index];
    if (c == '"') quoted = !quoted;
    else if (quoted) index += c == '\\';
    else if (c == '[' || c == '{') depth++, most = depth > most ? depth : most;
    else if (c == ']' || c == '}') depth--;
  }
  JS_FreeCString(js, source);
  return JS_NewInt32(js, most);
}

NATIVE(limit) {
  size_t bytes = (size_t)integer(js, arguments[0]);
  if (bytes > heap) JS_SetMemoryLimit(runtime, heap = bytes);
  return JS_UNDEFINED;
}

NATIVE(evaluate) {
  size_t length;
  const char *source = JS_ToCStringLen(js, &length, arguments[0]);
  if (!source) return JS_EXCEPTION;
  JSValue value = JS_Eval(js, source, length, "script", JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_STRICT);
  JS_FreeCString(js, source);
  return value;
}

static const struct native {
  const char *name;
  JSCFunction *function;
  int length;
} natives[] = {
    {"fields", native_fields, 1},     {"set", native_set, 3},       {"add", native_add, 3},
    {"remove", native_remove, 2},     {"body", native_body, 2},     {"setBody", native_setBody, 2},
    {"reply", native_reply, 4},       {"call", native_call, 4},     {"enter", native_enter, 1},
    {"resume", native_resume, 1},     {"log", native_log, 2},       {"property", native_property, 1},
    {"counter", native_counter, 1},   {"random", native_random, 1}, {"increment", native_increment, 2},
    {"encode", native_encode, 1},     {"decode", native_decode, 1}, {"limit", native_limit, 1},
    {"evaluate", native_evaluate, 1}, {"depth", native_depth, 1},
};

// ---- the engine ----

static void *engine_calloc(void *opaque, size_t count, size_t size) { return calloc(count, size); }
static void *engine_malloc(void *opaque, size_t size) { return malloc(size); }
static void engine_free(void *opaque, void *memory) { free(memory); }
static void *engine_realloc(void *opaque, void *memory, size_t size) { return realloc(memory, size); }
static size_t engine_size(const void *memory) { return malloc_usable_size((void *)memory); }

static bool start_engine(void) {
  static const JSMallocFunctions functions = {engine_calloc, engine_malloc, engine_free, engine_realloc, engine_size};
  if (!runtime) {
    runtime = JS_NewRuntime2(&functions, NULL);
    if (!runtime) return false;
    JS_SetMaxStackSize(runtime, STACK);
    JS_SetGCThreshold(runtime, GC_THRESHOLD);
  }
  JS_UpdateStackTop(runtime);
  return true;
}

// Logs the exception that is pending.
static void log_exception(JSContext *js, struct text what) {
  JSValue error = JS_GetException(js);
  size_t length = 0, stack_length = 0;
  const char *message = JS_ToCStringLen(js, &length, error);
  JSValue stack = JS_IsError(error) ? JS_GetPropertyStr(js, error, "stack") : JS_UNDEFINED;
  const char *trace = JS_IsString(stack) ? JS_ToCStringLen(js, &stack_length, stack) : NULL;
  LOG(LOG_ERROR, what, (struct text){message, message ? length : 0}, LITERAL("\n"), (struct text){trace, trace ? stack_length : 0});
  JS_FreeCString(js, message);
  JS_FreeCString(js, trace);
  JS_FreeValue(js, stack);
  JS_FreeValue(js, error);
}

// Calls an entry of the prelude with numbers, and does all jobs that come of it. False after an exception, which is logged:
// the prelude handles those of scripts, so this is one of its own, or there was no memory for it.
static bool enter(const struct root *root, enum function entry, int count, const int64_t *numbers, int32_t *result) {
  JS_UpdateStackTop(runtime);
  JSValue arguments[4];
  for (int index = 0; index < count; index++) arguments[index] = JS_NewInt64(root->js, numbers[index]);
  JSValue value = JS_Call(root->js, root->entries[entry], JS_UNDEFINED, count, arguments);
  JSContext *of;
  int done;
  while ((done = JS_ExecutePendingJob(runtime, &of)) != 0)
    if (done < 0) log_exception(of, LITERAL("script: "));
  if (JS_IsException(value)) return log_exception(root->js, LITERAL("script: ")), false;
  if (result) *result = integer(root->js, value);
  JS_FreeValue(root->js, value);
  return true;
}
#define ENTER(root, entry, result, ...) \
  enter(root, entry, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]){__VA_ARGS__}, result)

static uint32_t refuse(void) {
  static const char body[] = "500 Internal Server Error\n", details[] = "script_error", no_fields[4];
  proxy_send_local_response(500, details, sizeof details - 1, (const uint8_t *)body, sizeof body - 1, no_fields, 4, -1);
  return PAUSE;
}

static const struct root *root_of(uint32_t context) {
  return context_get(&roots, (uint32_t)(uintptr_t)context_get(&root_of_stream, context));
}

// Calls an entry for a stream; what it answers to its host.
static uint32_t drive(uint32_t context, enum function entry, uint32_t side, int64_t size, bool ended) {
  const struct root *root = root_of(context);
  if (!root) return CONTINUE;
  int32_t action = CONTINUE;
  bool good = entry == BODY ? ENTER(root, entry, NULL, context, side, size, ended) : ENTER(root, entry, NULL, context, ended);
  return good && ENTER(root, SETTLE, &action, context) ? (uint32_t)action : refuse();
}

// ---- callbacks ----

CALLBACK(proxy_on_context_create) void context_create(uint32_t context, uint32_t parent) {
  if (parent) context_put(&root_of_stream, context, (void *)(uintptr_t)parent);
}

static void drop(struct root *root) {
  if (!root) return;
  for (size_t index = 0; index < ENTRIES; index++) JS_FreeValue(root->js, root->entries[index]);
  JS_FreeContext(root->js);
  free(root);
}

// A context with the prelude in it; NULL if that fails, which is for want of memory only.
static struct root *new_root(void) {
  struct root *root = (struct root *)allocate(sizeof *root);
  for (size_t index = 0; index < ENTRIES; index++) root->entries[index] = JS_UNDEFINED;
  JSContext *js = root->js = JS_NewContext(runtime);
  if (!js) return free(root), NULL;
  JSValue host = JS_NewObject(js);
  for (size_t index = 0; index < sizeof natives / sizeof *natives; index++)
    JS_SetPropertyStr(js, host, natives[index].name,
                      JS_NewCFunction(js, natives[index].function, natives[index].name, natives[index].length));
  JSValue begin = JS_Eval(js, prelude, sizeof prelude - 1, "prelude", JS_EVAL_TYPE_GLOBAL);
  JSValue entries = JS_IsException(begin) ? JS_EXCEPTION : JS_Call(js, begin, JS_UNDEFINED, 1, &host);
  bool good = JS_IsObject(entries);
  for (size_t index = 0; good && index < ENTRIES; index++)
    root->entries[index] = JS_GetPropertyStr(js, entries, entry_names[index]);
  JS_FreeValue(js, entries);
  JS_FreeValue(js, begin);
  JS_FreeValue(js, host);
  if (!good) log_exception(js, LITERAL("script: ")), drop(root);
  return good ? root : NULL;
}

CALLBACK(proxy_on_configure) bool configure(uint32_t id, size_t size) {
  struct root *root = start_engine() ? new_root() : NULL;
  if (!root) return false;
  struct text source = plugin_configuration();
  JSValue text = JS_NewStringLen(root->js, source.data, source.length);
  release(source);
  JSValue result = JS_Call(root->js, root->entries[CONFIGURE], JS_UNDEFINED, 1, &text);
  JS_FreeValue(root->js, text);
  if (JS_IsException(result)) return log_exception(root->js, LITERAL("script: configuration refused: ")), drop(root), false;
  JS_FreeValue(root->js, result);
  // One before it is not freed: streams may still be under it, and hosts configure a root once.
  context_take(&roots, id);
  context_put(&roots, id, root);
  return true;
}

CALLBACK(proxy_on_request_headers) uint32_t request_headers(uint32_t context, uint32_t count, bool end_of_stream) {
  return drive(context, REQUEST_HEAD, 0, 0, end_of_stream);
}

CALLBACK(proxy_on_request_body) uint32_t request_body(uint32_t context, size_t size, bool end_of_stream) {
  return drive(context, BODY, REQUEST_BODY, size, end_of_stream);
}

// Trailers end a body that is held.
CALLBACK(proxy_on_request_trailers) uint32_t request_trailers(uint32_t context, uint32_t count) {
  return drive(context, BODY, REQUEST_BODY, -1, true);
}

CALLBACK(proxy_on_response_headers) uint32_t response_headers(uint32_t context, uint32_t count, bool end_of_stream) {
  return drive(context, RESPONSE_HEAD, 0, 0, end_of_stream);
}

CALLBACK(proxy_on_response_body) uint32_t response_body(uint32_t context, size_t size, bool end_of_stream) {
  return drive(context, BODY, RESPONSE_BODY, size, end_of_stream);
}

CALLBACK(proxy_on_response_trailers) uint32_t response_trailers(uint32_t context, uint32_t count) {
  return drive(context, BODY, RESPONSE_BODY, -1, true);
}

CALLBACK(proxy_on_http_call_response)
void call_response(uint32_t id, uint32_t token, uint32_t count, size_t body_size, uint32_t trailers) {
  const struct root *root = context_get(&roots, id);
  int32_t waits = 0;
  if (!root || !ENTER(root, CALL_ANSWERED, &waits, token, count > 0, (int64_t)body_size) || !waits) return;
  if (!ENTER(root, RESUME, NULL, waits)) refuse();
}

CALLBACK(proxy_on_log) void on_log(uint32_t context) {
  const struct root *root = root_of(context);
  if (root && ENTER(root, LOG_STREAM, NULL, context)) ENTER(root, SETTLE, NULL, context);
}

CALLBACK(proxy_on_delete) void delete(uint32_t context) {
  const struct root *root = root_of(context);
  if (root) ENTER(root, FORGET, NULL, context);
  if (!context_take(&root_of_stream, context)) drop(context_take(&roots, context));
}
