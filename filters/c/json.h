// A strict reader for a filter's configuration: one JSON object whose values are strings, whole numbers and booleans
// (RFC 8259). It goes through the text once and makes nothing but unescaped strings.
//
//     struct json json = {.text = source, .fail = refuse};
//     while (json_member(&json, &key))
//       if (equal(key, LITERAL("limit"))) limit = json_integer(&json, key, 1, 100); else json_unknown(&json, key);
//     if (json.failed) ...
//
// After the first problem `fail` has been called with the reason, once, and every function returns at once.
#ifndef FILTER_JSON_H
#define FILTER_JSON_H

#include "proxy_wasm.h"

struct json {
  struct text text;
  void (*fail)(struct text path, struct text reason);
  size_t at;
  bool begun, failed;
  struct text keys[32];  // seen so far, to refuse repeats
  size_t key_count;
};

static inline void json_refuse(struct json *json, struct text path, struct text reason) {
  if (!json->failed) json->fail(path, reason);
  json->failed = true;
}

static inline int json_peek(const struct json *json) {
  return json->at < json->text.length ? (unsigned char)json->text.data[json->at] : -1;
}

static inline void json_space(struct json *json) {
  for (int c = json_peek(json); c == ' ' || c == '\n' || c == '\r' || c == '\t'; c = json_peek(json)) json->at++;
}

static inline bool json_take(struct json *json, int c) {
  json_space(json);
  if (json_peek(json) != c) return false;
  json->at++;
  return true;
}

static inline int json_hex4(struct json *json) {
  int code = 0;
  for (int count = 0; count < 4; count++, json->at++) {
    int c = json_peek(json);
    if (c >= '0' && c <= '9') code = code * 16 + c - '0';
    else if ((c | 32) >= 'a' && (c | 32) <= 'f') code = code * 16 + (c | 32) - 'a' + 10;
    else return -1;
  }
  return code;
}

// The string at the position, in memory of its own, which lives as long as the configuration.
static inline struct text json_text(struct json *json, struct text path) {
  static const struct text bad = {"not JSON: a malformed string", 28};
  if (json->failed) return LITERAL("");
  if (!json_take(json, '"')) return json_refuse(json, path, LITERAL("must be a string")), LITERAL("");
  char *out = (char *)allocate(json->text.length - json->at);  // an escape is never shorter than what it stands for
  size_t length = 0;
  for (;;) {
    int c = json_peek(json);
    json->at++;
    if (c == '"') return (struct text){out, length};
    if (c < 0x20) break;
    if (c != '\\') {
      out[length++] = (char)c;
      continue;
    }
    c = json_peek(json);
    json->at++;
    const char *simple = c > 0 ? strchr("\"\\/bfnrt", c) : NULL;
    if (simple) {
      out[length++] = "\"\\/\b\f\n\r\t"[simple - "\"\\/bfnrt"];
      continue;
    }
    int code = c == 'u' ? json_hex4(json) : -1;
    if (code >= 0xd800 && code < 0xdc00) {
      bool low = json_peek(json) == '\\' && json->at + 1 < json->text.length && json->text.data[json->at + 1] == 'u';
      json->at += 2;
      int second = low ? json_hex4(json) : -1;
      code = second >= 0xdc00 && second < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + second - 0xdc00 : -1;
    }
    if (code < 0 || (code >= 0xd800 && code < 0xe000)) break;
    if (code < 0x80) {
      out[length++] = (char)code;
    } else if (code < 0x800) {
      out[length++] = (char)(0xc0 | code >> 6);
      out[length++] = (char)(0x80 | (code & 0x3f));
    } else {
      if (code < 0x10000) out[length++] = (char)(0xe0 | code >> 12);
      else out[length++] = (char)(0xf0 | code >> 18), out[length++] = (char)(0x80 | (code >> 12 & 0x3f));
      out[length++] = (char)(0x80 | (code >> 6 & 0x3f));
      out[length++] = (char)(0x80 | (code & 0x3f));
    }
  }
  free(out);
  json_refuse(json, path, bad);
  return LITERAL("");
}

