/* HTTP heads: from a parser's fields to maps, and from maps to the bytes of an HTTP/1.1 head.
 *
 * Whatever a filter wrote into a map, what is emitted is one unambiguous head or an error: names are tokens, values have no
 * CR, LF or NUL (RFC 9110 5.5, 5.6.2), hop-by-hop fields are never a filter's (RFC 9110 7.6.1), framing is decided here
 * (RFC 9112 6).
 */
#include "core.h"

/* What a loaded head said, beside its status. */
enum { SAID_EXPECT = 1 << 8, SAID_UPGRADE = 1 << 9 };
#define HAS_ID (1u << 31) /* the listener keeps the client's x-request-id, and there is one: it is in the map, if it is sound */
/* Why a head was refused; abi/memory.py has the words. */
enum { HEAD_FINE, HEAD_FIELDS, HEAD_HOST, HEAD_TARGET, HEAD_METHOD, HEAD_PATH, HEAD_AUTHORITY, HEAD_NAME, HEAD_VALUE, HEAD_STATUS,
       HEAD_LENGTH, HEAD_TOO_LARGE, HEAD_PROTOCOL, HEAD_CODING };

/* How a listener wants its heads; written by Python, persistent. */
typedef struct { u32 forwarded, request_id, via, via_len, scheme, scheme_len, trailers, underscores, most_fields; } head_options;
enum { FORWARDED_OFF, FORWARDED_APPEND, FORWARDED_REPLACE };
enum { REQUEST_ID_OFF, REQUEST_ID_KEEP, REQUEST_ID_REPLACE };
enum { UNDERSCORES_REJECT, UNDERSCORES_DROP, UNDERSCORES_KEEP };

/* ---- Character classes (RFC 9110 5.6.2, RFC 3986) ---- */
/* A token's bytes, in lower case; 0 for all others. */
static const u8 token[256] = {
  ['!'] = '!', ['#'] = '#', ['$'] = '$', ['%'] = '%', ['&'] = '&', ['\''] = '\'', ['*'] = '*', ['+'] = '+', ['-'] = '-',
  ['.'] = '.', ['^'] = '^', ['_'] = '_', ['`'] = '`', ['|'] = '|', ['~'] = '~',
  ['0'] = '0', '1', '2', '3', '4', '5', '6', '7', '8', '9',
  ['A'] = 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x',
  'y', 'z',
  ['a'] = 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x',
  'y', 'z',
};
/* A field name's bytes in lower case; 0 where one is no token byte. */
static int fold_name(u8 *p, u32 n) {
  for (u32 i = 0; i < n; i++)
    if (!(p[i] = token[p[i]])) return 0;
  return n > 0;
}
int name_is_token(const u8 *p, u32 n) {
  for (u32 i = 0; i < n; i++)
    if (!token[p[i]]) return 0;
  return n > 0;
}
/* How many of the `n` bytes a field value may have: up to the first control character but HTAB. */
static u32 clean_length(const u8 *p, u32 n) {
  u32 i = 0;
  for (; i + 8 <= n; i += 8) { /* eight at a time */
    u64 w, d, odd;
    __builtin_memcpy(&w, p + i, 8), d = w ^ 0x7f7f7f7f7f7f7f7f;
    odd = (((w - 0x2020202020202020) & ~w) | ((d - 0x0101010101010101) & ~d)) & 0x8080808080808080;
    if (!odd) continue;
    i += (u32)__builtin_ctzll(odd) / 8;
    if (p[i] != '\t') return i;
    i -= 7; /* on with what is behind it */
  }
  for (; i < n; i++)
    if ((p[i] < 32 && p[i] != '\t') || p[i] == 127) return i;
  return n;
}
int value_is_clean(const u8 *p, u32 n) { return clean_length(p, n) == n; }
/* reg-name, IPv4, [IPv6], an optional port; no userinfo, path, comma or space */
static int authority_is_sound(const u8 *p, u32 n) {
  u32 i = 0, digits = 0;
  if (!n) return 0;
  if (p[0] == '[') {
    for (i = 1; i < n && p[i] != ']'; i++)
      if (!((p[i] >= '0' && p[i] <= '9') || ((p[i] | 32) >= 'a' && (p[i] | 32) <= 'f') || p[i] == ':' || p[i] == '.')) return 0;
    if (i++ == n || i == 2) return 0;
  } else {
    for (; i < n && p[i] != ':'; i++) {
      u8 c = p[i];
      if (!(((c | 32) >= 'a' && (c | 32) <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~' ||
            c == '!' || c == '$' || c == '&' || c == '\'' || c == '(' || c == ')' || c == '*' || c == '+' || c == ';' || c == '=' ||
            c == '%'))
        return 0;
    }
    if (!i) return 0;
  }
  if (i < n && p[i++] != ':') return 0;
  for (; i < n; i++, digits++)
    if (p[i] < '0' || p[i] > '9' || digits == 5) return 0;
  return 1;
}
static int target_is_sound(const u8 *p, u32 n) { /* origin-form, or * */
  if (!n || (p[0] != '/' && !(n == 1 && p[0] == '*'))) return 0;
  for (u32 i = 0; i < n; i++)
    if (p[i] <= 32 || p[i] == 127 || p[i] == '#') return 0;
  return 1;
}

/* ---- Fields ---- */
typedef struct { u32 at, len; } text;
static u32 cursor, cursor_end;

/* The next of the fields that Python joined with LF, in the arena. */
static int next_field(text *field) {
  if (cursor > cursor_end) return 0;
  u8 *start = AT(u8, cursor), *end = AT(u8, cursor_end), *p = start;
  while (p < end && *p != '\n') p++;
  field->at = cursor, field->len = (u32)(p - start), cursor += field->len + 1;
  return 1;
}

/* Far enough below ARENA that nothing moves while a request is loaded: its texts are known by their addresses. */
enum { LARGEST_HEAD = ARENA / 4, MOST_TEXTS = 1 << 15, SPARE_ENTRIES = 12, SPARE = 16 };

/* The joined fields, from scratch into the arena, behind an array that has room for their entries. */
static int place(map *M, u32 size, u32 fields) {
  u32 from = scratch(size), capacity = fields / 2 + SPARE_ENTRIES;
  *M = (map){0, 0, 0, 0};
  if (size > LARGEST_HEAD || fields > MOST_TEXTS) return HEAD_TOO_LARGE;
  u32 at = (map_reserve(3 + capacity * sizeof(entry) + size + SPARE) + 3) & ~3u;
  M->entries = at, M->capacity = capacity, at += capacity * sizeof(entry);
  copy(at, from, size);
  cursor = at, cursor_end = at + size, stream.head.top = at + size;
  return HEAD_FINE;
}

/* Hop-by-hop fields that no message keeps; `upgrade` and `te` are decided by the caller. */
static int is_hop(const u8 *k, u32 n) {
  switch (n) {
  case 2: return IS("te", k, n);
  case 7: return IS("trailer", k, n) || IS("upgrade", k, n);
  case 10: return IS("connection", k, n) || IS("keep-alive", k, n);
  case 14: return IS("http2-settings", k, n); /* of an upgrade to h2c, which is never offered (RFC 7540 3.2.1) */
  case 16: return IS("proxy-connection", k, n);
  case 17: return IS("transfer-encoding", k, n);
  default: return 0;
  }
}

/* Drop what the Connection field named (RFC 9110 7.6.1). */
static void drop_named(map *M, text connection, u32 first) {
  u8 *p = AT(u8, connection.at), *end = p + connection.len;
  while (p < end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == ',')) p++;
    u8 *start = p;
    while (p < end && *p != ',' && *p != ' ' && *p != '\t') *p = lower(*p), p++;
    u32 n = (u32)(p - start);
    if (IS("upgrade", start, n) || IS("te", start, n)) continue; /* filters see it; what is emitted decides on it (put_fields) */
    for (int i; n && (i = map_find(M, start, n, first)) >= 0;) map_remove_at(M, (u32)i);
  }
}

