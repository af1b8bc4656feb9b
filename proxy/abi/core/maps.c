/* Header and trailer maps: ordered, with duplicates, names in lower case. */
#include "core.h"

/* The answer to a call, or what gRPC received: no stream's, so not in a snapshot, and read-only for filters. */
enum { ANSWER_BYTES = 128 << 10, ANSWER_PAIRS = 1024 };
static map answers[MAPS - STREAM_MAPS];
static struct { entry entries[ANSWER_PAIRS]; u8 text[ANSWER_BYTES]; } answer_room[MAPS - STREAM_MAPS];

map *map_of(u32 m) { return m < STREAM_MAPS ? &stream.head.maps[m] : &answers[m - STREAM_MAPS]; }

/* Map 4 to 7 anew, and where there is room for its texts. */
u8 *answer_begin(u32 m) {
  answers[m - STREAM_MAPS] = (map){ADDRESS(answer_room[m - STREAM_MAPS].entries), 0, ANSWER_PAIRS, 0};
  return answer_room[m - STREAM_MAPS].text;
}
void answer_point(u32 m, u32 key, u32 key_len, u32 value, u32 value_len) {
  map *M = &answers[m - STREAM_MAPS];
  AT(entry, M->entries)[M->n++] = (entry){key, key_len, value, value_len}, M->bytes += key_len + value_len;
}

/* For Python: scratch holds a pair block, names in lower case, that becomes map `m`; 1 if it does not fit. */
EXPORT(set_answer) u32 set_answer(u32 m, u32 size) {
  scratch_reset();
  u32 block = scratch_top, n = size ? *AT(u32, block) : 0, at = ADDRESS(answer_begin(m));
  if (!n) return 0;
  if (n > ANSWER_PAIRS || size < 4 + 10 * n || size > ANSWER_BYTES) return 1;
  u32 *lengths = AT(u32, block + 4);
  copy(at, block, size), at += 4 + 8 * n;
  for (u32 j = 0; j < n; j++) {
    u32 value = at + lengths[2 * j] + 1;
    answer_point(m, at, lengths[2 * j], value, lengths[2 * j + 1]);
    at = value + lengths[2 * j + 1] + 1;
  }
  return 0;
}

/* A move that has begun is finished even if fuel runs out on the way: what goes to the arena waits complete in scratch, and
 * doing it twice is doing it once. */
static struct { u32 from, size, entries[STREAM_MAPS]; } move;

static void finish_move(void) {
  u32 arena = ADDRESS(stream.arena);
  copy(arena, move.from, move.size);
  for (u32 m = 0; m < STREAM_MAPS; m++) map_of(m)->entries = arena + move.entries[m];
  stream.head.request_lines = stream.head.response_lines = (range){0, 0};
  stream.head.top = stream.head.floor = arena + move.size, stream.head.torn = 0;
}

/* For Python, after a fault: nothing has used scratch since. A stop while entries shift leaves one of them twice, or the last
 * one out: an edit that was half done, in a map that is sound but for the sum of its bytes. */
EXPORT(mend) void mend(void) {
  if (stream.head.torn) finish_move();
  for (u32 m = 0; m < STREAM_MAPS; m++) {
    map *M = map_of(m);
    M->bytes = 0;
    for (u32 i = 0; i < M->n; i++) M->bytes += AT(entry, M->entries)[i].key_len + AT(entry, M->entries)[i].value_len;
  }
}

/* Live bytes to the front of the arena: edits leave dead ones behind. */
static void compact(void) {
  u32 total = 0, at = 0, arena = ADDRESS(stream.arena);
  for (u32 m = 0; m < STREAM_MAPS; m++) total += map_of(m)->bytes + map_of(m)->capacity * sizeof(entry) + 4;
  u32 saved = scratch_top, base = scratch(total);
  for (u32 m = 0; m < STREAM_MAPS; m++) {
    map *M = map_of(m);
    at = (at + 3) & ~3u, move.entries[m] = at;
    entry *from = AT(entry, M->entries), *to = AT(entry, base + at);
    at += M->capacity * sizeof(entry);
    for (u32 i = 0; i < M->n; i++) {
      entry e = from[i];
      copy(base + at, e.key, e.key_len), to[i].key = arena + at, to[i].key_len = e.key_len, at += e.key_len;
      copy(base + at, e.value, e.value_len), to[i].value = arena + at, to[i].value_len = e.value_len, at += e.value_len;
    }
  }
  move.from = base, move.size = at, stream.head.torn = 1;
  finish_move();
  scratch_top = saved;
}

void tidy(void) {
  if (stream.head.top - stream.head.floor > SLACK) compact();
}

/* After this, `size` bytes can be taken without anything moving. A stream that outgrows the arena ends the call: the limits
 * of a VM (max_header_bytes) are far below it. */
static void ensure(u32 size) {
  u32 end = ADDRESS(stream.arena) + ARENA;
  if (size <= ARENA && stream.head.top <= end - size) return;
  compact();
  if (size > ARENA || stream.head.top > end - size) __builtin_trap();
}

static u32 take(u32 from, u32 size) {
  u32 at = stream.head.top;
  copy(at, from, size), stream.head.top = at + size;
  return at;
}

u32 map_reserve(u32 size) {
  ensure(size);
  u32 at = stream.head.top;
  stream.head.top = at + size;
  return at;
}

