// What a filter keeps per context id: a hash table of pointers. Ids of roots and streams share one numbering, counted
// upwards by the host, so their low bits spread well as they are.
#ifndef FILTER_CONTEXTS_H
#define FILTER_CONTEXTS_H

#include "proxy_wasm.h"

struct contexts {
  struct entry {
    uint32_t id;  // 0: empty
    void *value;
  } *entries;
  size_t size, used;  // size is a power of two, or 0; at most half of it is used
};

static inline struct entry *context_slot(struct contexts *map, uint32_t id) {
  size_t index = id & (map->size - 1);
  while (map->entries[index].id && map->entries[index].id != id) index = (index + 1) & (map->size - 1);
  return &map->entries[index];
}

// The value of an id; NULL if it has none.
static inline void *context_get(struct contexts *map, uint32_t id) {
  return map->size ? context_slot(map, id)->value : NULL;
}

// Sets the value of an id that is not 0 and has none.
static inline void context_put(struct contexts *map, uint32_t id, void *value) {
  if (map->used * 2 >= map->size) {
    struct contexts old = *map;
    map->size = old.size ? old.size * 2 : 64;
    map->entries = (struct entry *)allocate(map->size * sizeof *map->entries);
    memset(map->entries, 0, map->size * sizeof *map->entries);
    for (size_t index = 0; index < old.size; index++)
      if (old.entries[index].id) *context_slot(map, old.entries[index].id) = old.entries[index];
    free(old.entries);
  }
  *context_slot(map, id) = (struct entry){id, value};
  map->used++;
}

// Takes the value of an id out; NULL if it has none. Those behind it move up, so that no search ends too early.
static inline void *context_take(struct contexts *map, uint32_t id) {
  if (!map->size) return NULL;
  struct entry *slot = context_slot(map, id);
  void *value = slot->value;
  if (!slot->id) return NULL;
  *slot = (struct entry){0, NULL};
  map->used--;
  for (size_t index = ((size_t)(slot - map->entries) + 1) & (map->size - 1); map->entries[index].id;
       index = (index + 1) & (map->size - 1)) {
    struct entry moved = map->entries[index];
    map->entries[index] = (struct entry){0, NULL};
    *context_slot(map, moved.id) = moved;
  }
  return value;
}

#endif