/* Lower-case names in place, keep what is end-to-end. `fields`: how many texts there must be; one more, and a text held the
 * separator. */
typedef struct { text host, connection[4]; u32 hosts, connections, said, joins, trailers, te, underscores; u64 names; } head_notes;

/* A second field of one of Envoy's inline headers joins the first: a filter that asks for the value gets all of it. */
enum { MOST_JOINS = 16, LARGEST_JOIN = 4 << 10 }; /* nothing may move while a head is loaded */

/* A bit of `head_notes.names`: where it is not set, no field of that name was loaded. */
static inline u64 name_bit(const u8 *k, u32 n) { return 1ull << ((n * 5 + k[0] + 3 * k[n - 1]) & 63); }

static int join_inline(map *M, head_notes *notes, text name, text value, int request) {
  u8 *k = AT(u8, name.at);
  u64 bit = name_bit(k, name.len), seen = notes->names & bit;
  notes->names |= bit;
  if (!seen || !is_inline(request ? REQUEST_HEADERS : RESPONSE_HEADERS, k, name.len) || notes->joins == MOST_JOINS) return 0;
  int i = map_find(M, k, name.len, request ? 4 : 1);
  if (i < 0 || AT(entry, M->entries)[i].value_len + value.len > LARGEST_JOIN) return 0;
  notes->joins++;
  map_join_value(M, (u32)i, value.at, value.len);
  return 1;
}

/* Is `trailers` in the list of a TE field (RFC 9110 10.1.4)? */
static int takes_trailers(text value) {
  const u8 *p = AT(u8, value.at), *end = p + value.len;
  while (p < end) {
    u8 word[8];
    u32 n = 0;
    while (p < end && (*p == ' ' || *p == '\t' || *p == ',')) p++;
    for (; p < end && *p != ',' && *p != ' ' && *p != '\t'; p++, n++)
      if (n < 8) word[n] = lower(*p);
    if (IS("trailers", word, n)) return 1;
    while (p < end && *p != ',') p++;
  }
  return 0;
}

/* Where trailers are passed on, filters see who takes them and which are announced. */
static void take_trailer_hop(map *M, head_notes *notes, text name, text value, int request) {
  if (!notes->trailers) return;
  if (name.len == 7 && IS("trailer", AT(u8, name.at), 7)) map_point(M, name.at, name.len, value.at, value.len);
  if (name.len == 2 && request && !notes->te && takes_trailers(value))
    notes->te = 1, map_point(M, name.at, name.len, ADDRESS("trailers"), 8);
}

/* Some servers read x_y and x-y as one name (CGI, RFC 3875 4.1.18): a way round whoever checks the other. */
static int has_underscore(const u8 *k, u32 n) {
  for (u32 i = 0; i < n; i++)
    if (k[i] == '_') return 1;
  return 0;
}

static int is_chunked(text coding) {
  u8 folded[7];
  if (coding.len != 7) return 0;
  for (u32 i = 0; i < 7; i++) folded[i] = lower(AT(u8, coding.at)[i]);
  return IS("chunked", folded, 7);
}

enum { MOST_DIGITS = 18 }; /* of a content-length: what fits 64 bits whatever the digits */

