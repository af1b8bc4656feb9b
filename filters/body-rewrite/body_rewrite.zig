//! body-rewrite: replaces literal text in bodies while they stream through, whatever the borders of their pieces.
//!
//! Rules work one after the other, each on what the one before it made, as in a pipeline of `sed` commands.

const std = @import("std");
const pw = @import("proxy_wasm");
const config = @import("config");
const body_of = @import("body");
const Rule = @import("replacer.zig").Rule;

pub const panic = pw.panic;

const longest_needle = 256; // so that what is held back of it, at most 255 bytes, counts in a u8
const longest_replacement = 4096;
const most_rules = 16;

/// What one configuration says.
const Root = struct {
    request: []const Rule,
    response: []const Rule,
    types: body_of.Types,
    force_identity: bool,

    pub const read = readConfiguration;
};

/// How many bytes of its needle each rule of one direction holds back.
const Progress = struct {
    rules: []const Rule,
    held: [most_rules]u8 = @splat(0),
};

var roots: config.Roots(Root, "body-rewrite") = .{};
// Only a body that is being edited has a Progress.
var requests: pw.ContextMap(Progress) = .{};
var responses: pw.ContextMap(Progress) = .{};

// What one rule makes for the next. Their contents last for one callback only, their memory is used again.
var buffers = [2]std.ArrayList(u8){ .empty, .empty };
const largest_idle_buffer = 2 * 1024 * 1024;

// ---- callbacks ----

export fn proxy_on_context_create(context: u32, parent: u32) void {
    roots.create(context, parent);
}

export fn proxy_on_configure(root: u32, _: usize) bool {
    return roots.configure(root);
}

export fn proxy_on_request_headers(context: u32, _: u32, end_of_stream: bool) pw.Action {
    const root = roots.of(context) orelse return .proceed;
    if (root.force_identity) pw.request_headers.set("accept-encoding", "identity");
    if (!end_of_stream and root.request.len > 0 and admits(root, pw.request_headers)) {
        body_of.announceEdit(pw.request_headers);
        requests.put(context, .{ .rules = root.request });
    }
    return .proceed;
}

export fn proxy_on_request_body(context: u32, size: usize, end_of_stream: bool) pw.Action {
    if (requests.get(context)) |progress| rewrite(progress, .request_body, size, end_of_stream);
    return .proceed;
}

export fn proxy_on_request_trailers(context: u32, _: u32) pw.Action {
    return endByTrailers(requests.get(context), .request);
}

export fn proxy_on_response_headers(context: u32, _: u32, end_of_stream: bool) pw.Action {
    const root = roots.of(context) orelse return .proceed;
    const headers = pw.response_headers;
    if (root.response.len == 0 or body_of.isPartial() or !admits(root, headers)) return .proceed;
    // What follows is true of HEAD as well: its headers are those that GET would have had.
    body_of.announceEdit(headers);
    if (!end_of_stream) responses.put(context, .{ .rules = root.response });
    return .proceed;
}

export fn proxy_on_response_body(context: u32, size: usize, end_of_stream: bool) pw.Action {
    if (responses.get(context)) |progress| rewrite(progress, .response_body, size, end_of_stream);
    return .proceed;
}

export fn proxy_on_response_trailers(context: u32, _: u32) pw.Action {
    return endByTrailers(responses.get(context), .response);
}

export fn proxy_on_delete(context: u32) void {
    roots.delete(context);
    _ = requests.remove(context);
    _ = responses.remove(context);
}

// ---- which messages ----

/// Whether a message with these headers is one to edit: of a configured type, not compressed, and not announcing
/// trailers (see endByTrailers).
fn admits(root: *const Root, headers: pw.HeaderMap) bool {
    const content_type = headers.get("content-type") orelse return false;
    defer pw.free(content_type);
    if (!root.types.has(content_type)) return false;

    if (headers.get("trailer")) |trailer| {
        pw.free(trailer);
        return false;
    }
    return !body_of.isEncoded(headers);
}

