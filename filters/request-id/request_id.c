// request-id: one id for a request on its way through all services and logs. Keeps the client's if it may and the id is
// well formed, makes a UUID otherwise, and tells both the service and the client.
#include "../c/contexts.h"
#include "../c/json.h"
#include "../c/proxy_wasm.h"

enum { LONGEST_ID = 256, UUID_LENGTH = 36 };

struct root {
  struct text header;
  bool trust, uuid_only, version_7, response;
  size_t longest;
};

struct stream {
  const struct root *root;
  size_t length;
  char id[];
};

static struct contexts roots, streams, root_of_stream;

// ---- configuration ----

static void refuse(struct text path, struct text reason) {
  LOG(LOG_ERROR, LITERAL("request-id: configuration refused: "), path, LITERAL(": "), reason);
}

static bool is_token(struct text header) {
  static const char *framing[] = {"connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade"};
  for (size_t index = 0; index < sizeof framing / sizeof *framing; index++)
    if (equal(header, (struct text){framing[index], strlen(framing[index])})) return false;
  return true;
}

static bool read_configuration(struct root *root) {
  *root = (struct root){LITERAL("x-request-id"), true, false, true, true, 128};
  struct text source = plugin_configuration();
  if (source.length == 0) return true;
  struct json json = {.text = source, .fail = refuse};
  struct text key;
  while (json_member(&json, &key)) {
    if (equal(key, LITERAL("header"))) {
      root->header = json_header_name(&json, key);
      if (!is_token(root->header)) json_refuse(&json, key, LITERAL("belongs to the connection, the gateway writes it"));
    } else if (equal(key, LITERAL("incoming"))) {
      static const struct text names[] = {LITERAL("keep"), LITERAL("keep_uuid"), LITERAL("replace")};
      size_t choice = json_choice(&json, key, names, 3, LITERAL("must be one of keep, keep_uuid, replace"));
      root->trust = choice != 2;
      root->uuid_only = choice == 1;
    } else if (equal(key, LITERAL("make"))) {
      static const struct text names[] = {LITERAL("uuid7"), LITERAL("uuid4")};
      root->version_7 = json_choice(&json, key, names, 2, LITERAL("must be one of uuid7, uuid4")) == 0;
    } else if (equal(key, LITERAL("response"))) {
      root->response = json_bool(&json, key);
    } else if (equal(key, LITERAL("longest"))) {
      root->longest = (size_t)json_integer(&json, key, 8, LONGEST_ID, LITERAL("must be a whole number from 8 to 256"));
    } else {
      json_unknown(&json, key);
    }
  }
  release(source);
  return !json.failed;
}

// ---- ids ----

static bool is_hex(char c) { return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f'); }

// 8-4-4-4-12 hex digits, of any version.
static bool is_uuid(struct text id) {
  if (id.length != UUID_LENGTH) return false;
  for (size_t index = 0; index < UUID_LENGTH; index++) {
    bool dash = index == 8 || index == 13 || index == 18 || index == 23;
    if (dash ? id.data[index] != '-' : !is_hex(id.data[index])) return false;
  }
  return true;
}

// Characters that mean nothing to a log, a shell, HTML or SQL: an id goes to all sorts of places.
static bool is_well_formed(const struct root *root, struct text id) {
  if (root->uuid_only) return is_uuid(id);
  if (id.length == 0 || id.length > root->longest) return false;
  for (size_t index = 0; index < id.length; index++) {
    char c = id.data[index];
    bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
    if (!plain && (c <= 0 || !strchr("-_.:/+=@", c))) return false;
  }
  return true;
}

// RFC 9562: version 4 is random; version 7 begins with the time, here in milliseconds and twelve bits more (section
// 6.2, method 3), so that ids sort as they were made.
static void make_uuid(bool version_7, char out[UUID_LENGTH]) {
  unsigned char bytes[16];
  random_bytes(bytes, sizeof bytes);
  if (version_7) {
    uint64_t time = now(), milliseconds = time / 1000000;
    uint32_t fraction = (uint32_t)((time % 1000000) * 4096 / 1000000);
    for (int index = 0; index < 6; index++) bytes[index] = (unsigned char)(milliseconds >> (40 - 8 * index));
    bytes[6] = (unsigned char)(fraction >> 8);
    bytes[7] = (unsigned char)fraction;
  }
  bytes[6] = (unsigned char)((bytes[6] & 0x0f) | (version_7 ? 0x70 : 0x40));
  bytes[8] = (unsigned char)((bytes[8] & 0x3f) | 0x80);
  for (int index = 0; index < 16; index++) {
    if (index == 4 || index == 6 || index == 8 || index == 10) *out++ = '-';
    *out++ = "0123456789abcdef"[bytes[index] >> 4];
    *out++ = "0123456789abcdef"[bytes[index] & 15];
  }
}

static struct stream *new_stream(const struct root *root, size_t length) {
  struct stream *stream = (struct stream *)allocate(sizeof *stream + length);
  stream->root = root;
  stream->length = length;
  return stream;
}

// The id of this request: the only field of that name if it may stay, else a new one. Other spellings of the name go,
// because the service might read them as the same.
static struct stream *choose(const struct root *root) {
  struct fields fields = all_headers(REQUEST_HEADERS);
  struct text found = {NULL, 0};
  size_t count = 0;
  while (next_field(&fields)) {
    if (!is_spelling(fields.name, root->header)) continue;
    if (!equal(fields.name, root->header)) {
      remove_header(REQUEST_HEADERS, fields.name);
      continue;
    }
    found = fields.value;
    count++;
  }
  struct stream *stream;
  if (root->trust && count == 1 && is_well_formed(root, found)) {
    stream = new_stream(root, found.length);
    memcpy(stream->id, found.data, found.length);
  } else {
    stream = new_stream(root, UUID_LENGTH);
    make_uuid(root->version_7, stream->id);
    set_header(REQUEST_HEADERS, root->header, (struct text){stream->id, stream->length});
  }
  release(fields.block);
  return stream;
}

// ---- callbacks ----

CALLBACK(proxy_on_context_create) void context_create(uint32_t context, uint32_t parent) {
  if (parent) context_put(&root_of_stream, context, (void *)(uintptr_t)parent);
}

CALLBACK(proxy_on_configure) bool configure(uint32_t id, size_t size) {
  struct root *root = (struct root *)allocate(sizeof *root);
  if (!read_configuration(root)) return free(root), false;
  // One before it is not freed: streams may still be under it, and hosts configure a root once.
  context_take(&roots, id);
  context_put(&roots, id, root);
  return true;
}

CALLBACK(proxy_on_request_headers) uint32_t request_headers(uint32_t context, uint32_t count, bool end_of_stream) {
  const struct root *root = context_get(&roots, (uint32_t)(uintptr_t)context_get(&root_of_stream, context));
  if (!root || context_get(&streams, context)) return CONTINUE;
  struct stream *stream = choose(root);
  if (root->response) context_put(&streams, context, stream);
  else free(stream);
  return CONTINUE;
}

CALLBACK(proxy_on_response_headers) uint32_t response_headers(uint32_t context, uint32_t count, bool end_of_stream) {
  const struct stream *stream = context_get(&streams, context);
  if (stream) set_header(RESPONSE_HEADERS, stream->root->header, (struct text){stream->id, stream->length});
  return CONTINUE;
}

CALLBACK(proxy_on_delete) void delete(uint32_t context) {
  free(context_take(&streams, context));
  if (!context_take(&root_of_stream, context)) free(context_take(&roots, context));
}
