// The host functions that scripts reach, beside those of ../c/proxy_wasm.h, and values on their way between both worlds.
#ifndef SCRIPT_HOST_H
#define SCRIPT_HOST_H

#include "../c/proxy_wasm.h"
#include "quickjs.h"

HOST(proxy_add_header_map_value)(uint32_t map, const char *key, size_t key_length, const char *value, size_t length);
HOST(proxy_set_buffer_bytes)(uint32_t buffer, size_t start, size_t most, const uint8_t *data, size_t length);
HOST(proxy_send_local_response)(uint32_t status, const char *details, size_t details_length, const uint8_t *body, size_t length,
                                const char *headers, size_t headers_length, int32_t grpc_status);
HOST(proxy_http_call)(const char *cluster, size_t cluster_length, const char *headers, size_t headers_length, const uint8_t *body,
                      size_t length, const char *trailers, size_t trailers_length, uint32_t timeout, uint32_t *token);
HOST(proxy_get_property)(const char *path, size_t path_length, char **data, size_t *length);
HOST(proxy_define_metric)(uint32_t kind, const char *name, size_t length, uint32_t *id);
HOST(proxy_increment_metric)(uint32_t id, int64_t by);
HOST(proxy_set_effective_context)(uint32_t context);
HOST(proxy_continue_stream)(uint32_t side);

// Bytes as text with a character for each.
static inline JSValue new_byte_string(JSContext *js, const char *data, size_t length) {
  size_t high = 0;
  for (size_t index = 0; index < length; index++) high += (unsigned char)data[index] >= 0x80;
  if (high == 0) return JS_NewStringLen(js, data, length);
  char *wide = (char *)allocate(length + high);
  size_t used = 0;
  for (size_t index = 0; index < length; index++) {
    unsigned char c = (unsigned char)data[index];
    if (c >= 0x80) wide[used++] = (char)(0xc0 | c >> 6), c = 0x80 | (c & 0x3f);
    wide[used++] = (char)c;
  }
  JSValue value = JS_NewStringLen(js, wide, used);
  free(wide);
  return value;
}

// The other way round, in memory of its own; data is NULL after an exception.
static inline struct text byte_string(JSContext *js, JSValueConst value) {
  size_t length, used = 0;
  const char *wide = JS_ToCStringLen(js, &length, value);
  if (!wide) return (struct text){NULL, 0};
  char *data = (char *)allocate(length);
  for (size_t index = 0; index < length; index++) {
    unsigned char c = (unsigned char)wide[index];
    if (c >= 0xc4) {
      JS_FreeCString(js, wide);
      free(data);
      JS_ThrowTypeError(js, "a header has bytes, no characters beyond U+00FF: use encodeURIComponent");
      return (struct text){NULL, 0};
    }
    if (c >= 0xc2) c = (unsigned char)((c & 3) << 6 | (wide[++index] & 0x3f));
    data[used++] = (char)c;
  }
  JS_FreeCString(js, wide);
  return (struct text){data, used};
}

// A value of a header: what would end it, or is no text, is refused here, because not every host does.
static inline struct text header_value(JSContext *js, JSValueConst value) {
  struct text bytes = byte_string(js, value);
  for (size_t index = 0; index < bytes.length; index++) {
    unsigned char c = (unsigned char)bytes.data[index];
    if ((c >= 0x20 && c != 0x7f) || c == '\t') continue;
    release(bytes);
    JS_ThrowTypeError(js, "a header can not have control characters");
    return (struct text){NULL, 0};
  }
  return bytes;
}

// A name of a header: RFC 9110 section 5.6.2, or with a colon in front.
static inline struct text header_name(JSContext *js, JSValueConst value) {
  struct text name = byte_string(js, value);
  if (!name.data) return name;
  size_t start = name.length > 0 && name.data[0] == ':';
  bool good = name.length > start;
  for (size_t index = start; good && index < name.length; index++) {
    char c = name.data[index];
    good = c > 0 && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("!#$%&'*+-.^_`|~", c));
  }
  if (good) return name;
  release(name);
  JS_ThrowTypeError(js, "not the name of a header");
  return (struct text){NULL, 0};
}

// A list of names and values as hosts take it: u32 count; count times (u32, u32) lengths; name, NUL, value, NUL of each.
static inline struct text header_block(JSContext *js, JSValueConst list) {
  int64_t size = 0;
  if (JS_GetLength(js, list, &size) < 0) return (struct text){NULL, 0};
  size_t parts = (size_t)size & ~(size_t)1, length = 4 + parts * 4;
  struct text *texts = (struct text *)allocate(parts * sizeof *texts);
  size_t count = 0;
  for (; count < parts; count++) {
    JSValue value = JS_GetPropertyUint32(js, list, (uint32_t)count);
    texts[count] = count % 2 ? header_value(js, value) : header_name(js, value);
    JS_FreeValue(js, value);
    if (!texts[count].data) break;
    length += texts[count].length + 1;
  }
  char *block = NULL;
  if (count == parts) {
    block = (char *)allocate(length);
    uint32_t pairs = (uint32_t)(parts / 2);
    memcpy(block, &pairs, 4);
    char *at = block + 4 + parts * 4;
    for (size_t index = 0; index < parts; index++) {
      uint32_t part = (uint32_t)texts[index].length;
      memcpy(block + 4 + index * 4, &part, 4);
      memcpy(at, texts[index].data, part);
      at[part] = 0;
      at += part + 1;
    }
  }
  for (size_t index = 0; index < count; index++) release(texts[index]);
  free(texts);
  return (struct text){block, length};
}

static inline int32_t integer(JSContext *js, JSValueConst value) {
  int32_t number = 0;
  JS_ToInt32(js, &number, value);
  return number;
}

static inline JSValue outcome(JSContext *js, uint32_t status, const char *what) {
  if (status == OK) return JS_UNDEFINED;
  return JS_ThrowPlainError(js, "%s: the gateway answered with status %u", what, (unsigned)status);
}

#endif