/* One field, its name in lower case, both texts checked; why it is refused. */
static int take_field(map *M, head_notes *notes, text name, text value, int request) {
  u8 *k = AT(u8, name.at);
  u32 n = name.len;
  if (request && notes->underscores != UNDERSCORES_KEEP && has_underscore(k, n))
    return notes->underscores == UNDERSCORES_DROP ? HEAD_FINE : HEAD_NAME;
  if (n == 14 && value.len > MOST_DIGITS && IS("content-length", k, n)) return HEAD_LENGTH;
  if (is_hop(k, n)) {
    /* One coding is understood, and it is undone here: another one would be lost with the field (RFC 9112 6.1). */
    if (n == 17 && !is_chunked(value)) return HEAD_CODING;
    if (n == 10 && k[0] == 'c') {
      if (notes->connections == 4) return HEAD_TOO_LARGE;
      notes->connection[notes->connections++] = value;
      if (!request) map_point(M, name.at, n, value.at, value.len); /* filters of responses see it; it is not sent on */
    } else if (n == 7 && k[0] == 'u') {
      notes->said |= SAID_UPGRADE;
      map_point(M, name.at, n, value.at, value.len);
    } else if (n == 17 && !request) {
      map_point(M, name.at, n, value.at, value.len); /* the same */
    } else {
      take_trailer_hop(M, notes, name, value, request);
    }
    return HEAD_FINE;
  }
  if (request && n == 4 && IS("host", k, 4)) {
    notes->host = value, notes->hosts++;
    return HEAD_FINE;
  }
  if (request && n == 6 && IS("expect", k, 6)) {
    u8 *v = AT(u8, value.at);
    if (value.len == 12) {
      u8 folded[12];
      for (u32 i = 0; i < 12; i++) folded[i] = lower(v[i]);
      if (IS("100-continue", folded, 12)) {
        notes->said |= SAID_EXPECT;
        return HEAD_FINE;
      }
    }
    return HEAD_VALUE; /* RFC 9110 10.1.1: other expectations may be refused */
  }
  if (!join_inline(M, notes, name, value, request)) map_point(M, name.at, n, value.at, value.len);
  return HEAD_FINE;
}

static int take_fields(map *M, head_notes *notes, u32 fields, int request) {
  text name, value;
  for (; next_field(&name); fields -= 2) {
    if (fields < 2 || !next_field(&value)) return HEAD_FIELDS;
    if (!fold_name(AT(u8, name.at), name.len)) return HEAD_NAME;
    if (!value_is_clean(AT(u8, value.at), value.len)) return HEAD_VALUE;
    int wrong = take_field(M, notes, name, value, request);
    if (wrong) return wrong;
  }
  return fields ? HEAD_FIELDS : HEAD_FINE;
}

static void add_text(map *M, const char *name, u32 name_len, u32 value, u32 value_len) {
  map_add(M, ADDRESS(name), name_len, value, value_len);
}
#define ADD_TEXT(M, name, value, value_len) add_text(M, name, sizeof(name) - 1, value, value_len)

static void remove_all(map *M, const char *name, u32 n) {
  for (int i; (i = map_find(M, (const u8 *)name, n, 0)) >= 0;) map_remove_at(M, (u32)i);
}
#define REMOVE_ALL(M, name) remove_all(M, name, sizeof(name) - 1)

/* The last field of that name, or -1: what is appended to a list must be its last member, however many fields it came in. */
static int find_last(const map *M, const char *name, u32 n) {
  int last = -1;
  for (int i; (i = map_find(M, (const u8 *)name, n, (u32)(last + 1))) >= 0;) last = i;
  return last;
}

/* Set to `value` (replace), or append to the list that is there. */
static void forward(map *M, const head_notes *notes, const char *name, u32 name_len, text value, int replace, int list) {
  int i = notes->names & name_bit((const u8 *)name, name_len) ? find_last(M, name, name_len) : -1;
  if (i >= 0 && replace) remove_all(M, name, name_len), i = -1;
  if (i < 0) add_text(M, name, name_len, value.at, value.len);
  else if (list) map_join_value(M, (u32)i, value.at, value.len);
}
#define FORWARD(name, value, replace, list) forward(M, notes, name, sizeof(name) - 1, value, replace, list)

static void add_via(map *M, const head_notes *notes, const head_options *o) {
  if (!o->via_len) return;
  int i = notes->names & name_bit((const u8 *)"via", 3) ? find_last(M, "via", 3) : -1;
  if (i >= 0) map_join_value(M, (u32)i, o->via, o->via_len);
  else ADD_TEXT(M, "via", o->via, o->via_len);
}

static int request_id_is_sound(const map *M, int i) {
  entry e = AT(entry, M->entries)[i];
  return e.value_len <= 128 && name_is_token(AT(u8, e.value), e.value_len);
}

static void reset_stream(void) {
  for (u32 m = 0; m < STREAM_MAPS; m++) *map_of(m) = (map){0, 0, 0, 0};
  stream.head.top = stream.head.floor = ADDRESS(stream.arena), stream.head.dirty = stream.head.torn = 0;
  stream.head.request_lines = stream.head.response_lines = (range){0, 0};
}

static void begin_request(map *M, head_notes *notes, const head_options *o) {
  for (u32 i = 0; i < 4; i++) map_point(M, 0, 0, 0, 0); /* the pseudo headers come first */
  notes->trailers = o->trailers, notes->underscores = o->underscores;
}

