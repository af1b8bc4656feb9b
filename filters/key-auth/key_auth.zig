//! key-auth: admits requests with an API key, and tells the service in `x-consumer` whose it is.
//!
//! Keys are kept as SHA-256. That is enough for keys, which are long and random, as passwords are not; so a key is
//! looked up by its hash, and where the search ends tells nobody anything about other keys.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");

pub const panic = pw.panic;

const Sha256 = std.crypto.hash.sha2.Sha256;
const Digest = [Sha256.digest_length]u8;

const longest_key = 512;

const Root = struct {
    consumers: std.array_hash_map.Auto(Digest, []const u8),
    header: []const u8,
    query: ?[]const u8,
    consumer_header: []const u8,
    forward: bool,
    challenge: []const u8,

    fn consumerOf(self: *const Root, key: []const u8) ?[]const u8 {
        if (key.len == 0 or key.len > longest_key) return null;
        var digest: Digest = undefined;
        Sha256.hash(key, &digest, .{});
        return self.consumers.get(digest);
    }

    pub fn read(reader: config.Reader) config.Error!Root {
        const settings = try reader.object();
        try reader.onlyKeys(settings, "the configuration", &.{ "keys", "header", "query", "consumer_header", "forward", "realm" });
        var root = Root{
            .consumers = .empty,
            .header = "x-api-key",
            .query = null,
            .consumer_header = "x-consumer",
            .forward = false,
            .challenge = undefined,
        };
        if (settings.get("header")) |value| root.header = try reader.asHeaderName(value, "header");
        if (settings.get("consumer_header")) |value| root.consumer_header = try reader.asHeaderName(value, "consumer_header");
        if (settings.get("forward")) |value| root.forward = try reader.asBool(value, "forward");
        if (settings.get("query")) |value| {
            const name = try reader.asString(value, "query");
            for (name) |byte| {
                if (!std.ascii.isAlphanumeric(byte) and byte != '_' and byte != '-')
                    return reader.refuse("query: letters, digits, '-' and '_' only", .{});
            }
            if (name.len == 0) return reader.refuse("query: is empty", .{});
            root.query = name;
        }
        const realm = if (settings.get("realm")) |value| try reader.asHeaderValue(value, "realm") else "restricted";
        if (std.mem.findAny(u8, realm, "\"\\") != null) return reader.refuse("realm: without quotes and backslashes", .{});
        const scheme = if (std.mem.eql(u8, root.header, "authorization")) "Bearer" else "ApiKey";
        root.challenge = try std.fmt.allocPrint(reader.arena, "{s} realm=\"{s}\"", .{ scheme, realm });

        const keys = try reader.asObject(settings.get("keys") orelse return reader.refuse("keys: is missing", .{}), "keys");
        if (keys.count() == 0) return reader.refuse("keys: is empty, nobody could get in", .{});
        for (keys.keys(), keys.values()) |name, value| {
            if (name.len == 0 or config.hasControls(name)) return reader.refuse("keys: '{s}' cannot be a name", .{name});
            // A consumer may have two keys, so that one can be replaced at leisure.
            if (value == .array) {
                if (value.array.items.len == 0) return reader.refuse("keys.{s}: is empty", .{name});
                for (value.array.items) |item| try root.addKey(reader, name, item);
            } else try root.addKey(reader, name, value);
        }
        return root;
    }

    fn addKey(self: *Root, reader: config.Reader, name: []const u8, value: config.Value) config.Error!void {
        const prefix = "sha256:";
        var digest: Digest = undefined;
        const well_formed = value == .string and value.string.len == prefix.len + 2 * digest.len and
            std.mem.startsWith(u8, value.string, prefix);
        if (!well_formed) return reader.refuse("keys.{s}: must be 'sha256:' and 64 hex digits (the README has the command)", .{name});
        _ = std.fmt.hexToBytes(&digest, value.string[prefix.len..]) catch
            return reader.refuse("keys.{s}: must be 'sha256:' and 64 hex digits (the README has the command)", .{name});
        const entry = try self.consumers.getOrPut(reader.arena, digest);
        if (entry.found_existing) return reader.refuse("keys.{s}: is the key of {s} too", .{ name, entry.value_ptr.* });
        entry.value_ptr.* = name;
    }
};

var roots: config.Roots(Root, "key-auth") = .{};

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, _: bool) pw.Action {
    const root = roots.of(context) orelse {
        pw.sendLocalResponse(500, "key_auth_not_configured", "", &.{});
        return .pause;
    };
    pw.request_headers.removeSpellings(&.{root.consumer_header});
    if (pw.request_headers.get(root.header)) |field| {
        defer pw.free(field);
        const consumer = root.consumerOf(keyOf(root, field)) orelse return deny(root, "key_auth_unknown_key");
        // The one that was looked at, if the client sent several: the service could look at another.
        if (root.forward) pw.request_headers.set(root.header, field) else pw.request_headers.remove(root.header);
        pw.request_headers.set(root.consumer_header, consumer);
        return .proceed;
    }
    const name = root.query orelse return deny(root, "key_auth_no_key");
    const path = pw.request_headers.get(":path") orelse return deny(root, "key_auth_no_key");
    defer pw.free(path);
    const place = findParameter(path, name) orelse return deny(root, "key_auth_no_key");
    const consumer = root.consumerOf(path[place.value..place.end]) orelse return deny(root, "key_auth_unknown_key");
    if (!root.forward) removeParameter(path, place);
    pw.request_headers.set(root.consumer_header, consumer);
    return .proceed;
}

export fn proxy_on_delete(context: u32) void {
    roots.delete(context);
}

fn deny(root: *const Root, details: []const u8) pw.Action {
    pw.sendLocalResponse(401, details, "401 Unauthorized\n", &.{.{ "www-authenticate", root.challenge }});
    return .pause;
}

fn keyOf(root: *const Root, field: []const u8) []const u8 {
    if (!std.mem.eql(u8, root.header, "authorization")) return field;
    const scheme = "bearer ";
    const is_bearer = field.len > scheme.len and std.ascii.eqlIgnoreCase(field[0..scheme.len], scheme);
    return if (is_bearer) std.mem.trim(u8, field[scheme.len..], " ") else "";
}

/// Where a parameter stands in a path: from its name on, from its value on, and up to where.
const Place = struct { start: usize, value: usize, end: usize };

/// The only parameter of that name in the query. Keys are taken as they are, without %-decoding: make them of letters
/// and digits. Null if there is none, or more than one.
fn findParameter(path: []const u8, name: []const u8) ?Place {
    var found: ?Place = null;
    var start = (std.mem.findScalar(u8, path, '?') orelse return null) + 1;
    while (start <= path.len) {
        const end = std.mem.findScalarPos(u8, path, start, '&') orelse path.len;
        const parameter = path[start..end];
        if (parameter.len > name.len and parameter[name.len] == '=' and std.mem.startsWith(u8, parameter, name)) {
            if (found != null) return null;
            found = .{ .start = start, .value = start + name.len + 1, .end = end };
        }
        start = end + 1;
    }
    return found;
}

fn removeParameter(path: []const u8, place: Place) void {
    // With the '&' behind it, or else with the '&' or '?' before it.
    const is_last = place.end == path.len;
    const before = if (is_last) path[0 .. place.start - 1] else path[0..place.start];
    const after = if (is_last) "" else path[place.end + 1 ..];
    const rest = std.mem.concat(pw.allocator, u8, &.{ before, after }) catch pw.outOfMemory();
    defer pw.allocator.free(rest);
    pw.request_headers.set(":path", rest);
}
