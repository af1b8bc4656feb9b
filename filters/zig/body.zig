//! Which bodies a filter can read and edit, and what has to be said of those that it edits.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");

/// Media types as a configuration lists them: `text/html`, `text/*`, or `*+json` for a suffix.
pub const Types = struct {
    patterns: []const []const u8,

    /// Of a content-type, in any case and with parameters.
    pub fn has(self: Types, content_type: []const u8) bool {
        const end = std.mem.findScalar(u8, content_type, ';') orelse content_type.len;
        const media_type = std.mem.trim(u8, content_type[0..end], " \t");
        for (self.patterns) |pattern| {
            if (std.mem.endsWith(u8, pattern, "/*")) {
                if (std.ascii.startsWithIgnoreCase(media_type, pattern[0 .. pattern.len - 1])) return true;
            } else if (pattern[0] == '*') {
                if (std.ascii.endsWithIgnoreCase(media_type, pattern[1..])) return true;
            } else if (std.ascii.eqlIgnoreCase(media_type, pattern)) {
                return true;
            }
        }
        return false;
    }

    pub fn read(reader: config.Reader, value: config.Value) config.Error!Types {
        const items = try reader.asList(value, "types");
        if (items.len == 0) return reader.refuse("types: is empty, no body would be looked at", .{});
        const patterns = try reader.arena.alloc([]const u8, items.len);
        for (patterns, items) |*pattern, item| {
            pattern.* = try reader.asString(item, "types[]");
            const slash = std.mem.findScalar(u8, pattern.*, '/') orelse 0;
            const is_suffix = std.mem.startsWith(u8, pattern.*, "*+") and pattern.len > 2 and slash == 0;
            const is_type = slash > 0 and slash + 1 < pattern.len and std.mem.findAny(u8, pattern.*, "; ") == null;
            if (!is_suffix and !is_type)
                return reader.refuse("types[]: '{s}' is not a media type such as text/html, text/* or *+json", .{pattern.*});
        }
        return .{ .patterns = patterns };
    }
};

/// Whether a message is compressed, or otherwise encoded.
pub fn isEncoded(headers: pw.HeaderMap) bool {
    const encoding = headers.get("content-encoding") orelse return false;
    defer pw.free(encoding);
    return !std.ascii.eqlIgnoreCase(std.mem.trim(u8, encoding, " \t"), "identity");
}

/// A part of a representation has its place in it by byte numbers (RFC 9110 section 14).
pub fn isPartial() bool {
    const range = pw.response_headers.get("content-range") orelse return false;
    pw.free(range);
    return true;
}

/// Takes out of a head what will not be true of the edited body. A strong validator stands for the body byte for byte
/// (RFC 9110 section 8.8.1), so an entity tag becomes a weak one.
pub fn announceEdit(headers: pw.HeaderMap) void {
    headers.remove("content-length");
    if (headers == .request) return;
    for ([_][]const u8{ "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest" }) |name| headers.remove(name);
    const etag = headers.get("etag") orelse return;
    defer pw.free(etag);
    if (std.mem.startsWith(u8, etag, "W/")) return;
    const weak = std.mem.concat(pw.allocator, u8, &.{ "W/", etag }) catch pw.outOfMemory();
    defer pw.allocator.free(weak);
    headers.set("etag", weak);
}