/* The fields are in the map: now what the request's first line says, and what the listener adds. */
static u32 finish_request(map *M, const head_notes *notes, const head_options *o, text method, text target, text peer, text id) {
  text authority = notes->host, scheme = {o->scheme, o->scheme_len};
  /* Whatever the target says (RFC 9112 3.2). */
  if (notes->hosts != 1 || !authority_is_sound(AT(u8, authority.at), authority.len)) return HEAD_HOST;
  u8 *t = AT(u8, target.at);
  if (target.len && t[0] != '/' && t[0] != '*') { /* absolute-form: its authority overrides Host (RFC 9112 3.2.2) */
    u32 i = 0, start;
    while (i < target.len && t[i] != ':') t[i] = lower(t[i]), i++;
    if (!(IS("http", t, i) || IS("https", t, i)) || i + 3 > target.len || t[i + 1] != '/' || t[i + 2] != '/') return HEAD_TARGET;
    start = i += 3;
    while (i < target.len && t[i] != '/' && t[i] != '?') i++;
    authority = (text){target.at + start, i - start};
    if (i == target.len) { /* RFC 9112 3.2.1, 3.2.4 */
      target = (text){IS("OPTIONS", AT(u8, method.at), method.len) ? ADDRESS("*") : ADDRESS("/"), 1};
    } else if (t[i] == '?') { /* an empty path is "/" */
      u32 rest = target.len - i, at = map_reserve(rest + 1);
      *AT(u8, at) = '/', copy(at + 1, target.at + i, rest);
      target = (text){at, rest + 1};
    } else {
      target = (text){target.at + i, target.len - i};
    }
  }
  if (!authority_is_sound(AT(u8, authority.at), authority.len)) return HEAD_HOST;
  if (!target_is_sound(AT(u8, target.at), target.len)) return HEAD_TARGET;
  for (u32 i = 0; i < notes->connections; i++) drop_named(M, notes->connection[i], 4);
  entry *E = AT(entry, M->entries);
  E[0] = (entry){ADDRESS(":authority"), 10, authority.at, authority.len};
  E[1] = (entry){ADDRESS(":path"), 5, target.at, target.len};
  E[2] = (entry){ADDRESS(":method"), 7, method.at, method.len};
  E[3] = (entry){ADDRESS(":scheme"), 7, scheme.at, scheme.len};
  M->bytes += 29 + authority.len + target.len + method.len + scheme.len;
  if (o->forwarded != FORWARDED_OFF) {
    int replace = o->forwarded == FORWARDED_REPLACE;
    if (peer.len) FORWARD("x-forwarded-for", peer, replace, 1);
    FORWARD("x-forwarded-proto", scheme, replace, 0);
    FORWARD("x-forwarded-host", authority, replace, 0);
  }
  if (o->request_id != REQUEST_ID_OFF && id.len) {
    int i = notes->names & name_bit((const u8 *)"x-request-id", 12) ? map_find(M, (const u8 *)"x-request-id", 12, 4) : -1;
    if (i < 0 || o->request_id == REQUEST_ID_REPLACE || !request_id_is_sound(M, i)) FORWARD("x-request-id", id, 1, 0);
  }
  add_via(M, notes, o);
  stream.head.floor = stream.head.top;
  return HEAD_FINE | notes->said;
}

/* Scratch holds: method LF target LF peer LF request-id (LF name LF value)*. Starts a new stream. */
EXPORT(load_request) u32 load_request(u32 size, u32 fields, u32 options) {
  const head_options *o = AT(head_options, options);
  map *M = map_of(REQUEST_HEADERS);
  head_notes notes = {0};
  text method, target, peer, id;
  scratch_reset(), reset_stream();
  int wrong = place(M, size, fields);
  if (wrong) return (u32)wrong;
  if (fields < 4 || !next_field(&method) || !next_field(&target) || !next_field(&peer) || !next_field(&id)) return HEAD_FIELDS;
  begin_request(M, &notes, o);
  if ((wrong = take_fields(M, &notes, fields - 4, 1))) return (u32)wrong;
  return finish_request(M, &notes, o, method, target, peer, id);
}

static void digits3(u32 status, u8 *to) {
  to[0] = (u8)('0' + status / 100 % 10), to[1] = (u8)('0' + status / 10 % 10), to[2] = (u8)('0' + status % 10);
}

static u32 finish_response(map *M, const head_notes *notes, const head_options *o) {
  for (u32 i = 0; i < notes->connections; i++) drop_named(M, notes->connection[i], 1);
  if (o) add_via(M, notes, o);
  stream.head.floor = stream.head.top;
  return HEAD_FINE | notes->said;
}

/* Scratch holds (name LF value LF)*. The maps of the response are made anew. */
EXPORT(load_response) u32 load_response(u32 status, u32 size, u32 fields, u32 options) {
  const head_options *o = AT(head_options, options);
  map *M = map_of(RESPONSE_HEADERS);
  head_notes notes = {0};
  scratch_reset();
  stream.head.response_lines = (range){0, 0};
  int wrong = place(M, size, fields);
  if (wrong) return (u32)wrong;
  u32 code = stream.head.top;
  digits3(status, AT(u8, code)), stream.head.top += 3; /* SPARE */
  map_point(M, ADDRESS(":status"), 7, code, 3);
  if (o) notes.trailers = o->trailers;
  if (fields && (wrong = take_fields(M, &notes, fields, 0))) return (u32)wrong;
  return finish_response(M, &notes, o);
}

/* ---- Plain messages ----
 * Most requests are a GET without a body and most responses have a content-length, and both heads come in one read, saying nothing
 * else about framing or the connection. Those are read here, strictly. What is unusual in any way is left to the parser that
 * reads all the others.
 *
 * The head goes to the arena as it came, and the map points into it. What no filter has edited leaves as the lines that they
 * are (put_fields): for a head of 84 fields that is half of what it cost.
 */
enum { LARGEST_PLAIN = 8 << 10, MOST_PLAIN_FIELDS = 256, MOST_PLAIN_DIGITS = 9 };

typedef struct { u32 fields, lengths, length, names, twice, ids; } plain;

static int plain_status(const u8 *p) { /* 0: none whose length is the content-length */
  for (u32 i = 0; i < 3; i++)
    if (p[i] < '0' || p[i] > '9') return 0;
  int status = (p[0] - '0') * 100 + (p[1] - '0') * 10 + (p[2] - '0');
  return status < 200 || status > 599 || status == 204 || status == 205 || status == 304 ? 0 : status;
}