// ---- editing ----

/// Runs the piece in `body` through the rules. A piece that comes out as it went in is left alone.
fn rewrite(progress: *Progress, body: pw.Buffer, size: usize, end_of_stream: bool) void {
    const input = body.read(0, size);
    defer pw.free(input);
    var piece: []const u8 = input;
    var changes: usize = 0;
    for (progress.rules, progress.held[0..progress.rules.len]) |*rule, *held| {
        // A rule that changes nothing returns its input, so the buffers take turns by change, not by rule.
        const output = &buffers[changes % 2];
        const result = rule.feed(pw.allocator, held, piece, end_of_stream, output) catch pw.outOfMemory();
        if (result.ptr != piece.ptr) changes += 1;
        piece = result;
    }
    if (changes > 0) body.replace(piece);
    for (&buffers) |*buffer| {
        if (buffer.capacity > largest_idle_buffer) buffer.clearAndFree(pw.allocator);
    }
}

/// Trailers end a body without a last piece, and no host lets a filter add to the body then. Losing what is held back
/// would hand on a wrong body as if it were right, so the stream is reset in that (rare) case: trailers that nobody
/// announced, right after what may have been the beginning of a match.
fn endByTrailers(ended: ?*Progress, side: pw.StreamType) pw.Action {
    const progress = ended orelse return .proceed;
    for (progress.held[0..progress.rules.len]) |held| {
        if (held == 0) continue;
        pw.log(.err, "body-rewrite: unannounced trailers after a possible match; the stream is reset", .{});
        pw.closeStream(side);
        return .pause;
    }
    return .proceed;
}

// ---- reading the configuration ----

fn readConfiguration(reader: config.Reader) config.Error!Root {
    const settings = try reader.object();
    try reader.onlyKeys(settings, "the configuration", &.{ "request", "response", "types", "force_identity" });
    var root: Root = undefined;
    root.request = try readRules(reader, settings, "request");
    root.response = try readRules(reader, settings, "response");
    if (root.request.len + root.response.len == 0) return reader.refuse("neither request nor response has a rule", .{});
    root.types = if (settings.get("types")) |value| try body_of.Types.read(reader, value) else .{ .patterns = &.{"text/html"} };
    root.force_identity = if (settings.get("force_identity")) |value| try reader.asBool(value, "force_identity") else false;
    return root;
}

fn readRules(reader: config.Reader, settings: std.json.ObjectMap, comptime side: []const u8) config.Error![]const Rule {
    const value = settings.get(side) orelse return &.{};
    const items = try reader.asList(value, side);
    if (items.len > most_rules) return reader.refuse(side ++ ": {d} rules, at most {d} are allowed", .{ items.len, most_rules });
    const rules = try reader.arena.alloc(Rule, items.len);
    for (rules, items) |*rule, item| {
        const fields = try reader.asObject(item, side ++ "[]");
        try reader.onlyKeys(fields, side ++ "[]", &.{ "find", "replace" });
        const needle = try text(reader, fields, side, "find");
        const replacement = try text(reader, fields, side, "replace");
        if (needle.len == 0 or needle.len > longest_needle)
            return reader.refuse(side ++ "[].find: must be 1 to {d} bytes long", .{longest_needle});
        if (replacement.len > longest_replacement)
            return reader.refuse(side ++ "[].replace: must be at most {d} bytes long", .{longest_replacement});
        rule.* = try Rule.init(reader.arena, needle, replacement);
    }
    return rules;
}

fn text(reader: config.Reader, fields: std.json.ObjectMap, comptime side: []const u8, comptime key: []const u8) config.Error![]const u8 {
    const path = side ++ "[]." ++ key;
    return reader.asString(fields.get(key) orelse return reader.refuse(path ++ ": is missing", .{}), path);
}