// Goes to the next member of the object; its value is at the position then. False after the last, or after a problem.
static inline bool json_member(struct json *json, struct text *key) {
  static const struct text whole = {"the configuration", 17};
  if (json->failed) return false;
  if (!json->begun) {
    json->begun = true;
    if (!json_take(json, '{')) return json_refuse(json, whole, LITERAL("must be a mapping")), false;
    if (json_take(json, '}')) goto end;
  } else if (json_take(json, '}')) {
    goto end;
  } else if (!json_take(json, ',')) {
    return json_refuse(json, whole, LITERAL("not JSON: ',' or '}' expected")), false;
  }
  json_space(json);
  if (json_peek(json) != '"') return json_refuse(json, whole, LITERAL("not JSON: a key expected")), false;
  *key = json_text(json, whole);
  if (json->failed) return false;
  for (size_t index = 0; index < json->key_count; index++)
    if (equal(json->keys[index], *key)) return json_refuse(json, *key, LITERAL("appears twice")), false;
  if (json->key_count < sizeof json->keys / sizeof *json->keys) json->keys[json->key_count++] = *key;
  if (!json_take(json, ':')) return json_refuse(json, whole, LITERAL("not JSON: ':' expected")), false;
  json_space(json);
  return true;
end:
  json_space(json);
  if (json->at < json->text.length) json_refuse(json, whole, LITERAL("not JSON: text after the end"));
  return false;
}

static inline void json_unknown(struct json *json, struct text key) { json_refuse(json, key, LITERAL("unknown key")); }

static inline bool json_word(struct json *json, struct text word) {
  if (json->text.length - json->at < word.length || memcmp(json->text.data + json->at, word.data, word.length)) return false;
  json->at += word.length;
  return true;
}

static inline bool json_bool(struct json *json, struct text path) {
  if (json->failed) return false;
  if (json_word(json, LITERAL("true"))) return true;
  if (!json_word(json, LITERAL("false"))) json_refuse(json, path, LITERAL("must be true or false"));
  return false;
}

// A whole number within limits, both included; `reason` says which.
static inline int64_t json_integer(struct json *json, struct text path, int64_t least, int64_t most, struct text reason) {
  if (json->failed) return least;
  int64_t value = 0;
  size_t start = json->at;
  for (int c = json_peek(json); c >= '0' && c <= '9' && json->at - start < 15; c = (json->at++, json_peek(json)))
    value = value * 10 + c - '0';
  int next = json_peek(json);
  bool ends = next == ',' || next == '}' || next == ' ' || next == '\n' || next == '\r' || next == '\t';
  if (json->at == start || !ends || value < least || value > most) json_refuse(json, path, reason);
  return value;
}

// The index of a string among `names`; `reason` lists them.
static inline size_t json_choice(struct json *json, struct text path, const struct text *names, size_t count, struct text reason) {
  json_space(json);
  if (json_peek(json) != '"') return json_refuse(json, path, reason), 0;
  struct text found = json_text(json, path);
  for (size_t index = 0; index < count; index++)
    if (!json->failed && equal(found, names[index])) return index;
  json_refuse(json, path, reason);
  return 0;
}

// The name of an ordinary header, in lower case (RFC 9110 section 5.6.2).
static inline struct text json_header_name(struct json *json, struct text path) {
  struct text name = json_text(json, path);
  if (json->failed) return name;
  char *data = (char *)name.data;
  bool good = name.length > 0 && name.length <= 128;
  for (size_t index = 0; good && index < name.length; index++) {
    char c = data[index];
    if (c >= 'A' && c <= 'Z') data[index] = c | 32;
    else good = c > 0 && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("!#$%&'*+-.^_`|~", c));
  }
  if (!good) json_refuse(json, path, LITERAL("is not the name of a header"));
  return name;
}

#endif