/* The end of a line's text; 0 if it does not end with CR LF. */
static u8 *line_end(u8 *p, u8 *end) {
  p += clean_length(p, (u32)(end - p));
  return end - p >= 2 && p[0] == '\r' && p[1] == '\n' ? p : 0;
}

static int is_blank(u8 c) { return c == ' ' || c == '\t'; }

static int plain_number(const u8 *p, u32 n, u32 *number) {
  if (!n || n > MOST_PLAIN_DIGITS) return 0;
  for (*number = 0; n; n--, p++) {
    if (*p < '0' || *p > '9') return 0;
    *number = *number * 10 + (*p - '0');
  }
  return 1;
}

/* What says nothing that is not so anyway. */
static int is_keep_alive(const u8 *name, u32 n, const u8 *value, u32 size) {
  u8 folded[10];
  if (n != 10) return 0;
  if (name[0] == 'k') return 1;
  if (name[0] != 'c' || size != 10) return 0;
  for (u32 i = 0; i < 10; i++) folded[i] = lower(value[i]);
  return IS("keep-alive", folded, 10);
}

/* A bit for each name of which the parser refuses a second one in a request; 0 for others. */
static u32 single(const u8 *k, u32 n) {
  switch (n) {
  case 4: return IS("host", k, n) ? 1 : IS("etag", k, n) ? 2 : 0;
  case 6: return IS("server", k, n) ? 4 : 0;
  case 10: return IS("user-agent", k, n) ? 8 : 0;
  case 12: return IS("content-type", k, n) ? 16 : IS("max-forwards", k, n) ? 32 : 0;
  case 13: return IS("content-range", k, n) ? 64 : 0;
  case 16: return IS("content-location", k, n) ? 128 : 0;
  default: return 0;
  }
}

/* `size` bytes from scratch into the arena, behind an array with room for the entries of most heads of `head` bytes; their
 * address. More entries have room as well, behind them. */
static u32 place_plain(map *M, u32 from, u32 size, u32 head) {
  u32 capacity = SPARE_ENTRIES + 4 + head / 32, most = (capacity + 4 * (MOST_PLAIN_FIELDS + SPARE_ENTRIES)) * sizeof(entry);
  u32 at = (map_reserve(3 + most + size) + 3) & ~3u;
  *M = (map){at, 0, capacity, 0}, at += capacity * sizeof(entry);
  copy(at, from, size), stream.head.top = at + size;
  return at;
}

/* The fields into the map, at most `most` of them; the last line is empty and ends at `end`. 0: not plain. */
static int plain_fields(plain *h, map *M, head_notes *notes, u8 *p, u8 *end, u32 most, int request) {
  for (; end - p > 2; p += 2, h->fields++) {
    u8 *name = p, *value, c;
    for (; p < end && (c = token[*p]); p++) *p = c;
    u32 n = (u32)(p - name), size;
    if (!n || end - p < 4 || p[0] != ':' || p[1] != ' ' || is_blank(p[2]) || h->fields == most) return 0;
    value = p + 2;
    if (!(p = line_end(value, end)) || p == value || is_blank(p[-1])) return 0;
    size = (u32)(p - value);
    if (is_hop(name, n) && !is_keep_alive(name, n, value, size)) return 0;
    if (IS("content-length", name, n) && (h->lengths++ || !plain_number(value, size, &h->length))) return 0;
    u32 bit = single(name, n);
    if (h->names & bit) h->twice = 1;
    h->names |= bit;
    if (IS("x-request-id", name, n)) h->ids++;
    if (take_field(M, notes, (text){ADDRESS(name), n}, (text){ADDRESS(value), size}, request)) return 0;
  }
  return end - p == 2 && p[0] == '\r' && p[1] == '\n' && !notes->said;
}

/* Scratch holds a head with its empty line, the peer and a request id. Where in it the Host's value begins, shifted left by 16,
 * and its length, with HAS_ID; 0: not plain. Starts a new stream. */
EXPORT(load_plain_request) u32 load_plain_request(u32 size, u32 peer, u32 id, u32 options) {
  const head_options *o = AT(head_options, options);
  map *M = map_of(REQUEST_HEADERS);
  scratch_reset();
  u32 from = scratch(size + peer + id);
  u8 *base = AT(u8, from), *p = base + 4, *end = base + size;
  if (size < 18 || size > LARGEST_PLAIN || !IS("GET /", base, 5)) return 0;
  while (p < end && *p > 32 && *p < 127) p++;
  if (end - p < 13 || !IS(" HTTP/1.1\r\n", p, 11)) return 0;
  u32 target = (u32)(p - base) - 4, fields = target + 15, most = o->most_fields < MOST_PLAIN_FIELDS ? o->most_fields : MOST_PLAIN_FIELDS;
  reset_stream();
  u32 at = place_plain(M, from, size + peer + id, size);
  plain h = {0};
  head_notes notes = {0};
  begin_request(M, &notes, o);
  if (!plain_fields(&h, M, &notes, AT(u8, at + fields), AT(u8, at + size), most, 1) || h.lengths || h.twice || h.ids > 1) return 0;
  text method = {at, 3}, path = {at + 4, target}, from_peer = {at + size, peer}, own_id = {at + size + peer, id};
  if (finish_request(M, &notes, o, method, path, from_peer, own_id) != HEAD_FINE) return 0;
  int kept_id = h.ids && o->request_id == REQUEST_ID_KEEP;
  stream.head.request_lines = (range){at + fields, at + size};
  return (notes.host.at - at) << 16 | notes.host.len | (kept_id ? HAS_ID : 0);
}