int map_find(const map *M, const u8 *key, u32 key_len, u32 from) {
  const entry *E = AT(entry, M->entries);
  u32 i = from, n = M->n;
  while (i < n) {
    const entry *e = E + i;
    if (i + 4 <= n && e[0].key_len != key_len && e[1].key_len != key_len && e[2].key_len != key_len && e[3].key_len != key_len) {
      i += 4; /* most names are of other lengths */
      continue;
    }
    if (e->key_len == key_len && equal(AT(u8, e->key), key, key_len)) return (int)i;
    i++;
  }
  return -1;
}

enum { FIRST_CAPACITY = 24 };

static u32 growth(const map *M) { /* bytes that one more entry may take beside its text */
  return M->n < M->capacity ? 0 : (M->capacity ? 2 * M->capacity : FIRST_CAPACITY) * sizeof(entry) + 4;
}

/* Pseudo headers stay in front of the others, as in Envoy's header map. */
void map_point(map *M, u32 key, u32 key_len, u32 value, u32 value_len) {
  if (M->n == M->capacity) { /* the callers have ensured the room */
    u32 capacity = M->capacity ? 2 * M->capacity : FIRST_CAPACITY, at = (stream.head.top + 3) & ~3u;
    stream.head.top = at + capacity * sizeof(entry);
    copy(at, M->entries, M->n * sizeof(entry));
    M->entries = at, M->capacity = capacity;
  }
  entry *E = AT(entry, M->entries);
  u32 i = M->n;
  if (key_len && *AT(u8, key) == ':') {
    for (i = 0; i < M->n && E[i].key_len && *AT(u8, E[i].key) == ':';) i++;
    copy(ADDRESS(E + i + 1), ADDRESS(E + i), (M->n - i) * sizeof(entry));
  }
  E[i] = (entry){key, key_len, value, value_len}, M->n++, M->bytes += key_len + value_len;
}

void map_add(map *M, u32 key, u32 key_len, u32 value, u32 value_len) {
  ensure(key_len + value_len + growth(M));
  u32 kept = take(key, key_len);
  fold(AT(u8, kept), key_len);
  map_point(M, kept, key_len, take(value, value_len), value_len);
}

void map_join_value(map *M, u32 i, u32 value, u32 value_len) {
  u32 old_len = AT(entry, M->entries)[i].value_len, comma = old_len > 0, size = old_len + comma + value_len;
  if (!value_len) return; /* nothing is joined to nothing (Envoy) */
  ensure(size);
  entry *e = AT(entry, M->entries) + i;
  u32 at = take(e->value, old_len);
  if (comma) *AT(u8, stream.head.top++) = ',';
  take(value, value_len);
  e->value = at, e->value_len = size, M->bytes += comma + value_len;
}

void map_remove_at(map *M, u32 i) {
  entry *E = AT(entry, M->entries);
  M->bytes -= E[i].key_len + E[i].value_len;
  copy(ADDRESS(E + i), ADDRESS(E + i + 1), (M->n - i - 1) * sizeof(entry)), M->n--;
}

void map_clear(map *M) { M->n = 0, M->bytes = 0; }

/* u32 count; count times (u32 key length, u32 value length); then key NUL value NUL, in order. */
u32 map_serialize(const map *M, u32 *size) {
  *size = 4 + 10 * M->n + M->bytes;
  u32 block = scratch(*size), *lengths = AT(u32, block), at = block + 4 + 8 * M->n;
  *lengths++ = M->n;
  for (u32 i = 0; i < M->n; i++) {
    entry e = AT(entry, M->entries)[i];
    *lengths++ = e.key_len, *lengths++ = e.value_len;
    copy(at, e.key, e.key_len), at += e.key_len, *AT(u8, at++) = 0;
    copy(at, e.value, e.value_len), at += e.value_len, *AT(u8, at++) = 0;
  }
  return block;
}

/* proxy-wasm-cpp-host's limits: 1 MiB and 1,024 pairs; short, over-long or unterminated blocks decode to nothing. A second pair
 * of one of Envoy's inline headers joins the first, as if it were added. */
void map_deserialize(u32 m, u32 from, u32 size) {
  map *M = map_of(m);
  map_clear(M);
  if (size < 4 || size > PAIRS_BYTES) return;
  u32 n = *AT(u32, from), *lengths = AT(u32, from + 4);
  if (n > PAIRS_COUNT || 4 + (u64)8 * n > size) return;
  u64 at = 4 + 8 * n;
  for (u32 i = 0; i < n; i++) {
    u64 key = at, value = key + lengths[2 * i] + 1, next = value + lengths[2 * i + 1] + 1;
    if (next > size || *AT(u8, from + (u32)value - 1) || *AT(u8, from + (u32)next - 1)) return map_clear(M);
    u32 k = from + (u32)key, k_len = lengths[2 * i];
    for (u8 *p = AT(u8, k), *end = p + k_len; p < end; p++) *p = lower(*p);
    if (m == REQUEST_HEADERS && IS("host", k, k_len)) k = ADDRESS(":authority"), k_len = 10;
    int first = is_inline(m, AT(u8, k), k_len) ? map_find(M, AT(u8, k), k_len, 0) : -1;
    if (first < 0) map_add(M, k, k_len, from + (u32)value, lengths[2 * i + 1]);
    else map_join_value(M, (u32)first, from + (u32)value, lengths[2 * i + 1]);
    at = next;
  }
  if (at != size) map_clear(M);
}
