//! cors: answers preflight requests and tells browsers which other origins may read responses (Fetch standard,
//! section 3.2). It keeps nobody out: browsers do.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");

pub const panic = pw.panic;

const response_names = [_][]const u8{
    "access-control-allow-origin",  "access-control-allow-credentials", "access-control-expose-headers",
    "access-control-allow-methods", "access-control-allow-headers",     "access-control-max-age",
};

const Origin = union(enum) {
    any,
    exact: []const u8,
    /// `https://*.example.com`: what stands before and after the star.
    subdomains: struct { before: []const u8, after: []const u8 },

    fn matches(self: Origin, origin: []const u8) bool {
        switch (self) {
            .any => return true,
            .exact => |text| return std.mem.eql(u8, text, origin),
            .subdomains => |parts| {
                if (origin.len <= parts.before.len + parts.after.len) return false;
                if (!std.mem.startsWith(u8, origin, parts.before) or !std.mem.endsWith(u8, origin, parts.after)) return false;
                for (origin[parts.before.len .. origin.len - parts.after.len]) |byte| {
                    if (!std.ascii.isLower(byte) and !std.ascii.isDigit(byte) and byte != '-' and byte != '.') return false;
                }
                return true;
            },
        }
    }
};

const Root = struct {
    origins: []const Origin,
    any: bool,
    methods: []const u8,
    headers: []const u8,
    expose: []const u8,
    credentials: bool,
    max_age: []const u8,

    fn admits(self: *const Root, origin: []const u8) bool {
        for (self.origins) |one| {
            if (one.matches(origin)) return true;
        }
        return false;
    }

    pub fn read(reader: config.Reader) config.Error!Root {
        const settings = try reader.object();
        try reader.onlyKeys(settings, "the configuration", &.{ "origins", "methods", "headers", "expose", "credentials", "max_age" });
        var root: Root = undefined;
        root.credentials = if (settings.get("credentials")) |value| try reader.asBool(value, "credentials") else false;
        const texts = try reader.asStrings(settings.get("origins") orelse
            return reader.refuse("origins: is missing", .{}), "origins", "origins[]");
        if (texts.len == 0) return reader.refuse("origins: is empty", .{});
        const origins = try reader.arena.alloc(Origin, texts.len);
        root.any = false;
        for (origins, texts) |*origin, text| {
            origin.* = try readOrigin(reader, text);
            if (origin.* == .any) root.any = true;
        }
        if (root.any and root.credentials)
            return reader.refuse("origins: '*' with credentials would let every site act as its visitor; name the origins", .{});
        root.origins = origins;
        root.methods = try list(reader, settings, "methods", "GET, HEAD, POST");
        root.headers = try list(reader, settings, "headers", "");
        root.expose = try list(reader, settings, "expose", "");
        const max_age = if (settings.get("max_age")) |value| try reader.asInteger(value, "max_age", 0, 86_400) else 600;
        root.max_age = try std.fmt.allocPrint(reader.arena, "{d}", .{max_age});
        return root;
    }

    fn readOrigin(reader: config.Reader, text: []const u8) config.Error!Origin {
        if (std.mem.eql(u8, text, "*")) return .any;
        const scheme = std.mem.find(u8, text, "://") orelse 0;
        const rest = text[@min(scheme + 3, text.len)..];
        for (text) |byte| {
            if (std.ascii.isUpper(byte) or byte <= ' ' or byte >= 0x7f) return malformed(reader, text);
        }
        if (scheme == 0 or rest.len == 0 or std.mem.findAny(u8, rest, "/?#@,") != null) return malformed(reader, text);
        const star = std.mem.findScalar(u8, text, '*') orelse return .{ .exact = text };
        if (!std.mem.startsWith(u8, rest, "*.") or rest.len == 2 or std.mem.findScalarLast(u8, text, '*').? != star)
            return malformed(reader, text);
        return .{ .subdomains = .{ .before = text[0..star], .after = text[star + 1 ..] } };
    }

    fn malformed(reader: config.Reader, text: []const u8) config.Error {
        return reader.refuse("origins[]: '{s}' is not *, https://host[:port] or https://*.host[:port], in lower case", .{text});
    }

    fn list(reader: config.Reader, settings: std.json.ObjectMap, comptime key: []const u8, default: []const u8) config.Error![]const u8 {
        const value = settings.get(key) orelse return default;
        const texts = try reader.asStrings(value, key, key ++ "[]");
        for (texts) |text| _ = try reader.asHeaderName(.{ .string = text }, key ++ "[]"); // a method is a token, as names are
        return std.mem.join(reader.arena, ", ", texts);
    }
};

var roots: config.Roots(Root, "cors") = .{};
/// Streams whose origin is admitted.
var streams: pw.ContextMap(struct { origin: []u8, preflight: bool }) = .{};

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, _: bool) pw.Action {
    const root = roots.of(context) orelse return .proceed;
    const origin = pw.request_headers.get("origin") orelse return .proceed;
    const preflight = isPreflight();
    if (root.admits(origin)) {
        streams.put(context, .{ .origin = origin, .preflight = preflight });
        if (!preflight) return .proceed;
        pw.sendLocalResponse(204, "cors_preflight", "", &.{}); // proxy_on_response_headers, which it passes, adds the rest
    } else {
        pw.free(origin);
        if (!preflight) return .proceed; // without headers for it, the browser shows the answer to nobody
        pw.sendLocalResponse(403, "cors_origin_not_admitted", "", &.{});
    }
    return .pause;
}

export fn proxy_on_response_headers(context: u32, _: u32, _: bool) pw.Action {
    const root = roots.of(context) orelse return .proceed;
    const headers = pw.response_headers;
    // What the service says about it gives way: two values are as good as none to a browser.
    for (response_names) |name| headers.remove(name);
    if (!root.any) headers.add("vary", "origin"); // a cache must not give one origin's answer to another
    const stream = streams.get(context) orelse return .proceed;
    headers.set("access-control-allow-origin", if (root.any) "*" else stream.origin);
    if (root.credentials) headers.set("access-control-allow-credentials", "true");
    if (stream.preflight) {
        headers.set("access-control-allow-methods", root.methods);
        if (root.headers.len > 0) headers.set("access-control-allow-headers", root.headers);
        headers.set("access-control-max-age", root.max_age);
    } else if (root.expose.len > 0) headers.set("access-control-expose-headers", root.expose);
    return .proceed;
}

export fn proxy_on_delete(context: u32) void {
    if (streams.get(context)) |stream| {
        pw.free(stream.origin);
        _ = streams.remove(context);
    }
    roots.delete(context);
}

/// Fetch standard, section 3.2.2: OPTIONS with access-control-request-method.
fn isPreflight() bool {
    const method = pw.request_headers.get(":method") orelse return false;
    defer pw.free(method);
    if (!std.mem.eql(u8, method, "OPTIONS")) return false;
    const asked = pw.request_headers.get("access-control-request-method") orelse return false;
    pw.free(asked);
    return true;
}