/* Scratch holds a head with its empty line, `rest` bytes have come behind it. The status, and in call.a[0] how many bytes of the
 * body are still to come; 0: not plain. */
EXPORT(load_plain_response) u32 load_plain_response(u32 size, u32 rest, u32 options) {
  const head_options *o = AT(head_options, options);
  map *M = map_of(RESPONSE_HEADERS);
  scratch_reset();
  u32 from = scratch(size);
  u8 *base = AT(u8, from), *end = base + size, *p;
  if (size < 17 || size > LARGEST_PLAIN || !IS("HTTP/1.1 ", base, 9) || base[12] != ' ') return 0;
  int status = plain_status(base + 9);
  if (!status || !(p = line_end(base + 13, end))) return 0;
  u32 at = place_plain(M, from, size, size), first = M->entries, fields = at + (u32)(p - base) + 2;
  plain h = {0};
  head_notes notes = {.trailers = o->trailers};
  map_point(M, ADDRESS(":status"), 7, at + 9, 3);
  if (!plain_fields(&h, M, &notes, AT(u8, fields), AT(u8, at + size), MOST_PLAIN_FIELDS, 0) || h.lengths != 1 ||
      h.length < rest) {
    *M = (map){0, 0, 0, 0}, stream.head.top = first; /* as if nothing had been read */
    return 0;
  }
  finish_response(M, &notes, o);
  stream.head.response_lines = (range){fields, at + size};
  call.a[0] = h.length - rest;
  return (u32)status;
}

/* Scratch holds the head of a call's answer with its empty line, `rest` bytes have come behind it. The status, shifted left by
 * 16, and how many fields the filter will find in the map of the answer, `:status` included; 0: not plain, the map is undefined.
 * Fields are as the parser gives them: a second one is not joined to the first, only keep-alive is left out. */
enum { MOST_ANSWER_FIELDS = 100 }; /* Envoy's limit */

EXPORT(load_plain_answer) u32 load_plain_answer(u32 size, u32 rest) {
  scratch_reset();
  u8 *p = AT(u8, scratch(size)), *end, *to = answer_begin(CALL_HEADERS);
  u32 fields = 0, kept = 1, lengths = 0, length = 0;
  if (size < 17 || size > LARGEST_PLAIN || !IS("HTTP/1.1 ", p, 9) || p[12] != ' ') return 0;
  int status = plain_status(p + 9);
  if (!status) return 0;
  copy(ADDRESS(to), ADDRESS(p), size); /* the scratch is gone when the filter asks for them */
  p = to, end = to + size;
  answer_point(CALL_HEADERS, ADDRESS(":status"), 7, ADDRESS(p + 9), 3);
  p += 13, p += clean_length(p, (u32)(end - p));
  while (end - p > 4) {
    if (p[0] != '\r' || p[1] != '\n' || fields++ == MOST_ANSWER_FIELDS) return 0;
    u8 *name = p += 2, *value;
    while (p < end && *p != ':') p++;
    u32 n = (u32)(p - name), taken;
    if (end - p < 6 || !fold_name(name, n) || p[1] != ' ' || is_blank(p[2])) return 0;
    value = p += 2, p += taken = clean_length(value, (u32)(end - value));
    if (!taken || is_blank(p[-1])) return 0;
    if (is_hop(name, n) && !is_keep_alive(name, n, value, taken)) return 0;
    if (IS("content-length", name, n) && (lengths++ || !plain_number(value, taken, &length))) return 0;
    if (!IS("keep-alive", name, n)) answer_point(CALL_HEADERS, ADDRESS(name), n, ADDRESS(value), taken), kept++;
  }
  if (end - p != 4 || !IS("\r\n\r\n", p, 4) || lengths != 1 || length != rest) return 0;
  return (u32)status << 16 | kept;
}

/* ---- Emitting ---- */
static u8 *out, *out_end;

enum { WORD = 8, LONG_COPY = 64 };

static void put(u32 from, u32 n) {
  if ((u32)(out_end - out) < n) __builtin_trap(); /* sized beforehand, with a word to spare */
  if (n < LONG_COPY)
    for (u32 i = 0; i < n; i += WORD) __builtin_memcpy(out + i, AT(u8, from + i), WORD);
  else
    copy(ADDRESS(out), from, n);
  out += n;
}
#define PUT(text) put(ADDRESS(text), sizeof(text) - 1)

static void put_number(u64 n) {
  u8 digits[20];
  u32 i = 20;
  do digits[--i] = (u8)('0' + n % 10), n /= 10;
  while (n);
  put(ADDRESS(digits + i), 20 - i);
}

/* Every content-length of the map must say the same number. */
static int content_length(const map *M, u64 *length) { /* 1 found, 0 none, -1 nonsense */
  int found = 0;
  for (int i = -1; (i = map_find(M, (const u8 *)"content-length", 14, (u32)(i + 1))) >= 0;) {
    entry e = AT(entry, M->entries)[i];
    u64 n = 0;
    if (!e.value_len || e.value_len > MOST_DIGITS) return -1;
    for (u32 j = 0; j < e.value_len; j++) {
      u8 c = AT(u8, e.value)[j];
      if (c < '0' || c > '9') return -1;
      n = n * 10 + (c - '0');
    }
    if (found && n != *length) return -1;
    found = 1, *length = n;
  }
  return found;
}

enum { KEEP_UPGRADE = 1, KEEP_TE = 2, KEEP_TRAILER = 4 };
static int kept_te;

static int keeps(entry e, int keep) { /* of what is hop-by-hop */
  const u8 *k = AT(u8, e.key);
  if (IS("upgrade", k, e.key_len)) return keep & KEEP_UPGRADE;
  if (IS("trailer", k, e.key_len)) return keep & KEEP_TRAILER;
  if (!IS("te", k, e.key_len) || !(keep & KEEP_TE) || kept_te || !IS("trailers", AT(u8, e.value), e.value_len)) return 0;
  return kept_te = 1;
}

