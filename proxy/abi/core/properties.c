/* Properties that are header fields, answered without Python: filters ask for these more than for all others. The rest, and
 * their meaning, is in abi/proxy_wasm/properties.py. */
#include "core.h"

#define ROW(property, field) {property, sizeof property - 1, field, sizeof field - 1}
static const struct { const char *property; u8 size; const char *field; u8 field_size; } request_fields[] = {
  ROW("path", ":path"), ROW("host", ":authority"), ROW("method", ":method"), ROW("scheme", ":scheme"), ROW("id", "x-request-id"),
  ROW("useragent", "user-agent"), ROW("referer", "referer"), ROW("url_path", ":path"), ROW("query", ":path"),
};

/* All values of a name, joined as Envoy's CEL attributes join them. */
static void joined(const map *M, int first, const u8 *key, u32 key_len, u32 *value, u32 *value_len) {
  const entry *E = AT(entry, M->entries);
  *value = E[first].value, *value_len = E[first].value_len;
  int i = map_find(M, key, key_len, (u32)first + 1);
  if (i < 0) return;
  u32 size = *value_len;
  for (int j = i; j >= 0; j = map_find(M, key, key_len, (u32)j + 1)) size += 1 + E[j].value_len;
  u32 at = scratch(size), end = at + *value_len;
  copy(at, *value, *value_len);
  for (; i >= 0; i = map_find(M, key, key_len, (u32)i + 1)) {
    *AT(u8, end++) = ',';
    copy(end, E[i].value, E[i].value_len), end += E[i].value_len;
  }
  *value = at, *value_len = size;
}

/* `path` is in scratch. The status; -1: the property is Python's. */
int header_property(u32 path, u32 size, u32 *value, u32 *value_len) {
  u8 *p = AT(u8, path);
  if (size && !p[size - 1]) size--;
  u32 m;
  if (size > 8 && equal(p, (const u8 *)"request", 8)) m = REQUEST_HEADERS, p += 8, size -= 8;
  else if (size > 9 && equal(p, (const u8 *)"response", 9)) m = RESPONSE_HEADERS, p += 9, size -= 9;
  else return -1;
  const u8 *key = 0, *property = p;
  u32 key_len = 0, property_len = size;
  if (size > 8 && equal(p, (const u8 *)"headers", 8)) {
    for (u32 i = 8; i < size; i++) p[i] = lower(p[i]);
    key = p + 8, key_len = size - 8, property_len = 0;
    if (m == REQUEST_HEADERS && IS("host", key, key_len)) key = (const u8 *)":authority", key_len = 10;
  } else if (m == REQUEST_HEADERS) {
    for (u32 i = 0; i < sizeof request_fields / sizeof *request_fields && !key; i++)
      if (request_fields[i].size == size && equal((const u8 *)request_fields[i].property, p, size))
        key = (const u8 *)request_fields[i].field, key_len = request_fields[i].field_size;
  }
  if (!key) return -1;
  if (!(call.readable >> m & 1)) return NOT_FOUND;
  const map *M = map_of(m);
  int first = map_find(M, key, key_len, 0);
  if (first < 0) return NOT_FOUND;
  joined(M, first, key, key_len, value, value_len);
  int is_path = IS("url_path", property, property_len), is_query = IS("query", property, property_len);
  if (is_path || is_query) {
    u32 cut = 0;
    while (cut < *value_len && AT(u8, *value)[cut] != '?') cut++;
    u32 behind = cut < *value_len ? cut + 1 : cut, end = behind;
    while (end < *value_len && AT(u8, *value)[end] != '#') end++;
    if (is_query) *value += behind, *value_len = end - behind;
    else *value_len = cut;
  }
  return OK;
}