static int is_unsent(const u8 *k, u32 n) { /* framing and authority are put elsewhere, and `expect` nobody here would wait for */
  return IS("content-length", k, n) || IS("host", k, n) || IS("expect", k, n); /* RFC 9110 10.1.1 */
}

/* All that is a field of its own and end-to-end, and what `keep` says. A field that still lies in `lines` is sound, since only
 * what is gets there, and its text stands in its line; lines that follow one another are put at once. */
static int put_fields(const map *M, range lines, int keep) {
  const entry *E = AT(entry, M->entries);
  u32 from = 0, to = 0;
  kept_te = 0;
  for (u32 i = 0; i < M->n; i++) {
    entry e = E[i];
    const u8 *k = AT(u8, e.key);
    if (e.key_len && k[0] == ':') continue;
    int whole = e.key - lines.from < lines.to - lines.from && e.value - e.key == e.key_len + 2;
    if (!whole && !name_is_token(k, e.key_len)) return HEAD_NAME;
    if (!whole && !value_is_clean(AT(u8, e.value), e.value_len)) return HEAD_VALUE;
    if ((is_hop(k, e.key_len) && !keeps(e, keep)) || is_unsent(k, e.key_len)) continue;
    if (whole && e.key == to) {
      to = e.value + e.value_len + 2;
      continue;
    }
    put(from, to - from), from = to = 0;
    if (whole) from = e.key, to = e.value + e.value_len + 2;
    else put(e.key, e.key_len), PUT(": "), put(e.value, e.value_len), PUT("\r\n");
  }
  put(from, to - from);
  return HEAD_FINE;
}

static int pseudo(const map *M, const char *name, u32 n, entry *e) {
  int i = map_find(M, (const u8 *)name, n, 0);
  if (i < 0 || map_find(M, (const u8 *)name, n, (u32)i + 1) >= 0) return 0;
  *e = AT(entry, M->entries)[i];
  return 1;
}

enum { END_STREAM = 1, UPGRADE = 2, HEAD_REQUEST = 4, HTTP_10 = 8, CLOSE = 16, PASS_TRAILERS = 32 };
enum { NO_BODY, SIZED, CHUNKED, UNTIL_CLOSE };
/* The head lies at call.a[0], call.a[1] bytes; call.a[2] says the framing, call.a[4..5] the length, call.a[6] the status. */
static void start_head(const map *M) {
  u32 size = M->bytes + 4 * M->n + 512;
  scratch_reset();
  out = AT(u8, scratch(size + WORD)), out_end = out + size;
  call.a[0] = ADDRESS(out);
}
static u32 finish_head(u32 framing, u64 length) {
  PUT("\r\n");
  call.a[1] = ADDRESS(out) - call.a[0], call.a[2] = framing, call.a[4] = (u32)length, call.a[5] = (u32)(length >> 32);
  return HEAD_FINE;
}

static int is_bodiless(const u8 *method, u32 n) {
  return IS("GET", method, n) || IS("HEAD", method, n) || IS("DELETE", method, n) || IS("TRACE", method, n);
}

EXPORT(emit_request) u32 emit_request(u32 flags) {
  const map *M = map_of(REQUEST_HEADERS);
  entry method, path, authority;
  u64 length = 0;
  if (!pseudo(M, ":method", 7, &method) || !name_is_token(AT(u8, method.value), method.value_len)) return HEAD_METHOD;
  if (!pseudo(M, ":path", 5, &path) || !target_is_sound(AT(u8, path.value), path.value_len)) return HEAD_PATH;
  if (IS("CONNECT", AT(u8, method.value), method.value_len)) return HEAD_METHOD;
  if (path.value_len == 1 && *AT(u8, path.value) == '*' && !IS("OPTIONS", AT(u8, method.value), method.value_len)) return HEAD_PATH;
  if (!pseudo(M, ":authority", 10, &authority) || !authority_is_sound(AT(u8, authority.value), authority.value_len))
    return HEAD_AUTHORITY;
  int sized = content_length(M, &length);
  if (sized < 0) return HEAD_LENGTH;
  start_head(M);
  put(method.value, method.value_len), PUT(" "), put(path.value, path.value_len), PUT(" HTTP/1.1\r\nhost: ");
  put(authority.value, authority.value_len), PUT("\r\n");
  int keep = flags & UPGRADE ? KEEP_UPGRADE : !(flags & PASS_TRAILERS) ? 0 : flags & END_STREAM || sized ? KEEP_TE : KEEP_TE | KEEP_TRAILER;
  int wrong = put_fields(M, stream.head.request_lines, keep);
  if (wrong) return (u32)wrong;
  if (flags & UPGRADE) PUT("connection: upgrade\r\n");
  else if (kept_te) PUT("connection: te\r\n"); /* RFC 9110 10.1.4 */
  call.a[7] = method.value, call.a[8] = method.value_len;
  if (flags & END_STREAM) { /* a body that did not come is a length of 0, where one was said or is expected (RFC 9110 8.6) */
    if (sized || !is_bodiless(AT(u8, method.value), method.value_len)) PUT("content-length: 0\r\n");
    return finish_head(NO_BODY, 0);
  }
  if (sized) {
    PUT("content-length: "), put_number(length), PUT("\r\n");
    return finish_head(SIZED, length);
  }
  PUT("transfer-encoding: chunked\r\n");
  return finish_head(CHUNKED, 0);
}

typedef struct { u32 status, size; const char *reason; } reason;
#define REASON(status, words) {status, sizeof(words) - 1, words}
static const reason reasons[] = {
    REASON(100, "Continue"), REASON(101, "Switching Protocols"), REASON(102, "Processing"), REASON(103, "Early Hints"),
    REASON(200, "OK"), REASON(201, "Created"), REASON(202, "Accepted"), REASON(203, "Non-Authoritative Information"),
    REASON(204, "No Content"), REASON(205, "Reset Content"), REASON(206, "Partial Content"), REASON(207, "Multi-Status"),
    REASON(208, "Already Reported"), REASON(226, "IM Used"), REASON(300, "Multiple Choices"), REASON(301, "Moved Permanently"),
    REASON(302, "Found"), REASON(303, "See Other"), REASON(304, "Not Modified"), REASON(305, "Use Proxy"),
    REASON(307, "Temporary Redirect"), REASON(308, "Permanent Redirect"), REASON(400, "Bad Request"), REASON(401, "Unauthorized"),
    REASON(402, "Payment Required"), REASON(403, "Forbidden"), REASON(404, "Not Found"), REASON(405, "Method Not Allowed"),
    REASON(406, "Not Acceptable"), REASON(407, "Proxy Authentication Required"), REASON(408, "Request Timeout"),
    REASON(409, "Conflict"), REASON(410, "Gone"), REASON(411, "Length Required"), REASON(412, "Precondition Failed"),
    REASON(413, "Payload Too Large"), REASON(414, "URI Too Long"), REASON(415, "Unsupported Media Type"),
    REASON(416, "Range Not Satisfiable"), REASON(417, "Expectation Failed"), REASON(421, "Misdirected Request"),
    REASON(422, "Unprocessable Entity"), REASON(423, "Locked"), REASON(424, "Failed Dependency"), REASON(425, "Too Early"),
    REASON(426, "Upgrade Required"), REASON(428, "Precondition Required"), REASON(429, "Too Many Requests"),
    REASON(431, "Request Header Fields Too Large"), REASON(451, "Unavailable For Legal Reasons"),
    REASON(500, "Internal Server Error"), REASON(501, "Not Implemented"), REASON(502, "Bad Gateway"),
    REASON(503, "Service Unavailable"), REASON(504, "Gateway Timeout"), REASON(505, "HTTP Version Not Supported"),
    REASON(506, "Variant Also Negotiates"), REASON(507, "Insufficient Storage"), REASON(508, "Loop Detected"),
    REASON(510, "Not Extended"), REASON(511, "Network Authentication Required"),
};

/* The three digits of :status, or 0. */
static u32 status_of(const map *M) {
  entry e;
  if (!pseudo(M, ":status", 7, &e) || e.value_len != 3) return 0;
  u32 status = 0;
  for (u32 i = 0; i < 3; i++) {
    u8 c = AT(u8, e.value)[i];
    if (c < '0' || c > '9') return 0;
    status = status * 10 + (c - '0');
  }
  return status;
}

u8 date[29];

EXPORT(emit_response) u32 emit_response(u32 flags) {
  const map *M = map_of(RESPONSE_HEADERS);
  u32 status = status_of(M), known = 0;
  u64 length = 0;
  if (status < 200 && !(status == 101 && flags & UPGRADE)) return HEAD_STATUS; /* an interim one would be no answer */
  int sized = content_length(M, &length);
  if (sized < 0) return HEAD_LENGTH;
  start_head(M);
  PUT("HTTP/1.1 "), put_number(status), PUT(" ");
  for (u32 i = 0; i < sizeof reasons / sizeof *reasons; i++)
    if (reasons[i].status == status) {
      put(ADDRESS(reasons[i].reason), reasons[i].size);
      known = 1;
      break;
    }
  if (!known) PUT("Unknown");
  PUT("\r\n");
  int chunked = !(flags & (HEAD_REQUEST | END_STREAM | HTTP_10)) && !sized && status != 204 && status != 304;
  int wrong = put_fields(M, stream.head.response_lines, status == 101 ? KEEP_UPGRADE : flags & PASS_TRAILERS && chunked ? KEEP_TRAILER : 0);
  if (wrong) return (u32)wrong;
  call.a[6] = status;
  if (status == 101) {
    PUT("connection: upgrade\r\n");
    return finish_head(NO_BODY, 0);
  }
  if (map_find(M, (const u8 *)"date", 4, 0) < 0) PUT("date: "), put(ADDRESS(date), sizeof date), PUT("\r\n");
  u32 framing = NO_BODY, close = flags & CLOSE;
  if (flags & HEAD_REQUEST || status == 304) { /* the length of the body that is not sent (RFC 9110 8.6) */
    if (sized) PUT("content-length: "), put_number(length), PUT("\r\n");
  } else if (status == 204) {
  } else if (flags & END_STREAM) {
    PUT("content-length: 0\r\n");
  } else if (sized) {
    framing = SIZED;
    PUT("content-length: "), put_number(length), PUT("\r\n");
  } else if (flags & HTTP_10) {
    framing = UNTIL_CLOSE, close = CLOSE;
  } else {
    framing = CHUNKED;
    PUT("transfer-encoding: chunked\r\n");
  }
  if (close) PUT("connection: close\r\n");
  else if (flags & HTTP_10) PUT("connection: keep-alive\r\n");
  call.a[3] = close ? 1 : 0;
  return finish_head(framing, length);
}

/* ---- For Python ---- */
EXPORT(map_set_pairs) u32 map_set_pairs(u32 m, u32 size) {
  scratch_reset();
  u32 block = scratch(size);
  map_deserialize(m, block, size);
  return OK;
}
EXPORT(new_stream) void new_stream(void) { scratch_reset(), reset_stream(); }
/* Room for `size` bytes of scratch that Python is about to write; its address. */
EXPORT(room) u32 room(u32 size) {
  scratch_reset();
  u32 at = scratch(size);
  scratch_reset();
  return at;
}
